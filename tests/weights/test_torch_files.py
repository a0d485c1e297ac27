"""Files of PyTorch, read without it: what is in them arrives, and nothing in them ever runs."""

import builtins
import os
import pickle
import sys
import time
import zipfile

import numpy as np
import pytest

from ssd_centernet.weights import open_weights
from tests.weights.files import TorchPickle, save_torch, write_torch

ARRAYS = {
    "features.0.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "features.0.bias": np.array([0.5, -2.0], np.float32),
    "bn.num_batches_tracked": np.array(7, np.int64),
    "double": np.array([1e300]),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_both_formats_give_every_tensor(tmp_path, legacy, wrap):
    weights = open_weights(save_torch(tmp_path / "w.pth", ARRAYS, legacy=legacy, wrap=wrap))
    assert weights.kind == "torch" and set(weights.shapes) == set(ARRAYS)
    for name, value in ARRAYS.items():
        assert tuple(weights.shapes[name]) == value.shape
        np.testing.assert_array_equal(weights.read(name), value)
        assert weights.read(name).dtype == value.dtype


@pytest.mark.parametrize("legacy", [False, True])
def test_half_precision_becomes_float32(tmp_path, legacy):
    values = np.array([1.5, -0.25, 65504.0], np.float32)
    halves = {"half": values.astype(np.float16), "brain": (values.view(np.uint32) >> 16)}
    halves["brain"] = halves["brain"].astype(np.uint16)
    weights = open_weights(save_torch(tmp_path / "w.pt", halves, legacy=legacy))
    np.testing.assert_array_equal(weights.read("half"), values)
    np.testing.assert_array_equal(weights.read("brain")[:2], values[:2])
    assert weights.read("brain").dtype == weights.read("half").dtype == np.float32


def test_views_of_one_storage_and_transposed_tensors(tmp_path):
    made = TorchPickle()
    storage = made.storage("FloatStorage", "0", 6)
    body = made.items(
        {
            "rows": made.tensor(storage, 0, (2, 3), (3, 1)),
            "columns": made.tensor(storage, 0, (3, 2), (1, 3)),
            "tail": made.tensor(storage, 4, (2,), (1,)),
            "none": made.tensor(storage, 6, (0, 3), (3, 1)),
        }
    )
    write_torch(tmp_path / "w.pth", made.body + body + b".", [np.arange(6, dtype=np.float32)])
    read = open_weights(tmp_path / "w.pth").read
    np.testing.assert_array_equal(read("rows"), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(read("columns"), [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(read("tail"), [4, 5])
    assert read("none").shape == (0, 3)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (7,), (1,)),
        (3, (4,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (10**9, 10**9), (0, 0)),  # Petabytes out of six numbers.
        (0, (2, 2), (1,)),
        (0, (-2, -2), (1, 1)),
        (2**62, (2,), (2**62,)),
    ],
)
def test_tensors_outside_their_storage_are_refused(tmp_path, offset, shape, strides):
    made = TorchPickle()
    tensor = made.tensor(made.storage("FloatStorage", "0", 6), offset, shape, strides)
    body = made.body + made.items({"w": tensor}) + b"."
    write_torch(tmp_path / "w.pth", body, [np.zeros(6, np.float32)])
    with pytest.raises(ValueError, match="tensor w of shape .* not inside its storage of 6 values"):
        open_weights(tmp_path / "w.pth")


@pytest.fixture
def nothing_runs(monkeypatch):
    """Whatever a hostile pickle asks for is watched; pickle's own reader is not to be used."""
    called = []

    def watch(owner, name):
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: called.append(name) or real(*a, **k))

    for owner, name in ((os, "system"), (os, "popen"), (builtins, "eval"), (builtins, "exec")):
        watch(owner, name)
    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, lambda *_, **__: called.append("pickle"))
    yield
    monkeypatch.undo()
    assert not called


class Hostile:
    def __init__(self, what, *given):
        self.what, self.given = what, given

    def __reduce__(self):
        return self.what, self.given


HOSTILE = {
    "os.system": pickle.dumps({"w": Hostile(os.system, "touch hurt")}, 2),
    "os.system, protocol 5": pickle.dumps({"w": Hostile(os.system, "touch hurt")}, 5),
    "os.system, protocol 0": pickle.dumps({"w": Hostile(os.system, "touch hurt")}, 0),
    "eval": pickle.dumps([Hostile(eval, "open('hurt', 'w')")], 2),
    "getattr": pickle.dumps(
        [Hostile(getattr, os, "system")] if False else [Hostile(getattr, 1, "real")], 2
    ),
    "a class": b"\x80\x02csubprocess\nPopen\n)\x81.",
    "INST": b"(S'touch hurt'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch hurt'\no.",
    "a dotted name": b"\x80\x04\x8c\x05torch\x8c\x17serialization.os.system\x93)R.",
    "torch.hub": b"\x80\x02ctorch.hub\nload\n(X\x01\x00\x00\x00xtR.",
    "a call of a call": b"\x80\x02cnumpy\nzeros\n)R)R.",
    "extension registry": b"\x80\x02\x82\x01.",
    "set attributes of a name": b"\x80\x02cos\nenviron\n}b.",
    "a model": b"\x80\x02cultralytics.nn\nDetect\n)\x81}b.",
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_a_clear_error_and_run_nothing(
    tmp_path, monkeypatch, nothing_runs, body, legacy
):
    monkeypatch.chdir(tmp_path)
    write_torch(tmp_path / "w.pth", body, legacy=legacy)
    modules = set(sys.modules)
    with pytest.raises(ValueError, match=r"w\.pth cannot be read as \.pth: it"):
        open_weights(tmp_path / "w.pth")
    assert {path.name for path in tmp_path.iterdir()} == {"w.pth"}
    assert not {"ultralytics.nn", "torch.hub"} & (set(sys.modules) - modules)


def test_what_is_asked_for_is_named(tmp_path):
    write_torch(tmp_path / "w.pth", HOSTILE["os.system"])
    name = f"{os.system.__module__}.system"
    with pytest.raises(ValueError, match=f"asks to call {name}, .* nothing was called"):
        open_weights(tmp_path / "w.pth")


def lists_in_lists(depth: int) -> bytes:
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


def doubled(times: int) -> bytes:
    """A list of two of the list before, and so on: 2 ** times lists for whoever walks through."""
    return b"\x80\x02]" + b"".join(b"q%c(h%ch%cl" % ((i,) * 3) for i in range(times)) + b"."


DAMAGED = {
    "deep nesting": lists_in_lists(200_000),
    "a bomb of memos": doubled(200),
    "no such memo": b"\x80\x02h\x07.",
    "no mark": b"\x80\x02Kt.",
    "nothing on the stack": b"\x80\x02R.",
    "no end": b"\x80\x02}",
    "a tuple of 10**9": b"\x80\x02(" + b"N" * 1000 + b"t" + b"2" * 1000 + b".",
    "a text of 4 GiB": b"\x80\x02X\xff\xff\xff\xff.",
    "bytes of exabytes": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0f.",
    "too many operations": b"\x80\x02" + b"N0" * 1_600_000 + b"N.",
    "empty": b"",
    "keys that take for ever to hash": doubled(60)[:-1] + b"\x85}q\xff2Ns.",
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("body", DAMAGED.values(), ids=DAMAGED)
def test_damaged_pickles_end_soon_with_a_clear_error(tmp_path, body, legacy):
    write_torch(tmp_path / "w.pth", body, legacy=legacy)
    begin = time.process_time()
    with pytest.raises(ValueError, match=r"w\.pth cannot be read as \.pth: "):
        open_weights(tmp_path / "w.pth")
    assert time.process_time() - begin < 20


def test_every_cut_and_many_flipped_bytes_are_errors_or_the_same_names(tmp_path):
    path = tmp_path / "w.pth"
    rng = np.random.default_rng(0)
    for legacy in (False, True):
        save_torch(path, ARRAYS, legacy=legacy, wrap="state_dict")
        whole = path.read_bytes()
        cuts = [whole[:n] for n in rng.integers(0, len(whole), 60)]
        flips = []
        for place in rng.integers(0, len(whole), 150):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << int(rng.integers(8))
            flips.append(bytes(flipped))
        for data in cuts + flips:
            path.write_bytes(data)
            try:
                weights = open_weights(path)
                for name in weights.shapes:
                    weights.read(name)
            except ValueError as error:
                assert "cannot be read" in str(error)


def test_a_flipped_bit_of_the_numbers_is_seen_in_the_zip_format(tmp_path):
    path = tmp_path / "w.pth"
    save_torch(path, ARRAYS)
    data = bytearray(path.read_bytes())
    data[data.index(ARRAYS["features.0.weight"].tobytes()) + 5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="features.0.weight of .*w.pth cannot be read: .*CRC"):
        open_weights(path).read("features.0.weight")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"archive/data.pkl": b"N.", "archive/constants.pkl": b"N."}, "TorchScript"),
        ({"archive/version": b"3"}, "0 files data.pkl"),
        ({"a/data.pkl": b"N.", "b/data.pkl": b"N."}, "2 files data.pkl"),
        ({"archive/data.pkl": b"\x80\x02N."}, "holds a NoneType, not tensors by name"),
        ({"archive/data.pkl": b"\x80\x02}."}, "no tensors by name"),
    ],
)
def test_other_archives_are_refused(tmp_path, files, message):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match=message):
        open_weights(tmp_path / "w.pth")


def test_a_compressed_archive_is_refused(tmp_path):
    write_torch(
        tmp_path / "w.pth",
        b"\x80\x02}.",
        [np.zeros(10**6, np.float32)],
        compression=zipfile.ZIP_DEFLATED,
    )
    with pytest.raises(ValueError, match="is compressed, which PyTorch never does"):
        open_weights(tmp_path / "w.pth")


def test_a_storage_that_is_missing_is_named(tmp_path):
    made = TorchPickle()
    tensor = made.tensor(made.storage("FloatStorage", "3", 2), 0, (2,), (1,))
    write_torch(tmp_path / "w.pth", made.body + made.items({"w": tensor}) + b".")
    with pytest.raises(ValueError, match="its storage 3 is missing"):
        open_weights(tmp_path / "w.pth").read("w")
