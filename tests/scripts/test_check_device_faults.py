"""What goes wrong around `scripts/check_device.sh`: arguments, signals, another check, causes."""

import json
import os
import re
import signal
import sys

import numpy as np
import pytest

from tests.process import ROOT, Running
from tests.scripts.test_check_device import result_of, settings, shell
from tools.device_check import __main__ as device_check
from tools.device_check import plan, profile, running, steps, verdicts

RIGHT = {"format": 1, "begun": "2026-01-01T00:00", "changed": "2026-01-01T00:00", "parts": {}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--row=/nonexistent"], "/nonexistent cannot be read"),
        (["--row={folder}"], "cannot be read"),
        (["--row={folder}/list"], "list, expected an object"),
        (["--row={folder}/bare"], "without begun, changed, settings"),
        (["--output={folder}/list"], "list cannot be made"),
        (["--output={folder}/old"], "settings without"),
        (["--output={folder}/half"], "part 'machine' without its results"),
        (["--output="], "must not be empty"),
        (["--only="], "--only= has an empty name; expected some of machine, doctor"),
        (["--only=doctor,"], "--only=doctor, has an empty name"),
        (["--recipes="], "--recipes= has an empty name"),
        (["--limit=nan"], "--limit is nan; expected seconds"),
    ],
)
def test_what_it_cannot_take_is_told_in_one_line(tmp_path, capsys, monkeypatch, arguments, said):
    """In this process: the program is `main` alone."""
    files = {
        "list": [],
        "bare": {"format": 1, "parts": {}},
        "old/result.json": {**RIGHT, "settings": {}},
        "half/result.json": {**RIGHT, "settings": settings(), "parts": {"machine": {}}},
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    monkeypatch.setattr(running, "run_all", lambda *_: pytest.fail("it began"))
    with pytest.raises(SystemExit) as ended:
        device_check.main([one.format(folder=tmp_path) for one in arguments])
    printed = capsys.readouterr().err
    assert ended.value.code == 2 and said in printed, printed
    assert printed.startswith("check_device: ") and printed.count("\n") == 1


# A check whose parts are those that it is given, and no library.
CHECK = """
import signal
import sys
from pathlib import Path
from tools.device_check import __main__ as program, plan, running
running._GRACE = 2.0
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, under which tests may run, ignores it.
program.page.write = lambda *_: None
folder = Path(sys.argv[1])
program.plan.first_part = lambda settings, folder: plan.Part(
    name="machine", command=("echo", '{{"kind": "CPU", "devices": 1}}'))
program.plan.plan = lambda *_, **__: [
    plan.Part(name="training one", command=("sh", "-c", {script!r}), reads="")]
sys.exit(program.main(["--device=cpu", "--only=training", f"--output={{folder}}"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_part_and_keeps_the_results(tmp_path, number):
    mark = tmp_path / "pid"
    script = f"echo $$ > {mark}; exec sleep 100"
    command = (sys.executable, "-c", CHECK.format(script=script), tmp_path / "check")
    with Running(*command) as started:
        started.wait_until(lambda: mark.exists() and mark.read_text().strip())
        if number == signal.SIGTERM:  # Meanwhile the folder is taken.
            with pytest.raises(running.ResultError, match=f"process {started.process.pid}.*--out"):
                running.held(tmp_path / "check").__enter__()
        started.signal(number)
        ended = started.finish(limit=30.0)
    assert ended.status == 128 + number and "the same command goes on" in ended.stdout, ended
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
    assert list(result_of(tmp_path / "check")["parts"]) == ["machine"]
    with running.held(tmp_path / "check"):
        pass


def test_a_signal_that_comes_while_a_part_is_started_ends_it(tmp_path, monkeypatch):
    started = []
    popen = running.subprocess.Popen

    def interrupted(*arguments, **given):
        started.append(popen(*arguments, **given))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[0]

    monkeypatch.setattr(running.subprocess, "Popen", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(running.Stopped), running.stoppable():
        running.run_part(shell("long", "sleep 100"), tmp_path)
    assert started[0].returncode == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_chosen_parts_need_is_planned(tmp_path):
    def names(kinds, devices=2, device="gpu"):
        asked = plan.Settings(
            device=device, quick=True, recipes=(), kinds=kinds, steps=2, limit=9.0
        )
        return [one.name for one in plan.plan(asked, tmp_path, kind="GPU", devices=devices)]

    needed = ["training data", "several one device"]
    assert names(("several",))[:3] == [*needed, "several one process"]
    assert "training profile" not in names(("several",))
    assert "training data" not in names(("several",), devices=1), "nothing is compared"
    assert names(("doctor",)) == ["doctor"]


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("status 1\nx: OUTPUT/a is a file, expected a folder.\nAll flags: x --help", "x: OUTPUT/a"),
        ("status 1\nValueError: the cause\nDuring cleanup\n  a hint", "ValueError: the cause"),
        (
            "status 1\ntf.errors.InvalidArgumentError: Graph error:\nthe cause",
            "tf.*error: the cause",
        ),
        ("status 3\nfirst\nlast", "last"),
        ("ended by signal 11", "ended by signal 11"),
    ],
)
def test_the_line_that_says_the_cause_is_shown(said, cause):
    part = {"status": "failed", "seconds": 1.0, "found": None, "said": said}
    judged = verdicts.judge({"parts": {"training data": part}})["training data"]
    assert re.match(f"failed: {cause}", judged.text), judged.text


def test_the_cause_of_a_time_limit_is_the_limit():
    part = {"status": "time limit", "said": "OSError: once\nended after 9 s (--limit)"}
    assert verdicts.cause(part) == "ended after 9 s (--limit)"


def test_no_folder_of_whoever_ran_it_is_in_the_result(tmp_path):
    folder = tmp_path / "sécret"
    written = folder / "parts" / "a.json"
    long = "x" * (running._WIDTH - 20)
    places = [folder, sys.prefix, running.Path.home(), ROOT]
    results = running.Results(folder, settings())
    told = json.dumps({"where": [f"{one}/a" for one in places]})
    parts = [
        shell("one fails", f"echo '{folder}/a {long}{folder}/b' >&2; exit 1"),
        shell("two writes", f"echo '{told}' > '{written}'", output=str(written)),
        plan.Part(name="three is missing", command=(str(folder / "program"),)),
    ]
    running.run_all(parts, results, lambda _: None)
    kept = json.loads((folder / "result.json").read_text())["parts"]
    assert kept["two writes"]["found"]["where"][0] == "OUTPUT/a"
    assert "OUTPUT/a" in kept["one fails"]["said"] and "OUTPUT" in kept["three is missing"]["said"]
    for place in (*places, tmp_path, "sécret"):
        if len(running.Path(place).parts) != 2 or place == "sécret":
            assert str(place) not in json.dumps(kept, ensure_ascii=False), place


def test_traces_of_tensorflow_2_10_are_read_too(tmp_path, monkeypatch):
    """Its wheel has the format in another package."""
    format_of_traces = profile._format()
    old = "tensorflow.core.profiler.protobuf.xplane_pb2"
    for name in profile._FORMATS:
        monkeypatch.setitem(sys.modules, name, format_of_traces if name == old else None)
    space = format_of_traces.XSpace()
    plane = space.planes.add(name="/device:GPU:0")
    plane.event_metadata[1].name = "kernel(int)"
    plane.lines.add().events.add(metadata_id=1, duration_ps=10**9)
    (tmp_path / "a.xplane.pb").write_bytes(space.SerializeToString())
    assert profile.summary(tmp_path)["longest"] == [{"name": "kernel", "ms": 1.0, "share": 1.0}]
    monkeypatch.setitem(sys.modules, old, None)
    with pytest.raises(ModuleNotFoundError, match="expected one of tensorflow.tsl"):
        profile.summary(tmp_path)


def losses(*totals, norm=2.0):
    return {"losses": [{"total": one, "gradient_norm": norm} for one in totals], "skipped": 0}


def test_a_device_may_be_off_as_the_cpu_is_with_weights_that_are_off():
    off = {
        "fp32": {"outputs": 1e-5, **losses(10.0, 5.5)},
        "tf32": {"outputs": 0.1, **losses(10.1, 5.5, norm=2.2)},
    }
    reference = {**losses(10.0, 5.0), "off": off}
    assert verdicts.tolerance("fp32", reference) == pytest.approx((1e-3, 1e-4, 1e-3, 0.4))
    # float16 has the digits of TF32, and nothing was tried for bfloat16.
    assert verdicts.tolerance("tf32", reference) == pytest.approx((0.4, 0.04, 0.4, 0.4))
    assert verdicts.tolerance("fp16", reference) == verdicts.tolerance("tf32", reference)
    assert verdicts.tolerance("bf16", reference) == verdicts.TOLERANCES["bf16"]
    # Where the CPU itself ends nowhere, a device still has to be near.
    off["fp32"] = {"outputs": None, **losses(None, 5.0, norm=None)}
    assert verdicts.tolerance("fp32", reference) == pytest.approx((1.0, 0.5, 0.5, 0.5))


def detections(*rows):
    """Return detections of an image from rows of a score, a class and the sides of a box."""
    table = np.float32(rows)[np.newaxis]
    return {
        "scores": table[..., 0],
        "classes": table[..., 1].astype(np.int32),
        "boxes": table[..., 2:],
        "count": np.int32([len(rows)]),
    }


def test_ties_may_be_in_any_order_and_nothing_else():
    first, second, third, last = (
        (0.9, 1, 0.0, 0.0, 0.5, 0.5),
        (0.9, 1, 0.25, 0.5, 0.75, 1.0),
        (0.4, 2, 0.0, 0.0, 1.0, 1.0),
        (0.2, 1, 0.0, 0.0, 0.1, 0.1),
    )
    wanted = detections(first, second, third, last)
    assert steps._apart(wanted, wanted) == (0.0, 0.0)
    assert steps._apart(detections(second, first, third, last), wanted) == (0.0, 0.0)
    # Of equal scores at the end others may be kept.
    other = (0.2, 1, 0.5, 0.5, 0.6, 0.6)
    assert steps._apart(detections(first, second, third, other), wanted) == (0.0, 0.0)
    moved = (0.4, 2, 0.0, 0.0, 1.0, 0.75)
    assert steps._apart(detections(first, second, moved, last), wanted) == (0.25, 0.0)
    # Another class has no box that belongs to it.
    named = (0.4, 1, 0.0, 0.0, 1.0, 1.0)
    assert steps._apart(detections(first, second, named, last), wanted) == (1.0, 0.0)
    lower = (0.3, 2, 0.0, 0.0, 1.0, 1.0)
    assert steps._apart(detections(first, second, lower, last), wanted)[1] > 0.09


def test_the_cause_is_not_what_tensorflow_logs():
    logged = "I0000 00:00:1795782618.257279 1859 device_compiler.h:196] Compiled cluster using XLA!"
    said = f"status 1\nnot enough memory for the batch\n{logged}\nWARNING: All log messages before"
    assert verdicts.cause({"status": "failed", "said": said}) == "not enough memory for the batch"
    assert verdicts.cause({"status": "failed", "said": logged}) == logged


def test_a_comparison_that_counted_is_told_by_its_arrays():
    row = {"name": "targets.npz:boxes", "note": "2 differ"}
    found = {"passed": 5, "failed": 1, "worst": [row]}
    part = {"status": "failed", "said": "status 1\nanything", "found": found, "seconds": 1.0}
    (judged,) = verdicts.judge({"parts": {"parity centernet fp32": part}}).values()
    assert judged == ("FAIL", "5 of 6 arrays agree; the furthest: targets.npz:boxes (2 differ)")


def test_a_part_sees_the_paths_that_the_check_has(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert running._environment()["PYTHONPATH"] == f"{ROOT}:{tmp_path}"
