"""The pipeline configurations of the Object Detection API: which recipe they are, and what differs.

A setting of the file that the recipe has too needs nothing. One with another value becomes a gin
parameter where there is one for it. The rest is told, so that nobody takes it for used.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from absl import flags

from ssd_centernet.cli.originals.pipeline_table import (
    CENTERNET_MODEL,
    CENTERNET_TRAIN,
    COMMON,
    SSD_MODEL,
    SSD_TRAIN,
    Known,
)
from ssd_centernet.cli.originals.text_proto import leaves, merge, read_text_proto
from ssd_centernet.files import read_text

SSD, CENTERNET = "ssd320_resnet50_fpn", "centernet_resnet101_fpn"
_KINDS = {
    "ssd": (SSD, {f"model.ssd.{k}": v for k, v in SSD_MODEL.items()} | SSD_TRAIN | COMMON),
    "center_net": (
        CENTERNET,
        {f"model.center_net.{k}": v for k, v in CENTERNET_MODEL.items()} | CENTERNET_TRAIN | COMMON,
    ),
}
_RECORDS = "{}_input_reader.tf_record_input_reader.input_path"
# What Pipeline has as fields: path in the file.
_FIELDS = {
    "batch_size": "train_config.batch_size",
    "num_steps": "train_config.num_steps",
    "checkpoint": "train_config.fine_tune_checkpoint",
    "checkpoint_type": "train_config.fine_tune_checkpoint_type",
    "train_records": _RECORDS.format("train"),
    "eval_records": _RECORDS.format("eval"),
    "label_map": "train_input_reader.label_map_path",
}
_READ_APART = (*_FIELDS.values(), "eval_input_reader.label_map_path")
_COSINE = "train_config.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate"
_STEPS = "train_config.optimizer.adam_optimizer.learning_rate.manual_step_learning_rate"
# Published names: devices of 32 images each, whose settings follow from those of one.
_SSD_NAME = re.compile(r"ssd320_(?:full_(1|4|8|16)(?:gpus|mlus)|(bench))\.config")
_CENTERNET_NAME = re.compile(r"(mlu_centernet_config|centernet_resnet101_v1_fpn_512x512.*)\.config")
_SSD_PUBLISHED = """
model {{ ssd {{ feature_extractor {{ type: 'ssd_resnet50_v1_fpn' }} }} }}
train_config {{
  batch_size: 32
  num_steps: {steps}
  optimizer {{ momentum_optimizer {{ learning_rate {{ cosine_decay_learning_rate {{
    learning_rate_base: {base} total_steps: {steps}
    warmup_learning_rate: {warm} warmup_steps: {warmup}
  }} }} }} }}
}}
"""
_CENTERNET_PUBLISHED = """
model { center_net { feature_extractor { type: 'resnet_v1_101_fpn' } } }
train_config { batch_size: 16 num_steps: 140000 }
"""


class Pipeline(NamedTuple):
    """What a configuration says.

    Attributes:
        recipe: name of the recipe.
        parameters: gin parameter -> value, where it is not the recipe's.
        notes: sentences for the user.
        batch_size: images of a process.
        num_steps: length of the run.
        checkpoint: initial weights.
        checkpoint_type: classification, detection or full.
        train_records: pattern of the training files.
        eval_records: pattern of the evaluation files.
        label_map: path.
    """

    recipe: str
    parameters: dict[str, Any]
    notes: tuple[str, ...]
    batch_size: int | None = None
    num_steps: int | None = None
    checkpoint: str | None = None
    checkpoint_type: str | None = None
    train_records: str | None = None
    eval_records: str | None = None
    label_map: str | None = None


def read_pipeline(path: str, override: str | None = None) -> Pipeline:
    """Read a pipeline configuration.

    Args:
        path: of the file. Where there is none, a name that was published stands for its settings.
        override: fields in the same form that win over the file's.

    Returns:
        What it says.

    Raises:
        flags.Error: no such file, or a model that no recipe is made of.
        ValueError: the file cannot be read.
    """
    notes = []
    if os.path.exists(path):
        content = read_text_proto(read_text(path), path)
    else:
        content = read_text_proto(_published(path), path)
        notes.append(f"{path} is not here: the published settings of this name are used")
    if override:
        merge(content, read_text_proto(override, "--config_override"))
    flat = dict(leaves(content))
    kind = next((kind for kind in _KINDS if kind in content.get("model", [{}])[0]), None)
    if kind is None:
        raise flags.Error(
            f"--pipeline_config_path={path} describes no model that has a recipe: expected "
            "`model { ssd { ... } }` or `model { center_net { ... } }`."
        )
    recipe, known = _KINDS[kind]
    extractor = f"model.{kind}.feature_extractor.type"
    if flat.get(extractor) != [known[extractor].value]:
        raise flags.Error(
            f"--pipeline_config_path={path} has the feature extractor "
            f"{flat.get(extractor, ['none'])[0]!r}; the recipe for {kind} is made of "
            f"{known[extractor].value!r}. Choose a recipe by `ssd_centernet train --gin_file=...`."
        )
    parameters, same, other = _compared(flat, known)
    parameters |= _cosine(flat) if kind == "ssd" else _boundaries(flat, path)
    if same and os.path.exists(path):
        notes.append(f"{path}: {same} settings are those of the recipe {recipe}")
    if other:
        notes.append(f"{path}: without effect here: {', '.join(other)}")
    fields = {name: flat.get(place, [None])[-1] for name, place in _FIELDS.items()}
    return Pipeline(recipe, parameters, tuple(notes), **fields)


def _published(path: str) -> str:
    """Return the settings that matter of a published file, known by its name."""
    name = os.path.basename(path)
    if found := _SSD_NAME.fullmatch(name):
        devices = int(found[1] or 1)
        steps, warmup = (1250, 400) if found[2] else (100000 // devices, 8000 // devices)
        base, warm = 0.02 * devices, 0.0086664 * devices
        return _SSD_PUBLISHED.format(steps=steps, warmup=warmup, base=base, warm=round(warm, 7))
    if _CENTERNET_NAME.fullmatch(name):
        return _CENTERNET_PUBLISHED
    raise flags.Error(
        f"--pipeline_config_path={path}: there is no such file, and its name is none of the "
        "published ones (ssd320_full_8mlus.config, ssd320_full_8gpus.config, "
        "mlu_centernet_config.config and those like them)."
    )


def _compared(
    flat: dict[str, list[Any]], known: dict[str, Known]
) -> tuple[dict[str, Any], int, list[str]]:
    """Return gin parameters, how many settings are the recipe's, and those without effect."""
    parameters, same, other = {}, 0, []
    for path, values in _joined(flat).items():
        name = re.sub(r"\[\d+\]", "", path)
        if name in _READ_APART or name.startswith((_COSINE, _STEPS)):
            continue
        value = values[0] if len(values) == 1 else values
        one = known.get(name)
        if one is not None and _equal(value, one.value):
            same += 1
        elif one is not None and one.parameter is not None:
            parameters[one.parameter] = tuple(value) if isinstance(value, list) else value
        else:
            other.append(f"{path}: {value}")
    return parameters, same, other


def _joined(flat: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Put together what one setting takes: the sides of the image, the bounds of a range."""
    flat = dict(flat)
    for path in list(flat):
        start, _, name = path.rpartition(".")
        if name == "height" and start.endswith("fixed_shape_resizer"):
            flat[start] = [*flat.pop(path), *flat.pop(f"{start}.width", [])]
        elif name == "min_dimension" and flat[path] == flat.get(f"{start}.max_dimension"):
            flat[start] = [*flat.pop(path), *flat.pop(f"{start}.max_dimension")]
            flat.pop(f"{start}.pad_to_max_dimension", None)
        elif name in ("min_aspect_ratio", "min_area") and start.endswith("random_crop_image"):
            both = [*flat.pop(path), *flat.pop(f"{start}.max_{name[4:]}", [1.0])]
            flat[f"{start}.{name[4:]}s"] = both
    return flat


def _cosine(flat: dict[str, list[Any]]) -> dict[str, Any]:
    """Return the schedule of SSD320: that of the file, whatever the batch and the length."""
    names = {
        "base_learning_rate": "learning_rate_base",
        "warmup_learning_rate": "warmup_learning_rate",
        "warmup_steps": "warmup_steps",
        "total_steps": "total_steps",
    }
    found = {
        f"WarmupCosineSteps.{ours}": flat[f"{_COSINE}.{theirs}"][-1]
        for ours, theirs in names.items()
        if f"{_COSINE}.{theirs}" in flat
    }
    return found | ({"WarmupCosineSteps.reference_batch_size": None} if found else {})


def _boundaries(flat: dict[str, list[Any]], path: str) -> dict[str, Any]:
    """Return the schedule of CenterNet; its boundaries do not follow the length of the run."""
    found: dict[str, Any] = {"StepDecay.length": None}
    rates = flat.get(f"{_STEPS}.initial_learning_rate", [])
    if not rates:
        return found
    steps = []
    for place, values in flat.items():
        if re.fullmatch(re.escape(f"{_STEPS}.schedule") + r"(\[\d+\])?\.step", place):
            steps.append(values[-1])
            rates = [*rates, flat[f"{place.removesuffix('step')}learning_rate"][-1]]
    factors = {round(after / before, 6) for before, after in zip(rates, rates[1:], strict=False)}
    if len(factors) > 1:
        raise flags.Error(
            f"{path}: manual_step_learning_rate falls by several factors ({sorted(factors)}); the "
            "schedule here, StepDecay, falls by one. Set train.schedule in a gin file instead."
        )
    found |= {"StepDecay.base_learning_rate": rates[0], "StepDecay.boundaries": tuple(steps)}
    return found | ({"StepDecay.factor": factors.pop()} if factors else {})


def _equal(value: Any, other: Any) -> bool:
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(_equal, value, other))
    if isinstance(value, bool) or isinstance(other, bool) or not isinstance(value, int | float):
        return value == other
    return isinstance(other, int | float) and abs(value - other) <= 1e-9 * max(1.0, abs(other))
