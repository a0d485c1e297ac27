"""The data of a run: converted from a user's annotations, and found again later."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ssd_centernet.config.text import read_bindings
from ssd_centernet.data.convert_formats import check_annotations, convert_annotations, told
from ssd_centernet.data.directory import annotations_path
from ssd_centernet.data.names import COCO, names_in
from ssd_centernet.data.readers import detect_format
from ssd_centernet.data.readers.splits import holds_validation
from ssd_centernet.data.splits import list_splits, read_info
from ssd_centernet.files import read_object, remove_folder, remove_leftovers
from ssd_centernet.labels import LabelMap
from ssd_centernet.plain_text import counted
from ssd_centernet.run_directory import (
    CONFIG_NAME,
    CONVERTED_DATA_DIR,
    has_checkpoint,
    refuse_wildcards,
)
from ssd_centernet.runs.opened import DEFAULT_SPLIT
from ssd_centernet.training.log_files import recorded_sessions

# Formats whose images are not found beside the annotations.
_WITHOUT_IMAGES = ("coco", "csv")
# What errors of a conversion call its options.
_OPTIONS = "max_|box_units|label.?map|drop_unknown|first_pixel|format|image_list|keep_"


class _ValidationError(Exception):
    """Carry an error of the validation split out of the conversion of the other one."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnData:
    """Hold annotations to train on as they are, without a conversion by hand.

    Attributes:
        model_dir: directory of the run.
        data_dir: where the records go; None is a folder in the run's directory.
        annotations: of the training, in any format of `data.readers`.
        image_dir: folder of their images; None lets the reader find it.
        val_annotations: of the evaluation; None takes the split `val` of `annotations` if they hold
            one.
        val_image_dir: folder of its images; None is `image_dir` where the format needs one.
    """

    model_dir: str
    annotations: str
    data_dir: str | None = None
    image_dir: str | None = None
    val_annotations: str | None = None
    val_image_dir: str | None = None

    def __post_init__(self):
        """Refuse a folder of images without annotations for it, and records for annotations."""
        for flag in ("annotations", "val_annotations"):
            if path := getattr(self, flag):
                _refuse_records(f"--{flag}={path}", path)
        if self.val_image_dir and not self.has_validation:
            raise ValueError(
                f"--val_image_dir={self.val_image_dir} has no annotations: give --val_annotations "
                "too, or leave it out."
            )

    @property
    def folder(self) -> str:
        """Return the folder of the records."""
        return self.data_dir or os.path.join(self.model_dir, CONVERTED_DATA_DIR)

    @property
    def has_validation(self) -> bool:
        """Tell whether there is a split to evaluate on."""
        return self.val_annotations is not None or holds_validation(self.annotations)

    def convert(self, train_split: str, eval_split: str | None, say: Callable[[str], None]) -> None:
        """Write the records, or find that they are there already.

        Args:
            train_split: what the names of the records to train on start with.
            eval_split: the same of the evaluation; None converts no such split.
            say: told what was read, dropped and repaired.

        Raises:
            FileExistsError: the records in the folder are of other annotations.
            FileNotFoundError, ValueError: see `convert_annotations`; the message names the split.
        """
        for flag, split in (("--train_split", train_split), ("--eval_split", eval_split)):
            if split and not split.startswith("coco_"):
                raise ValueError(
                    f"the recipe's {flag.lstrip('-')} is {split!r}, but records that --annotations "
                    f"is converted to begin with coco_: give {flag}=coco_{split}."
                )
        # Before minutes of conversion, not after them.
        refuse_wildcards(self.model_dir, "--model_dir", "a training there could not be resumed")
        # Of a run that has not begun: its annotations may have been corrected since.
        own = self.data_dir is None and not has_checkpoint(self.model_dir)
        if self.data_dir is None:
            self._mend()
        replaceable = own and any(Path(self.folder).glob("*.info.json"))
        evaluated = bool(eval_split and self.has_validation)
        validation = self._validation(eval_split) if evaluated else None
        given = ("--annotations", self.annotations, self.image_dir, train_split, say)
        # Minutes of pictures are not converted for a training that the other split would end.
        look = functools.partial(self._check_split, *validation) if evaluated else None
        try:
            try:
                self._convert_split(*given, when_read=look)
            except (FileExistsError, ValueError):
                if not replaceable:
                    raise
                say(f"{self.folder} is of other annotations, and nothing is trained yet: it goes.")
                self._convert_anew(*given, when_read=look)
        except _ValidationError as found:
            raise found.error from found.error.__cause__
        if not evaluated:
            say(
                "no annotations to evaluate on: the run is not evaluated, and keeps no best "
                "checkpoint. Give --val_annotations to have both."
            )
            return
        # The training split is right by now, and stays whatever becomes of this one.
        self._convert_split(*validation, say, overwrite=own and eval_split != train_split)

    def _validation(self, eval_split: str) -> tuple[str, str, str | None, str]:
        """Return flag, annotations, folder of images and name of the split to evaluate on."""
        path, images = self.val_annotations or self.annotations, self.val_image_dir
        if images is None and path == self.annotations:
            images = None if detect_format(path) == "yolo" else self.image_dir
        elif images is None and detect_format(path) in _WITHOUT_IMAGES:
            images = self.image_dir
        return "--val_annotations", path, images, eval_split

    def _check_split(
        self, flag: str, path: str, image_dir: str | None, split: str, label_map: LabelMap
    ) -> None:
        """Read a split before another one is converted."""
        name = split.removeprefix("coco_")
        try:
            with self._errors_named(flag, path, image_dir, name):
                check_annotations(path, label_map=label_map, image_dir=image_dir, split=name)
        except (FileNotFoundError, ValueError) as error:
            raise _ValidationError(error) from error

    def _convert_anew(self, *given, **options) -> None:
        """Replace all records; where new ones cannot be made, those of before stay."""
        before = self._before
        os.rename(self.folder, before)
        try:
            self._convert_split(*given, **options)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            os.rename(before, self.folder)
            raise
        remove_folder(before)

    @property
    def _before(self) -> str:
        return f"{self.folder}.before"

    def _mend(self) -> None:
        """Put back what a killed process had moved aside, and remove what it had written."""
        remove_leftovers(self.model_dir, [f"{CONVERTED_DATA_DIR}*"])
        if os.path.exists(self._before):
            if os.path.exists(self.folder):
                remove_folder(self.folder)
            os.rename(self._before, self.folder)

    def _convert_split(
        self,
        flag: str,
        path: str,
        image_dir: str | None,
        split: str,
        say: Callable[[str], None],
        **options,
    ) -> None:
        written, role = [], split.removeprefix("coco_")
        look = options.pop("when_read", None)

        def when_read(label_map: LabelMap) -> None:
            written.append(label_map)
            if look is not None:
                look(label_map)

        try:
            with self._errors_named(flag, path, image_dir, role):
                info = convert_annotations(
                    path,
                    self.folder,
                    image_dir=image_dir,
                    split=role,
                    name=self._name,
                    when_read=when_read,
                    **options,
                )
        except FileExistsError as error:
            raise FileExistsError(
                f"{self.folder} holds records of other annotations or images than {flag}={path}, "
                "or they were converted with other options. "
                "A run goes on with the data that it began with: leave out --annotations and give "
                f"--data_dir={self.folder} to go on with these, or another --model_dir for the new "
                "ones (--fine_tune_checkpoint takes over the weights)."
            ) from error
        split = f"{info['name']}_{role}"
        if written:
            say(f"{split}: {path} is converted.")
            say(told(info, self.folder))
        else:
            say(
                f"{split}: {path} was converted before: {counted(info['num_images'], 'image')}, "
                f"{counted(info['num_objects'], 'object')} in {self.folder}"
            )

    @property
    def _name(self) -> str | None:
        """Return how records are named: as `convert` does it in a folder that the user chose."""
        chosen = self.data_dir is not None and len(names_in(self.data_dir)) < 2
        return None if chosen else COCO

    @contextlib.contextmanager
    def _errors_named(
        self, flag: str, path: str, image_dir: str | None, name: str
    ) -> Iterator[None]:
        """Say in errors of a conversion which flag they are about, and how its options are set."""
        try:
            yield
        except (FileNotFoundError, ValueError) as error:
            # Errors of decoders have constructors of their own.
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            where = "" if path in str(error) else f"{flag}={path}: "
            setting = ""
            if "image_dir" in str(error):
                folder = flag.replace("annotations", "image_dir")
                setting = f" Their image_dir is {folder}={image_dir or 'FOLDER'} here."
            options = self._options(str(error), path, image_dir, name)
            raise kind(f"{where}{error}{setting}{options}") from error

    def _options(self, text: str, path: str, image_dir: str | None, split: str) -> str:
        """Say how an option of the conversion is given, where an error asks for one."""
        if not re.search(_OPTIONS, text):
            return ""
        images = f" --image_dir={image_dir}" if image_dir else ""
        return (
            f" Options are flags of the conversion: run `ssd_centernet convert --annotations={path}"
            f"{images} --output_dir={self.folder} --split={split}` with them, and train with "
            f"--data_dir={self.folder}."
        )


def coco_download(folder: str | os.PathLike) -> dict[str, str] | None:
    """Find COCO 2017 in a folder as it is downloaded: annotations/, train2017/ and val2017/.

    Args:
        folder: that may hold it.

    Returns:
        `annotations`, `image_dir` and, where they are there, `val_annotations` and
        `val_image_dir` of `OwnData`; None where the folder holds records, or no such data set.
    """
    found = {}
    for prefix, split in (("", "train2017"), ("val_", "val2017")):
        annotations = os.path.join(folder, "annotations", f"instances_{split}.json")
        images = os.path.join(folder, split)
        if os.path.isfile(annotations) and os.path.isdir(images):
            found |= {f"{prefix}annotations": annotations, f"{prefix}image_dir": images}
    return found if "annotations" in found and not list_splits(folder) else None


def _refuse_records(given: str, path: str) -> None:
    """Raise an error where a folder holds records and no annotations."""
    try:
        detect_format(path)
    except ValueError:
        if splits := list_splits(path):
            raise ValueError(
                f"{given} holds records ({', '.join(list(splits)[:4])}) and no annotations: give "
                f"--data_dir={path} to use them as they are."
            ) from None


def data_of_run(model_dir: str | os.PathLike) -> str | None:
    """Find the data that a run was trained on.

    Args:
        model_dir: directory of the run.

    Returns:
        The folder that the last training said, or the one in the run's directory, where it still
        holds data; None where no such folder is there.
    """
    begun = [one for one in recorded_sessions(model_dir) if one.get("event") == "begin"]
    told = [one.get("data_dir") for one in reversed(begun)]
    for folder in (*told, os.path.join(model_dir, CONVERTED_DATA_DIR)):
        if isinstance(folder, str) and Path(folder).is_dir() and any(Path(folder).iterdir()):
            return folder
    return None


def eval_split_of_run(model_dir: str | os.PathLike) -> str:
    """Return what the names of the records start with that a run is evaluated on."""
    settings = Path(model_dir) / CONFIG_NAME
    bound = read_bindings(settings).get("train.eval_split", "") if settings.is_file() else ""
    split = bound.strip("'\"")
    return split if split not in ("", "None") else DEFAULT_SPLIT


def images_of_split(data_dir: str | os.PathLike, split: str) -> list[str]:
    """List the image files that a split was converted from, where they are still there.

    Args:
        data_dir: folder of converted data.
        split: what the names of its records start with.

    Returns:
        Paths in the order of the records, those of tiles once; empty where the folder does not say
        them.

    Raises:
        ValueError: a file of the folder is damaged.
    """
    info, truth = read_info(data_dir, split), annotations_path(data_dir, split)
    if truth is None or not (info and info.get("image_dir")):
        return []
    try:
        images = (read_object(truth) or {})["images"]
        names = (image.get("tile_of", image)["file_name"] for image in images)
        paths = [os.path.join(info["image_dir"], name) for name in dict.fromkeys(names)]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{truth} is damaged: expected the images that `ssd_centernet convert` wrote there. "
            "Convert the split again with --overwrite, or give image files after the flags."
        ) from error
    return [path for path in paths if os.path.isfile(path)]
