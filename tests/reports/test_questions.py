"""Answers to questions in a run folder: kept for every model, compared in pairs in the report, held against gates."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import rankitect
from rankitect.errors import ConfigError, RunFolderError
from rankitect.metrics.choices import paired_difference
from rankitect.production.answers import ANSWERS, AnswerTable, load_answers
from rankitect.reports import write_report
from rankitect.reports.run import load_run
from tests.tasks.language.tiny import own_cache

MAIN = ["space=mobile_llm", "controller=random", "preset=smoke", "runner.threads=1", "report.tensorboard=false"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A search by the accuracy on questions, of which a part is its own, with a gate on it."""
    place = tmp_path_factory.mktemp("questions")
    rng = np.random.default_rng(0)
    lines = [
        {"query": f"{n} is", "choices": ["odd", "even", "large"][: rng.integers(2, 4)], "gold": int(rng.integers(0, 2))}
        for n in range(50)
    ]
    (place / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with own_cache(place / "cache"):
        rankitect.search(
            MAIN,
            measures={"odd": {"measure": "choice_questions", "path": str(place / "asked.jsonl"), "search": 0.4}},
            evaluator={"objectives": ["odd_acc", "block_flops"]},
            report={"gates": {"odd": {"metric": "odd_acc_norm", "at_least": -0.9}}},
            output_dir=str(place / "run"),
        )
        yield place / "run"


def test_every_model_is_asked_the_same_questions_after_training_and_while_it_is_screened(folder: Path) -> None:
    run, tables = load_run(folder), load_answers(folder)
    assert list(tables) == ["odd_acc", "odd_acc_norm"]
    models = [*run.summary.baselines, *run.summary.pareto]
    for name, table in tables.items():
        assert {model.fingerprint for model in models} <= set(table.values)
        for model in models:
            assert model.metrics[name].value == pytest.approx(table.mean(model.fingerprint))
            assert model.metrics[name].n == table.questions < 50
    screened = [t.measurement.metrics["odd_acc"] for t in run.trials if t.evaluator == "screen" and t.measurement]
    assert screened
    assert all(
        metric.value * (50 - tables["odd_acc"].questions) % 1 == pytest.approx(0, abs=1e-6) for metric in screened
    )
    assert [o.name for o in run.summary.objectives] == ["odd_acc", "block_flops"]


def test_the_report_compares_them_in_pairs(folder: Path) -> None:
    write_report(folder)
    card = next(c for c in json.loads((folder / "report/report.json").read_text())["cards"] if c["id"] == "questions")
    run = load_run(folder)
    table = run.answers["odd_acc"]
    backbone = next(b for b in run.summary.baselines if b.reference)
    first = run.summary.pareto[0]
    difference = paired_difference(table.values[first.fingerprint], table.values[backbone.fingerprint])
    low, high = (f"{100 * abs(end):.1f}" for end in difference.interval())
    page = (folder / "report/report.md").read_text(encoding="utf-8")
    assert "Answers to questions" in page
    row = next(line for line in page.splitlines() if line.startswith("| candidate 1 |") and "paired" in line)
    assert f"{low} to " in row
    assert f"{high}, paired" in row
    assert card["facts"]["reference"] == "backbone"
    assert f"{table.questions} questions" in page


def test_gates_take_them_and_a_gate_on_the_quality_bounds_what_is_lost(folder: Path) -> None:
    page = (folder / "report/report.md").read_text(encoding="utf-8")
    gates = {line.split("|")[1].strip(): line for line in page.splitlines() if line.count("|") == 5}
    assert "passes" in gates["odd"]
    assert "Odd acc norm against production: at least -90%" in gates["odd"]
    assert "Loss in odd acc against production: at most +10%" in gates["quality"]


def test_a_relative_change_is_that_of_the_pairs() -> None:
    table = AnswerTable("acc", {"a": np.asarray([[1.0, 1, 0, 1]]), "b": np.asarray([[1.0, 0, 0, 1]])})
    observed = table.change("a", "b")
    assert observed is not None
    assert observed.value == pytest.approx(0.5)
    low, high = table.difference("a", "b").interval()
    assert (observed.low, observed.high) == pytest.approx((2 * low, 2 * high))
    assert table.change("a", "unknown") is None
    nats = AnswerTable("nats", {"a": np.asarray([[-3.0, -5.0]]), "b": np.asarray([[-3.0, -5.0]])})
    assert nats.difference("a", "b").error == 0  # no share, whose error is never none
    assert math.isinf(AnswerTable("acc", {"a": np.ones((1, 1)) * 7, "b": np.ones((1, 1))}).difference("a", "b").error)


@pytest.mark.parametrize(
    "damage",
    ['{"a": 1}', '{"a": {"models": {"x": [[1, 0], [1]]}}}',
     '{"a": {"direction": "max", "models": {"x": [[1]], "y": [[1, 0]]}}}',
     '{"a": {"direction": "up", "models": {"x": [[1]]}}}', '{"a": {"direction": "max", "models": {}}}', "[]", "{",
     '{"a": {"direction": "max", "models": {"x": [["b"]]}}}'],
)  # fmt: skip
def test_damaged_answers_are_refused(tmp_path: Path, damage: str) -> None:
    (tmp_path / ANSWERS).write_text(damage, encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"answers\.json"):
        load_answers(tmp_path)


@pytest.mark.parametrize(
    ("measures", "message"),
    [
        ({"a": {"measure": "quiz"}}, "'measures.a.measure' on the command line is 'quiz', which is no measure"),
        ({"a": {"path": "x.jsonl"}}, "does not say what measures: measures.a.measure=, one of choice_questions"),
        ({"a": {"measure": "choice_questions", "pth": "x"}}, "Unknown key 'measures.a.pth'"),
        ({"a": {"measure": "choice_questions", "path": "gone.jsonl"}}, "measures.a: "),
        ({"a": {"measure": "choice_questions", "target": "y.Z"}}, "the class of a measure is named in its file"),
        ({"a": {"target": "os.getcwd"}}, "'os.getcwd' is not in an allowed package"),
    ],
)  # fmt: skip
def test_a_measure_that_cannot_be_is_refused_before_any_work(tmp_path: Path, measures: dict, message: str) -> None:
    with pytest.raises(rankitect.errors.RankitectError) as caught:
        rankitect.search(MAIN, measures=measures, output_dir=str(tmp_path / "run"))
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_measures_need_a_task_that_has_what_they_ask(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"query": "a", "answer": "b"}\n')
    asked = {"measure": "choice_questions", "path": str(tmp_path / "a.jsonl")}
    with pytest.raises(ConfigError, match=r"measure choice_questions needs .*AnswersText"):
        rankitect.search(
            ["space=ranking_engineered", "task=ranking", "controller=random", "preset=smoke", "~preset_controller"],
            measures={"a": asked},
            output_dir=str(tmp_path / "run"),
        )
