"""The command convert: what it prints, its exit status, and what it leaves behind."""

import json

import pytest

from tests.data.coco_set import CocoSet
from tests.process import cli
from tests.warm import without_ours


@pytest.fixture
def convert(tmp_path, warm):
    """A small COCO set, and a function that converts it as a user does.

    The command imports this library itself; that of README begins with nothing.
    """
    coco = CocoSet(tmp_path)
    coco.out = tmp_path / "coco"  # The command names data sets after their folders.

    def run(*flags, status=0):
        coco.json.write_text(json.dumps(coco.content))
        places = [f"--annotations={coco.json}", f"--image_dir={coco.image_dir}"]
        places.append(f"--output_dir={coco.out}")
        return cli("convert", *places, *flags, python=without_ours(warm), status=status)

    return coco, run


def test_losing_most_of_the_data_ends_with_1_and_no_shards(convert):
    coco, run = convert
    coco.image()
    for number in range(4):
        coco.box([number, 5, 8, 0 if number else 8])
    done = run(status=1)
    assert "3 of 4 boxes of" in done.stderr and "--max_dropped" in done.stderr
    assert "3  zero or negative width or height (annotation 2 of a.jpg" in done.stderr
    assert "Traceback" not in done.stderr and not coco.shards()
    done = run("--max_dropped=0.8")
    assert "1 object (" in done.stdout and "Objects per class: emu 1, cat 0." in done.stdout
    assert len(coco.shards()) > 0


def test_fractions_end_with_1_and_are_scaled_when_told(convert):
    coco, run = convert
    coco.image().box([0.25, 0.2, 0.5, 0.5], area=0.1)
    done = run(status=1)
    assert "annotation 1 of a.jpg has bbox [0.25, 0.2, 0.5, 0.5]" in done.stderr
    assert "--box_units=fractions" in done.stderr and not coco.shards()
    run("--box_units=fractions")
    (found,) = coco.ground_truth()["annotations"]
    assert found["bbox"] == [10, 6, 20, 15] and found["area"] == 120


def test_a_test_set_says_that_there_is_nothing_to_score(convert):
    coco, run = convert
    coco.image("000000000007.jpg", id=7)
    del coco.content["annotations"]
    done = run("--split=test")
    assert "nothing to learn or to score" in done.stdout and "Classes: cat, emu." in done.stdout
    assert "All images and boxes are good." not in done.stdout


def test_tiles_are_told_and_the_next_split_is_cut_alike(convert):
    coco, run = convert
    coco.image(width=70, height=40).box([30, 20, 20, 10]).box([24, 4, 20, 10])
    done = run("--tiles=40,10", "--tiles_min_visible=0.6")
    text = " ".join(done.stdout.split())
    assert "2 objects of which a tile shows 0.6 or more: cut (annotation 2 of a.jpg" in text
    assert "1 objects of which a tile shows less than 0.6: a crowd region (annotation 1 of" in text
    assert "2 images (0 without objects), 4 objects (1 crowd region)" in text
    assert "The images are tiles of 40 pixels" in text
    assert "--split=val" in done.stdout and "--tiles=40,10\n" in done.stdout
    assert "nothing is written anew" in " ".join(
        run("--tiles=40,10", "--tiles_min_visible=0.6").stdout.split()
    )
