"""Pre-trained backbones: restore published TensorFlow 1 checkpoints by tensor name."""

from __future__ import annotations

import dataclasses
import pathlib
import re

import tensorflow as tf

from ssd_centernet._keras import keras

_SHOWN = 5
_DATA_SUFFIX = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
# Every TensorFlow 2 checkpoint holds the graph of its objects under this name.
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


@dataclasses.dataclass(frozen=True)
class RestoreTable:
    """What a restoration did with the tensors of a checkpoint.

    Attributes:
      checkpoint: prefix of the checkpoint's files.
      restored: (tensor, variable, shape) of each variable that was set.
      skipped: tensors of the checkpoint that the backbone has no use for.
      missing: tensors that the backbone needs and the checkpoint lacks.
      mismatched: (tensor, its shape, the variable's shape).
    """

    checkpoint: str
    restored: tuple[tuple[str, str, tuple[int, ...]], ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...] = ()
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()

    def summary(self) -> str:
        """Counts in one line."""
        return (
            f"{self.checkpoint}: {len(self.restored)} tensors restored, {len(self.skipped)} of the "
            f"checkpoint skipped, {len(self.missing)} missing, {len(self.mismatched)} of another "
            "shape"
        )

    def __str__(self) -> str:
        """Lists every tensor, one a line, behind the summary."""
        lines = [self.summary()]
        lines += [f"  restored    {t} -> {v} {list(s)}" for t, v, s in self.restored]
        lines += [f"  skipped     {tensor}" for tensor in self.skipped]
        lines += [f"  missing     {tensor}" for tensor in self.missing]
        lines += [
            f"  mismatched  {t} {list(got)}, needed {list(want)}"
            for t, got, want in self.mismatched
        ]
        return "\n".join(lines)


def tf1_variables(backbone: keras.Model) -> dict[str, tf.Variable]:
    """Maps the tensor names of a published TensorFlow 1 ResNet to a backbone's variables.

    Args:
      backbone: has `conv_norm_layers`, pairs in the checkpoint's numbering (our `ResNet`).

    Returns:
      `conv2d/kernel`, `batch_normalization/gamma`, ..., `conv2d_1/kernel`, ... -> variable, in the
      order in which the published program creates them.

    Raises:
      ValueError: the backbone has no such numbering.

    Source: reference specification ssd_resnet34, sections 5.2 and 12.
    """
    pairs = getattr(backbone, "conv_norm_layers", None)
    if pairs is None:
        raise ValueError(
            f"A TensorFlow 1 ResNet checkpoint cannot be restored into {type(backbone).__name__}: "
            "it names layers by number, and this backbone has no `conv_norm_layers`. Use "
            "models.backbones.resnet.ResNet, or restore a Keras checkpoint instead."
        )
    variables = {}
    for index, (conv, norm) in enumerate(pairs):
        suffix = f"_{index}" if index else ""
        variables[f"conv2d{suffix}/kernel"] = conv.kernel
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            variables[f"batch_normalization{suffix}/{part}"] = getattr(norm, part)
    return variables


def find_checkpoint(path: str) -> str:
    """Finds the prefix of a checkpoint's files.

    Args:
      path: a prefix such as `dir/model.ckpt-28152`, one of its files, or a directory.

    Returns:
      The prefix; in a directory the one that its `checkpoint` file names, else the highest step.

    Raises:
      FileNotFoundError: there is no checkpoint.
    """
    prefix = _DATA_SUFFIX.sub("", str(path))
    if pathlib.Path(f"{prefix}.index").is_file():
        return prefix
    folder = pathlib.Path(path)
    if folder.is_dir():
        # The `checkpoint` file of a downloaded directory may hold paths of another machine.
        latest = tf.train.latest_checkpoint(str(folder))
        if latest:
            return latest
        found = sorted(folder.glob("*.index"), key=_step)
        if found:
            return str(found[-1].with_suffix(""))
    where = folder if folder.is_dir() else folder.parent
    listing = sorted(p.name for p in where.iterdir())[:_SHOWN] if where.is_dir() else []
    raise FileNotFoundError(
        f"No checkpoint at {path}: expected a directory with, or the prefix of, files "
        f"PREFIX.index and PREFIX.data-00000-of-00001. {where} "
        + (f"holds {', '.join(listing)}, ..." if listing else "is empty or does not exist")
        + ". Unpack the downloaded archive, and set the checkpoint's path to what is inside."
    )


def _step(path: pathlib.Path) -> tuple[int, str]:
    number = re.search(r"-(\d+)\.index$", path.name)
    return (int(number.group(1)) if number else -1, path.name)


def restore_backbone_tf1(backbone: keras.Model, checkpoint: str) -> RestoreTable:
    """Sets a backbone's weights and moving statistics from a TensorFlow 1 checkpoint.

    Nothing is set unless everything fits. Tensors may carry one prefix, such as `resnet34/`.

    Args:
      backbone: our `ResNet` (or another with `conv_norm_layers`).
      checkpoint: directory, prefix, or one of the files of the checkpoint.

    Returns:
      What was restored and what was skipped (the last group, the classifier, the optimizer).

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: a tensor is missing or has another shape, or nothing matched at all.

    Source: reference specification ssd_resnet34, section 12.
    """
    variables = tf1_variables(backbone)
    prefix = find_checkpoint(checkpoint)
    reader = tf.train.load_checkpoint(prefix)
    shapes = {name: tuple(s) for name, s in reader.get_variable_to_shape_map().items()}
    scope = _find_scope(shapes, variables)
    plan = _plan(prefix, scope, shapes, variables)
    _raise_if_unfit(plan, shapes, len(variables))
    for name, variable in variables.items():
        value = reader.get_tensor(scope + name)
        variable.assign(value.astype(variable.dtype.as_numpy_dtype))
    return plan


def _find_scope(shapes: dict, variables: dict) -> str:
    """Returns the prefix, "" or ending with "/", under which most of the names are found."""
    first = next(iter(variables))
    scopes = {name[: -len(first)] for name in shapes if ("/" + name).endswith("/" + first)}
    scopes.add("")
    return max(
        sorted(scopes, key=len), key=lambda scope: sum(scope + name in shapes for name in variables)
    )


def _plan(prefix: str, scope: str, shapes: dict, variables: dict) -> RestoreTable:
    restored, missing, mismatched = [], [], []
    for name, variable in variables.items():
        tensor, shape = scope + name, tuple(variable.shape)
        if tensor not in shapes:
            missing.append(tensor)
        elif shapes[tensor] != shape:
            mismatched.append((tensor, shapes[tensor], shape))
        else:
            restored.append((tensor, variable.name, shape))
    wanted = {scope + name for name in variables}
    skipped = tuple(sorted(set(shapes) - wanted))
    return RestoreTable(prefix, tuple(restored), skipped, tuple(missing), tuple(mismatched))


def _raise_if_unfit(plan: RestoreTable, shapes: dict, needed: int) -> None:
    if not plan.missing and not plan.mismatched:
        return
    if len(plan.missing) == needed:
        cause = "It is not a checkpoint of this backbone."
        if _OBJECT_GRAPH in shapes:
            cause = (
                "It is a TensorFlow 2 object checkpoint; this function reads TensorFlow 1 ones, "
                "which hold tensors named as above."
            )
        examples = ", ".join(sorted(shapes)[:_SHOWN]) or "nothing"
        raise ValueError(
            f"{plan.checkpoint} has none of the {needed} tensors of the backbone, such as "
            f"{plan.missing[0]}; it holds {examples}, ... {cause}"
        )
    problems = [f"{name} is missing" for name in plan.missing]
    problems += [
        f"{name} has shape {list(got)}, the backbone needs {list(want)}"
        for name, got, want in plan.mismatched
    ]
    shown = "; ".join(problems[:_SHOWN]) + ("; ..." if len(problems) > _SHOWN else "")
    raise ValueError(
        f"{plan.summary()}. {shown}. Likely cause: the checkpoint is of another depth or width "
        "than the backbone (bottleneck blocks, other `blocks` or `widths`), or it was cut short. "
        "Nothing was restored."
    )
