"""The harness itself: every way in which a case can end is told from the others."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from rankitect.errors import ConfigError
from tests.fuzz import harness, mutate
from tests.fuzz.harness import Fuzz, Outcome, Refused, run_main


class _Panic(BaseException):
    """As Rust's PanicException is: no Exception."""


def _told(message: str) -> ConfigError:
    """An error with a message that its class would have shortened."""
    error = ConfigError()
    error.args = (message,)
    return error


class _Toy(Fuzz):
    """A reader with every defect."""

    def make(self, random: random.Random) -> str:
        return self.word

    def read(self, data: str, folder: Path) -> int:
        if data == "slow":
            time.sleep(10)
        if data == "panic":
            raise _Panic
        if data == "traceback":
            raise KeyError(data)
        if data == "long":
            raise _told("x" * 501)
        if data == "escape":
            raise _told("\x1b[31m is refused")
        if data == "refused":
            raise ConfigError("no such word")
        return len(data)

    def confirm(self, data: str, value: int) -> None:
        assert data != "wrong"

    def __init__(self, word: str) -> None:
        self.word = word


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        ("slow", Outcome.SLOW), ("panic", Outcome.TRACEBACK), ("traceback", Outcome.TRACEBACK),
        ("long", Outcome.MESSAGE), ("escape", Outcome.MESSAGE),
        ("refused", Outcome.REFUSED), ("wrong", Outcome.WRONG), ("", Outcome.CONFIRMED),
    ],
)  # fmt: skip
def test_every_outcome_of_a_case_is_told(
    word: str, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "SECONDS", 0.2 if word == "slow" else 20)
    assert _Toy(word)._case("0", tmp_path)[0] is outcome


def test_a_command_that_ends_with_2_or_3_is_a_refusal_with_its_words() -> None:
    assert run_main(lambda words: print(*words) or 0, ["a", "b"]) == "a b\n"  # type: ignore[func-returns-value]
    with pytest.raises(Refused):
        run_main(lambda words: 3, [])
    with pytest.raises(AssertionError, match="exit code 1"):
        run_main(lambda words: 1, [])


def test_the_same_seed_makes_the_same_damage_and_another_seed_another() -> None:
    data = {"a": [1, 2.5, {"b": "text"}], "c": None, "d": True}

    def damaged(seed: int) -> list[object]:
        r = random.Random(seed)
        return [mutate.json_text(r, data), mutate.bytes_(r, b"0123456789"), mutate.text(r, "some text"), mutate.odd(r)]

    assert repr(damaged(1)) == repr(damaged(1))
    assert len({repr(damaged(seed)) for seed in range(50)}) > 45
    assert data == {"a": [1, 2.5, {"b": "text"}], "c": None, "d": True}, "the original is left as it is"
