"""A small COCO data set on disk, built to order for the tests of the conversion."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from ssd_centernet.data.convert import convert_coco
from ssd_centernet.data.records import parse_example
from ssd_centernet.labels import LabelMap

CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 4, "name": "emu"}]


def picture(width=40, height=30, mode="RGB") -> Image.Image:
    """A smooth picture that is bright at the right and dark at the left."""
    ramp = np.linspace(0, 255, width, dtype=np.uint8)
    return Image.fromarray(np.tile(ramp, (height, 1))).convert(mode)


def encode(image: Image.Image, kind="JPEG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def faults(info: dict) -> dict:
    """The report of a conversion, but for what all sets here have: few objects, equal pictures."""
    report = {kind: dict(reasons) for kind, reasons in info["report"].items()}
    notes = report.get("notes", {})
    notes.pop("class with fewer than 3 objects: is its name a typing error?", None)
    notes.pop("class without objects in this split", None)
    notes.pop("equal pictures in this split", None)
    return {kind: reasons for kind, reasons in report.items() if reasons}


@functools.cache
def parser(label_map: LabelMap):
    """parse_example as a graph, traced once for all tests."""
    return tf.function(
        lambda serialized: parse_example(serialized, label_map),
        input_signature=[tf.TensorSpec([], tf.string)],
    )


class CocoSet:
    """Annotations and images in a folder; `convert()` converts them to `out`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.image_dir = folder / "images"
        self.image_dir.mkdir()
        self.json = folder / "instances.json"
        self.content: dict = {"images": [], "annotations": [], "categories": CATEGORIES}

    def image(self, name="a.jpg", data: bytes | None = b"", width=40, height=30, **fields):
        """List an image and write its file; data None lists it without a file."""
        if data is not None:
            path = self.image_dir / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data or encode(picture(width, height)))
        entry = {"id": len(self.content["images"]) + 1, "file_name": name}
        entry |= {"width": width, "height": height, **fields}
        self.content["images"].append(entry)
        return self

    def box(self, bbox=(10, 5, 20, 10), without=(), **fields):
        """Add an annotation to the image listed last."""
        entry = {
            "id": len(self.content["annotations"]) + 1,
            "image_id": self.content["images"][-1]["id"],
            "category_id": 4,
            "bbox": list(bbox),
            "area": 120.0,
            "iscrowd": 0,
            **fields,
        }
        for key in without:
            del entry[key]
        self.content["annotations"].append(entry)
        return self

    def convert(self, **options) -> dict:
        self.json.write_text(json.dumps(self.content))
        options = {"num_shards": 2, "progress": False, "max_missing": 1.0, **options}
        # Most sets here have few images, one of them with a fault.
        options.setdefault("max_dropped", 1.0)
        return convert_coco(self.json, self.image_dir, self.out, **options)

    def shards(self) -> list[str]:
        return sorted(p.name for p in self.out.glob("*.record-*"))

    def examples(self, split="train") -> list[dict]:
        """Parsed records in the order of the annotation file."""
        paths = sorted(str(p) for p in self.out.glob(f"coco_{split}.record-*"))
        parse = parser(LabelMap.from_pbtxt(self.out / "mscoco_label_map.pbtxt"))
        per_shard = [
            [
                {key: value.numpy() for key, value in parse(record).items()}
                for record in tf.data.TFRecordDataset(path)
            ]
            for path in paths
        ]
        longest = max(map(len, per_shard))
        return [s[i] for i in range(longest) for s in per_shard if i < len(s)]

    def ground_truth(self, split="train") -> dict:
        return json.loads((self.out / f"coco_{split}.annotations.json").read_text())
