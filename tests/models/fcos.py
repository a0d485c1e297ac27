"""A small FCOS: a detector of another kind than those of the library.

Each location of a pyramid predicts its distances to the four sides of the object around it, and how
near the object's centre it is. The library knows nothing of this detector.

Source: FCOS: Fully Convolutional One-Stage Object Detection (arXiv:1904.01355).
"""

from __future__ import annotations

import gin
import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.fpn import FPN
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models import matches
from ssd_centernet.models.detector import Detector
from ssd_centernet.ops import boxes as box_ops
from ssd_centernet.ops import losses as loss_ops
from ssd_centernet.ops import nms


@gin.register
@keras.saving.register_keras_serializable(package="tests")
class FCOSHead(keras.layers.Layer):
    """Predict classes, sides and centerness with kernels that all levels share."""

    def __init__(self, num_classes: int, *, name: str = "head", **kwargs):
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes

    def build(self, input_shapes) -> None:
        def conv(filters, name, **settings):
            settings |= {"padding": "same", "dtype": self.dtype_policy}
            return keras.layers.Conv2D(filters, 3, name=name, **settings)

        rare = keras.initializers.Constant(-3.0)
        self._tower = conv(16, "tower", activation="relu")
        self._logits = conv(self.num_classes, "logits", bias_initializer=rare)
        self._sides = conv(4, "sides")
        self._centerness = conv(1, "centerness")
        super().build(input_shapes)

    @property
    def class_layers(self) -> list:
        return [self._logits]

    def call(self, levels) -> dict:
        found = {"logits": [], "sides": [], "centerness": []}
        for features in map(self._tower, levels):
            for key, parts in found.items():
                maps = tf.cast(getattr(self, f"_{key}")(features), tf.float32)
                _, rows, columns, depth = maps.shape
                parts.append(tf.reshape(maps, [-1, rows * columns, depth]))
        return {key: tf.concat(parts, axis=1) for key, parts in found.items()}

    def get_config(self) -> dict:
        return {**super().get_config(), "num_classes": self.num_classes}


@gin.register
@keras.saving.register_keras_serializable(package="tests")
class FCOS(Detector):
    """Fully convolutional one-stage detection, with center sampling; crowds are nobody's."""

    PARTS = ("backbone", "neck", "head", "preprocessing")
    loss_weights = {"class": 1.0, "box": 1.0, "centerness": 1.0}

    def __init__(
        self,
        backbone: keras.Model,
        *,
        num_classes: int,
        image_size: tuple[int, int] = (64, 64),
        neck=None,
        head=None,
        preprocessing=None,
        class_names=None,
        name: str = "fcos",
    ):
        neck, head = neck or FPN(16, max_level=5), head or FCOSHead(num_classes)
        images = keras.Input((*image_size, 3), name="image")
        features = backbone(images)
        levels = neck([features[key] for key in sorted(features, key=int)])
        super().__init__(
            inputs=images,
            outputs=head(levels),
            num_classes=num_classes,
            image_size=image_size,
            preprocessing=preprocessing or Preprocessing(image_size),
            class_names=class_names,
            name=name,
        )
        self.backbone, self.neck, self.head = backbone, neck, head
        self.level_sizes = [tuple(level.shape[1:3]) for level in levels]
        self._place_locations()

    def _place_locations(self) -> None:
        """Lay locations [L, 2] over the levels; each level has its range of objects' sizes."""
        points, strides, ranges = [], [], []
        for level, (rows, columns) in enumerate(self.level_sizes):
            stride = 2 ** (self.neck.min_level + level)
            grid = np.stack(np.mgrid[:rows, :columns], axis=-1).reshape(-1, 2)
            points.append((grid + 0.5) * stride / self.image_size)
            strides += [stride] * len(grid)
            last = level + 1 == len(self.level_sizes)
            ranges += [(2 * stride if level else 0, np.inf if last else 4 * stride)] * len(grid)
        self._points = np.concatenate(points).astype(np.float32)
        self._strides = np.array(strides, np.float32)[:, np.newaxis]
        self._ranges = np.array(ranges, np.float32)

    def _sides(self, boxes: tf.Tensor) -> tf.Tensor:
        """Return the intervals from locations to sides [..., 4] of boxes, in strides."""
        sides = tf.concat([self._points - boxes[..., :2], boxes[..., 2:] - self._points], axis=-1)
        return sides * (np.tile(np.float32(self.image_size), 2) / self._strides)

    def _boxes(self, sides: tf.Tensor) -> tf.Tensor:
        sides = sides * (self._strides / np.tile(np.float32(self.image_size), 2))
        points = self._points
        return tf.concat([points - sides[..., :2], points + sides[..., 2:]], axis=-1)

    def make_targets(self, boxes, classes, is_crowd, valid=None, extent=None) -> dict:
        objects = ~is_crowd if valid is None else valid & ~is_crowd
        # One row more, which no location takes, so that an image without objects has one.
        margin = [[0, 0]] * (len(boxes.shape) - 2) + [[0, 1]]
        boxes = tf.pad(boxes, [*margin, [0, 0]])
        classes, objects = tf.pad(classes, margin), tf.pad(objects, margin)
        one_by_one = boxes[..., tf.newaxis, :]
        sides = self._sides(one_by_one)  # [..., M + 1, L, 4]
        centers = (one_by_one[..., :2] + one_by_one[..., 2:]) / 2.0
        away = tf.abs(self._points - centers) * np.float32(self.image_size) / self._strides
        farthest = tf.reduce_max(sides, axis=-1) * self._strides[:, 0]
        allowed = (
            objects[..., tf.newaxis]
            & (tf.reduce_max(away, axis=-1) < 1.5)
            & (tf.reduce_min(sides, axis=-1) > 0.0)
            & (farthest > self._ranges[:, 0])
            & (farthest <= self._ranges[:, 1])
        )
        # The smallest object takes a location.
        areas = tf.where(allowed, box_ops.area(boxes)[..., tf.newaxis], np.inf)
        rows = tf.argmin(areas, axis=-2, output_type=tf.int32)
        taken = tf.reduce_any(allowed, axis=-2)
        depth = len(rows.shape) - 1
        codes = self._sides(tf.gather(boxes, rows, batch_dims=depth))
        codes = tf.where(taken[..., tf.newaxis], codes, 1.0)
        pair = (codes[..., :2], codes[..., 2:])
        centerness = tf.reduce_prod(tf.minimum(*pair) / tf.maximum(*pair), axis=-1) ** 0.5
        return {
            "classes": tf.where(taken, tf.gather(classes, rows, batch_dims=depth), -1),
            "sides": codes,
            "centerness": tf.where(taken, centerness, 0.0),
        }

    def losses_of(self, outputs, targets) -> dict:
        weights, hit = targets["centerness"], tf.cast(targets["classes"] >= 0, tf.float32)
        number = tf.maximum(tf.reduce_sum(hit), 1.0)
        # The library's focal loss has a slot of background in front.
        logits = tf.pad(outputs["logits"], [[0, 0], [0, 0], [1, 0]])
        focal = loss_ops.sigmoid_focal(logits, targets["classes"] + 1)[..., 1:]
        found, wanted = tf.exp(outputs["sides"]), targets["sides"]
        areas = [
            tf.reduce_prod(sides[..., :2] + sides[..., 2:], axis=-1)
            for sides in (tf.minimum(found, wanted), found, wanted)
        ]
        overlaps = areas[0] / (areas[1] + areas[2] - areas[0])
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(weights, outputs["centerness"][..., 0])
        return {
            "class": tf.reduce_sum(focal) / number,
            "box": tf.reduce_sum((1.0 - overlaps) * weights) / number,
            "centerness": tf.reduce_sum(entropy * hit) / number,
        }

    def decode(self, outputs, extent=None, *, score_threshold=None, iou_threshold=None) -> dict:
        scores = tf.sqrt(tf.sigmoid(outputs["logits"]) * tf.sigmoid(outputs["centerness"]))
        found = nms.multiclass_nms(
            box_ops.clip(self._boxes(tf.exp(outputs["sides"]))),
            scores,
            score_threshold=0.05 if score_threshold is None else score_threshold,
            iou_threshold=0.6 if iou_threshold is None else iou_threshold,
            max_detections=50,
        )
        return self.to_image_frame(found, extent)

    def explain_targets(self, targets, boxes, classes, is_crowd, extent=None) -> matches.Matches:
        labels = targets["classes"].numpy()
        hit, levels = np.flatnonzero(labels >= 0), np.log2(self._strides[:, 0]).astype(int)
        coded = self._boxes(targets["sides"]).numpy()[hit]
        owners = matches.find_owners(coded, boxes, labels[hit, np.newaxis] == classes)
        centerness = targets["centerness"].numpy()[hit]
        best = matches.best_units(owners, centerness, len(boxes))
        terms = matches.Terms(
            unit="location",
            states={
                matches.MATCHED: ("learned", "locations near the centre of the object"),
                matches.UNMATCHED: ("never", "no location"),
            },
            quality="best centerness",
            groups=tuple(f"stride of {2**level}" for level in np.unique(levels)),
            notes=("never: smaller objects took its locations, or it lies between them.",),
        )
        return matches.Matches(
            terms=terms,
            states=matches.states_of(best, np.ones(len(hit), bool)),
            owners=owners,
            points=self._points[hit],
            quality=matches.at_best(centerness, best, 0.0),
            groups=matches.at_best(levels[hit] - levels[0], best, -1),
        )

    def describe_outputs(self) -> str:
        return f"a class, four sides and a centerness at each of {len(self._points)} locations"
