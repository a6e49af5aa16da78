"""Progress for a person at a terminal (a bar) and for a log (one line every 30 seconds)."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

__all__ = ["Progress"]

_EVERY = 30.0  # seconds between two lines where there is no terminal


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Shows stage, done/total, best so far, estimated time left, and failures.

    Args:
        stream: Where to; standard error by default, so that standard output stays clean.
        quiet: Show nothing at all.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._bar: Bar | None = None
        self._last = 0.0
        self._state = ("", 0, 0)
        self._facts = {"best": "", "failed": "", "note": ""}
        self._stage_started = 0.0
        self._stage_from = 0

    def start(self) -> None:
        """Begin to draw, if the stream is a terminal."""
        if self._quiet or not self._stream.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
            console=Console(file=self._stream),
            refresh_per_second=4,
        )
        self._bar.add_task("starting", total=None, facts="")
        self._bar.start()

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """Show a line above the bar."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def facts(self, *, best: str | None = None, failed: int | None = None) -> None:
        """Change what is shown beside the bar.

        Args:
            best: The best result so far, as text with unit.
            failed: Number of failed trials.
        """
        if best is not None:
            self._facts["best"] = f"best {best}"
        if failed:
            self._facts["failed"] = f"{failed} failed"

    def update(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        """Show how far a stage is.

        Args:
            stage: What is being done ("prepare", "trials", "measuring 7").
            done: How much of it.
            total: Out of how much; None if unknown.
            note: Anything short.
        """
        if self._quiet:
            return
        if total is not None and done > total:  # more came than was foreseen: how much more is not known
            total = None
        now = time.monotonic()
        if stage != self._state[0]:
            self._stage_started, self._stage_from, self._last = now, done, 0.0
        self._state = (stage, done, total or 0)
        self._facts["note"] = note
        if self._bar is not None:
            facts = "  ".join(fact for fact in self._facts.values() if fact)
            task = self._bar.tasks[0]
            if task.description != stage:
                self._bar.reset(task.id, description=stage, total=total, completed=done, facts=facts)
            else:
                self._bar.update(task.id, total=total, completed=done, facts=facts)
        elif now - self._last >= _EVERY or self._last == 0.0:
            self._last = now
            print(self._line(now), file=self._stream, flush=True)

    def _line(self, now: float) -> str:
        stage, done, total = self._state
        parts = [f"{stage}: {done}/{total}" if total else f"{stage}: {done}"]
        elapsed = now - self._stage_started
        if total and done > self._stage_from:
            parts.append(f"left {_duration(elapsed / (done - self._stage_from) * (total - done))}")
        return ", ".join(parts + [fact for fact in self._facts.values() if fact])
