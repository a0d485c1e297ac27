"""Builders of TensorFlow Datasets: their splits, ids, crowd regions and what cannot be read."""

import io
import json

import numpy as np
import pytest

from ssd_centernet.data.convert_formats import convert_annotations
from ssd_centernet.data.readers import detect_format, read_annotations
from ssd_centernet.data.readers.tfds import _CORNERS, find_builders, read_tfds
from ssd_centernet.labels import LabelMap
from tests.data.readers import own_set

tfds = pytest.importorskip("tensorflow_datasets", reason="tensorflow_datasets is not installed")


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """A builder like COCO's, with areas, crowd regions and ids, whose split is 'validation'."""
    inner = {"is_crowd": (np.bool_, True), "area": (np.int64, 9), "is_difficult": (np.bool_, False)}
    root = tmp_path_factory.mktemp("tfds")
    return own_set.write_tfds(root, split="validation", inner=inner, note=(np.int64, 5))


def test_areas_and_crowd_regions_are_those_of_the_builder(builder, tmp_path):
    info = convert_annotations(builder, tmp_path, split="val", progress=False)
    assert (info["num_images"], info["num_crowd"]) == (3, 3)
    assert own_set.truth_by_file(tmp_path, "val") == own_set.EXPECTED
    truth = json.loads((tmp_path / "coco_val.annotations.json").read_text())
    assert {one["area"] for one in truth["annotations"]} == {9}
    assert [image["file_name"] for image in truth["images"]] == list(own_set.BOXES)


def test_bytes_of_images_are_stored_as_they_are(builder, tmp_path):
    import tensorflow as tf

    convert_annotations(builder, tmp_path, split="val", num_shards=1, max_images=1, progress=False)
    (record,) = tf.data.TFRecordDataset(str(tmp_path / "coco_val.record-00000-of-00001"))
    stored = tf.train.Example.FromString(record.numpy()).features.feature["image/encoded"]
    original = builder.parents[2] / "images" / "a.jpg"
    assert stored.bytes_list.value[0] == original.read_bytes()


def test_ids_are_kept_and_difficult_objects_are_crowd_regions(tmp_path):
    path = own_set.write_tfds(
        tmp_path,
        inner={"is_difficult": (np.bool_, True)},
        **{"image/id": (np.int64, 7)},
    )
    # All three have the same id here: they are numbered.
    source = read_tfds(path, split="train")
    assert [image["id"] for image in source.content["images"]] == [1, 2, 3]
    assert all(one["iscrowd"] for one in source.content["annotations"])
    assert source.report.count("notes", "difficult: kept as a crowd region") == 3


def test_a_label_map_gives_the_ids(builder):
    label_map = LabelMap(("emu",), (17,))
    source = read_tfds(builder, split="val", label_map=label_map, drop_unknown=True)
    assert [one["category_id"] for one in source.content["annotations"]] == [17]
    with pytest.raises(ValueError, match="'cat' .2 boxes"):
        read_tfds(builder, split="val", label_map=label_map)


def test_builders_are_found_below_a_folder(builder, tmp_path):
    above = builder.parents[1]
    assert find_builders(above) == find_builders(builder) == [builder]
    assert detect_format(above) == "tfds"
    with pytest.raises(FileNotFoundError, match="no TFDS builder in"):
        read_tfds(tmp_path, split="train")
    for name in ("1.0.0", "2.0.0"):
        (tmp_path / "own" / name).mkdir(parents=True)
        (tmp_path / "own" / name / "dataset_info.json").touch()
    with pytest.raises(ValueError, match=r"holds 2 TFDS builders.*1\.0\.0, .*2\.0\.0\. Give one"):
        read_tfds(tmp_path, split="train")


def test_what_does_not_fit_is_told(builder):
    with pytest.raises(FileNotFoundError, match="no split 'train': it has validation"):
        read_tfds(builder, split="train")
    with pytest.raises(ValueError, match="leave out image_dir"):
        read_annotations(builder, image_dir=builder)
    with pytest.raises(ValueError, match="first_pixel is 0, .* tfds has a fixed first pixel"):
        read_annotations(builder, first_pixel=0)


def test_a_builder_without_objects_names_its_features(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    kinds = tfds.features
    features = {"image": kinds.Image(shape=(8, 8, 3)), "label": kinds.ClassLabel(num_classes=2)}
    examples = {"train": [{"image": image, "label": 1}]}
    folder = own_set.write_builder(tmp_path / "digits" / "1.0.0", features, examples)
    with pytest.raises(ValueError, match=r"no sequence of objects.*image \(Image\); label \(Cla"):
        read_tfds(folder, split="train")


def test_what_is_no_image_is_dropped_with_its_reason(tmp_path):
    kinds = tfds.features
    objects = kinds.Sequence(
        {"bbox": kinds.BBoxFeature(), "label": kinds.ClassLabel(names=list(own_set.NAMES))}
    )
    box = {"bbox": kinds.BBox(0.2, 0.25, 0.7, 0.75), "label": "emu"}
    (path,) = (own_set.write_images(tmp_path / "images", ["a.jpg"])).iterdir()
    images = (str(path), io.BytesIO(b"no image"), io.BytesIO(path.read_bytes()[:300]))
    folder = own_set.write_builder(
        tmp_path / "own" / "1.0.0",
        {"image": kinds.Image(shape=(None, None, 3)), "objects": objects},
        {"train": [{"image": image, "objects": [box]} for image in images]},
    )
    with pytest.raises(ValueError, match="2 of 3 images of the TFDS builder .*would be dropped"):
        convert_annotations(folder, tmp_path / "out", split="train", progress=False)
    info = convert_annotations(folder, tmp_path / "out", progress=False, max_dropped=0.7)
    assert (info["num_images"], info["num_objects"]) == (1, 1)
    dropped = info["report"]["dropped images"]
    assert dropped["not an image, or of a kind that Pillow cannot read"]["first"] == [
        "00000002.jpg"
    ]
    assert dropped["truncated or corrupt"]["first"] == ["00000003.jpg"]
    assert own_set.truth_by_file(tmp_path / "out") == {"00000001.jpg": [([10, 6, 20, 15], 2)]}


@pytest.mark.parametrize(
    ("kind", "box"),
    [
        ("REL_YXYX", (0.2, 0.25, 0.7, 0.75)),
        ("REL_XYXY", (0.25, 0.2, 0.75, 0.7)),
        ("YXYX", (6, 10, 21, 30)),
        ("XYXY", (10, 6, 30, 21)),
        ("XYWH", (10, 6, 20, 15)),
    ],
)
def test_corners_of_every_format(kind, box):
    np.testing.assert_allclose(_CORNERS[kind](box, 40, 30), (10, 6, 30, 21))
