"""Several pictures in one: mosaic, mixup, and boxes of one picture pasted into another."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from ssd_centernet.data.augment.common import Example, keep_objects
from ssd_centernet.data.augment.compose import OBJECTS, PictureStep, join_objects, keep_uncovered
from ssd_centernet.data.augment.ssd import check_image_size
from ssd_centernet.ops import crops, pasting

# How large a picture may become by a factor, so that a slip is no lack of memory.
_LARGEST_SCALE = 4.0
_WHOLE = (0.0, 1.0)


def _between(bounds: Sequence[float], uniform: tf.Tensor) -> tf.Tensor:
    return bounds[0] + uniform * (bounds[1] - bounds[0])


@gin.register
class Mosaic(PictureStep):
    """Put four pictures around a random centre: the own one at the top left, three more beside it.

    Each picture is resized to fit half the canvas' sides, with its aspect ratio kept, times a
    factor. What is smaller than its quarter touches the centre, and the rest of the quarter is
    grey; of what is larger, a random part is shown (YOLOX shows the part nearest to the centre).
    The crops of the chain that follows are what the random affine map is there.

    It unpacks four whole pictures for each one that is trained on.

    Args:
        probability: chance that a picture becomes a mosaic.
        off_for_last: share of the run, at its end, without it, so that a training ends on pictures
            as they are (15 of YOLOX's 300 epochs).
        size: (height, width) of the canvas in pixels; None is twice the network's input.
        centers: bounds of the centre, as shares of the canvas' height and width.
        scales: bounds of each picture's factor.
        fill: grey level of what shows no picture, 0..255.
        min_visible: share of a box's area that must be shown for the box to stay.

    Raises:
        ValueError: a setting that is out of its bounds.

    Source: YOLOv4: Optimal Speed and Accuracy of Object Detection (arXiv:2004.10934)
        YOLOX: Exceeding YOLO Series in 2021 (arXiv:2107.08430)
    """

    partners = 3

    def __init__(
        self,
        *,
        probability: float = 1.0,
        off_for_last: float = 0.05,
        size: tuple[int, int] | None = None,
        centers: tuple[float, float] = (0.25, 0.75),
        scales: tuple[float, float] = (1.0, 1.0),
        fill: int = 114,
        min_visible: float = 0.3,
    ):
        super().__init__(probability=probability, off_for_last=off_for_last)
        self.size = None if size is None else _checked_size(size)
        self.centers, self.scales = centers, scales
        self.fill, self.min_visible = fill, min_visible
        self.check_range("centers", centers, *_WHOLE)
        self.check_range("scales", scales, 0.01, _LARGEST_SCALE)
        self.check("fill", fill, 0, 255)
        self.check("min_visible", min_visible, *_WHOLE)

    def apply(self, own: Example, partners, seed, image_size):
        canvas = self._canvas(image_size)
        draws = tf.random.stateless_uniform([2 + 4 * 3], seed)
        center = tf.round(_between(self.centers, draws[:2]) * tf.cast(canvas, tf.float32))
        center = tf.clip_by_value(tf.cast(center, tf.int32), 1, tf.constant(canvas) - 1)
        placed = []
        for number, picture in enumerate([own, *partners]):
            quarter = divmod(number, 2)
            placed.append(
                self._place(picture, quarter, center, draws[2 + 3 * number :][:3], canvas)
            )
        joined = join_objects(*placed)
        parts = [one["image"] for one in placed]
        rows = [tf.concat(parts[:2], axis=1), tf.concat(parts[2:], axis=1)]
        return {**joined, "image": tf.ensure_shape(tf.concat(rows, axis=0), [*canvas, 3])}

    def _place(self, picture, quarter, center, draws, canvas) -> Example:
        """Return what a quarter of the canvas shows, and the objects as fractions of the canvas."""
        is_second = tf.constant(quarter)
        begin = is_second * center
        room = tf.where(is_second > 0, tf.constant(canvas) - center, center)
        scale = _between(self.scales, draws[0])
        size = pasting.scaled_size(tf.shape(picture["image"])[:2], tf.constant(canvas) // 2, scale)
        shown = tf.minimum(size, room)
        corner = pasting.draw_place(size - shown, draws[1:])
        window = tf.concat([corner, shown], axis=0)
        # The side at the centre is the end of the first and the begin of the second.
        inner = tf.where(is_second > 0, 0, room - shown)
        pixels = crops.cut(pasting.resize_to_bytes(picture["image"], size), window)
        borders = tf.pad(tf.stack([inner, room - shown - inner], axis=1), [[0, 1], [0, 0]])
        boxes, kept = pasting.boxes_at(
            picture["boxes"],
            window,
            size,
            tf.concat([begin + inner, shown], axis=0),
            tf.constant(canvas),
            min_visible=self.min_visible,
        )
        picture = keep_objects(picture, boxes, kept)
        filler = tf.constant(int(self.fill), tf.uint8)
        return {**picture, "image": tf.pad(pixels, borders, constant_values=filler)}

    def _canvas(self, image_size: tuple[int, int] | None) -> tuple[int, int]:
        if self.size is None and image_size is None:
            raise ValueError(
                "Mosaic.size is None, which is twice the network's input, but the size of that is "
                "not known: set Mosaic.size = (height, width), in pixels."
            )
        return self.size or (2 * image_size[0], 2 * image_size[1])

    def largest_canvas(self, largest, image_size):
        return self._canvas(image_size)


@gin.register
class MixUp(PictureStep):
    """Blend another picture into a picture; the objects of both count in full.

    The other picture is resized to fit the first, with its aspect ratio kept, times a factor. A
    smaller one lies at a random place, and around it the first picture is as it was; of a larger
    one a random part is used. The result has the size of the first picture. All objects have the
    same weight, as in YOLOX, and not that of their picture, as in the first paper: so neither
    picture should be faint. It unpacks two whole pictures for each one.

    Args:
        probability: chance that a picture is mixed.
        off_for_last: share of the run, at its end, without it.
        shares: bounds of the other picture's share of the pixels (YOLOX: one half).
        scales: bounds of the other picture's factor.
        min_visible: share of a box's area that must be shown for the box to stay.

    Raises:
        ValueError: a setting that is out of its bounds.

    Source: Bag of Freebies for Training Object Detection Neural Networks (arXiv:1902.04103)
        YOLOX: Exceeding YOLO Series in 2021 (arXiv:2107.08430)
    """

    partners = 1

    def __init__(
        self,
        *,
        probability: float = 0.5,
        off_for_last: float = 0.05,
        shares: tuple[float, float] = (0.5, 0.5),
        scales: tuple[float, float] = (0.5, 1.5),
        min_visible: float = 0.3,
    ):
        super().__init__(probability=probability, off_for_last=off_for_last)
        self.shares, self.scales, self.min_visible = shares, scales, min_visible
        self.check_range("shares", shares, *_WHOLE)
        self.check_range("scales", scales, 0.01, _LARGEST_SCALE)
        self.check("min_visible", min_visible, *_WHOLE)

    def apply(self, own: Example, partners, seed, image_size):
        (other,) = partners
        draws = tf.random.stateless_uniform([6], seed)
        canvas = tf.shape(own["image"])[:2]
        size = pasting.scaled_size(
            tf.shape(other["image"])[:2], canvas, _between(self.scales, draws[0])
        )
        shown = tf.minimum(size, canvas)
        window = tf.concat([pasting.draw_place(size - shown, draws[1:3]), shown], axis=0)
        place = pasting.draw_place(canvas - shown, draws[3:5])
        pixels = crops.cut(pasting.resize_to_bytes(other["image"], size), window)
        boxes, kept = pasting.boxes_at(
            other["boxes"],
            window,
            size,
            tf.concat([place, shown], axis=0),
            canvas,
            min_visible=self.min_visible,
        )
        share = _between(self.shares, draws[5])
        image = pasting.blend_at(own["image"], pixels, place, share)
        return {**join_objects(own, keep_objects(other, boxes, kept)), "image": image}


@gin.register
class CopyPaste(PictureStep):
    """Paste rectangles around objects of another picture into a picture.

    The paper pastes objects along their masks. Here only boxes are known: the whole rectangle is
    pasted, with what else it shows, and its border is soft. Objects of the other picture that lie
    in it far enough come along. Objects under it go if too little of them stays to be seen; the
    box of one that stays is not cut. Crowd regions are not pasted. It unpacks two whole pictures
    for each one.

    Args:
        probability: chance that something is pasted into a picture.
        off_for_last: share of the run, at its end, without it.
        max_objects: largest number of rectangles; the number is drawn from 1 on. An object may be
            drawn twice.
        scales: bounds of the factor of each rectangle's sides; it never becomes larger than the
            picture.
        edge: pixels in which the border fades; 0 for a hard one.
        min_visible: share of a box's area that must be shown for the box to stay.

    Raises:
        ValueError: a setting that is out of its bounds.

    Source: Simple Copy-Paste is a Strong Data Augmentation Method (arXiv:2012.07177)
    """

    partners = 1
    adds_all_objects = False

    def __init__(
        self,
        *,
        probability: float = 0.5,
        off_for_last: float = 0.0,
        max_objects: int = 3,
        scales: tuple[float, float] = (0.5, 1.5),
        edge: float = 3.0,
        min_visible: float = 0.3,
    ):
        super().__init__(probability=probability, off_for_last=off_for_last)
        self.max_objects, self.scales = max_objects, scales
        self.edge, self.min_visible = edge, min_visible
        self.check_count("max_objects", max_objects, 1, 20)
        self.check_range("scales", scales, 0.01, _LARGEST_SCALE)
        self.check("edge", edge, 0.0, 100.0)
        self.check("min_visible", min_visible, *_WHOLE)

    def apply(self, own: Example, partners, seed, image_size):
        (other,) = partners
        draws = tf.random.stateless_uniform([1 + 4 * self.max_objects], seed)
        candidates = tf.where(tf.logical_not(other["is_crowd"]))[:, 0]
        there = tf.shape(candidates)[0]
        number = 1 + pasting.draw_place(tf.constant(self.max_objects - 1), draws[0])
        number = tf.where(there > 0, number, 0)
        image, pasted, covers = own["image"], [], []
        for turn in range(self.max_objects):
            words = draws[1 + 4 * turn :][:4]
            image, objects, cover = tf.cond(
                turn < number,
                lambda image=image, words=words: self._paste(image, other, candidates, words),
                lambda image=image: (image, _no_objects(other), tf.zeros([4])),
            )
            pasted.append(objects)
            covers.append(tf.ensure_shape(cover, [4]))
        # Each lies under all that came after it.
        examples = [{**own, "image": image}, *pasted]
        shown = []
        for turn, example in enumerate(examples):
            if turn < len(covers):
                example = keep_uncovered(example, tf.stack(covers[turn:]), self.min_visible)
            shown.append(example)
        return join_objects(*shown)

    def _paste(self, image, other, candidates, draws):
        """Paste one rectangle; return the picture, the objects that came along, and its place."""
        size, canvas = tf.shape(other["image"])[:2], tf.shape(image)[:2]
        last = tf.shape(candidates)[0] - 1
        row = tf.gather(candidates, pasting.draw_place(last, draws[0]))
        corners = tf.reshape(other["boxes"][row], [2, 2]) * tf.cast(size, tf.float32)
        start = tf.clip_by_value(tf.cast(tf.floor(corners[0]), tf.int32), 0, size - 1)
        end = tf.clip_by_value(tf.cast(tf.math.ceil(corners[1]), tf.int32), start + 1, size)
        window = tf.concat([start, end - start], axis=0)
        fitting = tf.reduce_min(tf.cast(canvas, tf.float32) / tf.cast(window[2:], tf.float32))
        scale = tf.minimum(_between(self.scales, draws[1]), fitting)
        sides = tf.round(tf.cast(window[2:], tf.float32) * scale)
        sides = tf.clip_by_value(tf.cast(sides, tf.int32), 1, canvas)
        place = pasting.draw_place(canvas - sides, draws[2:4])
        pixels = pasting.resize_to_bytes(crops.cut(other["image"], window), sides)
        share = pasting.soft_edge(sides, self.edge)
        boxes, kept = pasting.boxes_at(
            other["boxes"],
            window,
            size,
            tf.concat([place, sides], axis=0),
            canvas,
            min_visible=self.min_visible,
        )
        objects = _objects_of(keep_objects(other, boxes, kept))
        cover = crops.frame_of(tf.concat([place, sides], axis=0), canvas)
        return pasting.blend_at(image, pixels, place, share), objects, cover


def _objects_of(example: Example) -> Example:
    return {name: example[name] for name in OBJECTS}


def _no_objects(example: Example) -> Example:
    return {name: values[:0] for name, values in _objects_of(example).items()}


def _checked_size(size: Sequence[int]) -> tuple[int, int]:
    try:
        return check_image_size(size)
    except ValueError as error:
        raise ValueError(f"Mosaic.size: {error}") from error
