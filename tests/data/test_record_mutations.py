"""Records that were changed at random are read as TensorFlow reads them, or refused by place."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.data import records, shards
from ssd_centernet.labels import LabelMap
from tests.data.foreign import record, write

LABELS = LabelMap(["cat", "dog"])
FLOATS = ("bbox/ymin", "bbox/xmin", "bbox/ymax", "bbox/xmax", "area")
INTS = ("class/label", "is_crowd")
SEEDS = 30


def whole() -> tf.train.Example:
    # Its fields are put in order below, so that a seed means the same bytes in every process.
    one = record(object__is_crowd=[0, 1], object__area=[7.0, 9.0])
    return tf.train.Example.FromString(one)


def changed(rng) -> bytes:
    """A record of which one thing is changed."""
    example = whole()
    fields = example.features.feature
    name = str(rng.choice([*FLOATS, *INTS, "class/text"]))
    field = fields[f"image/object/{name}"]
    kind = "float_list" if name in FLOATS else "int64_list" if name in INTS else "bytes_list"
    values = getattr(field, kind).value
    place = int(rng.integers(len(values)))
    how = str(rng.choice(["value", "add", "remove", "kind", "missing", "empty", "bytes"]))
    others = {
        "float_list": [-0.5, 1.5, 300.0, float("nan"), float("inf"), 0.0, 1.0, 1e-9, -1e30],
        "int64_list": [0, 1, 2, 3, -1, 127, 128, 1 << 40, -(1 << 63)],
        "bytes_list": [b"", b"cat", b"dog", b"Dog", b"gnu", b"\xff\xfe", b"x" * 200],
    }[kind]
    if how == "value":
        values[place] = others[rng.integers(len(others))]
    elif how == "add":
        values.append(others[rng.integers(len(others))])
    elif how == "remove":
        del values[place]
    elif how == "kind":
        field.CopyFrom(tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"1", b"2"])))
    elif how == "missing":
        del fields[f"image/object/{name}"]
    elif how == "empty":
        field.CopyFrom(tf.train.Feature())
    data = bytearray(example.SerializeToString(deterministic=True))
    if how == "bytes":
        # Anywhere, but more often before and after the picture than in it.
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    return bytes(data)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_changed_record_is_read_as_it_is_or_refused_with_its_place(tmp_path, seed):
    rng = np.random.default_rng(seed)
    parse = tf.function(
        lambda one: records.parse_example(one, LABELS),
        input_signature=[tf.TensorSpec([], tf.string)],
    )
    refused = 0
    for number in range(40):
        path = write(tmp_path / f"train{number}.tfrecord", [record(1), changed(rng)])
        source = shards.RecordSource(str(tmp_path), f"train{number}", 0, 1, True, "object")
        try:
            source.check(LABELS)
        except ValueError as error:
            refused += 1
            assert f"{path}: record 1" in str(error), str(error)
            continue
        # What is not refused TensorFlow reads too, and counts the same.
        (_, last) = (parse(one) for one in shards.read_records([str(path)]))
        boxes = last["boxes"].numpy()
        assert len(boxes) == source.summaries[0].boxes[1]
        assert last["is_crowd"].numpy().sum() == source.summaries[0].crowds[1]
        assert np.isfinite(boxes).all() and (boxes >= 0).all() and (boxes <= 1).all()
        assert set(last["classes"].numpy()) <= {0, 1}
        assert np.isfinite(last["area"].numpy()).all()
    assert 8 <= refused <= 36
