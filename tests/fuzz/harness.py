"""What the fuzzers share: a class for each reader of the product, hundreds of damaged inputs each, counted by outcome.

    class TestAddress(Fuzz):
        '''A short sentence: what is read.'''

        def make(self, random: Random) -> bytes:                  # a damaged input; tests.fuzz.mutate helps
            return mutate.bytes_(random, b"host:80")

        def read(self, data: bytes, folder: Path) -> Address:     # what the product does with it
            return Address.parse(data)

        def confirm(self, data: bytes, value: Address) -> None:   # by other means than the product's own
            assert value.port == int(data.decode().rpartition(":")[2])

pytest finds the class by its name; nothing lists it. Every case has a random generator of its own, so that one can be
repeated alone, as the message of a failure says. `FUZZ_CASES=n` tries n cases over all readers that run, in proportion
to their `share` (`make fuzz`); `FUZZ_SEED` draws others; `FUZZ_CASE` runs one case and catches nothing that it raises.
"""

from __future__ import annotations

import contextlib
import enum
import faulthandler
import io
import os
import resource
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, ClassVar

import pytest

from rankitect.errors import RankitectError

__all__ = ["LONGEST_MESSAGE", "SECONDS", "Fuzz", "Outcome", "Refused", "run_main", "tried_of"]

SECONDS = 20
"""What a case may take."""
LONGEST_MESSAGE = 500
"""Characters that a refusal may have."""
_MEMORY = 16 * 2**30
"""Bytes of data that the process may have meanwhile: a reader that asks for more than any input needs is refused it."""
_SHOWN = 5
"""Failures of one reader that are shown."""
TOTAL, SEED, CASE = "FUZZ_CASES", "FUZZ_SEED", "FUZZ_CASE"


class Outcome(enum.Enum):
    """How a case ends."""

    REFUSED = "refused"
    """With a documented error."""
    CONFIRMED = "confirmed"
    """With a value that the independent check confirms."""
    MESSAGE = "bad message"
    """With a documented error whose message is too long, or holds control characters."""
    TRACEBACK = "traceback"
    """With any other exception."""
    WRONG = "wrong value"
    """With a value that the check does not confirm."""
    SLOW = "too slow"
    """After more than `SECONDS`."""


class Refused(RankitectError):
    """A command ended with the exit code of a documented error; holds what it printed."""


class _Late(BaseException):
    """The time of a case is over. No reader catches it."""


class Fuzz:
    """The fuzzer of one reader; see the top of this file.

    Attributes:
        cases: Cases in `make test`: a few hundred where a case costs milliseconds, fewer where it costs more.
        share: Cases under `make fuzz` in proportion to the other readers'.
        both: Whether the cases must show both outcomes that are allowed. A fuzzer whose every input is refused tries
            nothing but the first check; one whose every input is read tries no check at all.
    """

    cases: ClassVar[int] = 200
    share: ClassVar[float] = 1.0
    both: ClassVar[bool] = True

    def make(self, random: Random) -> Any:
        """An input, damaged or not."""
        raise NotImplementedError

    def read(self, data: Any, folder: Path) -> Any:
        """What the product makes of it. Writes files, where it needs some, into a folder that is empty."""
        raise NotImplementedError

    def confirm(self, data: Any, value: Any) -> None:
        """Assert by independent means that the value is right."""
        raise NotImplementedError

    def test_every_damaged_input_is_refused_or_read_right(
        self, tmp_path: Path, record_property: Callable[[str, object], None], request: pytest.FixtureRequest
    ) -> None:
        name, seed = type(self).__name__, os.environ.get(SEED, "0")
        if alone := os.environ.get(CASE):
            self._alone(f"{seed}:{name}:{alone}", tmp_path)
            return
        total = getattr(request.node, "fuzz_cases", self.cases)
        file = request.node.path.relative_to(request.config.rootpath)
        tried = _Tried(f"{SEED}={seed} {CASE}=%s python -m pytest {file} -n 0 -k {name}")
        with _guarded(tmp_path / "running") as running:
            for number in range(total):
                folder = tmp_path / str(number)
                folder.mkdir()
                running(f"{name}: {tried.again % number}")
                tried.add(number, *self._case(f"{seed}:{name}:{number}", folder))
                _remove(folder)
        record_property("fuzz", {"reader": (type(self).__doc__ or name).partition(".")[0], **tried.row()})
        assert not tried.failures, tried.told()
        if self.both and total >= min(self.cases, 50):
            assert tried.count[Outcome.REFUSED], "not one case was refused: damage the inputs more"
            assert tried.count[Outcome.CONFIRMED], "not one case was read: damage the inputs less"

    def _alone(self, seed: str, folder: Path) -> None:
        data = self.make(Random(seed))
        print(f"input: {data!r:.2000}")
        value = self.read(data, folder)
        print(f"value: {value!r:.2000}")
        self.confirm(data, value)

    def _case(self, seed: str, folder: Path) -> tuple[Outcome, float, str]:
        """How one case ends, its seconds, and what to tell of it."""
        data = self.make(Random(seed))
        started = time.perf_counter()
        try:
            with _limited():
                value = self.read(data, folder)
        except RankitectError as error:
            outcome, told = _judged(str(error))
        except _Late:
            outcome, told = Outcome.SLOW, traceback.format_exc(limit=-4)
        except KeyboardInterrupt:
            raise
        except BaseException:  # Rust's PanicException is no Exception
            outcome, told = Outcome.TRACEBACK, traceback.format_exc(limit=-4)
        else:
            outcome, told = self._confirmed(data, value)
        seconds = time.perf_counter() - started
        return (Outcome.SLOW if seconds > SECONDS else outcome), seconds, told

    def _confirmed(self, data: Any, value: Any) -> tuple[Outcome, str]:
        try:
            self.confirm(data, value)
        except Exception:
            return Outcome.WRONG, f"{value!r:.500}\n{traceback.format_exc(limit=-3)}"
        return Outcome.CONFIRMED, ""


class _Tried:
    """What became of the cases of one reader."""

    def __init__(self, again: str) -> None:
        self.again = again
        self.count: Counter[Outcome] = Counter()
        self.failures: list[str] = []
        self.seconds = self.longest = 0.0

    def add(self, number: int, outcome: Outcome, seconds: float, told: str) -> None:
        self.count[outcome] += 1
        self.seconds += seconds
        self.longest = max(self.longest, seconds)
        if outcome not in (Outcome.REFUSED, Outcome.CONFIRMED):
            self.failures.append(f"--- {outcome.value}; to repeat it: {self.again % number}\n{told[-3000:]}")

    def row(self) -> dict[str, Any]:
        """For the table, as plain data (it crosses processes)."""
        counts = {outcome.value: self.count[outcome] for outcome in Outcome}
        return {"cases": self.count.total(), **counts, "seconds": self.seconds, "longest": self.longest}

    def told(self) -> str:
        return "\n".join([f"{len(self.failures)} cases failed; the first of them:", *self.failures[:_SHOWN]])


def _judged(message: str) -> tuple[Outcome, str]:
    """Whether a message of a refusal is short, and safe to print."""
    odd = sorted({c for c in message if not c.isprintable() and c != "\n"})
    if len(message) > LONGEST_MESSAGE or odd or not message.strip():
        return Outcome.MESSAGE, f"{len(message)} characters, unprintable: {odd!r:.200}\n{message[:800]!r}"
    return Outcome.REFUSED, ""


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raise `_Late` in here after the time of a case, where Python code runs; warnings and prints are dropped."""

    def late(signum: int, frame: FrameType | None) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _guarded(note: Path) -> Iterator[Callable[[str], None]]:
    """Bound the memory; end the process where a case hangs outside of Python, with its seed in a file. Gives a function
    that says which case begins."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, before[1]))
    with note.open("w+") as file:

        def running(text: str) -> None:
            file.seek(0)
            file.write(text + "\n")
            file.truncate()
            file.flush()
            faulthandler.dump_traceback_later(5 * SECONDS, exit=True, file=file)

        try:
            yield running
        finally:
            faulthandler.cancel_dump_traceback_later()
            resource.setrlimit(resource.RLIMIT_DATA, before)


def _remove(folder: Path) -> None:
    """Delete what a case left: ten thousand of them add up. Follows no link."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def run_main(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> str:
    """Run a command in this process, for `Fuzz.read`.

    Returns:
        What it printed, where it ended well.

    Raises:
        Refused: It ended with exit code 2 or 3, with what it said on standard error.
        AssertionError: It ended with another code.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as exit:  # argparse
            code = exit.code if isinstance(exit.code, int) else 1
    if code in (2, 3):
        raise Refused(err.getvalue().strip())
    assert code == 0, f"exit code {code}\n{out.getvalue()[-1500:]}\n{err.getvalue()[-1500:]}"
    return out.getvalue()


def tried_of(properties: Sequence[tuple[str, object]]) -> dict[str, Any] | None:
    """The row of the table among what a test reports of itself."""
    return next((dict(value) for key, value in properties if key == "fuzz"), None)  # type: ignore[call-overload]
