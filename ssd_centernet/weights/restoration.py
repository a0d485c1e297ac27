"""Initial weights: plan which tensor belongs to which variable, check everything, then assign."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ssd_centernet.models.detector import Detector
from ssd_centernet.models.quantized import RANGES_NAME
from ssd_centernet.patterns import as_patterns
from ssd_centernet.run_directory import named_weights
from ssd_centernet.weights import catalog, classes, fetching
from ssd_centernet.weights.inputs import FirstKernel, Inputs
from ssd_centernet.weights.published import PARTS
from ssd_centernet.weights.readers import open_weights
from ssd_centernet.weights.source import Source, parts_of, recognise
from ssd_centernet.weights.table import RestoreTable, UnfitError

KINDS = ("classification", "detection", "full")
CHANNELS = ("RGB", "BGR")
_SHOWN = 5
_BAD_TENSOR = (
    "tensor {key} of {path} {what}; nothing was restored. The run that wrote it diverged, or the "
    "file is damaged or not a checkpoint of weights: choose another one, or leave that layer out "
    "with train.fine_tune_exclude."
)


def restore(
    detector: Detector,
    path: str | Path,
    *,
    kind: str | None = None,
    exclude: Sequence[str] = (),
    channels: str | None = None,
    trained: bool = False,
    say: Callable[[str], None] | None = None,
) -> RestoreTable:
    """Set a detector's weights and moving statistics from a file of weights.

    The names in it show the kind of checkpoint. Nothing is set unless everything fits.

    Args:
        detector: the detector whose variables are set.
        path: see `open_weights`; or a name of the table of published weights (docs/weights.md),
            such as "vgg16_caffe", which is fetched if it is not here yet. A path that exists wins.
        kind: "classification" loads only the backbone; "detection" also neck and head, except the
            predictions of classes that the checkpoint does not know; "full" loads every variable.
            None means "detection" if the checkpoint has predictions for the detector's head, else
            "classification".
        exclude: regular expressions, matched at the start of variable names, of variables to leave
            out.
        channels: order of the checkpoint's input, "RGB" or "BGR"; the first kernel is reversed if
            the detector's preprocessing has the other order. None means the order of the format if
            known (BGR for Keras' ImageNet weights), else the detector's own. Where the deviations
            of the inputs are known too, the kernel is made to fit ours.
        trained: whether to take the weights that a run trained where it averages them
            (`train.ema_decay`), and not the averages.
        say: told the progress of a download, in lines.

    Returns:
        A table of what was done with each variable and tensor.

    Raises:
        FileNotFoundError: the file does not exist.
        OSError: published weights are not here and cannot be fetched; says what to copy where.
        ValueError: `kind` or `channels` has another value, nothing matches, the file is damaged or
            has another checksum than it should, or its network is built in another way; an
            `UnfitError` if a variable has no tensor or one of another shape.
    """
    _check_choice("fine_tune_checkpoint_type", kind, KINDS)
    _check_choice("fine_tune_channels", channels, CHANNELS)
    row = catalog.named(str(path)) if fetching.is_name(path) else None
    path = path if row is None else fetching.locate(row.name, say=say)
    weights = open_weights(path).trained() if trained else open_weights(path)
    digests = fetching.digests(weights.path)
    source = recognise(detector, weights)
    source.check_network(detector)
    if kind is None:
        kind = "detection" if source.has("head") else "classification"
    plan = _Plan(detector, source, kind, exclude, _absent(row, source, kind))
    _raise_if_unfit(plan)
    inputs = Inputs(*row.inputs) if row is not None and row.inputs else source.convention.inputs
    first = FirstKernel(detector, inputs, channels)
    # Everything is read before anything is set, so that a damaged file changes no weights.
    values = [
        (variable, plan.value(name, first if name == first.name else None))
        for name, variable in plan.variables.items()
    ]
    for variable, value in values:
        variable.assign(value)
    others = source.convention.differences(detector.backbone, strict=False)
    notes = (*first.notes, *(f"{other} as in the network of the file" for other in others))
    return dataclasses.replace(plan.table, digests=digests, notes=notes)


def _absent(row, source: Source, kind: str) -> Sequence[str]:
    """Return patterns of the variables that a file need not have."""
    known = () if row is None else row.fresh
    if kind == "full" or source.weights.find(source.names["rest"].get(RANGES_NAME, RANGES_NAME)):
        return known
    # A network that was not quantized becomes one that is.
    return (*known, RANGES_NAME)


class _Plan:
    """The plan: which tensor goes into which variable.

    Attributes:
        variables: those that will be set, by name.
        table: the table of the restoration once it is done.
    """

    def __init__(
        self,
        detector: Detector,
        source: Source,
        kind: str,
        exclude: Sequence[str],
        missing: Sequence[str] = (),
    ):
        """Plan a restoration; what matches `missing` is known not to be in the file."""
        self._source = source
        self.source_has_head = source.has("head")
        self._keys: dict[str, str] = {}
        self._rows: dict[str, np.ndarray] = {}
        self._class_rows = classes.ClassRows.of(detector)
        self._boxes = detector.box_variables()
        self.variables: dict[str, tf.Variable] = {}
        parts = parts_of(detector)
        wanted = {"backbone"} if kind == "classification" else set(PARTS)
        scope = {name for part in wanted for name in parts[part][1]}
        excluded = _excluded(scope, exclude) | {
            name for name in scope for pattern in missing if re.match(pattern, name)
        }
        self.needed = len(scope - excluded)
        self.title = f"{type(detector).__name__} with a {type(detector.backbone).__name__}"
        by_class = detector.class_variables()
        tensors = {v: t for names in source.names.values() for v, t in names.items()}
        rows = {"restored": [], "classes": [], "fresh": [], "missing": [], "mismatched": []}
        label_names = source.class_names()
        if not (by_class or excluded or kind == "classification"):
            classes.check_same(detector, label_names, source.weights.path)
        for name, variable in named_weights(detector).items():
            if name not in scope - excluded:
                rows["fresh"].append(name)
                continue
            tensor = tensors.get(name)
            key = None if tensor is None else source.weights.find(tensor)
            if key is None:
                rows["missing"].append((tensor or "(no known name)", name))
                continue
            shape, want = source.shape(key), tuple(variable.shape)
            if name in by_class and self._class_rows.fits(shape, want):
                self._plan_classes(name, key, shape, want, kind, label_names, rows)
            elif shape == want:
                rows["restored"].append((key, name, want))
            else:
                rows["mismatched"].append((key, shape, name, want))
                continue
            self._keys[name], self.variables[name] = key, variable
        used = set(self._keys.values())
        self.table = RestoreTable(
            source.weights.path,
            source.convention.title,
            kind,
            skipped=tuple(sorted(set(source.weights.shapes) - used)),
            **{label: tuple(entries) for label, entries in rows.items()},
        )

    def _plan_classes(self, name, key, shape, want, kind, label_names, rows) -> None:
        sources = self._class_rows.sources(shape, want, label_names)
        known = int(np.sum(sources >= 0))
        self._rows[name] = sources
        if known == len(sources):
            rows["restored"].append((key, name, want))
        elif kind == "full":
            rows["mismatched"].append((key, shape, name, want))
        else:
            rows["classes"].append((key, name, known, len(sources)))

    def value(self, name: str, first: FirstKernel | None) -> np.ndarray:
        """Read the new value of a variable, in its precision."""
        key, dtype = self._keys[name], self.variables[name].dtype.as_numpy_dtype
        value = self._in_our_order(name, self._checked(key, dtype), first).astype(dtype)
        _check_finite(value, self._source.weights.path, key)
        return value

    def _checked(self, key: str, dtype: np.dtype) -> np.ndarray:
        """Read a tensor of numbers of a variable's kind, all of them finite."""
        path, value = self._source.weights.path, self._source.read(key)
        if value.dtype.kind in "OSUV" and value.dtype != tf.bfloat16.as_numpy_dtype:
            raise ValueError(_BAD_TENSOR.format(key=key, path=path, what="holds texts or objects"))
        if value.dtype.kind in "biu" and np.dtype(dtype).kind not in "biu":
            what = f"holds {value.dtype} numbers, expected floats (is the file quantized?)"
            raise ValueError(_BAD_TENSOR.format(key=key, path=path, what=what))
        if value.dtype.kind == "c":
            raise ValueError(_BAD_TENSOR.format(key=key, path=path, what="holds complex numbers"))
        _check_finite(value, path, key)
        return value

    def _in_our_order(self, name: str, value: np.ndarray, first: FirstKernel | None) -> np.ndarray:
        convention = self._source.convention
        if name in self._rows:
            fresh = self.variables[name].numpy()
            last = convention.background_last
            return self._class_rows.merge(value, fresh, self._rows[name], background_last=last)
        if name in self._boxes:
            codes = value.reshape(*value.shape[:-1], -1, 4)
            return codes[..., list(convention.box_order)].reshape(value.shape)
        return value if first is None else first.fitted(value)


def _check_finite(value: np.ndarray, path: str, key: str) -> None:
    """Raise an error for numbers that would make every loss of the run NaN."""
    bad = value.size - np.count_nonzero(np.isfinite(value.astype(np.float64)))
    if bad:
        what = f"has {bad} of {value.size} values that are not finite (NaN or infinite)"
        raise ValueError(_BAD_TENSOR.format(key=key, path=path, what=what))


def _excluded(names: Iterable[str], patterns: str | Sequence[str]) -> set[str]:
    """Return the names that a pattern matches.

    Raises:
        ValueError: a pattern matches nothing.
    """
    found = set()
    for pattern in as_patterns(patterns, setting="train.fine_tune_exclude"):
        matches = {name for name in names if re.match(pattern, name)}
        if not matches:
            raise ValueError(
                f"the pattern {pattern!r} of train.fine_tune_exclude matches no variable that "
                "would be restored; correct or remove it."
            )
        found |= matches
    return found


def _raise_if_unfit(plan: _Plan) -> None:
    """Raise an error unless every variable asked for can be set."""
    table = plan.table
    if not table.missing and not table.mismatched and plan.variables:
        return
    if not plan.needed:
        raise ValueError(
            f"nothing of {table.path} is used: train.fine_tune_exclude leaves no variable to "
            "restore. Remove patterns from it, or leave the checkpoint out."
        )
    if not plan.variables:
        unfit = [variable for _, variable in table.missing]
        unfit += [variable for _, _, variable, _ in table.mismatched]
        raise ValueError(
            f"nothing in {table.path} fits this {plan.title}: of {plan.needed} variables to "
            f"restore, such as {', '.join(unfit[:3])}, none was found with its shape; the "
            f"checkpoint holds {_examples(table.skipped)}. It is of another recipe or backbone: "
            "train with that recipe, or set --fine_tune_checkpoint to weights of this one."
        )
    problems = [f"{tensor} is missing, for {variable}" for tensor, variable in table.missing]
    problems += [
        f"{tensor} has shape {list(got)}, {variable} needs {list(want)}"
        for tensor, got, variable, want in table.mismatched
    ]
    more = len(problems) - _SHOWN
    shown = "; ".join(problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    raise UnfitError(f"{table.summary()}. {shown}. {_advice(plan)} Nothing was restored.", table)


def _examples(tensors: Sequence[str]) -> str:
    """Return examples of a checkpoint's tensors: a few kernels, if it has any, in our spelling."""
    own = [name for name in tensors if name.startswith("weights/")] or tensors
    names = [
        name.removeprefix("weights/").split("/.ATTRIBUTES")[0].replace(".S", "/") for name in own
    ]
    names = [name for name in names if re.search(r"(kernel|weights?)$", name)] or names
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") or "no tensors"


def _advice(plan: _Plan) -> str:
    """Return the likely cause and the setting to change."""
    unfit = [variable for _, variable in plan.table.missing]
    unfit += [variable for _, _, variable, _ in plan.table.mismatched]
    layers = sorted({name.rsplit("/", 1)[0] for name in unfit})
    if plan.table.kind != "classification" and not plan.source_has_head:
        return (
            "The checkpoint holds a backbone only: set --fine_tune_checkpoint_type=classification."
        )
    exclude = ", ".join(f"'{layer}/'" for layer in layers[:_SHOWN])
    return (
        "Likely cause: the checkpoint is of another depth, width or recipe, or it was cut short. "
        "To begin these layers with new weights, set train.fine_tune_exclude = "
        f"({exclude},{' ...' if len(layers) > _SHOWN else ''})."
    )


def _check_choice(setting: str, value: str | None, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        raise ValueError(f"train.{setting} must be one of {', '.join(choices)}, got {value!r}.")
