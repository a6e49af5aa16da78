"""The production comparison: one candidate against the live model, judged by gates that were written down before."""

from __future__ import annotations

from collections.abc import Mapping

from rankitect.production.change import Change
from rankitect.production.gates import GateResult, Observed, Outcome, Verdict
from rankitect.reports.cards import Card, Cell, Status, Table
from rankitect.reports.case import Case
from rankitect.reports.numbers import as_value, compact, percent_range, plural, possible, readable_name, signed_percent
from rankitect.reports.reading import Metric, Run

__all__ = ["launch_card", "quality_card"]

_TONES = {Outcome.PASS: "good", Outcome.FAIL: "bad", Outcome.OPEN: "", Outcome.MISSING: ""}
_STATUS = {Verdict.SHIP: Status.PASS, Verdict.HOLD: Status.WARN, Verdict.REJECT: Status.FAIL}
_WORDS = {
    Outcome.PASS: "passes",
    Outcome.FAIL: "fails",
    Outcome.OPEN: "undecided: the interval crosses the bound",
    Outcome.MISSING: "not measured",
}
_SEEDS = 3
"""Training seeds from which on the spread between them can be told from luck."""


# --- cards ----------------------------------------------------------------------------------------------------------
_LAUNCH = "Launch verdict"


def launch_card(case: Case | str) -> Card:
    """The advice, with the gates that decided."""
    if isinstance(case, str):
        return Card("launch", _LAUNCH, "There is no production comparison.", reason=case)
    ours, theirs = case.names
    if not case.gates:
        return Card(
            "launch",
            _LAUNCH,
            f"No gates were registered, so there is no verdict on {ours} against {theirs}.",
            reason="report.gates is empty: write down what a candidate must show before the search begins.",
        )
    deciding = [r for r in case.results if r.gate.required]
    bad = {o: [r.name for r in deciding if r.outcome is o] for o in Outcome}
    parts = [
        f"{word}: {', '.join(bad[o])}"
        for o, word in ((Outcome.FAIL, "failed"), (Outcome.OPEN, "undecided"), (Outcome.MISSING, "not measured"))
        if bad[o]
    ]
    left_out = case.run.summary.left_out
    if not deciding:
        parts.append("no gate is required, so none decides")
    elif not parts:
        parts.append(f"all of {plural(len(deciding), 'gate')} passed")
        if case.verdict is Verdict.HOLD:
            parts.append(f"but {', '.join(left_out)} could not be compared with")
    text = "; ".join(parts)
    advice = case.verdict.value[0].upper() + case.verdict.value[1:]
    return Card(
        "launch",
        _LAUNCH,
        f"{advice}: {ours} ({case.candidate.fingerprint[:8]}) against {theirs}; {text}.",
        how_to_read=(
            "Gates are part of the search's configuration, which cannot be changed under a run that has begun. A gate "
            "passes when the whole 95% interval is within its bound and fails when all of it is outside. Ship to A/B: "
            "every required gate passes. Reject: one fails. Hold: measure more (seeds, rows), or the missing ones. "
            f"Production is {case.chosen}. The candidate was chosen from the front; its gain is a little flattered by "
            "that choice."
        ),
        status=_STATUS[case.verdict] if deciding else Status.NA,
        reason=text,
        tables=(
            Table(
                ("Gate", "Found", "Outcome", "Condition"),
                tuple(_gate_row(case, r) for r in case.results),
                sortable=False,
            ),
            *_registry_table(case.run),
            *_left_out_table(left_out),
        ),
    )


def _left_out_table(left_out: Mapping[str, str]) -> tuple[Table, ...]:
    rows = tuple((Cell(name), Cell(why)) for name, why in left_out.items())
    caption = "Models that could not be compared with; one of them may be what is live (report.baseline names it)"
    return (Table(("Model", "Why"), rows, caption=caption, sortable=False),) if rows else ()


def _registry_table(run: Run) -> tuple[Table, ...]:
    """The registered production models: which was the reference from when on."""
    found = [(b.name, b.registered) for b in run.summary.baselines if b.registered is not None]
    if not found:
        return ()
    rows = tuple(
        (
            Cell(name),
            Cell(r.added[:19].replace("T", " ")),
            Cell("its beginning" if not r.after_trials else f"after {plural(r.after_trials, 'trial')}", r.after_trials),
            Cell(
                "live" if r.live else f"retired {(r.retired or '')[:19].replace('T', ' ')}" if r.retired else "replaced"
            ),
            Cell(r.note),
        )
        for name, r in sorted(found, key=lambda item: item[1].added)
    )
    columns = ("Production model", "Registered, UTC", "Taken up by this search", "Now", "Note")
    return (Table(columns, rows, caption="Registered production models", sortable=False),)


def _gate_row(case: Case, result: GateResult) -> tuple[Cell, ...]:
    gate, found = result.gate, result.observed
    signed = gate.of == "change"
    name = {"quality": case.roles.quality.name, "cost": case.roles.cost.name if case.roles.cost else "cost"}
    shown = readable_name(name.get(gate.metric, gate.metric))
    condition = f"{shown}{' against production' if signed else ''}: {gate.bound_text(signed)}"
    text = Cell("–", note=result.reason)
    if found is not None:
        within = possible(name.get(gate.metric, gate.metric), (found.low, found.high)) or ()
        value = signed_percent(found.value) if signed else compact(found.value)
        shown_range = percent_range(found.low, found.high) if signed else " to ".join(map(compact, within))
        note = "" if found.low == found.high else shown_range
        if gate.metric == "worst_slice":
            note += "; the value and each end are the largest over slices, maybe of different ones"
        text = Cell(value, found.value, note=note)
    word = _WORDS[result.outcome] + ("" if gate.required else " (decides nothing)")
    why = ""
    if result.outcome is Outcome.OPEN and result.reason:
        word, why = "undecided", result.reason
    verdict = Cell(word, result.outcome.value, note=why, tone=_TONES[result.outcome])
    return Cell(result.name), text, verdict, Cell(condition)


def quality_card(case: Case | str) -> Card:
    """By how much the quality differs, with the spread over rows and that over training seeds apart."""
    title = "Quality against production"
    if isinstance(case, str):
        return Card("quality", title, "There is no production comparison.", reason=case)
    ours, theirs = case.names
    objective = case.roles.quality
    name = readable_name(objective.name).lower()
    found = case.change if case.paired else None
    rows = [_metric_row(case, n) for n in _qualities(case)]
    tables = [Table(("Metric", "Change", *case.titles), tuple(rows), sortable=False)]
    if found is None:
        return Card(
            "quality",
            title,
            f"The {name} of {ours} and {theirs} was not kept row by row.",
            status=Status.WARN,
            reason="differences below are not paired: a run of an older version, or of another evaluator",
            tables=tuple(tables),
        )
    side = "lower (better)" if found.value < 0 else "higher (worse)"
    sure = "" if found.separated else "; the interval includes no difference"
    tables.append(_spread_table(case, found))
    few = min(found.seeds) < _SEEDS
    return Card(
        "quality",
        title,
        f"The {name} of {ours} is {signed_percent(abs(found.value)).lstrip('+')} {side} than that of {theirs}, 95% "
        f"interval {percent_range(found.low, found.high)}{sure}.",
        how_to_read=(
            f"Both models are measured on the same {found.rows:,} {_rows_word(case)}, so that what is hard for both "
            f"cancels out{_clusters_text(case, found)}. A model is one draw of its training seed: a retrained one "
            "differs by the spread over seeds. Intervals of the values alone are over "
            "training seeds where there are several, else over rows, and end where the metric does (0, or 1 for AUC): "
            "few seeds say little. Smaller is better for log-loss, normalized entropy, perplexity and bits per byte, "
            "larger for AUC."
        ),
        status=Status.WARN if few or not found.separated else Status.PASS if found.value < 0 else Status.FAIL,
        reason=f"{min(found.seeds)} training seed{'s' if min(found.seeds) > 1 else ''}; from {_SEEDS} on the spread "
        "between them counts (confirm.seeds)"
        if few
        else "the interval includes no difference"
        if not found.separated
        else "the interval excludes no difference",
        tables=tuple(tables),
    )


def _rows_word(case: Case) -> str:
    return "rows" if case.evidence is not None and case.evidence.of_clicks else "windows of text"


def _clusters_text(case: Case, found: Change) -> str:
    if found.clusters is None or case.evidence is None:
        return ""
    what = "users" if case.evidence.of_clicks else "documents"
    return f"; rows of one of the {found.clusters:,} {what} are alike, and the interval knows it"


def _qualities(case: Case) -> list[str]:
    wanted = (case.roles.quality.name, "log_loss", "auc", "perplexity", "bits_per_byte", "calibration")
    return [n for n in dict.fromkeys(wanted) if n in case.candidate.metrics and n in case.production.metrics]


def _metric_row(case: Case, name: str) -> tuple[Cell, ...]:
    ours, theirs = case.candidate.metrics[name], case.production.metrics[name]
    value = case.relative(name)
    if case.evidence is not None and name == case.evidence.metric and case.change is not None:
        value = Observed(case.change.value, case.change.low, case.change.high)
    relative = Cell("–")
    if value is not None:
        paired = case.change is not None and case.evidence is not None and name == case.evidence.metric
        note = f"{percent_range(value.low, value.high)}, paired" if paired else ""
        relative = Cell(signed_percent(value.value), value.value, note=note)
    return Cell(readable_name(name)), relative, _value_cell(name, ours), _value_cell(name, theirs)


def _value_cell(name: str, metric: Metric) -> Cell:
    note = " to ".join(as_value(e, metric.unit) for e in possible(name, metric.ci95) or ())
    return Cell(as_value(metric.value, metric.unit), metric.value, note=note)


def _spread_table(case: Case, found: Change) -> Table:
    sampling = Cell(f"±{100 * found.sampling:.2g}%", found.sampling)
    single = found.seeds == (1, 1)
    seeds = Cell("one seed each" if single else f"{found.seeds[0]} and {found.seeds[1]} seeds")
    if found.seeding is None:
        seeding = Cell("unknown")
    else:
        seeding = Cell(f"±{100 * found.seeding:.2g}%", found.seeding)
    over = f"{found.rows:,} {_rows_word(case)}" + (f", {found.clusters:,} clusters" if found.clusters else "")
    return Table(
        ("Source", "Standard error of the change", "Over"),
        (
            (Cell("Which rows were tested"), sampling, Cell(over)),
            (Cell("Which seeds were trained"), seeding, seeds),
        ),
        caption="Where the uncertainty comes from",
        sortable=False,
    )
