import json
import struct

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.weights import open_weights
from ssd_centernet.weights.readers import find_checkpoint
from tests.weights import files

ARRAYS = {
    "a/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "a/bias": np.array([1.5, -2.0], np.float32),
}


def assert_holds(weights, kind):
    assert weights.kind == kind
    assert dict(weights.shapes) == {name: array.shape for name, array in ARRAYS.items()}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(weights.read(weights.find(name)), array)
    assert weights.find("a/none") is None


def test_tf1_checkpoint(tmp_path):
    assert_holds(open_weights(files.save_tf1(tmp_path / "model.ckpt-3", ARRAYS)), "tf1")


def test_npz(tmp_path):
    np.savez(tmp_path / "w.npz", **ARRAYS)
    assert_holds(open_weights(tmp_path / "w.npz"), "npz")


def test_npz_with_objects_is_refused(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([{"code": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"w\.npz cannot be read as \.npz"):
        open_weights(tmp_path / "w.npz")


def test_damaged_npz_is_refused(tmp_path):
    np.savez(tmp_path / "whole.npz", **ARRAYS)
    whole = (tmp_path / "whole.npz").read_bytes()
    np.save(tmp_path / "single.npy", ARRAYS["a/bias"])
    contents = {
        "cut": whole[:-40],
        "flipped": whole[:150] + bytes(b ^ 255 for b in whole[150:170]) + whole[170:],
        "empty": b"",
        "text": b"<html>404</html>",
        "single": (tmp_path / "single.npy").read_bytes(),
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.npz cannot be read as \.npz: .*again"):
            open_weights(path)
    (tmp_path / "w.npy").write_bytes(contents["single"])
    with pytest.raises(FileNotFoundError, match=r"No checkpoint at .*w\.npy: expected .*\.npz"):
        open_weights(tmp_path / "w.npy")


def test_safetensors(tmp_path):
    assert_holds(
        open_weights(files.save_safetensors(tmp_path / "w.safetensors", ARRAYS)), "safetensors"
    )


def test_safetensors_of_half_precision(tmp_path):
    header = b'{"x":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    data = tf.cast([1.5, -3.0], tf.bfloat16).numpy().tobytes()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    weights = open_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(weights.read("x").astype(np.float32), [1.5, -3.0])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 9) + b"not json!",
        *(
            struct.pack("<Q", len(header)) + header + bytes(8)
            for header in (
                b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
                b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}',
                b'{"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}',
                b'{"x":{"dtype":"Q9","shape":[2],"data_offsets":[0,8]}}',
                b'{"x":{"shape":[2],"data_offsets":[0,8]}}',
                b'{"x":{"dtype":"F32","shape":2,"data_offsets":[0,8]}}',
                b'{"x":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}}',
                b'{"x":{"dtype":"F32","shape":[2],"data_offsets":8}}',
                b'{"x":{"dtype":["F32"],"shape":[2],"data_offsets":[0,8]}}',
                b'{"x": 3}',
                b'["x"]',
            )
        ),
    ],
)
def test_damaged_safetensors_is_refused(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be read as \.safetensors"):
        open_weights(tmp_path / "w.safetensors")


def test_keras_h5_of_weights_and_of_a_whole_model(tmp_path):
    image = keras.Input((4, 4, 3))
    features = keras.layers.Conv2D(2, 1, name="conv1_conv")(image)
    model = keras.Model(image, keras.layers.BatchNormalization(name="conv1_bn")(features))
    files.randomize(model.variables)
    model.save_weights(tmp_path / "weights.h5")
    model.save(tmp_path / "model.h5")
    for name in ("weights.h5", "model.h5"):
        weights = open_weights(tmp_path / name)
        assert weights.kind == "h5"
        assert {k for k in weights.shapes if k.startswith("conv1_")} == {
            v.name.removesuffix(":0") for v in model.variables
        }
        for variable in model.variables:
            value = weights.read(weights.find(variable.name.removesuffix(":0")))
            np.testing.assert_array_equal(value, variable.numpy())


def test_objects_are_found_on_every_path(tmp_path):
    class Pair(tf.Module):
        def __init__(self):
            super().__init__()
            self.first = tf.Variable([1.0, 2.0])
            self.same = self.first
            self.by_key = {"box/offset": tf.Variable([3.0])}
            self.listed = [tf.Variable([4.0])]

    prefix = tf.train.Checkpoint(model=Pair()).save(str(tmp_path / "ckpt"))
    weights = open_weights(prefix)
    assert weights.kind == "objects"
    # One of the two names is the key; both lead to it.
    assert weights.find("model/first") == weights.find("model/same") is not None
    np.testing.assert_array_equal(weights.read(weights.find("model/same")), [1, 2])
    np.testing.assert_array_equal(weights.read(weights.find("model/by_key/box.Soffset")), [3])
    np.testing.assert_array_equal(weights.read(weights.find("model/listed/0")), [4])
    for path in ("model", "model/third", "model/first/more", "nothing"):
        assert weights.find(path) is None


def test_directory_of_another_machine_gives_its_highest_step(tmp_path):
    for step in (9, 28152):
        files.save_tf1(tmp_path / f"model.ckpt-{step}", ARRAYS)
    elsewhere = 'model_checkpoint_path: "/home/someone/elsewhere/model.ckpt-28152"\n'
    (tmp_path / "checkpoint").write_text(elsewhere)
    assert open_weights(tmp_path).path == str(tmp_path / "model.ckpt-28152")
    assert find_checkpoint(f"{tmp_path}/model.ckpt-9.index") == f"{tmp_path}/model.ckpt-9"


def test_no_checkpoint_lists_what_is_there(tmp_path):
    (tmp_path / "resnet34.tar.gz").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"resnet34\.tar\.gz.* Unpack"):
        open_weights(tmp_path)
    with pytest.raises(FileNotFoundError, match="is empty or missing"):
        open_weights(tmp_path / "a" / "b")
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.npz.*holds resnet34"):
        open_weights(tmp_path / "none.npz")


def test_damaged_checkpoint_is_named(tmp_path):
    prefix = files.save_tf1(tmp_path / "model.ckpt-3", ARRAYS)
    (tmp_path / "model.ckpt-3.index").write_bytes(b"damaged")
    message = r"checkpoint .*model\.ckpt-3 is damaged: .* Download or copy model\.ckpt-3\.\* there"
    with pytest.raises(ValueError, match=message):
        open_weights(prefix)


def test_the_working_directory_can_be_a_run(tmp_path, monkeypatch):
    files.save_tf1(tmp_path / "ckpt-3", ARRAYS)
    monkeypatch.chdir(tmp_path)
    for path in (".", "./", "ckpt-3", str(tmp_path)):
        assert_holds(open_weights(path), "tf1")


def header(**tensors) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + bytes(32)


def tensor(begin: int, end: int) -> dict:
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]}


def test_safetensors_whose_tensors_share_bytes_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(header(a=tensor(0, 16), b=tensor(16, 32)))
    assert set(open_weights(path).shapes) == {"a", "b"}
    path.write_bytes(header(a=tensor(0, 16), b=tensor(12, 28)))
    with pytest.raises(ValueError, match=r"w\.safetensors .*tensors a and b share bytes"):
        open_weights(path)
    twice = header(a=tensor(0, 16), b=tensor(16, 32)).replace(b'"b"', b'"a"')
    path.write_bytes(twice)
    with pytest.raises(ValueError, match="the header names tensor a twice"):
        open_weights(path)


def test_a_checkpoint_of_one_file_as_slim_published_them(tmp_path):
    """TensorFlow before 1.0 wrote all in one file, without an index."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        for name, value in ARRAYS.items():
            v1.get_variable(name, initializer=tf.constant(value))
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(write_version=1)
        saver.save(session, str(tmp_path / "resnet_v1_50.ckpt"), write_meta_graph=False)
    assert not list(tmp_path.glob("*.index"))
    assert_holds(open_weights(tmp_path / "resnet_v1_50.ckpt"), "tf1")
