"""Image functions: decoding, cropping, resizing, colour and normalisation on tensors."""

from __future__ import annotations

import tensorflow as tf


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decode a JPEG, PNG, GIF (first frame) or BMP to RGB.

    Args:
        encoded: string scalar, the bytes of the file.

    Returns:
        uint8 [H, W, 3]; one-channel images are repeated over the channels.
    """
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def reduce_to(image: tf.Tensor, longest_side: int) -> tf.Tensor:
    """Make a picture smaller whose longer side is too long; each pixel is the mean of its area.

    Args:
        image: uint8 [H, W, C].
        longest_side: most pixels of the longer side; the aspect ratio stays.

    Returns:
        uint8 [h, w, C]; the same picture where it is small enough.
    """
    size = tf.shape(image)[:2]
    longest = tf.reduce_max(size)

    def reduced() -> tf.Tensor:
        scale = tf.cast(longest_side, tf.float64) / tf.cast(longest, tf.float64)
        smaller = tf.cast(tf.round(tf.cast(size, tf.float64) * scale), tf.int32)
        means = tf.image.resize(image, tf.maximum(smaller, 1), method="area")
        return tf.cast(tf.round(means), image.dtype)

    made = tf.cond(longest > longest_side, reduced, lambda: image)
    return tf.ensure_shape(made, [None, None, image.shape[-1]])


def resize_legacy_bilinear(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resize without half-pixel centres: row r of h samples source row r * H / h.

    Args:
        images: [H, W, C] or [B, H, W, C] of any numeric type.
        size: (height, width) of the result in pixels.

    Returns:
        float32 [height, width, C] or [B, height, width, C] in the range of the input. The aspect
        ratio is not kept.

    Source: docs/reference/ssd_resnet34.md, section 7.5
    """
    images = tf.convert_to_tensor(images)
    single = images.shape.rank == 3
    resized = tf.raw_ops.ResizeBilinear(
        images=images[tf.newaxis] if single else images,
        size=list(size),
        align_corners=False,
        half_pixel_centers=False,
    )
    resized = resized[0] if single else resized
    return tf.ensure_shape(resized, [*resized.shape[:-3], *size, images.shape[-1]])


def resize_bilinear(images: tf.Tensor, size: tf.Tensor | tuple[int, int]) -> tf.Tensor:
    """Resize with half-pixel centres and no anti-aliasing, as `tf.image.resize` and OpenCV do.

    Args:
        images: [H, W, C] or [B, H, W, C] of any numeric type.
        size: (height, width) of the result in pixels; a tensor leaves the static size open.

    Returns:
        float32 [height, width, C] or [B, height, width, C] in the range of the input. The aspect
        ratio is not kept.
    """
    return tf.image.resize(images, size, antialias=False)


def resize_by_gathering(
    images: tf.Tensor, size: tf.Tensor | tuple[int, int], *, legacy: bool
) -> tf.Tensor:
    """Resize like TensorFlow's bilinear kernel, with operations of every runtime.

    Kernels of other runtimes sum in another order. If the result is rounded afterwards, a half may
    then become the next grey level.

    Args:
        images: [B, H, W, C] of any numeric type.
        size: (height, width) of the result in pixels; a tensor leaves the static size open.
        legacy: whether to sample without half-pixel centres.

    Returns:
        float32 [B, height, width, C] in the range of the input.
    """
    shape = tf.shape(images)
    (top, bottom, down), (left, right, along) = (
        _neighbours(shape[axis + 1], size[axis], legacy) for axis in (0, 1)
    )

    def row(indices: tf.Tensor) -> tf.Tensor:
        rows = tf.gather(images, indices, axis=1)
        near, far = (tf.cast(tf.gather(rows, i, axis=2), tf.float32) for i in (left, right))
        return near + (far - near) * along[:, tf.newaxis]

    # First along the columns, then along the rows, as the kernel does: last bits depend on it.
    upper, lower = row(top), row(bottom)
    return upper + (lower - upper) * down[:, tf.newaxis, tf.newaxis]


def _neighbours(before, after, legacy: bool) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the two source positions for each position of an axis, and the share of the second."""
    # In float32 a division by a constant is made a product with its reciprocal, which is rounded.
    scale = tf.cast(tf.cast(before, tf.float64) / tf.cast(after, tf.float64), tf.float32)
    places = tf.cast(tf.range(after), tf.float32)
    if legacy:
        sources = places * scale
    else:
        sources = (places + 0.5) * scale - 0.5
    first = tf.floor(sources)
    # Outside the image the border's own pixel is its neighbour.
    low = tf.maximum(tf.cast(first, tf.int32), 0)
    high = tf.minimum(tf.cast(tf.math.ceil(sources), tf.int32), before - 1)
    return low, high, sources - first


def fitted_size(height: tf.Tensor, width: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Compute the size of an image resized to fit a frame with its aspect ratio kept.

    Args:
        height: int [...], height of the image in pixels.
        width: int [...], width of the image in pixels.
        size: (height, width) of the frame in pixels.

    Returns:
        int32 [..., 2]: (height, width), rounded half to even, at least 1 and at most the frame.

    Source: docs/reference/centernet.md, sections 5.2 and 5.3
    """
    sides = tf.cast(tf.stack([height, width], axis=-1), tf.float32)
    frame = tf.constant(size, tf.float32)
    scale = tf.reduce_min(frame / sides, axis=-1, keepdims=True)
    return tf.cast(tf.clip_by_value(tf.round(sides * scale), 1.0, frame), tf.int32)


def resize_and_pad(
    images: tf.Tensor, size: tuple[int, int], *, legacy: bool = False, portable: bool = False
) -> tf.Tensor:
    """Resize images to fit a frame with their aspect ratio kept; fill up with zeros.

    Args:
        images: [H, W, C] or [B, H, W, C] of any numeric type.
        size: (height, width) of the frame in pixels.
        legacy: whether to sample without half-pixel centres.
        portable: whether to use `resize_by_gathering`.

    Returns:
        float32 [height, width, C] or [B, height, width, C] in the range of the input.

    Source: docs/reference/centernet.md, sections 5.2 (half-pixel) and 5.3 (legacy)
    """
    images = tf.convert_to_tensor(images)
    batch = images if images.shape.rank == 4 else images[tf.newaxis]
    shape = tf.shape(batch)
    inner = fitted_size(shape[1], shape[2], size)
    if portable:
        resized = resize_by_gathering(batch, inner, legacy=legacy)
    else:
        resized = tf.raw_ops.ResizeBilinear(
            images=batch, size=inner, align_corners=False, half_pixel_centers=not legacy
        )
    missing = tf.constant(size) - inner
    padded = tf.pad(resized, [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]])
    padded = tf.ensure_shape(padded, [batch.shape[0], *size, images.shape[-1]])
    return padded if images.shape.rank == 4 else padded[0]


def crop_and_resize(image: tf.Tensor, box: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Cut out a box and resize it so that its corners are the corners of the result.

    Row r of h samples source row y1 * (H - 1) + r * (y2 - y1) * (H - 1) / (h - 1); columns alike.

    Args:
        image: [H, W, C] of any numeric type.
        box: float32 [4], yxyx as fractions of the image.
        size: (height, width) of the result in pixels.

    Returns:
        float32 [height, width, C] in the range of the input.

    Source: docs/reference/ssd_resnet34.md, section 7.4
    """
    images = tf.convert_to_tensor(image)[tf.newaxis]
    # The whole image is what many crops are, and for it the resize kernel gives the same pixels in
    # less than half the time.
    crops = tf.cond(
        tf.reduce_all(tf.equal(box, tf.constant([0.0, 0.0, 1.0, 1.0]))),
        lambda: tf.raw_ops.ResizeBilinear(images=images, size=list(size), align_corners=True),
        lambda: tf.image.crop_and_resize(images, box[tf.newaxis], [0], list(size)),
    )
    return tf.ensure_shape(crops[0], [*size, image.shape[-1]])


def flip_left_right(image: tf.Tensor) -> tf.Tensor:
    """Mirror an image [..., W, C] along its width."""
    return tf.reverse(image, axis=[-2])


def normalize(
    image: tf.Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> tf.Tensor:
    """Subtract the mean and multiply by the float32 reciprocal of the deviation.

    Args:
        image: float32 [..., 3], RGB in 0..1.
        mean: mean of each channel on the 0..1 scale.
        std: standard deviation of each channel on the 0..1 scale.

    Returns:
        float32 [..., 3].

    Source: docs/reference/ssd_resnet34.md, section 7.3, step 5
    """
    # The published form; a quotient differs in the last bit.
    scale = tf.constant(1.0, tf.float32) / tf.constant(std, tf.float32)
    return (image - tf.constant(mean, tf.float32)) * scale
