"""The anchors of SSD as a Keras layer."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.base import Float32Layer
from ssd_centernet.ops import anchor_fit
from ssd_centernet.ops import anchors as anchor_ops


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class DefaultBoxes(Float32Layer):
    """SSD's default boxes, for the feature sizes that the network really has.

    Source: docs/reference/ssd_resnet34.md, sections 1 and 2
    """

    def __init__(
        self,
        scales: Sequence[float] = (21, 45, 99, 153, 207, 261, 315),
        *,
        aspect_ratios: Sequence[Sequence[float]] = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        steps: Sequence[float] | None = (8, 16, 32, 64, 100, 300),
        reference_size: float = 300,
        clip: bool = True,
        name: str = "default_boxes",
        **kwargs,
    ):
        """Configure the anchors.

        Args:
            scales: side of each level's small square in pixels of a `reference_size` image, and one
                more value after the last level.
            aspect_ratios: extra ratios of each level; each adds a wide and a tall box.
            steps: spacing of the cells in pixels, used if the image is a square of `reference_size`
                (the published table is not image size / feature size); for other image sizes, and
                with None, it is computed.
            reference_size: side of the image that `scales` and `steps` are for; on other images
                boxes keep their share of the shorter side.
            clip: whether to clip centres and sizes to [0, 1].
            name: name of the layer.
            **kwargs: passed to the Keras layer.
        """
        super().__init__(name=name, **kwargs)
        self.scales = tuple(scales)
        self.aspect_ratios = tuple(tuple(ratios) for ratios in aspect_ratios)
        self.steps = None if steps is None else tuple(steps)
        self.reference_size = reference_size
        self.clip = clip

    @property
    def boxes_per_cell(self) -> tuple[int, ...]:
        """Return the number of anchors per cell of each level."""
        return tuple(2 + 2 * len(ratios) for ratios in self.aspect_ratios)

    def generate(
        self, image_size: tuple[int, int], feature_sizes: Sequence[tuple[int, int]]
    ) -> np.ndarray:
        """Compute the anchors.

        Args:
            image_size: (height, width) of the network's input in pixels.
            feature_sizes: (height, width) of every level in cells.

        Returns:
            float32 [A, 4], yxyx as fractions of the image; corners may lie outside [0, 1].

        Raises:
            ValueError: the number of levels does not fit.
        """
        boxes = self._boxes(self.scales, self.aspect_ratios, image_size, feature_sizes)
        # Rounded once, at the end: so the published float32 corners come out exactly.
        return anchor_ops.corners(boxes).astype(np.float32)

    def _boxes(self, scales, aspect_ratios, image_size, feature_sizes) -> np.ndarray:
        return anchor_ops.default_boxes(
            image_size,
            feature_sizes,
            scales=[scale / self.reference_size for scale in scales],
            aspect_ratios=aspect_ratios,
            steps=self._steps_at(image_size),
            clip=self.clip,
        )

    def fitted(
        self,
        boxes: np.ndarray,
        image_size: tuple[int, int],
        feature_sizes: Sequence[tuple[int, int]],
        threshold: float,
    ) -> dict[str, tuple]:
        """Compute scales and ratios that match as many objects as possible.

        The number of anchors stays, and so do the shapes of a head's weights.

        Args:
            boxes: float [N, 4], the objects, yxyx fractions of the network's input; at least one.
            image_size: (height, width) of the network's input in pixels.
            feature_sizes: (height, width) of every level in cells.
            threshold: IoU at which an object is matched.

        Returns:
            The arguments `scales` and `aspect_ratios`.
        """
        levels, counts = len(feature_sizes), [len(ratios) for ratios in self.aspect_ratios]
        largest = 1.05 * self.reference_size

        def split(numbers: np.ndarray) -> tuple[np.ndarray, list[tuple[float, ...]]]:
            ratios = np.split(numbers[levels + 1 :], np.cumsum(counts)[:-1])
            return numbers[: levels + 1], [tuple(one) for one in ratios]

        def overlaps(numbers: np.ndarray) -> np.ndarray | None:
            scales, ratios = split(numbers)
            if (np.diff(scales) <= 0).any() or scales[-1] > 1.5 * largest:
                return None
            made = anchor_ops.corners(self._boxes(scales, ratios, image_size, feature_sizes))
            return anchor_fit.best_overlaps(boxes, made, feature_sizes, self.boxes_per_cell)

        sizes = (boxes[:, 2:] - boxes[:, :2]) * (np.array(image_size) / min(image_size))
        sizes = np.maximum(sizes, 1e-3) * self.reference_size
        sides = np.sqrt(anchor_fit.cluster_sizes(sizes, levels).prod(axis=1))
        sides = np.maximum.accumulate(sides * (1.0 + 0.01 * np.arange(levels)))
        small = max(float(np.quantile(np.sqrt(sizes.prod(axis=1)), 0.1)), 1.0)
        ratios = [ratio for level in self.aspect_ratios for ratio in level]
        starts = [
            [*self.scales, *ratios],
            [*sides, 1.25 * sides[-1], *ratios],
            [*np.geomspace(small, max(largest, 2.0 * small), levels + 1), *ratios],
        ]
        scales, found = split(anchor_fit.search(starts, overlaps, threshold))
        rounded = tuple(tuple(round(float(r), 2) for r in level) for level in found)
        return {"scales": tuple(round(float(s), 1) for s in scales), "aspect_ratios": rounded}

    def at_size(self, image_size: tuple[int, int], *, before: tuple[int, int]) -> DefaultBoxes:
        """Return the layer whose boxes have the same pixels on images of another size.

        A network of another `IMAGE_SIZE` has boxes of the same share of the image. Here the weights
        are shared: they see pixels and not the size of the image, so that an object of so many
        pixels must have the same box code on each. YOLO's anchors are pixels for this reason.

        Args:
            image_size: (height, width) of those images in pixels.
            before: of the images that this layer is for.

        Returns:
            A layer without published steps: its cells are spread evenly.

        Source: YOLO9000: Better, Faster, Stronger (arXiv:1612.08242), "Multi-Scale Training"
        """
        changed = {
            "reference_size": self.reference_size * min(image_size) / min(before),
            "steps": None,
        }
        return type(self).from_config({**self.get_config(), **changed})

    def generate_in_pixels(
        self, image_size: tuple[int, int], feature_sizes: Sequence[tuple[int, int]]
    ) -> np.ndarray:
        """Compute the anchors in pixels: float32 [A, 4], yxyx; see `ops.anchors.pixel_boxes`.

        Raises:
            ValueError: `clip` is on, which is defined for fractions only.
        """
        if self.clip:
            raise ValueError(
                "clipped anchors exist only in fractions of the image, not in pixels; set "
                "DefaultBoxes.clip = False or SSD.match_in_pixels = False."
            )
        # At other sizes than the published one cells are spread evenly, as in `default_boxes`.
        steps = self._steps_at(image_size) or [
            (image_size[0] / rows, image_size[1] / columns) for rows, columns in feature_sizes
        ]
        share = min(image_size) / self.reference_size
        return anchor_ops.pixel_boxes(
            feature_sizes,
            sizes=[scale * share for scale in self.scales],
            aspect_ratios=self.aspect_ratios,
            steps=steps,
        )

    def _steps_at(self, image_size: tuple[int, int]) -> list[tuple[float, float]] | None:
        """Return the published steps if the image has their size, else None."""
        if self.steps is None or tuple(image_size) != (self.reference_size,) * 2:
            return None
        return [(step, step) for step in self.steps]

    def call(self, features: Sequence[tf.Tensor], image_size: tuple[int, int]) -> tf.Tensor:
        """Compute the anchors of feature maps [B, h, w, C] with static sizes: float32 [A, 4]."""
        sizes = [tuple(feature.shape[1:3]) for feature in features]
        return tf.constant(self.generate(image_size, sizes))


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class MultiscaleAnchors(Float32Layer):
    """Anchors of a feature pyramid: the same shapes on every level, scaled with its stride.

    Source: docs/reference/ssd320_resnet50_fpn.md, section 4
    """

    def __init__(
        self,
        anchor_scale: float = 4.0,
        *,
        min_level: int = 3,
        max_level: int = 7,
        aspect_ratios: Sequence[float] = (1.0, 2.0, 0.5),
        scales_per_octave: int = 2,
        name: str = "multiscale_anchors",
        **kwargs,
    ):
        """Configure the anchors.

        Args:
            anchor_scale: side of a level's smallest square as a multiple of its stride.
            min_level: log2 of the finest level's stride.
            max_level: log2 of the coarsest level's stride.
            aspect_ratios: width / height of the shapes, at constant area.
            scales_per_octave: number of sizes from one level to the next.
            name: name of the layer.
            **kwargs: passed to the Keras layer.
        """
        super().__init__(name=name, **kwargs)
        self.anchor_scale = anchor_scale
        self.min_level = min_level
        self.max_level = max_level
        self.aspect_ratios = tuple(aspect_ratios)
        self.scales_per_octave = scales_per_octave

    @property
    def boxes_per_cell(self) -> tuple[int, ...]:
        """Return the number of anchors per cell of each level."""
        levels = self.max_level - self.min_level + 1
        return (len(self.aspect_ratios) * self.scales_per_octave,) * levels

    def generate(
        self, image_size: tuple[int, int], feature_sizes: Sequence[tuple[int, int]]
    ) -> np.ndarray:
        """Compute the anchors.

        Args:
            image_size: (height, width) of the network's input in pixels.
            feature_sizes: (height, width) of every level in cells.

        Returns:
            float32 [A, 4], yxyx as fractions of the image; corners may lie outside [0, 1].

        Raises:
            ValueError: the levels are not those of the anchors.
        """
        want = [
            # Each stride of 2 rounds the size of a map up, and so does one division by its power.
            tuple(-(-side // 2**level) for side in image_size)
            for level in range(self.min_level, self.max_level + 1)
        ]
        # Anchors over the wrong cells would train, badly, without an error.
        if [tuple(size) for size in feature_sizes] != want:
            raise ValueError(
                f"MultiscaleAnchors from level {self.min_level} to {self.max_level} expects maps "
                f"of {want} cells for an image of {tuple(image_size)}, but the network gives "
                f"{[tuple(size) for size in feature_sizes]}; set the same `min_level` and "
                "`max_level` for the anchors and the neck."
            )
        return self._boxes(self.anchor_scale, self.aspect_ratios, image_size, feature_sizes)

    def _boxes(self, anchor_scale, aspect_ratios, image_size, feature_sizes) -> np.ndarray:
        return anchor_ops.multiscale_anchors(
            image_size,
            feature_sizes,
            min_level=self.min_level,
            anchor_scale=anchor_scale,
            aspect_ratios=aspect_ratios,
            scales_per_octave=self.scales_per_octave,
        )

    def fitted(
        self,
        boxes: np.ndarray,
        image_size: tuple[int, int],
        feature_sizes: Sequence[tuple[int, int]],
        threshold: float,
    ) -> dict[str, float | tuple]:
        """Compute `anchor_scale` and `aspect_ratios`; see `DefaultBoxes.fitted`."""

        def overlaps(numbers: np.ndarray) -> np.ndarray:
            made = self._boxes(float(numbers[0]), numbers[1:], image_size, feature_sizes)
            return anchor_fit.best_overlaps(boxes, made, feature_sizes, self.boxes_per_cell)

        sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-4) * np.array(image_size)
        # A cluster of objects for each ratio: height and width at constant area.
        clusters = anchor_fit.cluster_sizes(
            sizes / np.sqrt(sizes.prod(axis=1, keepdims=True)), len(self.aspect_ratios)
        )
        starts = [
            [scale * self.anchor_scale, *ratios]
            for scale in (1.0, 0.5)
            for ratios in (self.aspect_ratios, clusters[:, 1] / clusters[:, 0])
        ]
        scale, *ratios = anchor_fit.search(starts, overlaps, threshold)
        rounded = tuple(round(float(ratio), 2) for ratio in ratios)
        return {"anchor_scale": round(float(scale), 2), "aspect_ratios": rounded}

    def call(self, features: Sequence[tf.Tensor], image_size: tuple[int, int]) -> tf.Tensor:
        """Compute the anchors of feature maps [B, h, w, C] with static sizes: float32 [A, 4]."""
        sizes = [tuple(feature.shape[1:3]) for feature in features]
        return tf.constant(self.generate(image_size, sizes))
