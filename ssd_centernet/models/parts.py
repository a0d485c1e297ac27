"""Checks of the parts of a detector that a recipe sets."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from ssd_centernet._keras import explain_foreign, keras

# Least side of a map in cells whose stride is checked.
_CELLS = 4
_SHAPES_SHOWN = 3


def check_parts(owner: str, **parts: tuple[Any, str]) -> None:
    """Raise an error for parts that are not Keras layers, such as classes that were not called.

    Args:
        owner: name of the detector, for the message.
        **parts: argument -> (value, example of what is expected, such as "MultiBoxLoss"); None
            means the default.

    Raises:
        ValueError: a part does not fit; names the setting, its value and what was expected.
    """
    for name, (part, example) in parts.items():
        if part is None or isinstance(part, keras.layers.Layer):
            continue
        foreign = explain_foreign(part, "layers and keras.Model")
        if foreign:
            raise ValueError(f"{owner}.{name}: {foreign}")
        got = f"{part!r}, a {type(part).__name__}"
        if inspect.isclass(part):
            got = f"the class {part.__name__}, because it has no brackets"
        raise ValueError(
            f"{owner}.{name} is {got}; expected a layer that is built: {owner}.{name} = "
            f"@{example}()."
        )


def check_method(setting: str, part: Any, method: str, example: str, *args, **kwargs) -> None:
    """Raise an error for a part of another family of detectors, whose method has other arguments.

    Args:
        setting: name of the part's setting, for the message.
        part: the layer.
        method: name of the method that the detector calls.
        example: name of a part that fits.
        *args: arguments of the method; only their number counts.
        **kwargs: arguments of the method by name.

    Raises:
        ValueError: a part does not fit; names the setting, its value and what was expected.
    """
    try:
        inspect.signature(getattr(part, method)).bind(*args, **kwargs)
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"{setting} is a {type(part).__name__}, which does not fit this detector: its "
            f"{method} {_words(error)}. Expected one such as {setting} = @{example}()."
        ) from error


def build_head(
    setting: str, head: Callable | keras.layers.Layer, example: str, *args, **kwargs
) -> keras.layers.Layer:
    """Build the head of a detector from its constructor.

    Args:
        setting: name of the head's setting, for the message.
        head: a constructor, or a head that is built.
        example: name of a constructor that fits.
        *args: arguments of the constructor.
        **kwargs: arguments of the constructor by name.

    Returns:
        The head.

    Raises:
        ValueError: it is not a constructor, or has other arguments; names the setting and what was
            expected.
    """
    if isinstance(head, keras.layers.Layer):
        return head
    foreign = explain_foreign(head, "layers")
    if foreign:
        raise ValueError(f"{setting}: {foreign}")
    try:
        return head(*args, **kwargs)
    except TypeError as error:
        got = getattr(head, "__name__", repr(head))
        raise ValueError(
            f"{setting} is {got}, which cannot be called as the head of this detector: "
            f"{_words(error)}. Expected a constructor such as {setting} = @{example}."
        ) from error


def features_of(owner: str, backbone: keras.layers.Layer, images: tf.Tensor) -> dict:
    """Apply a backbone to the input of a detector.

    Args:
        owner: name of the detector, for the message.
        backbone: any Keras model.
        images: symbolic input [B, h, w, 3].

    Returns:
        Feature maps by level, "3" or, with a stack, "2_0".

    Raises:
        ValueError: it does not take such images, or gives something else; says what a backbone
            returns, and how a model of another library becomes one.
    """
    who = f"{owner}.backbone, the {type(backbone).__name__} {backbone.name!r},"
    try:
        features = backbone(images)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{who} does not take images of {tuple(images.shape[1:])}: {_words(error)}. Build it "
            "for any size, such as keras.applications.ResNet50(include_top=False, "
            "input_shape=(None, None, 3))."
        ) from error
    if isinstance(features, Mapping) and features:
        if all(re.fullmatch(r"\d+(_\d+)?", str(key)) for key in features):
            _check_strides(who, features, images)
            return features
        got = f"maps named {', '.join(map(str, features))}"
    else:
        shapes = [str(tuple(one.shape)) for one in tf.nest.flatten(features)[:_SHAPES_SHOWN]]
        got = f"{type(features).__name__} of {', '.join(shapes)}" if shapes else "nothing"
    raise ValueError(
        f"{who} returns {got}; expected a dict of feature maps by level, where level n has the "
        "stride 2^n. Name layers of a model to make it one: keras.Model(model.input, "
        "{'3': model.get_layer('conv3_block4_out').output, '4': ..., '5': ...})."
    )


def _check_strides(who: str, features: Mapping[str, tf.Tensor], images: tf.Tensor) -> None:
    """Refuse a map whose level is not that of its size: a neck would join maps that do not fit."""
    for key, one in features.items():
        level = int(str(key).split("_")[0])
        for side, got in zip(images.shape[1:3], one.shape[1:3], strict=True):
            # Rounding hides the strides of maps of a few cells.
            if (
                side
                and got
                and side >= _CELLS << level
                and abs(math.log2(side / got) - level) > 0.5
            ):
                size, found = tuple(images.shape[1:3]), tuple(one.shape[1:3])
                raise ValueError(
                    f"{who} returns a map of {found[0]} x {found[1]} for level {key!r} of images "
                    f"of {size[0]} x {size[1]}; expected the stride {2**level}. Was a layer of "
                    f"another level named? This map is one of level {round(math.log2(side / got))}."
                )


def _words(error: Exception) -> str:
    # gin appends where it was called from.
    return str(error).strip().splitlines()[0].rstrip(".")
