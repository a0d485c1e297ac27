"""A part of the changes of every kind, and that the judge itself can fail."""

import dataclasses

import pytest

from tests.mutations import scene
from tests.mutations.harness import Kind, read_files, run_kind, table
from tests.mutations.judge import (
    BROKEN,
    COUNTED,
    EITHER,
    READ,
    REFUSED,
    SAME,
    WRONG,
    Changed,
    Meaning,
    Outcome,
    judge,
)
from tests.mutations.kinds import KINDS

CLEAN = Outcome(Meaning({"a.png": (("cat", 1.0), ("dog", 2.0)), "b.png": ()}, ("cat", "dog")))
CHANGED = Changed({}, "set.json", r"annotation 7")


@pytest.mark.parametrize("name", KINDS)
def test_no_label_moves_without_a_word(name):
    kind = KINDS[name]()
    results = list(run_kind(kind, seed=1, rounds=1))
    wrong = [
        f"{r.mutation} [{r.claim}]: {r.verdict.why}" for r in results if r.verdict.verdict == WRONG
    ]
    assert not wrong, "\n".join(wrong)
    # Some find nothing to change with this seed, or change what another did.
    assert len(results) > 0.8 * len(kind.mutations)
    assert f"\n{name} " in table(results)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_sees_a_reader_that_moves_labels(name):
    """Exchange two classes, or what a kind has instead, once the library has read an input."""
    kind = KINDS[name]()
    files = kind.clean()
    clean = read_files(kind, files)
    assert clean.error is None and clean.meaning is not None
    moved = dataclasses.replace(clean, meaning=_moved(clean.meaning))
    changed = Changed(files, "file")
    for claim in (SAME, BROKEN, EITHER):
        assert judge(claim, changed, moved, clean).verdict == WRONG


def _moved(meaning: Meaning) -> Meaning:
    """Give the first object of an image another first value, or exchange two classes."""
    for name, objects in meaning.images.items():
        for one in objects:
            others = tuple(other for other in objects if other != one)
            moved = tuple(sorted((*others, ("another", *one[1:])), key=str))
            return Meaning({**meaning.images, name: moved}, meaning.classes)
    return Meaning({}, ((meaning.classes[0][0], "another"), *meaning.classes[1:]))


def report(kind="dropped boxes", reason="bbox is not four numbers", item="annotation 7", count=1):
    return {kind: {reason: {"count": count, "first": [item]}}}


def read(images, said=None, classes=("cat", "dog")):
    return Outcome(Meaning(images, classes), said or {})


FEWER = {"a.png": (("dog", 2.0),), "b.png": ()}


@pytest.mark.parametrize(
    ("claim", "outcome", "verdict", "why"),
    [
        (SAME, CLEAN, READ, ""),
        (EITHER, CLEAN, READ, ""),
        (BROKEN, CLEAN, WRONG, "read without a word"),
        (BROKEN, read(CLEAN.meaning.images, report("repaired boxes")), COUNTED, ""),
        (EITHER, read(FEWER, report()), COUNTED, ""),
        (SAME, read(FEWER, report()), WRONG, "not the same"),
        (EITHER, read(FEWER), WRONG, "objects are missing"),
        (EITHER, read(FEWER, report("notes")), WRONG, "objects are missing"),
        (EITHER, read(FEWER, report(item="annotation 8")), WRONG, "does not name the place"),
        (EITHER, read({"a.png": (), "b.png": ()}, report()), WRONG, "objects are missing"),
        (EITHER, read({"a.png": (), "b.png": ()}, report(count=2)), COUNTED, ""),
        (EITHER, read({"b.png": ()}, report(count=2)), WRONG, "image a.png is missing"),
        (
            EITHER,
            read(
                {"b.png": ()}, report("dropped images", "listed but missing", "a.png: annotation 7")
            ),
            COUNTED,
            "",
        ),
        (EITHER, read({**CLEAN.meaning.images, "c.png": ()}, report()), WRONG, "not there"),
        (EITHER, read({**FEWER, "b.png": (("cat", 1.0),)}, report()), WRONG, "other objects"),
        (EITHER, read(FEWER, report(), ("cat", "cow")), WRONG, "other classes"),
    ],
)
def test_what_is_read_is_judged_strictly(claim, outcome, verdict, why):
    found = judge(claim, CHANGED, outcome, CLEAN)
    assert found.verdict == verdict, found.why
    assert why in found.why


@pytest.mark.parametrize(
    ("message", "verdict", "why"),
    [
        ("set.json: annotation 7 has no box.", REFUSED, ""),
        ("annotation 7 has no box.", WRONG, "names no file"),
        ("set.json has an annotation without a box.", WRONG, "does not name the place"),
        ("set.json: annotation 7 is {'bbox': 1}.", WRONG, "Python dict"),
    ],
)
def test_errors_must_name_file_and_place(message, verdict, why):
    outcome = Outcome(error=FileNotFoundError(message))
    found = judge(BROKEN, CHANGED, outcome, CLEAN)
    assert found.verdict == verdict and why in found.why
    assert judge(SAME, CHANGED, outcome, CLEAN).verdict == WRONG


def test_a_traceback_is_wrong():
    found = judge(BROKEN, CHANGED, Outcome(error=TypeError("set.json annotation 7")), CLEAN)
    assert found.verdict == WRONG and "traceback" in found.why


def test_a_report_that_the_clean_input_has_too_counts_nothing():
    clean = dataclasses.replace(CLEAN, report=report())
    assert judge(EITHER, CHANGED, read(FEWER, report()), clean).verdict == WRONG
    assert judge(EITHER, CHANGED, read(FEWER, report(count=2)), clean).verdict == WRONG


def test_a_wrong_reader_of_coco_is_caught():
    """One that leaves out what it does not understand, as many do."""
    good = KINDS["coco"]()

    def read_in_silence(folder):
        outcome = good.read(folder)
        return Outcome(outcome.meaning)

    silent = Kind("coco", good.clean, read_in_silence, good.mutations)
    names = {r.mutation for r in run_kind(silent, seed=0, rounds=2) if r.verdict.verdict == WRONG}
    assert {"a box that is none", "a number that is none", "image that is not listed"} <= names


def test_the_clean_scene_is_what_converting_it_gives():
    outcome = read_files(KINDS["coco"](), KINDS["coco"]().clean())
    assert not outcome.report
    wanted = {f"{name}.png": [] for name, _, _ in scene.IMAGES}
    for image, label, *box, crowd in scene.OBJECTS:
        values = (float(value) for value in box)
        wanted[f"{scene.IMAGES[image][0]}.png"].append((scene.CLASSES[label], *values, crowd))
    assert outcome.meaning.images == {n: tuple(sorted(o)) for n, o in wanted.items()}
    assert outcome.meaning.classes == scene.CLASSES
