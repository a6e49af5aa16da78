"""Whether verify sees what became of the file that trials are kept in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rankitect.contracts import Baseline, Proposal
from rankitect.reports import write_report
from rankitect.study.store import Store
from rankitect.verify import main
from tests.study.test_study import run
from tests.study.toys import Point, Quadratic, RandomPoints, downgrade, sql

OLD_RUNS = Path(__file__).parents[1] / "old_runs" / "v1"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a report."""
    path = tmp_path_factory.mktemp("whole") / "run"
    baselines = [Baseline("production", Point({"x": 7, "y": 2}))]
    run(path, RandomPoints(total=10, size=3), Quadratic(misbehave={2: "raise"}), baselines)
    write_report(path)
    return path


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code, and the line about the study's file; nothing in the folder is changed."""
    before = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    code = main([str(folder)])
    assert {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")} == before
    lines = [line for line in capsys.readouterr().out.splitlines() if line.split()[1] == "study.db"]
    return code, lines[0] if lines else ""


def test_a_study_in_order_is_said_to_be(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = verified(folder, capsys)
    assert code == 0
    assert line.startswith("ok")
    assert "in order, and has the 11 trials of trials.csv" in line


@pytest.mark.parametrize("name", ["mobile_llm", "ranking_blocks"])
def test_so_is_one_of_an_earlier_version(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(OLD_RUNS / name, tmp_path / name))
    write_report(folder)
    code, line = verified(folder, capsys)
    assert (code, line[:2]) == (0, "ok")


def test_a_folder_that_came_without_its_study_is_verified_without(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "study.db").unlink()
    assert verified(folder, capsys) == (0, "")


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda file: sql(file, "DROP TABLE trials"), "is not in both its tables"),
    (lambda file: sql(file, "CREATE TRIGGER t AFTER UPDATE ON trials BEGIN DELETE FROM batches; END"), "'t' is not in"),
    (lambda file: sql(file, "UPDATE trials SET seed = 7 WHERE number = 2"), "row '2' of its table trials is not what"),
    (lambda file: sql(file, "UPDATE meta SET value = '2' WHERE key = 'schema'"), "says format 2, and its table"),
    (lambda file: file.write_bytes(b"hello, this is no database"), "is not a readable study"),
    (lambda file: file.write_bytes(b""), "is empty, so there is no study"),
    (lambda file: file.write_bytes(file.read_bytes()[:9000]), "is not a readable study"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "text"), DAMAGES)
def test_a_damaged_study_fails(
    folder: Path, damage: Callable[[Path], object], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder / "study.db")
    code, line = verified(folder, capsys)
    assert (code, line[:4]) == (1, "FAIL")
    assert text in line


LIES = [
    ("UPDATE trials SET measurement = json_set(measurement, '$.metrics.loss.value', 1.25)", "DONE", "another loss"),
    ("UPDATE trials SET seed = 12345", "DONE", "another seed: 0, and 12345"),
    ("UPDATE trials SET evaluator = 'proxy'", "FAILED", "another evaluator"),
    ("UPDATE trials SET baseline = 'production'", "FAILED", "another baseline"),
]


@pytest.mark.parametrize(("statement", "state", "text"), LIES)
def test_a_study_that_says_something_else_than_the_table_fails(
    folder: Path, statement: str, state: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where its checksums hold or where there are none: both files came to the report from one search."""
    file = folder / "study.db"
    downgrade(file)
    first = "SELECT min(number) FROM trials WHERE state = '{}' AND batch > 0 AND number NOT IN ({})"
    repeated = "SELECT duplicate_of FROM trials WHERE duplicate_of IS NOT NULL"
    sql(file, f"{statement} WHERE number = ({first.format(state, repeated)})")
    code, line = verified(folder, capsys)
    assert (code, line[:4]) == (1, "FAIL")
    assert f"of trials.csv has {text}" in line


def test_while_a_search_goes_on_its_newer_trials_are_no_difference(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(folder / "study.db", Point.from_json) as store:
        store.add_batch(9, 1, [Proposal(Point({"x": 77, "y": 1}))], 0)
        assert main([str(folder)]) == 0
    assert "ok    study.db" in capsys.readouterr().out
