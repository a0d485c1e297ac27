"""Pictures of a report: the images with the most errors, with objects and detections."""

import base64
import html
import io
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from ssd_centernet.evaluation.analysis import ERRORS, RIGHT, Analysis
from ssd_centernet.evaluation.ground_truth import CocoGroundTruth

# Pixels of the longer side of a picture; it bounds the size of the page.
_SIDE = 480
_QUALITY = 78
# Boxes and labels of one kind on a picture; more would hide it.
_BOXES_DRAWN = 40
_LABELS_DRAWN = 5
_LABELS_LISTED = 6
_CLEAR = 15


def worst_images(found: Analysis, truth: CocoGroundTruth, number: int) -> list[int]:
    """Choose the images with the most errors.

    Args:
        found: the analysis.
        truth: the ground truth of the analysis.
        number: largest number of images.

    Returns:
        Image ids of images with errors; those with the most missed objects and wrong detections
        come first.
    """
    shown = _wrong(found)
    errors = np.bincount(truth.positions(found.rows.image_ids[shown]), minlength=truth.num_images)
    lost = truth.positions(truth.object_image_ids[found.missed])
    errors = errors + np.bincount(lost, minlength=truth.num_images)
    order = np.argsort(-errors, kind="stable")[:number]
    return truth.image_ids[order[errors[order] > 0]].tolist()


def image_titles(truth: CocoGroundTruth, image_ids: Sequence[int]) -> list[str]:
    """Name images by their files, or as 'image 7' where the annotations name no file."""
    names = {} if truth.identity is None else truth.identity.names_by_image()
    return [names.get(image_id, f"image {image_id}") for image_id in image_ids]


def gallery(
    found: Analysis,
    truth: CocoGroundTruth,
    image_ids: Sequence[int],
    images: Mapping[int, np.ndarray],
) -> str:
    """Draw pictures with found objects, wrong detections and missed objects.

    Args:
        found: the analysis.
        truth: the ground truth of the analysis.
        image_ids: which images, in this order.
        images: image id -> uint8 [H, W, 3]; other images are left out.

    Returns:
        The element that holds the pictures.
    """
    titles = zip(image_ids, image_titles(truth, image_ids), strict=True)
    drawn = [_picture(found, truth, i, images[i], title) for i, title in titles if i in images]
    key = (
        '<ul class="legend key"><li class="found"><i></i>object that was found</li>'
        '<li class="wrong"><i></i>wrong detection, with its score</li>'
        '<li class="lost"><i></i>object that was not found</li></ul>'
    )
    return f'{key}<div class="gallery">{"".join(drawn)}</div>'


def _wrong(found: Analysis) -> np.ndarray:
    """Return bool [N]: detections that are shown and wrong."""
    return (found.kinds >= 0) & (found.rows.scores >= found.score_threshold)


def _picture(
    found: Analysis, truth: CocoGroundTruth, image_id: int, image: np.ndarray, title: str
) -> str:
    place = truth.positions(np.array([image_id]))[0]
    # Boxes are in pixels of the image size in the annotations, if they have one.
    height = int(truth.heights[place]) or image.shape[0]
    width = int(truth.widths[place]) or image.shape[1]
    scale = _SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    names = {category["id"]: category["name"] for category in truth.categories}
    here = truth.object_image_ids == image_id
    lost = np.flatnonzero(here & found.missed)
    right = (found.kinds == RIGHT) & (found.rows.scores >= found.score_threshold)
    targets = np.unique(found.targets[right & (found.rows.image_ids == image_id)])
    wrong = np.flatnonzero(_wrong(found) & (found.rows.image_ids == image_id))
    lost_texts = [names[c] for c in truth.object_category_ids[lost].tolist()]
    rows = zip(
        found.kinds[wrong].tolist(),
        found.rows.category_ids[wrong].tolist(),
        found.rows.scores[wrong].tolist(),
        strict=True,
    )
    rows = [(f"{names[c]} {score:.2f}", ERRORS[kind]) for kind, c, score in rows]
    wrong_texts = [f"{text} ({kind})" for text, kind in rows]
    taken: list[tuple[float, float, float]] = []
    layers = [
        _boxes("found", truth.boxes[targets] * scale, ["found"] * len(targets), size),
        _boxes("lost", truth.boxes[lost] * scale, lost_texts, size),
        _boxes("wrong", found.rows.boxes[wrong] * scale, wrong_texts, size),
        # The kind of an error stands below the picture: with it, labels would pile up.
        _labels("lost", truth.boxes[lost] * scale, lost_texts, size, taken),
        _labels("wrong", found.rows.boxes[wrong] * scale, [text for text, _ in rows], size, taken),
    ]
    counts = f"{len(targets)} found, {len(wrong)} wrong, {len(lost)} not found"
    told = f"{title}: {counts}."
    more = "; ".join(
        f"{word}: {html.escape(_listed(texts))}"
        for word, texts in (("wrong", wrong_texts), ("not found", lost_texts))
        if texts
    )
    return (
        f'<figure><svg viewBox="0 0 {size[0]} {size[1]}" role="img" '
        f'aria-label="{html.escape(told)} {html.escape(more)}">'
        f'<image width="{size[0]}" height="{size[1]}" preserveAspectRatio="none" '
        f'href="{_data_url(image, size)}"/>{"".join(layers)}</svg>'
        f"<figcaption><b>{html.escape(title)}</b>: {counts}<br>{more}</figcaption></figure>"
    )


def _listed(texts: Sequence[str]) -> str:
    """Join the first texts; count equal ones."""
    counted = list(Counter(texts).items())
    words = [f"{text} ×{count}" if count > 1 else text for text, count in counted[:_LABELS_LISTED]]
    return ", ".join(words) + (", …" if len(counted) > _LABELS_LISTED else "")


def _boxes(style: str, boxes: np.ndarray, texts: Sequence[str], size: tuple[int, int]) -> str:
    """Return frames with a dark rim, each with its text as a hint."""
    rims, frames = [], []
    for (left, top, right, bottom), text in zip(_corners(boxes, size), texts, strict=False):
        sides = f'width="{max(right - left, 1):.1f}" height="{max(bottom - top, 1):.1f}"'
        rect = f'<rect x="{left:.1f}" y="{top:.1f}" {sides}'
        rims.append(f"{rect}/>")
        frames.append(f"{rect}><title>{html.escape(text)}</title></rect>")
    return (
        f'<g class="rim" aria-hidden="true">{"".join(rims)}</g>'
        f'<g class="{style}">{"".join(frames)}</g>'
    )


def _labels(
    style: str,
    boxes: np.ndarray,
    texts: Sequence[str],
    size: tuple[int, int],
    taken: list[tuple[float, float, float]],
) -> str:
    """Return labels of the first boxes where there is room for them."""
    labels: list[str] = []
    for corners, text in zip(_corners(boxes, size), texts, strict=False):
        if len(labels) < _LABELS_DRAWN:
            written = _label(text, corners, size, taken)
            labels += [written] if written else []
    return f'<g class="{style}">{"".join(labels)}</g>'


def _corners(boxes: np.ndarray, size: tuple[int, int]) -> list[tuple[float, float, float, float]]:
    """Return left, top, right, bottom of the boxes that are drawn, inside the picture."""
    return [
        (
            min(max(x, 1), size[0] - 1),
            min(max(y, 1), size[1] - 1),
            min(x + width, size[0] - 1),
            min(y + height, size[1] - 1),
        )
        for x, y, width, height in boxes[:_BOXES_DRAWN].tolist()
    ]


def _label(
    text: str,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    taken: list[tuple[float, float, float]],
) -> str:
    """Write a label above its box, or inside or below it, where there is no other label."""
    text = text if len(text) <= 30 else text[:29] + "…"
    length = 8.3 * len(text)
    left, top, right, bottom = box
    rows = (top - 5, top + 16, bottom - 6, bottom + 16)
    for x, y in [(left + 2, y) for y in rows] + [(right - length - 2, y) for y in rows]:
        x = max(2.0, min(x, size[0] - length - 2))
        free = all(
            abs(y - other) > _CLEAR or x > end or x + length < start for start, end, other in taken
        )
        if free and 14 <= y <= size[1] - 3:
            taken.append((x, x + length, y))
            return f'<text x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'
    return ""


def _data_url(image: np.ndarray, size: tuple[int, int]) -> str:
    picture = Image.fromarray(np.ascontiguousarray(image)).convert("RGB")
    if picture.width > size[0] or picture.height > size[1]:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
