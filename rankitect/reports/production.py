"""The production comparison: one candidate against the live model, judged by gates that were written down before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rankitect.errors import RunFolderError
from rankitect.production.calibration import calibration_ratio
from rankitect.production.change import Change, SliceChange, change, changes_by_slice
from rankitect.production.evidence import Evidence, load_evidence
from rankitect.production.gates import GateResult, Observed, Outcome, Verdict, judge, verdict_of
from rankitect.production.settings import GateConfig
from rankitect.reports.cards import Card, Cell, Status, Table
from rankitect.reports.comparison import Comparison, Roles
from rankitect.reports.numbers import as_value, compact, plural, readable_name, signed_percent
from rankitect.reports.reading import Baseline, Candidate, Metric, Run

__all__ = ["Case", "case_of", "launch_card", "quality_card"]

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


@dataclass(frozen=True)
class Case:
    """A candidate and the model that it would replace.

    Attributes:
        run: The run.
        roles: What is quality and what is cost.
        candidate: The candidate.
        production: The live model.
        evidence: Rows of the test data; None where the run has none of both models.
        gates: The conditions, by name.
        chosen: How the two were chosen.
    """

    run: Run
    roles: Roles
    candidate: Candidate
    production: Baseline
    evidence: Evidence | None
    gates: Mapping[str, GateConfig]
    chosen: str

    @property
    def prints(self) -> tuple[str, str]:
        """Fingerprints of both."""
        return self.candidate.fingerprint, str(self.production.fingerprint)

    @property
    def names(self) -> tuple[str, str]:
        """How both are called."""
        return f"candidate {self.candidate.rank}", self.production.name.replace("_", " ")

    @property
    def titles(self) -> tuple[str, str]:
        """The same at the head of a column."""
        return f"Candidate {self.candidate.rank}", self.names[1]

    @cached_property
    def change(self) -> Change | None:
        """The relative change of the quality over the same rows."""
        return None if self.evidence is None else change(self.evidence, *self.prints)

    @cached_property
    def slices(self) -> list[SliceChange]:
        """The change in every slice, the worst first."""
        return [] if self.evidence is None else changes_by_slice(self.evidence, *self.prints)

    @cached_property
    def results(self) -> list[GateResult]:
        """What came of each gate."""
        observed, missing = self._observed()
        return judge(self.gates, observed, missing)

    @cached_property
    def verdict(self) -> Verdict:
        """What is advised."""
        return verdict_of(self.results)

    def relative(self, name: str) -> Observed | None:
        """The relative change of a metric without rows; None where one of both has none."""
        ours, theirs = self.candidate.metrics.get(name), self.production.metrics.get(name)
        if ours is None or theirs is None or ours.value is None or not theirs.value:
            return None
        value = ours.value / theirs.value - 1
        if ours.ci95 is None and theirs.ci95 is None:
            return Observed.exact(value)
        # Unpaired: relative errors of independent values add up as squares.
        error = math.hypot(_half(ours), _half(theirs)) * abs(ours.value / theirs.value)
        return Observed(value, value - error, value + error)

    def _observed(self) -> tuple[dict[tuple[str, str], Observed], dict[str, str]]:
        found: dict[tuple[str, str], Observed] = {}
        for name, metric in self.candidate.metrics.items():
            if metric.value is not None:
                low, high = metric.ci95 or (metric.value, metric.value)
                found[name, "value"] = Observed(metric.value, low, high)
            if (relative := self.relative(name)) is not None:
                found[name, "change"] = relative
        quality = self.roles.quality.name
        if self.change is not None:
            found[quality, "change"] = Observed(self.change.value, self.change.low, self.change.high)
        for role, objective in (("quality", self.roles.quality), ("cost", self.roles.cost)):
            for of in ("change", "value"):
                if objective is not None and (objective.name, of) in found:
                    found[role, of] = found[objective.name, of]
        if self.evidence is not None and self.evidence.of_clicks:
            ratios = [calibration_ratio(self.evidence, f) for f in self.prints]
            found["calibration", "value"] = Observed(ratios[0].value, *ratios[0].interval())
            found["calibration", "change"] = Observed.exact(ratios[0].value / ratios[1].value - 1)
        tested = [s.change for s in self.slices if s.change is not None]
        if tested:
            worst = max(tested, key=lambda c: c.value)
            found["worst_slice", "change"] = Observed(worst.value, worst.low, max(c.high for c in tested))
        return found, self._missing()

    def _missing(self) -> dict[str, str]:
        no_rows = "the run keeps no rows of both models (a run of an older version): repeat the search's command"
        text = "windows of text have none"
        known = sorted({*self.candidate.metrics, *self.production.metrics})
        reasons = {
            "calibration": no_rows if self.evidence is None else text,
            "worst_slice": no_rows if self.evidence is None else "the rows have no slices with enough rows",
            "cost": "the search has no objective that is a cost: name the metric in the gate",
        }
        for gate in self.gates.values():
            reasons.setdefault(
                gate.metric,
                f"no such metric was measured of both models; there are: {', '.join(known)}",
            )
        return reasons


def _half(metric: Metric) -> float:
    """Half of the 95% interval, relative to the value."""
    if metric.ci95 is None or not metric.value:
        return 0.0
    return abs((metric.ci95[1] - metric.ci95[0]) / 2 / metric.value)


def case_of(
    run: Run,
    roles: Roles | None,
    comparisons: Sequence[Comparison],
    baseline: str | None = None,
    candidate: str | None = None,
) -> Case | str:
    """The comparison that a report makes, or why there is none.

    Args:
        run: The run.
        roles: What is quality and what is cost.
        comparisons: Candidates against the baselines at equal cost.
        baseline: Name of the production model; by default `report.baseline`, then the backbone, then the best baseline.
        candidate: Rank or the beginning of a fingerprint; by default the candidate with the best verdict.

    Raises:
        RunFolderError: There is no such candidate or baseline.
    """
    settings = run.settings
    baseline = baseline or settings.baseline
    if roles is None or not run.summary.pareto:
        given = f" (asked for candidate {candidate})" if candidate else ""
        return f"the search has no candidate yet{given}: let it finish a trial, then write the report again."
    quality = roles.quality.name
    models = [b for b in run.summary.baselines if quality in b.metrics and b.fingerprint]
    if not models:
        return "no baseline was measured: search with runner.baselines=true, or add one (python -m rankitect.baseline)."
    production, how = _production(models, roles, baseline)
    gates = {name: gate for name, gate in settings.gates.items() if gate is not None}
    evidence = load_evidence(run.folder)
    known = set() if evidence is None else set(evidence.losses)

    def made(one: Candidate) -> Case:
        both = {one.fingerprint, production.fingerprint} <= known
        return Case(run, roles, one, production, evidence if both else None, gates, how)

    found = [c for c in run.summary.pareto if quality in c.metrics]
    if candidate is not None:
        return made(_candidate(run, candidate))
    if not found:
        return f"no candidate has {quality}."
    gains = {c.point.rank: c.gain for c in comparisons}
    order = [Verdict.SHIP, Verdict.HOLD, Verdict.REJECT]
    cases = [made(c) for c in found]
    return min(cases, key=lambda c: (order.index(c.verdict), -gains.get(c.candidate.rank, -math.inf), c.candidate.rank))


def _production(models: Sequence[Baseline], roles: Roles, name: str | None) -> tuple[Baseline, str]:
    if name is not None:
        same = [b for b in models if name in (b.name, b.name.replace("_", " "))]
        if not same:
            raise RunFolderError(
                f"There is no baseline '{name}' in this run: {', '.join(b.name for b in models)}. Add one with python "
                "-m rankitect.baseline add, and repeat the search's command to have it measured."
            )
        return same[-1], "named in the configuration or on the command line"
    if roles.backbone is not None and roles.backbone in models:
        return roles.backbone, "the backbone; no baseline is named as production (report.baseline)"
    best = min(models, key=lambda b: -roles.sign * float(b.metrics[roles.quality.name].value or 0))
    return best, "the best baseline on the test data; none is named as production (report.baseline)"


def _candidate(run: Run, wanted: str) -> Candidate:
    for one in run.summary.pareto:
        if wanted == str(one.rank) or (len(wanted) >= 6 and one.fingerprint.startswith(wanted)):
            return one
    known = ", ".join(f"{c.rank} ({c.fingerprint[:8]})" for c in run.summary.pareto)
    raise RunFolderError(f"There is no candidate '{wanted}' on this run's front: {known}.")


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
    text = "; ".join(parts) or f"all of {plural(len(deciding), 'gate')} passed"
    return Card(
        "launch",
        _LAUNCH,
        f"{case.verdict.value.capitalize()}: {ours} ({case.candidate.fingerprint[:8]}) against {theirs}; {text}.",
        how_to_read=(
            "Gates are part of the search's configuration, which cannot be changed under a run that has begun. A gate "
            "passes when the whole 95% interval is within its bound and fails when all of it is outside. Ship to A/B: "
            "every required gate passes. Reject: one fails. Hold: measure more (seeds, rows), or the missing ones. "
            f"Production is {case.chosen}. The candidate was chosen from the front; its gain is a little flattered by "
            "that choice."
        ),
        status=_STATUS[case.verdict],
        reason=text,
        tables=(
            Table(
                ("Gate", "Outcome", "Found", "Condition"),
                tuple(_gate_row(case, r) for r in case.results),
                sortable=False,
            ),
        ),
    )


def _gate_row(case: Case, result: GateResult) -> tuple[Cell, ...]:
    gate, found = result.gate, result.observed
    signed = gate.of == "change"
    name = {"quality": case.roles.quality.name, "cost": case.roles.cost.name if case.roles.cost else "cost"}
    shown = readable_name(name.get(gate.metric, gate.metric))
    condition = f"{shown}{' against production' if signed else ''}: {gate.bound_text(signed)}"
    text: Cell = Cell("–", note=result.reason)
    if found is not None:
        ends = (signed_percent(found.value), signed_percent(found.low), signed_percent(found.high))
        value, low, high = ends if signed else (compact(found.value), compact(found.low), compact(found.high))
        text = Cell(value, found.value, note="" if found.low == found.high else f"{low} to {high}")
    word = _WORDS[result.outcome] + ("" if gate.required else " (decides nothing)")
    return Cell(result.name), Cell(word, result.outcome.value, tone=_TONES[result.outcome]), text, Cell(condition)


def quality_card(case: Case | str) -> Card:
    """By how much the quality differs, with the spread over rows and that over training seeds apart."""
    title = "Quality against production"
    if isinstance(case, str):
        return Card("quality", title, "There is no production comparison.", reason=case)
    ours, theirs = case.names
    objective = case.roles.quality
    name = readable_name(objective.name).lower()
    found = case.change
    rows = [_metric_row(case, n) for n in _qualities(case)]
    tables = [Table(("Metric", *case.titles, "Change"), tuple(rows), sortable=False)]
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
        f"interval {signed_percent(found.low)} to {signed_percent(found.high)}{sure}.",
        how_to_read=(
            f"Both models are measured on the same {found.rows:,} {_rows_word(case)}, so that what is hard for both "
            f"cancels out{_clusters_text(case, found)}. A model is one draw of its training seed: a retrained one "
            "differs by the spread over seeds. Smaller is better for log-loss, normalized entropy, perplexity and bits "
            "per byte, larger for AUC."
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
    return f"; rows of the same of {found.clusters:,} {what} are alike, and the interval knows it"


def _qualities(case: Case) -> list[str]:
    wanted = (case.roles.quality.name, "log_loss", "auc", "perplexity", "bits_per_byte", "calibration")
    return [n for n in dict.fromkeys(wanted) if n in case.candidate.metrics and n in case.production.metrics]


def _metric_row(case: Case, name: str) -> tuple[Cell, ...]:
    ours, theirs = case.candidate.metrics[name], case.production.metrics[name]
    value = case.relative(name)
    if name == case.roles.quality.name and case.change is not None:
        value = Observed(case.change.value, case.change.low, case.change.high)
    relative = Cell("–")
    if value is not None:
        paired = case.change is not None and name == case.roles.quality.name
        note = f"{signed_percent(value.low)} to {signed_percent(value.high)}, paired" if paired else ""
        relative = Cell(signed_percent(value.value), value.value, note=note)
    return Cell(readable_name(name)), _value_cell(ours), _value_cell(theirs), relative


def _value_cell(metric: Metric) -> Cell:
    note = "" if metric.ci95 is None else " to ".join(as_value(e, metric.unit) for e in metric.ci95)
    return Cell(as_value(metric.value, metric.unit), metric.value, note=note)


def _spread_table(case: Case, found: Change) -> Table:
    sampling = Cell(f"±{100 * found.sampling:.2g}%", found.sampling)
    seeds = Cell(f"{found.seeds[0]} and {found.seeds[1]} seeds")
    if found.seeding is None:
        seeding = Cell("unknown", note="one seed each")
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
