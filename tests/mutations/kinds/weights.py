"""Published weights: npz, safetensors and h5 with the names of a detector."""

from __future__ import annotations

import functools
import io
import json
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np

from ssd_centernet.run_directory import named_weights
from ssd_centernet.weights.restoration import restore
from tests.mutations.harness import Files, Kind
from tests.mutations.judge import BROKEN, EITHER, SAME, WHOLE_FILE, Changed, Meaning, Outcome
from tests.tiny import tiny_detector

Tensors = dict[str, np.ndarray]
Write = Callable[[Mapping[str, np.ndarray]], bytes]


@functools.cache
def _detector():
    return tiny_detector()


@functools.cache
def tensors() -> Tensors:
    """Return a value for each variable of the detector, others than its own."""
    rng = np.random.default_rng(3)
    weights = named_weights(_detector())
    return {n: rng.uniform(0.1, 0.9, v.shape).astype(np.float32) for n, v in weights.items()}


def write_npz(values: Mapping[str, np.ndarray]) -> bytes:
    """Write arrays as numpy does."""
    stream = io.BytesIO()
    np.savez(stream, **values)
    return stream.getvalue()


def write_h5(values: Mapping[str, np.ndarray]) -> bytes:
    """Write one data set for each array."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, value in values.items():
            file[f"model_weights/{name}:0"] = value
    return stream.getvalue()


_NAMES = {
    "float32": "F32",
    "float64": "F64",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "bool": "BOOL",
    "uint8": "U8",
}


def write_safetensors(values: Mapping[str, np.ndarray]) -> bytes:
    """Write a header, and the arrays one after the other."""
    header, blobs, offset = {}, [], 0
    for name, value in values.items():
        blob = np.ascontiguousarray(value).tobytes()
        kind = _NAMES.get(value.dtype.name, value.dtype.name.upper())
        offsets = [offset, offset + len(blob)]
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": offsets}
        blobs.append(blob)
        offset += len(blob)
    return join_safetensors(header, b"".join(blobs))


def join_safetensors(header: object, data: bytes) -> bytes:
    """Put the length, the header and the data together."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


class _Hostile:
    """What runs a program when it is read from a pickle."""

    def __init__(self, program: str) -> None:
        self._program = program

    def __reduce__(self):
        return os.system, (self._program,)


def _kind(name: str, write: Write) -> Kind:
    file = f"w.{name}"

    def read(folder: Path) -> Outcome:
        detector = _detector()
        weights = named_weights(detector)
        for variable in weights.values():
            variable.assign(np.full(variable.shape, 7.0))
        try:
            table = restore(detector, folder / file, kind="full")
        except Exception:
            untouched = all((v.numpy() == 7.0).all() for v in weights.values())
            assert untouched, "weights were set, though the file is refused"
            raise
        values = {n: (v.numpy().astype(np.float32).tobytes(),) for n, v in weights.items()}
        skipped = {"count": len(table.skipped), "first": list(table.skipped)}
        report = {"notes": {"tensors that were not used": skipped}} if table.skipped else {}
        return Outcome(Meaning(values), report)

    return Kind(name, lambda: {file: write(tensors())}, read)


def npz() -> Kind:
    """Return arrays of numpy."""
    kind = _kind("npz", write_npz)
    _add_tensors(kind, write_npz)
    _add_values(kind, write_npz)
    _add_bytes(kind, checked=True)

    @_of(kind, write_npz, BROKEN, rounds=3)
    def a_pickle_that_runs_a_program(rng, values, name):
        values[name] = np.array(_Hostile(rng.choice(("true", "id"))), dtype=object)

    return kind


def h5() -> Kind:
    """Return an HDF5 file, which has no checksums."""
    kind = _kind("h5", write_h5)
    _add_tensors(kind, write_h5)
    _add_values(kind, write_h5)
    _add_bytes(kind, checked=False)
    return kind


def safetensors() -> Kind:
    """Return safetensors, whose header alone can be checked."""
    kind = _kind("safetensors", write_safetensors)
    _add_tensors(kind, write_safetensors)
    _add_values(kind, write_safetensors)
    _add_bytes(kind, checked=False)
    _add_header(kind)
    return kind


def _add_bytes(kind: Kind, *, checked: bool) -> None:
    """Add changes of bytes; those inside of data only if the format has checksums."""

    def edited(name: str, claim: str, edit, rounds: int) -> None:
        def change(rng: random.Random, files: Files) -> Changed:
            ((file, data),) = files.items()
            return Changed({file: edit(rng, data)}, file, WHOLE_FILE)

        kind.add(name, claim, change, rounds=rounds)

    def flip(rng: random.Random, data: bytes) -> bytes:
        place = rng.randrange(len(data) if checked else 8)
        return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]

    edited("flip a bit", EITHER, flip, 30 if checked else 10)
    edited("cut off", BROKEN, lambda rng, data: data[: rng.randrange(1, len(data))], 16)
    edited("empty", BROKEN, lambda rng, data: b"", 1)
    edited("garbage", BROKEN, lambda rng, data: rng.randbytes(len(data)), 3)
    edited("zeros", BROKEN, lambda rng, data: bytes(len(data)), 1)
    edited("a page of html", BROKEN, lambda rng, data: b"<!DOCTYPE html><html>404</html>", 1)
    edited(
        "a link to large files", BROKEN, lambda r, d: b"version https://git-lfs.github.com/\n", 1
    )


def _of(kind: Kind, write: Write, claim: str, *, rounds: int = 4):
    """Return a decorator for a change of all tensors, one of which it may choose."""

    def add(edit: Callable) -> Callable:
        def change(rng: random.Random, files: Files) -> Changed | None:
            values = dict(tensors())
            name = rng.choice(list(values))
            if edit(rng, values, name) is False:
                return None
            (file,) = files
            # A tensor is the place.
            return Changed({file: write(values)}, file, r"[\w/]+/\w+|tensor")

        kind.add(edit.__name__.strip("_").replace("_", " "), claim, change, rounds=rounds)
        return edit

    return add


def _add_tensors(kind: Kind, write: Write) -> None:
    of = functools.partial(_of, kind, write)

    @of(SAME)
    def doubles(rng, values, name):
        values[name] = values[name].astype(np.float64)

    @of(SAME)
    def another_order(rng, values, name):
        values[name] = values.pop(name)

    @of(SAME)
    def a_tensor_more(rng, values, name):
        values["optimizer/step"] = np.float32([3.0])

    @of(BROKEN, rounds=6)
    def a_tensor_is_missing(rng, values, name):
        del values[name]

    @of(BROKEN, rounds=6)
    def a_tensor_of_another_name(rng, values, name):
        values[rng.choice((name.upper(), name + "_1", name.replace("/", "."), "x/" + name))] = (
            values.pop(name)
        )


def _add_values(kind: Kind, write: Write) -> None:
    of = functools.partial(_of, kind, write)

    @of(BROKEN, rounds=8)
    def a_number_that_is_none(rng, values, name):
        values[name] = values[name].copy()
        values[name].flat[rng.randrange(values[name].size)] = rng.choice((np.nan, np.inf, -np.inf))

    @of(BROKEN, rounds=6)
    def a_tensor_of_another_shape(rng, values, name):
        value = values[name]
        other = (
            value[..., :-1],
            value[np.newaxis],
            value.reshape(-1)[:1],
            np.concatenate([value] * 2),
        )
        values[name] = rng.choice(other)

    @of(BROKEN, rounds=4)
    def a_tensor_turned(rng, values, name):
        value = values[name]
        if value.ndim < 2 or value.shape == value.T.shape:
            return False
        values[name] = np.ascontiguousarray(value.T)

    @of(BROKEN, rounds=4)
    def an_empty_tensor(rng, values, name):
        values[name] = values[name][:0]

    @of(BROKEN, rounds=6)
    def whole_numbers(rng, values, name):
        kinds = (np.int32, np.int64, np.uint8, np.bool_)
        values[name] = (values[name] * 200).astype(rng.choice(kinds))

    @of(BROKEN, rounds=2)
    def two_tensors_exchanged(rng, values, name):
        other = rng.choice([n for n in values if values[n].shape != values[name].shape])
        values[name], values[other] = values[other], values[name]

    @of(BROKEN, rounds=2)
    def no_tensors(rng, values, name):
        values.clear()


def _of_header(kind: Kind, claim: str, *, rounds: int = 4):
    """Return a decorator for a change of the header, or what gives another one."""

    def add(edit: Callable) -> Callable:
        def change(rng: random.Random, files: Files) -> Changed | None:
            ((file, data),) = files.items()
            end = 8 + int.from_bytes(data[:8], "little")
            header = json.loads(data[8:end])
            found = edit(rng, header, rng.choice(list(header)))
            if found is False:
                return None
            if isinstance(found, bytes):
                return Changed({file: found + data[end:]}, file, WHOLE_FILE)
            new = join_safetensors(header if found is None else found, data[end:])
            return Changed({file: new}, file, r"tensor|[\w/]+/\w+|header")

        kind.add("header: " + edit.__name__.replace("_", " "), claim, change, rounds=rounds)
        return edit

    return add


def _add_header(kind: Kind) -> None:
    of = functools.partial(_of_header, kind)

    @of(SAME)
    def metadata(rng, header, name):
        header["__metadata__"] = {"format": "pt"}

    @of(BROKEN, rounds=8)
    def another_kind(rng, header, name):
        header[name]["dtype"] = rng.choice(("F16", "F64", "I32", "I64", "Q4", "", None, 5, "f32"))

    @of(BROKEN, rounds=8)
    def another_shape(rng, header, name):
        shape = header[name]["shape"]
        others = (
            [],
            [*shape, 2],
            [-n for n in shape],
            None,
            "x",
            [str(n) for n in shape],
            [2**62, 4],
        )
        header[name]["shape"] = rng.choice(others)

    @of(BROKEN, rounds=10)
    def other_offsets(rng, header, name):
        begin, end = header[name]["data_offsets"]
        others = (
            [begin, end + 4],
            [end, begin],
            [begin],
            None,
            [-4, end],
            [begin, 2**63],
            [begin + 2**40, end + 2**40],
            ["0", "4"],
        )
        header[name]["data_offsets"] = rng.choice(others)

    @of(BROKEN, rounds=6)
    def bytes_of_another_tensor(rng, header, name):
        same = [n for n in header if n != name and header[n]["shape"] == header[name]["shape"]]
        if not same:
            return False
        header[name]["data_offsets"] = header[rng.choice(same)]["data_offsets"]
        return None

    @of(BROKEN, rounds=6)
    def bytes_that_overlap(rng, header, name):
        begin, end = header[name]["data_offsets"]
        step = -4 if begin else 4
        header[name]["data_offsets"] = [begin + step, end + step]

    @of(BROKEN, rounds=6)
    def a_key_is_missing(rng, header, name):
        del header[name][rng.choice(list(header[name]))]

    @of(BROKEN, rounds=4)
    def an_entry_that_is_none(rng, header, name):
        header[name] = rng.choice((None, 5, "x", []))

    @of(BROKEN, rounds=3)
    def a_list(rng, header, name):
        return [header]

    @of(BROKEN, rounds=6)
    def a_tensor_twice(rng, header, name):
        text = json.dumps(header)
        other = rng.choice([n for n in header if n != name])
        twice = f'{{"{name}": {json.dumps(header[other])}, ' + text[1:]
        return len(twice).to_bytes(8, "little") + twice.encode()

    @of(EITHER, rounds=20)
    def flip_a_bit(rng, header, name):
        text = bytearray(json.dumps(header).encode())
        text[rng.randrange(len(text))] ^= 1 << rng.randrange(7)
        return len(text).to_bytes(8, "little") + bytes(text)
