"""Annotations with values that no tool writes end in usable boxes, or in an error with a place.

The seeds are fixed. Each file is a good one in which up to three values were exchanged, removed or
doubled.
"""

import copy
import functools
import json
import math
import random

import pytest

from ssd_centernet.data.readers import read_annotations
from ssd_centernet.data.readers.coco import read_coco
from ssd_centernet.evaluation.coco import CocoGroundTruth
from tests.data.readers.coco_files import Files
from tests.data.readers.test_exports import cvat, tasks
from tests.data.readers.test_more_exports import vott

ODD = [None, True, -1, 0, 1, 2**63, 10**30, 1e308, math.nan, math.inf, 0.5, "", " ", "1", "1.0"]
ODD += ["nan", "１", "x", "a\0b", "../x", "\ud800", "a" * 5000, [], [1], [[]], [None] * 4, {}]
ODD += [{"a": 1}, {"x": 1}, [1, 2, 3, 4], ["1", "2", "3", "4"], [[1, 2, 3, 4, 5, 6]]]
MUTANTS = 150


def places(value, at=()):
    """Yield the path of every value in json content."""
    yield at
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield from places(value[key], (*at, key))


def mutated(content, rng):
    content = copy.deepcopy(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        path = rng.choice([place for place in places(content) if place])
        holder = content
        for key in path[:-1]:
            holder = holder[key]
        action = rng.random()
        if action < 0.6:
            holder[path[-1]] = copy.deepcopy(rng.choice(ODD))
        elif action < 0.8:
            del holder[path[-1]]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[path[-1]]))
        else:
            holder["another"] = holder[path[-1]]
        if not content:
            break
    return content


def outcome(read, name):
    """Return what was read, or None after an error that names the file."""
    try:
        return read()
    except (ValueError, FileNotFoundError) as error:
        assert not isinstance(error, UnicodeError)
        assert name in str(error) or "image folder" in str(error), error
        assert "Traceback" not in str(error) and len(str(error)) < 3000
        return None


def usable(box) -> bool:
    return len(box) == 4 and all(type(v) is float and math.isfinite(v) for v in box)


@pytest.mark.parametrize("seed", range(4))
def test_mutants_of_coco(tmp_path, seed):
    files, rng, ends = Files(tmp_path), random.Random(seed), set()
    for annotation in files.annotations:
        x, y, w, h = annotation["bbox"]
        annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h]]
        annotation["attributes"] = {"rotation": 0}
    path = tmp_path / "instances.json"
    for _ in range(MUTANTS):
        path.write_text(json.dumps(mutated(files.content, rng)))
        index = outcome(lambda: read_coco(path, files.images), path.name)
        ends.add(index is None)
        for image in index.images if index else ():
            assert not image.file_name.startswith(("/", ".."))
            for annotation in image.annotations:
                assert usable(annotation["bbox"])
                assert annotation["category_id"] in index.label_map.ids
                assert annotation.get("iscrowd", 0) in (0, 1)
        truth = outcome(lambda: CocoGroundTruth.load(path), path.name)
        if truth is not None:
            assert math.isfinite(abs(truth.boxes).max(initial=0))
            assert set(truth.object_image_ids) <= set(truth.image_ids)
    assert ends == {True, False}


@pytest.mark.parametrize("kind, make", [("labelstudio", tasks), ("vott", vott)])
@pytest.mark.parametrize("seed", range(2))
def test_mutants_of_exports(tmp_path, kind, make, seed):
    files, rng, ends = Files(tmp_path), random.Random(seed), set()
    path = tmp_path / "export.json"
    for _ in range(MUTANTS):
        path.write_text(json.dumps(mutated(make(), rng)))
        check(path, kind, files, ends)
    assert ends == {True, False}


@pytest.mark.parametrize("seed", range(2))
def test_mutants_of_cvat(tmp_path, seed):
    files, rng, ends = Files(tmp_path), random.Random(seed), set()
    path = tmp_path / "annotations.xml"
    for _ in range(MUTANTS):
        text = cvat()
        start = rng.randrange(len(text))
        odd = rng.choice(["", "x", "<", '"', "９", "&", "nan", "-", " ", "\0"])
        path.write_text(text[:start] + odd + text[start + rng.choice([0, 1, 5]) :])
        check(path, "cvat", files, ends)
    assert ends == {True, False}


def check(path, kind, files, ends):
    source = outcome(
        lambda: read_annotations(path, annotation_format=kind, image_dir=files.images), path.name
    )
    ends.add(source is None)
    if source is None:
        return
    index = outcome(lambda: read_coco(source, source.image_dir), path.name)
    for image in index.images if index else ():
        assert all(usable(annotation["bbox"]) for annotation in image.annotations)


@pytest.mark.parametrize("seed", range(2))
def test_mutants_of_detections(tmp_path, seed):
    files, rng, ends = Files(tmp_path), random.Random(seed), set()
    truth = CocoGroundTruth.load(files.content)
    rows = [{**a, "score": 0.5} for a in files.annotations]
    for _ in range(MUTANTS):
        mutant = mutated(rows, rng)
        found = outcome(functools.partial(truth.read_detections, mutant), "row ")
        ends.add(found is None)
        if found is not None:
            assert found[0].boxes.shape == (len(found[0]), 4)
    assert ends == {True, False}
