"""Names of classes that may be typing errors are pointed out when a set is first read."""

import pytest

from ssd_centernet.data.readers.source import note_classes
from ssd_centernet.data.validate import Report
from ssd_centernet.labels import LabelMap

ALIKE = "two classes with almost the same name: is one a typing error?"
RARE = "class with fewer than 3 objects: is its name a typing error?"


def notes(names, count=100):
    report = Report()
    note_classes(dict.fromkeys(names, count), report)
    found = report.to_dict().get("notes", {})
    return {reason: entry["first"] for reason, entry in found.items()}


@pytest.mark.parametrize(
    "pair",
    [
        ("person", "peson"),
        ("person", "preson"),
        ("washer", "wahser"),
        ("bolt", "bolr"),
        ("nut", "nutt"),
        ("car", "cra"),
        ("stop sign", "Stop_sign"),
        ("screw driver", "screwdriver"),
        ("traffic light", "trafic light"),
        ("caf\u00e9", "cafe\u0301"),
        ("\uff43ar", "car"),
        ("\u0431\u043e\u043b\u0442", "\u0431\u043e\u043b\u0442\u044b"),
    ],
)
def test_near_names(pair):
    assert notes(pair) == {ALIKE: [f"{pair[0]!r} and {pair[1]!r}"]}


@pytest.mark.parametrize(
    "names",
    [
        LabelMap.coco().names,
        ("cat", "car", "cow", "cup"),
        ("type 1", "type 2", "type 10"),
        ("class a", "class b"),
        ("shape10", "shape11"),
        ("1", "2", "12", "21"),
        ("cat", "atc"),
        ("\u87ba\u6bcd", "\u87ba\u4e1d"),
    ],
)
def test_names_that_are_different(names):
    assert notes(names) == {}


def test_rare_classes():
    report = Report()
    note_classes({"nut": 3, "bolt": 2, "washer": 0}, report, also=["boltt"])
    found = report.to_dict()["notes"]
    assert found[RARE] == {"count": 1, "first": ["'bolt' (2)"]}
    assert found["class without objects in this split"] == {"count": 1, "first": ["'washer'"]}
    assert found[ALIKE]["first"] == ["'bolt' and 'boltt'"]


def test_many_names_are_quick():
    assert len(notes([f"thing{i} of kind {i * 7919 % 5003}" for i in range(5000)])) <= 1


def test_long_names_cost_nothing():
    """A file that is no table can give any text for a name."""
    names = ["".join(map(str, range(number, 60_000))) for number in range(3)]
    assert notes(names) == {}
