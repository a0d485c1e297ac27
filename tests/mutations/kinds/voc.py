"""Pascal VOC: one XML file for each picture."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from tests.mutations import scene, text
from tests.mutations.harness import Files, Kind
from tests.mutations.judge import BROKEN, EITHER, SAME, Changed

Edit = Callable[[random.Random, str], "str | None"]


def clean() -> dict[str, bytes]:
    """Return the pictures, and an XML file for each."""
    files = scene.pictures("voc/JPEGImages")
    for number, (name, width, height) in enumerate(scene.IMAGES):
        objects = "".join(_object(*one[1:]) for one in scene.OBJECTS if one[0] == number)
        files[f"voc/Annotations/{name}.xml"] = (
            f"<annotation>\n\t<folder>set</folder>\n\t<filename>{name}.png</filename>\n\t<size>\n"
            f"\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n"
            f"\t</size>\n\t<segmented>0</segmented>\n{objects}</annotation>\n"
        ).encode()
    return files


def _object(label: int, x: int, y: int, w: int, h: int, crowd: bool) -> str:
    # The leftmost pixel has the number 1.
    corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + w, "ymax": y + h}
    box = "".join(f"\t\t\t<{key}>{value}</{key}>\n" for key, value in corners.items())
    return (
        f"\t<object>\n\t\t<name>{scene.CLASSES[label]}</name>\n\t\t<pose>Left</pose>\n"
        f"\t\t<truncated>0</truncated>\n\t\t<difficult>{int(crowd)}</difficult>\n"
        f"\t\t<bndbox>\n{box}\t\t</bndbox>\n\t</object>\n"
    )


def voc() -> Kind:
    """Return a folder of XML files."""
    kind = Kind("voc", clean, lambda folder: scene.convert(folder / "voc"))
    text.add_encodings(kind, _file, place="line [0-9]")
    text.add_marks(kind, _file, "<>/", rounds=12)
    _add_lines(kind)
    for add in (_add_same, _add_values, _add_structure, _add_units):
        add(kind)
    return kind


def _file(rng: random.Random, files: Files) -> str:
    return f"voc/Annotations/{rng.choice(scene.IMAGES)[0]}.xml"


def _of(kind: Kind, claim: str, *, rounds: int = 3, places: str | None = None):
    """Return a decorator for a change of the text of one XML file."""

    def add(edit: Edit) -> Edit:
        name = edit.__name__.strip("_").replace("_", " ")

        def change(rng: random.Random, files: Files) -> Changed | None:
            path = _file(rng, files)
            data = edit(rng, files[path].decode())
            if data is None:
                return None
            stem = path.rpartition("/")[2].removesuffix(".xml")
            found = text.changed(files, path, data, places)
            # What cannot be used is named by its picture.
            return Changed(found.files, (f"{stem}.xml", f"{stem}.png"), places)

        kind.add(name, claim, change, rounds=rounds)
        return edit

    return add


def _add_lines(kind: Kind) -> None:
    def is_needed(line: str) -> bool:
        # Without its flag an object is no crowd region.
        return "difficult" not in line

    @_of(kind, BROKEN, rounds=8)
    def cut_off(rng, data):
        return data[: rng.randrange(1, data.rindex("</annotation>") + 12)]

    @_of(kind, EITHER, rounds=20)
    def drop_a_line(rng, data):
        lines = data.splitlines(keepends=True)
        number = rng.randrange(len(lines))
        return "".join(lines[:number] + lines[number + 1 :]) if is_needed(lines[number]) else None

    @_of(kind, EITHER, rounds=12)
    def double_a_line(rng, data):
        lines = data.splitlines(keepends=True)
        number = rng.randrange(len(lines))
        return "".join(lines[: number + 1] + lines[number:])

    @_of(kind, EITHER, rounds=12)
    def exchange_two_lines(rng, data):
        lines = data.splitlines(keepends=True)
        number = rng.randrange(len(lines) - 1)
        lines[number], lines[number + 1] = lines[number + 1], lines[number]
        return "".join(lines) if is_needed(lines[number]) else None


def _add_same(kind: Kind) -> None:
    @_of(kind, SAME)
    def declared_as_latin_1(rng, data):
        return ('<?xml version="1.0" encoding="ISO-8859-1"?>\n' + data).encode("latin-1")

    @_of(kind, SAME)
    def declared_as_utf_16(rng, data):
        return ('<?xml version="1.0" encoding="UTF-16"?>\n' + data).encode("utf-16")

    @_of(kind, SAME)
    def a_namespace(rng, data):
        return data.replace("<annotation>", '<annotation xmlns="http://example.org/voc">')

    @_of(kind, SAME)
    def a_prefix(rng, data):
        inner = re.sub(r"<(/?)(\w+)", r"<\1v:\2", data)
        return inner.replace("<v:annotation>", '<v:annotation xmlns:v="urn:voc">', 1)

    @_of(kind, SAME, rounds=4)
    def comments_and_sections(rng, data):
        name = rng.choice(("cat", "dog"))
        data = data.replace(f"<name>{name}<", f"<name><![CDATA[{name}]]><")
        return data.replace("<size>", "<!-- <object><name>cat</name></object> --><size>")

    @_of(kind, SAME)
    def on_one_line(rng, data):
        return re.sub(r"\n\t*", "", data)

    @_of(kind, SAME)
    def spaces_around_values(rng, data):
        return re.sub(r">([^<>\s][^<>]*)<", r">\n  \1 \t<", data)

    @_of(kind, SAME, rounds=4)
    def numbers_as_decimals(rng, data):
        ending = rng.choice((".0", ".000", ",0", "e0"))
        return re.sub(r"<(xmin|ymin|xmax|ymax)>(\d+)<", rf"<\1>\g<2>{ending}<", data)

    @_of(kind, SAME, rounds=4)
    def an_object_twice(rng, data):
        one = rng.choice(re.findall(r"\t<object>.*?</object>\n", data, re.S))
        return data.replace("</annotation>", f"{one}</annotation>")

    @_of(kind, SAME)
    def parts_of_an_object(rng, data):
        part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax>"
        return data.replace("</object>", f"{part}<ymax>9</ymax></bndbox></part></object>", 1)

    @_of(kind, EITHER, rounds=4)
    def corners_exchanged(rng, data):
        return (
            _exchange(data, "xmin", "xmax")
            if rng.random() < 0.5
            else _exchange(data, "ymin", "ymax")
        )

    @_of(kind, SAME, rounds=4)
    def flags_in_other_ways(rng, data):
        yes, no = rng.choice((("true", "false"), ("True", "False"), ("1.0", "0.0"), (" 1 ", "")))
        data = data.replace("<difficult>1<", f"<difficult>{yes}<")
        return data.replace("<difficult>0<", f"<difficult>{no}<")

    @_of(kind, SAME, rounds=4)
    def another_file_name(rng, data):
        other = rng.choice(("", "old_name.jpg", "C:\\data\\nothing.png", "../x/y.png"))
        return re.sub(r"<filename>.*<", lambda _: f"<filename>{other}<", data)

    @_of(kind, EITHER)
    def tags_in_capitals(rng, data):
        return re.sub(r"<(/?)(\w+)", lambda m: f"<{m[1]}{m[2].upper()}", data)

    @_of(kind, EITHER, rounds=4)
    def one_tag_in_capitals(rng, data):
        tag = rng.choice(("object", "bndbox", "name", "xmin", "annotation"))
        return re.sub(rf"<(/?){tag}>", rf"<\1{tag.capitalize()}>", data)

    @_of(kind, EITHER)
    def another_root(rng, data):
        root = rng.choice(("annotations", "doc", "Annotation"))
        return data.replace("annotation>", f"{root}>")


def _exchange(data: str, one: str, other: str) -> str:
    data = re.sub(rf"<(/?){one}>", r"<\1HERE>", data)
    data = re.sub(rf"<(/?){other}>", rf"<\1{one}>", data)
    return data.replace("HERE>", f"{other}>")


def _replace_one(rng: random.Random, data: str, pattern: str, new: str) -> str | None:
    """Replace the text in the brackets of a pattern, in one of the places where it stands."""
    found = list(re.finditer(pattern, data, re.S))
    if not found:
        return None
    start, end = rng.choice(found).span(1)
    return data[:start] + new + data[end:]


def _add_values(kind: Kind) -> None:
    place = r"object \d+ of (one|two|three|four)\.xml"

    @_of(kind, BROKEN, rounds=20, places=place)
    def a_corner_that_is_none(rng, data):
        other = rng.choice(("nan", "inf", "", "x", "1e999", "٣", "1 2", "0x10", "--5", "None"))
        return _replace_one(rng, data, r"<[xy]m(?:in|ax)>(\d+)<", other)

    @_of(kind, BROKEN, rounds=6, places=place)
    def a_name_that_is_none(rng, data):
        return _replace_one(rng, data, r"<name>([^<]+)<", rng.choice(("", " ", "\n\t")))

    @_of(kind, BROKEN, rounds=8, places=place)
    def a_flag_that_is_none(rng, data):
        other = rng.choice(("2", "-1", "maybe", "nan", "0.5"))
        return _replace_one(rng, data, r"<difficult>(\d)<", other)

    @_of(kind, BROKEN, rounds=6, places=place)
    def a_box_outside(rng, data):
        number = rng.choice(("5000", "1e9"))
        data = _replace_one(rng, data, r"<xmin>(\d+)<", number)
        return re.sub(
            rf"(<xmin>{number}<.*?<xmax>)\d+<", rf"\g<1>{number}0<", data, count=1, flags=re.S
        )

    @_of(kind, EITHER, rounds=4)
    def sizes_exchanged(rng, data):
        return _exchange(data, "width", "height")

    @_of(kind, EITHER, rounds=6)
    def a_size_that_is_none(rng, data):
        other = rng.choice(("0", "", "nan", "-5", "x", "1e999"))
        return _replace_one(rng, data, r"<(?:width|height)>(\d+)<", other)


def _add_structure(kind: Kind) -> None:
    @_of(kind, BROKEN, rounds=8)
    def a_box_twice(rng, data):
        box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        return _replace_one(rng, data, r"</bndbox>()", box)

    @_of(kind, BROKEN, rounds=8)
    def a_value_twice(rng, data):
        tag, value = rng.choice((("xmin", "2"), ("ymax", "9"), ("name", "cow"), ("xmax", "")))
        return _replace_one(rng, data, rf"</{tag}>()", f"<{tag}>{value}</{tag}>")

    @_of(kind, BROKEN, rounds=6)
    def no_box(rng, data):
        return _replace_one(rng, data, r"(<bndbox>.*?</bndbox>)", "")

    @_of(kind, BROKEN, rounds=4)
    def another_name_for_objects(rng, data):
        other = rng.choice(("item", "obj", "box", "annotation"))
        return data.replace("object>", f"{other}>")

    @_of(kind, EITHER, rounds=4)
    def an_object_in_an_object(rng, data):
        return data.replace("\t</object>\n\t<object>", "\t<object>", 1).replace(
            "</object>\n</annotation>", "</object></object>\n</annotation>"
        )

    @_of(kind, BROKEN)
    def entities_of_entities(rng, data):
        body = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 9))
        return f'<!DOCTYPE a [<!ENTITY e0 "cat">{body}]>' + data.replace(">cat<", ">&e8;<")

    @_of(kind, BROKEN)
    def a_file_as_an_entity(rng, data):
        head = '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
        return head + re.sub(r"<name>\w+<", "<name>&e;<", data, count=1)

    def second_file(rng: random.Random, files: Files) -> Changed:
        path = _file(rng, files)
        copy = path.replace(".xml", rng.choice((" copy.xml", "_2.xml")))
        return Changed({**files, copy: files[path]}, copy.rpartition("/")[2], r"copy|_2")

    def no_picture(rng: random.Random, files: Files) -> Changed:
        name = rng.choice(scene.IMAGES)[0]
        left = {path: data for path, data in files.items() if not path.endswith(f"/{name}.png")}
        return Changed(left, f"{name}.png", rf"\b{name}\b")

    def no_file(rng: random.Random, files: Files) -> Changed:
        name = rng.choice(scene.IMAGES)[0]
        left = {path: data for path, data in files.items() if not path.endswith(f"/{name}.xml")}
        return Changed(left, f"{name}.png", rf"\b{name}\b")

    kind.add("a copy of a file", EITHER, second_file, rounds=4)
    kind.add("a picture is missing", BROKEN, no_picture, rounds=4)
    kind.add("a file is missing", BROKEN, no_file, rounds=4)


def _add_units(kind: Kind) -> None:
    sizes = {name: (width, height) for name, width, height in scene.IMAGES}
    pattern = re.compile(
        r"<xmin>(\d+)</xmin>(\s*)<ymin>(\d+)</ymin>\s*<xmax>(\d+)</xmax>\s*<ymax>(\d+)</ymax>"
    )

    def all_boxes(name: str, convert) -> None:
        def change(rng: random.Random, files: Files) -> Changed:
            files = dict(files)
            for stem, size in sizes.items():
                path = f"voc/Annotations/{stem}.xml"

                def new(match: re.Match, size=size) -> str:
                    left, top, right, bottom = (int(match[i]) for i in (1, 3, 4, 5))
                    values = convert(left - 1, top - 1, right, bottom, *size)
                    keys = ("xmin", "ymin", "xmax", "ymax")
                    return match[2].join(
                        f"<{k}>{v:.9g}</{k}>" for k, v in zip(keys, values, strict=True)
                    )

                files[path] = pattern.sub(new, files[path].decode()).encode()
            return Changed(files, "voc", r"\b(one|two|three|four)\.(xml|png)\b")

        kind.add(name, BROKEN, change)

    all_boxes("fractions", lambda x, y, r, b, w, h: (x / w, y / h, r / w, b / h))
    all_boxes("sizes for corners", lambda x, y, r, b, w, h: (x, y, r - x, b - y))
    all_boxes(
        "thousandths",
        lambda x, y, r, b, w, h: (1000 * x / w, 1000 * y / h, 1000 * r / w, 1000 * b / h),
    )
    all_boxes("twice the size", lambda x, y, r, b, w, h: (2 * x, 2 * y, 2 * r, 2 * b))
    all_boxes("rows before columns", lambda x, y, r, b, w, h: (y, x, b, r))
    all_boxes("left right top bottom", lambda x, y, r, b, w, h: (x, r, y, b))
