"""Whether the labels and texts of records are those of a label map; COCO's own without one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ssd_centernet.data.scan import Summary
from ssd_centernet.data.wire import place
from ssd_centernet.labels import LabelMap

_LABEL, _TEXT = "image/object/class/label", "image/object/class/text"
_LISTED = 8
# The ids of COCO's classes have gaps, and end at 90; as many classes without gaps end here.
_WITHOUT_GAPS = 80


def check_classes(summaries: Iterable[Summary], label_map: LabelMap) -> None:
    """Refuse records whose classes are not those of a label map.

    Texts may differ from the map's names in case and in what stands between words. A text that is
    no name of the map and stands beside several labels is a filler of whoever wrote the records.

    Args:
        summaries: of the record files.
        label_map: of the data.

    Raises:
        ValueError: a label or text is not in the map, or they name two classes; names the record.
    """
    summaries = list(summaries)
    fillers = _fillers(summaries, label_map)
    for summary in summaries:
        for (label, text), number in sorted(summary.classes.items(), key=lambda item: item[1]):
            filler = label is not None and text in fillers
            problem = _problem(label, None if filler else text, label_map)
            if problem:
                raise ValueError(f"{place(summary.path, number)}: {problem}")


def _fillers(summaries: Sequence[Summary], label_map: LabelMap) -> set[bytes]:
    """Return the texts that cannot be names, since several classes have them."""
    labels: dict[bytes, set[int]] = {}
    for label, text in (pair for summary in summaries for pair in summary.classes):
        if text and label in label_map.ids:
            labels.setdefault(text, set()).add(label)
    several = {text for text, found in labels.items() if len(found) > 1}
    return {text for text in several if label_map.id_of(text.decode("utf-8", "replace")) is None}


def _problem(label: int | None, text: bytes | None, label_map: LabelMap) -> str | None:
    """Say what is wrong with the class of an object, or None."""
    name = None if text is None else text.decode("utf-8", "replace")
    if label is None:
        known = {*label_map.names, *label_map.other_names.values()}
        if name in known:
            return None
        near = label_map.id_of(name)
        hint = f" Is it {label_map.names[label_map.to_class(near)]!r}?" if near is not None else ""
        return (
            f"{_TEXT} is {name!r} and there is no label; expected a name of the label map "
            f"({label_map.describe()}).{hint} Use the label map that was written with the data."
        )
    called = f", whose {_TEXT} is {name!r}," if name else ""
    if label not in label_map.ids:
        return (
            f"{_LABEL} {label}{called} is not in the label map ({label_map.describe()}). Use the "
            "label map that was written with the data, or convert the data again."
        )
    if not name or label_map.is_called(label, name):
        return None
    wanted, other = label_map.names[label_map.to_class(label)], label_map.id_of(name)
    told = f"{_LABEL} is {label}, which the label map calls {wanted!r}, but {_TEXT} is {name!r}"
    if other is not None:
        return (
            f"{told}, which has the id {other} there; expected one class. Were two names or ids of "
            "the label map exchanged, or is it that of other data?"
        )
    return (
        f"{told}; expected the same name. Use the label map that was written with the data. If you "
        f"renamed the class, say both names: item {{ id: {label} name: {name!r} display_name: "
        f"{wanted!r} }}."
    )


def recognise_coco(summaries: Iterable[Summary]) -> tuple[bool, str]:
    """Tell whether the objects of records can only be of COCO's 80 classes.

    Args:
        summaries: of the record files.

    Returns:
        Whether they are, and in words what was found.
    """
    coco = LabelMap.coco()
    labels: set[int] = set()
    texts: set[str] = set()
    fits = True
    for summary in summaries:
        for label, text in summary.classes:
            name = text.decode("utf-8", "replace") if text else None
            labels |= set() if label is None else {label}
            texts |= {name} if name else set()
            if label is None:
                fits &= name in coco.names
            else:
                fits &= label in coco.ids and (not name or coco.is_called(label, name))
    found = []
    if labels:
        shown = ", ".join(map(str, sorted(labels)[:_LISTED])) + ", ..." * (len(labels) > _LISTED)
        found.append(f"ids {min(labels)}..{max(labels)} ({shown})")
    if texts:
        shown = ", ".join(sorted(texts)[:_LISTED]) + ", ..." * (len(texts) > _LISTED)
        found.append(f"names {shown}")
    # Without names only an id that 80 classes without gaps do not have tells COCO's.
    fits &= bool(texts) or max(labels, default=0) > _WITHOUT_GAPS
    return fits, " and ".join(found) or "no objects"
