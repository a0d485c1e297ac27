"""The flags of detection in tiles, which `predict` and `evaluate` share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from ssd_centernet.cli import _flags

if TYPE_CHECKING:
    from ssd_centernet.labels import LabelMap
    from ssd_centernet.ops.tiles import Tiles
    from ssd_centernet.predict.tiled import TiledDetector

_MORE = ("tiles_merge", "tiles_iou", "tiles_whole")


def define_tiles() -> None:
    """Define the flags that say how pictures are cut, and how what is found is merged."""
    # Help lists flags by module; these belong to the shared ones.
    flags.DEFINE_string(
        "tiles",
        None,
        "SIZE or SIZE,OVERLAP in pixels: detect on larger pictures in square tiles, for objects "
        "that are small in them (default overlap: a fifth of the size).",
        module_name=_flags.__name__,
    )
    flags.DEFINE_enum(
        "tiles_merge",
        None,
        ["nms", "wbf"],
        "Of boxes of several tiles that are of one object, keep the best one, or take their "
        "weighted mean (weighted boxes fusion) (default: nms).",
        module_name=_flags.__name__,
    )
    flags.DEFINE_float(
        "tiles_iou",
        None,
        "Boxes of two tiles with a greater IoU are of one object (default: 0.5).",
        lower_bound=0.0,
        upper_bound=1.0,
        module_name=_flags.__name__,
    )
    flags.DEFINE_boolean(
        "tiles_whole",
        None,
        "Detect on the whole picture too, for objects that no tile holds (default: true).",
        module_name=_flags.__name__,
    )


def tiles_of_flags() -> Tiles | None:
    """Return what --tiles says, None where it is not given.

    Raises:
        flags.Error: it is out of range, or flags that belong to it are given without it.
    """
    values = flags.FLAGS
    if "tiles" not in values:  # `train --inference` and `train --mode=eval` have no such flags.
        return None
    if values.tiles is None:
        given = [f"--{name}" for name in _MORE if values[name].present]
        if given:
            raise flags.Error(f"{', '.join(given)} belongs to --tiles, which was not given.")
        return None
    from ssd_centernet.ops.tiles import Tiles

    try:
        return Tiles.parse(values.tiles)
    except ValueError as error:
        raise flags.IllegalFlagValueError(f"--tiles={values.tiles}: {error}") from error


def tiled(detector: Any, label_map: LabelMap, tiles: Tiles, batch_size: int) -> TiledDetector:
    """Return a detector that works as the flags say.

    Args:
        detector: a detector, or an exported file.
        label_map: of its classes.
        tiles: of `tiles_of_flags`.
        batch_size: tiles in a step.
    """
    from ssd_centernet.predict.tiled import TiledDetector

    values = flags.FLAGS
    given = {"merge": values.tiles_merge, "iou_threshold": values.tiles_iou}
    given["whole_picture"] = values.tiles_whole
    options = {name: value for name, value in given.items() if value is not None}
    return TiledDetector(detector, tiles, label_map=label_map, batch_size=batch_size, **options)


def tell_tiles_of_data(data_dir: str | Path, split: str) -> dict[str, Any]:
    """Say that the pictures of a split are tiles of others, where they are.

    Args:
        data_dir: folder of converted data.
        split: prefix of the record files.

    Returns:
        What `metrics.json` says of it.
    """
    from ssd_centernet.data.splits import read_info
    from ssd_centernet.runs.splits import describe_tiles

    sentence = describe_tiles(data_dir, split)
    if sentence is None:
        return {}
    print(f"note: {sentence}", file=sys.stderr)
    return {"data_tiles": read_info(data_dir, split)["tiles"]}
