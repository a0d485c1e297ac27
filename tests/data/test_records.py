"""Records: round trip, records of other tools, and each missing field."""

import hashlib
import inspect

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.data import records
from ssd_centernet.data.records import HASHED_ID_START, encode_example, parse_example
from ssd_centernet.labels import LabelMap

LABELS = LabelMap(["cat", "dog", "emu"], [1, 2, 4])


def jpeg(height=4, width=6) -> bytes:
    return tf.io.encode_jpeg(np.full([height, width, 3], 80, np.uint8)).numpy()


def example(**changes) -> dict:
    base = {
        "encoded": jpeg(),
        "format": "jpeg",
        "filename": "a.jpg",
        "source_id": "139",
        "height": 4,
        "width": 6,
        "boxes": [[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.5, 0.5]],
        "labels": [4, 1],
        "texts": ["emu", "cat"],
        "is_crowd": [False, True],
        "area": [2.5, 6.0],
    }
    return {**base, **changes}


def foreign(**features) -> bytes:
    """A record written field by field, as other tools do; keys have / for __."""
    made = {}
    for key, values in features.items():
        if isinstance(values[0], bytes):
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        elif isinstance(values[0], int):
            feature = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        else:
            feature = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        made["image/" + key.replace("__", "/")] = feature
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


BOX = {
    "object__bbox__ymin": [0.0],
    "object__bbox__xmin": [0.5],
    "object__bbox__ymax": [0.5],
    "object__bbox__xmax": [1.0],
}


def parse(serialized, lookup=LABELS) -> dict:
    dataset = tf.data.Dataset.from_tensors(serialized).map(lambda s: parse_example(s, lookup))
    return next(iter(dataset.as_numpy_iterator()))


def test_autograph_leaves_it_as_it_is_written():
    """To rewrite it takes half a second, of every command that reads records."""
    callers = []

    class Watched(LabelMap):
        def describe(self):
            callers.extend(frame.filename for frame in inspect.stack())
            return super().describe()

    serialized = tf.data.Dataset.from_tensors(encode_example(example()))
    serialized.map(lambda one: parse_example(one, Watched(LABELS.names, LABELS.ids)))
    assert records.__file__ in callers
    # The lambda is rewritten, into a file of its own, and nothing that it calls.
    assert len({name for name in callers if "__autograph_generated_file" in name}) == 1, callers


@pytest.mark.parametrize("lookup", [LABELS, LABELS.lookup()], ids=["label_map", "vector"])
def test_round_trip(lookup):
    result = parse(encode_example(example()), lookup)
    assert result["encoded"] == jpeg()
    np.testing.assert_array_equal(result["boxes"], [[0.25, 0.5, 0.75, 1], [0, 0, 0.5, 0.5]])
    np.testing.assert_array_equal(result["classes"], [2, 0])
    np.testing.assert_array_equal(result["is_crowd"], [False, True])
    np.testing.assert_array_equal(result["area"], [2.5, 6.0])
    assert (result["source_id"], result["height"], result["width"]) == (139, 4, 6)
    types = {k: np.asarray(v).dtype for k, v in result.items() if k != "encoded"}
    assert types == {
        "boxes": np.float32,
        "classes": np.int32,
        "is_crowd": np.bool_,
        "area": np.float32,
        "source_id": np.int64,
        "height": np.int32,
        "width": np.int32,
    }


def test_no_objects():
    empty = {k: [] for k in ("boxes", "labels", "texts", "is_crowd", "area")}
    result = parse(encode_example(example(**empty)))
    assert result["boxes"].shape == (0, 4)
    assert result["classes"].shape == result["is_crowd"].shape == result["area"].shape == (0,)


def test_field_names_are_those_of_other_tools():
    serialized = encode_example(example(difficult=[0, 1], weight=[1.0, 0.5]))
    features = tf.train.Example.FromString(serialized).features.feature
    assert set(features) == {
        "image/" + name
        for name in (
            "encoded format filename source_id key/sha256 height width object/bbox/ymin "
            "object/bbox/xmin object/bbox/ymax object/bbox/xmax object/class/label "
            "object/class/text object/is_crowd object/area object/difficult object/weight"
        ).split()
    }
    assert features["image/source_id"].bytes_list.value == [b"139"]
    assert features["image/object/class/label"].int64_list.value == [4, 1]
    assert features["image/object/is_crowd"].int64_list.value == [0, 1]
    assert features["image/object/bbox/xmax"].float_list.value == [1.0, 0.5]
    digest = hashlib.sha256(jpeg()).hexdigest().encode()
    assert features["image/key/sha256"].bytes_list.value == [digest]


def test_encode_refuses_lists_of_other_length_and_formats():
    with pytest.raises(ValueError, match="'area' has 1 entries but there are 2 boxes"):
        encode_example(example(area=[1.0]))
    with pytest.raises(ValueError, match="format.*'gif'"):
        encode_example(example(format="gif"))


def test_reads_a_model_garden_record():
    record = foreign(
        encoded=[jpeg()],
        format=[b"jpg"],
        filename=[b"000000000139.jpg"],
        source_id=[b"000000000139"],
        height=[4],
        width=[6],
        object__class__label=[2],
        object__class__text=[b"dog"],
        object__is_crowd=[1],
        object__area=[3.0],
        object__mask=[b"png"],
        **BOX,
    )
    result = parse(record)
    assert result["source_id"] == 139
    np.testing.assert_array_equal(result["boxes"], [[0, 0.5, 0.5, 1]])
    np.testing.assert_array_equal(result["classes"], [1])
    np.testing.assert_array_equal(result["is_crowd"], [True])


@pytest.mark.parametrize("encode", [tf.io.encode_jpeg, tf.io.encode_png])
def test_missing_fields_have_defaults(encode):
    picture = encode(np.zeros([10, 20, 3], np.uint8)).numpy()
    result = parse(foreign(encoded=[picture], object__class__label=[4], **BOX))
    assert (result["height"], result["width"]) == (10, 20)
    np.testing.assert_array_equal(result["is_crowd"], [False])
    # A quarter of 10 x 20 pixels.
    np.testing.assert_allclose(result["area"], [50.0])
    assert HASHED_ID_START <= result["source_id"] < 2 * HASHED_ID_START


def test_class_by_name_where_there_is_no_label():
    result = parse(foreign(encoded=[jpeg()], object__class__text=[b"emu"], **BOX))
    np.testing.assert_array_equal(result["classes"], [2])
    with pytest.raises(tf.errors.InvalidArgumentError, match="gnu"):
        parse(foreign(encoded=[jpeg()], object__class__text=[b"gnu"], **BOX))


def test_source_ids_that_are_no_numbers_are_stable_and_distinct():
    ids = [
        parse(encode_example(example(source_id=source_id, filename=name)))["source_id"]
        for source_id, name in (("abc", "x"), ("abc", "y"), ("", "abc"), ("abd", "x"), ("", "x"))
    ]
    assert ids[0] == ids[1] == ids[2]
    assert len({ids[0], ids[3], ids[4]}) == 3
    assert all(HASHED_ID_START <= i < 2**53 for i in ids)
    # Too long for a number of ours: hashed, not overflown.
    assert parse(encode_example(example(source_id="9" * 25)))["source_id"] >= HASHED_ID_START


@pytest.mark.parametrize("label", [0, 3, 5, 1000, -1])
def test_unknown_label_names_the_id(label):
    record = encode_example(example(labels=[1, label]))
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        parse(record)
    message = error.value.message
    assert "not in the label map (3 classes, ids 1..4" in message
    assert f"[{label}]" in message and "[139]" in message


def test_labels_must_match_boxes():
    record = foreign(encoded=[jpeg()], object__class__label=[1, 2], **BOX)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"numbers of class labels, .*\[2 0 0\]"
    ):
        parse(record)


def test_degenerate_boxes_of_foreign_records_are_left_out_and_others_clipped():
    boxes = [
        [-0.005, 0.25, 0.5, 1.005],  # clipped
        [0.5, 0.5, 0.5, 0.9],  # no height
        [0.50001, 0.2, 0.5, 0.9],  # upside down by rounding
        [1.0, 0.0, 1.004, 0.5],  # on the border
        [-0.003, -0.003, 0.0, 0.5],
        [0.0, 0.0, 1.0, 1.0],
    ]
    result = parse(
        encode_example(
            example(
                boxes=boxes,
                labels=[1, 1, 1, 1, 1, 4],
                texts=None,
                is_crowd=[1, 0, 0, 0, 0, 0],
                area=[1, 2, 3, 4, 5, 6],
            )
        )
    )
    np.testing.assert_array_equal(result["boxes"], [[0, 0.25, 0.5, 1], [0, 0, 1, 1]])
    np.testing.assert_array_equal(result["classes"], [0, 2])
    np.testing.assert_array_equal(result["is_crowd"], [True, False])
    np.testing.assert_array_equal(result["area"], [1, 6])


def test_is_pure_graph():
    graph = tf.function(lambda s: parse_example(s, LABELS)).get_concrete_function(
        tf.TensorSpec([], tf.string)
    )
    types = {n.op for n in graph.graph.as_graph_def().node}
    for function in graph.graph.as_graph_def().library.function:
        types |= {n.op for n in function.node_def}
    assert "ParseExampleV2" in types or "ParseSingleExample" in types
    assert not {t for t in types if "PyFunc" in t}
