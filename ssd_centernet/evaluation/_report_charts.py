"""Sections of the report that show an analysis."""

import html
import math
from collections.abc import Iterable, Mapping

import numpy as np

from ssd_centernet.drawing.chart import page_axes, page_color, svg
from ssd_centernet.drawing.page import figure, number, percent, table
from ssd_centernet.evaluation.analysis import ERRORS, IOU_THRESHOLDS, Analysis
from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.evaluation.overlaps import RECALLS
from ssd_centernet.plain_text import counted

# Most classes of a matrix, whose others are put together, and most pairs of the list.
_MATRIX_CLASSES = 12
_PAIRS_LISTED = 12
_STYLES = ("blue", "teal", "orange")
_MEANINGS = {
    "class": "on an object of another class",
    "localisation": "the right class, but the box overlaps its object by less than half",
    "both": "another class, and the box overlaps its object by less than half",
    "duplicate": "on an object that a detection of a higher score has found",
    "background": "on no object",
    "missed": "objects without any detection",
}


def curves_figure(found: Analysis) -> str:
    """Show the curve of precision and recall, the mean over the classes."""
    measured = found.num_objects > 0
    if not measured.any():
        return figure("Precision and recall", "", "There are no objects in the ground truth.")
    means = found.precision[:, measured].mean(axis=1)
    aps = [float(mean.mean()) for mean in means]
    keys = [
        (style, f"IoU {iou:.2f}: AP {ap:.3f}")
        for style, iou, ap in zip(_STYLES, IOU_THRESHOLDS, aps, strict=True)
    ]
    with page_axes(x_label="recall", y_label="precision") as axes:
        axes.set(xlim=(0, 1), ylim=(0, 1))
        for style, mean in reversed(list(zip(_STYLES, means, strict=True))):
            axes.plot(RECALLS, mean, color=page_color(style))
    drawn = svg(axes, "Precision by recall. " + "; ".join(text for _, text in keys))
    caption = f"Mean over the classes that have objects ({np.count_nonzero(measured)})."
    return figure("Precision and recall", drawn, caption, keys)


def sizes_figure(metrics: Mapping[str, float], truth: CocoGroundTruth) -> str:
    """Show average precision and recall of small, medium and large objects."""
    areas = truth.areas[~truth.is_crowd]
    bins = np.searchsorted([32**2, 96**2], areas, side="right")
    counts = np.bincount(bins, minlength=3)
    names = ("small", "medium", "large")
    values = [(metrics[f"AP{name[0]}"], metrics[f"AR{name[0]}"]) for name in names]
    told = "; ".join(
        f"{name}: AP {number(ap)}, AR {number(ar)}"
        for name, (ap, ar) in zip(names, values, strict=True)
    )
    with page_axes(x_label="object size (number of objects)", y_label="AP, AR") as axes:
        axes.set(xlim=(-0.5, 2.5), ylim=(0, 1))
        marks = [f"{name} ({count:,})" for name, count in zip(names, counts.tolist(), strict=True)]
        axes.set_xticks(range(3), marks)
        for place, style, kind, column in (
            (-0.16, "blue", "AP", [ap for ap, _ in values]),
            (0.16, "teal", "AR", [ar for _, ar in values]),
        ):
            # A dash stands for a size without objects, for which COCO's number is -1.
            heights = np.maximum(column, 0)
            bars = axes.bar(np.arange(3) + place, heights, 0.28, color=page_color(style))
            axes.bar_label(bars, [number(value) for value in column], padding=3)
            for bar, name, value in zip(bars, names, column, strict=True):
                bar.set_gid(f"{kind} of {name} objects: {number(value)}")
    keys = [("blue", "average precision"), ("teal", "average recall (100 detections)")]
    caption = "Small: area below 32² pixels; large: above 96². IoU 0.50 to 0.95."
    drawn = svg(axes, f"Average precision and recall by object size. {told}")
    return figure("By object size", drawn, caption, keys)


def scores_figure(found: Analysis) -> str:
    """Show the number of right and wrong detections by score."""
    scores = found.calibration
    highest = int(max(scores.right.max(), scores.wrong.max(), 1))
    decades = [10**power for power in range(math.ceil(math.log10(highest)) + 1)]
    width = scores.edges[1]
    with page_axes(x_label="score", y_label="detections") as axes:
        # One detection is to be seen, and none to be no bar.
        axes.set_yscale("function", functions=(np.log1p, np.expm1))
        axes.set(xlim=(0, 1), ylim=(0, decades[-1]))
        axes.set_yticks([0, *decades], ["0", *map(_short, decades)])
        for place, style, word, counts in (
            (0.275, "blue", "right", scores.right),
            (0.725, "orange", "wrong", scores.wrong),
        ):
            lefts, counts = scores.edges[:-1][counts > 0], counts[counts > 0]
            bars = axes.bar(lefts + place * width, counts, 0.45 * width, color=page_color(style))
            for bar, left, count in zip(bars, lefts, counts, strict=True):
                bar.set_gid(f"{count} {word}, score {left:.2f} to {left + width:.2f}")
    counts = f"{scores.right.sum()} right and {scores.wrong.sum()} wrong"
    drawn = svg(axes, f"Number of detections by score: {counts}.")
    keys = [("blue", "right (IoU 0.5)"), ("orange", "wrong")]
    return figure("Right and wrong by score", drawn, "The vertical axis is logarithmic.", keys)


def _short(count: int) -> str:
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count // size}{letter}"
    return str(count)


def calibration_figure(found: Analysis) -> str:
    """Show the share of right detections by score."""
    scores = found.calibration
    some = np.isfinite(scores.mean_score)
    means, shares = scores.mean_score[some].clip(0, 1), scores.precision[some]
    with page_axes(x_label="mean score", y_label="share of right detections") as axes:
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.plot([0, 1], [0, 1], color=page_color("faint"), linestyle=(0, (5, 5)), linewidth=1.5)
        axes.plot(means, shares, color=page_color("blue"), marker="o")
    pairs = "; ".join(f"{s:.2f}: {p:.2f}" for s, p in zip(means, shares, strict=True))
    drawn = svg(axes, f"Share of right detections by mean score. {pairs}")
    error = number(scores.error)
    caption = (
        f"Expected calibration error {error}. On the dashed line, 7 of 10 detections with a score "
        "of 0.7 are right; above it the scores are too low, below it too high."
    )
    return figure("Calibration", drawn, caption)


def errors_section(found: Analysis) -> str:
    """Show the kinds of errors with their numbers and costs."""
    highest = max(*found.costs.values(), 1e-9)
    rows = []
    for name in ERRORS:
        cost = found.costs[name]
        share = max(cost, 0.0) / highest
        meter = f'<span class="meter"><i style="width:{100 * share:.0f}%"></i></span>'
        rows.append(
            f'<tr><th scope="row">{name}</th><td class="word narrow-off">{_MEANINGS[name]}</td>'
            f"<td>{found.shown_counts[name]:,}</td><td>{found.counts[name]:,}</td>"
            f"<td>{meter}{max(cost, 0.0):.3f}</td></tr>"
        )
    threshold = found.score_threshold
    why = "This is the score with the highest F1 over all classes, at IoU 0.5."
    if not found.shown["F1"] > 0:
        why = "This score was chosen because no detection is right."
    caption = (
        "The object that a wrong detection (at IoU 0.5) overlaps most decides its kind; with an "
        "overlap below 0.1 it is background. The cost is how much AP50 would rise without the "
        "errors of this kind, all others unchanged."
    )
    head = (
        '<th scope="col">kind</th><th scope="col" class="narrow-off word">what it is</th>'
        f'<th scope="col">score ≥ {threshold:.2f}</th><th scope="col">all scores</th>'
        '<th scope="col">costs AP50</th>'
    )
    return (
        f"{table('wide', 'kinds of errors', caption, head, ''.join(rows))}"
        f'<p class="faint below">At a score of {threshold:.2f} or more: '
        f"precision {percent(found.shown['precision'])}, recall {percent(found.shown['recall'])}, "
        f"F1 {number(found.shown['F1'])}, {counted(found.num_shown, 'detection')}. "
        f"{why}</p>"
    )


def confusion_section(found: Analysis) -> str:
    """Show which classes are confused: a matrix, and the most frequent pairs."""
    matrix, names = _folded(found)
    folded = names != list(found.names)
    which = (
        f"The {_MATRIX_CLASSES} classes that are confused most; 'all others' stands for the rest. "
        if folded
        else ""
    )
    totals = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    heads = "".join(
        f'<th scope="col"><span>{html.escape(name)}</span></th>' for name in (*names, "missed")
    )
    rows = []
    for i, name in enumerate((*names, "background")):
        cells = []
        for j, count in enumerate(matrix[i].tolist()):
            share = count / totals[i, 0]
            style = ' class="same"' if i == j else ""
            empty = i == j == len(names)
            text = "" if empty or not count else f"{count:,}"
            cells.append(f'<td{style} style="--share:{share:.2f}">{text}</td>')
        rows.append(f'<tr><th scope="row">{html.escape(name)}</th>{"".join(cells)}</tr>')
    caption = (
        f"{which}Rows: the objects. Columns: the detections with a score of "
        f"{found.score_threshold:.2f} or more, at IoU 0.5. Darker: a larger share of the row; "
        "framed: right."
    )
    drawn = table(
        "confusion",
        "confusion matrix",
        caption,
        f'<td class="corner"></td>{heads}',
        "".join(rows),
    )
    return f'<div class="beside">{drawn}{_pairs(found)}</div>'


def _folded(found: Analysis) -> tuple[np.ndarray, list[str]]:
    """Keep the classes that are confused most and put the others together."""
    size = len(found.names)
    if size <= _MATRIX_CLASSES + 1:
        return found.confusion, list(found.names)
    between = found.confusion[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    confused = between.sum(axis=0) + between.sum(axis=1)
    # If two classes are confused equally often, the more frequent one comes first.
    order = np.lexsort((-found.num_objects, -confused))[:_MATRIX_CLASSES]
    place = np.full(size + 1, len(order), np.int64)
    place[order] = np.arange(len(order))
    place[-1] = len(order) + 1
    matrix = np.zeros([len(order) + 2] * 2, np.int64)
    np.add.at(matrix, (place[:, None], place[None, :]), found.confusion)
    return matrix, [found.names[i] for i in order] + ["all others"]


def _pairs(found: Analysis) -> str:
    """List the pairs of classes that are confused most often."""
    between = found.confusion[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    order = np.argsort(-between, axis=None, kind="stable")[:_PAIRS_LISTED]
    rows: Iterable[str] = (
        f'<tr><th scope="row">{html.escape(found.names[i])}</th>'
        f'<td class="word">{html.escape(found.names[j])}</td><td>{between[i, j]:,}</td>'
        f"<td>{percent(between[i, j] / max(found.num_objects[i], 1))}</td></tr>"
        for i, j in zip(*np.unravel_index(order, between.shape), strict=True)
        if between[i, j]
    )
    body = "".join(rows)
    if not body:
        return '<p class="faint">No class was confused with another one.</p>'
    head = (
        '<th scope="col">object</th><th scope="col" class="word">detected as</th>'
        '<th scope="col">times</th><th scope="col">share of its objects</th>'
    )
    return table("", "confusions", "Most frequent confusions", head, body)
