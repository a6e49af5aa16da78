from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankitect.contracts import Measurement, Metric, MetricSpec, Spent, Trial
from rankitect.study.pareto import MeasuredCandidate, candidates, pareto_front
from rankitect.study.progress import Progress
from rankitect.study.store import Store
from rankitect.study.summary import Summary
from rankitect.study.trials_table import trials_csv
from tests.study.toys import Point

numbers = st.floats(allow_nan=False, allow_infinity=False)
spent = st.builds(Spent, *[st.integers(0, 10**9)] * 8, st.floats(0, 10**6))
metrics = st.builds(Metric, numbers, st.text(), st.none() | st.integers(1), st.none() | st.tuples(numbers, numbers))
measurements = st.builds(
    Measurement,
    st.dictionaries(st.text(), metrics, max_size=3),
    spent,
    st.dictionaries(st.text(), st.text(), max_size=2),
    st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans()), max_size=2),
)


@given(measurements)
def test_a_measurement_survives_json(measurement: Measurement) -> None:
    assert Measurement.from_dict(json.loads(json.dumps(measurement.to_dict()))) == measurement


@given(st.lists(spent, max_size=4))
def test_spending_adds_up(parts: list[Spent]) -> None:
    total = sum(parts, Spent())
    assert total.train_tokens == sum(part.train_tokens for part in parts)
    assert total.seconds == pytest.approx(sum(part.seconds for part in parts))


@given(metrics.map(lambda metric: Measurement({"m": metric})))
def test_finite_metrics_are_no_problem(measurement: Measurement) -> None:
    assert measurement.not_finite() == []


def test_an_infinite_interval_is_not_finite() -> None:
    assert Measurement({"m": Metric(1.0, "", ci95=(0.0, float("inf")))}).not_finite() == ["m"]


def candidate(values: tuple[int, int]) -> MeasuredCandidate:
    found = {"a": Metric(values[0], ""), "b": Metric(values[1], "")}
    point = Point({"x": values[0], "y": values[1]})
    return MeasuredCandidate(Trial(1, 1, 1, point, "final", 0, {}, "DONE", Measurement(found)), found)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3))), st.sampled_from(["min", "max"]))
def test_the_front_is_what_no_other_dominates(pairs: list[tuple[int, int]], direction: str) -> None:
    sign = 1 if direction == "min" else -1
    points = [candidate(pair) for pair in pairs]
    front = pareto_front(points, [MetricSpec("a", "", "min", "quality"), MetricSpec("b", "", direction, "cost")])  # type: ignore[arg-type]
    got = [(int(c.metrics["a"].value), sign * int(c.metrics["b"].value)) for c in front]
    signed = {(a, sign * b) for a, b in pairs}
    expected = {p for p in signed if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in signed)}
    assert set(got) == expected
    assert got == sorted(expected)


def trial(number: int, **changes: object) -> Trial:
    base: dict[str, object] = {
        "number": number, "batch": 1, "asked": 1, "architecture": Point({"x": number}), "evaluator": "final",
        "seed": 0, "tags": {}, "state": "DONE", "measurement": Measurement({"loss": Metric(1.0, "nat")}),
    }  # fmt: skip
    return Trial(**{**base, **changes})  # type: ignore[arg-type]


def test_baselines_failures_and_screening_are_no_candidates() -> None:
    trials = [
        trial(1, baseline="production"),
        trial(2, state="FAILED", measurement=None),
        trial(3, evaluator="screen"),
        trial(4),
        trial(5, architecture=Point({"x": 4}), duplicate_of=4),
    ]
    assert [found.trial.number for found in candidates(trials, "final")] == [4]


def test_text_in_the_table_is_no_formula() -> None:
    text = trials_csv([trial(1, cause='=HYPERLINK("x"), "quoted"\nline')], {1: (0.0, 1.5)})
    row = next(csv.DictReader(io.StringIO(text)))
    assert row["cause"] == '\'=HYPERLINK("x"), "quoted"\nline'
    assert row["ended"] == "1970-01-01T00:00:01.500+00:00"


def test_the_summary_has_a_json_schema() -> None:
    schema = Summary.model_json_schema()
    assert schema["properties"]["schema"]["const"] == 1
    assert set(schema["required"]) >= {"space", "task", "controller", "objectives", "pareto", "ledger", "reproduce"}


def test_without_a_terminal_progress_is_a_line_now_and_then() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.start()
    progress.facts(best="loss 2.5 nat", failed=1)
    for done in range(1000):
        progress.update("trials", done, 1000)
    progress.say("a [bold] remark")
    progress.stop()
    lines = stream.getvalue().splitlines()
    assert lines == ["trials: 0/1000, best loss 2.5 nat, 1 failed", "a [bold] remark"]


def test_more_trials_than_foreseen_have_no_estimate() -> None:
    stream = io.StringIO()
    Progress(stream).update("trials", 14, 12)
    assert stream.getvalue() == "trials: 14\n"


def test_at_a_terminal_progress_is_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = Progress(stream)
    progress.start()
    progress.facts(best="loss [red]2.5 nat", failed=2)
    progress.update("trials", 1, 4, "trial 2: 3/45")
    progress.say("a [bold] remark")
    progress.update("report", 0, None)
    progress.stop()
    assert "a [bold] remark" in stream.getvalue()
    assert "2 failed" in stream.getvalue()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["prepare", "trials"]), st.integers(0, 3), st.integers(0, 100), st.integers(0, 9)),
        max_size=12,
    )
)
def test_what_was_spent_is_what_the_file_adds_up_to(
    tmp_path_factory: pytest.TempPathFactory, charges: list[tuple[str, int, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "study.db"
    with Store(path, Point.from_json) as store:
        assert store.charges.totals() == {}
        for stage, key, tokens, seconds in charges:
            store.charges.charge(f"{stage}:{key}", stage, Spent(train_tokens=tokens, seconds=float(seconds)))
        kept = store.charges.totals()
    with Store(path, Point.from_json) as store:
        assert store.charges.totals() == kept
    last = {(stage, key): tokens for stage, key, tokens, _ in charges}
    assert sum(spent.train_tokens for spent in kept.values()) == sum(last.values())
