"""Windows of images: drawing and reading them, and boxes as fractions of them."""

from __future__ import annotations

import tensorflow as tf

from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import image as image_ops

# Pixels decoded around a window: chroma of a 4:2:0 JPEG is interpolated from its neighbours, so
# that pixels beside a cut differ from those of the whole image, and two pixels further in do not.
DECODE_MARGIN = 2
# Images of less than 256 pixels a side have a smaller border that centres keep from the edge.
_LARGEST_BORDER = 128


def decode_around(
    encoded: tf.Tensor, window: tf.Tensor, *, margin: int = DECODE_MARGIN
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode a window of a JPEG and what lies around it.

    Args:
        encoded: string scalar, the bytes of a JPEG.
        window: int32 [4], (y, x, height, width) in pixels, inside the image.
        margin: pixels decoded around the window, which then equals a part of the whole image; with
            0, the outermost ones may differ.

    Returns:
        uint8 [h, w, 3], RGB; and int32 [4], where the window lies in it.
    """
    if not margin:
        pixels = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
        return pixels, tf.concat([tf.zeros([2], tf.int32), window[2:]], axis=0)
    size = tf.io.extract_jpeg_shape(encoded)[:2]
    start = tf.maximum(window[:2] - margin, 0)
    end = tf.minimum(window[:2] + window[2:] + margin, size)
    pixels = tf.image.decode_and_crop_jpeg(
        encoded, tf.concat([start, end - start], axis=0), channels=3
    )
    return pixels, tf.concat([window[:2] - start, window[2:]], axis=0)


def window_around(box: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Find the pixels that `ops.image.crop_and_resize` needs of a picture, and the box in them.

    Args:
        box: float32 [4], yxyx as fractions of the picture.
        size: int32 [2], (height, width) of the picture in pixels.

    Returns:
        The window int32 [4], (y, x, height, width), with a margin that makes it right to decode
        only these pixels of a JPEG; and the box float32 [4] as fractions of the window. What is cut
        from it equals what is cut from the whole picture up to float32 rounding of the sampling
        positions (about 0.02 grey levels).
    """
    pixels = tf.reshape(box, [2, 2]) * tf.cast(size - 1, tf.float32)
    start = tf.maximum(tf.cast(tf.floor(pixels[0]), tf.int32) - DECODE_MARGIN, 0)
    # One more than the last row and column that are sampled: ends are exclusive.
    end = tf.minimum(tf.cast(tf.math.ceil(pixels[1]), tf.int32) + 1 + DECODE_MARGIN, size)
    # A window of one row has only one place to sample. For the whole image this gives 0 and 1.
    span = tf.cast(tf.maximum(end - start - 1, 1), tf.float32)
    inner = (pixels - tf.cast(start, tf.float32)) / span
    return tf.concat([start, end - start], axis=0), tf.reshape(inner, [4])


def cut(image: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Return the pixels [height, width, C] of a window (y, x, height, width) of an image."""
    return tf.slice(image, tf.pad(window[:2], [[0, 1]]), tf.concat([window[2:], [-1]], axis=0))


def paste(image: tf.Tensor, offset: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Put an image on a black canvas.

    Args:
        image: [H, W, C] of any numeric type.
        offset: int32 [2], (y, x) of the image's corner on the canvas, >= 0.
        size: int32 [2], (height, width) of the canvas; the image must fit.

    Returns:
        [height, width, C] of the same type.
    """
    # Paddings (before, after) of rows and columns; none of channels.
    after = size - tf.shape(image)[:2] - offset
    return tf.pad(image, tf.pad(tf.stack([offset, after], axis=1), [[0, 1], [0, 0]]))


def frame_of(window: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Express a window (y, x, height, width) in pixels as float32 yxyx fractions of the image."""
    edges = tf.concat([window[:2], window[:2] + window[2:]], axis=0)
    return tf.cast(edges, tf.float32) / tf.cast(tf.tile(size, [2]), tf.float32)


def mirror_window(window: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Return the window (y, x, height, width) that covers the same pixels of a mirrored image."""
    return tf.stack([window[0], width - window[1] - window[3], window[2], window[3]])


def reframe_boxes(boxes: tf.Tensor, frame: tf.Tensor) -> tf.Tensor:
    """Express boxes as fractions of another frame, without clipping.

    Args:
        boxes: float32 [N, 4], yxyx.
        frame: float32 [4], yxyx in the same frame as the boxes; may reach beyond the image.

    Returns:
        float32 [N, 4].
    """
    start, extent = frame[:2], frame[2:] - frame[:2]
    return (boxes - tf.tile(start, [2])) / tf.tile(extent, [2])


def crop_boxes(
    boxes: tf.Tensor, frame: tf.Tensor, *, min_overlap: float | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cut boxes to a frame and express them as fractions of it.

    Args:
        boxes: float32 [N, 4], yxyx.
        frame: float32 [4], yxyx in the same frame as the boxes; may reach beyond the image.
        min_overlap: share of a box's area that must lie inside for the box to stay; 0 also drops
            boxes without area, None drops only boxes outside.

    Returns:
        Boxes float32 [N, 4] within 0..1, and bool [N]: which boxes stay. A box that only touches
        the frame lies outside.

    Source:
        docs/reference/ssd320_resnet50_fpn.md, section 2.5
        docs/reference/centernet.md, sections 5.2 and 5.3
    """
    outside = tf.logical_or(boxes[:, :2] >= frame[2:], boxes[:, 2:] <= frame[:2])
    kept = tf.logical_not(tf.reduce_any(outside, axis=1))
    if min_overlap is not None:
        inside = box_ops.area(box_ops.clip(boxes, frame))
        # 0 / 0 is NaN and fails the comparison, which drops boxes without area.
        kept = tf.logical_and(kept, inside / box_ops.area(boxes) >= min_overlap)
    return tf.clip_by_value(reframe_boxes(boxes, frame), 0.0, 1.0), kept


def sample_window(
    size: tf.Tensor,
    boxes: tf.Tensor,
    seed: tf.Tensor,
    *,
    min_object_covered: float,
    aspect_ratios: tuple[float, float],
    areas: tuple[float, float],
    max_attempts: int = 100,
) -> tf.Tensor:
    """Draw a window that covers enough of at least one box.

    Args:
        size: int32 [2], (height, width) of the image in pixels.
        boxes: float32 [N, 4], yxyx fractions of the image; parts beyond it are ignored.
        seed: integer [2], stateless seed.
        min_object_covered: share of at least one box that the window must contain.
        aspect_ratios: bounds of width / height, in pixels.
        areas: bounds of the window's area as a share of the image's.
        max_attempts: number of draws before the whole image is used.

    Returns:
        int32 [4], (y, x, height, width) in pixels. The whole image if no window was found; any
        window if there is no box.

    Source:
        docs/reference/ssd320_resnet50_fpn.md, section 2.5
        docs/reference/centernet.md, section 5.3
    """
    boxes = box_ops.clip(boxes)
    # An image without boxes is cropped too: the whole image is then the box that guides the draw.
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.pad(size, [[0, 1]], constant_values=3),
        boxes[tf.newaxis],
        seed,
        min_object_covered=min_object_covered,
        aspect_ratio_range=aspect_ratios,
        area_range=areas,
        max_attempts=max_attempts,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.cast(tf.concat([begin[:2], extent[:2]], axis=0), tf.int32)


def square_crop_border(size: tf.Tensor) -> tf.Tensor:
    """Compute the smallest distance of a square crop's centre from the edges.

    Args:
        size: int32 [...], height or width in pixels.

    Returns:
        int32 [...]: 128 for 256 pixels and more; below, 128 halved until twice the result is at
        most `size`, but at least 1.

    Source: docs/reference/centernet.md, section 5.2, step 2
    """
    # The smallest power of two p with p * size >= 256; whole numbers do not suffer from the
    # rounding of logarithms.
    doublings = tf.constant([2**k for k in range(7)])
    steps = tf.cast(size[..., tf.newaxis] * doublings < 2 * _LARGEST_BORDER, tf.int32)
    return _LARGEST_BORDER // tf.bitwise.left_shift(1, tf.reduce_sum(steps, axis=-1))


def square_crop(
    size: tf.Tensor, scale: tf.Tensor, center: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Compute a square crop that may reach beyond the image.

    Args:
        size: int32 [2], (height, width) of the image in pixels.
        scale: float32 scalar, side of the crop over the longer side of the image.
        center: int32 [2], (y, x) in pixels.

    Returns:
        Window int32 [4], (y, x, height, width): the pixels of the image in use, never its last row
        and column; offset int32 [2], (y, x) of their place on the canvas; canvas int32 [4], (y, x,
        side, side) in the frame of the image, side at least 1.

    Source: docs/reference/centernet.md, section 5.2, step 2
    """
    longer = tf.cast(tf.reduce_max(size), tf.float32)
    side = tf.maximum(tf.cast(scale * longer, tf.int32), 1)
    # `corner` may be negative; `start` to `end` is what of the square lies on the image. Its end
    # never is the last row or column, as in the original.
    corner = center - side // 2
    start = tf.clip_by_value(corner, 0, size - 1)
    end = tf.clip_by_value(center + side // 2, start, tf.maximum(size - 1, start))
    window = tf.concat([start, end - start], axis=0)
    return window, tf.maximum(-corner, 0), tf.concat([corner, [side, side]], axis=0)


def scaled_crop(
    size: tf.Tensor, frame_size: tuple[int, int], scale: tf.Tensor, uniforms: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute the size of an image that fits a frame times `scale`, and the frame's place.

    Args:
        size: int32 [2], (height, width) of the image in pixels.
        frame_size: (height, width) of the frame in pixels.
        scale: float32 scalar; 1 resizes the image to fit the frame, with its aspect ratio kept.
        uniforms: float32 [2] in [0, 1): the place of the frame (y, x), if there is room.

    Returns:
        Scaled size int32 [2] of the image, at least 1; offset int32 [2] of the frame on it.

    Source: docs/reference/centernet.md, section 5.2, step 3
    """
    frame = tf.constant(frame_size, tf.float32)
    sides = tf.cast(size, tf.float32)
    # The scaled frame is rounded before the image is resized to fit it, then the image's size too.
    share = tf.reduce_min(tf.round(frame * scale) / sides)
    scaled = tf.maximum(tf.round(sides * share), 1.0)
    offset = tf.cast(tf.maximum(scaled - frame, 0.0) * uniforms, tf.int32)
    return tf.cast(scaled, tf.int32), offset


def resize_scaled_crop(
    image: tf.Tensor, frame_size: tuple[int, int], scaled: tf.Tensor, offset: tf.Tensor
) -> tf.Tensor:
    """Resize an image [H, W, C] by the result of `scaled_crop`; fill up with black.

    Returns:
        float32 [height, width, C] of `frame_size`, in the range of the input.
    """
    resized = image_ops.resize_bilinear(image, scaled)
    extent = tf.minimum(scaled - offset, tf.constant(frame_size))
    inner = cut(resized, tf.concat([offset, extent], axis=0))
    framed = paste(inner, tf.zeros([2], tf.int32), tf.constant(frame_size))
    return tf.ensure_shape(framed, [*frame_size, image.shape[-1]])
