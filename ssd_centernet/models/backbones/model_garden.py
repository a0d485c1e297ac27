"""Backbones of the TensorFlow Model Garden under the heads of this library."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

import gin
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.models.backbones.base import Backbone

# Types whose published network has no ReLUs and whose builder takes the activation from us.
_ACTIVATIONS = {"efficientnet": "swish", "spinenet": "swish", "spinenet_mobile": "swish"}
# SpineNet joins levels by whole factors; a vision transformer cuts images into patches.
_SIZE_STEPS = {"spinenet": 128, "spinenet_mobile": 128, "vit": 16}
# What a type's builder takes and its options do not have. Keras' EfficientNets have "swish" there,
# the Model Garden's "relu".
_BUILDER_OPTIONS = {"efficientnet": ("se_inner_activation",)}
_NUMBER = re.compile(r"^(.*?)(?:_\d+)?$")


@gin.register
@keras.saving.register_keras_serializable(package="ssd_centernet")
class ModelGardenBackbone(Backbone):
    """Any image backbone of `official.vision`, cut after the coarsest level that is asked for.

    It has no L2 regularisers (`train.weight_decay` sets weight decay), its batch norms are per
    device, and its variables have names that do not depend on what the process built before, such
    as `inverted_bottleneck_block_3/batch1_norm/gamma`. In all types the names of normalisation
    layers end in `_norm`, so recipes need no other patterns.

    Source: https://github.com/tensorflow/models, official/vision/configs/backbones.py
    """

    def __init__(
        self,
        model_type: str,
        *,
        options: Mapping[str, object] | None = None,
        levels: Sequence[str] | None = ("3", "4", "5"),
        image_size: tuple[int, int] | None = None,
        activation: str | None = None,
        norm_momentum: float = 0.99,
        norm_epsilon: float = 1e-3,
        name: str = "model_garden",
        **kwargs,
    ):
        """Build the network.

        Args:
            model_type: "resnet", "mobilenet", "efficientnet", "spinenet", "mobiledet", or another
                type that `official.vision` knows.
            options: options of the type, such as {"model_id": "MobileNetV3Large",
                "filter_size_scale": 0.75}. An EfficientNet also takes "se_inner_activation",
                "relu" or, as in Keras' applications, "swish".
            levels: feature levels to return; "3" has stride 8; None returns all.
            image_size: (height, width) in pixels, for types that need it (SpineNet, ViT); None for
                any size.
            activation: such as "relu6"; None means the type's own if it has one, else ReLU.
                MobileNets have one per block and ignore it.
            norm_momentum: momentum of the moving statistics.
            norm_epsilon: epsilon of batch normalisation.
            name: name of the model.
            **kwargs: passed to the Keras model.

        Raises:
            ImportError: tf-models-official is not installed.
            ValueError: the type, option or level is unknown, or the size does not suit the type.
        """
        options = dict(options or {})
        _check_size(model_type, image_size)
        with _own_names():
            network = _build(
                model_type,
                options,
                (*(image_size or (None, None)), 3),
                {
                    "activation": activation or _ACTIVATIONS.get(model_type, "relu"),
                    "norm_momentum": norm_momentum,
                    "norm_epsilon": norm_epsilon,
                    "use_sync_bn": False,
                },
            )
        super().__init__(
            inputs=network.inputs,
            outputs=_choose(network.output, levels, model_type),
            name=name,
            **kwargs,
        )
        self._config = {
            "model_type": model_type,
            "options": options,
            "levels": None if levels is None else tuple(levels),
            "image_size": None if image_size is None else tuple(image_size),
            "activation": activation,
            "norm_momentum": norm_momentum,
            "norm_epsilon": norm_epsilon,
        }
        # Published checkpoints number the layers of the whole network; this is a part of it.
        kept = {id(layer) for layer in self.layers}
        weighted = [layer for layer in network.layers if layer.weights]
        self._published_layers = tuple(
            layer.name if id(layer) in kept else None for layer in weighted
        )

    @property
    def published_layers(self) -> dict[str, keras.layers.Layer]:
        """Return the layers by their name in object-based checkpoints of the whole network.

        Returns:
            "layer_with_weights-0" and so on -> layer, without those that were cut off.
        """
        return {
            f"layer_with_weights-{index}": self.get_layer(name)
            for index, name in enumerate(self._published_layers)
            if name is not None
        }


def _build(model_type: str, options: dict, shape: tuple, norm_activation: dict) -> keras.Model:
    """Build the whole network through the Model Garden's own factory."""
    try:
        # The package registers its own names with gin, which is locked once a recipe is parsed.
        with gin.unlock_config():
            from official.vision.configs import backbones as configs
            from official.vision.configs import common
            from official.vision.modeling.backbones import factory
    except ImportError as error:
        raise ImportError(
            "ModelGardenBackbone needs the package tf-models-official, which cannot be imported "
            f'({error}). Install it: pip install "ssd_centernet[model_garden]", which works up to '
            "TensorFlow 2.20; or choose another backbone."
        ) from error
    types = sorted({field.name for field in dataclasses.fields(configs.Backbone)} - {"type"})
    if model_type not in types:
        raise ValueError(
            f"ModelGardenBackbone.model_type is {model_type!r}; this version of tf-models-official "
            f"knows {', '.join(types)}."
        )
    config = configs.Backbone(type=model_type)
    known = getattr(config, model_type).as_dict()
    extra = {k: options[k] for k in _BUILDER_OPTIONS.get(model_type, ()) if k in options}
    options = {key: value for key, value in options.items() if key not in extra}
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"{model_type} has no option {', '.join(unknown)}; ModelGardenBackbone.options may set "
            f"{', '.join(sorted(known))}."
        )
    getattr(config, model_type).override(options)
    try:
        return factory.build_backbone(
            keras.layers.InputSpec(shape=(None, *shape)),
            config,
            common.NormActivation(**norm_activation),
            **extra,
        )
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(
            f"the Model Garden cannot build {model_type} with {known | options} for images of "
            f"{shape[:2]}: {str(error).strip().splitlines()[0]} Correct "
            "ModelGardenBackbone.options or image_size."
        ) from error


def _check_size(model_type: str, image_size: tuple[int, int] | None) -> None:
    """Raise an error for sizes that would fail later, deep inside the network."""
    step = _SIZE_STEPS.get(model_type)
    if step is None:
        return
    if image_size is None or any(side % step for side in image_size):
        raise ValueError(
            f"{model_type} needs images whose sides are known and multiples of {step}, got "
            f"ModelGardenBackbone.image_size={image_size}; set it to %IMAGE_SIZE, and that to such "
            "a size."
        )


def _choose(outputs: Mapping, levels: Sequence[str] | None, model_type: str) -> dict:
    """Select feature levels from a network's end points, which may hold other things too."""
    found = {key: value for key, value in outputs.items() if key.isdigit()}
    if levels is None:
        return found
    missing = [level for level in levels if level not in found]
    if missing or not levels:
        raise ValueError(
            f"ModelGardenBackbone.levels is {tuple(levels)}; {model_type} gives "
            f"{', '.join(sorted(found, key=int))} (level n has stride 2^n)."
        )
    return {level: found[level] for level in levels}


@contextlib.contextmanager
def _own_names() -> Iterator[None]:
    """Name variables by their place in the model built inside.

    Keras numbers layers through the whole process: a second backbone would begin at conv2d_53. A
    checkpoint has names as keys and would then not fit the same recipe built again.
    """
    names: dict[tuple[str, str], str] = {}
    counts: dict[tuple[str, str], int] = {}

    def rename(scope: str) -> str:
        path = ""
        for part in filter(None, scope.split("/")):
            if (path, part) not in names:
                base = _NUMBER.match(part)[1]
                number = counts[path, base] = counts.get((path, base), -1) + 1
                names[path, part] = _label(base, number)
            path = f"{path}/{names[path, part]}" if path else names[path, part]
        return path

    def create(next_creator, **kwargs):
        path = rename(tf.get_current_name_scope())
        # A name that ends with a slash is taken as it is, without the scope around it.
        kwargs["name"] = f"{path}/{kwargs.get('name') or 'variable'}/"
        return next_creator(**kwargs)

    with tf.variable_creator_scope(create):
        yield


def _label(base: str, number: int) -> str:
    if base.endswith("_normalization"):
        return f"{base.removesuffix('_normalization')}{number or ''}_norm"
    return f"{base}_{number}" if number else base
