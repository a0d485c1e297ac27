import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_centernet.data import pipeline, records, shards
from ssd_centernet.data.augment import ssd as augment
from ssd_centernet.data.batch_shapes import FILLER_ID
from ssd_centernet.data.scan import summarize
from ssd_centernet.labels import LabelMap
from ssd_centernet.ops import image as image_ops

LABELS = LabelMap(["cat", "dog", "cow"], [1, 2, 4])
SIZE = (24, 32)


def jpeg(number, height=40, width=56):
    rng = np.random.default_rng(number)
    image = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).resize((width, height))
    data = io.BytesIO()
    image.save(data, "JPEG")
    return data.getvalue()


def record(number, count=2, crowds=0, **changes):
    rng = np.random.default_rng(number)
    start = rng.uniform(0, 0.5, (count, 2))
    example = {
        "encoded": jpeg(number),
        "format": "jpeg",
        "filename": f"{number}.jpg",
        "source_id": number,
        "height": 40,
        "width": 56,
        "boxes": np.concatenate([start, start + rng.uniform(0.2, 0.5, (count, 2))], axis=1),
        "labels": rng.choice([1, 2, 4], count),
        "is_crowd": [index < crowds for index in range(count)],
        **changes,
    }
    return records.encode_example(example)


def write(folder, serialized, num_shards=1, split="coco_train"):
    for shard in range(num_shards):
        path = folder / f"{split}.record-{shard:05d}-of-{num_shards:05d}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for item in serialized[shard::num_shards]:
                writer.write(item)
    return str(folder)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    # 13 images in 4 files; two of them (3 and 8) have no box.
    items = [record(n, count=0 if n in (3, 8) else 1 + n % 4) for n in range(13)]
    return write(tmp_path_factory.mktemp("data"), items, 4)


# Uncompiled: each data set would compile again, which takes longer than these tests.
CHAIN = augment.SSDAugment(SIZE, compiled=False)
PLAIN = augment.SSDAugment(SIZE, crop=False, flip_probability=0.0, jitter=False, compiled=False)


def training(data_dir, **changes):
    arguments = {"label_map": LABELS, "batch_size": 2, "augment": PLAIN, "max_boxes": 6, **changes}
    return pipeline.training_batches(data_dir, **arguments)


def examples(dataset, count):
    """Return the first `count` examples of batches of one key each, as a dict of arrays."""
    batches = dataset.unbatch().batch(count).take(1)
    return next(batches.as_numpy_iterator())


def preprocess(image):
    resized = image_ops.resize_legacy_bilinear(image, SIZE) / 255.0
    return image_ops.normalize(resized, augment.IMAGENET_MEAN, augment.IMAGENET_STD)


def evaluation(data_dir, **changes):
    arguments = {"label_map": LABELS, "preprocess": preprocess, "split": "coco_train", **changes}
    return pipeline.evaluation_batches(data_dir, **arguments)


def assert_same(one, two):
    tf.nest.assert_same_structure(one, two)
    for left, right in zip(tf.nest.flatten(one), tf.nest.flatten(two), strict=True):
        np.testing.assert_array_equal(left, right)


def test_all_shapes_are_static(data_dir):
    def targets(boxes, classes, is_crowd, extent):
        del classes, is_crowd, extent
        return {"sum": tf.reduce_sum(boxes), "fixed": tf.zeros([7, 2])}

    spec = training(data_dir, make_targets=targets, dtype="bfloat16").element_spec
    assert all(item.shape.is_fully_defined() for item in tf.nest.flatten(spec))
    assert spec["image"] == tf.TensorSpec((2, *SIZE, 3), tf.bfloat16)
    assert spec["targets"]["fixed"].shape == (2, 7, 2)
    assert spec["boxes"].shape == (2, 6, 4) and spec["valid"].dtype == tf.bool
    assert spec["source_id"].dtype == tf.int64 and spec["classes"].dtype == tf.int32
    spec = evaluation(data_dir, batch_size=5, max_boxes=9).element_spec
    assert all(item.shape.is_fully_defined() for item in spec.values())
    assert spec["area"].shape == (5, 9)


def test_values_reach_the_batch(data_dir):
    got = examples(training(data_dir), 11)
    row = list(got["source_id"]).index(7)
    want = records.parse_example(record(7, count=4), LABELS)
    np.testing.assert_allclose(got["boxes"][row, :4], want["boxes"], atol=1e-6)
    np.testing.assert_array_equal(got["boxes"][row, 4:], 0)
    np.testing.assert_array_equal(got["classes"][row, :4], want["classes"])
    np.testing.assert_allclose(got["area"][row, :4], want["area"], rtol=1e-5)
    np.testing.assert_array_equal(got["valid"][row], [True] * 4 + [False] * 2)
    assert (got["height"][row], got["width"][row]) == (40, 56)
    np.testing.assert_allclose(
        got["image"][row], preprocess(image_ops.decode_image(want["encoded"])), atol=1e-5
    )


def test_an_epoch_has_every_image_with_boxes_once(data_dir):
    ids = examples(training(data_dir), 33)["source_id"].reshape(3, 11)
    want = [n for n in range(13) if n not in (3, 8)]
    for epoch in ids:
        assert sorted(epoch) == want
    assert len({tuple(epoch) for epoch in ids}) == 3
    assert pipeline.count_examples(data_dir) == 11
    everything = examples(training(data_dir, keep_empty=True, augment=CHAIN), 13)
    assert sorted(everything["source_id"]) == list(range(13))
    assert pipeline.count_examples(data_dir, keep_empty=True) == 13


@pytest.mark.parametrize("cache", [False, True])
def test_start_example_continues_the_stream_bit_for_bit(data_dir, cache):
    options = {"augment": CHAIN, "cache": cache, "shuffle_buffer": 4, "seed": 3}
    whole = examples(training(data_dir, **options), 40)
    assert np.ptp(whole["image"].std(axis=(1, 2, 3))) > 0
    for start in (1, 25):
        part = examples(training(data_dir, start_example=start, **options), 14)
        assert_same(part, {key: value[start : start + 14] for key, value in whole.items()})


@pytest.mark.parametrize("weights", [None, (1.0,)], ids=["plain", "mixture"])
def test_what_a_resumed_epoch_skips_is_not_read(tmp_path, weights):
    options = {"data_weights": weights, "shuffle_buffer": 3}
    items = [record(number) for number in range(20)]
    folder = write(tmp_path, items, 2)
    whole = examples(training(folder, **options), 20)
    for shard in range(2):
        path = tmp_path / f"coco_train.record-{shard:05d}-of-00002"
        data = bytearray(path.read_bytes())
        places = summarize(path).places
        for place, number in zip(places, range(shard, 20, 2), strict=True):
            if number in whole["source_id"][:12]:
                # A byte in the middle of the picture: only its checksum tells.
                data[place + len(items[number]) // 2] ^= 1
        path.write_bytes(data)
    rest = examples(training(folder, start_example=12, **options), 8)
    assert_same(rest, {key: value[12:] for key, value in whole.items()})
    # What is read is still compared with its checksum.
    with pytest.raises(tf.errors.DataLossError):
        examples(training(folder, start_example=11, **options), 8)


def test_compressed_files_resume_bit_for_bit(tmp_path):
    path = tmp_path / "coco_train.record-00000-of-00001"
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for number in range(13):
            writer.write(record(number))
    whole = examples(training(str(tmp_path), shuffle_buffer=4), 26)
    part = examples(training(str(tmp_path), shuffle_buffer=4, start_example=16), 10)
    assert_same(part, {key: value[16:] for key, value in whole.items()})


def test_an_augmentation_of_ones_own_may_have_control_flow(data_dir):
    def blank_every_other(example, seed):
        example = PLAIN(example, seed)
        if seed[1] % 2 == 0:
            example["image"] = -tf.ones_like(example["image"])
        return example

    plain = examples(training(data_dir), 6)
    changed = examples(training(data_dir, augment=blank_every_other), 6)
    blank = np.all(changed["image"] == -1.0, axis=(1, 2, 3))
    assert 0 < blank.sum() < 6
    assert_same(changed["image"][~blank], plain["image"][~blank])
    assert_same(changed["boxes"], plain["boxes"])


def test_seed_decides_and_the_global_seed_does_not(data_dir):
    one = examples(training(data_dir, augment=CHAIN, seed=1), 16)
    tf.random.set_seed(0)
    assert_same(one, examples(training(data_dir, augment=CHAIN, seed=1), 16))
    two = examples(training(data_dir, augment=CHAIN, seed=2), 16)
    assert list(one["source_id"]) != list(two["source_id"])
    # The same image differs from epoch to epoch.
    rows = np.flatnonzero(one["source_id"] == one["source_id"][11])
    assert len(rows) == 2
    assert np.abs(one["image"][rows[0]] - one["image"][rows[1]]).max() > 0.05


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_the_records_out(data_dir, world_size, deterministic):
    # Two ranks divide the 4 files; 3 and 5 ranks divide the records.
    epochs = ([], [])
    for rank in range(world_size):
        count = pipeline.count_examples(data_dir, rank=rank, world_size=world_size)
        ranks = {"rank": rank, "world_size": world_size}
        # One call at a time: several may bring an example of the next epoch forward.
        options = {"batch_size": 1, "num_parallel_calls": 1, "deterministic": deterministic}
        dataset = training(data_dir, **options, **ranks)
        ids = examples(dataset, 2 * count)["source_id"]
        epochs[0].extend(ids[:count])
        epochs[1].extend(ids[count:])
    for epoch in epochs:
        assert sorted(epoch) == [n for n in range(13) if n not in (3, 8)]


def test_ranks_resume_and_do_not_share_seeds(data_dir):
    options = {"augment": CHAIN, "batch_size": 1, "world_size": 3}
    whole = examples(training(data_dir, rank=1, **options), 12)
    part = examples(training(data_dir, rank=1, start_example=6, **options), 6)
    assert_same(part, {key: value[6:] for key, value in whole.items()})

    def seeds_as_fields(example, seed):
        fields = {"source_id": seed[1], "height": tf.cast(seed[0], tf.int32)}
        return {**PLAIN(example, seed), **fields}

    taken = set()
    for rank in range(3):
        options = {"augment": seeds_as_fields, "batch_size": 1, "world_size": 3}
        got = examples(training(data_dir, rank=rank, **options), 6)
        taken.update(zip(got["height"].tolist(), got["source_id"].tolist(), strict=True))
    assert len(taken) == 18


@pytest.mark.parametrize("batch_size", [1, 4, 13, 16])
@pytest.mark.parametrize("world_size", [1, 3])
def test_evaluation_counts_every_image_once(data_dir, batch_size, world_size):
    ids = []
    for rank in range(world_size):
        batches = evaluation(data_dir, batch_size=batch_size, rank=rank, world_size=world_size)
        got = np.concatenate([batch["source_id"] for batch in batches])
        real = got[got != FILLER_ID]
        assert len(got) == -(-len(real) // batch_size) * batch_size
        ids.extend(real)
    assert sorted(ids) == list(range(13))


def test_filler_is_empty(data_dir):
    *_, last = evaluation(data_dir, batch_size=8)
    np.testing.assert_array_equal(last["source_id"][5:], [-1, -1, -1])
    assert not last["image"][5:].numpy().any() and not last["valid"][5:].numpy().any()


def test_three_images_fill_batches_of_eight(tmp_path):
    folder = write(tmp_path, [record(n) for n in range(3)])
    ids = examples(training(folder, batch_size=8), 24)["source_id"]
    assert (np.bincount(ids) == 8).all()


def test_more_boxes_than_max_boxes(tmp_path):
    folder = write(tmp_path, [record(1, count=9)])

    def targets(boxes, classes, is_crowd, extent):
        del classes, is_crowd, extent
        return {"count": tf.shape(boxes)[0]}

    batch = next(iter(training(folder, make_targets=targets, max_boxes=4)))
    assert batch["valid"].numpy().all() and batch["boxes"].shape == (2, 4, 4)
    np.testing.assert_array_equal(batch["targets"]["count"], [9, 9])
    batch = next(iter(evaluation(folder, batch_size=1, max_boxes=4)))
    want = records.parse_example(record(1, count=9), LABELS)["boxes"][:4]
    np.testing.assert_array_equal(batch["boxes"][0], want)


def test_crowd_choices(tmp_path):
    items = [record(1, count=3, crowds=1), record(2, count=1, crowds=1), record(3)]
    folder = write(tmp_path, items)

    def first_epoch(crowd, count):
        got = examples(training(folder, crowd=crowd, batch_size=1), count)
        assert pipeline.count_examples(folder, crowd=crowd) == count
        order = np.argsort(got["source_id"])
        return {key: value[order] for key, value in got.items()}

    got = first_epoch("object", 3)
    assert got["valid"].sum() == 6 and not got["is_crowd"].any()
    got = first_epoch("drop", 2)
    assert list(got["source_id"]) == [1, 3] and got["valid"].sum() == 4
    got = first_epoch("ignore", 2)
    assert got["valid"].sum() == 5
    np.testing.assert_array_equal(got["is_crowd"][0], [True] + [False] * 5)


def test_scan_counts_what_parsing_keeps(tmp_path):
    # The second has no height, the third lies on the border, the last is beyond it by rounding.
    boxes = [[0.1, 0.1, 0.5, 0.5], [0.2, 0.2, 0.2, 0.4], [1, 0.1, 1.01, 0.3], [0.5, 0.1, 1.01, 0.7]]
    items = [
        record(1, count=4, boxes=boxes, crowds=1),
        record(2, count=0),
        record(3, count=2, crowds=2),
        record(4, count=1, boxes=[[0.5, 0.1, 0.49999, 0.5]]),
    ]
    folder = write(tmp_path, items)
    summary = summarize(shards.find_shards(folder, "coco_train")[0])
    got = list(zip(summary.boxes.tolist(), summary.crowds.tolist(), strict=True))
    parsed = [records.parse_example(item, LABELS) for item in items]
    want = [(len(item["boxes"]), int(item["is_crowd"].numpy().sum())) for item in parsed]
    assert got == want == [(2, 1), (0, 0), (2, 2), (0, 0)]


def test_missing_and_mixed_files_are_named(tmp_path, data_dir):
    with pytest.raises(FileNotFoundError, match="does not exist.*--data_dir"):
        training(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="coco_val.*coco_train"):
        training(data_dir, split="coco_val")
    write(tmp_path, [record(1), record(2)], 2)
    (tmp_path / "coco_train.record-00001-of-00002").rename(tmp_path / "kept")
    with pytest.raises(FileNotFoundError, match="1 of 2 shards.*number 1"):
        training(str(tmp_path))
    (tmp_path / "kept").rename(tmp_path / "coco_train.record-00001-of-00002")
    write(tmp_path, [record(1)], 1)
    with pytest.raises(ValueError, match="shard counts"):
        training(str(tmp_path))


def test_names_of_model_garden_are_found(tmp_path):
    for name in ("train-00000-of-00001.tfrecord", "val-00000-of-00001"):
        with tf.io.TFRecordWriter(str(tmp_path / name)) as writer:
            writer.write(record(5))
    assert len(shards.find_shards(str(tmp_path), "train")) == 1
    assert len(shards.find_shards(str(tmp_path), "val")) == 1


def test_damaged_files_are_named(tmp_path):
    folder = write(tmp_path, [record(1), record(2)])
    path = tmp_path / "coco_train.record-00000-of-00001"
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    with pytest.raises(ValueError, match="00000-of-00001: record 1 .*ends inside"):
        pipeline.count_examples(folder)
    path.write_bytes(b"not a record file, but text of some length")
    with pytest.raises(ValueError, match="record 0 at byte 0"):
        training(folder)
    # A flipped byte in the image of the second record: only its checksum tells.
    middle = data.index(jpeg(2)) + 300
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :])
    with pytest.raises(tf.errors.DataLossError):
        examples(training(folder), 3)


def test_evaluation_names_a_file_that_is_cut_short(tmp_path):
    """Tensorflow's own error, in mid-reading, does not say which file it is."""
    folder = write(tmp_path, [record(n) for n in range(4)], 2)
    path = tmp_path / "coco_train.record-00001-of-00002"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="00001-of-00002: record 1 at byte .* is damaged"):
        evaluation(folder)


def test_undecodable_images_are_named_before_the_first_batch(tmp_path):
    folder = write(tmp_path, [record(1), record(2, encoded=jpeg(2)[:200]), record(3)])
    for read in (training, evaluation):
        with pytest.raises(ValueError, match="record 1 .source_id '2'.: image/encoded .200 bytes"):
            read(folder)


def test_data_without_any_box_is_refused(tmp_path):
    folder = write(tmp_path, [record(n, count=0) for n in range(3)])
    with pytest.raises(ValueError, match="no image for rank 0.*keep_empty=True"):
        training(folder)
    assert examples(training(folder, keep_empty=True), 3)["valid"].sum() == 0


def test_wrong_arguments_are_named(data_dir):
    for name, value in (
        ("batch_size", 0),
        ("rank", 1),
        ("crowd", "keep"),
        ("start_example", -1),
        ("image_size", (300, 300)),
    ):
        with pytest.raises(ValueError, match=name):
            training(data_dir, **{name: value})

    def ragged(boxes, classes, is_crowd, extent):
        del classes, is_crowd, extent
        return {"moving": boxes}

    with pytest.raises(ValueError, match="'moving'.*not static"):
        training(data_dir, make_targets=ragged)
