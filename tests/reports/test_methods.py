"""Comparing methods: points, budgets and correlations against values computed by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankitect import compare
from rankitect.contracts import MetricSpec, Spent
from rankitect.reports.method_comparison import (
    MethodRun,
    corner,
    correlation,
    methods_table,
    progress,
    read_run,
    values,
)
from tests.tasks.language.tiny import Quick, own_cache, parts_of, study

TWO = [MetricSpec("loss", "nat", "min", "quality"), MetricSpec("cost", "FLOP", "min", "cost")]


def run(method: str, seed: int, points: list[list[float]]) -> MethodRun:
    spent = np.arange(1, len(points) + 1) * 10.0
    at, held = np.asarray(points, dtype=float), np.asarray([p[0] + 10 for p in points], dtype=float)
    return MethodRun(method, seed, at, spent, Spent(10 * len(points), 5), 1.5, {"known": [4.0, 1.0, 5.0]}, held)


def test_progress_is_the_hypervolume_so_far() -> None:
    one, other = run("a", 0, [[2, 2], [1, 3]]), run("b", 0, [[3, 3]])
    edge = corner([one, other])
    assert edge == pytest.approx((3.2, 3.1))
    assert progress(one, edge).tolist() == pytest.approx([1.2 * 1.1, 1.2 * 1.1 + 1 * 0.1])
    assert progress(run("c", 0, [[3], [1], [2]]), edge).tolist() == [3, 1, 1]


def test_a_line_for_each_method_with_an_interval_over_seeds() -> None:
    runs = [run("a", 0, [[1, 3], [2, 2]]), run("a", 1, [[2, 2]]), run("b", 0, [[3, 3]])]
    table = methods_table(runs, TWO)
    assert list(table["method"]) == ["a", "b", "baseline known"]
    assert list(table["seeds"]) == [2, 1, 2], "baselines count once a seed"
    half = 12.706 * math.sqrt(0.5) / math.sqrt(2)
    assert table["best loss"][0] == f"1.5 ± {half:.2g}"
    assert table["best loss"][1] == "3"
    assert list(table["trained"][:2]) == [15.0, 10.0]
    held_out = methods_table(runs, [MetricSpec("loss", "nat", "min", "quality", held_out="test_loss"), TWO[1]])
    assert held_out["its test_loss"][1] == "13", "of the best by what the search went by"
    assert held_out["its test_loss"][2] == "5 ± 0"


def test_kendalls_tau_and_its_interval() -> None:
    truth = {str(i): float(i) for i in range(40)}
    assert correlation(truth, truth)[0] == 1.0
    rng = np.random.default_rng(0)
    noisy = {k: v + rng.normal(0, 12) for k, v in truth.items()}
    tau, low, high, n = correlation(noisy, truth, draws=300)
    assert low < tau < high
    assert 0.2 < tau < 0.9
    assert n == 40
    assert math.isnan(correlation({}, truth)[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = tmp_path_factory.mktemp("methods")
    with own_cache(made / "cache"):
        yield made


def test_a_run_is_read_from_its_store(folder: Path) -> None:
    parts = parts_of(folder, "controller=evolution")
    outcome = study(folder / "run", parts, evaluators={key: Quick(parts) for key in parts.evaluators})
    found = read_run(
        folder / "run",
        "evolution",
        0,
        [MetricSpec(o.name, o.unit, o.direction, o.role) for o in outcome.summary.objectives],
    )
    assert len(found.points) == 2
    owed = parts.task.upfront.train_tokens + parts.task.upfront.eval_tokens
    assert owed > 0
    assert found.spent.tolist() == [owed + 64.0 * 7, owed + 64.0 * 8], "calibration, six screened, then the finalists"
    assert found.total.train_tokens + found.total.eval_tokens == owed + 64 * 8
    screened = values(folder / "run", "screen", "perplexity")
    assert len(screened) == 6


def test_keys_of_one_method_alone() -> None:
    given = ["seed=1", "evolution:controller.population=4", "random:controller.bands=2"]
    known = ["random", "evolution"]
    assert compare._of("evolution", given, known) == ["seed=1", "controller.population=4"]
    assert compare._of("random", given, known) == ["seed=1", "controller.bands=2"]


def test_baselines_are_measured_once_a_seed(tmp_path: Path) -> None:
    assert compare._measures_baselines(tmp_path / "random-0", 0)
    (tmp_path / "dnas-0").mkdir()
    (tmp_path / "dnas-0" / "config.yaml").write_text("runner: {baselines: true}")
    assert compare._measures_baselines(tmp_path / "dnas-0", 0), "goes on as it began"
    assert not compare._measures_baselines(tmp_path / "random-0", 0)
    assert compare._measures_baselines(tmp_path / "random-1", 1)


@pytest.mark.slow
def test_the_command_compares_and_resumes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["space=mobile_llm", "preset=smoke", "runner.threads=1", "task.uniform=[0.75]", "--seeds", "0"]
    place = ["--output-dir", str(folder / "compare")]
    for _ in range(2):
        assert compare.main(["--controllers", "random,evolution", *given, *place]) == 0
    assert "evolution" in (folder / "compare" / "methods.md").read_text()
    for name in ("methods.csv", "progress.svg", "trade_off.svg"):
        assert (folder / "compare" / name).exists()
    assert compare.main(["--controllers", "nothing", *given, *place]) == 2
    assert "Unknown controller 'nothing'" in capsys.readouterr().err


@pytest.mark.slow
def test_scores_are_compared_over_the_same_architectures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    monkeypatch.setattr(compare, "WARM", (0.0, 0.4))
    monkeypatch.setattr(compare, "COLD", ("nwot", "flops"))
    given = ["space=mobile_llm", "preset=smoke", "runner.threads=1", "task.uniform=[0.75]", "controller.steps=2"]
    assert compare.main(["--correlation", "3", "--output-dir", str(folder / "scores"), *given, "--seeds", "0"]) == 0
    table = pd.read_csv(folder / "scores" / "scores.csv")
    assert list(table["n"]) == [3] * len(table)
    assert {"supernet", "sigeo 40", "nwot", "flops", "training with another seed"} <= set(table["score"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--controllers", "random,nothing"], "Unknown controller 'nothing'."),
        (["--controllers", "random,evolution", "evolution:controller.populaton=4"], "'controller.populaton'"),
        (["--controllers", ""], "--controllers is empty"),
        (["--seeds", ""], "--seeds is empty"),
        (["--correlation", "2"], "--correlation is 2: a rank correlation needs at least 3 architectures."),
    ],
)
def test_no_search_begins_where_one_of_them_cannot(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main([*options, "--output-dir", str(tmp_path / "compare")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "compare").exists()


def test_seeds_that_are_no_numbers_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        compare.main(["--seeds", "0,x"])
    assert stop.value.code == 2
    assert "'0,x' should be whole numbers with commas between" in capsys.readouterr().err
