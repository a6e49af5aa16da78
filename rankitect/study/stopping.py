"""Ctrl-C, SIGTERM, a closed terminal: the first asks for a stop at the next safe point, the second stops at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["INTERRUPTED", "StopSignal"]

INTERRUPTED = 130  # exit code of a command ended by Ctrl-C
_SHOW_CURSOR = "\x1b[?25h"


class StopSignal:
    """Whether the user asked to stop. Call it to find out; `request` sets it."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self) -> bool:
        """True once a stop was asked for."""
        return self._event.is_set()

    def request(self) -> None:
        """Ask for a stop at the next safe point."""
        self._event.set()

    @contextmanager
    def on_signals(self, say: Callable[[str], None]) -> Iterator[None]:
        """Listen to these signals in this block. Only the main thread can; elsewhere the block changes nothing.

        Args:
            say: Shows a sentence to the user.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if self():
                # The store is safe at any instant, so nothing has to be tidied up; a tidy exit could take minutes.
                if sys.stderr.isatty():
                    sys.stderr.write(_SHOW_CURSOR)
                    sys.stderr.flush()
                os._exit(INTERRUPTED)
            self.request()
            say("Stopping at the next safe point; finished trials are kept. Press Ctrl-C again to stop at once.")

        wanted = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
            wanted.append(signal.SIGHUP)
        previous = {number: signal.signal(number, handle) for number in wanted}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
