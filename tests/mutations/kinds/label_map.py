"""Label maps in the text format of the Object Detection API."""

from __future__ import annotations

import random
from pathlib import Path

from ssd_centernet.data.convert_formats import read_label_map
from tests.mutations import scene, text
from tests.mutations.harness import Files, Kind
from tests.mutations.judge import BROKEN, EITHER, SAME, Meaning, Outcome

FILE = "label_map.pbtxt"


def clean() -> dict[str, bytes]:
    """Return a label map with gaps among its ids."""
    items = (
        f"item {{\n  id: {3 + 2 * number}\n  name: '{name}'\n}}\n"
        for number, name in enumerate(scene.CLASSES)
    )
    return {FILE: "".join(items).encode()}


def label_map() -> Kind:
    """Return a label map that changes."""
    kind = Kind("label map", clean, read)
    text.add_encodings(kind, _file)
    text.add_marks(kind, _file, "{}:'", rounds=12)
    _add_lines(kind)
    _add_values(kind)
    return kind


def read(folder: Path) -> Outcome:
    """Return ids and names."""
    labels = read_label_map(folder / FILE)
    return Outcome(Meaning({}, tuple(zip(labels.ids, labels.names, strict=True))))


def _file(rng: random.Random, files: Files) -> str:
    return FILE


def _edit(kind: Kind, name: str, claim: str, edit, **options) -> None:
    text.add_edit(kind, name, claim, _file, edit, **options)


def _add_lines(kind: Kind) -> None:
    def cut(rng: random.Random, data: str) -> str:
        # Between two items a cut leaves a whole map of fewer classes.
        ends = [i for i in range(1, len(data) - 2) if data[:i].count("{") > data[:i].count("}")]
        return data[: rng.choice(ends)]

    def drop(rng: random.Random, data: str) -> str:
        lines = data.splitlines(keepends=True)
        del lines[rng.randrange(len(lines))]
        return "".join(lines)

    def double(rng: random.Random, data: str) -> str:
        lines = data.splitlines(keepends=True)
        number = rng.randrange(len(lines))
        return "".join(lines[: number + 1] + lines[number:])

    def double_item(rng: random.Random, data: str) -> str:
        items = data.split("}\n")[:-1]
        return data + rng.choice(items) + "}\n"

    def without_line_ends(rng: random.Random, data: str) -> str:
        return data.replace("\n", rng.choice((" ", "  ", "\t", ", ")))

    _edit(kind, "cut off", BROKEN, cut, rounds=10)
    _edit(kind, "drop a line", BROKEN, drop, rounds=10)
    _edit(kind, "double a line", EITHER, double, rounds=12)
    _edit(kind, "an item twice", BROKEN, double_item, rounds=3, places="'|item")
    _edit(kind, "on one line", EITHER, without_line_ends, rounds=4)


def _add_values(kind: Kind) -> None:
    def replaced(name: str, claim: str, old: str, *new: str, places: str | None = None) -> None:
        def edit(rng: random.Random, data: str) -> str:
            return data.replace(old, rng.choice(new))

        _edit(kind, name, claim, edit, rounds=3 * len(new), places=places)

    replaced("double quotes", SAME, "'", '"')
    replaced("comments", SAME, "item {", "# id: 9 name: 'cow'\nitem {  # the next")
    replaced(
        "fields of other tools",
        SAME,
        "id: 5",
        "id: 5 keypoints { id: 1 label: 'x' }",
        "id: 5 frequency: 3 color: [1, 2]",
    )
    replaced("display name", SAME, "name: 'dog'", "name: '/m/0bt9lr' display_name: 'dog'")
    replaced("no colon before brackets", SAME, "item {", "item: {", "item{", "item  {")
    none = (
        "-5",
        "5.5",
        "five",
        "''",
        "1e3",
        "99999999999999999999",
        "5 5",
        "true",
        "0x",
        "2000000",
    )
    replaced("an id that is none", BROKEN, "id: 5", *(f"id: {value}" for value in none))
    replaced("no id", BROKEN, "  id: 5\n", "", "  idd: 5\n", "  ID: 5\n")
    replaced("an id twice", BROKEN, "id: 5", "id: 3", "id: 7", places="id")
    names = ("''", "' '", "dog", "5", "'dog", "[]", "{}", "'dog\n'")
    replaced("a name that is none", BROKEN, "'dog'", *names)
    replaced("no name", BROKEN, "  name: 'dog'\n", "", "  nam: 'dog'\n", "  label: 'dog'\n")
    replaced("a name twice", BROKEN, "'dog'", "'cat'", "'oiseau bleuté'", places="name")
    replaced("two names", BROKEN, "name: 'dog'", "name: 'dog' name: 'cow'")
    replaced("another message", BROKEN, "item {", "items {", "Item {", "node {", "model {")
    replaced("an item in an item", BROKEN, "}\nitem {\n  id: 5", "item {\n  id: 5 }")
    replaced(
        "a class for the background",
        EITHER,
        "item {\n  id: 3",
        "item { id: 0 name: 'background' }\nitem {\n  id: 3",
    )
    replaced("json", BROKEN, "item {", '{"item": ')
