"""One page of HTML that shows an evaluation: numbers, curves, errors and pictures."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ssd_centernet.drawing.page import number, page, sparkline, table
from ssd_centernet.evaluation import _report_charts as charts
from ssd_centernet.evaluation._report_gallery import gallery, image_titles, worst_images
from ssd_centernet.evaluation.analysis import Analysis, analyse
from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.evaluation.result import CocoResult
from ssd_centernet.files import write_atomically
from ssd_centernet.plain_text import counted

ImageLoader = Callable[[Sequence[int]], Mapping[int, np.ndarray]]

_MEANINGS = (
    "IoU 0.50 to 0.95",
    "IoU 0.50",
    "IoU 0.75",
    "small objects",
    "medium objects",
    "large objects",
    "1 detection",
    "10 detections",
    "{} detections",
    "small objects",
    "medium objects",
    "large objects",
)
# Columns that small screens do not show.
_WIDE_ONLY = ' class="narrow-off"'


def html_report(
    result: CocoResult,
    truth: CocoGroundTruth,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    hint: str | None = None,
    settings: str | None = None,
    load_images: ImageLoader | None = None,
    num_images: int = 12,
) -> str:
    """Describe an evaluation on one page that needs no other file and no internet.

    Args:
        result: result of the evaluation.
        truth: ground truth of the evaluation.
        title: title of the page: what was evaluated.
        facts: name -> value of facts on the page, such as the checkpoint.
        hint: why AP is near zero, if it is.
        settings: text of the settings of the run, shown on a click.
        load_images: called with the ids of the images with the most errors; returns uint8 [H, W, 3]
            of those it has. Without it there are no pictures.
        num_images: largest number of pictures, 0 or above.

    Returns:
        The page, HTML with its style, charts and pictures inside.
    """
    limit = max(int(n.removeprefix("ARmax")) for n in result.metrics if n.startswith("ARmax"))
    found = analyse(truth, result.rows, max_detections=limit)
    sections = {
        "Curves": '<div class="two">'
        + charts.curves_figure(found)
        + charts.sizes_figure(result.metrics, truth)
        + "</div>",
        "Errors": charts.errors_section(found),
        "Images": _images_section(found, truth, load_images, num_images),
        "Confusions": charts.confusion_section(found),
        "Classes": _classes_section(result, found),
        "Scores": '<div class="two">'
        + charts.scores_figure(found)
        + charts.calibration_figure(found)
        + "</div>",
        "Facts": _facts_section(result, truth, facts or {}, settings),
    }
    counts = (
        f"{counted(result.num_images, 'image')}, {counted(truth.num_objects, 'object')} of "
        f"{counted(np.count_nonzero(found.num_objects), 'class', 'classes')}, "
        f"{counted(result.num_detections, 'detection')}"
    )
    near_zero = "" if str(hint).startswith("AP is") else "<b>AP is near zero.</b> "
    warning = f'<p class="hint">{near_zero}{html.escape(hint)}</p>' if hint else ""
    if hint and hint.startswith("AP is"):
        warning = f'<p class="hint">{html.escape(hint)}</p>'
    head = f'<p class="faint">{counts}</p>{warning}'
    return page(title, head=head, opening=_cards(result), sections=sections)


def write_report(
    path: str | os.PathLike, result: CocoResult, truth: CocoGroundTruth, **options
) -> str:
    """Write the page of `html_report`, whole or not at all.

    Args:
        path: the file; missing folders are made.
        result: result of the evaluation.
        truth: ground truth of the evaluation.
        **options: arguments of `html_report`.

    Returns:
        The path.
    """
    return write_atomically(path, html_report(result, truth, **options), tidy=True)


def _cards(result: CocoResult) -> str:
    """Show the 12 COCO numbers."""
    cards = []
    for (name, value), meaning in zip(result.metrics.items(), _MEANINGS, strict=True):
        limit = name.removeprefix("ARmax")
        style = ' class="main"' if name == "AP" else ""
        cards.append(
            f"<li{style}><small>{name}</small><b>{number(value)}</b>"
            f"<small>{meaning.format(limit)}</small></li>"
        )
    return f'<ul class="cards" aria-label="COCO metrics">{"".join(cards)}</ul>'


def _classes_section(result: CocoResult, found: Analysis) -> str:
    """Show one line per class, the lowest AP first."""
    heads = ["class", "AP", "AP50", "AP75", "objects", "detections"]
    cells = [f'<th scope="col">{name}</th>' for name in heads]
    for index in (3, 5):
        cells[index] = f'<th scope="col" class="narrow-off">{heads[index]}</th>'
    # The order of the page when it opens.
    cells[1] = '<th scope="col" aria-sort="ascending">AP</th>'
    cells.append('<th scope="col" data-fixed>curve</th>')
    ap75 = found.average_precision[1]
    lines = [
        (row["AP"] if math.isfinite(row["AP"]) else math.inf, index)
        for index, row in enumerate(result.per_class)
    ]
    rows = "".join(
        _class_row(result.per_class[index], ap75[index], found.precision[0, index])
        for _, index in sorted(lines)
    )
    caption = "Lowest AP first; click a heading to sort. Curve: precision by recall at IoU 0.50."
    return table("wide sortable", "classes", caption, "".join(cells), rows)


def _class_row(row: Mapping, ap75: float, curve: np.ndarray) -> str:
    name = html.escape(row["name"])
    values = "".join(
        f'<td data-v="{value if math.isfinite(value) else -1:.6f}"{style}>{number(value)}</td>'
        for value, style in ((row["AP"], ""), (row["AP50"], ""), (float(ap75), _WIDE_ONLY))
    )
    counts = "".join(
        f'<td data-v="{row[key]}"{style}>{row[key]:,}</td>'
        for key, style in (("num_objects", ""), ("num_detections", _WIDE_ONLY))
    )
    spark = sparkline(curve, f"precision by recall of {row['name']}")
    return f'<tr><th scope="row">{name}</th>{values}{counts}<td>{spark}</td></tr>'


def _images_section(
    found: Analysis, truth: CocoGroundTruth, load_images: ImageLoader | None, number: int
) -> str:
    """Show the images with the most errors."""
    chosen = worst_images(found, truth, number)
    if not chosen:
        return '<p class="faint">No image has an error.</p>'
    images = load_images(chosen) if load_images is not None else {}
    names = image_titles(truth, chosen)
    listed = html.escape(", ".join(names))
    if not images:
        return (
            '<p class="faint">The pictures are not available. The images with the most errors are: '
            f"{listed}.</p>"
        )
    absent = [name for i, name in zip(chosen, names, strict=True) if i not in images]
    note = f" Without a picture: {html.escape(', '.join(absent))}." if absent else ""
    return (
        "<p>The images with the most errors: objects not found, and wrong detections with a "
        f"score of {found.score_threshold:.2f} or "
        f"more.{note}</p>{gallery(found, truth, chosen, images)}"
    )


def _facts_section(
    result: CocoResult, truth: CocoGroundTruth, facts: Mapping[str, str], settings: str | None
) -> str:
    """Show the origin of the numbers."""
    lines = {
        **facts,
        "matched by": result.backend,
        "crowd regions": f"{np.count_nonzero(truth.is_crowd):,}",
    }
    terms = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>"
        for name, value in lines.items()
    )
    notes = "".join(
        f"<li>{count:,} {html.escape(sentence)}</li>" for sentence, count in result.notes.items()
    )
    notes = f"<p>Notes:</p><ul>{notes}</ul>" if notes else ""
    shown = (
        f"<details><summary>Settings of the run</summary><pre>{html.escape(settings)}</pre>"
        "</details>"
        if settings
        else ""
    )
    return f"<dl>{terms}</dl>{notes}{shown}"
