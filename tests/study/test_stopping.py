"""Signals: a request to stop at a safe point, and what nohup asks to leave alone."""

from __future__ import annotations

import os
import signal

import pytest

from rankitect.study.stopping import StopSignal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_asks_for_a_stop_and_handlers_come_back(number: signal.Signals) -> None:
    stop, told = StopSignal(), []
    before = signal.signal(number, signal.default_int_handler)  # whoever runs the tests may ignore it
    try:
        with stop.on_signals(told.append):
            assert not stop()
            os.kill(os.getpid(), number)
            assert stop()
        assert len(told) == 1
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_a_closed_terminal_that_nohup_ignores_is_ignored() -> None:
    stop, before = StopSignal(), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop.on_signals(lambda text: None):
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)
