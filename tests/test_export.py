"""Studies for other tools."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import rankitect
from rankitect.export import main

CONFIGS = Path(__file__).parent / "study" / "configs"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "run"
    given = ["space=grid", "task=none", "controller=climber", "evaluator=quadratic", "report.page=false"]
    more = ["allowed_packages=[rankitect,tests]", "evaluator.final.misbehave={2: raise}", f"output_dir={path}"]
    rankitect.search([*given, *more], config_dir=CONFIGS, quiet=True)
    return path


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_table_has_a_column_for_each_choice_and_metric(run: Path, form: str, tmp_path: Path) -> None:
    out = tmp_path / "table"
    assert main([f"run={run}", f"to={form}", f"out={out}"]) == 0
    table = pd.read_parquet(out) if form == "parquet" else pd.read_csv(out)
    plain = pd.read_csv(run / "trials.csv")
    assert len(table) == len(plain)
    assert {"loss", "cost", "choice.x", "choice.y"} <= set(table.columns)
    first = json.loads(plain.architecture[0])["choices"]
    assert (table["choice.x"][0], table["choice.y"][0]) == (first["x"], first["y"])


def test_an_optuna_storage_holds_every_trial(run: Path, tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    out = tmp_path / "study.db"
    assert main([f"run={run}", "to=optuna", f"out={out}"]) == 0
    study = optuna.load_study(study_name="run final", storage=f"sqlite:///{out}")
    plain = pd.read_csv(run / "trials.csv")
    assert len(study.trials) == len(plain)
    assert sum(t.state.name == "COMPLETE" for t in study.trials) == (plain.state == "DONE").sum()
    assert study.metric_names == ["loss", "cost"]
    done = plain[plain.state == "DONE"].iloc[0]
    same = next(t for t in study.trials if t.user_attrs["number"] == done.number)
    assert same.values == [done.loss, done.cost]
    assert main([f"run={run}", "to=optuna", f"out={out}"]) == 2


def test_what_cannot_be_exported_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"run={tmp_path}", "to=csv"]) == 2
    assert main([f"run={tmp_path}", "to=excel"]) == 2
    assert main(["folder=x"]) == 2
    said = capsys.readouterr().err
    assert "no trials.csv" in said
    assert "optuna|parquet|csv" in said
