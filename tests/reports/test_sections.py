"""Sections of another package: given to a report, named on the command line, and verified."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rankitect import report, verify
from rankitect.errors import ConfigError, RunFolderError
from rankitect.reports import write_report
from rankitect.reports.cards import Status
from rankitect.reports.material import Material
from rankitect.reports.page import verified
from rankitect.reports.section import Facts, Section
from tests.reports.example import write_example


class Smallest(Section):
    """The candidate with the fewest parameters."""

    id, short, order = "smallest", "Smallest", 125

    def facts(self, material: Material) -> Facts:
        """Find it."""
        candidates = material.run.summary.pareto
        if not candidates:
            return Facts.missing("candidates")
        first = min(candidates, key=lambda c: c.metrics["parameters"].value)
        return Facts(Status.PASS, {"rank": first.rank, "parameters": first.metrics["parameters"].value})


class Twin(Smallest):
    """A section of a known name."""

    id = "front"


class Nothing:
    """No section."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_example(tmp_path / "run")


def test_a_section_stands_in_its_place_with_its_words_escaped(run: Path) -> None:
    page = write_report(run, sections=[Smallest()])
    cards = {card["id"]: card for card in json.loads((page.parent / "report.json").read_text())["cards"]}
    assert list(cards)[list(cards).index("smallest") - 1] == "front"
    assert cards["smallest"]["finding"] == "Candidate 7: 76.1 M parameters, as measured <b>here</b>."
    assert "<b>here" not in page.read_text(encoding="utf-8")


def test_it_is_named_on_the_command_line_and_verified(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{__name__}.Smallest"
    assert report.main([f"run={run}", f"sections={name}"]) == 0
    assert verify.main([str(run), "--sections", name]) == 0
    assert verify.main([str(run)]) == 2
    assert "sections of another package (smallest)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Nothing", "does not declare itself a plug-in"),
        ("Twin", "Two sections of a report have the id 'front'"),
        ("No", "has no 'No'"),
    ],
)
def test_what_is_no_section_of_its_own_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    assert report.main([f"run={run}", f"sections={__name__}.{name}"]) == 2
    assert words in capsys.readouterr().err
    assert not (run / "report").exists()


def test_a_report_with_unknown_sections_is_not_taken_for_a_changed_one(run: Path) -> None:
    page = write_report(run, sections=[Smallest()])
    data = json.loads((page.parent / "report.json").read_text())
    with pytest.raises(RunFolderError, match="smallest"):
        verified(run, data)
    with pytest.raises(ConfigError, match="the id 'smallest'"):
        verified(run, data, [Smallest(), Smallest()])
