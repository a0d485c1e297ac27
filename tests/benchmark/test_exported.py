"""The table of an export's files."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.process import ROOT, run


def test_each_file_has_a_line(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")

    @tf.function(input_signature=[tf.TensorSpec([1, 4, 4, 3], tf.uint8, "images")])
    def double(images):
        return {"boxes": tf.cast(images, tf.float32) * np.float32(2.0)}

    tf.saved_model.save(tf.Module(), tmp_path / "m", signatures={"serving_default": double})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "m"))
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    formats = {
        "saved_model": {"file": "saved_model"},
        "tflite": {"file": "model.tflite"},
        "tflite_int8": {"file": "model.tflite", "ap": {"file": 0.1234}},
    }
    (tmp_path / "model_card.json").write_text(json.dumps({"formats": formats}))
    said = run(
        sys.executable, ROOT / "benchmarks" / "exported.py", tmp_path, "--seconds=0.01"
    ).stdout.splitlines()
    assert said[0] == "1 thread(s), batch 1" and len(said) == 4
    rows = [line.split() for line in said[2:]]
    assert [row[0] for row in rows] == ["tflite", "tflite_int8"]
    assert rows[0][2] == "-" and rows[1][2] == "0.1234"
    for row in rows:
        p50, p90, peak, empty = map(float, row[3:])
        assert 0 <= p50 <= p90 < 1000 and 10 < empty <= peak < 2000
