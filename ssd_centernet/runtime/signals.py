"""Signals that ask a process to end: answered in time, and at once when they come again.

Python runs a handler between two of its own instructions, so a call into C++ keeps the process deaf
for as long as it takes. Two things help. The kernel takes the handler away when a signal comes: the
next one ends the process wherever it is. And a thread, woken through a pipe that Python's handler
in C writes to, ends the process where nobody answers in time. It also sends the signal again where
Python threw away what the handler raised, as in a destructor. All files are written whole or not at
all, so an end at any place leaves no less than a lost machine would.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

STOPPING = (signal.SIGTERM, signal.SIGINT)
# Seconds until a command ends that does not answer.
PATIENCE = 8.0
# Seconds until a signal that was lost is sent again.
_PAUSE = 0.2
_ENDING = "ending"


class Stopped(KeyboardInterrupt):  # noqa: N818  # a request, not an error
    """A signal asks to end; raised in the main thread.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int):
        """Note the signal."""
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Request:
    """The first signal that comes, and what becomes of it.

    Attributes:
        number: of the signal; None before it comes.
        answer: is given the number; None where no block answers.
        raises: whether the main thread is interrupted.
        doing: how it is answered, for the user.
        deadline: time before which no command is ended for want of an answer.
        came: whether a signal came, also while the main thread is in a call into C++.
        lost: whether the main thread was interrupted where Python throws exceptions away.
    """

    def __init__(self):
        self.number: int | None = None
        self.answer: Callable[[int], None] | None = None
        self.raises = True
        self.doing = _ENDING
        self.deadline = 0.0
        self.came = False
        self.lost = False

    def handle(self, number: int, _frame: object) -> None:
        if self.number is None:
            self.number = number
            # Of the other signals, and where the kernel did not do it.
            for one in STOPPING:
                if signal.getsignal(one) == self.handle:
                    signal.signal(one, signal.SIG_DFL)
        elif self.lost:
            # Sent again; more of these may be on their way, and must not end the process.
            self.lost = False
        else:
            return
        if self.answer is not None:
            self.answer(number)
        if self.raises:
            raise Stopped(number)


_request = _Request()


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGINT end a command, which is the block.

    The first signal raises `Stopped`, or is answered as a block inside this one asks. A process
    that has not ended `PATIENCE` seconds later is ended with status 128 + signal; see `unhurried`.
    A second signal ends it at once. In another than the main thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        # What holds back standard error does not hold back this.
        told = os.dup(2)
    except OSError:
        told = os.open(os.devnull, os.O_WRONLY)
    watch = threading.Thread(target=_watch, args=(reading, told), daemon=True)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        with _heard(), _noticing_loss():
            watch.start()
            yield
    finally:
        if _request.number is None:
            signal.set_wakeup_fd(before)
            os.close(writing)
            watch.join()
        else:
            # The thread stays: an interpreter may hang where it ends, too.
            for one in STOPPING:
                if signal.getsignal(one) != signal.SIG_IGN:
                    signal.signal(one, signal.SIG_DFL)


@contextlib.contextmanager
def noted(answer: Callable[[int], None], doing: str = _ENDING) -> Iterator[None]:
    """Give the first SIGTERM or SIGINT to a function, which the block then asks.

    A second signal ends the process at once. In another thread nothing is changed.

    Args:
        answer: takes the number of the signal; called in the main thread.
        doing: what a command says that it does then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _request.answer, _request.raises, _request.doing
    with contextlib.ExitStack() as stack:
        if _request.handle not in map(signal.getsignal, STOPPING):
            stack.enter_context(_heard())
        _request.answer, _request.raises, _request.doing = answer, False, doing
        try:
            yield
        finally:
            _request.answer, _request.raises, _request.doing = before


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal end a part of a `noted` block; elsewhere, nothing is changed.

    Raises:
        Stopped: a signal came, or had come before; the function of `noted` knows.
    """
    if _request.answer is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    if _request.number is not None:
        raise Stopped(_request.number)
    doing = _request.doing
    try:
        _request.doing = _ENDING
        _request.raises = True
        yield
    finally:
        _request.raises = False
        _request.doing = doing


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Let a signal end a command at once, in a call that keeps Python's lock for long."""
    heard = [one for one in STOPPING if signal.getsignal(one) == _request.handle]
    with _handled(heard, signal.SIG_DFL):
        yield


@contextlib.contextmanager
def heard_again() -> Iterator[None]:
    """Set the handlers anew after a block in which a library may set its own, past Python."""
    yield
    if threading.current_thread() is not threading.main_thread():
        return
    for one in STOPPING:
        if (handler := signal.getsignal(one)) is not None:
            _set(one, handler)


@contextlib.contextmanager
def unhurried(seconds: float = float("inf")) -> Iterator[None]:
    """Do not end a command for want of an answer, while the block runs.

    Args:
        seconds: that the block may take; when it is over, `PATIENCE` begins anew.
    """
    before, _request.deadline = _request.deadline, time.monotonic() + seconds
    try:
        yield
    finally:
        _request.deadline = max(before, time.monotonic() + PATIENCE)


def is_asked_to_end() -> bool:
    """Tell whether a signal asks a command to end, before the main thread can answer it."""
    return _request.came


@contextlib.contextmanager
def answered_signals(
    answer: Callable[[int], None], numbers: Sequence[int] = STOPPING
) -> Iterator[None]:
    """Give every signal that comes to a function, until the block ends, however long that takes.

    Args:
        answer: takes the number of the signal; called in the main thread.
        numbers: of the signals. In another thread none is given, as Python has it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with unhurried(), _handled(numbers, lambda number, _frame: answer(number)):
        yield


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """Let the request handle the signals that nobody told this process to ignore."""
    _request.number, _request.came, _request.lost = None, False, False
    numbers = [one for one in STOPPING if signal.getsignal(one) != signal.SIG_IGN]
    with _handled(numbers, _request.handle):
        yield


@contextlib.contextmanager
def _noticing_loss() -> Iterator[None]:
    """Note a `Stopped` that a destructor or another callback raises to nobody, and be quiet."""
    before = sys.unraisablehook

    def hook(unraisable) -> None:
        if issubclass(unraisable.exc_type, Stopped):
            # For what the thread that watches sends: no exception from there would wake this one.
            signal.signal(unraisable.exc_value.number, _request.handle)
            _request.lost = True
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def _handled(numbers: Sequence[int], handler: Callable) -> Iterator[None]:
    """Set a handler, and what was there before when the block ends."""
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        _set(number, handler)
    try:
        yield
    finally:
        for number, one in before.items():
            _set(number, one)


def _set(number: int, handler) -> None:
    if handler == _request.handle and _request.number is not None:
        handler = signal.SIG_DFL  # It has been used.
    signal.signal(number, handler)
    if handler != _request.handle:
        return
    with contextlib.suppress(AttributeError, OSError):  # Of the GNU C library alone.
        set_for_one = ctypes.CDLL(None).sysv_signal
        set_for_one.restype, set_for_one.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
        set_for_one(number, set_for_one(number, None))  # The same handler, for one signal.


def _watch(reading: int, told: int) -> None:
    """Wait for a signal, and then for its answer."""

    def say(text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(told, f"{text}\n".encode())

    while (came := os.read(reading, 1)) and came[0] not in STOPPING:
        pass
    if not came:
        os.close(reading)
        os.close(told)
        return
    _request.came = True
    began, name = time.monotonic(), signal.Signals(came[0]).name
    sent, own = began, 0
    if _request.deadline < float("inf"):
        say(f"{name}: {_request.doing}; once more to end at once")
    while time.monotonic() < max(began + PATIENCE, _request.deadline):
        if _request.lost and time.monotonic() > sent + _PAUSE:
            # A signal that comes just before a call into C++ does not end it: hence more than one.
            sent, own = time.monotonic(), own + 1
            signal.pthread_kill(threading.main_thread().ident, came[0])
        if not select.select([reading], [], [], 0.05)[0]:
            continue
        again = os.read(reading, 1)
        if not again:
            return  # The block is over: it has answered all signals itself.
        if again[0] == came[0] and own:
            own -= 1
            continue
        # The kernel answers the same signal, if none was lost; here ends a Ctrl-C after a SIGTERM.
        heard = sent > began and signal.getsignal(again[0]) == _request.handle
        if again[0] in STOPPING and (heard or _request.deadline < float("inf")):
            os._exit(128 + came[0])
    seconds = time.monotonic() - began
    say(f"{name}: not answered in {seconds:.0f} s, so the process ends; what was saved is intact")
    os._exit(128 + came[0])
