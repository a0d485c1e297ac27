"""The rendered data set of the pages again, in the formats that docs/own_data.md speaks of."""

import json
import shutil
from pathlib import Path

from tests.data.readers.own_set import write_builder


def write_own_data(top: Path) -> None:
    """Write voc/, yolo/, table/ and tfds/ from coco/."""
    for folder in ("voc/Annotations", "voc/JPEGImages", "voc/ImageSets/Main", "table/pictures"):
        (top / folder).mkdir(parents=True)
    names, examples = [], {}
    for split in ("train", "val"):
        content = json.loads((top / f"coco/annotations/instances_{split}2017.json").read_text())
        images = {image["id"]: image | {"boxes": []} for image in content["images"]}
        names = [category["name"] for category in content["categories"]]
        label = {category["id"]: category["name"] for category in content["categories"]}
        for one in content["annotations"]:
            x, y, w, h = one["bbox"]
            images[one["image_id"]]["boxes"].append((x, y, x + w, y + h, label[one["category_id"]]))
        for folder in ("images", "labels"):
            (top / "yolo" / folder / split).mkdir(parents=True)
        rows, stems = ["image,xmin,ymin,xmax,ymax,class"], []
        for image in images.values():
            stem = f"{split}_{Path(image['file_name']).stem}"
            source = top / f"coco/{split}2017" / image["file_name"]
            name = stem + source.suffix
            for folder in ("voc/JPEGImages", f"yolo/images/{split}", "table/pictures"):
                shutil.copy(source, top / folder / name)
            (top / f"voc/Annotations/{stem}.xml").write_text(_xml(image, name))
            (top / f"yolo/labels/{split}/{stem}.txt").write_text(_lines(image, names))
            rows += [f"{name},{','.join(map(str, box))}" for box in image["boxes"]] or [name]
            stems.append(stem)
            examples.setdefault(split, []).append(_example(source, image))
        (top / f"table/{split}.csv").write_text("\n".join(rows) + "\n")
        (top / f"voc/ImageSets/Main/{split}.txt").write_text("\n".join(stems) + "\n")
    write_builder(top / "tfds/scenes/1.0.0", _features(names), examples)
    text = "\n".join(f"  {number}: {name}" for number, name in enumerate(names))
    yaml = f"path: .\ntrain: images/train\nval: images/val\nnames:\n{text}\n"
    (top / "yolo/data.yaml").write_text(yaml)


def _xml(image: dict, name: str) -> str:
    objects = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for x1, y1, x2, y2, label in image["boxes"]
    )
    size = f"<width>{image['width']}</width><height>{image['height']}</height>"
    return f"<annotation><filename>{name}</filename><size>{size}</size>{objects}</annotation>"


def _lines(image: dict, names: list[str]) -> str:
    width, height = image["width"], image["height"]
    return "".join(
        f"{names.index(label)} {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} "
        f"{(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n"
        for x1, y1, x2, y2, label in image["boxes"]
    )


def _features(names: list[str]) -> dict:
    from tensorflow_datasets import features as kinds

    objects = {"bbox": kinds.BBoxFeature(), "label": kinds.ClassLabel(names=names)}
    return {"image": kinds.Image(shape=(None, None, 3)), "objects": kinds.Sequence(objects)}


def _example(source: Path, image: dict) -> dict:
    from tensorflow_datasets import features as kinds

    width, height = image["width"], image["height"]
    objects = [
        {"bbox": kinds.BBox(y1 / height, x1 / width, y2 / height, x2 / width), "label": label}
        for x1, y1, x2, y2, label in image["boxes"]
    ]
    return {"image": str(source), "objects": objects}
