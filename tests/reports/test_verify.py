"""Whether a report can be trusted a year later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rankitect.reports import write_report
from rankitect.verify import main
from tests.reports.example import write_example


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_example(tmp_path / "run")
    write_report(folder)
    return folder


def failures(capsys: pytest.CaptureFixture[str]) -> set[str]:
    return {line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")}


def test_a_report_as_it_was_written_holds(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in (run, run / "report", run / "report" / "report.json", run / "report" / "index.html"):
        assert main([str(given)]) == 0
    assert failures(capsys) == set()


def test_a_report_on_another_pair_holds_too(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_report(run, candidate="2")
    assert main([str(run)]) == 0
    assert failures(capsys) == set()


def test_a_changed_number_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "report" / "report.json"
    report = json.loads(path.read_text())
    report["tiles"][0]["value"] = "+99.9%"
    path.write_text(json.dumps(report))
    assert main([str(run)]) == 1
    assert failures(capsys) == {"numbers"}


@pytest.mark.parametrize("name", ["index.html", "report.md"])
def test_a_changed_page_is_seen(run: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = run / "report" / name
    path.write_text(path.read_text(encoding="utf-8").replace("%", "‰", 1), encoding="utf-8")
    assert main([str(run)]) == 1
    assert failures(capsys) == {name}
    path.unlink()
    assert main([str(run)]) == 1
    assert failures(capsys) == {name}


def test_a_folder_of_another_name_holds_the_same_report(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run.rename(run.with_name("moved")))]) == 0


def test_a_changed_run_folder_is_seen(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "\n# changed\n")
    assert main([str(run)]) == 1
    assert {"config", "files"} <= failures(capsys)


def test_a_hash_that_was_made_up_is_seen(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "report" / "report.json"
    report = json.loads(path.read_text())
    report["reproduction"]["code"] = "0" * 40
    path.write_text(json.dumps(report))
    assert main([str(run)]) == 1
    assert {"hash", "code"} <= failures(capsys)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("compared", [], "compared"),
        ("compared", {"asked": "2"}, "compared.asked"),
        ("compared", {"asked": {"candidate": 2}}, "compared.asked.candidate"),
        ("cards", None, "cards"),
        ("tiles", "x", "tiles"),
        ("reproduction", [1], "reproduction"),
        ("reproduction", {"files": ["x"]}, "reproduction.files"),
    ],
)
def test_a_malformed_report_is_said_in_a_sentence(
    run: Path, capsys: pytest.CaptureFixture[str], key: str, value: object, words: str
) -> None:
    path = run / "report" / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert main([str(run)]) == 2
    said = capsys.readouterr().err
    assert f"report.json is not of the form that is expected: {words}: " in said
    assert f"python -m rankitect.report run={run}" in said


def test_no_report_is_said_in_a_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    (tmp_path / "README.md").write_text("# About")
    assert main([str(tmp_path / "README.md")]) == 2
    assert main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("Give a run folder, its report folder, or report.json.") == 3
    assert "README.md is no report" in said
    for text in ("{}", "[]", "{", "null"):
        (run / "report" / "report.json").write_text(text)
        assert main([str(run)]) == 2
    assert capsys.readouterr().err.count("Error: ") == 4
