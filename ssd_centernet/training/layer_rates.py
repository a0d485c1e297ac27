"""Layers that learn at a share of the learning rate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.patterns import as_patterns, check_matches


class LayerRates:
    """Shorten what an optimizer does to some variables, as if their rate were lower.

    Where the update is in proportion to the rate, as that of every optimizer here is, its share is
    the same as that share of the rate; a decay inside the optimizer is shortened too. Moments and
    accumulators stay what they are.
    """

    def __init__(self, variables: Sequence[tf.Variable], factors: Mapping[str, float]):
        """Choose the factor of each variable.

        Args:
            variables: that are trained.
            factors: regular expression, matched at the start of a variable's name -> share of the
                rate, above 0. The first one that matches counts; other variables have 1.

        Raises:
            ValueError: a pattern is none, or matches nothing that an earlier one has not taken.
        """
        patterns = as_patterns(list(factors), setting="train.layer_rates")
        check_matches(patterns, [v.name for v in variables], setting="train.layer_rates")
        firsts = [
            next((one for one in patterns if re.match(one, variable.name)), None)
            for variable in variables
        ]
        for pattern in patterns:
            if pattern not in firsts:
                raise ValueError(
                    f"the pattern {pattern!r} in train.layer_rates matches only variables that an "
                    "earlier one takes: write it before that one, or remove it."
                )
        self._variables = list(variables)
        self.changed = [
            (variable, float(factors[first]))
            for variable, first in zip(variables, firsts, strict=True)
            if first is not None and factors[first] != 1.0
        ]

    def apply(self, optimizer: keras.optimizers.Optimizer, gradients: Sequence[tf.Tensor]) -> None:
        """Update all variables once.

        Args:
            optimizer: with its rate set.
            gradients: one of each variable.
        """
        before = [variable.read_value() for variable, _ in self.changed]
        # Of several replicas they are averaged already; Keras would add them up.
        several = tf.distribute.get_strategy().num_replicas_in_sync > 1
        options = {"skip_gradients_aggregation": True} if several else {}
        optimizer.apply_gradients(zip(gradients, self._variables, strict=True), **options)
        for (variable, factor), old in zip(self.changed, before, strict=True):
            variable.assign(old + factor * (variable - old))
