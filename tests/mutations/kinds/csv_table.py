"""CSV tables: one row for each box."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.mutations import scene, text
from tests.mutations.harness import Files, Kind
from tests.mutations.judge import BROKEN, EITHER, SAME, Changed

FILE = "csv/boxes.csv"
HEAD = ["image", "xmin", "ymin", "xmax", "ymax", "class"]
Rows = list[list[str]]
# Error or report name the line of the file.
LINE = r"lines? \d+|for example \S"


def clean() -> dict[str, bytes]:
    """Return the pictures, and a table beside them."""
    return {**scene.pictures("csv"), FILE: _dump([HEAD, *_rows()])}


def _rows() -> Rows:
    rows = []
    for image, label, x, y, w, h, _ in scene.OBJECTS:
        corners = (x, y, x + w, y + h)
        rows.append([f"{scene.IMAGES[image][0]}.png", *map(str, corners), scene.CLASSES[label]])
    return rows


def _dump(rows: Rows, mark: str = ",") -> bytes:
    return "".join(mark.join(row) + "\n" for row in rows).encode()


def csv_table() -> Kind:
    """Return a table."""
    kind = Kind("csv", clean, lambda folder: scene.convert(folder / FILE))
    text.add_encodings(kind, _file)
    text.add_marks(kind, _file, ",\n", rounds=15)
    for add in (_add_same, _add_layouts, _add_head, _add_values, _add_rows, _add_units):
        add(kind)
    return kind


def _file(rng: random.Random, files: Files) -> str:
    return FILE


def _of(kind: Kind, claim: str, *, rounds: int = 3, places: str | None = None, mark: str = ","):
    """Return a decorator for a change of the rows; the first one is the header."""

    def add(edit: Callable) -> Callable:
        def change(rng: random.Random, files: Files) -> Changed | None:
            rows = [HEAD[:], *_rows()]
            if edit(rng, rows) is False:
                return None
            return text.changed(files, FILE, _dump(rows, mark), places)

        kind.add(edit.__name__.strip("_").replace("_", " "), claim, change, rounds=rounds)
        return edit

    return add


def _row(rng: random.Random, rows: Rows) -> list[str]:
    return rng.choice(rows[1:])


def _add_same(kind: Kind) -> None:
    @_of(kind, SAME, mark=";")
    def semicolons(rng, rows):
        pass

    @_of(kind, SAME, mark="\t")
    def tabs(rng, rows):
        pass

    @_of(kind, SAME, mark=" , ")
    def spaces_around_values(rng, rows):
        pass

    @_of(kind, SAME, mark=";")
    def decimal_commas(rng, rows):
        for row in rows[1:]:
            row[1:5] = [f"{number},0" for number in row[1:5]]

    @_of(kind, SAME, rounds=4)
    def decimal_points(rng, rows):
        ending = rng.choice((".0", ".000", "e0", "."))
        for row in rows[1:]:
            row[1:5] = [number + ending for number in row[1:5]]

    @_of(kind, SAME)
    def everything_in_quotes(rng, rows):
        rows[:] = [[f'"{cell}"' for cell in row] for row in rows]

    @_of(kind, SAME)
    def names_in_quotes(rng, rows):
        rows[1:] = [[*row[:5], f'"{row[5]}"'] for row in rows[1:]]


def _add_layouts(kind: Kind) -> None:
    @_of(kind, SAME, rounds=4)
    def columns_in_another_order(rng, rows):
        order = rng.sample(range(6), 6)
        rows[:] = [[row[i] for i in order] for row in rows]

    @_of(kind, SAME)
    def rows_in_another_order(rng, rows):
        # Images keep their order, by which they are numbered.
        rows[1:] = sorted(rows[1:], key=lambda row: (row[0], rng.random()))

    @_of(kind, SAME, rounds=6)
    def a_row_twice(rng, rows):
        rows.insert(rng.randrange(1, 10), list(_row(rng, rows)))

    @_of(kind, SAME)
    def no_header(rng, rows):
        del rows[0]

    @_of(kind, SAME, rounds=6)
    def other_names_of_columns(rng, rows):
        rows[0] = rng.choice(
            (
                ["filename", "x1", "y1", "x2", "y2", "label"],
                ["Image Path", "X Min", "Y Min", "X Max", "Y Max", "Class Name"],
                ["IMAGE", "XMIN", "YMIN", "XMAX", "YMAX", "CLASS"],
                ["path", "left", "top", "right", "bottom", "category"],
            )
        )

    @_of(kind, SAME)
    def sizes_under_their_names(rng, rows):
        rows[0] = ["image", "x", "y", "w", "h", "class"]
        for row in rows[1:]:
            left, top, right, bottom = map(int, row[1:5])
            row[3:5] = [str(right - left), str(bottom - top)]

    @_of(kind, SAME, rounds=4)
    def more_columns(rng, rows):
        name, value = rng.choice((("pose", "left"), ("iscrowd", "0"), ("split", "train"), ("", "")))
        for row, cell in zip(rows, [name, *[value] * (len(rows) - 1)], strict=True):
            row.append(cell)

    @_of(kind, SAME)
    def sizes_of_the_pictures(rng, rows):
        sizes = {f"{name}.png": [str(w), str(h)] for name, w, h in scene.IMAGES}
        rows[0] += ["width", "height"]
        for row in rows[1:]:
            row += sizes[row[0]]

    @_of(kind, SAME, rounds=4)
    def pictures_of_another_machine(rng, rows):
        head = rng.choice(("/home/me/", "C:\\set\\", "./", "..\\train\\"))
        for row in rows[1:]:
            row[0] = head + row[0]


def _add_head(kind: Kind) -> None:
    names = r"image|xmin|ymin|xmax|ymax|class|column"

    @_of(kind, BROKEN, rounds=6, places=names)
    def a_column_without_name(rng, rows):
        rows[0][rng.randrange(6)] = rng.choice(("", "stuff", "?"))

    @_of(kind, BROKEN, rounds=6, places=names)
    def a_column_named_twice(rng, rows):
        first, second = rng.sample(range(6), 2)
        rows[0][first] = rows[0][second]

    @_of(kind, BROKEN, places=names)
    def a_column_is_missing(rng, rows):
        number = rng.randrange(6)
        for row in rows:
            del row[number]

    @_of(kind, BROKEN, rounds=4, places=rf"{LINE}|column")
    def names_of_pictures_and_classes_exchanged(rng, rows):
        rows[0][0], rows[0][5] = rows[0][5], rows[0][0]

    @_of(kind, BROKEN, rounds=6, places=rf"{LINE}|column")
    def a_corner_and_a_name_exchanged(rng, rows):
        number = rng.randrange(1, 5)
        other = rng.choice((0, 5))
        rows[0][number], rows[0][other] = rows[0][other], rows[0][number]

    @_of(kind, BROKEN, rounds=4, places=rf"{LINE}|column|corner")
    def corners_exchanged_in_the_header(rng, rows):
        # Left and top are as likely as they stand: only right and left, bottom and top tell.
        first, second = rng.choice(((1, 4), (2, 3)))
        rows[0][first], rows[0][second] = rows[0][second], rows[0][first]


def _add_values(kind: Kind) -> None:
    @_of(kind, BROKEN, rounds=20, places=LINE)
    def a_corner_that_is_none(rng, rows):
        others = ("nan", "inf", "", "x", "1e999", "٣", "1 2", "0x10", "--5", "None", "True", "-")
        _row(rng, rows)[rng.randrange(1, 5)] = rng.choice(others)

    @_of(kind, BROKEN, rounds=4, places=LINE)
    def a_class_that_is_none(rng, rows):
        _row(rng, rows)[5] = rng.choice(("", " ", '""'))

    @_of(kind, BROKEN, rounds=6, places=rf"{LINE}|nothing|listed")
    def a_picture_that_is_none(rng, rows):
        _row(rng, rows)[0] = rng.choice(("", "nothing.png", " ", "/"))

    @_of(kind, BROKEN, rounds=6, places=rf"{LINE}|annotation")
    def a_box_outside(rng, rows):
        row = _row(rng, rows)
        row[1], row[3] = rng.choice((("500", "600"), ("-90", "-60"), ("1e9", "2e9")))

    @_of(kind, BROKEN, rounds=6, places=rf"{LINE}|annotation")
    def a_box_without_area(rng, rows):
        row = _row(rng, rows)
        first, second = rng.choice(((1, 3), (2, 4)))
        row[first] = row[second]

    @_of(kind, EITHER, rounds=6)
    def corners_exchanged(rng, rows):
        row = _row(rng, rows)
        row[1], row[3] = row[3], row[1]

    @_of(kind, BROKEN, rounds=6, places=LINE)
    def flags_that_are_none(rng, rows):
        for number, row in enumerate(rows):
            row.append("iscrowd" if number == 0 else "0")
        _row(rng, rows)[6] = rng.choice(("2", "-1", "maybe", "nan"))

    @_of(kind, BROKEN, rounds=4, places=LINE)
    def sizes_of_pictures_that_differ(rng, rows):
        sizes = {f"{name}.png": [str(w), str(h)] for name, w, h in scene.IMAGES}
        rows[0] += ["width", "height"]
        for row in rows[1:]:
            row += sizes[row[0]]
        _row(rng, rows)[6] = "777"

    @_of(kind, BROKEN, rounds=4, places=rf"{LINE}|split")
    def a_split_that_is_none(rng, rows):
        for number, row in enumerate(rows):
            row.append("split" if number == 0 else "train")
        _row(rng, rows)[6] = rng.choice(("", "trian", "?"))


def _add_rows(kind: Kind) -> None:
    @_of(kind, BROKEN, rounds=8, places=LINE)
    def a_value_is_missing(rng, rows):
        del _row(rng, rows)[rng.randrange(1, 6)]

    @_of(kind, BROKEN, rounds=8, places=LINE)
    def a_value_too_many(rng, rows):
        _row(rng, rows).insert(rng.randrange(6), "7")

    @_of(kind, BROKEN, rounds=6, places=LINE)
    def two_rows_in_one(rng, rows):
        number = rng.randrange(1, len(rows) - 1)
        rows[number] += rows.pop(number + 1)

    @_of(kind, BROKEN, rounds=10, places=LINE)
    def a_quote_that_is_not_closed(rng, rows):
        row = rng.choice(rows)
        number = rng.randrange(6)
        row[number] = rng.choice((f'"{row[number]}', f'{row[number]}"', '"'))

    @_of(kind, EITHER, rounds=4)
    def a_second_header(rng, rows):
        rows.insert(rng.randrange(2, 10), HEAD[:])

    @_of(kind, BROKEN, places=LINE)
    def a_very_long_field(rng, rows):
        _row(rng, rows)[rng.randrange(1, 5)] = "1" * 200_000

    @_of(kind, BROKEN, places=LINE)
    def a_comma_in_a_name(rng, rows):
        _row(rng, rows)[5] = "cat, black"

    @_of(kind, EITHER, rounds=4)
    def another_separator(rng, rows):
        row = _row(rng, rows)
        row[:] = [rng.choice((";", "\t", "|")).join(row)]

    def cut(rng: random.Random, data: str) -> str:
        # Only in the last row, and not inside of a number or name: others are lost without a trace.
        last = data.rstrip("\n").rindex("\n") + 1
        ends = [i for i in range(last, len(data)) if data[i] == ","]
        return data[: rng.choice(ends)]

    text.add_edit(kind, "cut off in the last row", BROKEN, _file, cut, rounds=6)


def _add_units(kind: Kind) -> None:
    sizes = {f"{name}.png": (width, height) for name, width, height in scene.IMAGES}

    def all_boxes(name: str, convert) -> None:
        def edit(rng, rows):
            for row in rows[1:]:
                values = convert(*map(int, row[1:5]), *sizes[row[0]])
                row[1:5] = [f"{value:.6g}" for value in values]

        edit.__name__ = name
        _of(kind, BROKEN, places=rf"{LINE}|annotation")(edit)

    all_boxes("fractions", lambda x, y, r, b, w, h: (x / w, y / h, r / w, b / h))
    all_boxes("sizes for corners", lambda x, y, r, b, w, h: (x, y, r - x, b - y))
    all_boxes(
        "thousandths",
        lambda x, y, r, b, w, h: (1000 * x / w, 1000 * y / h, 1000 * r / w, 1000 * b / h),
    )
    all_boxes("twice the size", lambda x, y, r, b, w, h: (2 * x, 2 * y, 2 * r, 2 * b))
    all_boxes("rows before columns", lambda x, y, r, b, w, h: (y, x, b, r))
    all_boxes("left right top bottom", lambda x, y, r, b, w, h: (x, r, y, b))
