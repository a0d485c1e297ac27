"""The output files of a conversion: complete or invisible, never a mix of two conversions."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil
from collections.abc import Iterator

from ssd_centernet.data.directory import LABEL_MAP_NAME
from ssd_centernet.data.names import name_and_split
from ssd_centernet.files import remove_leftovers, write_atomically
from ssd_centernet.labels import LabelMap
from ssd_centernet.plain_text import counted


class SplitOutput:
    """The files of one split in an output folder.

    Shards are written to a hidden folder that readers do not look into, and moved when all are
    complete. The info file is written last and removed first: if it is there, everything is.

    Args:
        directory: the output folder.
        prefix: beginning of all file names, such as coco_train.
        num_shards: number of shards.
    """

    def __init__(self, directory: str | os.PathLike, *, prefix: str, num_shards: int) -> None:
        self.directory, self.prefix = os.fspath(directory), prefix
        self._num_shards = num_shards
        self._info_path = self._path(f"{prefix}.info.json")
        self._truth_path = self._path(f"{prefix}.annotations.json")
        self._partial = self._path(f".{prefix}.partial")

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def shard_names(self) -> list[str]:
        """Return the file names of the shards, `<prefix>.record-00000-of-00008`."""
        n = self._num_shards
        return [f"{self.prefix}.record-{i:05d}-of-{n:05d}" for i in range(n)]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the split against other conversions; the lock of a killed process is released.

        Other splits may be converted into the folder at the same time: `commit` locks the folder.

        Raises:
            BlockingIOError: if another process converts into the same files.
        """
        with open(self._path(f".{self.prefix}.lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BlockingIOError(
                    f"Another process is converting {self.prefix} into {self.directory}. "
                    "Wait for it, or choose another output_dir."
                ) from error
            remove_leftovers(self.directory, [f"{self.prefix}.*.json", LABEL_MAP_NAME])
            yield

    def finished_info(self) -> dict | None:
        """Return the info of a complete conversion, or None if there is none."""
        try:
            with open(self._info_path, encoding="utf-8") as file:
                info = json.load(file)
            for shard in info["shards"]:
                if os.path.getsize(self._path(shard["file"])) != shard["bytes"]:
                    return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        whole = isinstance(info.get("input"), dict) and os.path.exists(self._truth_path)
        return info if whole else None

    def check_owner(self, finished: dict | None, name: str, split: str) -> None:
        """Raise an error where the files are those of another split of another data set.

        Args:
            finished: the result of `finished_info`.
            name: of the data set, such as a.
            split: such as train_val; a_train with the split val would have the same files.

        Raises:
            FileExistsError: they are.
        """
        owner = (name, split) if finished is None else name_and_split(self.prefix, finished)
        if owner == (name, split):
            return
        raise FileExistsError(
            f"{self.directory} holds {self.prefix} as the split {owner[1]!r} of the data set "
            f"{owner[0]!r}; the split {split!r} of {name!r} would have the same files: give "
            "another name (--name), another split, or another output_dir."
        )

    def check_replaceable(self, finished: dict | None, overwrite: bool) -> None:
        """Raise an error if there are shards of another conversion.

        Args:
            finished: the result of `finished_info`.
            overwrite: whether the user agreed to lose them.

        Raises:
            FileExistsError: if there are shards, and `overwrite` is off.
        """
        shards = self._existing_shards()
        # The hidden folder beside shards without info: our own move was interrupted.
        interrupted = finished is None and os.path.isdir(self._partial)
        if not shards or overwrite or interrupted:
            return
        state = "of a conversion with other input" if finished else "without a valid info file"
        raise FileExistsError(
            f"{self.directory} already holds {counted(len(shards), 'shard')} of {self.prefix} "
            f"{state}, for example {os.path.basename(shards[0])}. Shards of two conversions must "
            "not be mixed: choose another output_dir, or set overwrite (--overwrite) to replace "
            "them."
        )

    def check_label_map(self, label_map: LabelMap, overwrite: bool = False) -> None:
        """Raise an error unless the label map is that of the splits already in the folder.

        Args:
            label_map: the label map of this conversion.
            overwrite: whether a map that no other split uses may be replaced.

        Raises:
            ValueError: if the folder has a different label map.
        """
        path = self._path(LABEL_MAP_NAME)
        if not os.path.exists(path):
            return
        existing = LabelMap.from_pbtxt(path)
        others = set(glob.glob(self._path("*.info.json"))) - {self._info_path}
        if existing == label_map or (overwrite and not others):
            return
        raise ValueError(
            f"{path} has {existing.describe()}, but this split has {label_map.describe()}. "
            "All splits of an output_dir share a label map: give that file as label_map, or choose "
            "another output_dir."
        )

    @contextlib.contextmanager
    def partial_folder(self) -> Iterator[str]:
        """Make an empty hidden folder on the same file system; remove it at the end."""
        self.remove_partial()
        os.makedirs(self._partial)
        try:
            yield self._partial
        finally:
            self.remove_partial()

    def remove_partial(self) -> None:
        """Remove the hidden folder, also that of a killed conversion."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def commit(
        self,
        folder: str,
        info: dict,
        ground_truth: dict,
        label_map: LabelMap,
        overwrite: bool = False,
    ) -> None:
        """Replace the split's files by those of a complete conversion.

        Args:
            folder: folder of the new shards.
            info: content of the info file.
            ground_truth: content of the annotations file.
            label_map: the label map; written if it is not there.
            overwrite: as in `check_label_map`.

        Raises:
            ValueError: meanwhile another split was written with other classes; nothing is changed.
        """
        # The conversions of all splits take their turn here, a matter of renaming files.
        with open(self._path(".convert.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.check_label_map(label_map, overwrite)
            self._replace(folder, info, ground_truth, label_map)

    def _replace(self, folder: str, info: dict, ground_truth: dict, label_map: LabelMap) -> None:
        """Remove what says that the split is complete, then replace its files, that one last."""
        for name in (self._info_path, self._truth_path):
            with contextlib.suppress(FileNotFoundError):
                os.remove(name)
        for shard in self._existing_shards():
            os.remove(shard)
        for name in self.shard_names():
            os.replace(os.path.join(folder, name), self._path(name))
        write_atomically(self._truth_path, json.dumps(ground_truth))
        label_map.to_pbtxt(self._path(LABEL_MAP_NAME))
        write_atomically(self._info_path, json.dumps(info, indent=1))

    def _existing_shards(self) -> list[str]:
        pattern = glob.escape(self._path(self.prefix)) + "*.record-*-of-*"
        head = f"{self.prefix}.record-"
        return sorted(p for p in glob.glob(pattern) if os.path.basename(p).startswith(head))
