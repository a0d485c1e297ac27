"""Recipes, runs and converted data in Python: what a notebook needs, without gin or flags.

Recipes are gin files all the same. Each function here reads them in a configuration of its own, so
that what a caller has set with gin himself stays exactly as it was.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssd_centernet import config
from ssd_centernet.building import UnknownClassesError, build_detector
from ssd_centernet.data.splits import same_role
from ssd_centernet.drawing.chart import check_installed
from ssd_centernet.evaluation.limits import COCO_LIMIT
from ssd_centernet.evaluation.result import CocoResult
from ssd_centernet.files import write_atomically
from ssd_centernet.fit_data import as_lines, label_map_for, own_configuration, size_setting
from ssd_centernet.labels import LabelMap
from ssd_centernet.models.detector import Detector
from ssd_centernet.models.saved import load_keras_file
from ssd_centernet.ops.tiles import Tiles
from ssd_centernet.predict.tiled import TiledDetector
from ssd_centernet.run_directory import CONFIG_NAME
from ssd_centernet.runs.evaluation import evaluate_run, evaluation_page
from ssd_centernet.runs.exported import evaluate_exported
from ssd_centernet.runs.opened import OpenedRun, open_run
from ssd_centernet.weights import catalog, fetching, restore
from ssd_centernet.weights.download import Console


def build(
    recipe: str | os.PathLike,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    label_map: LabelMap | None = None,
    image_size: int | tuple[int, int] | None = None,
    dtype: str | None = None,
    settings: str | Sequence[str] = (),
    weights: str | os.PathLike | None = None,
    allow_import: Sequence[str] | None = None,
) -> Detector:
    """Build the detector of a recipe, with fresh weights or given ones.

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
        weights: a run, a checkpoint or a file of weights, or the name of published ones such as
            'vgg16_caffe', which are fetched once (docs/weights.md); they fill what they have.
        allow_import: modules that the recipe may import and name if it is the `config.gin` of a
            run; see `load`.

    Returns:
        The detector: a Keras model.

    Raises:
        FileNotFoundError: no such recipe; names near ones and all that there are.
        OSError: published weights cannot be fetched; says what to copy where.
        ValueError: the weights do not fit, the number of classes is unknown or said in two ways
            that differ, or a setting does not exist or is not used by this recipe.
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
    with own_configuration():
        bindings = [*size_setting(image_size), *as_lines(settings)]
        config.parse([recipe], bindings, allow_import=allow_import)
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
    if weights is not None:
        restore(detector, weights, say=Console())
    return detector


def pretrained(
    name: str, *, dtype: str | None = None, settings: str | Sequence[str] = ()
) -> Detector:
    """Load a published detector, trained on COCO's 80 classes; it is fetched once.

    Args:
        name: of a detector in the table of published weights (docs/weights.md): 'ssd300_vgg16'.
        dtype: as in `build`.
        settings: gin bindings that win over those of its recipe: 'SSDDecoder.score_threshold =
            0.3'.

    Returns:
        The detector, with every weight from the file.

    Raises:
        KeyError: no such name; names near ones.
        OSError: it is not here and cannot be fetched; says what to copy where.
        ValueError: the name is that of a backbone, or the file is not what it should be.
    """
    row = catalog.find(name)
    if row.kind != "detector":
        raise ValueError(
            f"{name} is a backbone, no detector: build({row.recipe!r}, num_classes=..., "
            f"weights={name!r}) begins with it. Detectors: "
            f"{', '.join(one.name for one in catalog.ROWS.values() if one.kind == 'detector')}."
        )
    detector = build(
        row.recipe,
        label_map=LabelMap.coco(),
        dtype=dtype,
        settings=[*row.settings, *as_lines(settings)],
    )
    # The path and not the name: a folder of that name must not be taken for it.
    restore(detector, fetching.locate(name, say=Console()), kind="full")
    return detector


def load(
    path: str | os.PathLike,
    *,
    checkpoint: str | None = None,
    settings: str | Sequence[str] = (),
    allow_import: Sequence[str] | None = None,
    trained: bool = False,
) -> Detector:
    """Load a trained detector: of a run of `ssd_centernet train`, or of a `.keras` file.

    Args:
        path: directory of a run, a checkpoint in it ('runs/x/ckpt-500', 'runs/x/best'), or a file
            that `detector.save` wrote.
        checkpoint: which one of a run: 'best', 'latest' or a name such as 'ckpt-500'; None is the
            best one, or the latest where none was kept as the best.
        settings: gin bindings that win over those of the run: 'SSDDecoder.score_threshold = 0.3'.
        allow_import: modules that the settings of the run may import and name, such as
            ['my_parts']: their code runs. Without it the settings are data (docs/security.md).
        trained: whether to take the weights that were trained where the run averages them
            (`train.ema_decay`), and not the averages.

    Returns:
        The detector with these weights and the names of its classes.

    Raises:
        FileNotFoundError: no such run, checkpoint or file; says what there is.
        ValueError: the weights do not fit the settings, a setting has no effect, or the settings
            of the run import a module that is not allowed.
    """
    path = Path(path).expanduser()
    if path.suffix == ".keras":
        if checkpoint is not None or settings or allow_import or trained:
            raise ValueError(
                f"{path} holds one detector: checkpoint, settings, allow_import and trained are "
                "for runs."
            )
        return _load_file(path)
    model_dir, inside = _run_and_checkpoint(path)
    if inside and checkpoint is not None:
        raise ValueError(
            f"{path} is a checkpoint already; give load({str(model_dir)!r}, "
            f"checkpoint={checkpoint!r}), or no checkpoint."
        )
    with own_configuration():
        run = open_run(
            model_dir,
            checkpoint=inside or checkpoint,
            gin_params=as_lines(settings),
            device=None,
            allow_import=allow_import,
            trained=trained,
        )
    return run.detector


def evaluate(
    detector: Detector,
    data_dir: str | os.PathLike,
    *,
    split: str = "coco_val",
    batch_size: int = 8,
    max_detections: int = COCO_LIMIT,
    tiles: Tiles | int | None = None,
    report: str | os.PathLike | None = None,
) -> CocoResult:
    """Compute COCO's numbers for a detector on every image of a split.

    Args:
        detector: with its weights.
        data_dir: folder of converted data.
        split: prefix of the record files.
        batch_size: images per step; it changes the speed and not the result.
        max_detections: most detections of one class that count in one image; COCO has 100.
        tiles: how larger pictures are cut, as in `TiledDetector`; None takes them whole.
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
        label_map=label_map_for(detector, data_dir),
        checkpoint=detector.name,
        eval_split=split,
    )
    if tiles is None:
        options = {"batch_size": batch_size, "max_detections": max_detections}
        evaluated = evaluate_run(run, data_dir, **options)
    else:
        tiled = TiledDetector(detector, tiles, batch_size=batch_size, label_map=run.label_map)
        tiles = tiled.tiles
        place = data_dir, same_role(data_dir, split)
        evaluated = evaluate_exported(tiled, *place, max_detections=max_detections)
    if report is not None:
        page = evaluation_page(
            evaluated, run, model_dir=None, data_dir=data_dir, split=split, tiles=tiles
        )
        write_atomically(report, page, tidy=True)
    return evaluated.result


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


def _run_and_checkpoint(path: Path) -> tuple[Path, str | None]:
    """Take a path apart into the run, whose settings lie in it, and the checkpoint if it is one."""
    if not (path / CONFIG_NAME).exists():
        for model_dir in (path.parent, path.parent.parent):
            if (model_dir / CONFIG_NAME).exists():
                return model_dir, str(path)
    return path, None
