"""Which classes the categories of a COCO json are: placeholders, equal names, another label map."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ssd_centernet.data.readers.coco_entries import CategoryEntry, Ids
from ssd_centernet.data.validate import LISTED, Report
from ssd_centernet.labels import MAX_ID, LabelMap
from ssd_centernet.plain_text import counted


class Classes(NamedTuple):
    """The label map, and for each listed category its id in it (None if it is left out)."""

    label_map: LabelMap
    ids: list[int | None]


def choose_classes(
    categories: Sequence[CategoryEntry],
    used: Counter,
    label_map: LabelMap | None,
    report: Report,
    origin: str,
    *,
    unknown: Mapping[str, list[str]],
    drop: bool,
) -> Classes:
    """Decide which class each category is.

    Without a label map, the file's own ids are kept where they are whole numbers in 0..MAX_ID. A
    placeholder without objects (Roboflow's category 0, a background) is no class. Classes of one
    name are told apart by their supercategories. With a label map, categories are found in it by
    their names, whatever their numbers.

    Args:
        categories: the listed categories.
        used: position of a category -> number of its objects.
        label_map: the classes to take, None for those of the file.
        report: counts what was left out, renamed or found by name.
        origin: name of the file in messages.
        unknown: ids of annotations that are not listed -> places.
        drop: whether objects of unknown categories are left out instead of refused.

    Returns:
        The label map and the ids of the categories in it.

    Raises:
        ValueError: no label map can be made; or there are unknown categories and `drop` is off.
    """
    left_out = _placeholders(categories, used, report)
    names = _tell_apart(categories, used, left_out, report, origin, by_id=label_map is not None)
    if label_map is None:
        classes = _own_label_map(categories, names, left_out, report, origin)
    else:
        classes = _by_name(categories, names, left_out, label_map, report)
    lost = {
        f"{names[i]!r} (id {categories[i].original_id})": counted(count, "box", "boxes")
        for i, count in used.items()
        if classes.ids[i] is None
    }
    lost |= {i: f"{counted(len(p), 'box', 'boxes')}, first {p[0]}" for i, p in unknown.items()}
    if lost and not drop:
        raise ValueError(_unknown_message(lost, unknown, classes.label_map, names, origin))
    for value, places in unknown.items():
        for place in places:
            report.add("dropped boxes", "unknown category", f"{place}: category_id {value}")
    return classes


def _placeholders(categories: Sequence[CategoryEntry], used: Counter, report: Report) -> set[int]:
    """Return the positions of categories that no object has and that only head others."""
    left_out = set()
    for index, category in enumerate(categories):
        if used[index] or category.supercategory or len(categories) == 1:
            continue
        others = [c for i, c in enumerate(categories) if i != index]
        is_root = Ids([category.original_id]).numbers[0] == 0 and all(
            other.supercategory for other in others
        )
        names_others = any(other.supercategory == category.name for other in others)
        is_background = category.name.strip("_ ").casefold() == "background"
        if is_root or names_others or (is_background and Ids([category.original_id]).find(0) == 0):
            left_out.add(index)
            reason = "category without objects that only heads others: no class"
            report.add("notes", reason, f"{category.name!r} (id {category.original_id})")
    return left_out if len(left_out) < len(categories) else set()


def _tell_apart(
    categories: Sequence[CategoryEntry],
    used: Counter,
    left_out: set[int],
    report: Report,
    origin: str,
    *,
    by_id: bool,
) -> list[str]:
    """Return the class names; those that occur twice get their supercategory in front."""
    names = [category.name for category in categories]
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        if index not in left_out:
            groups.setdefault(name, []).append(index)
    for name, group in groups.items():
        if len(group) > 1 and any(used[i] for i in group):
            for index in [i for i in group if not used[i]]:
                left_out.add(index)
                group.remove(index)
                reason = "category without objects, whose name another has: no class"
                report.add("notes", reason, f"{name!r} (id {categories[index].original_id})")
        if len(group) < 2:
            continue
        for index in group:
            above = categories[index].supercategory
            names[index] = f"{above}/{name}" if above else name
        if len({names[i] for i in group}) < len(group) and not by_id:
            ids = " and ".join(str(categories[i].original_id) for i in group)
            raise ValueError(
                f"{origin}: the name {name!r} occurs twice in 'categories' (ids {ids}) under the "
                "same supercategory, so the classes cannot be told apart. Give each its own name, "
                "or a label map (--label_map) with these ids and a name for each."
            )
        for index in group:
            reason = "classes of one name: told apart by supercategory"
            report.add(
                "notes", reason, f"{name!r} (id {categories[index].original_id}): {names[index]!r}"
            )
    return names


def _own_label_map(
    categories: Sequence[CategoryEntry],
    names: Sequence[str],
    left_out: set[int],
    report: Report,
    origin: str,
) -> Classes:
    kept = [index for index in range(len(categories)) if index not in left_out]
    numbers = Ids(category.original_id for category in categories).numbers
    own = [numbers[index] for index in kept]
    ids: list[int | None] = [None] * len(categories)
    fits = None not in own and len(set(own)) == len(own)
    fits = fits and all(0 <= number <= MAX_ID for number in own)
    for place, index in enumerate(kept, 1):
        ids[index] = numbers[index] if fits else place
        if not fits:
            reason = f"category ids are not whole numbers in 0..{MAX_ID}: numbered from 1"
            report.add("notes", reason, f"{names[index]!r} (id {categories[index].original_id})")
    pairs = sorted((ids[index], names[index]) for index in kept)
    try:
        label_map = LabelMap([name for _, name in pairs], [number for number, _ in pairs])
    except ValueError as error:
        raise ValueError(
            f"{origin}: 'categories' is not usable: {error} Correct the file, or give the classes "
            "with a label map (--label_map)."
        ) from error
    return Classes(label_map, ids)


def _by_name(
    categories: Sequence[CategoryEntry],
    names: Sequence[str],
    left_out: set[int],
    label_map: LabelMap,
    report: Report,
) -> Classes:
    numbers = Ids(category.original_id for category in categories).numbers
    count = Counter(name for index, name in enumerate(names) if index not in left_out)
    ids: list[int | None] = []
    for index, name in enumerate(names):
        above = categories[index].supercategory
        if name not in label_map.names and above and f"{above}/{name}" in label_map.names:
            name = f"{above}/{name}"  # Told apart in another split, which has its namesake.
        number, told = numbers[index], f"{name!r} (id {categories[index].original_id})"
        twice = name != categories[index].name or count[name] > 1
        if index in left_out:
            ids.append(None)
        elif name in label_map.names and count[name] < 2:
            ids.append(label_map.ids[label_map.class_of(name)])
            if ids[-1] != number:
                reason = "category has another id in the label map: found by its name"
                report.add("notes", reason, f"{told}: {ids[-1]}")
        elif twice and _is_named_like(label_map, number, categories[index].name):
            ids.append(number)
            reason = "class whose name occurs twice: found in the label map by its id"
            report.add("notes", reason, f"{told}: {label_map.names[label_map.to_class(number)]!r}")
        else:
            ids.append(None)
    return Classes(label_map, ids)


def _is_named_like(label_map: LabelMap, number: int | None, name: str) -> bool:
    """Tell whether a class of the label map has this id, and the name as a part of its own."""
    if number not in label_map.ids:
        return False
    return name.casefold() in label_map.names[label_map.to_class(number)].casefold()


def _unknown_message(
    lost: Mapping[str, str],
    unknown: Mapping[str, list[str]],
    label_map: LabelMap,
    names: Sequence[str],
    origin: str,
) -> str:
    folded = {name.casefold(): name for name in label_map.names if name not in names}
    parts = []
    for label, count in list(lost.items())[:LISTED]:
        name = label.rsplit(" (id ", 1)[0].strip("'\"").casefold()
        near = [] if label in unknown else difflib.get_close_matches(name, folded, n=2, cutoff=0.6)
        hint = f"; did you mean {' or '.join(repr(folded[n]) for n in near)}?" if near else ""
        place = "id " if label in unknown else ""
        parts.append(f"{place}{label} ({count}{hint})")
    where = []
    if unknown:
        where.append("category ids that 'categories' does not list")
    if len(unknown) < len(lost):
        where.append("classes that the label map, given or of the folder's other splits, lacks")
    more = f", ... ({len(lost)} in all)" if len(lost) > LISTED else ""
    return (
        f"{origin}: annotations have {' and '.join(where)} ({label_map.describe()}): "
        f"{', '.join(parts)}{more}. Categories are found by their names; their "
        "numbers need not agree. Correct the names or ids, add the missing classes to "
        "'categories' or to a label map (or convert the split that has all of them first), or set "
        "drop_unknown_categories to leave these boxes out."
    )
