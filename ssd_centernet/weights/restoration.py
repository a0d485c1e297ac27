"""Initial weights: plan which tensor belongs to which variable, check everything, then assign."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ssd_centernet.labels import LabelMap
from ssd_centernet.models.detector import Detector
from ssd_centernet.patterns import as_patterns
from ssd_centernet.run_directory import LABEL_MAP_NAME, named_weights
from ssd_centernet.weights import classes
from ssd_centernet.weights.convention import Convention
from ssd_centernet.weights.published import CONVENTIONS, PARTS
from ssd_centernet.weights.readers import Weights, open_weights
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
) -> RestoreTable:
    """Set a detector's weights and moving statistics from a file of weights.

    The names in it show the kind of checkpoint. Nothing is set unless everything fits.

    Args:
        detector: the detector whose variables are set.
        path: see `open_weights`.
        kind: "classification" loads only the backbone; "detection" also neck and head, except the
            predictions of classes that the checkpoint does not know; "full" loads every variable.
            None means "detection" if the checkpoint has predictions for the detector's head, else
            "classification".
        exclude: regular expressions, matched at the start of variable names, of variables to leave
            out.
        channels: order of the checkpoint's input, "RGB" or "BGR"; the first kernel is reversed if
            the detector's preprocessing has the other order. None means the order of the format if
            known (BGR for Keras' ImageNet weights), else the detector's own.

    Returns:
        A table of what was done with each variable and tensor.

    Raises:
        FileNotFoundError: the file does not exist.
        ImportError: the file needs a package that is not installed.
        ValueError: `kind` or `channels` has another value, nothing matches, or the file is damaged;
            an `UnfitError` if a variable has no tensor or one of another shape.
    """
    _check_choice("fine_tune_checkpoint_type", kind, KINDS)
    _check_choice("fine_tune_channels", channels, CHANNELS)
    weights = open_weights(path)
    source = _recognise(detector, weights)
    if kind is None:
        kind = "detection" if source.has("head") else "classification"
    plan = _Plan(detector, source, kind, exclude)
    _raise_if_unfit(plan)
    reverse = _reversed_kernel(detector, channels or source.convention.channels)
    # Everything is read before anything is set, so that a damaged file changes no weights.
    values = [
        (variable, plan.value(name, flip=name == reverse))
        for name, variable in plan.variables.items()
    ]
    for variable, value in values:
        variable.assign(value)
    return plan.table


@dataclasses.dataclass(frozen=True)
class _Source:
    """A file of weights with the convention that knows most of its names.

    Attributes:
        weights: the file.
        convention: the convention of its names.
        names: part -> {variable: the name of its tensor, whether it is there or not}.
    """

    weights: Weights
    convention: Convention
    names: Mapping[str, Mapping[str, str]]

    def has(self, part: str) -> bool:
        """Return whether the file holds any tensor of a part."""
        return any(self.weights.find(name) for name in self.names[part].values())

    @property
    def found(self) -> int:
        """Return how many of the tensors are there."""
        return sum(
            self.weights.find(name) is not None
            for names in self.names.values()
            for name in names.values()
        )

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor in our layout."""
        shape = self.weights.shapes[key]
        return tuple(shape[axis] for axis in self.convention.axes(key, len(shape)))

    def read(self, key: str) -> np.ndarray:
        """Read a tensor in our layout."""
        value = np.asarray(self.weights.read(key))
        return value.transpose(self.convention.axes(key, value.ndim))

    def class_names(self) -> tuple[str, ...] | None:
        """Return the classes of a run, from its directory, or of a detector in a file."""
        if self.weights.class_names is not None:
            return self.weights.class_names
        for folder in Path(self.weights.path).parents[:2]:
            if (folder / LABEL_MAP_NAME).is_file():
                return LabelMap.from_pbtxt(folder / LABEL_MAP_NAME).names
        return None


def _parts(detector: Detector) -> dict[str, tuple[object, set[str]]]:
    """Return backbone, neck, head and the rest with the names of their variables."""
    rest = set(named_weights(detector))
    parts = {}
    for name in PARTS:
        part = detector if name == "rest" else getattr(detector, name, None)
        own = [] if part is None else part.variables
        names = rest & {variable.name.removesuffix(":0") for variable in own}
        rest -= names
        parts[name] = (part, names)
    return parts


def _recognise(detector: Detector, weights: Weights) -> _Source:
    """Find the convention of the tensors' names.

    Raises:
        ValueError: none of the names is known.
    """
    parts = _parts(detector)
    sources = []
    for convention in CONVENTIONS:
        if convention.objects != (weights.kind == "objects"):
            continue
        names = {}
        for key, (part, variables) in parts.items():
            of_part = {k: v for k, v in convention.of_part(part).items() if k in variables}
            root = _root(weights, convention.roots.get(key), list(of_part.values()))
            names[key] = {variable: root + name for variable, name in of_part.items()}
        sources.append(_Source(weights, convention, names))
    best = max(sources, key=lambda source: source.found)
    if not best.found:
        example = next(n for s in sources for names in s.names.values() for n in names.values())
        raise ValueError(
            f"nothing in {weights.path} fits this detector: it holds "
            f"{', '.join(sorted(weights.shapes)[:_SHOWN]) or 'no tensors'}, ..., but no known "
            f"name of the detector's variables, such as {example}. Is it a checkpoint of "
            "another recipe or backbone? docs/training.md lists the files that can be read; set "
            "train.fine_tune_checkpoint to one that fits."
        )
    return best


def _root(weights: Weights, roots: Sequence[str] | None, names: Sequence[str]) -> str:
    """Return the prefix, "" or with its separator, under which most of the names are found."""
    if roots is None:
        endings = tuple(names[:_SHOWN])
        found = {
            key[: -len(ending)]
            for key in weights.shapes
            for ending in endings
            if key.endswith(ending)
        }
        prefixes = {"", *(prefix for prefix in found if prefix.endswith(("/", ".")))}
    else:
        prefixes = {f"{root}/" if root else "" for root in roots}

    def hits(prefix: str) -> int:
        return sum(weights.find(prefix + name) is not None for name in names)

    return max(sorted(prefixes, key=lambda prefix: (len(prefix), prefix)), key=hits)


class _Plan:
    """The plan: which tensor goes into which variable.

    Attributes:
        variables: those that will be set, by name.
        table: the table of the restoration once it is done.
    """

    def __init__(self, detector: Detector, source: _Source, kind: str, exclude: Sequence[str]):
        """Plan a restoration."""
        self._source = source
        self.source_has_head = source.has("head")
        self._keys: dict[str, str] = {}
        self._rows: dict[str, np.ndarray] = {}
        self._class_rows = classes.ClassRows.of(detector)
        self._boxes = detector.box_variables()
        self.variables: dict[str, tf.Variable] = {}
        parts = _parts(detector)
        wanted = {"backbone"} if kind == "classification" else set(PARTS)
        scope = {name for part in wanted for name in parts[part][1]}
        excluded = _excluded(scope, exclude)
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

    def value(self, name: str, *, flip: bool) -> np.ndarray:
        """Read the new value of a variable, in its precision."""
        key, dtype = self._keys[name], self.variables[name].dtype.as_numpy_dtype
        value = self._in_our_order(name, self._checked(key, dtype), flip=flip).astype(dtype)
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

    def _in_our_order(self, name: str, value: np.ndarray, *, flip: bool) -> np.ndarray:
        convention = self._source.convention
        if name in self._rows:
            fresh = self.variables[name].numpy()
            last = convention.background_last
            return self._class_rows.merge(value, fresh, self._rows[name], background_last=last)
        if name in self._boxes:
            codes = value.reshape(*value.shape[:-1], -1, 4)
            return codes[..., list(convention.box_order)].reshape(value.shape)
        return value[:, :, ::-1] if flip else value


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


def _reversed_kernel(detector: Detector, channels: str | None) -> str | None:
    """Name the kernel that reads the image, if the checkpoint's has the other order of channels."""
    if channels is None or channels == detector.preprocessing.channels:
        return None
    for variable in detector.backbone.variables:
        if variable.shape.rank == 4 and variable.shape[2] == 3:
            return variable.name.removesuffix(":0")
    return None


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
