"""COCO annotation files that the tests change, and what a reader makes of them."""

import io
import json

from PIL import Image

from ssd_centernet.data.readers.coco import read_coco

BOXES = {"a.jpg": [(10, 6, 20, 15), (0, 0, 4, 3)], "b.jpg": [(8, 9, 12.5, 6)]}


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), (90, 120, 60)).save(stream, "JPEG")
    return stream.getvalue()


class Files:
    """A folder `images` with a.jpg and b.jpg, and the content of an annotation file about them."""

    def __init__(self, root):
        self.root, self.images = root, root / "images"
        for name in BOXES:
            self.add(name)
        names = list(BOXES)
        self.content = {
            "images": [
                {"id": i, "file_name": n, "width": 40, "height": 30} for i, n in enumerate(names, 1)
            ],
            "annotations": [
                {
                    "id": 10 * i + k,
                    "image_id": i,
                    "category_id": 1 + k,
                    "bbox": list(box),
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
                for i, n in enumerate(names, 1)
                for k, box in enumerate(BOXES[n])
            ],
            "categories": [{"id": 1, "name": "nut"}, {"id": 2, "name": "bolt"}],
        }
        self.entries, self.categories = self.content["images"], self.content["categories"]
        self.annotations = self.content["annotations"]

    def add(self, name):
        path = self.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture())

    def read(self, text=None, **options):
        path = self.root / "instances.json"
        if isinstance(text, bytes):
            path.write_bytes(text)
        else:
            path.write_text(json.dumps(self.content) if text is None else text)
        return read_coco(path, self.images, **options)


def found(index) -> dict:
    """File -> (box, class name, crowd) of every object."""
    names = dict(zip(index.label_map.ids, index.label_map.names, strict=True))
    return {
        image.file_name: [
            (tuple(a["bbox"]), names[a["category_id"]], a.get("iscrowd", 0))
            for a in image.annotations
        ]
        for image in index.images
    }


CLEAN = {
    "a.jpg": [((10, 6, 20, 15), "nut", 0), ((0, 0, 4, 3), "bolt", 0)],
    "b.jpg": [((8, 9, 12.5, 6), "nut", 0)],
}


def reasons(index) -> dict:
    """Kind and reason -> how often."""
    report = index.report.to_dict()
    return {(kind, why): e["count"] for kind, whys in report.items() for why, e in whys.items()}


def first(index) -> list:
    """The items that the only reason of the report names."""
    ((_, whys),) = index.report.to_dict().items()
    ((_, entry),) = whys.items()
    return entry["first"]
