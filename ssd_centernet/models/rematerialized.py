"""Blocks of a backbone whose activations the backward pass computes again, to save memory."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.normalization import BatchNorm
from ssd_centernet.patterns import as_patterns

_SETTING = "train.rematerialize"


def rematerialize(detector: keras.Model, blocks: bool | str | Sequence[str]) -> list[str]:
    """Let the backbone of a detector keep the input of each block in training, and nothing inside.

    The backward pass computes a block again before its gradients: a step takes a tenth to a quarter
    longer and holds the activations of one block at a time. Losses, gradients and moving statistics
    stay the same up to rounding. Call it before the first trace; inference does not change.

    Args:
        detector: a detector whose backbone has `block_names`, as those of this library but VGG-16.
        blocks: True takes all, False none; a text or a sequence takes those that one of these
            regular expressions matches at the start, such as "hourglass0_".

    Returns:
        The names of the blocks.

    Raises:
        ValueError: the backbone has no such blocks, a pattern matches none, or the detector is
            quantized.

    Source: Training Deep Nets with Sublinear Memory Cost (arXiv:1604.06174)
    """
    backbone = getattr(detector, "backbone", None)
    chosen = [] if blocks is False else _chosen(backbone, blocks)
    if chosen and getattr(detector, "quantized", None) is not None:
        raise ValueError(
            f"{_SETTING} is {blocks!r}, but a detector with build_detector.quantize has no blocks "
            f"that are computed again. Set {_SETTING} = False."
        )
    if chosen or getattr(backbone, "in_blocks", None) is not None:
        call = BlockwiseCall(backbone, chosen) if chosen else None
        # Keras would track and save what is set as an attribute.
        object.__setattr__(backbone, "in_blocks", call)
    return chosen


def _chosen(backbone: Any, blocks: bool | str | Sequence[str]) -> list[str]:
    names = list(getattr(backbone, "block_names", ()))
    if not names:
        raise ValueError(
            f"{_SETTING} is {blocks!r}, but the backbone, a {type(backbone).__name__}, has no "
            "blocks that can be computed again: Hourglass, ResNet, BottleneckResNet and "
            f"EfficientNetLite0 have them. Set {_SETTING} = False, or choose one of these."
        )
    if blocks is True:
        return names
    patterns = as_patterns(blocks, setting=_SETTING)
    for pattern in patterns:
        if not any(re.match(pattern, name) for name in names):
            raise ValueError(
                f"the pattern {pattern!r} in {_SETTING} matches no block; there are: "
                f"{', '.join(names[:12])}{', ...' if len(names) > 12 else ''}. Mend or remove it."
            )
    return [name for name in names if any(re.match(one, name) for one in patterns)]


@dataclasses.dataclass(frozen=True)
class _Unit:
    """Calls of layers that are computed together.

    Attributes:
        nodes: the calls in their order, Keras' nodes.
        needs: keys of the tensors from outside.
        gives: keys of the tensors that others need.
        again: whether the backward pass computes them again.
    """

    nodes: tuple[Any, ...]
    needs: tuple[str, ...]
    gives: tuple[str, ...]
    again: bool

    def run(self, *given: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Compute `gives` from `needs`, in training."""
        values = dict(zip(self.needs, given, strict=True))
        for node in self.nodes:
            # A call takes each tensor out of its list as often as it is an argument.
            counted = {key: [values[key]] * len(node.flat_input_ids) for key in node.flat_input_ids}
            args, kwargs = node.map_arguments(counted)
            if isinstance(node.layer, BatchNorm):
                # In the backward pass no model that is called says so.
                kwargs = {**kwargs, "training": True}
            results = tf.nest.flatten(node.layer(*args, **kwargs))
            values.update(zip(node.flat_output_ids, results, strict=True))
        return tuple(values[key] for key in self.gives)

    def run_again_later(self, *given: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Do the same as `run`; a backward pass keeps the arguments alone."""

        @tf.custom_gradient
        def call(*given: tf.Tensor):
            def gradients(*flowing: tf.Tensor, variables: Sequence[tf.Variable] = ()):
                with tf.GradientTape() as tape:
                    delayed = [_after(flowing[0], one) for one in given]
                    tape.watch(delayed)
                    with BatchNorm.unmoved():
                        results = self.run(*delayed)
                found = tape.gradient(results, [*delayed, *variables], flowing)
                mine, of_variables = found[: len(given)], found[len(given) :]
                return (mine, of_variables) if variables else mine

            return self.run(*given), gradients

        return call(*given)


def _after(first: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Return a value that cannot be computed, nor joined with an equal one, before another is."""
    # As a number, which XLA cannot leave out as it does with control dependencies: 0, or NaN where
    # the step is lost anyway.
    zero = tf.minimum(tf.abs(tf.reshape(first, [-1])[0]), 0.0)
    return value + tf.cast(zero, value.dtype)


class BlockwiseCall:
    """The call of a functional model in training, block by block."""

    def __init__(self, model: keras.Model, blocks: Sequence[str]):
        """Sort the layers of a model.

        Args:
            model: a functional model.
            blocks: names of blocks: a block `NAME` has the layers `NAME_...`.
        """
        self._model = model
        depths = sorted(model._nodes_by_depth, reverse=True)
        nodes = [n for d in depths for n in model._nodes_by_depth[d] if not n.is_input]
        grouped: dict[Any, list[Any]] = {}
        for number, node in enumerate(nodes):
            block = next((b for b in blocks if node.layer.name.startswith(f"{b}_")), number)
            grouped.setdefault(block, []).append(node)
        ends = {str(id(one)) for one in model.outputs}
        units = []
        for block, members in grouped.items():
            made = [key for node in members for key in node.flat_output_ids]
            needs = [key for node in members for key in node.flat_input_ids if key not in made]
            others = {k for node in nodes if node not in members for k in node.flat_input_ids}
            gives = tuple(key for key in made if key in others | ends)
            again = isinstance(block, str)
            units.append(_Unit(tuple(members), tuple(dict.fromkeys(needs)), gives, again))
        self._units = _in_order(units, {str(id(one)) for one in model.inputs})

    def __call__(self, images: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """Compute the outputs of the model for images [B, h, w, 3]."""
        (key,) = (str(id(one)) for one in self._model.inputs)
        values = {key: images}
        for unit in self._units:
            run = unit.run_again_later if unit.again else unit.run
            results = run(*(values[one] for one in unit.needs))
            values.update(zip(unit.gives, results, strict=True))
        outputs = [values[str(id(one))] for one in self._model.outputs]
        return tf.nest.pack_sequence_as(self._model._nested_outputs, outputs)


def _in_order(units: Sequence[_Unit], known: set[str]) -> list[_Unit]:
    """Put each unit behind those whose results it needs: branches that lie side by side mix."""
    waiting, ordered, known = list(units), [], set(known)
    while waiting:
        ready = next(unit for unit in waiting if known.issuperset(unit.needs))
        waiting.remove(ready)
        ordered.append(ready)
        known.update(ready.gives)
    return ordered
