"""The helpers that start processes: limits, what is shown, and forks that are processes."""

import contextlib
import os
import signal
import sys
import time

import psutil
import pytest

from tests.process import Running, bash, environment, python, run, slowness
from tests.warm import without_ours


def test_what_takes_too_long_is_ended_with_all_that_it_started_and_shown(tmp_path):
    script = f"echo begun; sleep 100 & echo $! > {tmp_path / 'pid'}; wait"
    with pytest.raises(pytest.fail.Exception, match=r"(?s)within \S+ s.*status -9.*begun"):
        bash(script, limit=1.0 * slowness())
    deadline = time.monotonic() + 20
    while _lives(int((tmp_path / "pid").read_text())):  # SIGKILL takes its time on a busy machine.
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _lives(number):
    """Tell whether a process is there; one that nobody has waited for is none any more."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    return False


def test_another_status_is_a_failure_that_shows_both_texts():
    script = "echo out; echo err >&2; exit 3"
    with pytest.raises(AssertionError, match=r"(?s)status 3.*stdout\nout.*stderr\nerr"):
        bash(script)
    assert bash(script, status=3).text == "out\nerr\n"
    assert bash(script, status=None).status == 3


def test_what_is_waited_for_must_come_before_the_end(tmp_path):
    with Running("sh", "-c", f"touch {tmp_path / 'here'}; sleep 100") as running:
        running.wait_until((tmp_path / "here").exists)
        running.signal(signal.SIGTERM)
        assert running.finish().status == -signal.SIGTERM
    with Running("sh", "-c", "echo last words") as running:
        with pytest.raises(pytest.fail.Exception, match="(?s)ended too early.*last words"):
            running.wait_until(lambda: False)


def test_variables_are_set_and_taken_away():
    changed = environment(HOME=None, NUMBER=3)
    assert "HOME" not in changed and changed["NUMBER"] == "3"
    assert changed["PATH"] == os.environ["PATH"] and changed["CUDA_VISIBLE_DEVICES"] == ""


def test_tests_in_the_background_of_a_shell_hear_ctrl_c():
    code = "import signal, tests.conftest; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
    said = bash(f"trap '' INT; exec {sys.executable} -c '{code}'").stdout
    assert said == "False\n"


def test_a_busy_machine_is_slower(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 0.0, 0.0))
    assert slowness() >= 4.5
    monkeypatch.setattr(os, "cpu_count", lambda: 10_000)
    assert slowness() == 1.0


def test_a_fork_is_a_process_like_any_other(warm, tmp_path):
    code = "import os, sys; print(os.getcwd(), sys.argv[1:], os.environ['WORD'], sys.stdin.read())"
    wanted = [
        run(program, "-c", code, "a b", "", cwd=tmp_path, env=environment(WORD="x y")).stdout
        for program in (sys.executable, warm)
    ]
    assert wanted[0] == wanted[1]
    for status in (0, 1, 7):
        run(warm, "-c", f"raise SystemExit({status})", status=status)
    ended = run(warm, "-c", "print('out'); 1 / 0", status=1)
    assert ended.stdout == "out\n" and "ZeroDivisionError" in ended.stderr
    # Nothing that one changes is seen by the next, and TensorFlow has been imported.
    run(warm, "-c", "import sys; sys.path.clear(); sys.modules.clear()")
    run(warm, "-c", "import sys; assert sys.path; assert 'tensorflow' in sys.modules")
    assert python("import sys; print('tensorflow' in sys.modules)").stdout == "False\n"


def test_a_fork_without_ours_has_the_libraries_and_stays_what_it_is(warm):
    code = """
import subprocess, sys
found = [name for name in ("tensorflow", "ssd_centernet") if name in sys.modules]
print(found)
if sys.argv[1:]:
    subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""
    assert run(without_ours(warm), "-c", code, code).stdout == "['tensorflow']\n" * 2
    assert run(warm, "-c", code, code).stdout == "['tensorflow', 'ssd_centernet']\n" * 2


def test_a_fork_ends_when_nobody_waits_for_it(warm, tmp_path):
    path = tmp_path / "pid"
    code = f"import os, time; open({str(path)!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    with Running(warm, "-c", code) as running:
        running.wait_until(lambda: path.exists() and path.read_text())
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(path.read_text())).wait(timeout=20)
