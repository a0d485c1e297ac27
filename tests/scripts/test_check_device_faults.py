"""What goes wrong around `scripts/check_device.sh`: arguments, signals, another check, causes."""

import json
import os
import re
import signal
import sys

import pytest

from tests.process import ROOT, Running
from tests.scripts.test_check_device import result_of, settings, shell
from tools.device_check import __main__ as device_check
from tools.device_check import plan, profile, running, verdicts

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

    needed = ["training data", "training one device"]
    assert names(("several",))[:3] == [*needed, "several one process"]
    assert "training profile" not in names(("several",))
    assert not set(needed) & set(names(("several",), devices=1)), "nothing is compared"
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
