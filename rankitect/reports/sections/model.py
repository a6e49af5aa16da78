"""The model card: what the model is, what it was trained on, and where it must not be used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rankitect.reports.cards import Cell, Status, Table
from rankitect.reports.case import Case
from rankitect.reports.numbers import as_percent, readable_name
from rankitect.reports.section import Facts, ProductionSection


class ModelSection(ProductionSection):
    """What a reviewer, or whoever finds the weights in a year, needs to know."""

    id, short, order = "model", "Model card", 100

    def facts_of(self, case: Case) -> Facts:
        """Gather what the run records about the model and its data."""
        facts: Mapping[str, Any] = {} if case.evidence is None else case.evidence.facts
        known = "data" in facts
        rows = [*_model(case), *(_data(facts) if known else ()), *_use(facts)]
        table = Table(("Fact", "Value"), tuple((Cell(name), Cell(text)) for name, text in rows), sortable=False)
        words = {
            "title": case.titles[0],
            "fingerprint": case.candidate.fingerprint[:8],
            "task": case.run.summary.task,
            "known": known,
        }
        code = (("Architecture", json.dumps(case.candidate.architecture, sort_keys=True)),)
        return Facts(Status.PASS if known else Status.WARN, words, (table,), code=code)


def _model(case: Case) -> Iterator[tuple[str, str]]:
    summary = case.run.summary
    yield "Model", f"{case.names[0]} of {summary.space}, fingerprint {case.candidate.fingerprint}"
    yield "Found by", f"{summary.controller}, seed {summary.seed}"
    yield "Task", summary.task


_ELSEWHERE = ("data", "fingerprint", "examples", "clusters", "limits", "privacy")
"""Facts with a place of their own; whatever else a task records in words is shown as it is."""


def _data(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the run records about its data."""
    yield "Data", f"{facts['data']} (SHA-256 of content and encoding {str(facts.get('fingerprint'))[:16]})"
    for key, value in facts.items():
        if isinstance(value, str) and value and key not in _ELSEWHERE:
            yield readable_name(key), value
    for name, split in facts.get("splits", {}).items():
        counts = [f"{split[key]:,} {key}" for key in ("rows", "tokens", "documents") if key in split]
        rate = split.get("base_rate")
        yield name.capitalize(), ", ".join(counts + ([f"base rate {as_percent(rate, 2)}"] if rate else []))
    for name in ("train_window", "test_window"):
        if name in facts:
            yield readable_name(name), " to ".join(facts[name]) + " UTC"


def _use(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Intended use", "the task above, on traffic like the training data; anything else needs a new evaluation"
    for key in ("limits", "privacy"):
        if key in facts:
            yield key.capitalize(), str(facts[key])


SECTION = ModelSection()
