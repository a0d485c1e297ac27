"""What a run's directory holds of its settings and data, and when it is written anew."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ssd_centernet import config
from ssd_centernet.config.text import bindings_of
from ssd_centernet.labels import LabelMap
from ssd_centernet.recipe import Recipe
from ssd_centernet.run_directory import CONFIG_NAME, LABEL_MAP_NAME
from ssd_centernet.runs.changed_settings import describe_changes, saved_settings
from ssd_centernet.training.log_files import recorded_sessions

_SPLITS = ("train_split", "eval_split")
_SPLIT = "train.eval_split"
# What a session says of the steps that a run takes.
_FACTS = ("data_dir", "train_split", "eval_split", "mixed_with", "data_weights", "images")
_FACTS += ("steps_per_epoch", "total_steps", "global_batch_size", "processes", "fits_length")


class RunSettings:
    """The settings of a training: saved when steps are to be done with them, not before."""

    def __init__(
        self,
        model_dir: str | Path,
        label_map: LabelMap,
        recipe: Recipe,
        *,
        folders: Sequence[str],
        resumed: str | None = None,
    ):
        """Take the settings that gin has, once all that the run uses is built.

        Args:
            model_dir: directory of the run.
            label_map: classes of the run.
            recipe: tells the splits and the weights of data sets.
            folders: of data.
            resumed: prefix of the checkpoint that the run goes on from.
        """
        self.model_dir = Path(model_dir)
        self.data = data_of(recipe, folders)
        self._label_map = label_map
        self._splits = {f"train.{name}": getattr(recipe, name) for name in _SPLITS}
        self._before = saved_settings(resumed) if resumed else {}
        begun = [one for one in recorded_sessions(model_dir) if one.get("event") == "begin"]
        self._begun = begun[-1] if begun else {}

    @property
    def bindings(self) -> dict[str, str]:
        """The settings, as `read_bindings` gives those of a file."""
        return bindings_of(config.operative_config(self._splits))

    def save(self, say: Callable[[str], None] = lambda line: None) -> None:
        """Write what evaluate, predict and export need to build the same detector and find data.

        Args:
            say: told what is other than in the settings of the run that goes on.
        """
        config.save_operative(self.model_dir / CONFIG_NAME, self._splits)
        self._label_map.to_pbtxt(self.model_dir / LABEL_MAP_NAME)
        if self._before and (changes := describe_changes(self._before, self.bindings)):
            say(f"note: {changes}")

    def save_missing(self) -> None:
        """Write them for a run that has lost its own, or has none yet."""
        if not (self.model_dir / CONFIG_NAME).exists():
            self.save()

    def differences(self) -> str | None:
        """Say what is other than in the run; an evaluation of it would not be one of the run.

        Returns:
            Lines below a head; None where nothing is, or where it is not known.
        """
        told = (describe_changes(self._before, self.bindings) or "").splitlines()[1:]
        # A run without evaluations may have one at its end.
        pairs = [
            (_SPLIT, self._before.get(_SPLIT, "None"), self.bindings.get(_SPLIT)),
            ("data_dir", self._begun.get("data_dir", "None"), self.data["data_dir"]),
        ]
        told += [
            f"  {name}: {was} -> {now}" for name, was, now in pairs if was not in ("None", now)
        ]
        return "\n".join(told) or None

    def facts(self, at_end: bool, new: Mapping) -> dict:
        """Return what a session says of the run.

        Args:
            at_end: whether no step is left to do: the run stays what it was.
            new: facts of this process.
        """
        kept = {name: self._begun[name] for name in _FACTS if name in self._begun}
        return {**new, **self.data, **(kept if at_end else {})}

    def other_data(self) -> list[str]:
        """Say what is other than when the run was last begun: it goes on, but in another order."""
        if not self._begun:
            return []
        changed = [
            (name, self._begun.get(name) or "not given", self.data.get(name) or "not given")
            for name in ("data_dir", "mixed_with", "data_weights", "train_split")
            if name in self._begun or name != "train_split"  # Earlier versions did not note it.
        ]
        return [
            f"{name} was {before} and is {now} now: only with the same data does the run go on as "
            "if it had not stopped"
            for name, before, now in changed
            if before != now
        ]


def data_of(recipe: Recipe, folders: Sequence[str]) -> dict:
    """Return what `sessions.jsonl` holds of the data of a run."""
    first, *others = map(os.path.abspath, folders)
    weights = list(recipe.data_weights or ())
    return {
        "data_dir": first,
        "train_split": recipe.train_split,
        **({"eval_split": recipe.eval_split} if recipe.eval_split else {}),
        **({"mixed_with": others} if others else {}),
        **({"data_weights": weights} if weights else {}),
    }
