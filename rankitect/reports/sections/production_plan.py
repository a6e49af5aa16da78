"""The sections of a production comparison about what comes next: cost, the A/B test, the rollout, the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rankitect.production.experiment import Variance, design, detectable, variance_of
from rankitect.production.settings import ExperimentConfig
from rankitect.reports.cards import Card, Cell, Status, Table
from rankitect.reports.case import Case
from rankitect.reports.numbers import as_percent, as_value, compact, readable_name, signed_percent
from rankitect.reports.sections.latency import measured_latencies

__all__ = ["cost_card", "experiment_card", "model_card", "rollout_card"]

_QUALITIES = ("normalized_entropy", "log_loss", "auc", "calibration", "perplexity", "bits_per_byte")
_TRAFFIC = (1_000, 10_000, 100_000, 1_000_000)
_LONG = 90
"""Days beyond which a test is too long to be believed."""


def cost_card(case: Case | str) -> Card:
    """What each model costs to hold and to run."""
    title = "Cost against production"
    if isinstance(case, str):
        return Card("cost", title, "There is no production comparison.", reason=case)
    names = [n for n in case.candidate.metrics if not any(n.endswith(q) for q in _QUALITIES)]
    rows = []
    for name in names:
        ours, theirs = case.candidate.metrics[name], case.production.metrics.get(name)
        change = case.relative(name)
        tone = "" if change is None or change.value == 0 else "good" if change.value < 0 else "bad"
        rows.append(
            (
                Cell(readable_name(name)),
                Cell(as_value(ours.value, ours.unit), ours.value),
                Cell("–") if theirs is None else Cell(as_value(theirs.value, theirs.unit), theirs.value),
                Cell("–") if change is None else Cell(signed_percent(change.value), change.value, tone=tone),
            )
        )
    tables = [Table(("Cost", *case.titles, "Change"), tuple(rows), sortable=False)]
    latencies = measured_latencies(case.run, case.candidate)
    for name, one in latencies.items():
        cells = [("p50", one.measured.p50), ("p90", one.measured.p90), ("p99", one.measured.p99)]
        tables.append(
            Table(
                tuple(word for word, _ in cells),
                (tuple(Cell(f"{compact(ms)} ms", ms) for _, ms in cells),),
                caption=f"{readable_name(name.removesuffix('_ms'))}, measured on the exported program",
                sortable=False,
            )
        )
    cost = case.roles.cost
    found = None if cost is None else case.relative(cost.name)
    finding = "No cost is an objective of this search."
    if cost is not None and found is not None:
        word = "less" if found.value < 0 else "more"
        finding = (
            f"{case.titles[0]} needs {signed_percent(abs(found.value)).lstrip('+')} {word} than {case.names[1]} in "
            f"{_lower(readable_name(cost.name))}."
        )
    status, reason = _cost_status(case, bool(latencies))
    return Card(
        "cost",
        title,
        finding,
        how_to_read="Costs are read from the graph, for one example; latencies are of the exported model, measured in "
        "a process of its own. Less is better.",
        status=status,
        reason=reason,
        tables=tuple(tables),
    )


def _cost_status(case: Case, exported: bool) -> tuple[Status, str]:
    """Whether latencies can be compared: both models need one."""
    both = [n for n in case.candidate.metrics if n.endswith("_ms") and n in case.production.metrics]
    if both and exported:
        names = ", ".join(_lower(readable_name(n)) for n in both)
        return Status.PASS, f"{names} of both models; that of {case.names[0]} is measured on its exported program too"
    if exported:
        text = f"the latency of {case.names[0]} was measured on its exported program, that of {case.names[1]} was not"
        return Status.NA, f"{text}: there is nothing to compare it with"
    return Status.WARN, "no latency was measured on an exported model: search with device=host (or android)"


def _lower(name: str) -> str:
    return name if name[1:2].isupper() else name[:1].lower() + name[1:]


def experiment_card(case: Case | str) -> Card:
    """The A/B test: units, power, sample sizes, days, and how to read it honestly."""
    title = "A/B test design"
    if isinstance(case, str):
        return Card("experiment", title, "There is nothing to test.", reason=case)
    config = case.run.settings.experiment
    variance = None if case.evidence is None else variance_of(case.evidence, config)
    if variance is None and config.rate is not None and config.variance is not None:
        variance = Variance(config.rate, config.variance, 0, None, "given in report.experiment")
    rules = _rules_table(config)
    if variance is None:
        return Card(
            "experiment",
            title,
            "Sample sizes need the variance of the primary metric, which this run does not know.",
            how_to_read=_RULES,
            status=Status.WARN,
            reason=f"give report.experiment.rate and report.experiment.variance, from a past A/A test; {_other(case)}",
            tables=(rules,),
        )
    planned = design(variance, config)
    traffic = (config.units_a_day,) if config.units_a_day is not None else _TRAFFIC
    rows = []
    for effect, plain, reduced in planned.needed:
        needed = plain if reduced is None else reduced
        rows.append(
            (
                Cell(signed_percent(effect), effect),
                Cell(f"{plain:,}", plain),
                Cell("–") if reduced is None else Cell(f"{reduced:,}", reduced),
                *(_days_cell(needed, a_day) for a_day in traffic),
            )
        )
    unit = config.unit
    header = (
        "Relative effect",
        f"{unit.capitalize()}s in both arms",
        "… with CUPED",
        *(f"Days at {compact(a_day, trim=True)} {unit}s a day" for a_day in traffic),
    )
    effect, plain, reduced = planned.needed[0]
    saved = "" if reduced is None else f" ({reduced:,} with CUPED, which uses each {unit}'s behaviour before the test)"
    fourteen = tuple(
        (Cell(f"{14 * n:,}", 14 * n), Cell(as_percent(detectable(14 * n, variance.unit, config) / variance.rate, 2)))
        for n in traffic
    )
    return Card(
        "experiment",
        title,
        f"To find a change of {signed_percent(effect)} in {config.metric} ({as_percent(variance.rate)}) with "
        f"{as_percent(config.power, 0)} power, {plain:,} {unit}s are needed in both arms{saved}.",
        how_to_read=_RULES,
        status=Status.PASS if variance.units >= 1000 or not variance.units else Status.WARN,
        reason=f"variance from {variance.source}",
        tables=(
            Table(header, tuple(rows), caption="Sample size and length"),
            Table(
                (f"{unit.capitalize()}s after 14 days", "Smallest effect found"),
                fourteen,
                caption="What two weeks can show, without CUPED",
                sortable=False,
            ),
            _variance_table(variance, unit),
            rules,
        ),
    )


def _other(case: Case) -> str:
    """What else gives the variance, or that nothing here does."""
    if case.roles.quality.name.endswith(("perplexity", "bits_per_byte")):
        return "held-out text has no users, so only the product's own logs can give them"
    return "a click log with a user column (task.data.table.group) gives both"


_RULES = (
    "Offline quality is a guardrail, not the goal: the primary metric is the product's. Run the same split with the "
    "live model in both arms first (A/A): its p-values must be uniform. Before any metric, check that the arms have "
    "the planned shares (sample ratio mismatch); where they do not, the assignment is broken and nothing can be "
    "read. Fix the length beforehand and decide once at its end; looking earlier needs a sequential boundary. Keep "
    "whole weeks, let the first days of novelty pass, and mind that arms which share inventory or budget influence "
    "each other."
)


def _days_cell(needed: int, a_day: int) -> Cell:
    days = -(-needed // a_day)
    weeks = 7 * -(-days // 7)
    return Cell(f"{weeks:,}", weeks, tone="bad" if weeks > _LONG else "", note="whole weeks" if weeks != days else "")


def _variance_table(variance: Variance, unit: str) -> Table:
    rows = [
        (Cell("Rate of production"), Cell(as_percent(variance.rate, 2), variance.rate)),
        (Cell(f"Variance of a {unit}"), Cell(compact(variance.unit), variance.unit)),
        (Cell("Source"), Cell(variance.source)),
    ]
    if variance.correlation is not None:
        rows.append((Cell("Correlation with the time before (CUPED)"), Cell(f"{variance.correlation:.2f}")))
    return Table(("Planned with", "Value"), tuple(rows), sortable=False)


def _rules_table(config: ExperimentConfig) -> Table:
    rows = (
        ("Unit of randomisation", config.unit),
        ("Primary metric", config.metric),
        ("Level, two-sided", f"{config.alpha:g}"),
        ("Power", f"{config.power:g}"),
        ("Share of the candidate", as_percent(config.allocation)),
        ("First", "A/A test of at least a week, same split"),
        ("Sample ratio mismatch", "chi-squared test of the arms' sizes; stop below p = 0.001"),
        ("Stopping", "fixed length, one look; guardrails may stop it earlier"),
    )
    return Table(("Design", ""), tuple((Cell(k), Cell(v)) for k, v in rows), sortable=False)


def rollout_card(case: Case | str) -> Card:
    """What must be true before, during and after the ramp."""
    title = "Guardrails and rollout"
    if isinstance(case, str):
        return Card("rollout", title, "There is nothing to roll out.", reason=case)
    ours, theirs = case.names
    artifacts = sorted(case.candidate.artifacts)
    of_clicks = case.evidence is not None and case.evidence.of_clicks
    calibration = (
        "Calibration guardrail",
        "predicted over observed within 0.9 to 1.1 in every hour with 10,000 rows",
        "ramp",
    )
    steps = [
        ("Feature parity", "serving computes every feature as training did, on logged requests", "before"),
        (
            "Shadow",
            f"{ours} scores live traffic without effect; its scores match offline ones on the same rows",
            "before",
        ),
        ("Kill switch", f"one flag sends all traffic back to {theirs}; tried out", "before"),
        ("Roll-back artifact", f"{theirs} ({case.prints[1][:8]}) stays deployed", "before"),
        ("Owners", "who is called for the model, its data and its serving: to be named by you", "before"),
        ("1%", "a day: errors, latency p99, calibration by hour", "ramp"),
        ("5%", "two days: the same, and the primary metric for disasters", "ramp"),
        ("50%", "the planned length: the decision", "ramp"),
        ("Latency guardrail", "p99 of the service at most 5% above production, or stop", "ramp"),
        ("Error guardrail", "failed or defaulted predictions at most 0.1%, or stop", "ramp"),
        *([calibration] if of_clicks else []),
        ("Product guardrails", "revenue, complaints, hides: limits to be set by you", "ramp"),
    ]
    return Card(
        "rollout",
        title,
        f"{len(steps)} steps from here to a decision; owners and product limits are yours to fill in.",
        how_to_read="A checklist for the launch review. The limits are customary starting points, not measured ones.",
        status=Status.WARN,
        reason="owners and product guardrails cannot be known from here",
        tables=(
            Table(("Step", "Condition", "When"), tuple(tuple(Cell(t) for t in step) for step in steps), sortable=False),
            Table(
                ("Artifact", "Path"),
                tuple((Cell(name), Cell(case.candidate.artifacts[name])) for name in artifacts),
                caption=f"What is deployed for {ours}",
                sortable=False,
            ),
        ),
    )


_LIMITS = {
    True: "offline quality on logged rows: what the live model did not show has no label, so a better offline metric "
    "is a reason to test, not to launch",
    False: "perplexity on held-out text: what the model says to people, and in other domains and languages, needs its "
    "own evaluation",
}
_PRIVACY = {
    True: "identifiers are hashed into table rows; whoever holds the weights can test whether one was trained on",
    False: "a pruned model keeps what its backbone has memorised of its training text",
}


def model_card(case: Case | str) -> Card:
    """What the model is, what it was trained on, and where it must not be used."""
    title = "Model card"
    if isinstance(case, str):
        return Card("model", title, "There is no model to describe.", reason=case)
    facts: Mapping[str, Any] = {} if case.evidence is None else case.evidence.facts
    of_clicks = case.evidence is not None and case.evidence.of_clicks
    rows: list[tuple[str, str]] = [
        ("Model", f"{case.names[0]} of {case.run.summary.space}, fingerprint {case.candidate.fingerprint}"),
        ("Found by", f"{case.run.summary.controller}, seed {case.run.summary.seed}"),
        ("Task", case.run.summary.task),
    ]
    if facts:
        rows.append(
            ("Data", f"{facts.get('data')} (SHA-256 of content and encoding {str(facts.get('fingerprint'))[:16]})")
        )
        named = ("label", "division", "backbone", "healing")
        rows += [(key.capitalize(), str(facts[key])) for key in named if facts.get(key)]
        for name, split in facts.get("splits", {}).items():
            counts = [f"{split[key]:,} {key}" for key in ("rows", "tokens", "documents") if key in split]
            rate = split.get("base_rate")
            rows.append((name.capitalize(), ", ".join(counts + ([f"base rate {as_percent(rate, 2)}"] if rate else []))))
        windows = [name for name in ("train_window", "test_window") if name in facts]
        rows += [(readable_name(name), " to ".join(facts[name]) + " UTC") for name in windows]
    rows += [
        ("Intended use", "the task above, on traffic like the training data; anything else needs a new evaluation"),
        ("Limits", _LIMITS[of_clicks]),
        ("Privacy", _PRIVACY[of_clicks]),
    ]
    known = bool(facts)
    return Card(
        "model",
        title,
        f"{case.titles[0]}, {case.candidate.fingerprint[:8]}, for {case.run.summary.task}.",
        how_to_read="What a reviewer, or whoever finds the weights in a year, needs to know.",
        status=Status.PASS if known else Status.WARN,
        reason="data, label and windows are recorded" if known else "the run records nothing about its data's rows",
        tables=(Table(("Fact", "Value"), tuple((Cell(k), Cell(v)) for k, v in rows), sortable=False),),
        code=(("Architecture", json.dumps(case.candidate.architecture, sort_keys=True)),),
    )
