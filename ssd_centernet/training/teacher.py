"""Learning from another detector: beside the objects, what a trained one says of the same image."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import gin
import numpy as np
import tensorflow as tf

from ssd_centernet.config import expectations as may_be
from ssd_centernet.models.detector import Detector

PREFIX = "teacher_"


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher:
    """Say from which run a training learns, and how much that counts.

    The teacher sees the pixels that the step sees. Its scores and boxes are further targets; the
    objects count as before. It is not trained, and no checkpoint holds it.

    Attributes:
        run: directory of the run that teaches, of the same classes, input and outputs.
        checkpoint: which one of it: 'best', 'latest' or a name; None is the best one, or the latest
            where none was kept as the best.
        weight: factor of all that it teaches; within it the parts have the weights of the loss.
        temperature: divides the logits of both, above 0; a higher one teaches more of the small
            scores.

    Raises:
        ValueError: no run is named, or a number is out of range.

    Source: Distilling the Knowledge in a Neural Network (arXiv:1503.02531)
    """

    run: Annotated[str, may_be.PATH] = None
    checkpoint: Annotated[str | None, may_be.TEXT] = None
    weight: Annotated[float, may_be.ABOVE_ZERO] = 1.0
    temperature: Annotated[float, may_be.ABOVE_ZERO] = 1.0

    def __post_init__(self):
        """Check the settings before anything is built."""
        may_be.check(self, prefix="Teacher")


class Lessons:
    """Compare what a network says with what its teacher says of the same images.

    Attributes:
        teacher: the detector that teaches.
        names: names of the loss parts, in order.
    """

    def __init__(self, settings: Teacher, student: Detector, teacher: Detector):
        """Make sure that the teacher speaks of the same things.

        Args:
            settings: how much it counts.
            student: what is trained.
            teacher: with its weights.

        Raises:
            ValueError: they differ in what their outputs mean; names the first difference.
        """
        check_teacher(student, teacher, settings.run)
        student.check_imitates()
        self._settings = settings
        self._student = student
        self.teacher = teacher
        self.names = tuple(PREFIX + name for name in student.loss_weights)

    def at_size(self, student: Detector) -> Lessons:
        """Return the same lessons for a form of the student at another size of images."""
        teacher = self.teacher.at_size(student.image_size)
        return Lessons(self._settings, student, teacher)

    def of_images(
        self, outputs: Any, images: tf.Tensor, tape: tf.GradientTape
    ) -> dict[str, tf.Tensor]:
        """Ask the teacher about float32 [B, h, w, 3], unrecorded; return what `losses` does."""
        with tape.stop_recording():
            told = self.teacher(images, training=False)
        return self.losses(outputs, told)

    def losses(self, outputs: Any, told: Any) -> dict[str, tf.Tensor]:
        """Compute the unweighted parts.

        Args:
            outputs: of the student.
            told: of the teacher for the same images.

        Returns:
            Float32 scalars by name.
        """
        parts = self._student.imitation_of(outputs, told, self._settings.temperature)
        return {PREFIX + name: value for name, value in parts.items()}

    def total(self, parts: dict[str, tf.Tensor]) -> tf.Tensor:
        """Sum the parts of `losses` with their weights."""
        weights = self._student.loss_weights
        terms = [weights[name.removeprefix(PREFIX)] * part for name, part in parts.items()]
        return self._settings.weight * tf.add_n(terms)


def check_teacher(student: Detector, teacher: Detector, run: str | None) -> None:
    """Refuse a teacher whose outputs mean something else than those of the student.

    Args:
        student: what is trained.
        teacher: what it shall learn from.
        run: where the teacher is from, for the message.

    Raises:
        ValueError: names what differs, both values, and what to do.
    """
    ours, theirs = student.output_facts(), teacher.output_facts()
    for name in [*ours, *(one for one in theirs if one not in ours)]:
        mine, other = ours.get(name), theirs.get(name)
        if _is_equal(mine, other):
            continue
        if isinstance(mine, dict) and isinstance(other, dict):
            mine, other = _differing(mine, other), _differing(other, mine)
        elif isinstance(mine, np.ndarray) or isinstance(other, np.ndarray):
            mine, other = (_count(one) for one in (mine, other))
        raise ValueError(
            f"the teacher {run} has other {name} than what is trained: {other}, here {mine}. A "
            "teacher must see the same images and say the same kind of things about them, only "
            "better: train it with the recipe and data of this run and a larger network, or with "
            "more epochs."
        )


def _is_equal(mine: Any, other: Any) -> bool:
    if isinstance(mine, np.ndarray) and isinstance(other, np.ndarray):
        return mine.shape == other.shape and bool(np.allclose(mine, other, atol=1e-6))
    return type(mine) is type(other) and mine == other


def _differing(these: dict, those: dict) -> dict:
    return {name: value for name, value in these.items() if value != those.get(name)}


def _count(rows: np.ndarray | None) -> str:
    if rows is None:
        return "none"
    return f"{len(rows)}, the last {np.round(rows[-1], 4).tolist()}"
