"""The file of a study: settings in common, the variants of them, seeds, and the budget."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Sequence

import yaml

from ssd_centernet.data.readers.data_yaml import explain_yaml
from ssd_centernet.files import read_text

BASE = "base"
_KEYS = (BASE, "variants", "seeds", "budget")
# Flags of `train`. Those that several values make longer are given once for each.
_LISTS = ("gin_file", "gin_params", "data_dir")
_EVERYWHERE = (
    "gin_file",
    "gin_params",
    "train_split",
    "data_weights",
    "batch_size",
    "num_steps",
    "epochs",
    "learning_rate",
    "dtype",
    "fine_tune_checkpoint",
    "fine_tune_checkpoint_type",
    "from_scratch",
)
# All runs are measured on the same images, on the same device, at the same steps.
_IN_COMMON = (
    "data_dir",
    "eval_split",
    "device",
    "allow_import",
    "log_every",
    "checkpoint_every",
    "evaluate_every",
)
_LENGTHS = ("num_steps", "epochs")
IMAGES, STEPS, OWN = "images", "steps", "own"
# A folder's name, and a column of a table that a terminal shows.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,23}")
_LARGEST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Setting:
    """A flag of `train` with its value as text, and the line of the file that has it."""

    flag: str
    value: str
    line: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """Hold one way to train.

    Attributes:
        name: of its column and its folder.
        settings: those in common, and its own in their place or after them.
        line: of the file, where it is described.
    """

    name: str
    settings: tuple[Setting, ...]
    line: int

    @property
    def arguments(self) -> list[str]:
        """Flags of `ssd_centernet train`."""
        return [f"--{one.flag}={one.value}" for one in self.settings]

    def place_of(self, message: str) -> int:
        """Return the line of the setting that a message quotes, or else that of the variant."""
        quoted = [one for one in self.settings if one.value.strip() in message and one.value]
        return max(quoted, key=lambda one: len(one.value)).line if quoted else self.line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Hold how much every run is trained.

    Attributes:
        unit: `IMAGES`; `STEPS` of the batches of `base`; or `OWN`, what the settings of each
            variant say.
        number: of images or steps; None takes what the settings of `base` say.
    """

    unit: str
    number: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Hold what a file of a study says.

    Attributes:
        path: the file.
        variants: `base` first, then the others in the order of the file.
        seeds: of weights, order and augmentation.
        budget: of every run.
    """

    path: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    budget: Budget


def read_study(path: str | os.PathLike) -> Study:
    """Read the file of a study; nothing that it names is opened.

    Args:
        path: a YAML file with `base`, `variants`, `seeds` and `budget`, see docs/training.md.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not YAML, or says something that a study has not; names the line.
    """
    path = os.fspath(path)
    text = read_text(path)
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        told = "it is nested too deep."
        if isinstance(error, yaml.YAMLError):
            told = explain_yaml(error, text)
        raise ValueError(f"{path}: {told}") from error
    return _Reader(path).study(root)


class _Reader:
    """Turn the nodes of a file into a study, and every surprise into an error with its line."""

    def __init__(self, path: str):
        self.path = path

    def study(self, root: yaml.Node | None) -> Study:
        if root is None:
            raise ValueError(f"{self.path} is empty; expected the keys {', '.join(_KEYS)}.")
        parts = {key.value: (key, value) for key, value in self._pairs(root, "the study", _KEYS)}
        for name in (BASE, "seeds"):
            if name not in parts:
                self._refuse(root, f"there is no {name!r}; a study has {', '.join(_KEYS)}")
        key, value = parts[BASE]
        base = self._settings(value, (*_EVERYWHERE, *_IN_COMMON), "settings in common")
        for flag in ("gin_file", "data_dir"):
            if not any(one.flag == flag for one in base):
                self._refuse(key, f"{BASE} has no {flag}, which every training needs")
        variants = [Variant(name=BASE, settings=tuple(base), line=self._line(key))]
        budget = (
            self._budget(*parts["budget"])
            if "budget" in parts
            else Budget(unit=IMAGES, number=None)
        )
        if "variants" in parts:
            for name, body in self._pairs(parts["variants"][1], "the variants", None):
                variants.append(self._variant(name, body, base, budget))
        return Study(
            path=self.path,
            variants=tuple(variants),
            seeds=self._seeds(parts["seeds"][1]),
            budget=budget,
        )

    def _variant(
        self, name: yaml.Node, body: yaml.Node, base: Sequence[Setting], budget: Budget
    ) -> Variant:
        if name.value == BASE:
            self._refuse(name, f"{BASE} is the variant without changes and always there; remove it")
        if not _NAME.fullmatch(name.value):
            self._refuse(
                name,
                f"a variant is named {name.value!r}; expected up to 24 letters, digits, _ . and -, "
                "as it names a folder",
            )
        if isinstance(body, yaml.SequenceNode):
            own = [Setting("gin_params", *one) for one in self._texts(body, "gin_params")]
        else:
            own = self._settings(body, _EVERYWHERE, f"the variant {name.value}")
        if not own:
            self._refuse(name, f"{name.value} changes nothing; {BASE} is already there")
        for one in own:
            if one.flag in _LENGTHS and budget.unit != OWN:
                raise self._error(
                    one.line,
                    f"{name.value} has a length of its own, but all runs see as many images; "
                    f"remove {one.flag}, or set 'budget: {OWN}'",
                )
        replaced = {one.flag for one in own} - {"gin_file", "gin_params"}
        replaced |= set(_LENGTHS) if replaced & set(_LENGTHS) else set()
        kept = [one for one in base if one.flag not in replaced]
        return Variant(name=name.value, settings=(*kept, *own), line=self._line(name))

    def _settings(self, node: yaml.Node, known: Sequence[str], what: str) -> list[Setting]:
        found = []
        for key, value in self._pairs(node, what, known):
            texts = self._texts(value, key.value)
            if len(texts) != 1 and key.value not in _LISTS:
                self._refuse(value, f"{key.value} has {len(texts)} values; expected one")
            if key.value == "batch_size" and texts[0][0] == "auto":
                self._refuse(value, "batch_size is auto; a study needs a number, equal or not")
            found += [Setting(key.value, *one) for one in texts]
        return found

    def _texts(self, node: yaml.Node, key: str) -> list[tuple[str, int]]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for one in nodes:
            if not isinstance(one, yaml.ScalarNode):
                self._refuse(
                    one,
                    f"{key} has something else than texts; a text with a colon or a comma may need "
                    "'quotes' around it",
                )
            if not one.value.strip():
                self._refuse(one, f"{key} has no value")
        return [(one.value, self._line(one)) for one in nodes]

    def _seeds(self, node: yaml.Node) -> tuple[int, ...]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self._refuse(node, "seeds is no list; expected one such as [0, 1, 2]")
        seeds = [self._whole(one, "a seed", _LARGEST_SEED) for one in node.value]
        for number, one in enumerate(node.value):
            if seeds[number] in seeds[:number]:
                self._refuse(one, f"the seed {seeds[number]} occurs twice; remove one of them")
        return tuple(seeds)

    def _budget(self, key: yaml.Node, node: yaml.Node) -> Budget:
        if isinstance(node, yaml.ScalarNode) and node.value == OWN:
            return Budget(unit=OWN, number=None)
        pairs = []
        if isinstance(node, yaml.MappingNode):
            pairs = self._pairs(node, "the budget", (IMAGES, STEPS))
        if len(pairs) != 1:
            self._refuse(
                key,
                f"the budget is '{IMAGES}: NUMBER', '{STEPS}: NUMBER' of the batches of {BASE}, or "
                f"'{OWN}', what each variant's settings say; without it all runs see as many "
                f"images as {BASE}. Minutes are none: no run would reach the end of its schedule "
                "at the same place twice",
            )
        unit, number = pairs[0]
        return Budget(unit=unit.value, number=self._whole(number, unit.value, 2**53, least=1))

    def _whole(self, node: yaml.Node, what: str, largest: int, *, least: int = 0) -> int:
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        if re.fullmatch(r"\d{1,16}", text) and least <= int(text) <= largest:
            return int(text)
        shown = repr(text) if text else "something else"
        self._refuse(node, f"{what} is {shown}; expected a whole number from {least} to {largest}")

    def _pairs(
        self, node: yaml.Node, what: str, known: Sequence[str] | None
    ) -> list[tuple[yaml.Node, yaml.Node]]:
        """Return the keys and values of a mapping, each key once and one of those known."""
        if not isinstance(node, yaml.MappingNode):
            self._refuse(node, f"{what}: expected lines of 'key: value'")
        seen: list[str] = []
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(key, f"{what}: a key is no text")
            if key.value in seen:
                self._refuse(key, f"{what}: the key {key.value!r} occurs twice; remove one of them")
            if known is not None and key.value not in known:
                self._refuse(key, f"{what}: {self._unknown(key.value, known)}")
            seen.append(key.value)
        return node.value

    def _unknown(self, name: str, known: Iterable[str]) -> str:
        if name in _IN_COMMON:
            return f"{name} is the same for all runs of a study; it belongs into {BASE}"
        if name == "seed" and "seeds" in known:
            return "nothing is named 'seed'. Did you mean seeds"
        if name in ("seed", "model_dir"):
            return f"{name} is set for each run by the study itself; remove it"
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        return f"nothing is named {name!r}. {hint}Known are: {', '.join(known)}"

    def _line(self, node: yaml.Node) -> int:
        return node.start_mark.line + 1

    def _refuse(self, node: yaml.Node, reason: str) -> None:
        raise self._error(self._line(node), reason)

    def _error(self, line: int, reason: str) -> ValueError:
        return ValueError(f"{self.path}, line {line}: {reason}.")
