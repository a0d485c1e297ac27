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
    drawn = [_picture(found, truth, i, images[i]) for i in image_ids if i in images]
    key = (
        '<ul class="legend key"><li class="found"><i></i>object that was found</li>'
        '<li class="wrong"><i></i>wrong detection, with its kind and score</li>'
        '<li class="lost"><i></i>object that was not found</li></ul>'
    )
    return f'{key}<div class="gallery">{"".join(drawn)}</div>'


def _wrong(found: Analysis) -> np.ndarray:
    """Return bool [N]: detections that are shown and wrong."""
    return (found.kinds >= 0) & (found.rows.scores >= found.score_threshold)


def _picture(found: Analysis, truth: CocoGroundTruth, image_id: int, image: np.ndarray) -> str:
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
    wrong_texts = [f"{names[c]} {s:.2f} ({ERRORS[kind]})" for kind, c, s in rows]
    taken: list[tuple[float, float, float]] = []
    layers = [
        _boxes("found", truth.boxes[targets] * scale, [""] * len(targets), size, taken),
        _boxes("lost", truth.boxes[lost] * scale, lost_texts, size, taken),
        _boxes("wrong", found.rows.boxes[wrong] * scale, wrong_texts, size, taken),
    ]
    # All labels above all frames.
    drawn = "".join(frames for frames, _ in layers) + "".join(labels for _, labels in layers)
    counts = f"{len(targets)} found, {len(wrong)} wrong, {len(lost)} not found"
    told = f"Image {image_id}: {counts}."
    more = "; ".join(
        f"{word}: {html.escape(_listed(texts))}"
        for word, texts in (("wrong", wrong_texts), ("not found", lost_texts))
        if texts
    )
    return (
        f'<figure><svg viewBox="0 0 {size[0]} {size[1]}" role="img" '
        f'aria-label="{html.escape(told)} {html.escape(more)}">'
        f'<image width="{size[0]}" height="{size[1]}" preserveAspectRatio="none" '
        f'href="{_data_url(image, size)}"/>{drawn}</svg>'
        f"<figcaption><b>image {image_id}</b>: {counts}<br>{more}</figcaption></figure>"
    )


def _listed(texts: Sequence[str]) -> str:
    """Join the first texts; count equal ones."""
    counted = list(Counter(texts).items())
    words = [f"{text} ×{count}" if count > 1 else text for text, count in counted[:_LABELS_LISTED]]
    return ", ".join(words) + (", …" if len(counted) > _LABELS_LISTED else "")


def _boxes(
    style: str,
    boxes: np.ndarray,
    texts: Sequence[str],
    size: tuple[int, int],
    taken: list[tuple[float, float, float]],
) -> tuple[str, str]:
    """Return frames with a dark rim, and labels of the first ones where there is room."""
    rims, frames, labels = [], [], []
    for (x, y, width, height), text in zip(boxes[:_BOXES_DRAWN].tolist(), texts, strict=False):
        left, top = min(max(x, 1), size[0] - 1), min(max(y, 1), size[1] - 1)
        right, bottom = min(x + width, size[0] - 1), min(y + height, size[1] - 1)
        sides = f'width="{max(right - left, 1):.1f}" height="{max(bottom - top, 1):.1f}"'
        rect = f'<rect x="{left:.1f}" y="{top:.1f}" {sides}'
        rims.append(f"{rect}/>")
        frames.append(f"{rect}><title>{html.escape(text or 'found')}</title></rect>")
        if text and len(labels) < _LABELS_DRAWN:
            written = _label(text, (left, top, bottom), size, taken)
            labels += [written] if written else []
    return (
        f'<g class="rim" aria-hidden="true">{"".join(rims)}</g>'
        f'<g class="{style}">{"".join(frames)}</g>',
        f'<g class="{style}">{"".join(labels)}</g>',
    )


def _label(
    text: str,
    box: tuple[float, float, float],
    size: tuple[int, int],
    taken: list[tuple[float, float, float]],
) -> str:
    """Write a label above its box, or inside or below it, where there is no other label."""
    text = text if len(text) <= 34 else text[:33] + "…"
    length = 8.3 * len(text)
    x = max(2.0, min(box[0], size[0] - length - 2))
    for y in (box[1] - 5, box[1] + 16, box[2] - 6, box[2] + 16):
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
