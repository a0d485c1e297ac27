"""Files of a run that a stranger may have made: checkpoint, log, settings; and `.keras` files."""

from __future__ import annotations

import functools
import io
import json
import random
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import gin
import numpy as np

from ssd_centernet import config
from ssd_centernet._keras import keras
from ssd_centernet.models.saved import load_keras_file
from ssd_centernet.run_directory import named_weights
from ssd_centernet.runs.logs import RunLog
from ssd_centernet.runs.report import text_report
from ssd_centernet.training.checkpoints import RunCheckpoints
from ssd_centernet.training.log_files import recorded_metrics
from ssd_centernet.weights.restoration import restore
from tests.mutations.canary import MODULE
from tests.mutations.harness import Files, Kind
from tests.mutations.judge import BROKEN, EITHER, SAME, WHOLE_FILE, Changed, Meaning, Outcome
from tests.tiny import RUN_RECIPE, tiny_detector, tiny_trainer

_LINE = r"line \d+"


def _bytes(kind: Kind, names: tuple[str, ...], told: str, *, flips: int) -> None:
    """Add changes of the bytes of files, each of which must be refused or make no difference.

    Args:
        kind: the kind.
        names: of the files, one of which is changed.
        told: what an error names.
        flips: how many single bits are changed.
    """

    def edited(name: str, claim: str, edit: Callable, rounds: int) -> None:
        def change(rng: random.Random, files: Files) -> Changed:
            file = rng.choice(names)
            return Changed({**files, file: edit(rng, files[file])}, told, WHOLE_FILE)

        kind.add(name, claim, change, rounds=rounds)

    def flip(rng: random.Random, data: bytes) -> bytes:
        place = rng.randrange(len(data))
        return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]

    def block(rng: random.Random, data: bytes) -> bytes:
        place, size = rng.randrange(len(data)), rng.randrange(1, 64)
        return (data[:place] + rng.randbytes(size) + data[place + size :])[: len(data)]

    edited("flip a bit", EITHER, flip, flips)
    edited("another block", EITHER, block, 10)
    edited("cut off", BROKEN, lambda rng, data: data[: rng.randrange(1, len(data))], 12)
    edited("empty", BROKEN, lambda rng, data: b"", 2)
    edited("garbage", BROKEN, lambda rng, data: rng.randbytes(len(data)), 3)
    edited("zeros", BROKEN, lambda rng, data: bytes(len(data)), 2)
    edited("a page of html", BROKEN, lambda rng, data: b"<!DOCTYPE html><html>404</html>", 2)


# --- checkpoints ---------------------------------------------------------------------------------


@functools.cache
def _checkpoint() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        run = RunCheckpoints(tiny_trainer(), folder, seed=0)
        run.save()
        run.finish()
        # Older versions wrote no digests: TensorFlow's own checks must do.
        return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("ckpt-0.[id]*"))}


def checkpoint() -> Kind:
    """Return a checkpoint of a training, without digests."""

    def read(folder: Path) -> Outcome:
        detector = tiny_detector()
        restore(detector, folder / "ckpt-0", kind="full")
        weights = named_weights(detector)
        return Outcome(Meaning({n: (v.numpy().tobytes(),) for n, v in weights.items()}))

    kind = Kind("checkpoint", _checkpoint, read)
    _bytes(kind, tuple(_checkpoint()), "ckpt-0", flips=30)

    @kind.mutation(BROKEN, rounds=1)
    def without_its_data(rng: random.Random, files: Files) -> Changed:
        index = {name: data for name, data in files.items() if name.endswith(".index")}
        return Changed(index, "ckpt-0", WHOLE_FILE)

    return kind


# --- models in .keras files ----------------------------------------------------------------------


@functools.cache
def _archive() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        inputs = keras.Input((4,))
        outputs = keras.layers.Dense(2, activation="relu")(inputs)
        model = keras.Model(inputs, outputs)
        model.set_weights([np.float32(1 + np.arange(8)).reshape(4, 2), np.float32([3, 4])])
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


def keras_file() -> Kind:
    """Return a `.keras` file."""
    file = "model.keras"

    def read(folder: Path) -> Outcome:
        model = load_keras_file(folder / file)
        result = model(np.float32([[1, -2, 3, 4]])).numpy().tobytes()
        weights = {w.name: (w.numpy().tobytes(),) for w in model.weights}
        return Outcome(Meaning({**weights, "result": (result,)}))

    kind = Kind("keras", lambda: {file: _archive()}, read)
    _bytes(kind, (file,), file, flips=40)

    def of_config(edit: Callable) -> Callable:
        def change(rng: random.Random, files: Files) -> Changed:
            parts = _unzip(files[file])
            settings = json.loads(parts["config.json"])
            edit(rng, settings["config"]["layers"])
            parts["config.json"] = json.dumps(settings).encode()
            return Changed({file: _zip(parts)}, file, WHOLE_FILE)

        name = edit.__name__.replace("_", " ")
        kind.add(f"config: {name}", BROKEN, change, rounds=12)
        return edit

    @of_config
    def a_function_of_another_module(rng, layers):
        places = ("activation", "kernel_initializer", "bias_regularizer", "kernel_constraint")
        value = {"module": rng.choice(("os", "posix", MODULE, "subprocess")), "config": "system"}
        value |= {"class_name": "function", "registered_name": rng.choice((None, "system"))}
        layers[1]["config"][rng.choice(places)] = value

    @of_config
    def a_class_of_another_module(rng, layers):
        module, name = rng.choice(
            (("os", "system"), ("subprocess", "Popen"), (MODULE, "Layer"), ("builtins", "exec"))
        )
        layers[1] |= {"module": module, "class_name": name, "registered_name": None}
        layers[1]["config"] = {"command": "true", "args": "true", "name": "dense"}

    @of_config
    def code_in_a_layer(rng, layers):
        code = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None}}
        layers[1] |= {"class_name": "Lambda", "registered_name": None}
        layers[1]["config"] = {"name": "dense", "function": code}

    return kind


def _unzip(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zip(parts: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return stream.getvalue()


# --- logs ----------------------------------------------------------------------------------------


def _log() -> dict[str, bytes]:
    numbers = {"AP": 0.25, "AP50": 0.5, "AP75": 0.125, "loss/total": 2.5}
    lines = []
    for step in range(2, 12, 2):
        window = {"total": 4.0 / step, "learning_rate": 0.01, "images_per_second": 7.5}
        window["epoch"] = step / 5
        lines.append({"kind": "train", "step": step, "time": 1e9 + step, **window})
        if not step % 4:
            lines.append({"kind": "eval", "step": step, "time": 1e9 + step + 1, **numbers})
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    return {"metrics.jsonl": text.encode(), "config.gin": b"train.steps = 10\n"}


def run_log() -> Kind:
    """Return the log of a run, of which broken lines are left out with a warning."""
    file = "metrics.jsonl"

    def read(folder: Path) -> Outcome:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            windows, evaluations = recorded_metrics(folder)
            text_report([RunLog.read("run", folder)])
        records = tuple(json.dumps(one, sort_keys=True) for one in (*windows, *evaluations))
        lines = [str(one.message) for one in told if f"/{file}:" in str(one.message)][:1]
        count = int(lines[0].split(": ")[1].split()[0]) if lines else 0
        said = {"a line": {"count": count, "first": lines}}
        return Outcome(Meaning({"log": tuple((one,) for one in records)}), {"dropped boxes": said})

    kind = Kind("run log", _log, read)

    def of_line(edit: Callable) -> Callable:
        def change(rng: random.Random, files: Files) -> Changed:
            lines = files[file].splitlines(keepends=True)
            number = rng.randrange(len(lines))
            lines[number] = edit(rng, lines[number])
            place = rf"line (\d+, )*{number + 1}\b"
            return Changed({**files, file: b"".join(lines)}, file, place)

        kind.add(edit.__name__.replace("_", " "), BROKEN, change, rounds=8)
        return edit

    @of_line
    def cut_line(rng, line):
        return line[: rng.randrange(2, len(line) - 2)] + b"\n"

    @of_line
    def another_value(rng, line):
        return json.dumps(rng.choice((None, 3, "x", [1], {}, [{}], True))).encode() + b"\n"

    @of_line
    def a_step_that_is_none(rng, line):
        step = rng.choice((None, "x", [], {}, True, 1e400, -3, 2.5))
        return json.dumps({**json.loads(line), "step": step}).encode() + b"\n"

    @of_line
    def bytes_that_are_no_text(rng, line):
        return line[:12] + rng.choice((b"\xff\xfe", b"\0\0", b"\xed\xa0\x80")) + line[12:]

    @kind.mutation(SAME, rounds=1)
    def empty_lines_and_other_kinds(rng: random.Random, files: Files) -> Changed:
        more = b'{"kind": "profile", "step": 10, "time": 1.0}\n'
        return Changed({**files, file: files[file] + more}, file)

    @kind.mutation(EITHER, rounds=6)
    def the_last_line_is_cut(rng: random.Random, files: Files) -> Changed:
        end = rng.randrange(2, 60)
        return Changed({**files, file: files[file][:-end]}, file, _LINE)

    return kind


# --- settings of a run ---------------------------------------------------------------------------


def run_settings() -> Kind:
    """Return the settings of a run, which are data: they may import and name nothing foreign."""
    file = "config.gin"

    def clean() -> dict[str, bytes]:
        return {file: RUN_RECIPE.encode(), **_checkpoint(), f"{MODULE}.py": b"import os\n"}

    def read(folder: Path) -> Outcome:
        try:
            config.parse([folder / file])
            settings = gin.config_str(max_line_length=10_000).splitlines()
            return Outcome(Meaning({"settings": tuple((one,) for one in settings if "=" in one)}))
        finally:
            config.clear()

    kind = Kind("run settings", clean, read)

    def adding(name: str, lines: tuple[str, ...]) -> None:
        def change(rng: random.Random, files: Files) -> Changed:
            text = files[file].decode().splitlines()
            text.insert(rng.randrange(len(text)), rng.choice(lines))
            return Changed({**files, file: "\n".join(text).encode()}, file, _LINE)

        kind.add(name, BROKEN, change, rounds=10)

    modules = (MODULE, "os", "subprocess", f"{MODULE}.part", "antigravity", "this")
    adding("an import", tuple(f"import {one}" for one in modules))
    adding(
        "an import of a name",
        tuple(f"from {one} import system" for one in modules)
        + tuple(f"import {one} as tiny" for one in modules),
    )
    adding(
        "a part of another module",
        tuple(f"SSD.neck = @{one}()" for one in ("os.system", "gin.enter_interactive_mode"))
        + tuple(f"{one}.command = 'true'" for one in ("os.system", "subprocess.run")),
    )
    adding(
        "a file of another place",
        ("include '/etc/passwd'", "include '../other.gin'", f"include '{MODULE}.py'"),
    )
    return kind
