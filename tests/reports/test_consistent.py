"""No two sentences of a report contradict each other, whatever a run found: reports of generated facts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rankitect.metrics.ranking_metrics import log_losses, sigmoid
from rankitect.production.evidence import Evidence, Slicing
from rankitect.reports.cards import Status
from rankitect.reports.page import Content, content_of
from rankitect.reports.run import Run
from rankitect.reports.sections import sections
from rankitect.study.summary import Summary
from tests.reports.example import fingerprint

ROWS = 240
NAMES = ("lr", "dlrm", "dcnv2", "mlp 2", "uniform width 60%")
GATES: dict[str, Any] = {
    "quality": {"metric": "quality", "at_most": 0.0},
    "cost": {"metric": "cost", "at_most": 0.0},
    "bytes": {"metric": "table_bytes", "at_most": 0.0, "if_measured": True},
    "latency": {"metric": "latency", "at_most": 0.05, "if_measured": True},
    "calibration": {"metric": "calibration", "of": "value", "at_least": 0.5, "at_most": 2.0},
    "slices": {"metric": "worst_slice", "at_most": 5.0, "required": False},
}
LEAK = {"kind": "leak", "feature": "price", "severe": True, "values": {"auc": 1.0}}
LOOK = {"kind": "constant", "feature": "city", "severe": False, "values": {}}

quality = st.sampled_from([0.5, 0.8, 0.8001, 0.9, 1.2])
cost = st.sampled_from([10.0, 20.0, 20.05, 40.0])


@st.composite
def measured(draw: Callable[..., Any], *, whole: bool) -> dict[str, Any]:
    """Metrics of a model; of a baseline any may be missing."""
    there = (lambda: True) if whole else (lambda: draw(st.integers(0, 5)) > 0)
    metrics: dict[str, Any] = {}
    seeds = draw(st.sampled_from([None, 2, 3]))
    for name in ("normalized_entropy", "validation_normalized_entropy", "auc"):
        if there():
            value = draw(quality)
            spread = {} if seeds is None else {"n": seeds, "ci95": [value - 0.1, value + 0.2]}
            metrics[name] = {"value": value, "unit": "NE", "role": "quality", **spread}
    for name in ("flops", "table_bytes"):
        if there():
            metrics[name] = {"value": draw(cost), "unit": "FLOP", "role": "cost"}
    return metrics


@st.composite
def summaries(draw: Callable[..., Any]) -> dict[str, Any]:
    """The content of a summary.json."""
    held_out = draw(st.booleans())
    name = "validation_normalized_entropy" if held_out else "normalized_entropy"
    objectives = [
        {"name": name, "unit": "NE", "direction": "min", "role": "quality"}
        | ({"held_out": "normalized_entropy"} if held_out else {}),
        *([{"name": "flops", "unit": "FLOP", "direction": "min", "role": "cost"}] if draw(st.integers(0, 5)) else []),
    ]
    baselines: list[dict[str, Any]] = []
    for place, known in enumerate(draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))):
        entry = {"name": known, "fingerprint": fingerprint({"b": place}), "metrics": draw(measured(whole=False))}
        kind = draw(st.sampled_from(["", "", "", "live", "retired", "reference", "logged"]))
        if kind in ("live", "retired"):
            entry["name"] = f"{known} v1"
            entry["registered"] = {"version": 1, "added": f"2026-01-0{place + 1}", "live": kind == "live"}
        if kind == "logged":
            entry |= {"logged": True, "metrics": {k: v for k, v in entry["metrics"].items() if v["role"] != "cost"}}
        if kind == "reference" and not any(b.get("reference") for b in baselines):
            entry["reference"] = True
        baselines.append(entry)
    front = [
        {
            "rank": rank,
            "fingerprint": fingerprint({"c": rank}),
            "architecture": {"space": "s", "version": "1", "choices": {"c": rank}},
            "metrics": draw(measured(whole=True)),
            "artifacts": {},
        }
        for rank in range(1, 1 + draw(st.integers(0, 3)))
    ]
    return {
        "schema": 1, "space": "ranking_blocks", "task": "movielens", "controller": "random", "seed": 0,
        "objectives": objectives if draw(st.integers(0, 9)) else [],
        "baselines": baselines, "pareto": front, "ledger": {"seconds": 1.0, "ended": "finished"},
        "left_out": draw(st.sampled_from([{}, {}, {"old v1": "old v1 does not fit"}])),
        "versions": {}, "reproduce": "",
    }  # fmt: skip


@st.composite
def runs(draw: Callable[..., Any]) -> Run:
    """A run folder as read, without a folder."""
    data = draw(summaries())
    gates = {name: GATES[name] for name in draw(st.lists(st.sampled_from(sorted(GATES)), unique=True))}
    config = {"report": {"gates": gates}, "runner": {"baselines": draw(st.booleans())}}
    if draw(st.integers(0, 4)) == 0:
        config["report"]["baseline"] = draw(st.sampled_from(NAMES))
    run = Run(Path("/nowhere"), Summary.model_validate(data), (), "no trials", json.dumps(config))
    vars(run)["evidence"] = draw(rows(data)) if draw(st.booleans()) else None
    return run


@st.composite
def rows(draw: Callable[..., Any], data: dict[str, Any]) -> Evidence:
    """Rows of the test data that most models were measured on."""
    rng = np.random.default_rng(draw(st.integers(0, 3)))
    truth = rng.normal(-1.0, 1.0, ROWS)
    labels = (rng.random(ROWS) < sigmoid(truth)).astype(np.float32)
    losses = {}
    for entry in (*data["baselines"], *data["pareto"]):
        if draw(st.integers(0, 5)):
            seeds, shift = draw(st.integers(1, 3)), draw(st.sampled_from([0.0, 0.0, 0.3, 2.0]))
            noise = rng.normal(0, 0.3 * draw(st.integers(0, 3)), (seeds, ROWS))
            losses[entry["fingerprint"]] = np.stack([log_losses(truth + shift + n, labels) for n in noise]).astype(
                np.float32
            )
    doubts = draw(st.sampled_from([None, [], [], [LOOK], [LEAK], [LOOK, LEAK]]))
    facts = {} if doubts is None else {"doubts": doubts}
    slicing = Slicing("genre", (np.arange(ROWS) % 2).astype(np.int16), ("a", "b"))
    clusters = np.arange(ROWS) // 4 if draw(st.booleans()) else None
    return Evidence("normalized_entropy", losses, labels, clusters=clusters, slicings=(slicing,), facts=facts)


def said(report: dict[str, Any]) -> list[str]:
    """All sentences of a report."""
    texts = [card[part] for card in report["cards"] for part in ("title", "finding", "reason", "how_to_read")]
    return [*texts, *(tile["note"] for tile in report["tiles"])]


def as_data(content: Content) -> dict[str, Any]:
    """The report as report.json has it, read back."""
    data = {
        "facts": dict(content.common),
        "cards": [card.as_json() for card in content.cards],
        "tiles": [{"name": t.name, "value": t.value, "note": t.note} for t in content.tiles],
    }
    return json.loads(json.dumps(data, allow_nan=False))  # type: ignore[no-any-return]


# What may be said only where it is true: of the generated run, not of what the report worked out.
CLAIMS: list[tuple[str, Callable[[Run], bool]]] = [
    (r"no baseline was measured|names no baseline|no baseline could be measured", lambda r: not with_quality(r)),
    (r"the summary names no objective", lambda r: not r.summary.objectives),
    (r"has no candidate yet|There are no candidates", lambda r: not r.summary.pareto),
    (r"No live model is registered", lambda r: not live(r)),
    (r"the registered live model|newest registered production model", lambda r: bool(live(r))),
    (r"logged scores of production", lambda r: any(b.logged for b in r.summary.baselines)),
    (r"no objective is a cost|a front needs a cost", lambda r: len(r.summary.objectives) < 2),
    (r"Nothing about the data is in doubt", lambda r: not recorded(r)),
    (r"see Warnings", lambda r: bool(r.evidence)),
    (r"no rows of both models", lambda r: r.evidence is None or len(r.evidence.losses) < every(r)),
]
# What cannot be said in one report.
EXCLUSIVE = [
    (r"There is no production comparison", r"Its .* than that of"),
    (r"There is no verdict\.", r"beats? (the best|at)"),
    (r"No live model is registered", r"the registered live model"),
    (r"no baseline (was|could|has)|names no baseline", r"[1-9]\d* baselines? drawn in"),
    (r"Nothing about the data is in doubt", r"data are in doubt"),
    (r"no candidate beats", r"every candidate (wins|that can)"),
    (r"^Ship to A/B", r"data are in doubt|could not be compared with"),
    (r"none can be compared", r"Best gain .*\d%"),
]


def with_quality(run: Run) -> list[str]:
    shown = {o.held_out or o.name for o in run.summary.objectives} | {o.name for o in run.summary.objectives}
    return [b.name for b in run.summary.baselines if shown & set(b.metrics)]


def live(run: Run) -> list[str]:
    return [b.name for b in run.summary.baselines if b.registered is not None and b.registered.live]


def recorded(run: Run) -> bool:
    return run.evidence is not None and bool(run.evidence.facts.get("doubts"))


def every(run: Run) -> int:
    return len(run.summary.baselines) + len(run.summary.pareto)


def table(report: dict[str, Any], card: str, caption: str = "") -> list[dict[str, Any]]:
    cards = {c["id"]: c for c in report["cards"]}
    return next((t["rows"] for t in cards[card]["tables"] if t["caption"] == caption), [])


def value(cell: Any) -> Any:
    return cell["value"] if isinstance(cell, dict) else cell


@settings(
    max_examples=40,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@given(runs())
def test_no_two_sentences_contradict_each_other(run: Run) -> None:
    report = as_data(content_of(run))
    cards = {card["id"]: card for card in report["cards"]}
    texts = said(report)
    for pattern, holds in CLAIMS:
        told = [text for text in texts if re.search(pattern, text)]
        assert not told or holds(run), told
    for one, other in EXCLUSIVE:
        pair = [[text for text in texts if re.search(pattern, text)] for pattern in (one, other)]
        assert not all(pair), pair

    # Every sentence is rendered from report.json alone.
    for section in sections():
        if (card := cards.get(section.id)) is not None:
            again = section.texts_of(card["facts"], report["facts"])
            assert again == {part: card[part] for part in again}, section.id

    # Counts are the same wherever they are told.
    for pattern, count in (
        (r"(\d+) candidates? with", len(run.summary.pareto)),
        (r"(\d+) baselines? below", every(run) - len(run.summary.pareto)),
    ):
        assert all(int(n) == count for text in texts for n in re.findall(pattern, text)), pattern

    # The verdict, its sentence and its table agree.
    launch, gates = cards["launch"], table(report, "launch")
    outcomes = {row["Gate"]: value(row["Outcome"]) for row in gates}
    required = [o for name, o in outcomes.items() if GATES[name].get("required", True) and o != "NA"]
    if launch["finding"].startswith("Ship"):
        assert required
        assert set(required) == {"PASS"}
        assert not run.summary.left_out or report["facts"]["standing"] == "named"
        assert launch["status"] == "PASS"
    elif launch["finding"].startswith("Reject"):
        assert "FAIL" in required
        assert launch["status"] == "FAIL"
    if "passed" in launch["reason"]:
        assert set(required) == {"PASS"}

    # Nothing about quality is called good beside a severe doubt.
    severe = report["facts"]["doubts"]
    if severe:
        judged = [s.id for s in sections() if s.judges_quality]
        assert not [id_ for id_ in judged if id_ in cards and cards[id_]["status"] == Status.PASS.value]
        assert not {"quality", "calibration", "slices"} & {name for name, o in outcomes.items() if o == "PASS"}
        assert cards["warnings"]["status"] == "FAIL"
        assert all(doubt["feature"] in cards["warnings"]["finding"] for doubt in severe[:3])

    # One production model, by one reason; the headline has it, the live model and the best baseline.
    facts = report["facts"]
    if facts["production"]:
        assert f"against {facts['production']}" in launch["finding"]
        names = [claim["name"] for claim in facts["headline"]]
        assert facts["production"] in names
        standings = [s for claim in facts["headline"] for s in claim["standings"]]
        assert standings.count("best") == 1
        assert not facts["registered"] or standings.count("live") == 1
        claim = next(c for c in facts["headline"] if c["name"] == facts["production"])
        if cards["quality"]["facts"].get("paired"):
            assert cards["quality"]["facts"]["change"]["value"] == claim["change"]["value"]
        comparisons = cards["verdict"]["facts"].get("top")
        if comparisons is not None and comparisons["among_models"]:
            best = next(c["name"] for c in facts["headline"] if "best" in c["standings"])
            assert comparisons["against"] == best, "the search is held against the same best baseline"


@pytest.mark.parametrize("id_", [section.id for section in sections()])
def test_a_section_that_judges_quality_says_so(id_: str) -> None:
    judging = {"launch", "quality", "calibration", "slices", "drift", "agreement", "experiment", "verdict"}
    judging |= {"questions", "guard"}
    section = next(s for s in sections() if s.id == id_)
    assert section.judges_quality == (id_ in judging)
