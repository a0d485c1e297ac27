"""Description of a kind of published checkpoint: names by part, and layout of arrays."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping

import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.labels import LabelMap
from ssd_centernet.weights.inputs import Inputs

Names = dict[str, str]
Template = str | Callable[[re.Match], str]


@dataclasses.dataclass(frozen=True)
class Convention:
    """Names and layout of the variables in one kind of checkpoint.

    Attributes:
        title: name for messages.
        names: type of a backbone, neck or head -> function from such a part to {our variable: its
            name in the checkpoint}.
        roots: beginnings of these names in an object-based checkpoint, by part; other files may
            have any prefix.
        objects: whether such checkpoints are object-based.
        layout: "tensorflow", or "torch": kernels are [out, in, height, width].
        background_last: whether the background comes after the classes, not before them.
        box_order: our box code's order (ty, tx, th, tw) by its place in the checkpoint's.
        depthwise: pattern of the names of depthwise kernels, [C, 1, height, width] in PyTorch.
        inputs: what such networks were given, if all were given the same.
        needs: type of a backbone -> settings that its network must have; with others its weights
            would fit, and mean something else.
        expects: type of a backbone -> settings that its network has; others change the features a
            little.
        essential: pattern of tensors of layers that a network may be built without, such as those
            of squeeze and excitation; a file that has them does not fit one that has none.
        marker: a tensor without which the names mean something else.
    """

    title: str
    names: Mapping[type, Callable[[keras.layers.Layer], Names]]
    roots: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    objects: bool = False
    layout: str = "tensorflow"
    background_last: bool = False
    box_order: tuple[int, ...] = (0, 1, 2, 3)
    depthwise: str | None = None
    inputs: Inputs | None = None
    needs: Mapping[type, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    expects: Mapping[type, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    essential: str | None = None
    marker: str | None = None

    def differences(self, backbone: keras.layers.Layer, *, strict: bool) -> list[str]:
        """List settings of a backbone that are not those of such networks.

        Args:
            backbone: the detector's.
            strict: whether to look at what they need, or at what they expect.

        Returns:
            Such as "BottleneckResNet.stride_in is '1x1', not '3x3'".
        """
        settings = self.needs if strict else self.expects
        found = []
        for kind, wanted in settings.items():
            if isinstance(backbone, kind):
                config = backbone.get_config()
                for name, value in wanted.items():
                    # "options.x" is x of the setting options.
                    outer, _, inner = name.partition(".")
                    has = config.get(outer)
                    has = (has or {}).get(inner) if inner else has
                    if has != value:
                        found.append(f"{kind.__name__}.{name} is {has!r}, not {value!r}")
        return found

    def of_part(self, part: keras.layers.Layer | None) -> Names:
        """Return {our variable: its name} for a part; empty if there are no names for it."""
        for kind, function in self.names.items():
            if isinstance(part, kind):
                return function(part)
        return {}

    def axes(self, tensor: str, rank: int) -> tuple[int, ...]:
        """Return the axes of a tensor in the order of ours."""
        if self.layout != "torch" or rank != 4:
            return tuple(range(rank))
        depthwise = self.depthwise is not None and re.search(self.depthwise, tensor)
        return (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)


def class_names(count: int) -> tuple[str | None, ...] | None:
    """Guess the classes of a checkpoint without a label map.

    Args:
        count: number of classes, without background.

    Returns:
        Names of COCO's 80 classes, or of its 90 ids with None for unused ones; None for any other
        count.
    """
    coco = LabelMap.coco()
    if count == len(coco):
        return coco.names
    if count == coco.ids[-1]:
        names = dict(zip(coco.ids, coco.names, strict=True))
        return tuple(names.get(i) for i in range(1, count + 1))
    return None


def local_name(part: keras.layers.Layer, variable: tf.Variable) -> str:
    """Name a variable within its part: `head/class0/kernel` of a layer `head` is class0/kernel."""
    return variable.name.removesuffix(":0").removeprefix(f"{part.name}/")


def rename_all(part: keras.layers.Layer, rules: Mapping[str, Template]) -> Names:
    """Name the variables by the first matching rule, pattern -> template."""
    names = {}
    for variable in part.variables:
        for pattern, template in rules.items():
            match = re.fullmatch(pattern, local_name(part, variable))
            if match:
                full = variable.name.removesuffix(":0")
                names[full] = template(match) if callable(template) else match.expand(template)
                break
    return names


def named(rules: Mapping[str, Template]) -> Callable[[keras.layers.Layer], Names]:
    """Return a function of a part that names its variables by rules; see `rename_all`."""
    return lambda part: rename_all(part, rules)
