"""Recipes: a gin file of one's own over an installed one."""

from __future__ import annotations

import dataclasses
import random
import re
from pathlib import Path

import gin

from ssd_centernet import config
from ssd_centernet.recipe import Recipe
from tests.mutations import text
from tests.mutations.harness import Files, Kind
from tests.mutations.judge import BROKEN, EITHER, SAME, WHOLE_FILE, Changed, Meaning, Outcome

FILE = "mine.gin"
_PLACE = r"line \d+"
_TEXT = """# Pour les oiseaux bleutés.
include 'ssd_demo.gin'

SIDE = 96
IMAGE_SIZE = (96, %SIDE)
SSD.anchors = @DefaultBoxes()
DefaultBoxes.scales = (30, 70, 120, 190, 300)

train.batch_size = 4
train.steps = 120
train.weight_decay = 1.5e-4
train.clip_norm = None
train.keep_empty = True
train.optimizer = @Momentum
Momentum.momentum = 0.85
train.eval_split = 'coco_val2017'
train.log_every = '2 epochs'
SSDAugment.no_crop_probability = 0.25
"""


def clean() -> dict[str, bytes]:
    """Return the recipe."""
    return {FILE: _TEXT.encode()}


def read(folder: Path) -> Outcome:
    """Return all settings, and those that training would read."""
    try:
        config.parse([folder / FILE])
        recipe = Recipe()
        length = recipe.length(100)
        shown = (*_shown(recipe), *_shown(recipe.loop_options(length)), repr(length))
        # One setting a line; what nothing refers to would be refused once the run has begun.
        settings = tuple(
            line for line in gin.config_str(max_line_length=10_000).splitlines() if "=" in line
        )
        return Outcome(Meaning({"recipe": shown}, settings))
    finally:
        config.clear()


def _shown(settings) -> list[str]:
    """Return each setting and its value, without addresses."""
    values = ((field.name, getattr(settings, field.name)) for field in dataclasses.fields(settings))
    return [f"{name} = {re.sub(' at 0x[0-9a-f]+', '', repr(value))}" for name, value in values]


def recipes() -> Kind:
    """Return a recipe that changes."""
    kind = Kind("recipes", clean, read)
    text.add_encodings(kind, _file)
    # An empty recipe is a recipe without settings.
    kind.mutations[:] = [m for m in kind.mutations if m.name not in ("empty", "only spaces")]
    # A point dropped makes a macro of a setting; that nothing uses it is told once all is built.
    text.add_marks(kind, _file, "=@(),%'", rounds=12, quotes=False)
    text.add_edit(kind, "curly quotes", BROKEN, _file, lambda r, t: t.replace("'", "\u2019"))
    for add in (_add_same, _add_names, _add_lines, _add_values, _add_structure):
        add(kind)
    return kind


def _file(rng: random.Random, files: Files) -> str:
    return FILE


def _replaced(
    kind: Kind, name: str, claim: str, old: str, *new: str, places: str | None = None
) -> None:
    def edit(rng: random.Random, data: str) -> str:
        assert old in data, old
        return data.replace(old, rng.choice(new), 1)

    text.add_edit(kind, name, claim, _file, edit, rounds=3 * len(new), places=places)


def _add_same(kind: Kind) -> None:
    _replaced(kind, "comments", SAME, "\n\n", "\n# train.batch_size = 9\n\n", "  # = @x('\n\n")
    _replaced(kind, "spaces", SAME, "train.steps = 120", "train.steps=120", "train.steps   =  120")
    _replaced(kind, "double quotes", SAME, "'coco_val2017'", '"coco_val2017"')
    _replaced(kind, "without the ending", SAME, "'ssd_demo.gin'", "'ssd_demo'")
    _replaced(kind, "twice with one value", SAME, "train.steps = 120\n", "train.steps = 120\n" * 2)
    _replaced(
        kind,
        "over several lines",
        SAME,
        "(30, 70, 120, 190, 300)",
        "(30, 70,\n    120, 190,\n    300)",
        "(\n  30, 70, 120, 190, 300,\n)",
    )
    _replaced(kind, "numbers in other ways", SAME, "1.5e-4", "0.00015", "1.5E-4", "15e-5")


def _add_names(kind: Kind) -> None:
    names = (
        "train.batchsize",
        "train.batch_sise",
        "train.Batch_size",
        "trian.batch_size",
        "batch_size.train",
        "train..batch_size",
        "train.batch size",
        "Train.batch_size",
        "train.batch-size",
    )
    _replaced(kind, "a setting of another name", BROKEN, "train.batch_size", *names, places=_PLACE)
    parts = (
        "@Momentun",
        "@momentum",
        "@",
        "@Momentum)",
        "@Momentum(",
        "Momentum",
        "@@Momentum",
        "@Momentum.x",
    )
    _replaced(kind, "a part of another name", BROKEN, "@Momentum", *parts, places=_PLACE)
    _replaced(
        kind,
        "a macro of another name",
        BROKEN,
        "%SIDE",
        "%SIDES",
        "%side",
        "%",
        "SIDE",
        "%%SIDE",
        places=_PLACE,
    )
    _replaced(
        kind,
        "another file",
        BROKEN,
        "'ssd_demo.gin'",
        "'ssd_demos.gin'",
        "'mine.gin'",
        "'/nothing.gin'",
        "''",
        "'.'",
        places=r"line \d+|There is no gin file|no gin file",
    )


def _add_lines(kind: Kind) -> None:
    lines = (
        "import nothing_of_this_name",
        "import",
        "import os.nothing",
        "include",
        "include x y",
    )
    _replaced(
        kind,
        "a line that cannot be obeyed",
        BROKEN,
        "\n\n",
        *(f"\n{line}\n\n" for line in lines),
        places=_PLACE,
    )
    lines = (
        "train.batch_size",
        "train.batch_size 4",
        "= 4",
        "train.steps = ",
        "4",
        "[train]",
        "train:",
        "if x:",
        "{1: 2}",
        "train.batch_size += 4",
        "train.batch_size = 4; train.steps = 5",
    )
    _replaced(
        kind,
        "a line that is no setting",
        BROKEN,
        "\n\n",
        *(f"\n{line}\n\n" for line in lines),
        places=_PLACE,
    )


def _add_values(kind: Kind) -> None:
    def value(name: str, old: str, *others: str) -> None:
        lines = (f"train.{name} = {other}\n" for other in others)
        _replaced(
            kind,
            f"another {name}",
            BROKEN,
            f"train.{name} = {old}\n",
            *lines,
            places=rf"line \d+|train\.{name}",
        )

    value(
        "batch_size",
        "4",
        "-4",
        "0",
        "4.5",
        "'4'",
        "None",
        "True",
        "(4,)",
        "[]",
        "{}",
        "1e400",
        "٤",
        "4 4",
        "04",
    )
    value("steps", "120", "-1", "'many'", "(1, 2)", "1e400", "False", "[120]")
    value("weight_decay", "1.5e-4", "-1.0", "'1e-4'", "(1,)", "1e400", "-1e400", "True")
    value("clip_norm", "None", "0", "-2.0", "'no'", "()", "False")
    value("keep_empty", "True", "'True'", "1", "2", "None", "yes", "true", "[]")
    value("optimizer", "@Momentum", "'Momentum'", "5", "None", "@Momentum()")
    value("eval_split", "'coco_val2017'", "5", "coco_val", "('a',)", "True", "['coco_val']")
    value(
        "log_every",
        "'2 epochs'",
        "'2 lightyears'",
        "'epochs'",
        "-3",
        "''",
        "1.5",
        "(2,)",
        "'two epochs'",
    )


def _add_structure(kind: Kind) -> None:
    _replaced(
        kind,
        "a bracket that is not closed",
        BROKEN,
        "190, 300)",
        "190, 300",
        "190, 300]",
        "190, 300}",
        places=_PLACE,
    )
    _replaced(
        kind,
        "a quote that is not closed",
        BROKEN,
        "'coco_val2017'",
        "'coco_val2017",
        "coco_val2017'",
        "'coco_val2017\"",
        "'coco\nval'",
        places=_PLACE,
    )

    def cut(rng: random.Random, data: str) -> str:
        # Inside of a bracket or a text: elsewhere a cut leaves whole lines.
        start = data.index("(30") + 1
        return data[: rng.randrange(start, data.index("300)"))]

    text.add_edit(kind, "cut off in a bracket", BROKEN, _file, cut, rounds=4, places=_PLACE)

    def circle(rng: random.Random, files: Files) -> Changed:
        data = files[FILE].decode().replace("'ssd_demo.gin'", "'other.gin'")
        return Changed(
            {FILE: data.encode(), "other.gin": b"include 'mine.gin'\n"}, ".gin", WHOLE_FILE
        )

    def deep(rng: random.Random, data: str) -> str:
        return data.replace("(96, %SIDE)", "(" * 3000 + ")" * 3000)

    kind.add("files that include each other", BROKEN, circle)
    text.add_edit(kind, "very deep", BROKEN, _file, deep, places=WHOLE_FILE)
    text.add_edit(
        kind,
        "code",
        BROKEN,
        _file,
        lambda r, t: t.replace("= 120", "= __import__('os').getpid()"),
        places=_PLACE,
    )
    text.add_edit(
        kind, "a sum", EITHER, _file, lambda r, t: t.replace("= 120", "= 100 + 20"), places=_PLACE
    )
