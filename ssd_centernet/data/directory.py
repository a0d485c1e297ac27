"""What a folder of converted data holds beside its record files."""

from __future__ import annotations

import os
from pathlib import Path

from ssd_centernet.data.splits import check_folder, list_splits, split_prefix
from ssd_centernet.labels import LabelMap

LABEL_MAP_NAME = "mscoco_label_map.pbtxt"
# Folders whose label map was already said to lie elsewhere.
_SAID: set[str] = set()


def load_label_map(data_dir: str | Path) -> LabelMap:
    """Read the label map of a data folder.

    Args:
        data_dir: folder with the record files.

    Returns:
        The label map: the file `mscoco_label_map.pbtxt`, else the only `*.pbtxt` of the folder,
        else that of the folder above; else, where ids and names of the records can only be
        COCO's, its 80 classes. The last two are said in the log.

    Raises:
        FileNotFoundError: there is none, or there are several with other names.
        ValueError: a label map cannot be read.
    """
    label_map, note = find_label_map(data_dir)
    if note and os.path.abspath(data_dir) not in _SAID:
        from absl import logging  # Its flags are those of the commands that load data.

        _SAID.add(os.path.abspath(data_dir))
        logging.warning(note)
    return label_map


def find_label_map(data_dir: str | Path) -> tuple[LabelMap, str | None]:
    """Read the label map of a data folder, and say where it does not lie in the folder.

    Args:
        data_dir: as in `load_label_map`.

    Returns:
        The label map, and a sentence that the user should read, or None.

    Raises:
        FileNotFoundError: as in `load_label_map`.
        ValueError: as in `load_label_map`.
    """
    check_folder(data_dir)
    folder = Path(data_dir)
    own = folder / LABEL_MAP_NAME
    if own.exists():
        return LabelMap.from_pbtxt(own), None
    others = sorted(path for path in folder.glob("*.pbtxt") if not path.name.startswith("."))
    named = [path for path in others if "label" in path.name.casefold()]
    if len(others) == 1 or len(named) == 1:
        return LabelMap.from_pbtxt((named if len(named) == 1 else others)[0]), None
    if others:
        raise FileNotFoundError(
            f"{folder} holds {len(others)} files *.pbtxt: {', '.join(p.name for p in others)}. "
            f"Which one is the label map? Copy it to {own}."
        )
    # Above a link to the records first, as where the label map is another link.
    found = _above(folder.absolute().parent) or _above(folder.resolve().parent)
    if len(found) == 1 and list_splits(folder):
        return (
            LabelMap.from_pbtxt(found[0]),
            f"{folder} has no label map; the one above it is used: {found[0]}",
        )
    return _coco_of(folder)


def _above(folder: Path) -> list[Path]:
    own = folder / LABEL_MAP_NAME
    return [own] if own.exists() else sorted(folder.glob("*label*map*.pbtxt"))


def _coco_of(folder: Path) -> tuple[LabelMap, str]:
    """Return COCO's label map where the records can only be COCO's."""
    # Commands that only need the name of a label map do without tensorflow.
    from ssd_centernet.data.record_classes import recognise_coco
    from ssd_centernet.data.scan import summarize

    splits = list_splits(folder)
    paths = [folder / file.name for files in splits.values() for file in files]
    fits, found = recognise_coco(summarize(path) for path in paths)
    if fits:
        return LabelMap.coco(), (
            f"{folder} has no label map; its records have {found}, as COCO has: the 80 classes of "
            f"COCO are assumed. Write {folder / LABEL_MAP_NAME} if they are others."
        )
    held = f" The records there have {found}, which is not COCO alone." if paths else ""
    annotations = [*folder.glob("annotations/*.json"), *folder.glob("*.json")]
    if annotations and not paths:
        names = ", ".join(sorted(os.fspath(path.relative_to(folder)) for path in annotations)[:3])
        held = (
            f" It holds {names}, and no records: `ssd_centernet train --annotations=FILE "
            "--image_dir=FOLDER` takes annotations, and --data_dir takes COCO with "
            "annotations/instances_train2017.json beside train2017/."
        )
    below = sorted(path.parent for path in folder.glob(f"*/{LABEL_MAP_NAME}"))
    if below and not paths:
        held = f" Converted data lie below it: {', '.join(map(str, below[:3]))}."
    sets = [folder / name for name in ("data.yaml", "data.yml") if (folder / name).is_file()]
    if sets and not paths:
        held = (
            f" It holds {sets[0].name} of a YOLO data set, and no records: `ssd_centernet train "
            f"--annotations={sets[0]}` takes it as it is."
        )
    raise FileNotFoundError(
        f"no label map in {folder} or above it: expected {LABEL_MAP_NAME}, found: none.{held} "
        "`ssd_centernet convert` writes it. For shards of other tools, copy their label map into "
        "this folder: item { id: 1 name: 'person' } for each class."
    )


def annotations_path(data_dir: str | Path, split: str) -> Path | None:
    """Return the path of the COCO ground truth of a split, or None if there is none."""
    path = Path(data_dir) / f"{split_prefix(data_dir, split)}.annotations.json"
    return path if path.exists() else None


def raw_annotations_path(data_dir: str | Path, split: str) -> Path | None:
    """Return COCO's own annotations beside records of the TPU tools, or None.

    These tools leave the data set as it was downloaded in `raw-data/`; the records may hold fewer
    images and objects.
    """
    name = f"instances_{split.removeprefix('coco_')}2017.json"
    path = Path(data_dir) / "raw-data" / "annotations" / name
    return path if path.exists() else None
