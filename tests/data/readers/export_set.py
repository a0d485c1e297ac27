"""Pictures and boxes that the tests of labelling tools' exports share."""

import pytest
from PIL import Image

SIZE = (40, 30)
# File -> boxes as (x, y, width, height, class).
BOXES = {
    "a.jpg": [(10, 6, 20, 15, "emu"), (0, 0, 4, 3, "cat")],
    "b b.jpg": [(8, 9, 12.5, 6, "cat")],
    "c.jpg": [],
}
EXPECTED = {
    name: [((x, y, w, h), c, 0) for x, y, w, h, c in boxes] for name, boxes in BOXES.items()
}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in BOXES:
        Image.new("RGB", SIZE, (90, 120, 60)).save(folder / name)
    return folder


def found(source) -> dict:
    """File -> (box, class, crowd) of every object."""
    names = {c["id"]: c["name"] for c in source.content["categories"]}
    files = {image["id"]: image["file_name"] for image in source.content["images"]}
    objects = {name: [] for name in files.values()}
    for a in source.content["annotations"]:
        box = tuple(round(value, 6) for value in a["bbox"])
        objects[files[a["image_id"]]].append((box, names[a["category_id"]], a["iscrowd"]))
    return objects


def reasons(source, *, classes=False) -> dict:
    report = source.report.to_dict()
    return {
        (kind, why): entry["count"]
        for kind, whys in report.items()
        for why, entry in whys.items()
        if classes or not why.startswith("class with")
    }
