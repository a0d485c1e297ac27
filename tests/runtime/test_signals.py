"""Signals answered by a block, and by nobody else after it."""

import os
import signal
import threading

from ssd_centernet.runtime.signals import answered_signals


def test_a_block_answers_and_the_handlers_before_it_come_back():
    before, got = signal.getsignal(signal.SIGTERM), []
    with answered_signals(got.append, (signal.SIGTERM, signal.SIGUSR1)):
        for number in (signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert got == [signal.SIGUSR1, signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_second_signal_goes_where_it_went_before():
    first, second = [], []
    with answered_signals(first.append), answered_signals(second.append, once=True):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
    assert first == second == [signal.SIGTERM]


def test_in_another_thread_the_handlers_stay():
    seen = []

    def work():
        with answered_signals(seen.append):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
