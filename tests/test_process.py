"""The helpers that start processes: limits, what is shown, and forks that are processes."""

import contextlib
import os
import signal
import sys

import psutil
import pytest

from tests.process import Running, bash, environment, python, run


def test_what_takes_too_long_is_ended_with_all_that_it_started_and_shown(tmp_path):
    script = f"echo begun; sleep 100 & echo $! > {tmp_path / 'pid'}; wait"
    with pytest.raises(pytest.fail.Exception, match=r"(?s)within 1 s.*status -9.*begun"):
        bash(script, limit=1)
    number = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(number) or psutil.Process(number).status() == "zombie"


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


def test_a_fork_ends_when_nobody_waits_for_it(warm, tmp_path):
    path = tmp_path / "pid"
    code = f"import os, time; open({str(path)!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    with Running(warm, "-c", code) as running:
        running.wait_until(lambda: path.exists() and path.read_text())
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(path.read_text())).wait(timeout=20)
