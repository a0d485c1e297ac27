"""SSD: anchors on several feature levels, a softmax over classes and a box code for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.anchors import DefaultBoxes
from ssd_centernet.layers.criteria import MultiBoxLoss
from ssd_centernet.layers.decoders import SSDDecoder
from ssd_centernet.layers.heads import SSDHead
from ssd_centernet.layers.necks import SSDExtraLevels
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.detector import Detector, size_in_words
from ssd_centernet.models.parts import build_head, check_method, check_parts


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class SSD(Detector):
    """Single Shot MultiBox Detector.

    The defaults of its parts make the published SSD300 ResNet-34; see
    `gin_configs/ssd300_resnet34.gin`.

    Source:
        docs/reference/ssd_resnet34.md, sections 2 to 6 and 13
        SSD: Single Shot MultiBox Detector (arXiv:1512.02325)
    """

    PARTS = ("backbone", "neck", "head", "anchors", "criterion", "decoder", "preprocessing")

    def __init__(
        self,
        backbone: keras.Model,
        *,
        num_classes: int,
        image_size: tuple[int, int] = (300, 300),
        neck: keras.layers.Layer | None = None,
        head: Callable[..., keras.layers.Layer] | keras.layers.Layer = SSDHead,
        anchors: keras.layers.Layer | None = None,
        criterion: keras.layers.Layer | None = None,
        decoder: keras.layers.Layer | None = None,
        preprocessing: Preprocessing | None = None,
        class_names: Sequence[str] | None = None,
        match_in_pixels: bool = False,
        name: str = "ssd",
    ):
        """Build the detector.

        Args:
            backbone: Keras model from images [B, h, w, 3] to a dict of feature maps by level.
            num_classes: C, without background.
            image_size: (height, width) of the network's input in pixels.
            neck: layer from the backbone's levels, finest first, to those that the head sees; None
                means `SSDExtraLevels`.
            head: constructor of the head, called with the number of logits (C + 1) and
                `boxes_per_cell`, such as `SSDHead`; or such a head.
            anchors: layer that lays anchors over the levels; None means `DefaultBoxes`.
            criterion: layer with the loss; None means `MultiBoxLoss`.
            decoder: layer from raw outputs to detections; None means `SSDDecoder`.
            preprocessing: what an image needs before it goes in.
            class_names: names of the C classes.
            match_in_pixels: whether objects are matched in pixels of the input instead of
                fractions: no different but for ties (see `ops.anchors.pixel_boxes`). The anchors'
                layer must have `generate_in_pixels`.
            name: of the model.

        Raises:
            ValueError: a part that cannot be one: not a layer, or of another kind of detector.
        """
        check_parts(
            "SSD",
            backbone=(backbone, "ResNet"),
            neck=(neck, "SSDExtraLevels"),
            anchors=(anchors, "DefaultBoxes"),
            criterion=(criterion, "MultiBoxLoss"),
            decoder=(decoder, "SSDDecoder"),
            preprocessing=(preprocessing, "Preprocessing"),
        )
        neck = neck or SSDExtraLevels()
        anchors = anchors or DefaultBoxes()
        images = keras.Input((*image_size, 3), name="image")
        features = backbone(images)
        levels = neck([features[key] for key in sorted(features, key=int)])
        criterion, decoder = criterion or MultiBoxLoss(), decoder or SSDDecoder()
        check_method("SSD.criterion", criterion, "make_targets", "MultiBoxLoss", *range(5))
        check_method("SSD.decoder", decoder, "call", "SSDDecoder", *range(2))
        cells = anchors.boxes_per_cell
        head = build_head("SSD.head", head, "SSDHead", num_classes + 1, boxes_per_cell=cells)
        super().__init__(
            inputs=images,
            outputs=head(levels),
            num_classes=num_classes,
            image_size=image_size,
            preprocessing=preprocessing or Preprocessing(image_size),
            class_names=class_names,
            name=name,
        )
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.anchors = anchors
        self.criterion = criterion
        self.decoder = decoder
        self.feature_sizes = tuple(tuple(level.shape[1:3]) for level in levels)
        self._anchor_boxes = anchors.generate(self.image_size, self.feature_sizes)
        self.match_in_pixels = match_in_pixels
        if match_in_pixels:
            self._pixel_anchors = anchors.generate_in_pixels(self.image_size, self.feature_sizes)

    @property
    def anchor_boxes(self) -> tf.Tensor:
        """The anchors, float32 [A, 4], yxyx as fractions of the image."""
        return tf.constant(self._anchor_boxes)

    def make_targets(
        self, boxes, classes, is_crowd, valid=None, extent=None
    ) -> dict[str, tf.Tensor]:
        """Match ground truth to the anchors; see `layers/criteria.py`."""
        del extent  # Anchors over padding are background as others are.
        anchors = self._anchor_boxes
        if self.match_in_pixels:
            anchors = self._pixel_anchors
            boxes = boxes * tf.constant([*self.image_size, *self.image_size], tf.float32)
        return self.criterion.make_targets(boxes, classes, is_crowd, anchors, valid)

    def decode(self, outputs, extent=None, **limits) -> dict[str, tf.Tensor]:
        """Decode raw outputs; see `layers/decoders.py`."""
        return self.to_image_frame(self.decoder(outputs, self.anchor_boxes, **limits), extent)

    def describe_outputs(self) -> str:
        """Say how many anchors there are, on which levels."""
        levels = ", ".join(map(size_in_words, self.feature_sizes))
        return f"a class and a box for each of {len(self._anchor_boxes)} anchors, on {levels} cells"

    def get_config(self) -> dict:
        """Return the constructor's arguments, parts serialised."""
        return {**super().get_config(), "match_in_pixels": self.match_in_pixels}
