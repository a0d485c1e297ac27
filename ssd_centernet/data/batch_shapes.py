"""Static shapes: padded fields of an example, and a batch that is filled up."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

Example = dict[str, tf.Tensor]

OBJECT_FIELDS = ("boxes", "classes", "is_crowd", "area")
FILLER_ID = -1
# What a batch has instead of images where the step makes them, see `augment/on_device.py`.
SHIPPED = ("pixels", "pixel_sizes", "view")


def finish(
    example: Example,
    max_boxes: int,
    dtype: tf.DType | str,
    targets: Mapping[str, tf.Tensor] | None = None,
) -> Example:
    """Pad the object fields, cast the image, and check that all shapes are static."""
    result = {key: example[key] for key in ("source_id", "height", "width")}
    if "image" in example:
        result["image"] = tf.cast(example["image"], dtype)
    result.update({key: example[key] for key in SHIPPED if key in example})
    result["extent"] = example.get("extent", tf.ones([2]))
    count = tf.minimum(tf.shape(example["boxes"])[0], max_boxes)
    for key in OBJECT_FIELDS:
        values = example[key][:max_boxes]
        padding = [[0, max_boxes - count]] + [[0, 0]] * (values.shape.rank - 1)
        result[key] = tf.ensure_shape(tf.pad(values, padding), [max_boxes, *values.shape[1:]])
    result["valid"] = tf.range(max_boxes) < count
    if targets is not None:
        result["targets"] = dict(targets)
    for key, value in {**result, **(targets or {}), **result.get("view", {})}.items():
        if key not in ("targets", "view") and not value.shape.is_fully_defined():
            raise ValueError(
                f"{key!r} has shape {value.shape}, which is not static, so it cannot be batched. "
                "The augmentation, preprocess or make_targets function must give a fixed shape."
            )
    return result


def fill_up(batch: Example, batch_size: int) -> Example:
    """Fill an incomplete batch up with zeros, and with source_id -1."""

    def fill(value: tf.Tensor, filler: int = 0) -> tf.Tensor:
        missing = batch_size - tf.shape(value)[0]
        padding = [[0, missing]] + [[0, 0]] * (value.shape.rank - 1)
        constant = tf.cast(filler, value.dtype)
        full = tf.cond(
            missing > 0, lambda: tf.pad(value, padding, constant_values=constant), lambda: value
        )
        return tf.ensure_shape(full, [batch_size, *value.shape[1:]])

    targets, views = batch.pop("targets", None), batch.pop("views", None)
    filled = {
        key: fill(value, {"source_id": FILLER_ID, "extent": 1}.get(key, 0))
        for key, value in batch.items()
    }
    if targets is not None:  # The losses of a batch with fillers are not counted.
        filled["targets"] = {key: fill(value) for key, value in targets.items()}
    if views is not None:
        filled["views"] = tuple((fill(image), fill(extent, 1)) for image, extent in views)
    return filled
