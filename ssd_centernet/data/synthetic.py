"""A rendered COCO data set: shapes with textures that a detector learns on a CPU in minutes.

It has what real data sets have: images of many sizes, one-channel JPEGs, empty images, occlusion,
objects cut by the border, crowd regions, and category ids with a gap.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ssd_centernet.files import remove_leftovers, write_atomically

# Shape -> category id. Ids have a gap, so that a mistake between ids and classes shows.
CATEGORY_IDS = {"disc": 1, "square": 2, "triangle": 4, "star": 5}
DEFAULT_SHAPES = ("disc", "square", "triangle")

# Raised when the same arguments would give other pictures.
GENERATOR_VERSION = 1
JPEG_QUALITY = 90

EMPTY_SHARE = 0.04
CROWD_SHARE = 0.04
GREY_SHARE = 0.03
TINY_SHARE = 0.04
MAX_OBJECTS = 5
# An object stays recognisable: a new one may not leave less than this of any earlier one.
MIN_VISIBLE = 0.6
# Brightness difference of an object from the background, 0..255; grey images need it.
MIN_CONTRAST = 45.0
_OVERSAMPLING = 3
_TRIES = 12


def make_synthetic(
    output_dir: str | os.PathLike,
    *,
    num_train: int = 1000,
    num_val: int = 200,
    image_size: tuple[int, int] = (160, 256),
    shapes: Sequence[str] = DEFAULT_SHAPES,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, str]:
    """Render a COCO data set of shapes into `train/`, `val/` and `annotations/`.

    The pictures depend on the arguments alone. Most objects are 15 to 70 % as long as the shorter
    side of the image. Boxes and areas are those of the visible pixels, as in COCO. A second call
    with the same arguments returns at once, and after an interruption the next call begins again.

    Args:
        output_dir: folder to write to; made if needed.
        num_train, num_val: number of images of each split.
        image_size: smallest and largest side of an image, pixels.
        shapes: names from `CATEGORY_IDS`, at least one.
        seed: seed of all randomness.
        overwrite: whether to replace a data set rendered with other arguments.

    Returns:
        Split name -> path of its annotation file, `annotations/instances_<split>.json`.

    Raises:
        ValueError: if a size, count or shape is out of range.
        FileExistsError: if the folder holds other data and `overwrite` is off.
    """
    _check_arguments(num_train, num_val, image_size, shapes, seed)
    info = {
        "description": "Synthetic shapes, rendered by ssd_centernet",
        "generator_version": GENERATOR_VERSION,
        "num_train": num_train,
        "num_val": num_val,
        "image_size": list(image_size),
        "shapes": list(shapes),
        "seed": seed,
    }
    folder = os.path.join(os.fspath(output_dir), "annotations")
    paths = {split: os.path.join(folder, f"instances_{split}.json") for split in ("train", "val")}
    # Shows that what lies here is an interrupted rendering of ours, which may be replaced.
    marker = os.path.join(os.fspath(output_dir), ".rendering")
    if all(_info_of(path) == info for path in paths.values()):
        with contextlib.suppress(FileNotFoundError):
            os.remove(marker)
        return paths
    _clear(output_dir, paths, overwrite or os.path.exists(marker))
    os.makedirs(folder, exist_ok=True)
    open(marker, "w").close()
    remove_leftovers(folder, [os.path.basename(path) for path in paths.values()])
    for number, (split, first_id, count) in enumerate(
        (("train", 1, num_train), ("val", num_train + 1, num_val))
    ):
        images_dir = os.path.join(output_dir, split)
        os.makedirs(images_dir)
        content = _render_split(
            images_dir, [seed, number], first_id=first_id, count=count, info=info
        )
        write_atomically(paths[split], json.dumps(content))
    os.remove(marker)
    return paths


def _render_split(
    images_dir: str, seeds: list[int], *, first_id: int, count: int, info: dict
) -> dict:
    """Write the images of a split and return the content of its annotation file."""
    images, annotations, shapes = [], [], info["shapes"]
    for index in range(count):
        # A generator of its own for each image: the number of images changes none of them.
        scene = _render_scene(np.random.default_rng([*seeds, index]), info["image_size"], shapes)
        image_id = first_id + index
        name = f"{image_id:06d}.jpg"
        scene.picture().save(os.path.join(images_dir, name), quality=JPEG_QUALITY)
        height, width = scene.owner.shape
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for annotation in scene.annotations():
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    categories = [
        {"id": CATEGORY_IDS[s], "name": s, "supercategory": "shape"}
        for s in sorted(shapes, key=CATEGORY_IDS.get)
    ]
    return {
        "info": info,
        "licenses": [],
        "categories": categories,
        "images": images,
        "annotations": annotations,
    }


def _check_arguments(
    num_train: int, num_val: int, image_size, shapes: Sequence[str], seed: int
) -> None:
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}.")
    if num_train < 1 or num_val < 1:
        raise ValueError(f"num_train and num_val must be 1 or more, got {num_train}, {num_val}.")
    if not 32 <= image_size[0] <= image_size[1] <= 4096:
        raise ValueError(
            f"image_size must be (smallest, largest) side in 32..4096 pixels, got {image_size}."
        )
    unknown = [s for s in shapes if s not in CATEGORY_IDS]
    if unknown or not shapes or len(set(shapes)) != len(shapes):
        raise ValueError(
            f"shapes must be distinct names from {', '.join(CATEGORY_IDS)}, got {list(shapes)}."
        )


def _info_of(path: str) -> dict | None:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file).get("info")
    except (OSError, ValueError, AttributeError):
        return None


def _clear(output_dir, paths: dict[str, str], overwrite: bool) -> None:
    """Remove the files of an earlier call; refuse to remove anything else."""
    folders = [os.path.join(output_dir, split) for split in paths]
    found = [p for p in (*paths.values(), *folders) if os.path.exists(p)]
    if found and not overwrite:
        raise FileExistsError(
            f"{found[0]} exists and was not rendered with the same arguments. "
            "Choose another output_dir, or set overwrite to replace train/, val/ and annotations."
        )
    for path in paths.values():
        if os.path.exists(path):
            os.remove(path)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


# --- scenes ----------------------------------------------------------------------------------


@dataclass
class _Thing:
    """The subject of one annotation: an object or a crowd region."""

    category_id: int
    is_crowd: bool
    full_area: int


class _Scene:
    """A picture with, for each pixel, the number of the thing that it shows (0: background)."""

    def __init__(self, pixels: np.ndarray, grey: bool) -> None:
        self.pixels = pixels  # float32 [H, W, 3], 0..255
        self.owner = np.zeros(pixels.shape[:2], np.int32)
        self._grey = grey
        self._things: list[_Thing] = []

    def add(self, category_id: int, *, is_crowd: bool = False) -> int:
        """Register a thing and return its number."""
        self._things.append(_Thing(category_id, is_crowd, 0))
        return len(self._things)

    def would_hide(self, window: tuple[slice, slice], mask: np.ndarray) -> bool:
        """Tell whether a mask would leave too little of an earlier thing."""
        covered = np.bincount(self.owner[window][mask], minlength=len(self._things) + 1)
        left = np.bincount(self.owner.ravel(), minlength=len(self._things) + 1) - covered
        return any(
            left[n] < MIN_VISIBLE * thing.full_area for n, thing in enumerate(self._things, 1)
        )

    def paint(self, number: int, window, alpha: np.ndarray, colours: np.ndarray) -> None:
        """Blend a patch over the picture; `alpha` [h, w] is its coverage, 0..1."""
        patch = self.pixels[window]
        patch += alpha[..., np.newaxis] * (colours - patch)
        mask = alpha > 0.5
        self.owner[window][mask] = number
        # Nothing covers it yet: what it owns now is all of it.
        self._things[number - 1].full_area = int((self.owner == number).sum())

    def picture(self) -> Image.Image:
        """Return the picture, with one channel if it is grey."""
        image = Image.fromarray(np.clip(np.rint(self.pixels), 0, 255).astype(np.uint8))
        return image.convert("L") if self._grey else image

    def annotations(self) -> list[dict]:
        """Return the visible part of each thing as a COCO annotation without ids."""
        result = []
        for number, thing in enumerate(self._things, 1):
            rows, columns = np.nonzero(self.owner == number)
            if not len(rows):
                continue
            x, y = int(columns.min()), int(rows.min())
            result.append(
                {
                    "category_id": thing.category_id,
                    "bbox": [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y],
                    "area": len(rows),
                    "iscrowd": int(thing.is_crowd),
                }
            )
        return result


def _render_scene(
    rng: np.random.Generator, image_size: tuple[int, int], shapes: Sequence[str]
) -> _Scene:
    low, high = image_size
    height, width = (int(rng.integers(low, high + 1)) for _ in range(2))
    scene = _Scene(_background(rng, height, width), grey=rng.random() < GREY_SHARE)
    if rng.random() < EMPTY_SHARE:
        return scene
    if rng.random() < CROWD_SHARE:
        _add_crowd(rng, scene, str(rng.choice(shapes)))
    # Few objects are the most frequent case; from 1 to MAX_OBJECTS.
    count = 1 + min(int(rng.geometric(0.4)) - 1, MAX_OBJECTS - 1)
    for _ in range(count):
        _add_object(rng, scene, str(rng.choice(shapes)))
    return scene


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return float32 [H, W, 3]: a gradient with clouds and grain, of little saturation."""
    angle = rng.uniform(0, 2 * math.pi)
    ys = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, np.newaxis, np.newaxis]
    xs = np.linspace(-0.5, 0.5, width, dtype=np.float32)[np.newaxis, :, np.newaxis]
    middle = rng.uniform(50, 205)
    slope = rng.uniform(-25, 25, 3).astype(np.float32)
    tint = rng.uniform(-18, 18, 3).astype(np.float32)
    pixels = middle + tint + slope * (ys * math.sin(angle) + xs * math.cos(angle))
    cells = rng.normal(0, rng.uniform(2, 14), (int(rng.integers(3, 9)), int(rng.integers(3, 9))))
    clouds = Image.fromarray(cells.astype(np.float32)).resize((width, height), Image.BICUBIC)
    pixels = pixels + np.asarray(clouds)[..., np.newaxis]
    grain = rng.standard_normal((height, width, 1), dtype=np.float32) * rng.uniform(1, 7)
    return np.clip(pixels + grain, 0, 255).astype(np.float32)


def _add_object(rng: np.random.Generator, scene: _Scene, shape: str) -> None:
    """Place one object where it hides little of the others; give up after some tries."""
    height, width = scene.owner.shape
    for _ in range(_TRIES):
        if rng.random() < TINY_SHARE:
            share = rng.uniform(0.07, 0.15)
        else:
            share = math.exp(rng.uniform(math.log(0.15), math.log(0.7)))
        side = share * min(height, width)
        alpha = _shape_mask(rng, shape, side)
        # The centre may come so near to the border that a fifth of the side is cut off.
        margin = 0.3 * side
        centre = (rng.uniform(margin, height - margin), rng.uniform(margin, width - margin))
        window, alpha = _place(alpha, centre, (height, width))
        mask = alpha > 0.5
        if not mask.any() or scene.would_hide(window, mask):
            continue
        colours = _texture(rng, alpha.shape, behind=float(scene.pixels[window].mean()))
        scene.paint(scene.add(CATEGORY_IDS[shape]), window, alpha, colours)
        return


def _add_crowd(rng: np.random.Generator, scene: _Scene, shape: str) -> None:
    """Fill a region with many small objects of one shape under a single crowd annotation."""
    height, width = scene.owner.shape
    region = np.array([height, width]) * rng.uniform(0.25, 0.4, 2)
    corner = rng.uniform(0, 1, 2) * (np.array([height, width]) - region)
    number = scene.add(CATEGORY_IDS[shape], is_crowd=True)
    for _ in range(int(rng.integers(15, 35))):
        alpha = _shape_mask(rng, shape, rng.uniform(0.05, 0.08) * min(height, width))
        centre = corner + region * rng.uniform(0, 1, 2)
        window, alpha = _place(alpha, tuple(centre), (height, width))
        if alpha.size:
            behind = float(scene.pixels[window].mean())
            scene.paint(number, window, alpha, _texture(rng, alpha.shape, behind=behind))


# --- shapes and textures ---------------------------------------------------------------------


def _outline(shape: str) -> np.ndarray:
    """Return the corners [N, 2] of a shape within the unit circle."""
    corners, inner = {"disc": (48, 1.0), "square": (4, 1.0), "triangle": (3, 1.0)}.get(
        shape, (10, 0.45)
    )
    angles = np.arange(corners) * (2 * math.pi / corners)
    radii = np.where(np.arange(corners) % 2, inner, 1.0)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, np.newaxis]


def _shape_mask(rng: np.random.Generator, shape: str, side: float) -> np.ndarray:
    """Return the coverage float32 [h, w], 0..1, of a turned and slightly squeezed shape."""
    squeeze = math.exp(rng.uniform(-0.2, 0.2))
    points = _outline(shape) * (squeeze, 1 / squeeze)
    angle = rng.uniform(0, 2 * math.pi)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = points @ turn.T
    points -= points.min(0)
    points *= side / points.max()
    size = np.maximum(np.ceil(points.max(0)).astype(int), 1)
    canvas = Image.new("L", tuple(int(n) * _OVERSAMPLING for n in size))
    ImageDraw.Draw(canvas).polygon([tuple(p) for p in points * _OVERSAMPLING], fill=255)
    return np.asarray(canvas.reduce(_OVERSAMPLING), np.float32) / 255.0


def _place(
    alpha: np.ndarray, centre: tuple[float, float], image: tuple[int, int]
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return the window of the image that a patch covers, and the patch cut to it."""
    window, cut = [], []
    for middle, length, limit in zip(centre, alpha.shape, image, strict=True):
        start = round(middle - length / 2)
        first, last = max(start, 0), max(min(start + length, limit), max(start, 0))
        window.append(slice(first, last))
        cut.append(slice(first - start, last - start))
    return tuple(window), alpha[tuple(cut)]


def _colour(rng: np.random.Generator, behind: float) -> np.ndarray:
    """Return an RGB colour, 0..255, whose brightness differs from the background's."""
    weights = np.array([0.299, 0.587, 0.114])
    while True:
        colour = rng.uniform(0, 255, 3)
        if abs(colour @ weights - behind) > MIN_CONTRAST and np.ptp(colour) > 60:
            return colour.astype(np.float32)


def _texture(rng: np.random.Generator, size: tuple[int, int], *, behind: float) -> np.ndarray:
    """Return float32 [h, w, 3]: plain, striped, chequered, dotted or shaded, with grain."""
    height, width = size
    first = _colour(rng, behind)
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, math.pi)
    along = xs * math.cos(angle) + ys * math.sin(angle)
    across = ys * math.cos(angle) - xs * math.sin(angle)
    period = max(4.0, min(height, width) * rng.uniform(0.15, 0.4))
    wave, other = np.sin(along * (2 * math.pi / period)), np.sin(across * (2 * math.pi / period))
    kind = int(rng.integers(5))
    pattern = {
        0: lambda: np.zeros_like(xs),
        1: lambda: (wave > 0).astype(np.float32),
        2: lambda: ((wave > 0) ^ (other > 0)).astype(np.float32),
        3: lambda: (wave * other > 0.5).astype(np.float32),
        4: lambda: np.clip(0.5 + along / (2.0 * max(height, width)), 0, 1),
    }[kind]()
    # The second colour is near the first, so that the shape outweighs its pattern.
    second = 0.6 * first + 0.4 * _colour(rng, behind)
    colours = first + pattern[..., np.newaxis] * (second - first)
    return colours + rng.standard_normal((height, width, 1), dtype=np.float32) * 4.0
