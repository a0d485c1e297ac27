"""A sample of what `python -m tests.faults --all` tries, and that the harness sees faults."""

import contextlib
import dataclasses
import os
import signal
import time

import psutil
import pytest

from ssd_centernet.runs.report import runs_page
from tests.faults.checks import reported
from tests.faults.commands import commands, make_inputs
from tests.faults.harness import (
    BLOCKED,
    LEFTOVER,
    LOST,
    PROGRAM,
    TRACEBACK,
    Command,
    Trial,
    files_of,
    sample,
)
from tests.faults.states import State
from tests.faults.watch import missing, watched

# How many states of each command; those of a training and an export take seconds each.
STATES = {
    "make_synthetic": 8,
    "make_synthetic --overwrite": 8,
    "convert": 8,
    "convert --overwrite": 8,
    "make_static --overwrite": 2,
    "evaluate": 2,
    "evaluate a file": 4,
    "predict": 3,
    "predict a video": 3,
    "export --overwrite": 2,
    "report": 3,
    "train": 4,
    "train on corrected ones": 2,
    "weights fetch resnet50_v1_slim": 6,
    "weights convert": 2,
}


@pytest.fixture(scope="module", autouse=True)
def _watchable():
    reason = missing()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def inputs(warm, tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("faults"), warm)


@pytest.mark.parametrize("name", STATES)
def test_nothing_is_lost_by_a_kill(name, inputs, warm, tmp_path):
    if name == "predict a video":
        pytest.importorskip("cv2", reason="OpenCV is not installed")
    trial = Trial(commands(inputs)[name], warm, tmp_path)
    found = trial.result(sample(trial.points, STATES[name], seed=7))
    assert found.tried == STATES[name]
    assert not found.faults, "\n".join(map(str, found.faults))


def test_a_kill_leaves_what_was_seen_before_it(inputs, warm, tmp_path):
    trial = Trial(commands(inputs)["convert"], warm, tmp_path)
    for number in (2, trial.operations // 2, trial.operations):
        place = tmp_path / f"killed-{number}"
        for operation in trial.watch(place):
            if operation.number == number:
                seen = State.read(place / "data")
                operation.kill()
        assert State.read(place / "data").digest == seen.digest
        assert seen.digest in {point.state.digest for point in trial.points}


_CHANGES = """
import ctypes, os, shutil, sys, threading
os.chdir(sys.argv[1])
libc = ctypes.CDLL(None)
os.mkdir("a")
open("a/one", "w").close()
with open("a/two", "w") as file:
    file.write("abcd")
libc.fopen.restype = ctypes.c_void_p
file = libc.fopen(b"three", b"w")  # Written by the library of C, in its own buffer.
libc.fputs(b"efgh", ctypes.c_void_p(file))
libc.fclose(ctypes.c_void_p(file))
shutil.copyfile("a/two", "four")
os.replace("four", "a/five")
os.symlink("three", "six")
os.truncate("a/two", 1)
os.remove("six")
print("said")
open("/dev/null", "w").write("elsewhere")
if not os.fork():
    os.rmdir("a/none") if os.path.exists("a/none") else os.mkdir("seven")
    os._exit(0)
os.wait()
thread = threading.Thread(target=os.rmdir, args=["seven"])
thread.start()
thread.join()
"""


def test_every_kind_of_change_is_seen_in_all_threads_and_processes(warm, tmp_path):
    program, root = tmp_path / "program.py", tmp_path / "root"
    program.write_text(_CHANGES)
    root.mkdir()
    seen = []
    options = {"cwd": tmp_path, "root": root, "record": tmp_path / "record"}
    with watched(warm, program, root, **options) as watching:
        for operation in watching.operations():
            seen.append((operation.call, operation.paths))
            if operation.half is not None:
                assert operation.half in ((0, b"ab"), (0, b"ef"))
        ended = watching.finish(status=0)
    assert ended.stdout == "said\n"
    copied = [call for call, paths in seen if paths == ("four",)]
    assert copied[0] == "openat" and set(copied[1:]) <= {"sendfile", "copy_file_range", "write"}
    assert [one for one in seen if one[1] != ("four",)] == [
        ("mkdir", ("a",)),
        ("openat", ("a/one",)),
        ("openat", ("a/two",)),
        ("write", ("a/two",)),
        ("openat", ("three",)),
        ("write", ("three",)),
        ("rename", ("four", "a/five")),
        ("symlink", ("six",)),
        ("truncate", ("a/two",)),
        ("unlink", ("six",)),
        ("mkdir", ("seven",)),
        ("rmdir", ("seven",)),
    ]


_BAD = """
import json, os, pathlib, subprocess, sys
root = pathlib.Path("root")
root.mkdir(exist_ok=True)
if (root / "new").exists():
    MODE
(root / "new").write_text("half")
(root / "result").write_text("done")
os.remove(root / "new")
"""


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("sys.exit('Error: remove it')", BLOCKED),
        ("raise KeyError", TRACEBACK),
        ("subprocess.run(['true'])", PROGRAM),
        ("(root / 'hidden').touch()", LEFTOVER),
        ("(root / 'other').touch(); (root / 'new').unlink(); (root / 'other').unlink()", None),
        ("(root / 'one').touch(); (root / 'result').write_text('5'); sys.exit()", LOST),
    ],
)
def test_each_kind_of_fault_is_seen(mode, kind, warm, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(_BAD.replace("MODE", mode))
    trial = Trial(Command("bad", "root", ()), warm, tmp_path, program=str(program))
    found = {fault.kind for fault in trial.result(trial.points).faults}
    assert kind in found if kind else not found


def test_pages_of_two_minutes_are_equal(tmp_path, monkeypatch):
    told = []
    for when in ("2026-01-02 03:04", "2026-01-02 03:05"):
        monkeypatch.setattr("time.strftime", lambda form, when=when: when)
        (tmp_path / "report.html").write_text(runs_page([]))
        told.append(State.read(tmp_path))
    assert files_of(told[0]) != files_of(told[1])
    assert reported(told[0]) == reported(told[1])


def test_what_a_check_says_of_a_state_is_a_fault(inputs, warm, tmp_path):
    command = commands(inputs)["make_synthetic"]
    told = dataclasses.replace(command, check=lambda state, start, end: "mixed")
    trial = Trial(told, warm, tmp_path)
    faults = trial.result(trial.points[:1]).faults
    assert [(fault.kind, fault.why) for fault in faults] == [(LOST, "mixed")]


def test_a_reader_must_go_on_reading(warm, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, pathlib, sys\n"
        "root = pathlib.Path('root')\n"
        "if sys.argv[1:]:\n"
        "    sys.exit(not (root / 'result').exists())\n"
        "root.mkdir(exist_ok=True)\n"
        "(root / 'result').write_text('a')\n"
        "(root / 'log').write_text('a')\n"
        "os.remove(root / 'result')\n"
        "(root / 'result').write_text('b')\n"
    )
    command = Command("bad", "root", (), readers=(("read",),))
    trial = Trial(command, warm, tmp_path, program=str(program))
    found = trial.result(trial.points).faults
    assert [fault.kind for fault in found] == [BLOCKED]
    assert "openat result" in found[0].point


def test_a_machine_that_cannot_watch_says_why(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert "x86-64" in missing()


def test_a_killed_command_leaves_no_process(warm, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, time\nif not os.fork():\n    time.sleep(300)\nos.mkdir('root/a')\n"
    )
    (tmp_path / "root").mkdir()
    options = {"cwd": tmp_path, "root": tmp_path / "root", "record": tmp_path / "record"}
    with watched(warm, program, **options) as watching:
        for operation in watching.operations():
            group = os.getpgid(operation.pid)
            operation.kill()
        watching.finish(status=-signal.SIGKILL % 256)
    deadline = time.monotonic() + 30
    while _alive(group):  # SIGKILL takes its time on a busy machine.
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(group):
    """The processes of a group; one that nobody has waited for is none any more."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
