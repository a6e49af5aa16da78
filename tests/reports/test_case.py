"""Which candidate a report holds against which production model, and by which gates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankitect.errors import RunFolderError
from rankitect.production.settings import gates_header
from rankitect.reports import write_report
from tests.reports.example import summary, write_example

GATES = {"quality": {"metric": "quality", "of": "change", "at_most": 0.0}}


def launch(folder: Path, *given: str) -> dict[str, Any]:
    """The card with the advice."""
    write_report(folder, *given)
    cards = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))["cards"]
    return next(card for card in cards if card["id"] == "launch")


@pytest.fixture
def example(tmp_path: Path) -> Callable[..., Path]:
    """Writes the example run with gates, its summary changed."""

    def write(change: Callable[[dict[str, Any]], None], gates: Any = GATES, registered: Any = GATES) -> Path:
        folder = write_example(tmp_path / "run")
        data = summary()
        change(data)
        (folder / "summary.json").write_text(json.dumps(data), encoding="utf-8")
        config = f"{gates_header({'gates': registered})}report: {{gates: {json.dumps(gates)}}}\n"
        (folder / "config.yaml").write_text(config, encoding="utf-8")
        return folder

    return write


def register(data: dict[str, Any], name: str, fingerprint: str) -> None:
    """Add a live production model, as good as the first baseline."""
    record = {"version": 1, "added": "2026-01-01T00:00:00", "live": True}
    metrics = data["baselines"][0]["metrics"]
    data["baselines"].append({"name": name, "fingerprint": fingerprint, "metrics": metrics, "registered": record})


def test_the_production_model_is_no_candidate_for_its_own_place(example: Callable[..., Path]) -> None:
    folder = example(lambda data: register(data, "live v1", data["pareto"][0]["fingerprint"]))
    assert ": candidate 1 (" not in launch(folder)["finding"]
    asked = launch(folder, "live", "1")
    assert asked["status"] == "NA"
    assert asked["reason"] == "candidate 1 is the production model itself (live v1): there is nothing to launch."


def test_a_registered_model_is_meant_before_a_known_one_of_its_name(example: Callable[..., Path]) -> None:
    known = summary()["baselines"][1]["name"]
    folder = example(lambda data: register(data, f"{known} v1", "f" * 64))
    assert f"against {known} v1".replace("_", " ") in launch(folder, known)["finding"]


def test_nothing_is_launched_while_it_is_unknown_what_is_live(example: Callable[..., Path]) -> None:
    gates = {"cost": {"metric": "cost", "of": "change", "at_most": 0.0}}

    def lose(data: dict[str, Any]) -> None:
        data["left_out"] = {"live v2": "baseline live v2 does not fit this search"}

    folder = example(lose, gates, gates)
    card = launch(folder)
    assert card["finding"].startswith("Hold: ")
    assert "the gate passed; but live v2 could not be compared with" in card["finding"]
    assert card["tables"][-1]["rows"][0]["Why"] == "baseline live v2 does not fit this search"
    named = launch(folder, "backbone")
    assert named["finding"].startswith("Ship to A/B: "), "somebody said what is live"


def test_gates_that_decide_nothing_give_no_verdict(example: Callable[..., Path]) -> None:
    gates = {"quality": {**GATES["quality"], "required": False}}
    card = launch(example(lambda data: None, gates, gates))
    assert card["status"] == "NA"
    assert card["reason"] == "no gate is required, so none decides"


def test_a_report_without_the_production_model_that_was_configured_says_so(example: Callable[..., Path]) -> None:
    folder = example(lambda data: None)
    config = folder / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("report: {", "report: {baseline: gone, "))
    card = launch(folder)
    assert card["status"] == "NA"
    assert "There is no baseline 'gone' in this run" in card["reason"]
    with pytest.raises(RunFolderError, match="There is no baseline 'gone' in this run"):
        write_report(folder, "gone")


def test_gates_that_were_changed_after_the_search_began_decide_nothing(example: Callable[..., Path]) -> None:
    easier = {"quality": {**GATES["quality"], "at_most": 0.9}}
    with pytest.raises(RunFolderError, match=r"report\.gates are not those that were registered"):
        write_report(example(lambda data: None, gates=easier))
    with pytest.raises(RunFolderError, match=r"report\.gates are not those that were registered"):
        write_report(example(lambda data: None, gates={}))
    assert launch(example(lambda data: None))["status"] != "NA"


def test_a_run_whose_configuration_is_gone_or_damaged_has_no_verdict(example: Callable[..., Path]) -> None:
    folder = example(lambda data: None)
    (folder / "config.yaml").write_text("report: {gates: [", encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"config\.yaml is no YAML"):
        write_report(folder)
    (folder / "study.db").touch()
    (folder / "config.yaml").unlink()
    with pytest.raises(RunFolderError, match=r"config\.yaml is gone"):
        write_report(folder)
