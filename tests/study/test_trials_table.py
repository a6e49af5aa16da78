"""The table of trials: what is written is read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankitect.contracts import Measurement, Metric, Spent, Trial
from rankitect.errors import RunFolderError
from rankitect.space.architecture import Architecture
from rankitect.study.trials_table import read_trials, trials_csv

finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), min_size=1))
metrics = st.builds(
    Metric,
    finite,
    st.just(""),
    st.one_of(st.none(), st.integers(1, 100)),
    st.one_of(st.none(), st.tuples(finite, finite)),
)


@st.composite
def trials(draw: Any) -> Trial:
    state = draw(st.sampled_from(["WAITING", "RUNNING", "DONE", "FAILED"]))
    measured = Measurement(draw(st.dictionaries(st.sampled_from(["loss", "cost.p50", "n"]), metrics)))
    return Trial(
        number=draw(st.integers(1, 9999)),
        batch=draw(st.integers(-1, 99)),
        asked=0,
        architecture=Architecture("grid", "1", draw(st.dictionaries(st.text("abc."), st.integers() | st.booleans()))),
        evaluator=draw(st.sampled_from(["screen", "final"])),
        seed=draw(st.integers(0, 9)),
        tags=draw(st.dictionaries(st.text(), st.integers())),
        state=state,
        measurement=measured if state == "DONE" else None,
        cause=draw(texts),
        duplicate_of=draw(st.one_of(st.none(), st.integers(1, 99))),
        baseline=draw(texts),
        attempts=draw(st.integers(0, 3)),
        spent=draw(st.builds(Spent, train_examples=st.integers(0, 10**12), seconds=st.floats(0, 1e9))),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(trials(), max_size=5))
def test_trials_are_read_back_as_they_were_written(tmp_path: Path, rows: list[Trial]) -> None:
    path = tmp_path / "trials.csv"
    path.write_bytes(trials_csv(rows, {}).encode())
    assert read_trials(path) == tuple(rows)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [("1,1,DONE", "x,1,DONE", "invalid literal"), ("2.5", "nan", "loss of trial 1 is nan"), ("{", "[", "damaged")],
)
def test_a_damaged_cell_is_said_in_a_sentence(tmp_path: Path, old: str, new: str, words: str) -> None:
    measured = Measurement({"loss": Metric(2.5, "nat")})
    trial = Trial(1, 1, 0, Architecture("grid", "1", {}), "final", 0, {}, "DONE", measured)
    path = tmp_path / "trials.csv"
    path.write_text(trials_csv([trial], {}).replace(old, new))
    with pytest.raises(RunFolderError, match=words) as refusal:
        read_trials(path)
    assert "Repeat the search's command" in str(refusal.value)
