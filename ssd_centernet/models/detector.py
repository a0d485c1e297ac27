"""The base of all detectors: a network, a criterion (targets and losses) and a decoder."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import textwrap
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.explained import ExplainedModel
from ssd_centernet.models.given_images import as_batch, as_list
from ssd_centernet.models.quantized import QuantizedNetwork, quantize
from ssd_centernet.models.siblings import at_size, under_policy
from ssd_centernet.models.views import View, detect_views, make_views, sizes_of_views
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.patterns import as_patterns, check_matches

# Characters of the names in a summary.
_NAMES_SHOWN = 72


class Detector(ExplainedModel):
    """A Keras model from normalised images to raw float32 outputs, with its criterion and decoder.

    Subclasses build the network, pass its inputs and outputs to `super().__init__`, set `criterion`
    and `decoder`, and implement `make_targets`, `decode` and `describe_outputs`. `ExplainedModel`
    lists the optional methods.

    Attributes:
        num_classes: C, without background.
        image_size: (height, width) of the network's input in pixels.
        preprocessing: `Preprocessing` that belongs to the weights.
        class_names: names of the classes, or None.
        PARTS: names of the constructor's arguments that are Keras objects, and of the attributes
            that hold them.
        quantized: computes the network in numbers of 8 bits, see `models/quantized.py`; None where
            nothing is rounded.
    """

    PARTS: tuple[str, ...] = ()
    quantized: QuantizedNetwork | None = None

    def __init__(
        self,
        *,
        inputs,
        outputs,
        num_classes: int,
        image_size: tuple[int, int],
        preprocessing: Preprocessing,
        class_names: Sequence[str] | None = None,
        name: str | None = None,
    ):
        """Join the parts; see the subclasses.

        Raises:
            ValueError: the number of names or the size of the preprocessing does not fit.
        """
        super().__init__(inputs=inputs, outputs=outputs, name=name)
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(
                f"{len(class_names)} class names for num_classes={num_classes}: num_classes does "
                "not count background; set NUM_CLASSES to the number of names in the label map."
            )
        if tuple(preprocessing.image_size) != tuple(image_size):
            raise ValueError(
                f"the network takes images of {tuple(image_size)}, but the preprocessing gives "
                f"{tuple(preprocessing.image_size)}; set both through IMAGE_SIZE."
            )
        self.num_classes = num_classes
        self.image_size = tuple(image_size)
        self.preprocessing = preprocessing
        self.class_names = None if class_names is None else tuple(class_names)

    def call(self, inputs, training=None, mask=None):
        """Compute raw outputs from images [B, h, w, 3], rounded where the detector is quantized."""
        if self.quantized is not None:
            return self.quantized.outputs(inputs, training=training is True)
        return super().call(inputs, training=training, mask=mask)

    def _name_classes(self, criterion: keras.layers.Layer) -> None:
        """Tell a criterion that weighs classes by their names what these are."""
        if hasattr(criterion, "name_classes"):
            criterion.name_classes(self.class_names)

    def make_targets(
        self, boxes, classes, is_crowd, valid=None, extent=None
    ) -> dict[str, tf.Tensor]:
        """Turn ground truth into training targets, for one image or (with leading B) a batch.

        Args:
            boxes: float32 [..., M, 4], yxyx, fractions of the network's input.
            classes: int32 [..., M], 0..C-1.
            is_crowd: bool [..., M].
            valid: bool [..., M], False for padding; None means all rows count.
            extent: float32 [..., 2], the share (height, width) of the network's input that the
                image covers; None means all of it. Detectors that learn from padding too ignore it.

        Returns:
            A dict of tensors of static shape except for the leading B.
        """
        raise NotImplementedError

    def losses_of(self, outputs, targets) -> dict[str, tf.Tensor]:
        """Compute the criterion's unweighted loss parts of a batch, named float32 scalars."""
        return self.criterion(outputs, targets)

    def decode(self, outputs, extent=None, **limits) -> dict[str, tf.Tensor]:
        """Decode raw outputs into `Detections` (see docs/architecture.md).

        Args:
            outputs: outputs of the network.
            extent: float32 [B, 2], as in `make_targets`: if the preprocessing pads, boxes are
                fractions of the image instead of the network's input.
            **limits: arguments of the decoder's call, such as `score_threshold`; None means the
                decoder's own.
        """
        raise NotImplementedError

    def detect_prepared(
        self,
        images: tf.Tensor,
        extent: tf.Tensor | None = None,
        *,
        outputs: Any = None,
        views: Sequence[View] = (),
        **limits,
    ) -> dict[str, tf.Tensor]:
        """Detect objects on images that the preprocessing has made, in a graph or without.

        Args:
            images: float32 [B, h, w, 3], the network's input.
            extent: as in `decode`.
            outputs: of the network for these images; None runs it.
            views: of `views_of` for the images themselves, where the decoder's `test_time` names
                scales; without them `images` are resized, which shows no more detail than they do.
            **limits: as in `decode`.

        Returns:
            Detections as of `decode`, of all views that the decoder's `test_time` asks for.
        """
        return detect_views(self, images, extent, outputs=outputs, views=views, limits=limits)

    def views_of(self, images: tf.Tensor) -> list[View]:
        """Prepare images for the scales that the decoder's `test_time` names.

        Args:
            images: uint8 [H, W, 3] or [B, H, W, 3], of any size.

        Returns:
            For each scale the input at that size, float32 [..., h, w, 3], and its extent float32
            [..., 2]; of one image without the leading axis.
        """
        return make_views(self, images)

    def at_size(self, image_size: Sequence[int]) -> Detector:
        """Return the detector that has the same layers and weights for images of another size.

        Boxes of anchors keep their size in pixels: the weights see pixels, and not how large the
        image is.

        Args:
            image_size: (height, width) of the images in pixels.

        Returns:
            The detector itself at its own size; else one whose variables are those of this one.

        Raises:
            ValueError: the layers have no form for such images, or the detector is quantized.
        """
        return at_size(self, image_size)

    def to_image_frame(self, detections: dict, extent) -> dict[str, tf.Tensor]:
        """Turn boxes from fractions of the network's input into fractions of the image.

        Args:
            detections: detections of a decoder.
            extent: float32 [B, 2] or None, as in `decode`.

        Returns:
            The same if nothing is padded, else with boxes clipped to the image.
        """
        if extent is None or not self.preprocessing.keep_aspect:
            return detections
        scale = tf.concat([extent, extent], axis=-1)[:, tf.newaxis]
        return {**detections, "boxes": box_ops.clip(detections["boxes"] / scale)}

    @property
    def loss_weights(self) -> dict[str, float]:
        """Return the factor of each loss part in the total."""
        return self.criterion.loss_weights

    def compute_losses(self, outputs, batch: dict) -> dict[str, tf.Tensor]:
        """Compute the unweighted loss parts of a batch.

        Args:
            outputs: outputs of the network for `batch["image"]`.
            batch: see docs/architecture.md; `targets` are used if the input pipeline made them;
                else they are made here, on the device, from `boxes`, `classes` and, if present,
                `is_crowd`, `valid` and `extent`. In a training `progress`, float32, is the share of
                the run that is over, for a detector that `needs_progress`.

        Returns:
            Named float32 scalars.
        """
        targets = batch.get("targets")
        if targets is None:
            targets = self.make_targets(
                batch["boxes"],
                batch["classes"],
                batch.get("is_crowd", tf.zeros_like(batch["classes"], tf.bool)),
                batch.get("valid"),
                batch.get("extent"),
            )
        told = ["progress"] if self.needs_progress and "progress" in batch else []
        return self.losses_of(outputs, targets, **{name: batch[name] for name in told})

    def total_loss(self, parts: dict[str, tf.Tensor]) -> tf.Tensor:
        """Sum the loss parts with their weights; this is the only place that applies them."""
        return tf.add_n([self.loss_weights[name] * part for name, part in parts.items()])

    def detect(
        self, images: tf.Tensor | np.ndarray | str | os.PathLike | Sequence, **limits
    ) -> dict[str, tf.Tensor]:
        """Detect objects.

        Args:
            images: uint8 [B, H, W, 3] or [H, W, 3], RGB, any size; the path of an image file, which
                is turned by its EXIF orientation; a picture of Pillow, which is taken as it is; or
                a list or tuple of these, of any sizes.
            **limits: `score_threshold` and `iou_threshold` instead of the decoder's own, floats or
                scalar tensors.

        Returns:
            Detections: `boxes` [B, D, 4] yxyx fractions of the given image, `scores` [B, D]
            descending, `classes` int32 [B, D] in 0..C-1, `count` int32 [B]. One image is a batch of
            one.

        Raises:
            ValueError: the images are not uint8 RGB, or there are none.
            OSError: a file is missing, or is not an image.
        """
        # As tensors: for each Python number the graph would be traced anew.
        given = {
            name: tf.convert_to_tensor(value, tf.float32)
            for name, value in limits.items()
            if value is not None
        }
        prepare, detect_prepared = self._traced(given)
        pictures = as_list(images)
        if pictures is None:
            views = prepare(as_batch(images))
        else:
            # One at a time, so that only one is in memory in its full size as floats.
            prepared = [prepare(picture[tf.newaxis]) for picture in pictures]
            views = tf.nest.map_structure(lambda *one: tf.concat(one, axis=0), *prepared)
        return detect_prepared(views, given)

    def _traced(self, limits: Collection[str]) -> tuple[Callable, Callable]:
        """Return the two graphs of `detect`: to the network's input, and on to detections.

        Number and sizes of images are open in them: each is traced once for the names of `limits`,
        and again when the decoder or the preprocessing was changed or exchanged.
        """
        parts = [getattr(self, name, None) for name in ("preprocessing", "decoder")]
        configs = [part.get_config() for part in parts if hasattr(part, "get_config")]
        wanted = repr((list(map(id, parts)), configs))
        graphs = self.__dict__.get("_graphs_of_detect", {})
        if graphs.get("of") != wanted:
            images = tf.TensorSpec([None, None, None, 3], tf.uint8)
            prepare = tf.function(self._prepare, input_signature=[images], autograph=False)
            graphs = {"of": wanted, "prepare": prepare}
            # Keras would track and save what is set as an attribute.
            object.__setattr__(self, "_graphs_of_detect", graphs)
        names = tuple(sorted(limits))
        if names not in graphs:
            extent = tf.TensorSpec([None, 2], tf.float32)
            sizes = [self.image_size, *sizes_of_views(self)]
            views = [(tf.TensorSpec([None, *size, 3], tf.float32), extent) for size in sizes]
            scalars = {name: tf.TensorSpec([], tf.float32) for name in names}
            graphs[names] = tf.function(
                lambda views, limits: self.detect_prepared(*views[0], views=views[1:], **limits),
                input_signature=[views, scalars],
                autograph=False,
            )
        return graphs["prepare"], graphs[names]

    def _prepare(self, images: tf.Tensor) -> list[View]:
        """Turn uint8 images [B, H, W, 3] into the network's input and its extent, and views."""
        sizes = tf.tile(tf.shape(images)[tf.newaxis, 1:3], [tf.shape(images)[0], 1])
        extent = self.preprocessing.extent(sizes[:, 0], sizes[:, 1])
        return [(self.preprocessing(images), extent), *self.views_of(images)]

    def summary(self, *args, print_fn=None, **kwargs) -> None:
        """Print inputs, outputs and Keras' table of the parts.

        Args:
            *args: arguments of `keras.Model.summary`.
            print_fn: takes the text, piece by piece; None prints it.
            **kwargs: arguments of `keras.Model.summary`, such as `expand_nested=True` for every
                layer.
        """
        show = print_fn or print
        for line in self._description():
            show(line)
        # The network alone: the other parts have no weights, and Keras cannot place them.
        network = keras.Model(self.inputs, self.outputs, name=self.name)
        network.summary(*args, print_fn=print_fn, **kwargs)

    def __repr__(self) -> str:
        """Describe the detector in one paragraph."""
        try:
            title, *lines = self._description(width=None)
        except AttributeError:  # Its constructor is at work.
            return super().__repr__()
        facts = "; ".join(line.strip() for line in lines)
        millions = self.count_params() / 1e6
        precision = self.dtype_policy.name
        return f"<{title}; {facts}; {millions:.1f} million weights, {precision}>"

    def _description(self, *, width: int | None = 96) -> list[str]:
        names = ", ".join(self.class_names or ()) or "no names given"
        names = names if len(names) <= _NAMES_SHOWN else f"{names[:_NAMES_SHOWN]}..."
        parts = ((name, getattr(self, name)) for name in self.PARTS)
        shown = ", ".join(
            f"{name} {type(part).__name__}" for name, part in parts if part is not None
        )
        loss = " + ".join(f"{weight:g} {name}" for name, weight in self.loss_weights.items())
        lines = [
            f"classes: {self.num_classes} ({names})",
            f"predicts: {self.describe_outputs()}",
            f"parts: {shown}",
            f"loss: {loss}",
        ]
        wrapped = (textwrap.wrap(line, width or 10**6, subsequent_indent="  ") for line in lines)
        title = f"{type(self).__name__} for images of {size_in_words(self.image_size)} pixels"
        return [title, *(f"  {line}" for line in itertools.chain(*wrapped))]

    def describe_outputs(self) -> str:
        """Describe in a few words what the network predicts for an image."""
        raise NotImplementedError

    def get_config(self) -> dict:
        """Return the constructor's arguments, with parts serialised, and the precision."""
        parts = {name: getattr(self, name) for name in self.PARTS}
        return {
            "name": self.name,
            "num_classes": self.num_classes,
            "image_size": self.image_size,
            "class_names": self.class_names,
            "dtype": self.dtype_policy.name,
            **({"quantize": dataclasses.asdict(self.quantized.settings)} if self.quantized else {}),
            **{key: keras.saving.serialize_keras_object(part) for key, part in parts.items()},
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects=None):
        """Build the detector from `get_config`, in the precision that it had."""
        config = dict(config)
        settings = config.pop("quantize", None)
        with under_policy(config.pop("dtype", None)):
            for key in cls.PARTS:
                if isinstance(config.get(key), dict):
                    config[key] = keras.saving.deserialize_keras_object(config[key])
            detector = cls(**config)
            quantize(detector, settings)
            return detector

    def variables_to_train(self, freeze: str | Sequence[str] = ()) -> list[tf.Variable]:
        """List the trainable variables that no pattern of `freeze` matches.

        Args:
            freeze: regular expressions, matched at the start of variable names.

        Returns:
            Variables in creation order.

        Raises:
            ValueError: a pattern matches nothing, so it would freeze nothing without a word.
        """
        patterns = as_patterns(freeze, setting="train.freeze")
        variables = self.trainable_variables
        check_matches(patterns, [v.name for v in variables], setting="train.freeze")
        return [v for v in variables if not any(re.match(one, v.name) for one in patterns)]


def size_in_words(size: Sequence[int]) -> str:
    """Write (height, width) as '300 x 400'."""
    return " x ".join(map(str, size))
