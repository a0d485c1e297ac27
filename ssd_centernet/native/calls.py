"""Calls of the compiled operations; only where `library.active()` has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ssd_centernet.native import library

_WHOLE = (0.0, 0.0, 1.0, 1.0)


def places(
    part: tf.Tensor,
    *,
    canvas: tf.Tensor,
    scaled: tf.Tensor | Sequence[int],
    offset: tf.Tensor | Sequence[int] = (0, 0),
    cut: tf.Tensor | Sequence[int] = (0, 0),
) -> tf.Tensor:
    """Say which pixels come where: `render` resizes a canvas, on which a part of the window lies.

    Args:
        part: int32 [4], (y, x, height, width), the part of the window.
        canvas: int32 [2], size of the canvas.
        scaled: int [2], the size that the canvas is resized to.
        offset: int [2], (y, x) of the part on the canvas; beyond it what does not fit is left out.
        cut: int [2], (y, x) of the result on the resized canvas.

    Returns:
        int32 [12].
    """
    return tf.concat([tf.cast(v, tf.int32) for v in (part, offset, canvas, scaled, cut)], axis=0)


def render(
    pixels: tf.Tensor,
    window: tf.Tensor,
    size: tuple[int, int],
    *,
    flip: tf.Tensor,
    sampling: str,
    places: tf.Tensor | None = None,
    box: tf.Tensor | None = None,
    mirror_picture: bool = False,
    color_kind: str = "none",
    colors: tf.Tensor | None = None,
    clip_each: bool = True,
    fill: Sequence[float] = (0.0, 0.0, 0.0),
    divisor: float = 1.0,
    mean: Sequence[float],
    std: Sequence[float],
    channels: str = "RGB",
) -> tf.Tensor:
    """Sample pixels, change their colours and normalise them, in one pass.

    Args:
        pixels: uint8 [h, w, 3], RGB.
        window: int32 [4], (y, x, height, width): the pixels that count; others are not there.
        size: (height, width) of the result.
        flip: bool scalar, whether to mirror.
        sampling: "crop" as `ops.image.crop_and_resize` of `box`; "legacy" or "half_pixel" as the
            resizes of `ops.image`; "half_pixel_exact", with positions in float64.
        places: see `places`; not for "crop".
        box: float32 [4], for "crop".
        mirror_picture: whether the pixels are mirrored first, not the result last.
        color_kind: "none"; "distort" as `ops.color.distort` and "hue_first" as
            `ops.color.hue_first_jitter`, of the pixels before they are sampled; or "jitter" as
            `ops.color.jitter`, of the result.
        colors: float32 [K], the factors of these functions in their order.
        clip_each: of "hue_first".
        fill: colour of the canvas and of what lies beyond it, before normalisation.
        divisor: of the pixels, before the mean is subtracted and "jitter" works.
        mean: of each channel of the result.
        std: of each channel of the result.
        channels: order of the result, "RGB" or "BGR".

    Returns:
        float32 [height, width, 3].
    """
    colors = tf.zeros([6]) if colors is None else tf.pad(colors, [[0, 6 - colors.shape[0]]])
    factor = np.float32(1.0) / np.asarray(std, np.float32)
    return library.active().ssd_centernet_render(
        pixels=pixels,
        window=window,
        places=tf.zeros([12], tf.int32) if places is None else places,
        box=tf.constant(_WHOLE) if box is None else box,
        colors=colors,
        flip=flip,
        height=size[0],
        width=size[1],
        sampling=sampling,
        color_kind=color_kind,
        clip_each=clip_each,
        mirror_picture=mirror_picture,
        fill=[float(value) for value in fill],
        divisor=float(divisor),
        mean=[float(value) for value in mean],
        factor=[float(value) for value in factor],
        reverse=channels == "BGR",
    )


def find_crop(
    boxes: tf.Tensor,
    seed: tf.Tensor,
    *,
    size: tf.Tensor | None = None,
    min_ious: Sequence[float],
    no_crop_probability: float,
    min_extent: float,
    max_extent: float = 1.0,
    max_aspect_ratio: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Search a crop as `data.augment.ssd` does or, if `size` is given, `overlap_crop`.

    Args:
        boxes: float32 [N, 4], yxyx in fractions, or in pixels.
        seed: int64 [2], of the first turn.
        size: int32 [2], (height, width) of the picture in pixels.
        min_ious: overlaps that are drawn from.
        no_crop_probability: chance of keeping the whole picture, in each attempt.
        min_extent: smallest side as a fraction of the picture's.
        max_extent: largest one.
        max_aspect_ratio: bound of the ratio of the sides.

    Returns:
        `(window float32 [4], bound float32 [], whole bool [])`, see the two.
    """
    return library.active().ssd_centernet_find_crop(
        boxes=boxes,
        size=tf.zeros([2], tf.int32) if size is None else size,
        seed=seed,
        in_pixels=size is not None,
        min_ious=[float(value) for value in min_ious],
        no_crop_probability=no_crop_probability,
        min_extent=min_extent,
        spread=max_extent - min_extent,
        max_aspect=max_aspect_ratio,
        min_aspect=1.0 / max_aspect_ratio,
    )


def match(
    boxes: tf.Tensor,
    classes: tf.Tensor,
    anchors: tf.Tensor,
    *,
    objects: tf.Tensor,
    forced: tf.Tensor,
    regions: tf.Tensor,
    matched_threshold: float,
    last_claim_wins: bool,
    scale_factors: Sequence[float],
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Match the objects of one image with anchors, as `ops.matching.make_targets` does.

    Args:
        boxes: float32 [M, 4], yxyx.
        classes: int32 [M].
        anchors: float32 [A, 4].
        objects: bool [M], which rows count.
        forced: bool [M], which rows take their best anchor whatever the overlap.
        regions: bool [M], which rows are regions in which anchors are ignored.
        matched_threshold: smallest overlap of a match.
        last_claim_wins: whether the last row that takes an anchor gets it.
        scale_factors: of the box code.

    Returns:
        `(matches int32 [A], class_targets int32 [A], box_targets float32 [A, 4])`.
    """
    return library.active().ssd_centernet_match(
        boxes=boxes,
        classes=classes,
        objects=objects,
        forced=forced,
        regions=regions,
        anchors=anchors,
        threshold=matched_threshold,
        last_claim_wins=last_claim_wins,
        scale_factors=[float(value) for value in scale_factors],
    )
