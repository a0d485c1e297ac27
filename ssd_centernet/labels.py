"""Label maps: consecutive classes, their names and the ids of a data set.

Inside the library a class is a number in 0..C-1, without background. Data sets number their
categories freely: COCO has 80 categories with ids from 1 to 90. A `LabelMap` is the only place that
knows both.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING

from ssd_centernet.files import read_text, write_atomically
from ssd_centernet.plain_text import counted, plain

if TYPE_CHECKING:
    import numpy as np

# Ids index a dense lookup vector: a larger id is probably a mistake, such as an image id.
MAX_ID = 1_000_000

_COCO_NAMES = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant "
    "stop_sign parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe "
    "backpack umbrella handbag tie suitcase frisbee skis snowboard sports_ball kite "
    "baseball_bat baseball_glove skateboard surfboard tennis_racket bottle wine_glass cup "
    "fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut "
    "cake chair couch potted_plant bed dining_table toilet tv laptop mouse remote keyboard "
    "cell_phone microwave oven toaster sink refrigerator book clock vase scissors teddy_bear "
    "hair_drier toothbrush "
)
_NO_CLASS = ("background", "none of the above")
_COCO_UNUSED_IDS = frozenset((12, 26, 29, 30, 45, 66, 68, 69, 71, 83))


class LabelMap:
    """Map between classes 0..C-1, their names and the category ids of a data set.

    Args:
        names: C distinct, non-empty names; class c is called names[c].
        ids: C distinct category ids in ascending order, 0 or greater; gaps are allowed. None
            numbers the names 1..C, as COCO-style tools expect.
        other_names: category id -> what records may call the class too, such as the knowledge graph
            id /m/01g317; it makes no difference between two label maps.

    Raises:
        ValueError: if the map is empty, a name or id occurs twice, a name is empty, an id is
            negative or not an integer, ids do not ascend, or id 0 is called background.
    """

    def __init__(
        self,
        names: Sequence[str],
        ids: Sequence[int] | None = None,
        *,
        other_names: Mapping[int, str] | None = None,
    ) -> None:
        if isinstance(names, str):
            raise ValueError(f"names must be a sequence of names, got the single string {names!r}.")
        if ids is None:
            ids = range(1, len(names) + 1)
        self.names: tuple[str, ...] = tuple(names)
        self.ids: tuple[int, ...] = tuple(_checked_id(i) for i in ids)
        _check(self.names, self.ids)
        self._class_of_name = {name: c for c, name in enumerate(self.names)}
        self._class_of_id = {i: c for c, i in enumerate(self.ids)}
        self.other_names: dict[int, str] = dict(other_names or {})
        folded = [*self.other_names.items(), *zip(self.ids[::-1], self.names[::-1], strict=True)]
        self._id_of_folded = {_folded(name): i for i, name in folded}

    @classmethod
    def coco(cls) -> LabelMap:
        """Return the 80 categories of COCO with their ids 1..90."""
        names = [name.replace("_", " ") for name in _COCO_NAMES.split()]
        return cls(names, [i for i in range(1, 91) if i not in _COCO_UNUSED_IDS])

    @classmethod
    def from_categories(cls, categories: Iterable[Mapping]) -> LabelMap:
        """Make a label map from the `categories` list of a COCO json.

        Args:
            categories: dicts with `id` and `name`, in any order; other keys are ignored.

        Returns:
            The label map with classes in ascending order of id.

        Raises:
            ValueError: if an entry lacks id or name, or see the constructor.
        """
        pairs = []
        for entry in categories:
            if not isinstance(entry, Mapping) or "id" not in entry or "name" not in entry:
                raise ValueError(
                    f"Each category needs 'id' and 'name', got {entry!r}. "
                    "Add the missing key to 'categories' in the annotation file."
                )
            pairs.append((_checked_id(entry["id"]), entry["name"]))
        pairs.sort(key=lambda pair: pair[0])
        return cls([name for _, name in pairs], [i for i, _ in pairs])

    @classmethod
    def from_pbtxt(cls, path: str | os.PathLike) -> LabelMap:
        """Read a label map in the text format of the Object Detection API.

        `display_name` is preferred to `name`, which may be a knowledge graph id such as /m/01g317
        and is kept as the class's other name.

        Args:
            path: the file; `item { id: 1 name: 'person' }` for each category.

        Returns:
            The label map with classes in ascending order of id.

        Raises:
            ValueError: if the text cannot be parsed, an item lacks an id or a name, or see the
                constructor. The message names the file and the line.
        """
        text = read_text(path)
        try:
            items = sorted(_parse_items(text), key=lambda item: item["id"])
            other_names = {item["id"]: item["other"] for item in items if item["other"]}
            names, ids = ([item[key] for item in items] for key in ("name", "id"))
            return cls(names, ids, other_names=other_names)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"Label map {os.fspath(path)}: {error}") from error

    def to_categories(self) -> list[dict]:
        """Return the `categories` list of a COCO json: dicts with `id` and `name`."""
        return [{"id": i, "name": n} for i, n in zip(self.ids, self.names, strict=True)]

    def to_pbtxt(self, path: str | os.PathLike) -> None:
        """Write the label map in the text format of the Object Detection API, atomically.

        Args:
            path: the file to make or replace.
        """
        items = []
        for i, name in zip(self.ids, self.names, strict=True):
            lines = [f"id: {i}", f"name: {_quote(self.other_names.get(i, name))}"]
            lines += [f"display_name: {_quote(name)}"] if i in self.other_names else []
            items.append("item {\n" + "".join(f"  {line}\n" for line in lines) + "}\n")
        write_atomically(path, "".join(items))

    @property
    def num_classes(self) -> int:
        """Return the number of classes C, background not counted."""
        return len(self.names)

    def to_class(self, category_id: int) -> int:
        """Return the class, 0..C-1, of a category id of the data set.

        Args:
            category_id: an id of the data set.

        Raises:
            KeyError: if the map has no such id.
        """
        if category_id not in self._class_of_id:
            raise KeyError(
                f"Category id {category_id} is not in the label map ({self.describe()}). "
                "Use the label map that was written with the data."
            )
        return self._class_of_id[category_id]

    def class_of(self, name: str) -> int:
        """Return the class, 0..C-1, of a name.

        Args:
            name: an exact name of the map.

        Raises:
            KeyError: if no class has this name; the message lists similar names.
        """
        if name not in self._class_of_name:
            raise KeyError(f"No class is called {name!r}. {self._near_matches(name)}")
        return self._class_of_name[name]

    def is_called(self, category_id: int, name: str) -> bool:
        """Tell whether records mean a class by a name such as 'Traffic_Light'; case may differ."""
        names = (self.names[self.to_class(category_id)], self.other_names.get(category_id))
        return _folded(name) in [_folded(own) for own in names if own is not None]

    def id_of(self, name: str) -> int | None:
        """Return the category id of the class that records mean by a name, or None.

        Args:
            name: in records; its spelling and case may differ.
        """
        return self._id_of_folded.get(_folded(name))

    def lookup(self) -> np.ndarray:
        """Return the vector that maps a category id to its class.

        Returns:
            int32 [max id + 1], values 0..C-1, or -1 for ids that are not in the map.
        """
        import numpy as np

        table = np.full(self.ids[-1] + 1, -1, np.int32)
        table[list(self.ids)] = np.arange(self.num_classes, dtype=np.int32)
        return table

    def check_num_classes(self, num_classes: int, *, source: str = "num_classes") -> None:
        """Raise an error unless a model has as many classes as the label map.

        Args:
            num_classes: number of classes of a model or configuration.
            source: origin of that number, for the message.

        Raises:
            ValueError: if the numbers differ.
        """
        if num_classes == self.num_classes:
            return
        cause = ""
        if num_classes == self.num_classes + 1:
            cause = " Background must not be counted."
        elif num_classes in (self.ids[-1], self.ids[-1] + 1):
            cause = " It looks like the highest category id; ids have gaps, classes do not."
        raise ValueError(
            f"{source} is {num_classes}, but the label map has "
            f"{counted(self.num_classes, 'class', 'classes')} ({self.describe()}).{cause} "
            f"Set {source} = {self.num_classes}, or use the label map that the model was "
            "trained with."
        )

    def describe(self) -> str:
        """Return one short phrase for messages: the count, the range of ids, the first names."""
        names = ", ".join(self.names[:3]) + (", ..." if self.num_classes > 3 else "")
        count = counted(self.num_classes, "class", "classes")
        return f"{count}, ids {self.ids[0]}..{self.ids[-1]}: {names}"

    def _near_matches(self, name: str) -> str:
        folded = {n.casefold(): n for n in self.names}
        near = difflib.get_close_matches(str(name).casefold(), folded, n=3, cutoff=0.6)
        if near:
            return f"Did you mean {' or '.join(repr(folded[n]) for n in near)}?"
        return f"The label map has {self.describe()}."

    def __len__(self) -> int:
        return self.num_classes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabelMap):
            return NotImplemented
        return self.names == other.names and self.ids == other.ids

    def __hash__(self) -> int:
        return hash((self.names, self.ids))

    def __repr__(self) -> str:
        return f"LabelMap({self.describe()})"


def _folded(name: str) -> str:
    """Return a name without case, and with one space for all that parts its words."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def _checked_id(value: object) -> int:
    """Return an id as int; JSON from other tools may hold numpy numbers or 1.0."""
    is_whole = isinstance(value, float) and value.is_integer()
    if isinstance(value, bool) or not (isinstance(value, Integral) or is_whole):
        raise ValueError(f"A category id must be an integer, got {value!r}.")
    if not 0 <= value <= MAX_ID:
        raise ValueError(f"A category id must be in 0..{MAX_ID}, got {value}.")
    return int(value)


def _check(names: tuple[str, ...], ids: tuple[int, ...]) -> None:
    if not names:
        raise ValueError("A label map needs at least one class, got none.")
    if len(names) != len(ids):
        raise ValueError(f"Got {len(names)} names but {len(ids)} ids; each class needs both.")
    for name, category_id in zip(names, ids, strict=True):
        if not isinstance(name, str) or not name.strip() or plain(name, one_line=True) != name:
            raise ValueError(f"Category {category_id} needs a name that prints, got {name!r}.")
    _check_distinct("name", names, ids)
    _check_distinct("id", ids, names)
    if list(ids) != sorted(ids):
        raise ValueError(f"ids must ascend, got {ids}. Sort names and ids together by id.")
    if ids[0] == 0 and _folded(names[0]) in _NO_CLASS:
        raise ValueError(
            f"id 0 is called {names[0]!r}, but background is not a class of a label map. "
            "Remove the entry; the other ids may stay."
        )


def _check_distinct(kind: str, values: tuple, partners: tuple, lines: tuple = ()) -> None:
    seen: dict = {}
    for index, (value, partner) in enumerate(zip(values, partners, strict=True)):
        told = f"{partner!r} in line {lines[index]}" if lines else repr(partner)
        if value in seen:
            raise ValueError(
                f"The {kind} {value!r} occurs twice (for {seen[value]} and {told}). "
                f"Each {kind} must belong to one category; rename or remove one of them."
            )
        seen[value] = told


# --- the text format -------------------------------------------------------------------------

# The fields read from the Object Detection API's StringIntLabelMap; others are ignored.
_SCHEMA = """
name: "ssd_centernet/label_map.proto"
package: "ssd_centernet"
message_type {
  name: "Item"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "id" number: 2 type: TYPE_INT64 label: LABEL_OPTIONAL }
  field { name: "display_name" number: 3 type: TYPE_STRING label: LABEL_OPTIONAL }
}
message_type {
  name: "LabelMap"
  field {
    name: "item" number: 1 type: TYPE_MESSAGE label: LABEL_REPEATED
    type_name: ".ssd_centernet.Item"
  }
}
"""


def _quote(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


@functools.cache
def _message_classes() -> tuple[type, type]:
    """Return the classes of a label map's message and of its items, made of `_SCHEMA`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    pool = descriptor_pool.Default()
    pool.Add(text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto()))
    descriptors = [pool.FindMessageTypeByName(f"ssd_centernet.{n}") for n in ("LabelMap", "Item")]
    if hasattr(message_factory, "GetMessageClass"):
        make = message_factory.GetMessageClass
    else:  # protobuf before 4.22.
        make = message_factory.MessageFactory(pool).GetPrototype
    # protobuf 4.22 and 4.23 crash where nothing keeps the class of the items.
    return tuple(make(descriptor) for descriptor in descriptors)


def _parse_items(text: str) -> list[dict]:
    """Return one dict(id, name, other) for each item of the text; errors name the line."""
    from google.protobuf import text_format

    try:
        message = text_format.Parse(text, _message_classes()[0](), allow_unknown_field=True)
        lines = _lines_of_items(text_format.Tokenizer(text.split("\n")))
    except text_format.ParseError as error:
        line = f"line {error.GetLine()}: " if error.GetLine() else ""
        reason = re.sub(r"^\d+:\d+ : ", "", str(error)).rstrip(".")
        raise ValueError(
            f"{line}{reason}. Expected items such as item {{ id: 1 name: 'person' }}: is a bracket "
            "or a quote missing?"
        ) from error
    items: list[dict] = []
    for number, (item, line) in enumerate(zip(message.item, lines, strict=True), 1):
        name = item.display_name or item.name
        if not item.HasField("id") or not name.strip():
            missing = "a name" if item.HasField("id") else "an id"
            told = text_format.MessageToString(item, as_one_line=True, as_utf8=True) or "neither"
            raise ValueError(f"line {line}: item {number} lacks {missing}; it has {told.strip()}.")
        try:
            _checked_id(item.id)
        except ValueError as error:
            raise ValueError(f"line {line}: {error}") from error
        other = item.name if item.name not in ("", name) else None
        items.append({"id": item.id, "name": name, "other": other, "line": line})
    columns = {key: tuple(item[key] for item in items) for key in ("id", "name", "line")}
    for key, other in (("id", "name"), ("name", "id")):
        _check_distinct(key, columns[key], columns[other], columns["line"])
    return items


def _lines_of_items(tokens) -> list[int]:
    """Return the line of each item.

    Anything but items is an error: unknown fields are ignored only inside items.
    """
    depth, lines, listed = 0, [], False
    while not tokens.AtEnd():
        token = tokens.token
        if depth == 0 and re.match(r"\w", token):
            if token != "item":
                raise tokens.ParseError(f"got {token!r}")
            listed = False
        if token in "{<" and depth == int(listed):
            lines.append(tokens.ParseError("").GetLine())
        listed |= token == "[" and depth == 0
        depth += (token in "{<[") - (token in "}>]")
        tokens.NextToken()
    return lines
