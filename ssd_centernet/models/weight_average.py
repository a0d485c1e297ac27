"""The exponential moving average (EMA) of a detector's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf


class WeightAverage(tf.Module):
    """Follow the weights and moving statistics of a model with an exponential moving average.

    After step t an average is `d a + (1 - d) v`, with `d = min(decay, (1 + t) / (10 + t))`: early
    averages are of the last tenth of the steps so far, whatever the length of the run, and none
    holds the random beginning. It is a function of the step, so a resumed run is exact.

    Source:
        https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage (`num_updates`)
        https://doi.org/10.1137/0330046 (Acceleration of Stochastic Approximation by Averaging)

    Attributes:
        followed: variables of the model.
        averages: variables of the same precision, one for each.
        is_in_use: whether weights and averages are exchanged now.
    """

    def __init__(self, variables: Sequence[tf.Variable], decay: float):
        """Begin with the present values.

        Args:
            variables: of the model; those that hold no floating-point numbers are left out.
            decay: share of the average that stays at a step, once the run is long enough; in [0,
                1).

        Raises:
            ValueError: the decay is out of range.
        """
        if not 0.0 <= decay < 1.0:
            raise ValueError(
                f"train.ema_decay is {decay}; expected a number from 0 to below 1, such as 0.9998: "
                "the share of the average that stays at each step."
            )
        super().__init__(name="weight_average")
        self.decay = float(decay)
        self.followed = [v for v in variables if v.dtype.is_floating]
        self.averages = [tf.Variable(v, trainable=False) for v in self.followed]
        self.is_in_use = False

    def restart(self) -> None:
        """Begin anew with the present values, such as those of a checkpoint of other weights."""
        for average, variable in zip(self.averages, self.followed, strict=True):
            average.assign(variable)

    def update(self, step: tf.Tensor) -> None:
        """Go on with the values that an update has left.

        Args:
            step: integer scalar, number of updates before this one.
        """
        number = tf.cast(step, tf.float32)
        decay = tf.minimum(self.decay, (1.0 + number) / (10.0 + number))
        for average, variable in zip(self.averages, self.followed, strict=True):
            # One difference and one addition: equal values stay as they are, bit for bit.
            average.assign_sub((1.0 - decay) * (average - variable))

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Exchange weights and averages while the context is open."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def set_in_use(self, wanted: bool) -> None:
        """Have the averages, or the weights, as the variables of the model; do nothing if so.

        Args:
            wanted: True for the averages.
        """
        if self.is_in_use != wanted:
            self._exchange()

    def _exchange(self) -> None:
        for average, variable in zip(self.averages, self.followed, strict=True):
            kept = tf.identity(variable)
            variable.assign(average)
            average.assign(kept)
        self.is_in_use = not self.is_in_use

    def averages_of(self, variables: Sequence[tf.Variable]) -> list[tf.Variable]:
        """Return the averages of some of the variables."""
        of = {id(v): a for v, a in zip(self.followed, self.averages, strict=True)}
        return [of[id(variable)] for variable in variables]

    def named(self, names: dict[str, tf.Variable]) -> dict[str, tf.Variable]:
        """Return name -> average of the variables with these names; others stay themselves."""
        of = {id(v): a for v, a in zip(self.followed, self.averages, strict=True)}
        return {name: of.get(id(variable), variable) for name, variable in names.items()}
