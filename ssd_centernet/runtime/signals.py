"""Signals that a block of code answers itself."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence


@contextlib.contextmanager
def answered_signals(
    answer: Callable[[int], None],
    numbers: Sequence[int] = (signal.SIGTERM, signal.SIGINT),
    *,
    once: bool = False,
) -> Iterator[None]:
    """Give the signals that come to a function, until the block ends.

    Args:
        answer: takes the number of the signal; called in the main thread.
        numbers: of the signals. In another thread none is given, as Python has it.
        once: whether a second signal of one number goes where it went before the block.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}

    def handle(number: int, _frame: object) -> None:
        if once:
            signal.signal(number, before[number])
        answer(number)

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
