"""Architectures that the user has, measured side by side; comparisons with a user's own configurations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import rankitect
from rankitect.errors import ConfigError, RankitectError
from rankitect.measure import main
from tests.study.toys import Point

CONFIGS = Path(__file__).parent / "study" / "configs"
GRID = [
    "space=grid", "task=none", "evaluator=quadratic", "allowed_packages=[rankitect,tests]", "report.page=false",
    "report.tensorboard=false",
]  # fmt: skip


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three points of the grid of `tests.study.toys`; the loss is (x - 3)^2, the cost x + y."""
    monkeypatch.chdir(tmp_path)
    for x in (5, 2, 3):
        Path(f"x{x}.json").write_text(Point({"x": x, "y": 1}).to_json())
    return ["x5.json", "x2.json", "x3.json"]


def measured(files: Any, *more: str) -> Any:
    return rankitect.measure(files, [*GRID, *more], config_dir=CONFIGS, output_dir="run", quiet=True)


def test_each_is_measured_in_the_order_given_and_what_is_measured_is_not_measured_again(files: list[str]) -> None:
    first = measured(files)
    assert list(first.table["file"]) == files
    assert list(first.table["state"]) == ["DONE"] * 3
    assert list(first.table["cost"]) == [6, 3, 4]
    assert first.table["loss"].idxmin() == 2
    again = measured(files)
    assert again.table.equals(first.table)
    assert again.result.summary.ledger.trials == first.result.summary.ledger.trials


def test_architectures_in_python_are_as_good_as_files(files: list[str]) -> None:
    points = [Point({"x": x, "y": 1}) for x in (5, 2, 3)]
    assert list(measured(points).table["cost"]) == [6, 3, 4]


def test_a_file_that_changed_is_refused_or_measured_anew(files: list[str]) -> None:
    shutil.copy(files[0], "same.json")
    assert list(measured([files[0], "same.json"]).table["cost"]) == [6], "one architecture is measured once"
    Path(files[0]).write_text(Point({"x": 1, "y": 1}).to_json())
    with pytest.raises(ConfigError, match=r"x5\.json' holds another architecture than when"):
        measured([files[0], "same.json"])
    assert list(measured(files, "resume=force").table["cost"]) == [2, 3, 4]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "does not exist"),
        ("", "controller.architectures=bad.json"),
        ("[]", "controller.architectures=bad.json"),
        ("{" * 300, "controller.architectures=bad.json"),
    ],
)
def test_a_file_that_holds_no_architecture_is_named(files: list[str], text: str | None, said: str) -> None:
    if text is not None:
        Path("bad.json").write_text(text)
    keys = ["space=ranking_engineered", "task=ranking", "preset=smoke"]
    with pytest.raises(RankitectError, match=said):
        rankitect.measure(["bad.json"], keys, quiet=True)


def test_the_command_prints_a_table_and_refuses_a_method(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--config-dir", str(CONFIGS), *GRID]
    assert main([*files, *given, "output_dir=run"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines() if ".json " in line and "DONE" in line] == files
    assert "To resume: python -m rankitect.measure --config-dir" in said
    assert main([*files, *given, "controller=climber"]) == 2
    assert "controller= has no place here" in capsys.readouterr().err
    assert main(given) == 2
    assert "Name one or more files" in capsys.readouterr().err


def test_a_measured_ranker_is_as_good_as_the_same_in_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = [
        "task=ranking",
        "preset=smoke",
        "runner.threads=1",
        "report.page=false",
        "runner.baselines=false",
        "confirm.seeds=1",
    ]
    searched = rankitect.search(
        [*keys, "space=ranking_engineered", "controller=random", "output_dir=searched"], quiet=True
    )
    best = next(p for p in searched.summary.pareto if p.rank == 1)
    (file,) = searched.folder.glob(f"candidates/*{best.fingerprint[:8]}*/architecture.json")
    given = rankitect.measure([file], [*keys, "space=ranking_engineered", "output_dir=given"], quiet=True)
    name = "normalized_entropy"
    assert given.table[name][0] == best.metrics[name].value, "equal budget and seed, equal number"
    assert json.loads(Path(given.result.folder / "summary.json").read_text())["controller"] == "given"


def test_methods_are_compared_on_a_space_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = rankitect.compare(["climber"], [0, 1], GRID, config_dir=CONFIGS, output_dir="compared")
    assert list(table["method"]) == ["climber", "baseline production"]
    assert Path("compared/methods.md").read_text().count("\n") == 4
