"""Whose names the tensors of a file have, and which of them belong to a detector's variables."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ssd_centernet.labels import LabelMap
from ssd_centernet.models.detector import Detector
from ssd_centernet.run_directory import LABEL_MAP_NAME, named_weights
from ssd_centernet.weights.convention import Convention
from ssd_centernet.weights.published import CONVENTIONS, PARTS
from ssd_centernet.weights.readers import Weights

_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Source:
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

    def check_network(self, detector: Detector) -> None:
        """Raise an error for weights that fit in shape alone.

        Raises:
            ValueError: the file's network is built in another way.
        """
        wrong = self.convention.differences(detector.backbone, strict=True)
        essential = self.convention.essential
        if essential is not None:
            there = [key for key in self.weights.shapes if re.search(essential, key)]
            used = {self.weights.find(name) for name in self.names["backbone"].values()}
            if there and not used.intersection(there):
                wrong.append(f"it has no layers for {there[0]} and others like it")
        if wrong and self.has("backbone"):
            raise ValueError(
                f"{self.weights.path} ({self.convention.title}) fits in shape, but the network is "
                f"built in another way: {'; '.join(wrong)}. Set it as the file needs it, or choose "
                "another file; docs/weights.md lists them."
            )

    def class_names(self) -> tuple[str, ...] | None:
        """Return the classes of a run, from its directory, or of a detector in a file."""
        if self.weights.class_names is not None:
            return self.weights.class_names
        for folder in Path(self.weights.path).parents[:2]:
            if (folder / LABEL_MAP_NAME).is_file():
                return LabelMap.from_pbtxt(folder / LABEL_MAP_NAME).names
        return None


def parts_of(detector: Detector) -> dict[str, tuple[object, set[str]]]:
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


def recognise(detector: Detector, weights: Weights) -> Source:
    """Find the convention of the tensors' names.

    Raises:
        ValueError: none of the names is known.
    """
    parts = parts_of(detector)
    sources = []
    for convention in CONVENTIONS:
        if convention.objects != (weights.kind == "objects"):
            continue
        mark = convention.marker
        if mark is not None and not any(key.endswith(mark) for key in weights.shapes):
            continue
        names = {}
        for key, (part, variables) in parts.items():
            of_part = {k: v for k, v in convention.of_part(part).items() if k in variables}
            root = _root(weights, convention.roots.get(key), list(of_part.values()))
            names[key] = {variable: root + name for variable, name in of_part.items()}
        sources.append(Source(weights, convention, names))
    # Of two that know as many names the one with a mark is more sure.
    best = max(sources, key=lambda source: (source.found, source.convention.marker is not None))
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
