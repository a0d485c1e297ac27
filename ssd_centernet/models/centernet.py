"""CenterNet: objects as peaks of a heatmap, each with an offset and a size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import gin
import numpy as np
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.centernet_criteria import CenterNetLoss
from ssd_centernet.layers.centernet_decoder import CenterNetDecoder
from ssd_centernet.layers.heads import CenterNetHead
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.detector import Detector, size_in_words
from ssd_centernet.models.matches import (
    MATCHED,
    UNMATCHED,
    WEAK,
    Matches,
    Terms,
    at_best,
    best_units,
    find_owners,
    states_of,
)
from ssd_centernet.models.parts import build_head, check_method, check_parts, features_of

# Of COCO's pixels, in the order blue, green, red: what the published Hourglass-104 was trained on.
BGR_MEAN = (104.01362025, 114.03422265, 119.9165958)
BGR_STD = (73.6027665, 69.89082075, 70.9150767)


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class CenterNet(Detector):
    """CenterNet: objects as the peaks of heatmaps.

    The defaults of its parts and an `Hourglass` make the published CenterNet Hourglass-104; with
    `CenterNetFPN` on a ResNet-101 it is that of `gin_configs/centernet_resnet101_fpn.gin`.

    Source:
        docs/reference/centernet.md, sections 1 to 4
        Objects as Points (arXiv:1904.07850)
    """

    PARTS = ("backbone", "neck", "head", "criterion", "decoder", "preprocessing")

    def __init__(
        self,
        backbone: keras.Model,
        *,
        num_classes: int,
        image_size: tuple[int, int] = (512, 512),
        neck: keras.layers.Layer | None = None,
        head: Callable[..., keras.layers.Layer] | keras.layers.Layer = CenterNetHead,
        criterion: keras.layers.Layer | None = None,
        decoder: keras.layers.Layer | None = None,
        preprocessing: Preprocessing | None = None,
        class_names: Sequence[str] | None = None,
        name: str = "centernet",
    ):
        """Build the detector.

        Args:
            backbone: Keras model from images [B, h, w, 3] to a dict of feature maps by level. A
                level may have one map per stack: "2_0" is the first stack's, "2" the last one's.
            num_classes: C, without background.
            image_size: (height, width) of the network's input in pixels.
            neck: layer from the backbone's levels, finest first, to the head's maps; None passes
                the backbone's levels on.
            head: constructor of the head, called with C, such as `CenterNetHead`; or a head that is
                built.
            criterion: layer with the loss; None means `CenterNetLoss`.
            decoder: layer from raw outputs to detections; None means `CenterNetDecoder`.
            preprocessing: layer that prepares images for the network; None means that of
                Hourglass-104.
            class_names: names of the C classes.
            name: name of the model.

        Raises:
            ValueError: the maps differ in size, the image size is not a multiple of their stride,
                or a part is not a layer or belongs to another kind of detector.
        """
        check_parts(
            "CenterNet",
            backbone=(backbone, "Hourglass"),
            neck=(neck, "CenterNetFPN"),
            criterion=(criterion, "CenterNetLoss"),
            decoder=(decoder, "CenterNetDecoder"),
            preprocessing=(preprocessing, "Preprocessing"),
        )
        criterion, decoder = criterion or CenterNetLoss(), decoder or CenterNetDecoder()
        sizes = {"num_classes": 0, "image_size": 0, "output_size": 0, "valid": 0, "extent": 0}
        method = ("make_targets", "CenterNetLoss", *range(3))
        check_method("CenterNet.criterion", criterion, *method, **sizes)
        check_method("CenterNet.decoder", decoder, "call", "CenterNetDecoder", 0)
        images = keras.Input((*image_size, 3), name="image")
        features = features_of("CenterNet", backbone, images)
        maps = [features[key] for key in sorted(features, key=_level_and_stack)]
        if neck is not None:
            maps = neck(maps)
        output_size = _common_size(maps, image_size)
        head = build_head("CenterNet.head", head, "CenterNetHead", num_classes)
        super().__init__(
            inputs=images,
            outputs=head(maps),
            num_classes=num_classes,
            image_size=image_size,
            preprocessing=preprocessing or _hourglass_preprocessing(image_size),
            class_names=class_names,
            name=name,
        )
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self._name_classes(criterion)
        self.criterion = criterion
        self.decoder = decoder
        self.output_size = output_size

    def make_targets(
        self, boxes, classes, is_crowd, valid=None, extent=None
    ) -> dict[str, tf.Tensor]:
        """Draw heatmaps; see `layers/centernet_criteria.py`."""
        return self.criterion.make_targets(
            boxes,
            classes,
            is_crowd,
            num_classes=self.num_classes,
            image_size=self.image_size,
            output_size=self.output_size,
            valid=valid,
            extent=extent,
        )

    def explain_targets(self, targets: Mapping, boxes, classes, is_crowd, extent=None) -> Matches:
        """Read out of the targets which peaks learn which object."""
        del is_crowd, extent
        grid = np.array(self.output_size)
        heatmap = targets["heatmap"].numpy()
        if "box_weights" in targets:
            return self._explain_cells(targets, boxes, classes)
        used = targets["weights"].numpy() > 0.0
        cells, offsets, sizes = (
            targets[key].numpy()[used] for key in ("cells", "offsets", "sizes")
        )
        # The boxes that the network would decode if it hit its targets, in cells.
        centers = cells + offsets
        coded = np.concatenate([centers - sizes / 2.0, centers + sizes / 2.0], axis=-1)
        # Gaussians are 1 at their centres alone; of several classes in a cell, each has its peak.
        is_peak = heatmap[cells[:, 0], cells[:, 1]] == 1.0  # [P, C]
        allowed = is_peak[:, classes]
        owners = find_owners(coded / np.tile(grid, 2), boxes, allowed, one_each=True)
        kinds = np.append(classes, -1)[owners]  # -1 for a peak without an object.
        alone = _times(np.column_stack([cells, kinds])) == 1
        best = best_units(owners, alone, len(boxes))
        extents = (boxes[:, 2:] - boxes[:, :2]) * grid
        return Matches(
            terms=self._terms,
            states=states_of(best, alone),
            owners=owners,
            heat=heatmap.max(axis=-1),
            remarks={
                "lower or narrower than a cell": (extents < 1.0).any(axis=1),
                "in one cell with another object, of any class": (
                    at_best(_times(cells), best, 0) > 1
                ),
            },
        )

    def _explain_cells(self, targets: Mapping, boxes, classes) -> Matches:
        """Read out of the targets of `TTFLoss` whose peak a cell has, and whose box it learns."""
        grid = np.array(self.output_size)
        heatmap = targets["heatmap"].numpy()
        cells = np.argwhere(targets["box_weights"].numpy() > 0.0)
        coded = targets["boxes"].numpy()[tuple(cells.T)] / np.tile(grid, 2)
        owners = find_owners(coded, boxes, np.ones([len(cells), len(boxes)], bool))
        # One box with several classes: each class has its peak there.
        twins = np.isclose(boxes[:, np.newaxis], boxes, atol=1e-6).all(axis=-1)
        for twin in np.flatnonzero(~np.isin(range(len(boxes)), owners)):
            firsts = [one for one in np.flatnonzero(twins[twin]) if one in owners]
            if firsts and classes[firsts[0]] != classes[twin]:
                shared = owners == firsts[0]
                cells = np.concatenate([cells, cells[shared]])
                owners = np.concatenate([owners, np.full(shared.sum(), twin)])
        # Gaussians are 1 at their centres alone.
        kinds = np.append(classes, 0)[owners]
        is_peak = (heatmap[cells[:, 0], cells[:, 1], kinds] == 1.0) & (owners >= 0)
        best = best_units(owners, is_peak, len(boxes))
        extents = (boxes[:, 2:] - boxes[:, :2]) * grid
        return Matches(
            terms=self._terms_of_cells,
            states=states_of(best, is_peak),
            owners=owners,
            points=(cells + 0.5) / grid,
            heat=heatmap.max(axis=-1),
            remarks={"lower or narrower than a cell": (extents < 1.0).any(axis=1)},
        )

    @property
    def _terms_of_cells(self) -> Terms:
        return dataclasses.replace(
            self._terms,
            unit="cell",
            states={
                MATCHED: ("own centre", "the cell of its centre learns its box"),
                WEAK: ("off centre", "only cells beside its centre learn its box"),
                UNMATCHED: ("never", "no cell learns its box"),
            },
            notes=(
                self._terms.notes[0],
                "A cell learns the box of one object: the smallest of those that are near.",
                "off centre: a smaller object has the cell of its centre. never: smaller ones have "
                "all of its cells.",
            ),
        )

    @property
    def _terms(self) -> Terms:
        pixels = self.image_size[0] // self.output_size[0]
        return Terms(
            unit="peak",
            states={
                MATCHED: ("own peak", "a peak of its own"),
                WEAK: ("shared peak", "shares its peak with another object of its class"),
                UNMATCHED: ("never", "no peak"),
            },
            heat="the heatmap, largest of all classes",
            notes=(
                f"Heatmap of {size_in_words(self.output_size)} cells, one for {pixels} pixels.",
                "A cell's size and offset can be right for one object alone.",
                "shared peak: another object of the same class is in the cell. never: no peak is "
                "drawn.",
            ),
        )

    def decode(self, outputs, extent=None, **limits) -> dict[str, tf.Tensor]:
        """Decode raw outputs; see `layers/centernet_decoder.py`."""
        return self.to_image_frame(self.decoder(outputs, **limits), extent)

    def describe_outputs(self) -> str:
        """Describe the maps."""
        first, *more = self.output
        *kinds, last = (kind for kind in first if kind != "center")
        names = ", ".join(["heatmap", *kinds]) + f" and {last}"
        maps = f"{names} on {size_in_words(self.output_size)} cells"
        return f"{maps}, by each of {1 + len(more)} stacks" if more else maps


def _times(rows: np.ndarray) -> np.ndarray:
    """Count how often each row [P, K] occurs among all: int [P]."""
    _, inverse, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    return counts[inverse.reshape(-1)]


def _level_and_stack(key: str) -> tuple[int, float]:
    """Return a sorting key: by level, then by stack; the last stack is the one without a number."""
    level, _, stack = key.partition("_")
    return int(level), float(stack or "inf")


def _common_size(maps: Sequence[tf.Tensor], image_size: tuple[int, int]) -> tuple[int, int]:
    """Return (h, w) of the maps.

    Raises:
        ValueError: see `CenterNet`.
    """
    sizes = {tuple(features.shape[1:3]) for features in maps}
    if len(sizes) != 1:
        raise ValueError(
            f"CenterNet predicts on maps of one size, but the backbone gives {sorted(sizes)}; set "
            "CenterNet.neck = @CenterNetFPN(), which joins all levels into one map."
        )
    (size,) = sizes
    if any(pixels % cells for pixels, cells in zip(image_size, size, strict=True)):
        raise ValueError(
            f"a network input of {tuple(image_size)} pixels is not a whole multiple of the "
            f"heatmap's {size} cells; make both sides of IMAGE_SIZE multiples of the stride (4)."
        )
    return size


def _hourglass_preprocessing(image_size: tuple[int, int]) -> Preprocessing:
    return Preprocessing(
        image_size,
        mean=BGR_MEAN,
        std=BGR_STD,
        scale=1.0,
        resize="bilinear",
        keep_aspect=True,
        channels="BGR",
    )
