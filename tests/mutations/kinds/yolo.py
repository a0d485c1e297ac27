"""YOLO folders: label files of fractions, and data.yaml."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.mutations import scene, text
from tests.mutations.harness import Files, Kind
from tests.mutations.judge import BROKEN, EITHER, SAME, WHOLE_FILE, Changed, Meaning, Outcome

YAML = "yolo/data.yaml"
# One class index, and the numbers of a box.
Line = list[str]


def clean() -> dict[str, bytes]:
    """Return pictures, label files and data.yaml."""
    files = scene.pictures("yolo/images")
    for number, (name, _, _) in enumerate(scene.IMAGES):
        lines = (" ".join(line) for line in _lines(number))
        files[f"yolo/labels/{name}.txt"] = "".join(f"{line}\n" for line in lines).encode()
    files[YAML] = (
        "# Made by hand.\ntrain: images\nval: 'images'\nnc: 3\n"
        "names: ['cat', \"dog\", 'oiseau bleuté']\n"
    ).encode()
    return files


def _lines(image: int) -> list[Line]:
    _, width, height = scene.IMAGES[image]
    lines = []
    for number, label, x, y, w, h, _ in scene.OBJECTS:
        if number == image:
            numbers = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            lines.append([str(label), *(f"{value:.6f}" for value in numbers)])
    return lines


def read(folder) -> Outcome:
    """Convert the folder; a YOLO file has no crowd regions."""
    return scene.convert(folder / "yolo")


def yolo() -> Kind:
    """Return a folder with label files that change."""
    kind = Kind("yolo", clean, read)
    _add_encodings(kind)
    text.add_marks(kind, _file, " .\n", rounds=12)
    for add in (_add_same, _add_values, _add_lines, _add_units, _add_files):
        add(kind)
    return kind


def data_yaml() -> Kind:
    """Return a folder whose data.yaml changes."""
    kind = Kind("data.yaml", clean, read)
    # YAML allows tabs in few places only.
    text.add_encodings(kind, lambda rng, files: YAML, tabs=EITHER)
    places = r"line \d+|\b(names|nc|train)\b"
    # Without its first quote, or with curly ones, a name is another name that YAML allows.
    text.add_marks(kind, lambda rng, files: YAML, ":[],", rounds=10, quotes=False, places=places)
    _add_yaml(kind)
    return kind


def _file(rng: random.Random, files: Files) -> str:
    return f"yolo/labels/{rng.choice(scene.IMAGES)[0]}.txt"


def _add_encodings(kind: Kind) -> None:
    text.add_encodings(kind, _file)
    # An empty label file is a picture without objects.
    kind.mutations[:] = [m for m in kind.mutations if m.name not in ("empty", "only spaces")]


def _of(kind: Kind, claim: str, *, rounds: int = 3, places: str | None = r"line \d+|\w\.txt"):
    """Return a decorator for a change of the lines of one label file, or of one line.

    The change gets the lines as lists of texts; what it returns is not used unless it is False,
    which says that there is nothing to change.
    """

    def add(edit: Callable) -> Callable:
        def on_text(rng: random.Random, data: str) -> str | None:
            lines = [line.split() for line in data.splitlines()]
            if edit(rng, lines) is False:
                return None
            return "".join(" ".join(line) + "\n" for line in lines)

        name = edit.__name__.strip("_").replace("_", " ")
        text.add_edit(kind, name, claim, _file, on_text, rounds=rounds, places=places)
        return edit

    return add


def _corners(line: Line) -> list[float]:
    x, y, w, h = map(float, line[1:])
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def _outline(line: Line) -> list[str]:
    left, top, right, bottom = _corners(line)
    outline = (left, top, right, top, right, bottom, left, bottom)
    return [line[0], *(f"{value:.6f}" for value in outline)]


def _add_same(kind: Kind) -> None:
    @_of(kind, SAME)
    def another_order(rng, lines):
        rng.shuffle(lines)

    @_of(kind, SAME, rounds=4)
    def a_line_twice(rng, lines):
        lines.insert(rng.randrange(len(lines)), list(rng.choice(lines)))

    @_of(kind, SAME, rounds=4)
    def empty_lines_between(rng, lines):
        lines.insert(rng.randrange(len(lines)), [])

    @_of(kind, SAME, rounds=4)
    def more_digits(rng, lines):
        ending = rng.choice(("0", "00001", "e0", "E+0"))
        for line in lines:
            line[1:] = [number + ending for number in line[1:]]

    @_of(kind, SAME)
    def classes_as_floats(rng, lines):
        for line in lines:
            line[0] += ".0"

    @_of(kind, SAME)
    def a_comma_for_the_point(rng, lines):
        for line in lines:
            line[1:] = [number.replace(".", ",") for number in line[1:]]

    def tabs(rng: random.Random, data: str) -> str:
        return data.replace(" ", rng.choice(("\t", "  ", " \t "))).replace("\n", " \n ")

    text.add_edit(kind, "tabs and more spaces", SAME, _file, tabs, rounds=4)

    def all_polygons(rng: random.Random, files: Files) -> Changed:
        files = dict(files)
        for number, (name, _, _) in enumerate(scene.IMAGES):
            lines = (" ".join(_outline(line)) for line in _lines(number))
            files[f"yolo/labels/{name}.txt"] = "".join(f"{line}\n" for line in lines).encode()
        return Changed(files, "yolo")

    kind.add("outlines for boxes", SAME, all_polygons)

    @_of(kind, EITHER, rounds=4)
    def an_outline_for_a_box(rng, lines):
        number = rng.randrange(len(lines))
        lines[number] = _outline(lines[number])


def _add_values(kind: Kind) -> None:
    @_of(kind, BROKEN, rounds=20)
    def a_number_that_is_none(rng, lines):
        others = ("nan", "inf", "-inf", "x", "٠.٥", "0.5.5", "--0.5", "1e999", "0x1", "None", "0_1")
        rng.choice(lines)[rng.randrange(1, 5)] = rng.choice(others)

    @_of(kind, BROKEN, rounds=12)
    def a_class_that_is_none(rng, lines):
        rng.choice(lines)[0] = rng.choice(
            ("3", "99", "-1", "0.5", "nan", "cat", "1e5", "٢", "True")
        )

    @_of(kind, BROKEN, rounds=6)
    def a_size_below_one(rng, lines):
        line = rng.choice(lines)
        line[rng.choice((3, 4))] = rng.choice(("0", "-0.2", "0.0"))

    @_of(kind, BROKEN, rounds=6)
    def a_number_outside(rng, lines):
        rng.choice(lines)[rng.randrange(1, 5)] = rng.choice(("1.5", "-0.5", "37", "1e9"))


def _add_lines(kind: Kind) -> None:
    @_of(kind, BROKEN, rounds=8)
    def a_number_missing(rng, lines):
        del rng.choice(lines)[rng.randrange(5)]

    @_of(kind, BROKEN, rounds=6)
    def a_line_of_few_numbers(rng, lines):
        line = rng.choice(lines)
        del line[rng.randrange(1, 4) :]

    @_of(kind, BROKEN, rounds=6)
    def a_score_after_the_box(rng, lines):
        rng.choice(lines).append("0.873")

    @_of(kind, BROKEN, rounds=4)
    def text_after_the_box(rng, lines):
        rng.choice(lines).append(rng.choice(("cat", "#1", ";", "{}")))

    @_of(kind, BROKEN, rounds=4)
    def two_lines_in_one(rng, lines):
        number = rng.randrange(len(lines) - 1)
        lines[number] += lines.pop(number + 1)

    @_of(kind, EITHER, rounds=3)
    def a_head(rng, lines):
        lines.insert(0, ["class", "x", "y", "w", "h"])

    def cut(rng: random.Random, data: str) -> str:
        # Not between two lines, and not inside of the last number, which would be another one.
        ends = [i for i, character in enumerate(data) if character == " "]
        return data[: rng.choice(ends)]

    # What stands after the cut is lost without a trace: only the last line can be cut.
    def cut_last(rng: random.Random, data: str) -> str:
        lines = data.rstrip("\n").splitlines(keepends=True)
        return "".join(lines[:-1]) + cut(rng, lines[-1])

    text.add_edit(kind, "cut off in the last line", BROKEN, _file, cut_last, rounds=8)


def _add_units(kind: Kind) -> None:
    def all_boxes(name: str, convert, claim: str = BROKEN) -> None:
        def change(rng: random.Random, files: Files) -> Changed:
            files = dict(files)
            for number, (image, width, height) in enumerate(scene.IMAGES):
                lines = []
                for line in _lines(number):
                    values = convert(*map(float, line[1:]), width, height)
                    lines.append(" ".join([line[0], *(f"{value:.6g}" for value in values)]) + "\n")
                files[f"yolo/labels/{image}.txt"] = "".join(lines).encode()
            return Changed(files, ("yolo", ".txt"), r"line \d+")

        kind.add(name, claim, change)

    all_boxes("pixels", lambda x, y, w, h, W, H: (x * W, y * H, w * W, h * H))
    all_boxes("per cent", lambda x, y, w, h, W, H: (100 * x, 100 * y, 100 * w, 100 * h))
    all_boxes("thousandths", lambda x, y, w, h, W, H: (1000 * x, 1000 * y, 1000 * w, 1000 * h))
    all_boxes(
        "corners in pixels",
        lambda x, y, w, h, W, H: (
            (x - w / 2) * W,
            (y - h / 2) * H,
            (x + w / 2) * W,
            (y + h / 2) * H,
        ),
    )
    all_boxes(
        "corners for centres", lambda x, y, w, h, W, H: (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    )

    def from_one(rng: random.Random, files: Files) -> Changed:
        files = dict(files)
        for number, (image, _, _) in enumerate(scene.IMAGES):
            lines = ([str(int(line[0]) + 1), *line[1:]] for line in _lines(number))
            files[f"yolo/labels/{image}.txt"] = "".join(" ".join(n) + "\n" for n in lines).encode()
        return Changed(files, ".txt", r"line \d+")

    kind.add("classes from 1", BROKEN, from_one)


def _add_files(kind: Kind) -> None:
    def no_label_file(rng: random.Random, files: Files) -> Changed:
        path = _file(rng, files)
        stem = path.rpartition("/")[2].removesuffix(".txt")
        return Changed({p: d for p, d in files.items() if p != path}, stem, rf"\b{stem}\.")

    def no_picture(rng: random.Random, files: Files) -> Changed:
        stem = rng.choice(scene.IMAGES)[0]
        left = {p: d for p, d in files.items() if p != f"yolo/images/{stem}.png"}
        return Changed(left, stem, rf"\b{stem}\.")

    def renamed(rng: random.Random, files: Files) -> Changed:
        path = _file(rng, files)
        other = rng.choice((path.upper().replace("YOLO/LABELS", "yolo/labels"), path + ".bak"))
        files = {other if p == path else p: d for p, d in files.items()}
        return Changed(files, path.rpartition("/")[2].removesuffix(".txt"))

    kind.add("a label file is missing", BROKEN, no_label_file, rounds=4)
    kind.add("a picture is missing", BROKEN, no_picture, rounds=4)
    kind.add("a label file has another name", EITHER, renamed, rounds=6)


def _add_yaml(kind: Kind) -> None:
    names = "names: ['cat', \"dog\", 'oiseau bleuté']\n"

    def edit(name: str, claim: str, old: str, *new: str, places: str | None = None) -> None:
        def change(rng: random.Random, data: str) -> str:
            return data.replace(old, rng.choice(new))

        rounds = 3 * len(new)
        text.add_edit(kind, name, claim, lambda r, f: YAML, change, rounds=rounds, places=places)

    block = "names:\n- cat\n- dog\n- oiseau bleuté\n"
    numbered = "names:\n  0: cat\n  1: dog\n  2: oiseau bleuté\n"
    mixed = "names:\n  2: oiseau bleuté\n  0: cat\n  1: dog\n"
    edit("names in other ways", SAME, names, block, numbered, mixed, names.replace("'", ""))
    edit(
        "paths in other ways",
        SAME,
        ": images",
        ": ./images",
        ": ../images",
        ": images/",
        ": [images]",
    )
    edit("no count of classes", SAME, "nc: 3\n", "", "nc: '3'\n", "nc:\n")
    edit(
        "keys of other tools",
        SAME,
        "nc: 3\n",
        "nc: 3\nroboflow: {a: [1, 2]}\ndownload: |\n  x: 1\n",
    )
    wrong = ("nc: 2\n", "nc: 80\n", "nc: three\n", "nc: 3.5\n", "nc: [3]\n", "nc: -3\n")
    edit("another count", BROKEN, "nc: 3\n", *wrong, places=r"\bnc\b")
    gaps = ("names: {0: cat, 1: dog, 3: oiseau}\n", "names: {1: cat, 2: dog, 3: oiseau}\n")
    more = ("names: [cat, dog, cat]\n", "names: [cat, dog]\n", "names: [cat, dog, [oiseau]]\n")
    none = ("names: 5\n", "names: {a: cat, b: dog, c: x}\n", "names: [cat, '', dog]\n", "names:\n")
    edit("other names", BROKEN, names, *gaps, *more, *none, places=r"\bnames\b|\bname\b|classes")
    edit("no names", BROKEN, names, "", places="names")
    edit("a key twice", BROKEN, "nc: 3\n", "nc: 3\nnames: [dog, cat, x]\n", "nc: 3\nnc: 4\n")
    edit("a tab for spaces", BROKEN, names, "names:\n\t- cat\n\t- dog\n\t- oiseau bleuté\n")
    for path in ("nothing", "/nothing/images", "labels/x", "5"):
        edit(
            f"images in {path}", BROKEN, "train: images", f"train: {path}", places="train|does not"
        )
    edit(
        "no yaml",
        BROKEN,
        names,
        "names: [cat, dog\n",
        "names: {cat\n",
        "@names: 3\n",
        "names: *a\n",
    )
    edit("code in tags", BROKEN, names, "names: !!python/object/apply:os.getcwd []\n")
    edit("a list", BROKEN, names, f"{names}- 5\n", places=WHOLE_FILE)

    def last_quote(rng: random.Random, data: str) -> str:
        place = rng.choice(
            [i + 1 for i in range(len(data)) if data[i : i + 2] in ("t'", 't"', "é'")]
        )
        return data[:place] + data[place + 1 :]

    text.add_edit(kind, "a quote that is not closed", BROKEN, lambda r, f: YAML, last_quote)

    def words(rng: random.Random, files: Files) -> Changed:
        word = rng.choice(("no", "on", "null", "007", "1e3", "12:30", "~"))
        data = files[YAML].decode().replace(names, f"names: [cat, {word}, oiseau bleuté]\n")
        changed = text.changed(files, YAML, data)
        wanted = read_clean().meaning

        def rename(one: tuple) -> tuple:
            return (word, *one[1:]) if one[0] == "dog" else one

        images = {n: tuple(sorted(map(rename, all_of))) for n, all_of in wanted.images.items()}
        meaning = Meaning(images, ("cat", word, "oiseau bleuté"))
        return Changed(changed.files, changed.file, None, meaning)

    kind.add("names that yaml takes for other values", EITHER, words, rounds=8)


def read_clean() -> Outcome:
    """Return what the clean folder says."""
    from tests.mutations.harness import read_files

    return read_files(Kind("clean", clean, read), clean())
