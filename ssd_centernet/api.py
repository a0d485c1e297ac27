"""Recipes, runs and converted data in Python: what a notebook needs, without gin or flags.

Recipes are gin files all the same. Each function here reads them in a configuration of its own, so
that what a caller has set with gin himself stays exactly as it was.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from ssd_centernet import config
from ssd_centernet.building import UnknownClassesError, build_detector
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.pipeline import FILLER_ID, evaluation_batches
from ssd_centernet.drawing.chart import check_installed
from ssd_centernet.evaluation.result import CocoResult
from ssd_centernet.labels import LabelMap
from ssd_centernet.models.detector import Detector
from ssd_centernet.models.saved import load_keras_file
from ssd_centernet.recipe import Recipe
from ssd_centernet.run_directory import CONFIG_NAME
from ssd_centernet.runs.evaluation import evaluate_run, report_evaluation
from ssd_centernet.runs.opened import OpenedRun, open_run

# Options of `training_data` that are settings of a recipe; the others are of its `batches`.
_SETTINGS = ("train_split", "batch_size", "keep_empty", "crowd", "seed")


class TrainingData(NamedTuple):
    """Hold what `fit` needs of a split.

    Attributes:
        batches: an endless data set that goes on from epoch to epoch.
        steps_per_epoch: batches in one pass over the images.
    """

    batches: tf.data.Dataset
    steps_per_epoch: int


def build(
    recipe: str | os.PathLike,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    label_map: LabelMap | None = None,
    image_size: int | tuple[int, int] | None = None,
    dtype: str | None = None,
    settings: str | Sequence[str] = (),
) -> Detector:
    """Build the detector of a recipe, with fresh weights.

    Args:
        recipe: name of an installed recipe such as 'ssd300_resnet34', or path of a gin file.
        num_classes: C, background not counted; not needed beside one of the next two.
        class_names: names of the C classes.
        label_map: names and ids of the C classes, such as that of converted data.
        image_size: (height, width) of the network's input in pixels, or one number for both; None
            is that of the recipe.
        dtype: 'fp32', 'bf16' or 'fp16'; weights are float32 under each. None is what the recipe
            says, fp32 in those that are installed.
        settings: gin bindings that win over the recipe's: 'SSDDecoder.score_threshold = 0.3'.

    Returns:
        The detector: a Keras model.

    Raises:
        FileNotFoundError: no such recipe; names near ones and all that there are.
        ValueError: the number of classes is unknown or said in two ways that differ, or a setting
            does not exist or is not used by this recipe.
    """
    if class_names is not None:
        if label_map is not None:
            raise ValueError("give class_names or label_map, not both: a label map has the names.")
        label_map = LabelMap(class_names)
    if label_map is not None and num_classes not in (None, label_map.num_classes):
        raise ValueError(
            f"num_classes={num_classes} and {label_map.num_classes} names were given: background "
            "is not a class. Leave num_classes out: it follows from the names."
        )
    with _own_configuration():
        config.parse([recipe], [*_size_setting(image_size), *_lines(settings)])
        chosen: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
        if label_map is not None:
            # What the recipe says of its own classes was for its own data.
            num_classes = label_map.num_classes
        if num_classes is not None:
            chosen["num_classes"] = num_classes
        try:
            detector = build_detector(label_map=label_map, **chosen)
        except UnknownClassesError as error:
            raise ValueError(
                f"the recipe {os.fspath(recipe)!r} leaves the classes to the data: give "
                "num_classes=, class_names= or label_map=, such as build(..., num_classes=3)."
            ) from error
        # IMAGE_SIZE may be set where a recipe spells its size out; that would change nothing.
        config.assert_all_used(overrides_only=True)
    return detector


def load(
    path: str | os.PathLike, *, checkpoint: str | None = None, settings: str | Sequence[str] = ()
) -> Detector:
    """Load a trained detector: of a run of `ssd_centernet train`, or of a `.keras` file.

    Args:
        path: directory of a run, a checkpoint in it ('runs/x/ckpt-500', 'runs/x/best'), or a file
            that `detector.save` wrote.
        checkpoint: which one of a run: 'best', 'latest' or a name such as 'ckpt-500'; None is the
            best one, or the latest where none was kept as the best.
        settings: gin bindings that win over those of the run: 'SSDDecoder.score_threshold = 0.3'.

    Returns:
        The detector with these weights and the names of its classes.

    Raises:
        FileNotFoundError: no such run, checkpoint or file; says what there is.
        ValueError: the weights do not fit the settings, or a setting has no effect.
    """
    path = Path(path).expanduser()
    if path.suffix == ".keras":
        if checkpoint is not None or settings:
            raise ValueError(f"{path} holds one detector: checkpoint and settings are for runs.")
        return _load_file(path)
    model_dir, inside = _run_and_checkpoint(path)
    if inside and checkpoint is not None:
        raise ValueError(
            f"{path} is a checkpoint already; give load({str(model_dir)!r}, "
            f"checkpoint={checkpoint!r}), or no checkpoint."
        )
    with _own_configuration():
        run = open_run(
            model_dir, checkpoint=inside or checkpoint, gin_params=_lines(settings), device=None
        )
    return run.detector


def training_data(
    data_dir: str | os.PathLike,
    detector: Detector,
    *,
    recipe: str | os.PathLike | None = None,
    batch_size: int = 8,
    split: str | None = None,
    settings: str | Sequence[str] = (),
    **options: Any,
) -> TrainingData:
    """Make batches to `fit` a detector on, as `ssd_centernet train` makes them.

    Args:
        data_dir: folder that `ssd_centernet convert` or `convert_annotations` wrote.
        detector: what is to be trained: its input's size, its normalisation, its targets.
        recipe: whose augmentation is used, and whose way with empty images and crowd regions;
            None resizes and normalises only.
        batch_size: images per step.
        split: prefix of the record files; None is that of the recipe, which is
            'coco_train' where it does not say.
        settings: gin bindings that win over the recipe's: 'SSDAugment.no_crop_probability = 0.9'.
        **options: of `data.pipeline.training_batches`, such as `seed`, `keep_empty`, `cache`.

    Returns:
        The endless batches and how many of them are an epoch.

    Raises:
        FileNotFoundError: no such data or recipe.
        ValueError: the data has other classes than the detector, or images would be normalised in
            another way than the detector's.
    """
    label_map = _label_map_for(detector, data_dir)
    if recipe is None and settings:
        raise ValueError(f"settings={_lines(settings)} need a recipe that they change.")
    with _own_configuration():
        config.parse(
            [recipe] if recipe else [], [*_size_setting(detector.image_size), *_lines(settings)]
        )
        options |= {"batch_size": batch_size} | ({"train_split": split} if split else {})
        chosen = {name: options.pop(name) for name in _SETTINGS if name in options}
        of_recipe = Recipe().replace(**chosen)
        batches = of_recipe.training_batches(detector, data_dir, label_map=label_map, **options)
    steps_per_epoch = math.ceil(of_recipe.count_images(data_dir) / batch_size)
    for note in of_recipe.notes(detector, data_dir, batches):
        warnings.warn(note, stacklevel=2)
    # Without this Keras would run the first epoch for ever instead of asking for its length.
    endless = batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return TrainingData(endless, steps_per_epoch)


def validation_data(
    data_dir: str | os.PathLike,
    detector: Detector,
    *,
    batch_size: int = 8,
    split: str = "coco_val",
    **options: Any,
) -> tf.data.Dataset:
    """Make one pass over a split, every image once, for `validation_data` of `fit`.

    Args:
        data_dir: folder of converted data.
        detector: whose preprocessing the images go through.
        batch_size: images per batch; the last one holds what is left.
        split: prefix of the record files.
        **options: of `data.pipeline.evaluation_batches`, such as `max_boxes`.

    Returns:
        Batches (see docs/architecture.md) without targets.

    Raises:
        FileNotFoundError: no such data.
        ValueError: the data has other classes than the detector.
    """
    batches = evaluation_batches(
        str(data_dir),
        split=split,
        label_map=_label_map_for(detector, data_dir),
        batch_size=batch_size,
        preprocess=detector.preprocessing,
        **options,
    )

    def without_fillers(batch: dict) -> dict:
        real = batch["source_id"] != FILLER_ID
        return {name: tf.boolean_mask(value, real) for name, value in batch.items()}

    return batches.map(without_fillers).prefetch(2)


def evaluate(
    detector: Detector,
    data_dir: str | os.PathLike,
    *,
    split: str = "coco_val",
    batch_size: int = 8,
    report: str | os.PathLike | None = None,
) -> CocoResult:
    """Compute COCO's numbers for a detector on every image of a split.

    Args:
        detector: with its weights.
        data_dir: folder of converted data.
        split: prefix of the record files.
        batch_size: images per step; it changes the speed and not the result.
        report: an HTML file to write, which shows the result and the worst images.

    Returns:
        Metrics by name (`result.metrics['AP']`), a table by class, and the detections.

    Raises:
        FileNotFoundError: no such data.
        ValueError: the data has other classes than the detector.
        ImportError: the report is to have charts, and matplotlib is not installed.
    """
    if report is not None:
        check_installed()
    run = OpenedRun(
        detector=detector,
        label_map=_label_map_for(detector, data_dir),
        checkpoint=detector.name,
        eval_split=split,
    )
    evaluated = evaluate_run(run, data_dir, batch_size=batch_size)
    if report is not None:
        report_evaluation(evaluated, run, report, model_dir=None, data_dir=data_dir, split=split)
    return evaluated.result


@contextlib.contextmanager
def _own_configuration() -> Iterator[None]:
    """Read recipes in a block without what the caller has set with gin, which comes back after."""
    config.register_all()  # First, so that names which the caller also uses are known.
    with config.set_aside():
        yield


def _size_setting(image_size: int | tuple[int, int] | None) -> list[str]:
    """Return the binding of the macro that every installed recipe has.

    Raises:
        ValueError: no such size.
    """
    if image_size is None:
        return []
    size = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
    if len(size) != 2 or not all(isinstance(side, Integral) and side > 0 for side in size):
        raise ValueError(
            f"image_size is {image_size!r}, expected (height, width) in whole pixels, such as "
            "(300, 400), or one number for both."
        )
    return [f"IMAGE_SIZE = ({int(size[0])}, {int(size[1])})"]


def _load_file(path: Path) -> Detector:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; detector.save('{path}') writes one.")
    loaded = load_keras_file(path)
    if not isinstance(loaded, Detector):
        raise ValueError(
            f"{path} holds a {type(loaded).__name__}, no detector of this library; read it with "
            "ssd_centernet.keras.models.load_model."
        )
    return loaded


def _lines(settings: str | Sequence[str]) -> list[str]:
    """Return settings as a list; a text alone is one of them."""
    return [settings] if isinstance(settings, str) else list(settings)


def _run_and_checkpoint(path: Path) -> tuple[Path, str | None]:
    """Take a path apart into the run, whose settings lie in it, and the checkpoint if it is one."""
    if not (path / CONFIG_NAME).exists():
        for model_dir in (path.parent, path.parent.parent):
            if (model_dir / CONFIG_NAME).exists():
                return model_dir, str(path)
    return path, None


def _label_map_for(detector: Detector, data_dir: str | os.PathLike) -> LabelMap:
    """Return the label map of some data.

    Raises:
        ValueError: its classes are not those of the detector.
    """
    found = load_label_map(data_dir)
    names = detector.class_names
    if names is None and detector.num_classes == found.num_classes:
        return found
    if names != found.names:
        have = f"{detector.num_classes} without names" if names is None else ", ".join(names)
        raise ValueError(
            f"the classes of {data_dir} are {', '.join(found.names)}; the detector has {have}. "
            "Build it with label_map=load_label_map(data_dir), or give data of its own classes."
        )
    return found
