"""The augmentation: crops replayed row by row, the rest as distributions."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ssd_centernet.data.augment import overlap_crop
from ssd_centernet.data.augment.ssd_vgg import SSDVGGAugment
from ssd_centernet.ops import color
from tests.parity.harness import Report, Row, VectorFile, Vectors
from tests.parity.ssd_vgg16 import common

# The specification asks for p > 1e-3, or means within four standard errors. With this many columns
# a p of 1e-3 comes by chance: below it both must hold, with a smaller p.
MIN_P, LEAST_P = 1e-3, 1e-5
STANDARD_ERRORS = 4.0


def augment_stats(vectors: Vectors, report: Report) -> None:
    """Compare augment_stats.npz."""
    file = vectors.npz("augment_stats.npz")
    report.say(f"augment_stats.npz:np_seed is {int(file['np_seed'])}")
    for kind, count in (("crop6", 6), ("crop1", 1)):
        _replay_crops(report, file, kind, count)
        _compare_crops(report, file, kind, count)
    _compare_expansions(report, file)
    _compare_colors(report, file)
    _compare_pipeline(report, file)


def _compare(report: Report, name: str, got, want) -> None:
    """Compare two samples of one number by Kolmogorov and Smirnov's test."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    p = _same_distribution(got, want)
    error = np.sqrt(got.var() / len(got) + want.var() / len(want))
    distance = abs(got.mean() - want.mean())
    passed = p > MIN_P or (p > LEAST_P and distance <= STANDARD_ERRORS * error)
    note = f"p {p:.3f}, means {got.mean():.4g} and {want.mean():.4g}"
    tolerance = f"p > {MIN_P:g}"
    report.add(Row(f"augment_stats.npz:{name}", bool(passed), distance, None, tolerance, note))


def _same_distribution(one: np.ndarray, two: np.ndarray) -> float:
    """Return the asymptotic probability of the largest distance of two empirical distributions."""
    # Where nothing is changed one value comes again and again, but for its rounding.
    values = np.concatenate([one, two])
    values = values + 1e-3 * values.std()
    shares = [np.searchsorted(np.sort(s), values, side="right") / len(s) for s in (one, two)]
    root = np.sqrt(len(one) * len(two) / (len(one) + len(two)))
    distance = root * np.abs(shares[0] - shares[1]).max()
    if distance < 0.3:  # The series below converges slowly; the sum is 1 to five digits.
        return 1.0
    terms = np.arange(1, 101)
    signs = (-1.0) ** (terms - 1)
    return float(np.clip(2 * np.sum(signs * np.exp(-2 * (terms * distance) ** 2)), 0.0, 1.0))


def _replay_crops(report: Report, file: VectorFile, kind: str, count: int) -> None:
    """Ask of each row whether its window is accepted, and what it makes of the boxes."""
    size, rows = file["image_hw"], file[f"{kind}_trials"]
    mode, left, top, width, height, number, mask = rows.T.astype(np.float64)
    windows = np.stack([top, left, top + height, left + width], axis=1).astype(np.float32)
    accepted, cut, kept = _crop_all(file["boxes"][:count, [1, 0, 3, 2]], windows, rows[:, 0])
    whole = mode == 1.0
    # The rule of the shape saw the windows before they were cut to pixels.
    ratio = np.maximum((height - 1) / (width + 1), (width - 1) / (height + 1))
    name = f"augment_stats.npz:{kind}_trials"
    want = np.broadcast_to([0, 0, *size], windows[whole].shape)
    report.check_exact(f"{name} keep the whole image", windows[whole], want)
    refused = np.count_nonzero(~whole & ~(accepted & (ratio <= 2.0)))
    report.check_exact(f"{name} refused windows", refused, 0)
    got = np.sum(kept * 2 ** np.arange(count), axis=1)
    report.check_exact(f"{name} masks of kept boxes", got, mask)
    report.check_exact(f"{name} numbers of kept boxes", kept.sum(axis=1), number)
    want = file[f"{kind}_boxes_first100"]
    got = np.full(want.shape, -1.0)
    for index in range(len(want)):
        boxes = cut[index][kept[index]]
        got[index, : len(boxes)] = boxes[:, [1, 0, 3, 2]]
    report.check(f"augment_stats.npz:{kind}_boxes_first100", got, want, atol=1e-4)


def _crop_all(boxes: np.ndarray, windows: np.ndarray, bounds: np.ndarray) -> list[np.ndarray]:
    """Return for each window whether it is accepted, the boxes cut to it, and which stay."""

    def crop(window, bound):
        # Loose in its shape, which is judged elsewhere.
        accepted = overlap_crop.accepts(
            tf.constant(boxes), window[tf.newaxis], bound, max_aspect_ratio=4.0
        )
        return (accepted[0], *overlap_crop.crop_boxes(tf.constant(boxes), window, bound))

    dataset = tf.data.Dataset.from_tensor_slices((windows, bounds)).map(crop)
    return [part.numpy() for part in next(iter(dataset.batch(len(windows))))]


def _compare_crops(report: Report, file: VectorFile, kind: str, count: int) -> None:
    size, rows = file["image_hw"], file[f"{kind}_trials"]
    boxes = tf.constant(file["boxes"][:count, [1, 0, 3, 2]])

    def crop(seed):
        window, bound = overlap_crop.sample_crop(boxes, tf.constant(size), seed)
        kept = overlap_crop.crop_boxes(boxes, window, bound)[1]
        return tf.concat([[bound], window, tf.cast(kept, tf.float32)], axis=0)

    got = _many(crop, len(rows))
    mode, top, left, bottom, right = got.T[:5]
    columns = {
        "mode": mode,
        "left": left,
        "top": top,
        "width": right - left,
        "height": bottom - top,
        "boxes kept": got[:, 5:].sum(axis=1),
    }
    for column, (name, values) in enumerate(columns.items()):
        _compare(report, f"{kind}_trials {name}", values, rows[:, column])
    areas = (right - left) * (bottom - top)
    _compare(report, f"{kind}_trials area", areas, rows[:, 3] * rows[:, 4])
    # A distribution over few values is told apart by its shares better than by its steps.
    for value in np.unique(np.concatenate([mode, rows[:, 0]])):
        pair = [np.isclose(modes, value) for modes in (mode, rows[:, 0])]
        _compare(report, f"{kind}_trials share of mode {value:g}", *pair)


def _many(function, count: int) -> np.ndarray:
    """Call a function of a seed `count` times and stack what it gives."""
    seeds = tf.data.Dataset.range(count).map(lambda index: tf.stack([np.int64(17), index]))
    return np.concatenate([batch.numpy() for batch in seeds.map(function, 2).batch(100)])


def _compare_expansions(report: Report, file: VectorFile) -> None:
    size, rows = tf.constant(file["expand_src_hw"]), file["expand_trials"]

    def expand(seed):
        draws = tf.random.stateless_uniform([4], seed)
        canvas, offset = overlap_crop.expansion(size, draws)
        return tf.concat([canvas[::-1], offset[::-1]], axis=0)

    got = _many(expand, len(rows)).astype(np.float64)
    for column, name in enumerate(("canvas width", "canvas height", "left", "top")):
        _compare(report, f"expand_trials {name}", got[:, column], rows[:, column])
    height, width = file["expand_src_hw"]
    expanded = [table[:, 0] > width for table in (got, rows)]
    _compare(report, "expand_trials applied", *expanded)
    places = []
    for table, chosen in zip((got, rows), expanded, strict=True):
        room = np.maximum(table[chosen][:, :2] - [width, height], 1)
        places.append((table[chosen][:, 2:] / room).T)
    for axis in range(2):
        _compare(report, f"expand_trials place on axis {axis}", places[0][axis], places[1][axis])
    fill = np.array(SSDVGGAugment().mean)[::-1]
    report.check("augment_stats.npz:expand_fill_bgr", fill, file["expand_fill_bgr"], rtol=1e-6)


def _compare_colors(report: Report, file: VectorFile) -> None:
    source, rows = tf.constant(file["photo_src_bgr"][..., ::-1]), file["photo_trials"]
    chain = SSDVGGAugment()

    def distort(seed):
        image = color.distort(source, **chain.color_draws(seed))
        return tf.reshape(image[..., ::-1], [-1])

    got = _many(distort, len(rows))
    for column in range(rows.shape[1]):
        _compare(report, f"photo_trials value {column}", got[:, column], rows[:, column])
    # What belongs together: how far the channels of a pixel, and pixels, lie apart.
    second = file["photo_src_bgr"].reshape(-1)[3:6]
    for name, function in (
        ("spread of the first pixel", lambda table: np.ptp(table[:, :3], axis=1)),
        ("spread of the last pixel", lambda table: np.ptp(table[:, 9:], axis=1)),
        ("first less second pixel", lambda table: table[:, :3].max(1) - table[:, 3:6].max(1)),
        ("unchanged", lambda table: np.abs(table[:, 3:6] - second).max(1) < 1e-2),
    ):
        _compare(report, f"photo_trials {name}", function(got), function(rows))


def _compare_pipeline(report: Report, file: VectorFile) -> None:
    size, rows = file["image_hw"], file["pipeline_trials"]
    noise = np.random.default_rng(4).integers(0, 256, (*size, 3), dtype=np.uint8)
    want = file["pipeline_img_mean_bgr"]
    report.check("augment_stats.npz:pipeline_img_mean_bgr", noise.mean((0, 1)), want, atol=1.0)
    boxes = tf.constant(common.from_xyxy(file["boxes"], *size))
    chain = SSDVGGAugment((300, 300))

    def run(seed):
        place = chain.place(tf.constant(size), boxes, seed)
        example = {
            "image": tf.constant(noise),
            "boxes": boxes,
            "classes": tf.range(len(boxes)),
            "is_crowd": tf.zeros([len(boxes)], tf.bool),
        }
        result = chain(example, seed)
        sides = result["boxes"][:, 2:] - result["boxes"][:, :2]
        areas = sides[:, 0] * sides[:, 1]
        image = result["image"]
        values = [
            tf.cast(tf.size(areas), tf.float32),
            tf.reduce_mean(areas),
            tf.reduce_min(areas),
            tf.reduce_max(areas),
            tf.cast(place["flip"], tf.float32),
            tf.reduce_mean(image),
            tf.math.reduce_std(image),
            place["bound"],
        ]
        return tf.stack(values)

    got = _many(run, len(rows))
    names = ("kept", "mean area", "min area", "max area", "flipped", "mean", "deviation", "mode")
    for column, name in enumerate(names):
        _compare(report, f"pipeline_trials {name}", got[:, column], rows[:, column])
