"""Signals that a block of code answers itself."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence


@contextlib.contextmanager
def answered_signals(
    answer: Callable[[int], None], numbers: Sequence[int] = (signal.SIGTERM, signal.SIGINT)
) -> Iterator[None]:
    """Give the signals that come to a function, until the block ends.

    Args:
        answer: takes the number of the signal; called in the main thread.
        numbers: of the signals. In another thread none is given, as Python has it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda got, _: answer(got)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
