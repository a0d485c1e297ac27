"""What a conversion says about all that it read: losses, classes, equal pictures, test sets."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_centernet.data.convert_formats import convert_annotations
from ssd_centernet.data.decoder_lines import held_lines
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.validate import format_report
from ssd_centernet.labels import LabelMap
from ssd_centernet.runs.evaluation import evaluate_run, save_evaluation
from ssd_centernet.runs.opened import open_run
from tests.data.coco_set import CocoSet, encode, faults, picture
from tests.data.readers import own_set


@pytest.fixture
def coco(tmp_path):
    return CocoSet(tmp_path)


def noise(seed: int) -> bytes:
    """A picture of 40 x 30 pixels, another one for each seed."""
    draw = np.random.default_rng(seed)
    return encode(Image.fromarray(draw.integers(0, 256, (30, 40, 3), np.uint8)))


def test_pictures_that_the_decoder_complains_of_are_named(coco, capfd):
    for seed in range(40):
        data = noise(seed)
        if seed in (3, 4, 29):
            # The decoder skips what stands between the pixels and the end, and says so.
            data = data[:-2] + b"rubbish" + data[-2:]
        coco.image(f"{seed}.jpg", data)
        coco.box([2, 3, 8, 9])
    info = coco.convert(workers=3)
    note = "JPEG with corrupt data: the decoder goes on, and what is seen may be wrong"
    assert info["report"]["notes"][note] == {"count": 3, "first": ["3.jpg", "4.jpg", "29.jpg"]}
    assert info["num_images"] == 40
    assert "Corrupt JPEG data" not in capfd.readouterr().err


def test_what_others_write_beside_the_decoder_is_passed_on(capfd):
    with held_lines() as said:
        os.write(2, b"Corrupt JPEG data: 5 extraneous bytes\nsomething else\n")
        assert said.take() and not said.take()
        print("of Python", file=sys.stderr, flush=True)
        assert not said.take()
        os.write(2, b"the last line\n")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "something else\nof Python\nthe last line\nafterwards\n"


# --- losing most of the data ------------------------------------------------------------------


def ten_boxes(coco: CocoSet, bad: int) -> CocoSet:
    coco.image()
    for number in range(10):
        coco.box([number, 5, 8, 8 if number >= bad else 0])
    return coco


def test_a_tenth_of_the_boxes_may_be_dropped_and_no_more(coco):
    info = ten_boxes(coco, 1).convert(max_dropped=0.1)
    assert info["num_objects"] == 9
    coco.content["annotations"][1]["bbox"][3] = 0
    with pytest.raises(ValueError) as caught:
        coco.convert(max_dropped=0.1, overwrite=True)
    message = str(caught.value)
    assert message.startswith(f"2 of 10 boxes of {coco.json} would be dropped, more than a share")
    assert "2  zero or negative width or height (annotation 1 of a.jpg," in message
    assert "set max_dropped to 0.2 or more (--max_dropped)" in message and "{" not in message
    # The conversion that stood there is still whole.
    assert len(coco.ground_truth()["annotations"]) == 9
    assert coco.convert(max_dropped=0.2, overwrite=True)["num_objects"] == 8


def test_a_tenth_of_the_images_too(coco):
    for number in range(10):
        coco.image(f"{number}.jpg", b"rubbish" if number > 7 else noise(number)).box()
    with pytest.raises(
        ValueError, match="2 of 10 boxes of .*2 of them with their images"
    ) as caught:
        coco.convert(max_dropped=0.1)
    assert "2  not an image, or of a kind that Pillow" in str(caught.value)
    assert coco.shards() == []
    annotations = coco.content["annotations"]
    coco.content["annotations"] = annotations[:8]
    with pytest.raises(ValueError, match="2 of 10 images of .*would be dropped, more than a"):
        coco.convert(max_dropped=0.1)
    # All that is lost stands in the account, whether it was allowed or not.
    coco.content["annotations"] = annotations
    lost = coco.convert(max_dropped=0.2)["report"]["dropped boxes"]
    assert lost == {"their image is dropped": {"count": 2, "first": ["8.jpg", "9.jpg"]}}


def test_what_was_asked_for_and_second_copies_are_no_loss(coco):
    coco.image("a.jpg").box()
    for _ in range(4):
        coco.box((1, 1, 5, 5), category_id=77)
        coco.box((1, 1, 5, 6), iscrowd=1)
    for number in range(4):
        coco.image(f"{number}.jpg", noise(number))
    options = {"drop_unknown_categories": True, "keep_crowd": False, "keep_empty": False}
    info = coco.convert(max_dropped=0.0, **options)
    assert (info["num_images"], info["num_objects"]) == (1, 1)


def test_missing_images_have_a_limit_of_their_own(coco):
    coco.image("a.jpg").box()
    for number in range(3):
        coco.image(f"gone{number}.jpg", None).box()
    info = coco.convert(max_missing=0.75, max_dropped=0.0)
    assert info["num_images"] == 1
    assert info["report"]["dropped boxes"]["their image is missing"]["count"] == 3


@pytest.mark.parametrize("kept", [{"keep_crowd": False}, {"max_dropped": 1.0}])
def test_no_box_left_is_an_error_whatever_is_allowed(coco, kept):
    if "keep_crowd" in kept:
        coco.image().box(iscrowd=1)
    else:
        coco.image().box((50, 50, 5, 5))
    with pytest.raises(ValueError, match="(?s)No box of .* is left, and nothing was written"):
        coco.convert(**kept)
    assert coco.shards() == []


def test_listed_sizes_that_are_swapped_are_said_as_that(coco):
    for number in range(3):
        coco.image(f"{number}.jpg", noise(number), width=30, height=40).box((1, 1, 5, 5))
    with pytest.raises(ValueError, match="3  listed width and height are swapped"):
        coco.convert()
    for number in range(5):
        coco.box((20, 2, 19, 5 + number))
    with pytest.raises(ValueError, match="width and height of the pictures are swapped"):
        coco.convert()


def test_max_dropped_out_of_range(coco):
    with pytest.raises(ValueError, match="max_dropped=1.5"):
        coco.image().convert(max_dropped=1.5)


# --- classes ---------------------------------------------------------------------------------


def test_objects_per_class_are_counted_and_rare_or_near_names_noted(coco):
    names = ("person", "peson", "traffic light", "emu")
    coco.content["categories"] = [{"id": i, "name": n} for i, n in enumerate(names, 1)]
    coco.image()
    for number in range(9):
        coco.box((number, 1, 5, 5), category_id=(1, 1, 1, 1, 2, 3, 3, 3, 1)[number])
    coco.box((2, 9, 9, 9), category_id=4, iscrowd=1)
    info = coco.convert()
    counts = {"person": 5, "peson": 1, "traffic light": 3, "emu": 0}
    assert info["objects_per_class"] == counts
    assert list(info["objects_per_class"]) == list(names)
    notes = info["report"]["notes"]
    rare = notes["class with fewer than 3 objects: is its name a typing error?"]
    assert rare == {"count": 1, "first": ["'peson' (1)"]}
    assert notes["class without objects in this split"] == {"count": 1, "first": ["'emu'"]}
    near = notes["two classes with almost the same name: is one a typing error?"]
    assert near["first"] == ["'person' and 'peson'"]


def test_other_formats_note_classes_once(tmp_path):
    table = own_set.write_csv(tmp_path)
    info = convert_annotations(
        table, tmp_path / "out", image_dir=tmp_path / "images", progress=False
    )
    notes = [reason for reason in info["report"]["notes"] if reason.startswith("class with")]
    assert len(notes) == 1 and sum(info["objects_per_class"].values()) == info["num_objects"]


def test_the_report_reads_well_in_80_columns():
    first = [f"annotation {n} of a rather/long/path/{n:012d}.jpg" for n in range(5)]
    text = format_report(
        {"dropped boxes": {"outside the image": {"count": 123456, "first": first}}}
    )
    assert max(map(len, text.splitlines())) <= 80 and text.count("\n") > 3
    # No item is broken in two.
    assert all(any(item in line for line in text.splitlines()) for item in first)
    assert " ".join(text.split()).endswith(f"({', '.join(first)}, ...)")


# --- equal pictures --------------------------------------------------------------------------


def test_equal_pictures_in_a_split_and_across_splits_are_noted(coco):
    coco.image("a.jpg", noise(1)).box().image("b.jpg", noise(2)).box()
    coco.image("sub/c.jpg", noise(1)).box()
    notes = coco.convert(split="train")["report"]["notes"]
    assert notes["equal pictures in this split"] == {"count": 1, "first": ["a.jpg = sub/c.jpg"]}
    coco.content["images"], coco.content["annotations"] = [], []
    coco.image("v.jpg", noise(3)).box().image("w.jpg", noise(2)).box()
    notes = coco.convert(split="val")["report"]["notes"]
    assert "equal pictures in this split" not in notes
    (reason,) = [reason for reason in notes if "coco_train" in reason]
    assert reason.startswith("pictures that are in coco_train too")
    assert notes[reason] == {"count": 1, "first": ["w.jpg = b.jpg"]}


def test_another_encoding_is_another_picture_and_older_folders_still_work(coco):
    coco.image("a.jpg", encode(picture(), quality=90)).box()
    coco.convert(split="train")
    info = json.loads((coco.out / "coco_train.info.json").read_text())
    del info["picture_digests"], info["objects_per_class"]
    (coco.out / "coco_train.info.json").write_text(json.dumps(info))
    (coco.out / "coco_old.info.json").write_text("[]")
    coco.content["images"], coco.content["annotations"] = [], []
    (coco.image_dir / "a.jpg").unlink()
    coco.image("b.jpg", encode(picture(), quality=91)).box()
    assert faults(coco.convert(split="val")) == {}


# --- test sets without annotations -----------------------------------------------------------

BIRDS = LabelMap(["cat", "emu"], [1, 4])


def test_image_info_becomes_records_without_objects(coco):
    coco.image("000000000581.jpg", id=581).image("000000000139.jpg", id=139)
    del coco.content["annotations"]
    info = coco.convert(split="test")
    assert (info["num_images"], info["num_empty"], info["num_objects"]) == (2, 2, 0)
    assert any("no 'annotations'" in reason for reason in info["report"]["notes"])
    truth = coco.ground_truth("test")
    assert [image["id"] for image in truth["images"]] == [581, 139]
    assert truth["annotations"] == [] and len(truth["categories"]) == 2
    assert [e["source_id"] for e in coco.examples("test")] == [581, 139]


def test_a_folder_of_pictures_needs_classes_and_keeps_ids(tmp_path):
    folder = tmp_path / "test2017"
    (folder / "more").mkdir(parents=True)
    for name in ("000000000581.jpg", "more/000000000139.jpg"):
        (folder / name).write_bytes(noise(len(name)))
    with pytest.raises(ValueError, match="holds pictures and no annotations.*--label_map"):
        convert_annotations(folder, tmp_path / "out", progress=False)
    options = {"split": "test", "num_shards": 1, "progress": False}
    info = convert_annotations(folder, tmp_path / "out", label_map=BIRDS, **options)
    assert (info["num_images"], info["num_empty"]) == (2, 2)
    assert list(info["report"]["notes"]) == [
        "pictures without annotations: records without objects"
    ]
    truth = json.loads((tmp_path / "out" / "coco_test.annotations.json").read_text())
    ids = {image["file_name"]: image["id"] for image in truth["images"]}
    assert ids == {"000000000581.jpg": 581, "more/000000000139.jpg": 139}
    assert [(i["width"], i["height"]) for i in truth["images"]] == [(40, 30)] * 2


def test_a_test_set_is_evaluated_for_its_detections(tmp_path, model_dir, data_dir, pictures):
    """Training data has the same pictures: what is found on them is the same with no object."""
    folder, _ = pictures
    labels = load_label_map(data_dir)
    bare = tmp_path / "test2017"
    shutil.copytree(folder / "val", bare)
    out = tmp_path / "out"
    convert_annotations(bare, out, split="test", label_map=labels, progress=False)
    run = open_run(model_dir, device="cpu")
    found = evaluate_run(run, out, split="coco_test")
    assert "nothing to score" in found.hint
    paths = save_evaluation(found, tmp_path / "evaluation")
    rows = json.loads(Path(paths["detections.json"]).read_text())
    expected = evaluate_run(run, data_dir).result.rows.to_list()
    assert len(rows) == len(expected) > 0
    assert {row["image_id"] for row in rows} <= {int(p.stem) for p in bare.glob("*.jpg")}


def test_pictures_whose_names_are_no_numbers_are_numbered(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("b.jpg", "a.jpg", "7.jpg"):
        (folder / name).write_bytes(noise(ord(name[0])))
    (tmp_path / "list.txt").write_text("b.jpg\n7.jpg\n")
    for listed, expected in ((None, {"7.jpg": 1, "a.jpg": 2, "b.jpg": 3}), ("list.txt", None)):
        out = tmp_path / f"out_{listed}"
        options = {"image_list": tmp_path / listed} if listed else {}
        convert_annotations(folder, out, label_map=BIRDS, progress=False, **options)
        truth = json.loads((out / "coco_train.annotations.json").read_text())
        ids = {image["file_name"]: image["id"] for image in truth["images"]}
        assert ids == (expected or {"7.jpg": 1, "b.jpg": 2})


def test_a_folder_with_unknown_annotations_is_no_test_set(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(noise(1))
    (folder / "labels.json").write_text("{}")
    with pytest.raises(ValueError, match="formats"):
        convert_annotations(folder, tmp_path / "out", label_map=BIRDS, progress=False)
