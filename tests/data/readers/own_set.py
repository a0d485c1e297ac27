"""One small data set, written in each of the formats, for the tests of the readers."""

from __future__ import annotations

import json
from pathlib import Path

from tests.data.coco_set import encode, picture

WIDTH, HEIGHT = 40, 30
# File -> boxes as (left, top, right, bottom, class); b.jpg has none.
BOXES = {
    "a.jpg": [(10, 6, 30, 21, "emu"), (0, 0, 4, 3, "cat")],
    "b.jpg": [],
    "c.png": [(8, 9, 40, 30, "cat")],
}
NAMES = ("cat", "emu")
# What conversion makes of it, whatever the format: bbox by image, category ids from 1.
EXPECTED = {
    "a.jpg": [([10, 6, 20, 15], 2), ([0, 0, 4, 3], 1)],
    "b.jpg": [],
    "c.png": [([8, 9, 32, 21], 1)],
}


def write_images(folder: Path, names=tuple(BOXES)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        kind = "PNG" if name.endswith("png") else "JPEG"
        (folder / name).write_bytes(encode(picture(WIDTH, HEIGHT), kind))
    return folder


def voc_xml(name: str, boxes, *, size=(WIDTH, HEIGHT), extra="") -> str:
    """The XML of an image; the first pixel is number 1 and xmax the last one inside."""
    objects = "".join(
        f"<object><name>{label}</name>{extra}<bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for x1, y1, x2, y2, label in boxes
    )
    width, height = size
    return (
        f"<annotation><filename>{name}</filename><size><width>{width}</width>"
        f"<height>{height}</height><depth>3</depth></size>{objects}</annotation>"
    )


def write_voc(root: Path) -> Path:
    write_images(root / "JPEGImages")
    (root / "Annotations").mkdir()
    for name, boxes in BOXES.items():
        (root / "Annotations" / f"{name[:-4]}.xml").write_text(voc_xml(name, boxes))
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\nc\n")
    (lists / "val.txt").write_text("c\n")
    (lists / "cat_train.txt").write_text("a 1\n")
    return root


def yolo_lines(boxes) -> str:
    return "".join(
        f"{NAMES.index(label)} {(x1 + x2) / 2 / WIDTH:.6f} {(y1 + y2) / 2 / HEIGHT:.6f} "
        f"{(x2 - x1) / WIDTH:.6f} {(y2 - y1) / HEIGHT:.6f}\n"
        for x1, y1, x2, y2, label in boxes
    )


def write_yolo(root: Path, split="train") -> Path:
    write_images(root / "images" / split)
    labels = root / "labels" / split
    labels.mkdir(parents=True)
    for name, boxes in BOXES.items():
        (labels / f"{name[:-4]}.txt").write_text(yolo_lines(boxes))
    (root / "data.yaml").write_text(
        "# own data\npath: .\ntrain: images/train\nval: images/val\n"
        "\nnc: 2\nnames: ['cat', 'emu']\n"
    )
    return root


def write_csv(root: Path) -> Path:
    write_images(root / "images")
    rows = ["image,xmin,ymin,xmax,ymax,class"]
    for name, boxes in BOXES.items():
        rows += [f"{name},{','.join(map(str, box))}" for box in boxes] or [f"{name},,,,,"]
    (root / "boxes.csv").write_text("\n".join(rows) + "\n")
    return root / "boxes.csv"


def write_coco(root: Path) -> Path:
    write_images(root / "images")
    images, annotations = [], []
    for number, (name, boxes) in enumerate(EXPECTED.items(), 1):
        images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        annotations += [{"image_id": number, "category_id": c, "bbox": box} for box, c in boxes]
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "boxes.json").write_text(json.dumps(content))
    return root / "boxes.json"


def write_builder(folder: Path, features, splits) -> Path:
    """Prepare a TFDS builder, split -> examples, in a folder NAME/VERSION and return that."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(features)
    for split, examples in splits.items():
        name = f"{folder.parent.name}-{split}.tfrecord-00000-of-00001"
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for example in examples:
                writer.write(features.serialize_example(features.encode_example(example)))
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=features,
        split_infos=[
            tfds.core.SplitInfo(split, shard_lengths=[len(examples)], num_bytes=1)
            for split, examples in splits.items()
        ],
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )
    return folder


def write_tfds(root: Path, *, split="train", inner=None, **features) -> Path:
    """A builder as `coco` is: relative boxes, file names, and labels in the order of NAMES.

    `inner` adds features to objects, `features` to examples: name -> (feature, value of each).
    """
    from tensorflow_datasets import features as kinds

    inner = inner or {}
    objects = {"bbox": kinds.BBoxFeature(), "label": kinds.ClassLabel(names=list(NAMES))}
    objects |= {name: feature for name, (feature, _) in inner.items()}
    examples = []
    images = write_images(root / "images")
    for name, boxes in BOXES.items():
        told = [
            {
                "bbox": kinds.BBox(y1 / HEIGHT, x1 / WIDTH, y2 / HEIGHT, x2 / WIDTH),
                "label": label,
                **{key: value for key, (_, value) in inner.items()},
            }
            for x1, y1, x2, y2, label in boxes
        ]
        example = {"image": str(images / name), "image/filename": name, "objects": told}
        examples.append(example | {key: value for key, (_, value) in features.items()})
    declared = {
        "image": kinds.Image(shape=(None, None, 3)),
        "image/filename": kinds.Text(),
        "objects": kinds.Sequence(objects),
        **{key: feature for key, (feature, _) in features.items()},
    }
    return write_builder(root / "builders" / "own" / "1.0.0", declared, {split: examples})


def reasons(source, kind="notes") -> dict[str, int]:
    """Reason -> count of a report, without the note that so small a set has few objects."""
    entries = source.report.to_dict().get(kind, {})
    return {r: e["count"] for r, e in entries.items() if not r.startswith("class with")}


def truth_by_file(output: Path, split="train") -> dict:
    """File -> [(bbox, category id)] of the written ground truth."""
    truth = json.loads((output / f"coco_{split}.annotations.json").read_text())
    names = {image["id"]: Path(image["file_name"]).name for image in truth["images"]}
    found = {name: [] for name in names.values()}
    for one in truth["annotations"]:
        box = [round(value, 3) for value in one["bbox"]]
        found[names[one["image_id"]]].append((box, one["category_id"]))
    return found
