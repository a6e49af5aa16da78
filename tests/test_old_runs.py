"""Run folders of earlier versions: every later version must open them.

A new format of run folders gets a folder of its own beside `v1`; nothing in the old ones is ever changed. They were
written by a search with preset=smoke; weights and drawings were taken out.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rankitect.export import main as export
from rankitect.graph import Architecture
from rankitect.report import main as report
from rankitect.reports import write_report
from rankitect.study.store import Store
from rankitect.study.summary import read_summary

RUNS = sorted(p for p in (Path(__file__).parent / "old_runs").glob("*/*") if p.is_dir())


@pytest.fixture(params=RUNS, ids=lambda p: f"{p.parent.name}-{p.name}")
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / "run"))


def test_there_are_old_runs() -> None:
    assert {p.name for p in RUNS} >= {"ranking_blocks", "mobile_llm"}


def test_its_trials_are_read(run: Path) -> None:
    with Store(run / "study.db", Architecture.from_json, readonly=True) as store:
        trials = store.trials
    assert len(trials) == len((run / "trials.csv").read_text().splitlines()) - 1
    assert all(t.ok for t in trials)
    assert {t.architecture.fingerprint for t in trials} >= {p.fingerprint for p in read_summary(run).pareto}


def test_what_it_has_spent_is_counted_alike_when_it_is_resumed(run: Path) -> None:
    ledger = read_summary(run).ledger
    assert ledger.unit == ("tokens" if read_summary(run).space == "mobile_llm" else "examples")
    with Store(run / "study.db", Architecture.from_json) as store:  # brings the file's format up to date
        totals = store.charges.totals()
    assert {name: replace(spent, seconds=0.0) for name, spent in totals.items()} == {
        name: replace(spent, seconds=0.0) for name, spent in ledger.stages.items()
    }


def test_its_report_is_written_with_a_production_comparison(run: Path) -> None:
    page = write_report(run)
    report = json.loads((page.parent / "report.json").read_text())
    cards = {c["id"]: c for c in report["cards"]}
    assert cards["launch"]["status"] != "NA"
    assert cards["quality"]["tables"][0]["rows"]
    assert (cards["calibration"]["status"] == "NA") == (run / "examples.json").exists()
    assert cards["front"]["status"] != "NA"


def test_it_is_exported(run: Path, tmp_path: Path) -> None:
    assert export([f"run={run}", "to=parquet", f"out={tmp_path / 'x.parquet'}"]) == 0


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("summary.json", "ledger", {"coin": "rows", "stages": {"trials": None}}),
        ("summary.json", "baselines", {"dlrm": 1}),
        ("examples.json", "models", {"0" * 64: True}),
        ("examples.json", "clusters", 3),
        ("examples.json", "more_seeds", []),
    ],
)
def test_a_value_of_another_type_is_named_with_its_file(
    run: Path, file: str, key: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / file
    if not path.exists():
        pytest.skip("this run has no such file")
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert report([f"run={run}"]) == 2
    assert str(path) in capsys.readouterr().err
