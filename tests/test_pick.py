"""Another cut of a finished run."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

import rankitect
from rankitect.errors import ConfigError, RunFolderError
from rankitect.pick import main
from rankitect.study.summary import read_summary

OLD = Path(__file__).parent / "old_runs" / "v1" / "mobile_llm"
CONFIGS = Path(__file__).parent / "study" / "configs"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pick") / "run"
    given = ["space=grid", "task=none", "controller=climber", "evaluator=quadratic", "report.page=false"]
    more = ["allowed_packages=[rankitect,tests]", f"output_dir={path}"]
    rankitect.search([*given, *more], config_dir=CONFIGS, quiet=True)
    return path


def measured(run: Path) -> pd.DataFrame:
    """Every candidate that was measured in full, straight from the table."""
    trials = pd.read_csv(run / "trials.csv")
    done = trials[(trials.state == "DONE") & (trials.evaluator == "final") & trials.baseline.isna()]
    return done.drop_duplicates("fingerprint")


def found_by(picked: pd.DataFrame) -> pd.DataFrame:
    """The picked candidates, without the baselines that are listed below them."""
    return picked[picked.baseline == ""]


def front(table: pd.DataFrame, names: list[str]) -> set[str]:
    """Brute force: those that no other is as good as in everything and better in something."""
    values = table[names].to_numpy()
    return {
        f
        for f, row in zip(table.fingerprint, values, strict=True)
        if not any((other <= row).all() and (other < row).any() for other in values)
    }


def test_without_bounds_it_is_the_run_s_own_front(run: Path) -> None:
    picked = found_by(rankitect.pick(run))
    summary = read_summary(run)
    assert list(picked.fingerprint) == [c.fingerprint for c in summary.pareto]
    assert list(picked.folder) == [c.folder for c in summary.pareto]


@pytest.mark.parametrize("quantile", [0.25, 0.5, 0.75])
def test_a_bound_gives_the_front_of_what_is_within_it(run: Path, quantile: float) -> None:
    table = measured(run)
    most = float(table.cost.quantile(quantile))
    picked = found_by(rankitect.pick(run, cost=most))
    assert set(picked.fingerprint) == front(table[table.cost <= most], ["loss", "cost"])
    assert all(a <= b for a, b in pairwise(picked.loss)), "best first"
    from_below = found_by(rankitect.pick(run, f"cost={most!r}.."))
    assert set(from_below.fingerprint) == front(table[table.cost >= most], ["loss", "cost"])


def test_the_front_may_be_over_one_metric_and_written_out(run: Path, tmp_path: Path) -> None:
    picked = found_by(rankitect.pick(run, objectives="cost", out=str(tmp_path / "picked")))
    assert picked.cost.tolist() == [measured(run).cost.min()]
    stored = json.loads(Path(picked.file[0]).read_text())
    wanted = measured(run).set_index("fingerprint").architecture[picked.fingerprint[0]]
    assert stored == json.loads(wanted)
    with pytest.raises(ConfigError, match="there already"):
        rankitect.pick(run, out=str(tmp_path / "picked"))


def test_a_run_of_an_earlier_version_is_cut_with_its_baselines(capsys: pytest.CaptureFixture[str]) -> None:
    most = float(measured(OLD).weight_bytes.max())
    picked = rankitect.pick(OLD, bytes=most)
    assert set(found_by(picked).fingerprint) == front(measured(OLD), ["perplexity", "block_flops"])
    assert "uniform width 75%" in set(picked.baseline)
    assert "backbone" not in set(picked.baseline), "it has more bytes"
    assert main([f"run={OLD}", f"weight_bytes={most}", "limit=1"]) == 0
    assert capsys.readouterr().out.count("candidates/") == 1


def test_of_other_metrics_it_is_known_what_is_better_or_asked(run: Path, tmp_path: Path) -> None:
    """In the old run, bits per byte is neither an objective nor a cost, and its summary states no directions."""
    with pytest.raises(ConfigError, match="does not say whether a small or a large bits_per_byte is better"):
        rankitect.pick(OLD, objectives="bits_per_byte")
    with pytest.raises(ConfigError, match="Write a range"):
        rankitect.pick(OLD, bits_per_byte=9)
    least = float(measured(OLD).bits_per_byte.min())
    assert set(found_by(rankitect.pick(OLD, bits_per_byte=f"..{least!r}")).bits_per_byte) == {least}
    assert rankitect.pick(OLD, objectives="params").params[0] == measured(OLD).params.min(), "costs are better small"
    stated = json.loads((run / "summary.json").read_text())["pareto"][0]["metrics"]
    assert {name: metric["direction"] for name, metric in stated.items()} == {"loss": "min", "cost": "min"}


def test_nothing_within_the_bounds_says_what_there_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = measured(run)
    assert main([f"run={run}", "cost=..-1"]) == 2
    said = capsys.readouterr().err
    assert f"None of {len(table)} measured candidates" in said
    assert f"cost=..-1 is met by 0 (measured: {table.cost.min():g} to {table.cost.max():g})" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["costs=3"], "Did you mean cost="),
        (["cost"], "is no bound"),
        (["<metric>=3"], "is none of"),
        (["cost=cheap"], "cost=cheap is no bound: write a number"),
        (["cost=cheap.."], "'cheap..' is no range such as"),
        (["cost=1", "cost=2"], "cost= is there twice, as '1' and '2'"),
        (["cost=.."], "is no range such as"),
        (["cost=nan"], "cost=nan is no bound"),
        (["cost=3..1"], "holds nothing"),
        (["limit=0"], "a whole number from 1"),
        (["objectives=los"], "Did you mean 'loss'"),
        (["out=/no/such/folder/picked"], "there is no folder"),
    ],
)
def test_what_is_asked_wrongly_is_refused(run: Path, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        rankitect.pick(run, *words)
    assert len(str(refused.value)) <= 500


def test_folders_that_are_no_runs_and_damaged_tables_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no folder"):
        rankitect.pick(tmp_path / "nowhere")
    with pytest.raises(RunFolderError):
        rankitect.pick(tmp_path)
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged, symlinks=True)
    (damaged / "trials.csv").write_text((damaged / "trials.csv").read_text().replace("final", "fjnal"))
    with pytest.raises(RunFolderError):
        rankitect.pick(damaged)
    assert main(["cost=3"]) == 2, "without a run"
