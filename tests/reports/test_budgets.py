"""The card of networks that were taken for budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rankitect.reports.page import content_of
from rankitect.reports.run import Run, load_run
from rankitect.study.summary import Summary
from tests.reports.example import CANDIDATES, fingerprint, pruned, summary, write_example

PRINTS = [fingerprint(pruned(share, rank)) for rank, (share, *_) in enumerate(CANDIDATES, 1)]


def run(folder: Path, budgets: list[dict[str, Any]]) -> Run:
    written = load_run(write_example(folder / "run"))
    config = {"task": {"target": "rankitect.tasks.language.task.Language"}, "confirm": {"seeds": 1}}
    data = Summary.model_validate(summary() | {"budgets": budgets})
    return Run(written.folder, data, (), "no trials", json.dumps(config), "run")


def test_networks_of_budgets_head_a_report(tmp_path: Path) -> None:
    names = ["params up to 60,000,000", "params up to 90,000,000"]
    budgets = [{"name": name, "fingerprint": PRINTS[at]} for name, at in zip(names, (5, 2), strict=True)]
    content = content_of(run(tmp_path, budgets))
    card = content.layout.head
    assert card.id == "budgets"
    assert [row[0].text for row in card.tables[0].rows] == names
    assert [(row[1].value, row[1].note) for row in card.tables[0].rows] == [(6, PRINTS[5][:8]), (3, PRINTS[2][:8])]
    assert "2 networks for 2 budgets: perplexity 21.9 to 30.7" in card.finding
    assert "the smallest with 69% of the largest's block FLOPs" in card.finding
    assert card.status == "PASS"


def test_a_budget_without_a_network_is_told(tmp_path: Path) -> None:
    budgets = [{"name": "params up to 60,000,000", "fingerprint": PRINTS[5]}, {"name": "prefill_ms up to 1"}]
    card = content_of(run(tmp_path, budgets)).layout.head
    assert card.status == "WARN"
    assert card.reason == "1 budget of 2 got no network"
    assert [len(row) for row in card.tables[0].rows] == [len(card.tables[0].columns)] * 2


def test_a_search_without_budgets_has_no_such_card(tmp_path: Path) -> None:
    content = content_of(run(tmp_path, []))
    assert content.layout.head.id == "verdict"
    assert "budgets" not in [card.id for card in content.cards]
