"""Conversion: what is stored, and that no run leaves shards that look finished but are not."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.data.convert import convert_coco
from ssd_centernet.labels import LabelMap
from tests.data.coco_set import CocoSet, encode, faults, picture
from tests.process import Running

MINI = Path(__file__).parents[3] / "shared" / "data" / "coco_open_mini"


@pytest.fixture
def coco(tmp_path):
    return CocoSet(tmp_path)


def test_one_image_by_hand(coco):
    coco.image("sub/a.jpg", id=139, width=40, height=30)
    coco.box((10, 6, 20, 15), area=120.5).box((0, 0, 4, 3), category_id=1, iscrowd=1, area=7)
    info = coco.convert()
    assert (info["num_images"], info["num_objects"], info["num_crowd"]) == (1, 2, 1)
    assert info["max_objects_per_image"] == 2 and faults(info) == {}
    (example,) = coco.examples()
    expected = [[0.2, 0.25, 0.7, 0.75], [0.0, 0.0, 0.1, 0.1]]
    np.testing.assert_allclose(example["boxes"], expected, rtol=1e-6)
    np.testing.assert_array_equal(example["classes"], [1, 0])
    np.testing.assert_array_equal(example["is_crowd"], [False, True])
    np.testing.assert_array_equal(example["area"], [120.5, 7])
    assert (example["source_id"], example["height"], example["width"]) == (139, 30, 40)
    assert example["encoded"] == (coco.image_dir / "sub/a.jpg").read_bytes()
    assert coco.ground_truth() == {
        "images": [{"id": 139, "width": 40, "height": 30, "file_name": "sub/a.jpg"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 139,
                "category_id": 4,
                "bbox": [10, 6, 20, 15],
                "area": 120.5,
                "iscrowd": 0,
            },
            {
                "id": 2,
                "image_id": 139,
                "category_id": 1,
                "bbox": [0, 0, 4, 3],
                "area": 7,
                "iscrowd": 1,
            },
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 4, "name": "emu"}],
    }
    assert LabelMap.from_pbtxt(coco.out / "mscoco_label_map.pbtxt").names == ("cat", "emu")


def test_round_robin_over_kept_images(coco):
    for number in range(7):
        coco.image(f"{number}.jpg", None if number == 1 else b"").box()
    info = coco.convert(num_shards=3, workers=4)
    assert coco.shards() == [f"coco_train.record-{i:05d}-of-00003" for i in range(3)]
    assert [s["num_images"] for s in info["shards"]] == [2, 2, 2]
    assert [e["source_id"] for e in coco.examples()] == [1, 3, 4, 5, 6, 7]
    first = tf.data.TFRecordDataset(str(coco.out / coco.shards()[0]))
    ids = [
        tf.train.Example.FromString(r).features.feature["image/source_id"].bytes_list.value[0]
        for r in first.as_numpy_iterator()
    ]
    assert ids == [b"1", b"5"]


def test_only_the_first_images_with_objects(coco):
    for number in range(5):
        coco.image(f"{number}.jpg", id=number + 1)
        if number != 1:
            coco.box((1, 1, 5, 5))
    info = coco.convert(max_images=2)
    assert info["num_images"] == 2
    assert [image["id"] for image in coco.ground_truth()["images"]] == [1, 3]
    with pytest.raises(ValueError, match="max_images must be 1 or more"):
        coco.convert(max_images=0)


@pytest.mark.parametrize("keep", [True, False])
def test_empty_images(coco, keep):
    coco.image("a.jpg").image("b.jpg").box().image("c.jpg").box((0, 0, 0, 5))
    info = coco.convert(keep_empty=keep)
    assert info["num_images"] == (3 if keep else 1)
    assert info["num_empty"] == (2 if keep else 0)
    assert len(coco.ground_truth()["images"]) == info["num_images"]
    if not keep:
        entry = info["report"]["dropped images"]["no valid object"]
        assert entry == {"count": 2, "first": ["a.jpg", "c.jpg"]}


@pytest.mark.parametrize("keep", [True, False])
def test_crowd(coco, keep):
    coco.image().box(iscrowd=1).box()
    info = coco.convert(keep_crowd=keep)
    assert info["num_crowd"] == keep and info["num_objects"] == 1 + keep
    assert [a["iscrowd"] for a in coco.ground_truth()["annotations"]] == [1, 0][1 - keep :]
    assert ("dropped boxes" in info["report"]) is not keep


def test_splits_share_the_label_map(coco):
    coco.image().box()
    coco.convert(split="train")
    coco.convert(split="coco_val")
    assert len(coco.examples("val")) == 1
    coco.content["categories"] = [{"id": 1, "name": "dog"}, {"id": 4, "name": "emu"}]
    with pytest.raises(ValueError, match="splits of an output_dir share a label map"):
        coco.convert(split="test")
    assert len(coco.examples("train")) == 1


def test_second_run_does_nothing_and_other_input_is_refused(coco):
    coco.image().box()
    first = coco.convert()
    before = {p.name: p.stat().st_mtime_ns for p in coco.out.iterdir()}
    assert coco.convert() == first
    after = {p.name: p.stat().st_mtime_ns for p in coco.out.iterdir()}
    assert {k: v for k, v in after.items() if k[0] != "."} == {
        k: v for k, v in before.items() if k[0] != "."
    }
    for options in ({"num_shards": 3}, {"keep_crowd": False}):
        with pytest.raises(
            FileExistsError, match="2 shards of coco_train .*other input.*overwrite"
        ):
            coco.convert(**options)
    coco.convert(num_shards=3, overwrite=True)
    assert coco.shards() == [f"coco_train.record-{i:05d}-of-00003" for i in range(3)]


def test_a_conversion_of_an_earlier_version_is_told_as_that(coco):
    coco.image().box()
    info = coco.convert()
    info["input"]["format_version"] = 1
    (coco.out / "coco_train.info.json").write_text(json.dumps(info))
    with pytest.raises(FileExistsError, match="earlier version of this program.*set overwrite"):
        coco.convert()
    assert coco.convert(overwrite=True)["input"]["format_version"] > 1


def test_a_changed_image_is_other_input(coco):
    coco.image().box()
    coco.convert()
    (coco.image_dir / "a.jpg").write_bytes(encode(picture(), quality=30))
    with pytest.raises(FileExistsError):
        coco.convert()
    coco.convert(overwrite=True)
    assert coco.examples()[0]["encoded"] == (coco.image_dir / "a.jpg").read_bytes()


def test_damaged_shard_is_no_finished_conversion(coco):
    coco.image().box()
    coco.convert()
    shard = coco.out / coco.shards()[0]
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(FileExistsError, match="without a valid info file"):
        coco.convert()
    coco.convert(overwrite=True)
    assert len(coco.examples()) == 1


def test_foreign_shards_are_not_touched(coco):
    coco.image().box()
    coco.out.mkdir()
    stranger = coco.out / "coco_train.record-00000-of-00099"
    stranger.write_bytes(b"x")
    with pytest.raises(FileExistsError, match="without a valid info file"):
        coco.convert()
    assert coco.shards() == [stranger.name]


def test_failing_run_leaves_the_earlier_conversion(coco, monkeypatch):
    coco.image().box()
    first = coco.convert()
    monkeypatch.setattr("ssd_centernet.data.split_writer.encode_example", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        coco.convert(num_shards=3, overwrite=True)
    monkeypatch.undo()
    assert coco.convert() == first
    assert len(coco.shards()) == 2


@pytest.mark.parametrize("earlier", [False, True])
def test_run_killed_while_moving_shards_is_repaired(coco, monkeypatch, earlier):
    coco.image().box()
    if earlier:
        coco.convert()
    for name in ("b.jpg", "c.jpg"):
        coco.image(name).box()
    moves = []

    def replace(source, target, move=os.replace):
        moves.append(target)
        if len(moves) == 2:
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr("ssd_centernet.data.output.os.replace", replace)
    # A killed process does not tidy up behind itself.
    monkeypatch.setattr("ssd_centernet.data.output.shutil.rmtree", lambda *a, **k: None)
    with pytest.raises(KeyboardInterrupt):
        coco.convert(overwrite=earlier)
    monkeypatch.undo()
    # The info of an earlier conversion must not stand beside shards of the new one.
    assert len(coco.shards()) == 1 and not list(coco.out.glob("*.info.json"))
    coco.convert(num_shards=3)
    assert len(coco.shards()) == 3 and len(coco.examples()) == 3


def test_killed_process_leaves_nothing_that_looks_finished(coco):
    for number in range(1500):
        coco.image(f"{number}.jpg", encode(picture()) if number == 0 else None).box()
    for number in range(1, 1500):
        os.link(coco.image_dir / "0.jpg", coco.image_dir / f"{number}.jpg")
    coco.json.write_text(json.dumps(coco.content))
    code = (
        "import sys; from ssd_centernet.data.convert import convert_coco\n"
        "convert_coco(*sys.argv[1:], num_shards=2, workers=1, max_missing=1.0, progress=False)"
    )
    with Running(sys.executable, "-c", code, coco.json, coco.image_dir, coco.out) as conversion:
        conversion.wait_until((coco.out / ".coco_train.partial").exists)
        conversion.signal(signal.SIGKILL)
        conversion.finish(status=-signal.SIGKILL)
    assert not [p for p in coco.out.iterdir() if p.name[0] != "."]
    assert coco.convert()["num_images"] == 1500
    assert not (coco.out / ".coco_train.partial").exists()


def test_two_conversions_at_once_are_refused(coco):
    import fcntl

    coco.image().box()
    coco.out.mkdir()
    with open(coco.out / ".coco_train.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match="Another process is converting"):
            coco.convert()
    assert coco.convert()["num_images"] == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_shards": 0}, "num_shards must be in 1..1000, got 0"),
        ({"split": "../train"}, "split must be"),
        ({"max_pixels": 0}, "max_pixels=0"),
        ({"workers": 0}, "workers=0"),
        ({"max_missing": 2.0}, "max_missing=2.0"),
    ],
)
def test_options_out_of_range(coco, options, message):
    with pytest.raises(ValueError, match=message):
        coco.image().convert(**options)
    assert not coco.out.exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_images(tmp_path, split):
    if not MINI.exists():
        pytest.skip(f"{MINI} is not here")
    annotations = MINI / "annotations" / f"instances_{split}.json"
    info = convert_coco(annotations, MINI / "images" / split, tmp_path, split=split, progress=False)
    source = json.loads(annotations.read_text())
    counts = {"train": (92, 829, 9, 1), "val": (72, 604, 8, 2)}[split]
    assert counts == tuple(info[k] for k in ("num_images", "num_objects", "num_crowd", "num_empty"))
    # Few images of 80 classes: many occur once or not at all.
    assert faults(info) == {}
    truth = json.loads((tmp_path / f"coco_{split}.annotations.json").read_text())
    key = ("image_id", "category_id", "bbox", "area", "iscrowd")
    expected = sorted([a[k] for k in key] for a in source["annotations"])
    assert sorted([a[k] for k in key] for a in truth["annotations"]) == expected
    assert LabelMap.from_pbtxt(tmp_path / "mscoco_label_map.pbtxt") == LabelMap.coco()
