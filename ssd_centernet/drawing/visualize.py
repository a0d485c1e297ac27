"""Pictures of detections and network inputs, with only NumPy and Pillow."""

import io
import os
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ssd_centernet.drawing.canvas import (
    CROWD_COLOR,
    LUMINANCE,
    SMALLEST_FONT,
    distinct,
    draw_labels,
    fitting,
    hatched,
    legible,
    line_height,
    load_font,
    outline,
    shortened,
)
from ssd_centernet.files import write_atomically

# Hue advances by the golden ratio, so that neighbouring classes differ most.
_GOLDEN_RATIO = 0.618033988749895
_LEAST_LUMINANCE = 0.4
_INK = (32, 36, 42)
_FAINT_INK = (104, 112, 122)
_PAPER = (246, 247, 249)
_MARGIN = 12


def class_color(index: int) -> tuple[int, int, int]:
    """Return the colour of a class: always the same, and different from its neighbours'.

    Args:
        index: class, 0 or above.

    Returns:
        Red, green and blue, 0..255.
    """
    hue = (0.58 + index * _GOLDEN_RATIO) % 1.0
    # Three levels of brightness separate classes with about the same hue.
    value = (1.0, 0.82, 0.92)[index % 3]
    saturation = (0.85, 0.95, 0.65)[index // 3 % 3]
    channels = (np.abs((hue * 6.0 + np.array([0.0, 4.0, 2.0])) % 6.0 - 3.0) - 1.0).clip(0, 1)
    rgb = value * (1.0 - saturation * (1.0 - channels))
    # Dark blues and purples are lost in shadows: mix in white up to a least brightness.
    lack = max(0.0, _LEAST_LUMINANCE - float(rgb @ LUMINANCE))
    rgb += (1.0 - rgb) * lack / (1.0 - float(rgb @ LUMINANCE))
    return tuple(int(round(255.0 * channel)) for channel in rgb)


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    *,
    labels: Sequence[str] | None = None,
    scores: np.ndarray | None = None,
    classes: np.ndarray | None = None,
    colors: Sequence[tuple[int, int, int]] | None = None,
    is_crowd: np.ndarray | None = None,
    line_width: int | None = None,
    font_size: int | None = None,
    detail: float | None = None,
) -> np.ndarray:
    """Draw boxes with labels on a copy of an image.

    Big boxes are drawn first so that small ones stay visible. Labels come last, smaller on small
    boxes and moved apart; a label without a free place is left out. Where no font has the letters
    of a label, 'class 1' is written: the class, counted from 1.

    Args:
        image: uint8 [H, W, 3] (or [H, W]).
        boxes: [N, 4] yxyx fractions of the image; parts outside are cut off.
        labels: N texts; None writes no text.
        scores: [N]; written after the label in per cent.
        classes: integers [N] that choose the colours; without them the labels do.
        colors: N colours, 0..255, instead of those by class.
        is_crowd: bool [N]; crowd regions are hatched in red.
        line_width: pixels; None chooses it by the image size.
        font_size: pixels; None chooses it by the image size.
        detail: pixels that the two are chosen for, where the image is larger and looked at in
            parts; labels that are wider than their boxes are then left out.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: the image is not uint8 of the right shape, or the lengths differ.
    """
    picture = Image.fromarray(_as_rgb(image))
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    per_box = {"labels": labels, "scores": scores, "classes": classes, "colors": colors}
    for name, values in (per_box | {"is_crowd": is_crowd}).items():
        if values is not None and len(values) != len(boxes):
            raise ValueError(
                f"Got {len(values)} {name} for {len(boxes)} boxes; expected the same number."
            )
    corners = _to_pixels(boxes, picture.size)
    palette = _palette(len(boxes), labels, classes, colors, is_crowd)
    short_side = min(*picture.size, detail or np.inf)
    line_width = line_width or int(np.clip(round(short_side / 180), 1, 6))
    font_size = font_size or int(np.clip(round(short_side / 32), SMALLEST_FONT, 36))
    order = np.argsort(-np.prod(corners[:, 2:] - corners[:, :2], axis=1), kind="stable")
    for i in order:
        if is_crowd is not None and is_crowd[i]:
            picture = hatched(picture, corners[i], line_width)
        outline(ImageDraw.Draw(picture), corners[i], palette[i], line_width)
    labels = labels if labels is None else distinct([str(one) for one in labels], classes)
    texts = _texts(len(boxes), labels, scores)
    texts = fitting(texts, corners) if detail else texts
    draw_labels(ImageDraw.Draw(picture), corners, texts, palette, order, font_size)
    return np.asarray(picture)


def draw_detections(
    image: np.ndarray,
    detections: Mapping[str, np.ndarray],
    *,
    names: Sequence[str] | None = None,
    min_score: float = 0.3,
) -> np.ndarray:
    """Draw the detections of one image.

    Args:
        image: uint8 [H, W, 3].
        detections: result of `Detector.detect` for this image: `boxes` [D, 4] yxyx fractions,
            `scores` [D], `classes` [D] and, if padded, `count`; or with a leading 1, from a batch
            of one.
        names: class names; without them class numbers are written.
        min_score: detections below it are not drawn.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: the detections are of several images.
    """
    found = {key: np.asarray(value) for key, value in detections.items()}
    if found["boxes"].ndim == 3:
        if len(found["boxes"]) != 1:
            raise ValueError(
                f"Got the detections of {len(found['boxes'])} images, expected one; select image "
                "i with {key: value[i] for key, value in detections.items()}."
            )
        found = {key: value[0] for key, value in found.items()}
    found = _above(found, min_score)
    return draw_boxes(
        image,
        found["boxes"],
        labels=_names(found["classes"], names),
        scores=found["scores"],
        classes=found["classes"],
    )


def compare(
    image: np.ndarray,
    ground_truth: dict[str, np.ndarray],
    predictions: dict[str, np.ndarray],
    *,
    names: Sequence[str] | None = None,
    min_score: float = 0.3,
    detail: float | None = None,
) -> np.ndarray:
    """Draw ground truth (left) and predictions (right) of one image side by side.

    Args:
        image: uint8 [H, W, 3].
        ground_truth: `boxes` [N, 4] yxyx fractions, `classes` [N] and, if known, `is_crowd` [N]
            and `valid` [N] (False marks padding).
        predictions: `boxes` [D, 4], `scores` [D], `classes` [D] and, if padded, `count`.
        names: class names; without them class numbers are written.
        min_score: predictions below it are not drawn.
        detail: as of `draw_boxes`.

    Returns:
        uint8 [H', W', 3].
    """
    valid = np.asarray(ground_truth.get("valid", np.ones(len(ground_truth["boxes"]), bool)), bool)
    truth = {key: np.asarray(value)[valid] for key, value in ground_truth.items() if key != "valid"}
    found = _above(predictions, min_score)
    left = draw_boxes(
        image,
        truth["boxes"],
        labels=_names(truth["classes"], names),
        classes=truth["classes"],
        is_crowd=truth.get("is_crowd"),
        detail=detail,
    )
    right = draw_boxes(
        image,
        found["boxes"],
        labels=_names(found["classes"], names),
        scores=found["scores"],
        classes=found["classes"],
        detail=detail,
    )
    shown = len(found["boxes"])
    titles = (f"ground truth: {len(truth['boxes'])}", f"score above {min_score:.2g}: {shown}")
    cell = (left.shape[0], left.shape[1])
    return contact_sheet([left, right], columns=2, cell_size=cell, titles=titles)


def _above(detections: Mapping[str, np.ndarray], min_score: float) -> dict[str, np.ndarray]:
    """Return the detections that are not padding and have at least this score."""
    count = int(detections.get("count", len(detections["scores"])))
    found = {key: np.asarray(detections[key])[:count] for key in ("boxes", "scores", "classes")}
    return {key: value[found["scores"] >= min_score] for key, value in found.items()}


def contact_sheet(
    images: Sequence[np.ndarray],
    *,
    columns: int | None = None,
    cell_size: int | tuple[int, int] = 320,
    titles: Sequence[str] | None = None,
    heading: str | None = None,
) -> np.ndarray:
    """Arrange images of any sizes in a grid on one sheet.

    Args:
        images: uint8 [H, W, 3] each (or [H, W]).
        columns: images per row; None makes the sheet about square.
        cell_size: height and width of a cell in pixels; images keep their aspect ratio in it.
        titles: one line per image, written below it and shortened if too long.
        heading: text at the top of the sheet; may have several lines.

    Returns:
        uint8 [H', W', 3]; without images, a sheet with only the heading.

    Raises:
        ValueError: an image is not uint8 of the right shape, or the lengths differ.
    """
    if titles is not None and len(titles) != len(images):
        raise ValueError(
            f"Got {len(titles)} titles for {len(images)} images; expected the same number."
        )
    height, width = (cell_size, cell_size) if isinstance(cell_size, int) else cell_size
    columns = max(1, min(columns or int(np.ceil(np.sqrt(len(images)))), max(len(images), 1)))
    rows = -(-len(images) // columns)
    title_size = max(12, min(18, width // 22))
    written = [legible(title, title_size) for title in titles or ()]
    line = max((line_height(font) for _, font in written), default=0)
    lines = [legible(text, 20) for text in heading.split("\n")] if heading else []
    row_height = line_height(load_font(20)) + 2
    top = _MARGIN + len(lines) * row_height + (_MARGIN // 2 if lines else 0)
    needed = max((font.getlength(text) for text, font in lines), default=0)
    sheet_width = max(_MARGIN + columns * (width + _MARGIN), int(needed) + 2 * _MARGIN)
    sheet = Image.new("RGB", (sheet_width, top + rows * (height + line + _MARGIN)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, (text, font) in enumerate(lines):
        ink = _INK if row == 0 else _FAINT_INK
        draw.text((_MARGIN, _MARGIN + row * row_height), text, fill=ink, font=font)
    for i, image in enumerate(images):
        x = _MARGIN + i % columns * (width + _MARGIN)
        y = top + i // columns * (height + line + _MARGIN)
        left = _paste(sheet, image, (x, y, width, height))
        if titles is not None:
            text, font = written[i]
            # A caption begins where its picture does, unless it then leaves the cell.
            left = int(max(x, min(left, x + width - font.getlength(text))))
            text = shortened(text, font, x + width - left)
            draw.text((left, y + height + 2), text, fill=_FAINT_INK, font=font)
    return np.asarray(sheet)


def fit(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Scale an image to fit a size, with its aspect ratio kept.

    Boxes drawn afterwards have lines and labels of the right size for a contact sheet.

    Args:
        image: uint8 [H, W, 3] (or [H, W]).
        size: largest height and width in pixels.

    Returns:
        uint8 [H', W', 3].
    """
    height, width = (size, size) if isinstance(size, int) else size
    picture = Image.fromarray(_as_rgb(image))
    factor = min(width / picture.width, height / picture.height)
    scaled = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    if scaled == picture.size:
        return np.asarray(picture)
    # Small images are enlarged with visible pixels, not blurred.
    method = Image.Resampling.NEAREST if factor >= 2 else Image.Resampling.LANCZOS
    return np.asarray(picture.resize(scaled, method))


def overlay(
    image: np.ndarray, heat: np.ndarray, *, color: tuple[int, int, int], opacity: float = 0.6
) -> np.ndarray:
    """Tint an image where a map is high.

    Args:
        image: uint8 [H, W, 3].
        heat: float [h, w] in [0, 1], of any size; it is stretched over the image.
        color: colour of the tint.
        opacity: share of the colour where `heat` is 1.

    Returns:
        uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    grey = Image.fromarray((np.clip(heat, 0.0, 1.0) * 255.0).astype(np.uint8))
    share = np.asarray(grey.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    share = share[..., np.newaxis] * (opacity / 255.0)
    return (image * (1.0 - share) + np.array(color, np.float32) * share).astype(np.uint8)


def save_png(path: str | os.PathLike, image: np.ndarray) -> str:
    """Write an image as PNG; the file appears whole or not at all.

    Args:
        path: path of the file; missing folders are made.
        image: uint8 [H, W, 3] (or [H, W]).

    Returns:
        The path.
    """
    content = io.BytesIO()
    Image.fromarray(_as_rgb(image)).save(content, format="PNG")
    return write_atomically(path, content.getvalue())


def _as_rgb(image: np.ndarray) -> np.ndarray:
    """Return uint8 [H, W, 3]; refuse other types and shapes."""
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim == 2:
        image = np.stack([image] * 3, axis=-1)
    if image.dtype.kind in "US":
        raise ValueError(
            f"Got the text {str(image)[:80]!r} in the place of an image; expected its pixels, "
            "uint8 [height, width, 3], such as np.asarray(PIL.Image.open(path).convert('RGB'))."
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        raise ValueError(
            f"Got an image of {image.dtype} {image.shape}, expected uint8 [height, width, 3]. "
            "Convert network inputs with Preprocessing.denormalize() first; draw a batch image "
            "by image."
        )
    return np.ascontiguousarray(image)


def _to_pixels(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return int [N, 4] left, top, right, bottom inside the picture."""
    width, height = size
    ordered = np.nan_to_num(boxes, nan=0.0)[:, [1, 0, 3, 2]].clip(0.0, 1.0)
    corners = (ordered * [width, height, width, height]).round().astype(int)
    # A box is drawn around its pixels: the last one is just before the far edge.
    corners[:, 2:] -= 1
    corners = corners.clip(0, [width - 1, height - 1] * 2)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2])
    return corners


def _palette(
    number: int,
    labels: Sequence[str] | None,
    classes: np.ndarray | None,
    colors: Sequence[tuple[int, int, int]] | None,
    is_crowd: np.ndarray | None,
) -> list[tuple[int, int, int]]:
    """Choose a colour per box: given, by class, or by label; red for crowd regions."""
    if colors is not None:
        return [tuple(int(channel) for channel in color) for color in colors]
    if classes is not None:
        palette = [class_color(int(index)) for index in classes]
    elif labels is not None:
        palette = [class_color(sum(label.encode())) for label in labels]
    else:
        palette = [class_color(0)] * number
    crowd = np.zeros(number, bool) if is_crowd is None else is_crowd
    return [CROWD_COLOR if region else color for color, region in zip(palette, crowd, strict=True)]


def _texts(number: int, labels: Sequence[str] | None, scores: np.ndarray | None) -> list[str]:
    words = [""] * number if labels is None else [str(label) for label in labels]
    if scores is None:
        return words
    return [f"{word} {float(score):.0%}".strip() for word, score in zip(words, scores, strict=True)]


def _paste(sheet: Image.Image, image: np.ndarray, cell: tuple[int, int, int, int]) -> int:
    """Put an image at the foot of a cell, above its caption; return its left edge."""
    x, y, width, height = cell
    picture = Image.fromarray(fit(image, (height, width)))
    left = x + (width - picture.width) // 2
    sheet.paste(picture, (left, y + height - picture.height))
    return left


def _names(classes: np.ndarray, names: Sequence[str] | None) -> list[str]:
    return [str(int(index)) if names is None else str(names[int(index)]) for index in classes]
