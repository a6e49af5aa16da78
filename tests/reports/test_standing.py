"""What a report says of the search beside plain baselines, and of its progress: who is counted, and against whom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.reports.example import card, change, report, summary, trials, write_example, write_trials


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_example(tmp_path / "run")


def test_a_model_that_is_measured_twice_is_counted_once(run: Path) -> None:
    again = [row | {"number": 100 + i, "seed": 1} for i, row in enumerate(trials()) if row["evaluator"] == "final"]
    before, tile = card(run, "anytime"), report(run)["tiles"][2]
    write_trials(run, [*trials(), *again])
    assert report(run)["tiles"][2]["value"] == tile["value"]
    assert report(run)["tiles"][2]["note"] == "in 72 trials"
    confirmed = [row | {"batch": -1} for row in again]
    write_trials(run, [*trials(), *confirmed])
    assert card(run, "anytime") == before, "what confirms is not charged to the search"


def test_a_curve_of_few_models_says_nothing_about_its_end(run: Path) -> None:
    change(run, ledger={"seconds": 1.0})
    write_trials(run, trials()[:14])
    found = card(run, "anytime")
    assert found["status"] == "NA"
    assert "6 models" in found["finding"]
    assert "too few" in found["reason"]


def recipes(run: Path, *candidates: tuple[float, float]) -> None:
    """Two models of different recipes, the better one cheap, and candidates of a cost and a quality."""
    data = summary()
    for holder, (share, perplexity) in zip(
        (*data["baselines"][:2], *data["pareto"]), ((0.2, 20.0), (0.9, 30.0), *candidates), strict=False
    ):
        holder["metrics"] = {
            "perplexity": {"value": perplexity, "unit": "", "role": "quality"},
            "block_flops": {"value": share, "unit": "FLOPs", "role": "cost"},
        }
    for holder, name in zip(data["baselines"], ("lr", "dcn"), strict=False):
        holder |= {"name": name, "reference": False}
    change(run, baselines=data["baselines"][:2], pareto=data["pareto"][: len(candidates)])


def test_a_better_but_dearer_model_is_no_gain_at_equal_cost(run: Path) -> None:
    recipes(run, (0.5, 19.0))
    tile, found = report(run)["tiles"][0], card(run, "verdict")
    assert tile["name"] == "Best gain over a cheaper model"
    assert tile["value"] == "+5.0%"
    assert tile["note"].endswith("against lr")
    assert found["status"] == "FAIL"
    assert found["reason"] == "no candidate beats the best baseline, lr, at no more cost"
    assert "which is more than lr costs" in found["finding"]
    assert "best of all, cheaper: lr" in json.dumps(found["tables"])


def test_the_best_model_beaten_at_no_more_cost_is_a_gain(run: Path) -> None:
    recipes(run, (0.5, 19.0), (0.1, 19.5))
    assert report(run)["tiles"][0]["name"] == "Best gain over the best model"
    assert card(run, "verdict")["status"] == "PASS"


def test_without_a_backbone_the_picture_names_none(run: Path) -> None:
    recipes(run, (0.5, 19.0))
    found = card(run, "picture")
    assert found["title"] == "The best candidate"
    assert found["status"] == "PASS"
    assert "outlines" not in found["how_to_read"]
