"""What is wrong in record files is found before training, with file, record, field and value."""

import struct
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.data import pipeline, records, shards, wire
from ssd_centernet.data.augment.ssd import SSDAugment
from ssd_centernet.data.scan import summarize
from ssd_centernet.labels import LabelMap
from ssd_centernet.recipe import Recipe
from tests.data.foreign import BOXES, feature, picture, record, write

LABELS = LabelMap(["cat", "dog"])
AUGMENT = SSDAugment((24, 32), compiled=False)
PIXELS = [[3.0, 8.0, 15.0, 24.0], [7.5, 20.0, 22.5, 40.0]]


def train_on(folder, **options):
    arguments = {"label_map": LABELS, "batch_size": 1, "augment": AUGMENT, "split": "train"}
    return pipeline.training_batches(str(folder), **arguments, **options)


def refused(folder, bad, message, number=2):
    """Write a file whose record 2 is `bad`; training must name it."""
    items = [record(11), record(12), record(13)]
    items[number] = bad
    path = write(folder / "train.tfrecord", items)
    with pytest.raises(ValueError, match=message) as error:
        train_on(folder)
    assert f"{path}: record {number}" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (PIXELS, r"bbox/ymin is 3; expected fractions 0..1 .* got 3: per cent, or pixels\?"),
        # Objects in the corner of the picture: clipped they would cover it.
        ([[0, 0, 300, 250], [0, 0, 120.5, 80]], r"bbox/ymax is 300; .* got 300: pixels\?"),
        ([[0.0, 0.0, 1.0, 0.5], [10.0, 20.0, 50.0, 60.0]], r"bbox/ymin is 10; .*per cent"),
        ([[0.1, 0.1, 0.5, 0.5], [0.1, -0.3, 0.5, 0.5]], r"bbox/xmin is -0.3; .*beyond the pict"),
        ([[0.1, 0.1, 1.3, 0.5], [0.1, 0.2, 0.5, 0.5]], r"bbox/ymax is 1.3; .*beyond the picture"),
        ([[0.1, 0.1, np.nan, 0.5], [0, 0, 0.5, 0.5]], r"bbox/ymax is nan; .*a number is missing"),
        ([[0.1, 0.1, 0.5, 0.5], [0, np.inf, 0.5, 0.5]], r"bbox/xmin is inf; .*number is missing"),
        ([[0.5, 0.1, 0.2, 0.5], [0, 0, 0.5, 0.5]], r"bbox/ymin is 0.5, above ymax 0.2; .*corner"),
        # A corner and a size.
        ([[0.1, 0.7, 0.5, 0.2], [0, 0, 0.5, 0.5]], r"bbox/xmin is 0.7, above xmax 0.2; .*a size"),
    ],
)
def test_corners_that_are_no_fractions(tmp_path, boxes, message):
    said = refused(tmp_path, record(77, boxes), message)
    assert "(source_id '77')" in said
    # A graph finds the same, without the file.
    with pytest.raises(tf.errors.InvalidArgumentError, match="(?s)no fractions .*77"):
        records.parse_example(record(77, boxes), LABELS)


def test_rounding_is_clipped_and_flat_boxes_are_left_out_and_said(tmp_path):
    # Two pixels of 40 x 30 are rounding; the second box has no height.
    boxes = [[-0.01, 0.1, 1.0 + 1.9 / 30, 1.04], [0.3, 0.1, 0.3, 0.5]]
    write(
        tmp_path / "train.tfrecord", [record(1), record(2, boxes), record(3, boxes[1:], [1], None)]
    )
    source = shards.RecordSource(str(tmp_path), "train", 0, 1, False, "object")
    source.check(LABELS)
    (note,) = source.notes()
    assert note.startswith("2 boxes without an area in 2 images of train are left out (first: ")
    assert note.endswith("train.tfrecord: record 1 (source_id '2'))")
    np.testing.assert_array_equal(source.objects(), [2, 1, 0])
    assert source.count() == 2
    got = records.parse_example(record(2, boxes), LABELS)
    np.testing.assert_allclose(got["boxes"], [[0.0, 0.1, 1.0, 1.0]])
    # A height that rounding made a little negative is no height.
    got = records.parse_example(record(2, [[0.5, 0, 0.49995, 1.0]], [1], None), LABELS)
    assert got["boxes"].shape == (0, 4)


def test_a_file_that_is_there_twice_is_said(tmp_path):
    items = [record(7), record(8), record(9, source_id=[""])]
    write(tmp_path / "train-00000-of-00002", items)
    write(tmp_path / "train-00001-of-00002", items)
    source = shards.RecordSource(str(tmp_path), "train", 0, 1, False, "object")
    assert source.notes() == [
        "2 image ids of train occur more than once, such as '7': is a record file there twice?"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": (1,)}, "class/label has 1 values but there are 2 boxes"),
        ({"labels": (1, 2, 2)}, "class/label has 3 values but there are 2 boxes"),
        ({"texts": ("cat",)}, "class/text has 1 values but there are 2 boxes"),
        ({"object__is_crowd": [0]}, "is_crowd has 1 values but there are 2 boxes"),
        ({"object__is_crowd": [0, 1, 0]}, "is_crowd has 3 values but there are 2 boxes"),
        ({"object__area": [20.0]}, "area has 1 values but there are 2 boxes"),
        ({"object__is_crowd": [0, -1]}, "is_crowd holds -1; expected 0 or 1"),
        ({"object__is_crowd": [2, 0]}, "is_crowd holds 2; expected 0 or 1"),
        ({"object__area": [20.0, float("nan")]}, r"area holds nan; expected pixels\^2"),
        ({"object__area": [-1.0, 5.0]}, "area holds -1; expected"),
        ({"object__bbox__xmax": [0.9]}, "ymin has 2 values but image/object/bbox/xmax has 1"),
        ({"object__bbox__ymin": None}, "ymin has 0 values but image/object/bbox/xmin has 2"),
        ({"labels": None, "texts": None}, "2 boxes, but neither image/object/class/label nor"),
        # Kinds of values.
        ({"labels": (1.0, 2.0)}, "class/label holds floats; expected whole numbers"),
        ({"labels": ("1", "2")}, "class/label holds texts; expected whole numbers"),
        ({"object__bbox__xmax": [1, 1]}, "xmax holds whole numbers; expected floats"),
        ({"texts": (1, 2)}, "class/text holds whole numbers; expected texts"),
        ({"encoded": [3]}, "image/encoded holds whole numbers; expected texts"),
        ({"encoded": None}, "image/encoded holds 0; expected one JPEG"),
        ({"encoded": [b""]}, "image/encoded holds an empty text; expected one JPEG"),
        ({"filename": ["a.jpg", "b.jpg"]}, "image/filename has 2 values; expected one"),
        ({"source_id": [7]}, "image/source_id holds whole numbers; expected texts"),
        ({"height": [30, 30]}, "image/height has 2 values; expected one"),
        ({"height": [40], "width": [30]}, "say 40 x 30, but the picture has 30 x 40 .*EXIF"),
    ],
)
def test_fields_of_other_lengths_and_kinds(tmp_path, changes, message):
    refused(tmp_path, record(5, **changes), message)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (picture()[:200], "cannot be decoded"),
        (picture(kind="PNG")[:-30], "cannot be decoded"),
        (b"GIF89a, but nothing after it", "cannot be decoded"),
        (b"/data/images/1.jpg", r"\(18 bytes\) cannot be decoded: .*Expected a whole JPEG"),
    ],
)
def test_pictures_that_are_cut_short_are_named_before_training(tmp_path, encoded, message):
    refused(tmp_path, record(5, encoded=[encoded]), f"record 2 .source_id '5'.: .*{message}")


def test_bytes_after_a_picture_do_no_harm(tmp_path):
    write(tmp_path / "train.tfrecord", [record(1, encoded=[picture() + b"\0" * 100])])
    assert next(iter(train_on(tmp_path)))["source_id"] == 1


def test_a_picture_that_breaks_in_its_middle_is_named_when_it_is_read(tmp_path):
    data = bytearray(picture(kind="PNG"))
    data[60] ^= 0x55
    path = write(tmp_path / "train.tfrecord", [record(1), record(9, encoded=[bytes(data)])])
    batches = train_on(tmp_path)
    with pytest.raises(ValueError, match="cannot be decoded") as error:
        with shards.failures_named(tmp_path, ["train"]):
            for _ in zip(range(3), batches, strict=False):
                pass
    assert f"{path}: record 1 (source_id '9')" in str(error.value)


def test_a_flipped_byte_names_the_record(tmp_path):
    path = write(tmp_path / "train.tfrecord", [record(1), record(2)])
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="train.tfrecord: record 1 is damaged: its checksum"):
        with shards.failures_named(tmp_path, ["train"]):
            list(shards.read_records([str(path)]))
    # A length that was changed is found without reading the record.
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="record 0 at byte 0 is damaged"):
        train_on(tmp_path)


def test_a_bomb_is_refused_by_its_header(tmp_path):
    head = bytearray(picture(kind="PNG"))
    head[16:24] = struct.pack(">II", 40_000, 30_000)
    said = refused(tmp_path, record(6, encoded=[bytes(head)], height=None), "1,200,000,000 pixels")
    assert "expected at most 89,478,485" in said


@pytest.mark.parametrize(
    ("labels", "texts", "message"),
    [
        ((1, 2), ("dog", "cat"), "label is 1, .* calls 'cat', but .*text is 'dog', .* id 2 there"),
        ((1, 1), ("cat", "dog"), "label is 1, .* calls 'cat', but .*text is 'dog', .* id 2"),
        ((1, 2), ("person", "dog"), "label is 1, which the label map calls 'cat', .*'person'; exp"),
        ((1, 7), ("cat", "emu"), "label 7, whose .*text is 'emu', is not in the label map"),
        ((0, 1), None, "label 0 is not in the label map"),
        ((1, -5), None, "label -5 is not in the label map"),
        ((1, -(1 << 63)), ("cat", "dog"), "label -9223372036854775808, .* is not in the label map"),
        (None, ("cat", "gnu"), "text is 'gnu' and there is no label; expected a name of"),
        (None, ("cat", "Dog"), "text is 'Dog' and there is no label; .* Is it 'dog'"),
    ],
)
def test_texts_and_labels_that_disagree(tmp_path, labels, texts, message):
    refused(tmp_path, record(5, labels=labels, texts=texts), message)


def test_a_text_beside_several_labels_is_a_filler(tmp_path):
    items = [record(1, labels=(1, 2), texts=("x", "x")), record(2, labels=(2, 1), texts=("", "x"))]
    write(tmp_path / "train.tfrecord", items)
    train_on(tmp_path)
    assert [records.parse_example(item, LABELS)["classes"].numpy().tolist() for item in items] == [
        [0, 1],
        [1, 0],
    ]
    # Beside one label alone it may be the name that another label map gives it.
    refused(tmp_path, record(5, labels=(1, 1), texts=("cat", "x")), "calls 'cat', but .* is 'x'")


def test_spelling_and_other_names_make_no_difference(tmp_path):
    label_map = LabelMap(["traffic light", "dog"], other_names={2: "/m/0bt9lr"})
    write(
        tmp_path / "train.tfrecord",
        [
            record(1, texts=("Traffic_Light", "/m/0bt9lr")),
            record(2, texts=("traffic-light ", "DOG")),
            record(3, texts=("", "")),
            record(4, labels=None, texts=("traffic light", "/m/0bt9lr")),
        ],
    )
    source = shards.RecordSource(str(tmp_path), "train", 0, 1, False, "object")
    source.check(label_map)
    got = records.parse_example(record(4, labels=None, texts=("dog", "/m/0bt9lr")), label_map)
    np.testing.assert_array_equal(got["classes"], [1, 1])


def test_counts_are_those_of_parsing(tmp_path):
    """Unpacked and large values, long lists and empty ones, as any writer may write them."""
    many = [[0.01 * i, 0.0, 0.01 * i + 0.1, 0.5] for i in range(60)]
    crowds = [i % 3 == 0 for i in range(60)]
    items = [
        record(1, many, [1, 2] * 30, None, object__is_crowd=list(map(int, crowds))),
        record(2, [], [], []),
        record(3, [], None, None),
        record(4, labels=[300, 1_000_000], texts=None),
    ]
    path = write(tmp_path / "train.tfrecord", items)
    summary = summarize(path)
    np.testing.assert_array_equal(summary.boxes, [60, 0, 0, 2])
    np.testing.assert_array_equal(summary.crowds, [20, 0, 0, 0])
    assert set(summary.classes) == {(1, None), (2, None), (300, None), (1_000_000, None)}
    kinds = [list(summary.classes)[kind][0] for kind in summary.kinds]
    assert kinds == [1, 2] * 30 + [300, 1_000_000]
    assert wire.place(path, 3) == f"{path}: record 3 (source_id '4')"
    # A file that was replaced is counted anew.
    write(path, items[:1])
    np.testing.assert_array_equal(summarize(path).boxes, [60])


def test_lists_that_are_not_packed_are_read(tmp_path):
    """Protocol buffers of another writer: each value by itself."""
    values = (0.25, 0.5)
    loose = b"".join(b"\x0d" + struct.pack("<f", v) for v in values)
    message = bytes([wire.FLOATS, len(loose)]) + loose
    np.testing.assert_array_equal(
        np.frombuffer(wire.packed(message, (0, len(message)), wire.FLOATS), "<f4"), values
    )
    loose = b"\x08\x05\x08\xac\x02"  # 5 and 300.
    message = bytes([wire.INTS, len(loose)]) + loose
    assert wire.packed(message, (0, len(message)), wire.INTS) == b"\x05\xac\x02"
    whole = feature([1, 2]).SerializeToString()
    assert wire.packed(whole, (0, len(whole)), wire.INTS) == b"\x01\x02"


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_compressed_files_are_read_as_they_are(tmp_path, compression):
    items = [record(n, BOXES[: n % 3], [1, 2][: n % 3], None) for n in range(1, 8)]
    for shard in range(2):
        name = f"train-{shard:05d}-of-00002.tfrecord" + (".gz" if compression == "GZIP" else "")
        write(tmp_path / name, items[shard::2], compression)
    first = tmp_path / name
    assert wire.compression_of(str(first)) == compression
    assert pipeline.count_examples(str(tmp_path), split="train") == 5
    for cache in (False, True):
        batches = train_on(tmp_path, cache=cache)
        ids = [int(b["source_id"][0]) for _, b in zip(range(5), batches, strict=False)]
        assert sorted(ids) == [1, 2, 4, 5, 7]
    first.write_bytes(first.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"00001-of-00002\S*: record \d at byte \d+ is damaged"):
        train_on(tmp_path)


def test_files_of_a_split_that_are_compressed_in_two_ways(tmp_path):
    write(tmp_path / "train-00000-of-00002.tfrecord", [record(1)])
    write(tmp_path / "train-00001-of-00002.tfrecord", [record(2)], "GZIP")
    with pytest.raises(ValueError, match="compressed in 2 ways .*none.*GZIP"):
        train_on(tmp_path)


# --- limits ----------------------------------------------------------------------------------


def notes_of(folder, detector_limit, **settings):
    """Return what is said of the split to train on, where targets hold so many objects."""
    recipe = Recipe(train_split="train", **settings)
    batches = train_on(folder, max_boxes=4)
    limit = None if detector_limit is None else (detector_limit, "CenterNetLoss.max_boxes")
    detector = SimpleNamespace(
        object_limit=lambda: limit, pipeline_targets=lambda wanted: dict if wanted else None
    )
    return recipe.notes(detector, folder, batches)


@pytest.fixture
def crowded(tmp_path):
    """Images of 3, 5, 9 and 9 objects, of which some are crowd regions."""
    for shard, counts in enumerate(((3, 5), (9, 9))):
        items = []
        for number, count in enumerate(counts):
            boxes = [[0.0, 0.05 * i, 1.0, 0.05 * i + 0.1] for i in range(count)]
            crowds = [int(i < 5 and shard == 1) for i in range(count)]
            items.append(
                record(10 * shard + number, boxes, [1] * count, None, object__is_crowd=crowds)
            )
        write(tmp_path / f"train-{shard:05d}-of-00002", items)
    return tmp_path


def test_more_objects_than_batches_hold_are_said_with_the_setting(crowded):
    (note,) = notes_of(crowded, None)
    assert note == (
        "3 of 4 images of train have more than 4 objects (most: 9); the batches and their "
        "pictures hold the first ones: set training_batches.max_boxes = 9"
    )
    (note,) = notes_of(crowded, None, targets_in_pipeline=False)
    assert "the rest of theirs are left out of the batches: set training_batches.max_boxes" in note
    (note,) = notes_of(crowded, None, crowd="drop")
    assert note.startswith("1 of 4 images of train has more than 4 objects (most: 5)")


def test_more_objects_than_the_targets_hold_are_said_with_the_setting(crowded):
    _, note = notes_of(crowded, 8)
    assert note == (
        "2 of 4 images of train have more than 8 objects (most: 9); the rest of theirs are left "
        "out of the targets: set CenterNetLoss.max_boxes = 9"
    )
    assert len(notes_of(crowded, 9)) == 1
    assert notes_of(crowded, 4) == [
        "3 of 4 images of train have more than 4 objects (most: 9); the rest of theirs are left "
        "out: set training_batches.max_boxes = 9 and CenterNetLoss.max_boxes = 9"
    ]
