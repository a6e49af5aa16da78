"""A latency to trust: in a process of its own, beside a reference program whose drift is divided out."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankitect.deploy.worker import median_interval
from rankitect.errors import DeployError

__all__ = ["Meter", "Reference", "Timing", "TimingSettings"]


@dataclass(frozen=True)
class TimingSettings:
    """How a latency is measured.

    Attributes:
        threads: Processor threads of the runtime, each on a core of its own.
        target: Width of the median's 95% interval, relative to it, at which a measurement ends.
        rounds: Rounds at least.
        seconds: Seconds of measuring at most; what has not settled by then is flagged.
        stream_bytes: Copies of a part of a model are run in turns until they hold this many bytes together, so that
            none finds its weights in the processor's cache.
    """

    threads: int = 1
    target: float = 0.03
    rounds: int = 12
    seconds: float = 12.0
    stream_bytes: int = 96 * 2**20

    def copies(self, size: int) -> int:
        """How many copies of a program of so many bytes run in turns, so that none stays in the processor's cache."""
        return int(np.clip(-(-self.stream_bytes // max(1, size)), 1, 24))


@dataclass(frozen=True)
class Reference:
    """A program that is measured beside every other.

    Attributes:
        path: Its .pte file.
        copies: How many copies run in a round.
        round_ms: Milliseconds of a round when the device was calibrated; None before.
    """

    path: Path
    copies: int
    round_ms: float | None = None


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one run.

    Attributes:
        p50: Median, with the reference's drift divided out.
        low: Lower end of the median's 95% interval.
        high: Upper end.
        p90: 90% of all runs took at most this, each corrected as its round is.
        p99: Likewise 99%.
        runs: Runs measured.
        drift: The reference's time relative to its time at calibration.
        settled: Whether the interval became as narrow as asked.
        quiet: Share of rounds in which the process had the processor nearly all the time.
        load_ms: Loading the program and packing its weights.
        first_ms: The first run after loading.
        peak_bytes: Largest memory of the measuring process so far.
    """

    p50: float
    low: float
    high: float
    p90: float
    p99: float
    runs: int
    drift: float
    settled: bool
    quiet: float
    load_ms: float
    first_ms: float
    peak_bytes: int

    @property
    def busy(self) -> bool:
        """Whether other processes had the processor in more than half of the rounds."""
        return self.quiet < 0.5

    @property
    def trusted(self) -> bool:
        """Whether the measurement settled on a machine that was not busy."""
        return self.settled and not self.busy

    def to_json(self) -> dict[str, Any]:
        """The attributes as plain data."""
        return asdict(self)


class Meter:
    """The measuring process: started at the first measurement, and again after a crash. Use it as a context.

    Args:
        settings: How to measure.
        should_stop: Polled while waiting.

    Raises:
        DeployError: From `time`: the program crashed the runtime, or cannot be loaded.
    """

    def __init__(self, settings: TimingSettings, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.settings, self._should_stop = settings, should_stop
        self._process: subprocess.Popen[str] | None = None
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed with the meter)

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def time(
        self, path: Path, reference: Reference | None = None, *, copies: int = 1, method: str = "forward"
    ) -> Timing:
        """The time of one run of a program.

        Args:
            path: The .pte file.
            reference: What is run in turns with it.
            copies: Copies to run in turns; for parts of a model.
            method: The program's method.
        """
        s = self.settings
        answer = self._ask(
            {
                "program": str(path),
                "copies": copies,
                "method": method,
                "reference": str(reference.path) if reference else None,
                "reference_copies": reference.copies if reference else 0,
                "threads": s.threads,
                "target": s.target,
                "rounds": s.rounds,
                "seconds": s.seconds,
            }
        )
        return _timing(answer, copies, reference)

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = self._line(process)
        except BrokenPipeError:
            line = ""
        if not line:
            code = process.wait()
            self.close()
            raise DeployError(
                f"{Path(job['program']).name}: the measuring process ended with code {code} while it ran the program. "
                f"It said: {self._said()}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise DeployError(f"{Path(job['program']).name} cannot be run by this runtime: {answer['error']}")
        return answer

    def _line(self, process: subprocess.Popen[str]) -> str:
        from rankitect.contracts import StopRequested

        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not selector.select(0.2):
                if self._should_stop():
                    self.close()
                    raise StopRequested
        return process.stdout.readline()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            threads = str(self.settings.threads)
            environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "rankitect.deploy.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the parent, which then ends this one
            )
        return self._process

    def _said(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return lines[-1][:300] if lines else "nothing"

    def close(self) -> None:
        """End the measuring process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None


def _timing(answer: dict[str, Any], copies: int, reference: Reference | None) -> Timing:
    rounds = np.asarray(answer["rounds"])
    sums, references = rounds.sum(1) / copies, np.asarray(answer["references"])
    usual = float(np.median(references)) if reference is None or reference.round_ms is None else reference.round_ms
    corrected = sums / references * usual
    low, high = median_interval(corrected.tolist())
    p90, p99 = np.quantile(rounds / references[:, None] * usual, [0.9, 0.99])
    return Timing(
        p50=float(np.median(corrected)),
        low=low,
        high=high,
        p90=float(p90),
        p99=float(p99),
        runs=rounds.size,
        drift=float(np.median(references) / usual),
        settled=bool(answer["settled"]),
        quiet=float(answer["quiet"]),
        load_ms=float(answer["load_ms"]),
        first_ms=float(answer["first_ms"]),
        peak_bytes=int(answer["peak_bytes"]),
    )
