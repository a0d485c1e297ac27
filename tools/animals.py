"""Join two public sets of photographs, of raccoons and of kangaroos, into one for detection.

git clone https://github.com/datitran/raccoon_dataset
git clone https://github.com/experiencor/kangaroo
python -m tools.animals raccoon_dataset/annotations raccoon_dataset/images \\
    kangaroo/annots kangaroo/images animals

Pictures keep their size and are written as JPEG; one of them is cut off at its end, which training
would refuse. A quarter of the pictures, drawn by lot, is for evaluation. The raccoons are under the
MIT licence; the kangaroos come without one, so look and train, and do not publish them.
"""

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image, ImageFile

SEED = 7
SHARE = 4


def objects_of(annotation: ElementTree.Element, width: int, height: int) -> list[tuple]:
    """Read VOC's objects: their names, and boxes as x, y, width, height with pixels from 0."""
    found = []
    for one in annotation.iter("object"):
        x1, y1, x2, y2 = (
            float(one.findtext(f"bndbox/{n}")) for n in ("xmin", "ymin", "xmax", "ymax")
        )
        x1, y1, x2, y2 = max(0.0, x1 - 1), max(0.0, y1 - 1), min(x2, width), min(y2, height)
        found.append((one.findtext("name"), [x1, y1, x2 - x1, y2 - y1]))
    return found


def join(folders: Sequence[tuple[str, str]], output: str) -> None:
    """Write images/{train,val}/ and annotations/instances_{train,val}.json.

    Args:
        folders: of each set, that of VOC's XML files and that of the pictures with their names.
        output: folder to write to.
    """
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    pairs = [
        (number, annotation, next(Path(pictures).glob(f"{annotation.stem}.*")))
        for number, (annotations, pictures) in enumerate(folders)
        for annotation in sorted(Path(annotations).glob("*.xml"))
    ]
    random.Random(SEED).shuffle(pairs)
    held_out = len(pairs) // SHARE
    classes: dict[str, int] = {}
    for split, chosen in (("val", pairs[:held_out]), ("train", pairs[held_out:])):
        images, annotations = [], []
        folder = Path(output, "images", split)
        folder.mkdir(parents=True, exist_ok=True)
        for number, annotation, picture in chosen:
            name = f"{number}_{picture.stem}.jpg"
            with Image.open(picture) as file:
                file.convert("RGB").save(folder / name, quality=95)
                width, height = file.size
            key = len(images) + 1
            images.append({"id": key, "file_name": name, "width": width, "height": height})
            for kind, box in objects_of(ElementTree.parse(annotation).getroot(), width, height):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": key,
                        "category_id": classes.setdefault(kind, len(classes) + 1),
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
        content = {"images": images, "annotations": annotations}
        content["categories"] = [{"id": key, "name": kind} for kind, key in classes.items()]
        path = Path(output, "annotations", f"instances_{split}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
        print(f"{path}: {len(images)} pictures, {len(annotations)} objects")


if __name__ == "__main__":
    *places, target = sys.argv[1:]
    join(list(zip(places[::2], places[1::2], strict=True)), target)
