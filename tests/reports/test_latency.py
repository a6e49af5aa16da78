"""The report of a search against a device: predicted and measured latencies, questions of design and their evidence."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankitect.production.settings import GateConfig
from rankitect.reports import write_report
from rankitect.reports.case import Case, case_of
from rankitect.reports.latencies import program_quality
from rankitect.reports.roles import roles_of
from rankitect.reports.run import load_run
from tests.reports.example import CANDIDATES, fingerprint, pruned, write_example

QUESTION, SHALLOW, DEEP = "Shallow or deep?", "<b>shallow</b>", "deep"


def timing(p50: float) -> dict[str, Any]:
    return {"p50": p50, "p90": p50 + 1, "p99": p50 + 5, "load_ms": 400.0, "first_ms": 300.0, "peak_bytes": 2**29}


def latencies(predicted: float, measured: float, trusted: bool = True) -> dict[str, Any]:
    one = {"predicted_ms": predicted, "predicted_interval_ms": [predicted - 5, predicted + 5], "trusted": trusted}
    decode = {**one, "measured": timing(measured / 4), "predicted_ms": predicted / 4, "tokens_per_second": 17.0}
    return {
        "device": {"device": "host"},
        "latencies": {"prefill_ms": one | {"measured": timing(measured)}, "decode_ms": decode},
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_example(tmp_path / "run")
    for rank, (share, _, _) in enumerate(CANDIDATES[:2], 1):
        place = folder / "candidates" / f"{rank:02d}-{fingerprint(pruned(share, rank))[:8]}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "latency.json").write_text(json.dumps(latencies(100.0 * share, 98.0 * share)))
    contrasts(folder, 0.1)
    return folder


def contrasts(folder: Path, lead: float) -> None:
    values = [3.0 + 0.1 * (i % 5) for i in range(20)]
    sides = [
        {
            "question": QUESTION,
            "side": side,
            "fingerprint": side,
            "metrics": {"perplexity": 24.0 * math.exp(float(np.mean(own)) - 3.2), "prefill_ms": 75.0},
            "examples": {"metric": "perplexity", "values": own, "clusters": list(range(20))},
        }
        for side, own in (
            (SHALLOW, [v + lead + 0.02 * (i % 3 - 1) for i, v in enumerate(values)]),
            (DEEP, values),
        )
    ]
    (folder / "contrasts.json").write_text(json.dumps(sides))


def cards(run: Path) -> dict[str, dict[str, Any]]:
    data = json.loads((write_report(run).parent / "report.json").read_text(encoding="utf-8"))
    return {card["id"]: card for card in data["cards"]}


def test_predictions_stand_beside_measurements(run: Path) -> None:
    found = cards(run)["latency"]
    assert found["status"] == "PASS"
    rows = found["tables"][0]["rows"]
    assert [row["Candidate"] for row in rows] == [1, 1, 2, 2]
    assert rows[0]["Difference"] == pytest.approx(100 / 98 - 1)
    assert len(found["figures"][0]["data"]) == 4


@pytest.mark.parametrize(("measured", "trusted", "why"), [(80.0, True, "largest difference"), (99.0, False, "settle")])
def test_what_disagrees_or_did_not_settle_is_said(run: Path, measured: float, trusted: bool, why: str) -> None:
    place = next(run.glob("candidates/*/latency.json"))
    place.write_text(json.dumps(latencies(100.0, measured, trusted)))
    found = cards(run)["latency"]
    assert found["status"] == "WARN"
    assert why in found["reason"]


def test_a_partly_delegated_program_is_said(run: Path) -> None:
    place = next(run.glob("candidates/01-*/latency.json"))
    place.write_text(json.dumps(latencies(100.0, 99.0) | {"delegated": 0.6}))
    found = cards(run)["latency"]
    assert found["status"] == "WARN"
    assert "partly delegated programs: of candidates 1" in found["reason"]


def test_what_a_program_loses_against_floats_is_said(run: Path) -> None:
    place = next(run.glob("candidates/02-*/latency.json"))
    quality = {"metric": "perplexity", "model": 35.6, "program": 35.7, "amount": 384, "unit": "tokens", "change": 0.889}
    quality["floats"] = 18.9
    place.write_text(json.dumps(latencies(100.0, 99.0) | {"precision": "8da4w", "quality": quality}))
    found = cards(run)["latency"]
    assert found["status"] == "WARN"
    assert "candidate 2 is 88.9% worse in 8da4w than in floats" in found["reason"]
    assert "in 8da4w the perplexity of candidate 2 becomes 35.7, from 18.9 in floats, on 384 tokens" in " ".join(
        found["finding"].split()
    )
    opened = load_run(run)
    assert program_quality(opened, opened.summary.pareto[1]).whole == 18.9
    assert program_quality(opened, opened.summary.pareto[0]) is None


def test_a_gate_on_programs_bounds_what_they_lose(run: Path) -> None:
    gates = {
        name: GateConfig(metric="program", at_most=most, if_measured=True) for name, most in (("a", 1), ("b", 0.1))
    }
    judged = {}
    for written in (False, True):
        if written:
            quality = {"metric": "perplexity", "model": 30, "program": 36, "amount": 9, "unit": "tokens", "change": 0.2}
            for place in run.glob("candidates/*"):
                (place / "program.json").write_text(json.dumps({"precision": "8da4w", "bytes": 9, "quality": quality}))
        opened = load_run(run)
        case = case_of(opened, roles_of(opened), [])
        assert isinstance(case, Case), case
        judged[written] = [r.outcome.value for r in dataclasses.replace(case, gates=gates).results]
    assert judged == {False: ["NA", "NA"], True: ["PASS", "FAIL"]}


def test_a_question_is_answered_with_its_interval(run: Path) -> None:
    found = cards(run)["rules"]
    assert found["status"] == "PASS"
    assert f"Best: {DEEP}, clearly" in found["finding"]
    deep, shallow = found["tables"][0]["rows"]
    assert deep[QUESTION] == DEEP
    low, high = (float(x.strip("%+").replace("−", "-")) for x in shallow["Against the best"]["note"].split(" to "))
    assert low < 100 * shallow["Against the best"]["value"] < high < 0


def test_an_answer_that_noise_could_give_is_not_clear(run: Path) -> None:
    contrasts(run, 0.0)
    found = cards(run)["rules"]
    assert found["status"] == "WARN"
    assert "not clearly" in found["finding"]


def test_names_are_escaped(run: Path) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    assert "<b>shallow" not in html
    assert "&lt;b&gt;shallow" in html


@pytest.mark.parametrize("text", ["", "[{}]", '{"latencies": 3}', "[1"])
def test_damaged_files_cost_their_own_section_only(run: Path, text: str) -> None:
    for place in [*run.glob("candidates/*/latency.json"), run / "contrasts.json"]:
        place.write_text(text)
    assert not {"latency", "rules"} & cards(run).keys()


def test_rankers_have_measurements_only(run: Path) -> None:
    one = {"measured": timing(0.5), "trusted": True}
    for place in run.glob("candidates/*/latency.json"):
        place.write_text(json.dumps({"device": {"device": "host"}, "latencies": {"batch_1_ms": one}}))
    found = cards(run)["latency"]
    assert found["status"] == "PASS"
    assert not found["figures"]
    assert found["tables"][0]["rows"][0]["Measured, ms"] == 0.5


def test_a_gate_on_programs_does_not_judge_by_unrounded_weights(run: Path) -> None:
    gates = {
        name: GateConfig(metric="program", at_most=1, if_measured=idle) for name, idle in (("a", True), ("b", False))
    }
    quality = {"metric": "perplexity", "model": 30, "program": 36, "amount": 9, "unit": "tokens", "change": None}
    for place in run.glob("candidates/*"):
        card = {"precision": "8da4w", "bytes": 9, "quality": {**quality, "unrounded": 20}}
        (place / "program.json").write_text(json.dumps(card))
    opened = load_run(run)
    case = case_of(opened, roles_of(opened), [])
    assert isinstance(case, Case), case
    results = dataclasses.replace(case, gates=gates).results
    assert [r.outcome.value for r in results] == ["NA", "MISSING"]
    assert all("no model in floats" in r.reason for r in results)
