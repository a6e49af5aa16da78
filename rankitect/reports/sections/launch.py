"""The advice about a candidate: ship, hold or reject, with the gates that decided."""

from __future__ import annotations

from collections.abc import Iterator

from rankitect.production.gates import GateResult, Outcome, Verdict
from rankitect.reports.cards import Cell, Status, Table
from rankitect.reports.case import Case
from rankitect.reports.numbers import (
    compact,
    lower_name,
    percent_range,
    plural,
    possible,
    readable_name,
    signed_percent,
)
from rankitect.reports.run import Run
from rankitect.reports.section import Facts, ProductionSection
from rankitect.study.summary import RegisteredSummary

_TONES = {Outcome.PASS: "good", Outcome.FAIL: "bad"}
_STATUS = {Verdict.SHIP: Status.PASS, Verdict.HOLD: Status.WARN, Verdict.REJECT: Status.FAIL}
_OUTCOMES = {
    Outcome.PASS: "passes",
    Outcome.FAIL: "fails",
    Outcome.OPEN: "undecided: the interval crosses the bound",
    Outcome.MISSING: "not known",
    Outcome.NA: "does not apply",
}


class LaunchSection(ProductionSection):
    """The advice, with the gates that decided."""

    id, short, order = "launch", "Launch", 10
    judges_quality = True

    def facts_of(self, case: Case) -> Facts:
        """Judge the candidate by the gates of the configuration."""
        if not case.gates:
            return Facts.missing("gates", names=case.names)
        deciding = [r for r in case.results if r.gate.required and r.outcome is not Outcome.NA]
        words = {
            "advice": case.verdict.value[0].upper() + case.verdict.value[1:],
            "fingerprint": case.candidate.fingerprint[:8],
            "names": case.names,
            "deciding": len(deciding),
            "idle": [r.name for r in case.results if r.outcome is Outcome.NA],
            "verdict": case.verdict,
            "against": [
                (word, [r.name for r in deciding if r.outcome is outcome])
                for outcome, word in (
                    (Outcome.FAIL, "failed"),
                    (Outcome.OPEN, "undecided"),
                    (Outcome.MISSING, "not known"),
                )
                if any(r.outcome is outcome for r in deciding)
            ],
            "unknown": case.unknown,
            "single_seed": case.single_seed,
        }
        gates = Table(
            ("Gate", "Found", "Outcome", "Condition"), tuple(_gate_row(case, r) for r in case.results), sortable=False
        )
        tables = (gates, *_registered(case.run), *_left_out(case.run))
        return Facts(_STATUS[case.verdict] if deciding else Status.NA, words, tables)


def _left_out(run: Run) -> Iterator[Table]:
    """The models that could not be compared with, and why."""
    rows = tuple((Cell(name), Cell(why)) for name, why in run.summary.left_out.items())
    caption = "Models that could not be compared with; one of them may be what is live (report.baseline names it)"
    if rows:
        yield Table(("Model", "Why"), rows, caption=caption, sortable=False)


def _registered(run: Run) -> Iterator[Table]:
    """The registered production models, and from when on each was the reference."""
    models = [(b.name, b.registered) for b in run.summary.baselines if b.registered is not None]
    rows = tuple(
        (
            Cell(name),
            Cell(_date(about.added)),
            Cell(
                f"after {plural(about.after_trials, 'trial')}" if about.after_trials else "its beginning",
                about.after_trials,
            ),
            Cell(_now(about)),
            Cell(about.note),
        )
        for name, about in sorted(models, key=lambda model: model[1].added)
    )
    columns = ("Production model", "Registered, UTC", "Taken up by this search", "Now", "Note")
    if rows:
        yield Table(columns, rows, caption="Registered production models", sortable=False)


def _now(about: RegisteredSummary) -> str:
    if about.live:
        return "live"
    return f"retired {_date(about.retired)}" if about.retired else "replaced"


def _date(text: str) -> str:
    return text[:19].replace("T", " ")


def _gate_row(case: Case, result: GateResult) -> tuple[Cell, ...]:
    gate = result.gate
    roles = {"quality": case.roles.quality.name, "cost": case.roles.cost.name if case.roles.cost else "cost"}
    name = roles.get(gate.metric, gate.metric)
    against = " against production" if gate.of == "change" else ""
    lost = gate.metric == "quality" and gate.of == "change" and case.roles.sign > 0
    subject = f"Loss in {lower_name(readable_name(name))}" if lost else readable_name(name)
    condition = f"{subject}{against}: {gate.bound_text(gate.of == 'change')}"
    return Cell(result.name), _observed_cell(name, result), _outcome_cell(result), Cell(condition)


def _observed_cell(name: str, result: GateResult) -> Cell:
    """What a gate looked at, with its interval, within what the metric can be."""
    observed = result.observed
    if observed is None:
        return Cell("–", note=result.reason)
    if result.gate.of == "change":
        text, ends = signed_percent(observed.value), percent_range(observed.low, observed.high)
    else:
        text = compact(observed.value)
        ends = " to ".join(map(compact, possible(name, (observed.low, observed.high)) or ()))
    note = "" if observed.low == observed.high else "two training seeds: no interval" if observed.vague else ends
    if result.gate.metric == "worst_slice":
        note += "; the value and each end are the largest over slices, maybe of different ones"
    return Cell(text, observed.value, note=note)


def _outcome_cell(result: GateResult) -> Cell:
    outcome = result.outcome
    if outcome is Outcome.OPEN and result.reason:
        return Cell("undecided", outcome.value, note=result.reason)
    text = _OUTCOMES[outcome] + ("" if result.gate.required or outcome is Outcome.NA else " (decides nothing)")
    note = result.reason if outcome is Outcome.PASS else ""
    return Cell(text, outcome.value, note=note, tone=_TONES.get(outcome, ""))


SECTION = LaunchSection()
