"""Which record files are a split's, and what is said where they are not."""

import json
import shutil

import pytest

from ssd_centernet.data import pipeline, shards
from ssd_centernet.data.directory import LABEL_MAP_NAME, find_label_map, load_label_map
from ssd_centernet.data.splits import find_shards, list_splits
from ssd_centernet.evaluation.detector import split_ground_truth
from ssd_centernet.labels import LabelMap
from tests.data.foreign import record, write, write_labels

LABELS = LabelMap(["cat", "dog"])


def names_of(folder, split):
    return [path.rpartition("/")[2] for path in find_shards(folder, split)]


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (["train-00000-of-00002.tfrecord", "train-00001-of-00002.tfrecord"], "train"),
        (["coco_val.record-00000-of-00001"], "coco_val"),
        (["voc-train.tfrecord-00000-of-00001"], "voc-train"),
        (["train.tfrecord"], "train"),
        (["pet_faces_train.record-00000-of-00001"], "pet_faces_train"),
        (["train.record"], "train"),
        (["val.tfrecords"], "val"),
        (["val.tfrecord.gz"], "val"),
        (["train-00000-of-00001.tfrecord.gz"], "train"),
        (["v1.2_train.record"], "v1.2_train"),
    ],
)
def test_names_of_other_tools_are_found(tmp_path, names, split):
    for name in [*names, "other.tfrecord"]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / f"._{names[0]}").write_bytes(b"of a Mac")
    (tmp_path / "label_map.pbtxt").write_bytes(b"")
    assert names_of(tmp_path, split) == names
    assert set(list_splits(tmp_path)) == {split, "other"}


def test_a_split_that_is_not_there_lists_what_is(tmp_path):
    for number in range(3):
        (tmp_path / f"train-{number:05d}-of-00003.tfrecord").write_bytes(b"")
    (tmp_path / "minival.tfrecord").write_bytes(b"")
    with pytest.raises(FileNotFoundError) as error:
        find_shards(tmp_path, "coco_train")
    said = str(error.value)
    assert "Splits found there: minival (1 file), train (3 files)." in said
    assert said.endswith("Give --train_split=train, or convert the split that is missing.")
    with pytest.raises(FileNotFoundError, match="Give --eval_split=minival, or convert"):
        find_shards(tmp_path, "coco_val")
    with pytest.raises(FileNotFoundError, match="Give --train_split or --eval_split with the name"):
        find_shards(tmp_path, "shapes")


def test_a_folder_without_records_says_what_it_holds(tmp_path):
    with pytest.raises(FileNotFoundError, match="the folder holds nothing"):
        find_shards(tmp_path, "coco_train")
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "labels.txt").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"holds 2 entries \(a.jpg, labels.txt\)"):
        find_shards(tmp_path, "coco_train")
    inside = tmp_path / "tfrecords"
    inside.mkdir()
    (inside / "train.tfrecord").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=rf"give --data_dir={inside}"):
        find_shards(tmp_path, "coco_train")
    with pytest.raises(FileNotFoundError, match=rf"is the file .*give --data_dir={inside} and"):
        find_shards(inside / "train.tfrecord", "train")


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["train.tfrecord", "train-00000-of-00001"], ValueError, r"2 conversions .*\[0, 1\]"),
        (["train-00000-of-00001", "train-00000-of-00001.gz"], ValueError, "two files for one"),
        (["train-00001-of-00002"], FileNotFoundError, "1 of 2 shards; number 0 is missing"),
        (
            ["train-00000-of-00001.tfrecord", "train-00001-of-00001.tfrecord"],
            ValueError,
            "00001-of-00001.tfrecord has a number beyond its count",
        ),
    ],
)
def test_files_that_are_no_whole_split(tmp_path, names, error, message):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(error, match=message):
        find_shards(tmp_path, "train")


@pytest.fixture
def converted(data_dir, tmp_path):
    """The rendered data set: splits of 2 shards with info files."""
    folder = tmp_path / "data"
    shutil.copytree(data_dir, folder)
    return folder


def test_shards_are_those_of_their_info_file(converted):
    path = converted / "coco_train.record-00001-of-00002"
    whole = path.read_bytes()
    for changed in (b"", whole[: len(whole) // 2], whole * 2):
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=rf"{path} has {len(changed)} bytes, but .*info.json"):
            pipeline.count_examples(str(converted))
    path.write_bytes(whole)
    assert pipeline.count_examples(str(converted), keep_empty=True) == 4
    # Shards of another conversion of as many files: one of other bytes.
    shutil.copy(converted / "coco_val.record-00001-of-00002", path)
    with pytest.raises(ValueError, match="files of two conversions were mixed"):
        find_shards(converted, "coco_train")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="number 1 is missing"):
        find_shards(converted, "coco_train")


def test_an_info_file_that_is_damaged(converted):
    (converted / "coco_train.info.json").write_text('{"shards": [{"file": "coco_tr')
    with pytest.raises(ValueError, match="coco_train.info.json is damaged"):
        find_shards(converted, "coco_train")


def test_a_cut_between_two_records_is_found_by_the_counts(converted):
    info_path = converted / "coco_val.info.json"
    info = json.loads(info_path.read_text())
    path = converted / info["shards"][0]["file"]
    first = next(iter(shards.read_records([str(path)]))).numpy()
    write(path, [first])
    info["shards"][0]["bytes"] = path.stat().st_size
    info_path.write_text(json.dumps(info))
    source = shards.RecordSource(str(converted), "coco_val", 0, 1, True, "object")
    with pytest.raises(ValueError, match=f"{path} holds 1 records, expected 4 as coco_val.info"):
        source.check(load_label_map(converted))


def test_an_empty_shard_among_full_ones_of_another_tool(tmp_path):
    for number in range(3):
        items = [record(10 * number + n) for n in range(5)] if number != 1 else []
        write(tmp_path / f"train-{number:05d}-of-00003.tfrecord", items)
    source = shards.RecordSource(str(tmp_path), "train", 0, 1, True, "object")
    with pytest.raises(ValueError, match="00001-of-00003.tfrecord has 0 bytes, while the other 2"):
        source.check(LABELS)


def test_each_record_to_evaluate_on_has_an_id_of_its_own(tmp_path):
    for number in range(2):
        items = [record(10 * number + n) for n in range(3)]
        write(tmp_path / f"val-{number:05d}-of-00002.tfrecord", items)
    assert split_ground_truth(tmp_path, "val", LABELS).image_ids.tolist() == [0, 1, 2, 10, 11, 12]
    write(tmp_path / "val-00001-of-00002.tfrecord", [record(10), record(2)])
    place = r"val-00001-of-00002.tfrecord: record 1 has the image/source_id 2, which record 2 of "
    with pytest.raises(ValueError, match=place + r".*val-00000-of-00002.tfrecord"):
        split_ground_truth(tmp_path, "val", LABELS)


def test_files_without_any_record_are_nothing_to_evaluate_on(tmp_path):
    write(tmp_path / "val.tfrecord", [])
    with pytest.raises(ValueError, match="'val' in .* hold no record .such as val.tfrecord"):
        split_ground_truth(tmp_path, "val", LABELS)


def test_annotations_are_those_of_the_records(converted):
    label_map = load_label_map(converted)
    assert split_ground_truth(converted, "coco_val", label_map).num_images == 7
    path = converted / "coco_val.annotations.json"
    content = json.loads(path.read_text())
    whole = json.dumps(content)

    def refused(message):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            split_ground_truth(converted, "coco_val", label_map)
        content.clear()
        content.update(json.loads(whole))

    removed = content["images"].pop()["id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != removed]
    refused("lists 6 images, but the record files of coco_val hold 7")
    content["annotations"].pop()
    refused(r"lists \d+ objects, but the record files")
    one, two = content["categories"][:2]
    one["name"], two["name"] = two["name"], one["name"]
    refused("calls the category 1 .* but the label map calls it")
    ids = [a["category_id"] for a in content["annotations"]]
    other = next(i for i in label_map.ids if i != ids[0])
    content["annotations"][0]["category_id"] = other
    refused("objects of the category .* but the record files of coco_val hold")


def test_an_evaluation_says_which_boxes_of_the_records_have_no_area(tmp_path):
    boxes = [[0.1, 0.2, 0.1, 0.6], [0.25, 0.5, 0.75, 1.0]]
    write(tmp_path / "val.tfrecord", [record(1), record(2, boxes), record(3, boxes)])
    truth = split_ground_truth(tmp_path, "val", LABELS)
    assert truth.num_objects == 4
    assert truth.notes == {"boxes of the records have no area and are left out": 2}


def test_annotations_as_downloaded_beside_records_of_the_tpu_tools(tmp_path):
    boxes = [[0.1, 0.2, 0.5, 0.6], [0.25, 0.5, 0.75, 1.0]]
    ones = [record(n, boxes[:n], labels=(1,) * n, texts=None) for n in (1, 2)]
    write(tmp_path / "val-00000-of-00001.tfrecord", ones)
    raw = tmp_path / "raw-data" / "annotations"
    raw.mkdir(parents=True)
    content = {
        "images": [{"id": number, "height": 8, "width": 8} for number in (1, 2, 3)],
        "categories": LABELS.to_categories(),
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": 1,
                "bbox": [1, 1, 3, number],
                "area": 5.5,
            }
            | {"iscrowd": 0}
            for number, image in enumerate((1, 2, 2, 3), 1)
        ],
    }
    path = raw / "instances_val2017.json"
    path.write_text(json.dumps(content))
    truth = split_ground_truth(tmp_path, "val", LABELS)
    # Its areas are those of the outlines, which records of these tools may not hold.
    assert truth.num_images == 3 and truth.areas.tolist() == [5.5] * 4
    assert truth.notes == {
        f"images of {path} are in no record": 1,
        f"objects of {path} are in no record": 1,
    }
    # Records that hold more than these annotations are of another data set.
    content["images"].pop(0)
    content["annotations"] = content["annotations"][1:2]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="lists 1 objects, but the record files of val hold 3"):
        split_ground_truth(tmp_path, "val", LABELS)


# --- label maps ------------------------------------------------------------------------------


def test_a_label_map_one_folder_above(tmp_path):
    inside = tmp_path / "tfrecords"
    write(inside / "train-00000-of-00001.tfrecord", [record()])
    write_labels(tmp_path, name="mscoco_label_map.pbtxt")
    label_map, note = find_label_map(inside)
    assert label_map.names == ("cat", "dog")
    assert note.endswith(f"the one above it is used: {tmp_path / 'mscoco_label_map.pbtxt'}")
    # The folder's own comes first, and nothing is to be said.
    write_labels(inside, ("emu", "gnu"))
    assert find_label_map(inside) == (LabelMap(["emu", "gnu"]), None)
    (inside / "pipeline.pbtxt").write_text("model {}")
    assert find_label_map(inside)[0].names == ("emu", "gnu")
    write_labels(inside, name="old_labels.pbtxt")
    with pytest.raises(FileNotFoundError, match="holds 3 files .*Which one is the label map"):
        find_label_map(inside)


def test_a_label_map_above_a_link_to_the_records(tmp_path):
    write(tmp_path / "elsewhere" / "tfrecords" / "train-00000-of-00001.tfrecord", [record()])
    linked = tmp_path / "coco2017_tfrecords"
    linked.mkdir()
    write_labels(linked, name="mscoco_label_map.pbtxt")
    (linked / "tfrecords").symlink_to(tmp_path / "elsewhere" / "tfrecords")
    label_map, note = find_label_map(linked / "tfrecords")
    assert label_map.names == ("cat", "dog") and str(linked / "mscoco_label_map.pbtxt") in note


@pytest.mark.parametrize(
    ("labels", "texts"),
    [
        ((1, 90), None),
        ((1, 3), ("person", "car")),
        (None, ("traffic light", "toothbrush")),
    ],
)
def test_coco_is_recognised_where_its_label_map_is_missing(tmp_path, labels, texts):
    write(tmp_path / "train-00000-of-00001.tfrecord", [record(1, labels=labels, texts=texts)])
    label_map, note = find_label_map(tmp_path)
    assert label_map == LabelMap.coco()
    assert "the 80 classes of COCO are assumed" in note


def test_data_that_lie_below_or_are_not_converted_are_named(tmp_path):
    LABELS.to_pbtxt(tmp_path / "birds" / LABEL_MAP_NAME)
    with pytest.raises(FileNotFoundError, match=f"lie below it: {tmp_path / 'birds'}\\."):
        load_label_map(tmp_path)
    raw = tmp_path / "yolo"
    raw.mkdir()
    (raw / "data.yaml").write_text("names: [bird]")
    with pytest.raises(FileNotFoundError, match=f"train --annotations={raw / 'data.yaml'}`"):
        load_label_map(raw)


@pytest.mark.parametrize(
    ("labels", "texts"),
    [
        ((1, 2), None),  # Of any data set.
        ((1, 12), None),  # COCO has no 12.
        ((12, 90), None),
        ((1, 91), None),
        ((1, 90), ("person", "emu")),
        ((3, 1), ("person", "car")),
        (None, ("person", "emu")),
        ((0, 90), None),
    ],
)
def test_other_records_without_a_label_map_are_refused(tmp_path, labels, texts):
    write(tmp_path / "train-00000-of-00001.tfrecord", [record(1, labels=labels, texts=texts)])
    with pytest.raises(FileNotFoundError, match="which is not COCO alone.*copy their label map"):
        load_label_map(tmp_path)


def test_annotations_where_records_are_expected_are_told(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").touch()
    told = "holds annotations/instances_train.json, and no records: .*train --annotations=FILE"
    with pytest.raises(FileNotFoundError, match=told):
        load_label_map(tmp_path)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist. Set --data_dir"):
        load_label_map(tmp_path / "nowhere")
