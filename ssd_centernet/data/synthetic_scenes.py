"""Scenes of the rendered data set: backgrounds, and shapes with textures on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# Shape -> category id. Ids have gaps, so that a mistake between ids and classes shows.
CATEGORY_IDS = {
    "disc": 1,
    "square": 2,
    "triangle": 4,
    "star": 5,
    "cross": 7,
    "ring": 8,
    "pentagon": 10,
    "arrow": 11,
    "crescent": 13,
    "frame": 14,
}

EMPTY_SHARE = 0.04
CROWD_SHARE = 0.04
GREY_SHARE = 0.03
_OVERSAMPLING = 3
_TRIES = 12


@dataclass(frozen=True)
class Style:
    """What scenes are like.

    Attributes:
        lengths: of objects, share of the shorter side of the image: those of tiny ones lie between
            the first two, all others between the last two.
        tiny: share of tiny objects.
        last: probability that an object is the last one of its scene.
        most: largest number of objects.
        visible: least share of an object that later ones leave to be seen.
        contrast: least difference of brightness from the background, 0..255; grey images need it.
        rarity: a shape is as frequent as 1 / (its place in the list) ** rarity.
        blurred: share of pictures out of focus.
        blur: least and largest standard deviation of their blur, pixels.
        noise: largest standard deviation of a picture's noise, 0..255.
    """

    lengths: tuple[float, float, float]
    tiny: float
    last: float
    most: int
    visible: float
    contrast: float
    rarity: float = 0.0
    blurred: float = 0.0
    blur: tuple[float, float] = (0.5, 1.5)
    noise: float = 0.0


EASY = Style((0.07, 0.15, 0.7), tiny=0.04, last=0.4, most=5, visible=0.6, contrast=45.0)
HARD = Style(
    (0.04, 0.08, 0.5),
    tiny=0.15,
    last=0.1,
    most=24,
    visible=0.4,
    contrast=30.0,
    rarity=1.2,
    blurred=0.4,
    noise=12.0,
)


@dataclass
class _Thing:
    """The subject of one annotation: an object or a crowd region."""

    category_id: int
    is_crowd: bool
    full_area: int


class _Scene:
    """A picture with, for each pixel, the number of the thing that it shows (0: background)."""

    def __init__(self, pixels: np.ndarray, grey: bool, visible: float) -> None:
        self.pixels = pixels  # float32 [H, W, 3], 0..255
        self.owner = np.zeros(pixels.shape[:2], np.int32)
        self.blur = 0.0  # Standard deviation, pixels.
        self._grey = grey
        self._visible = visible
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
            left[n] < self._visible * thing.full_area for n, thing in enumerate(self._things, 1)
        )

    def paint(self, number: int, window, alpha: np.ndarray, colours: np.ndarray) -> None:
        """Blend a patch over the picture; `alpha` [h, w] is its coverage, 0..1."""
        patch = self.pixels[window]
        patch += alpha[..., np.newaxis] * (colours - patch)
        mask = alpha > 0.5
        self.owner[window][mask] = number
        # Nothing covers it yet: what it owns now is all of it.
        self._things[number - 1].full_area = int((self.owner == number).sum())

    def noise(self, rng: np.random.Generator, deviation: float) -> None:
        """Add noise to the pixels, as that of a camera in the dark."""
        self.pixels += rng.standard_normal(self.pixels.shape, dtype=np.float32) * deviation

    def picture(self) -> Image.Image:
        """Return the picture, with one channel if it is grey."""
        image = Image.fromarray(np.clip(np.rint(self.pixels), 0, 255).astype(np.uint8))
        if self.blur:
            image = image.filter(ImageFilter.GaussianBlur(self.blur))
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


def render_scene(
    rng: np.random.Generator,
    image_size: tuple[int, int],
    shapes: Sequence[str],
    style: Style = EASY,
) -> _Scene:
    """Render a scene with what its annotations say.

    Args:
        rng: the source of all that is drawn by lot.
        image_size: smallest and largest side, pixels.
        shapes: names from `CATEGORY_IDS`, the most frequent first if the style has rare ones.
        style: what the scene is like.

    Returns:
        The scene: `picture()`, `annotations()` and `owner`, int32 [height, width].
    """
    low, high = image_size
    height, width = (int(rng.integers(low, high + 1)) for _ in range(2))
    scene = _Scene(_background(rng, height, width), rng.random() < GREY_SHARE, style.visible)
    if rng.random() >= EMPTY_SHARE:
        if rng.random() < CROWD_SHARE:
            _add_crowd(rng, scene, _chosen(rng, shapes, style), style)
        # Few objects are the most frequent case; from 1 to `most`.
        count = min(int(rng.geometric(style.last)), style.most)
        for _ in range(count):
            _add_object(rng, scene, _chosen(rng, shapes, style), style)
    if style.noise:
        scene.noise(rng, rng.uniform(0.0, style.noise))
    if style.blurred and rng.random() < style.blurred:
        scene.blur = rng.uniform(*style.blur)
    return scene


def _chosen(rng: np.random.Generator, shapes: Sequence[str], style: Style) -> str:
    if not style.rarity:
        return str(rng.choice(shapes))
    weights = 1.0 / np.arange(1, len(shapes) + 1) ** style.rarity
    return str(rng.choice(shapes, p=weights / weights.sum()))


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


def _add_object(rng: np.random.Generator, scene: _Scene, shape: str, style: Style = EASY) -> None:
    """Place one object where it hides little of the others; give up after some tries."""
    height, width = scene.owner.shape
    for _ in range(_TRIES):
        least, small, large = style.lengths
        if rng.random() < style.tiny:
            share = rng.uniform(least, small)
        else:
            share = math.exp(rng.uniform(math.log(small), math.log(large)))
        side = share * min(height, width)
        alpha = _shape_mask(rng, shape, side)
        # The centre may come so near to the border that a fifth of the side is cut off.
        margin = 0.3 * side
        centre = (rng.uniform(margin, height - margin), rng.uniform(margin, width - margin))
        window, alpha = _place(alpha, centre, (height, width))
        mask = alpha > 0.5
        if not mask.any() or scene.would_hide(window, mask):
            continue
        behind = float(scene.pixels[window].mean())
        colours = _texture(rng, alpha.shape, behind=behind, contrast=style.contrast)
        scene.paint(scene.add(CATEGORY_IDS[shape]), window, alpha, colours)
        return


def _add_crowd(rng: np.random.Generator, scene: _Scene, shape: str, style: Style) -> None:
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
            colours = _texture(rng, alpha.shape, behind=behind, contrast=style.contrast)
            scene.paint(number, window, alpha, colours)


# --- shapes and textures ---------------------------------------------------------------------


def _polygon(corners: int, inner: float = 1.0, radius: float = 1.0) -> np.ndarray:
    """Return the corners [N, 2] of a polygon, each second one `inner` times as far out."""
    angles = np.arange(corners) * (2 * math.pi / corners)
    radii = np.where(np.arange(corners) % 2, inner, 1.0) * radius
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, np.newaxis]


def _turn(angle: float) -> np.ndarray:
    """Return the matrix [2, 2] that turns rows of coordinates."""
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


_QUARTER = np.array([(3, -1), (3, 1), (1, 1)]) / 3.0
_ARROW = [(0, 3), (3, 0), (1, 0), (1, -3), (-1, -3), (-1, 0), (-3, 0)]
# The outline of each shape, and what is cut out of it; about as large as the unit circle.
_OUTLINES = {
    "disc": (_polygon(48),),
    "square": (_polygon(4),),
    "triangle": (_polygon(3),),
    "star": (_polygon(10, 0.45),),
    "cross": (np.concatenate([_QUARTER @ _turn(0.5 * math.pi * n) for n in range(4)]),),
    "ring": (_polygon(48), _polygon(48, radius=0.55)),
    "pentagon": (_polygon(5),),
    "arrow": (np.array(_ARROW) / 3.0,),
    "crescent": (_polygon(48), _polygon(48, radius=0.8) + (0.45, 0.0)),
    "frame": (_polygon(4), _polygon(4, radius=0.55)),
}


def _shape_mask(rng: np.random.Generator, shape: str, side: float) -> np.ndarray:
    """Return the coverage float32 [h, w], 0..1, of a turned and slightly squeezed shape."""
    squeeze = math.exp(rng.uniform(-0.2, 0.2))
    angle = rng.uniform(0, 2 * math.pi)
    parts = [outline * (squeeze, 1 / squeeze) @ _turn(angle) for outline in _OUTLINES[shape]]
    corner = parts[0].min(0)
    scale = side / (parts[0] - corner).max()
    parts = [(points - corner) * scale for points in parts]
    size = np.maximum(np.ceil(parts[0].max(0)).astype(int), 1)
    canvas = Image.new("L", tuple(int(n) * _OVERSAMPLING for n in size))
    for points, fill in zip(parts, (255, 0), strict=False):
        ImageDraw.Draw(canvas).polygon([tuple(p) for p in points * _OVERSAMPLING], fill=fill)
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


def _colour(rng: np.random.Generator, behind: float, contrast: float) -> np.ndarray:
    """Return an RGB colour, 0..255, whose brightness differs from the background's."""
    weights = np.array([0.299, 0.587, 0.114])
    while True:
        colour = rng.uniform(0, 255, 3)
        if abs(colour @ weights - behind) > contrast and np.ptp(colour) > 60:
            return colour.astype(np.float32)


def _texture(
    rng: np.random.Generator, size: tuple[int, int], *, behind: float, contrast: float
) -> np.ndarray:
    """Return float32 [h, w, 3]: plain, striped, chequered, dotted or shaded, with grain."""
    height, width = size
    first = _colour(rng, behind, contrast)
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
    second = 0.6 * first + 0.4 * _colour(rng, behind, contrast)
    colours = first + pattern[..., np.newaxis] * (second - first)
    return colours + rng.standard_normal((height, width, 1), dtype=np.float32) * 4.0
