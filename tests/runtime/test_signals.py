"""Signals that end a process: answered, waited for, and at once the second time."""

import os
import signal
import sys
import threading
import time

import pytest

from ssd_centernet.runtime import signals
from ssd_centernet.runtime.signals import (
    Stopped,
    answered_signals,
    interruptible,
    noted,
    stoppable,
    unhurried,
)
from tests.process import Running, slowness


# What keeps a process from its handlers: with the interpreter's lock, and without it.
class Sending:
    """Is sent a signal while it is destroyed, and waits for it."""

    def __del__(self):
        """Ask this process to end."""
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(100)


DEAF = {
    "in the interpreter": "sum(range(10**10))",
    "outside it": "__import__('hashlib').pbkdf2_hmac('sha256', b'a', b'b', 10**9)",
    "willing": "__import__('time').sleep(100)",
    "in a destructor": "__import__('tests.runtime.test_signals').runtime.test_signals.Sending()\n"
    "        __import__('time').sleep(100)",
    "saving after a loss": "try:\n            __import__('tests.runtime.test_signals')"
    ".runtime.test_signals.Sending()\n            __import__('time').sleep(100)\n"
    "        finally:\n            with signals.unhurried():\n"
    "                print('saves', flush=True)\n                __import__('time').sleep(20)",
    "in the interpreter, at once": "exec('with signals.at_once(): sum(range(10**10))')",
}
SCRIPT = """
import sys
from ssd_centernet.runtime import signals
signals.PATIENCE = {patience}
try:
    with signals.stoppable():
        print("begins", flush=True)
        {doing}
except signals.Stopped as stop:
    print("cleaned up")
    sys.exit(128 + stop.number)
"""


def answer(doing, *numbers, patience=60.0):
    """Send signals to a process, a fifth of a second apart; return its end and the seconds."""
    script = SCRIPT.format(doing=DEAF[doing], patience=patience)
    with Running(sys.executable, "-c", script) as running:
        running.wait_until(lambda: os.path.getsize(running.files[0].name))
        for number in numbers:
            time.sleep(0.2)
            running.signal(number)
        sent = time.monotonic()
        ended = running.finish()
        return ended, time.monotonic() - sent


def test_a_command_is_told_to_end_and_cleans_up():
    ended, _ = answer("willing", signal.SIGTERM)
    assert (ended.status, ended.stdout) == (143, "begins\ncleaned up\n"), ended
    ended, _ = answer("willing", signal.SIGINT)
    assert (ended.status, ended.stdout) == (130, "begins\ncleaned up\n"), ended


@pytest.mark.parametrize("doing", ["in the interpreter", "outside it"])
def test_a_second_signal_ends_a_deaf_process_at_once(doing):
    ended, seconds = answer(doing, signal.SIGTERM, signal.SIGTERM)
    assert ended.status == -signal.SIGTERM and seconds < 1.0 * slowness(), f"{seconds} {ended}"


def test_a_call_that_keeps_the_lock_is_ended_at_once_where_it_is_known():
    ended, seconds = answer("in the interpreter, at once", signal.SIGTERM)
    assert ended.status == -signal.SIGTERM and seconds < 1.0 * slowness(), f"{seconds} {ended}"


def test_a_signal_in_a_destructor_is_not_lost():
    """Python shows an exception of a destructor and goes on, as if no signal had come."""
    ended, seconds = answer("in a destructor")
    assert (ended.status, ended.stdout) == (143, "begins\ncleaned up\n"), ended
    assert "Traceback" not in ended.stderr and seconds < 10 * slowness(), ended


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_what_saves_after_a_lost_one(number):
    script = SCRIPT.format(doing=DEAF["saving after a loss"], patience=60.0)
    with Running(sys.executable, "-c", script) as running:
        running.wait_until(lambda: "saves" in running.text())
        time.sleep(0.3)  # The signal that was sent again has been told from this one.
        running.signal(number)
        sent = time.monotonic()
        ended = running.finish()
    assert ended.status in (143, -number) and ended.stdout == "begins\nsaves\n", ended
    assert time.monotonic() - sent < 5.0 * slowness(), ended


def test_another_signal_ends_it_too():
    ended, seconds = answer("outside it", signal.SIGTERM, signal.SIGINT)
    assert ended.status == 143 and seconds < 1.0 * slowness(), f"{seconds} {ended}"


def test_a_deaf_process_is_ended_in_time_and_says_so():
    ended, seconds = answer("outside it", signal.SIGTERM, patience=1.0)
    assert ended.status == 143 and seconds < 3.0 * slowness(), f"{seconds} {ended}"
    first, second = ended.stderr.splitlines()
    assert first == "SIGTERM: ending; once more to end at once"
    assert second.startswith("SIGTERM: not answered in 1 s, so the process ends")


def test_a_block_that_may_take_its_time_is_waited_for():
    """Such as one that saves a checkpoint; afterwards the time counts from its end."""
    slow = "signals.noted(print), signals.unhurried(): [time.sleep(0.1) for _ in range(15)]"
    script = SCRIPT.format(doing=f"\n        with {slow}", patience=0.5)
    script += "import time as clock\nclock.sleep(100)\n"
    with Running(sys.executable, "-c", f"import time\n{script}") as running:
        running.wait_until(lambda: os.path.getsize(running.files[0].name))
        running.signal(signal.SIGTERM)
        ended = running.finish()
    assert ended.status == 143 and ended.stdout == "begins\n15\n", ended
    assert "SIGTERM: not answered in 2 s" in ended.stderr


def test_a_note_is_taken_and_parts_are_interrupted():
    got = []
    with noted(got.append):
        with interruptible():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert got == [signal.SIGTERM]
        # What comes after it does not begin.
        with pytest.raises(Stopped, match="SIGTERM"), interruptible():
            got.append("worked on")
    assert got == [signal.SIGTERM]


def test_an_interrupted_part_leaves_a_note():
    got = []
    with noted(got.append):
        with pytest.raises(Stopped), interruptible():
            os.kill(os.getpid(), signal.SIGINT)
            got.append("worked on")
    assert got == [signal.SIGINT]


def test_the_handlers_before_a_block_come_back():
    before = [signal.getsignal(number) for number in signals.STOPPING]
    for block in (stoppable(), noted(print), answered_signals(print)):
        with block:
            assert signal.getsignal(signal.SIGTERM) not in (before[0], signal.SIG_DFL)
        assert [signal.getsignal(number) for number in signals.STOPPING] == before


def test_every_signal_of_a_block_that_answers_itself_is_given_to_it():
    got = []
    with answered_signals(got.append, (signal.SIGTERM, signal.SIGUSR1)):
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
    assert got == [signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM]


def test_what_a_process_was_told_to_ignore_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable(), noted(print), unhurried(1.0):
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "block", [stoppable, lambda: noted(print), lambda: answered_signals(print)]
)
def test_in_another_thread_the_handlers_stay(block):
    seen = []

    def work():
        with block(), interruptible():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
