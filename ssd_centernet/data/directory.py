"""What a folder of converted data holds beside its record files."""

from __future__ import annotations

from pathlib import Path

from ssd_centernet.labels import LabelMap

LABEL_MAP_NAME = "mscoco_label_map.pbtxt"


def load_label_map(data_dir: str | Path) -> LabelMap:
    """Read the label map of a data folder.

    Args:
        data_dir: folder with the record files.

    Returns:
        The label map: the file `mscoco_label_map.pbtxt`, else the only `*.pbtxt` of the folder.

    Raises:
        FileNotFoundError: there is none, or there are several with other names.
    """
    folder = Path(data_dir)
    if (folder / LABEL_MAP_NAME).exists():
        return LabelMap.from_pbtxt(folder / LABEL_MAP_NAME)
    others = sorted(folder.glob("*.pbtxt"))
    if len(others) == 1:
        return LabelMap.from_pbtxt(others[0])
    found = ", ".join(path.name for path in others) or "none"
    raise FileNotFoundError(
        f"no label map in {folder}: expected {LABEL_MAP_NAME}, found: {found}. `ssd_centernet "
        "convert` writes it. For shards of other tools, copy their label map into this folder."
    )


def annotations_path(data_dir: str | Path, split: str) -> Path | None:
    """Return the path of the COCO ground truth of a split, or None if there is none."""
    path = Path(data_dir) / f"{split}.annotations.json"
    return path if path.exists() else None
