"""What is compared in a production comparison: the candidate, the live model, the gates, and what they find."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from rankitect.errors import RunFolderError
from rankitect.production.calibration import calibration_ratio
from rankitect.production.change import Change, SliceChange, change, changes_by_slice
from rankitect.production.doubts import Doubt
from rankitect.production.evidence import Evidence
from rankitect.production.gates import GateResult, Observed, Outcome, Verdict, judge, verdict_of
from rankitect.production.settings import LATENCY, PROGRAM, SPECIAL_METRICS, GateConfig
from rankitect.reports.comparison import Comparison
from rankitect.reports.doubts import doubts_of
from rankitect.reports.latencies import LatencyChange, latency_changes, measured_latencies, program_quality
from rankitect.reports.rivals import Rival, Standing, production_of, relative_change, rivals_of, times
from rankitect.reports.roles import Roles
from rankitect.reports.run import Run
from rankitect.study.summary import BaselineSummary, CandidateSummary, candidate_of

__all__ = ["Case", "case_of"]

_OVER_ROWS = "over the rows of one training seed"


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
        standing: Why it is the production model.
    """

    run: Run
    roles: Roles
    candidate: CandidateSummary
    production: BaselineSummary
    evidence: Evidence | None
    gates: Mapping[str, GateConfig]
    standing: Standing

    @property
    def prints(self) -> tuple[str, str]:
        """Fingerprints of both."""
        return self.candidate.fingerprint, self.production.fingerprint

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

    @property
    def paired(self) -> bool:
        """Whether the rows say how the quality itself changes."""
        return self.change is not None and self.evidence is not None and self.roles.quality.name == self.evidence.metric

    @cached_property
    def slices(self) -> list[SliceChange]:
        """The change in every slice, the worst first."""
        return [] if self.evidence is None else changes_by_slice(self.evidence, *self.prints)

    @cached_property
    def results(self) -> list[GateResult]:
        """What came of each gate."""
        observed, missing = self._observed()
        results = [self._applied(result) for result in judge(self.gates, observed, missing)]
        results = [replace(r, outcome=Outcome.OPEN, reason=why) if (why := self._unsure(r)) else r for r in results]
        return [replace(r, reason=_OVER_ROWS) if self._of_one_seed(r) else r for r in results]

    def _applied(self, result: GateResult) -> GateResult:
        """A gate on something that the search does not measure decides nothing, where it is meant so."""
        metric = result.gate.metric
        known = metric in (*SPECIAL_METRICS, *self.candidate.metrics)
        if metric in (LATENCY, PROGRAM):
            known = self._timed if metric == LATENCY else self._program_change is not None
        idle = result.outcome is Outcome.MISSING and result.gate.if_measured and not known
        reason = {LATENCY: "none is measured (device=host)", PROGRAM: self._no_program}.get(
            metric, "this search does not measure it"
        )
        return replace(result, outcome=Outcome.NA, reason=reason) if idle else result

    @cached_property
    def latencies(self) -> list[LatencyChange]:
        """The latencies that are known of both models."""
        return latency_changes(self.run, self.candidate, self.production)

    @property
    def _timed(self) -> bool:
        """Whether a latency of the candidate is known."""
        predicted = any(name.endswith("_ms") and m.role == "cost" for name, m in self.candidate.metrics.items())
        return predicted or bool(measured_latencies(self.run, self.candidate))

    def _unsure(self, result: GateResult) -> str:
        """Why a gate that its numbers would pass is not passed; "" where it is, or was not passed anyway."""
        if result.outcome is not Outcome.PASS:
            return ""
        if result.gate.metric == LATENCY and not all(latency.trusted for latency in self.latencies):
            return "a timing did not settle or met a busy machine: repeat it on a quiet one"
        if any(doubt.severe for doubt in self.doubts) and not self.is_cost(result.gate.metric):
            return "the data are in doubt: see Warnings"
        return ""

    def _of_one_seed(self, result: GateResult) -> bool:
        """Whether a gate passes by the rows alone: nobody knows how far a model of another seed would differ."""
        if result.outcome is not Outcome.PASS or result.gate.of != "change" or self.change is None:
            return False
        return min(self.change.seeds) < 2 and result.gate.metric in ("quality", "worst_slice", self.roles.quality.name)

    @property
    def single_seed(self) -> bool:
        """Whether a gate that decides passes by the rows of one training seed: launching waits for another."""
        return any(r.gate.required and self._of_one_seed(r) for r in self.results)

    def is_cost(self, metric: str) -> bool:
        """Whether a gate's metric is a cost, which no doubt about the data touches."""
        known = self.candidate.metrics.get(metric)
        return metric in ("cost", LATENCY, PROGRAM) or (known is not None and known.role == "cost")

    @cached_property
    def doubts(self) -> list[Doubt]:
        """What is doubtful about the data, the severe first."""
        return doubts_of(self.run, self.roles, self.evidence or self.run.evidence, self.candidate, self.production)

    @cached_property
    def verdict(self) -> Verdict:
        """What is advised."""
        verdict = verdict_of(self.results)
        doubtful = self.unknown or self.single_seed or any(doubt.severe for doubt in self.doubts)
        return Verdict.HOLD if doubtful and verdict is Verdict.SHIP else verdict

    def relative(self, name: str) -> Observed | None:
        """The relative change of a metric, in pairs where both models answered the same questions; None where one of
        both has none."""
        table = self.run.answers.get(name)
        paired = None if table is None else table.change(*self.prints)
        return paired or relative_change(self.candidate.metrics, self.production.metrics, name)

    @cached_property
    def rivals(self) -> list[Rival]:
        """The production model, the registered live model and the best baseline, with the change over each."""
        production, evidence = (self.production, self.standing), self.evidence or self.run.evidence
        table = self.run.answers.get(self.roles.quality.name)
        return rivals_of(self.candidate, production, self.run.summary.baselines, self.roles, evidence, table)

    @property
    def unknown(self) -> list[str]:
        """Models that may be what is live and that nobody could compare with; none where somebody named what is."""
        if self.standing is Standing.NAMED:
            return []
        lost = [r.name for r in self.rivals if Standing.LIVE in r.standings and r.change is None]
        return [*self.run.summary.left_out, *lost]

    def _observed(self) -> tuple[dict[tuple[str, str], Observed], dict[str, str]]:
        """What the gates look at, by metric and "change" or "value"; and why what else they may name is missing."""
        observed: dict[tuple[str, str], Observed] = {}
        for name, metric in self.candidate.metrics.items():
            low, high = metric.ci95 or (metric.value, metric.value)
            vague = metric.ci95 is not None and metric.interval is None
            observed[name, "value"] = Observed(metric.value, low, high, vague)
            if (relative := self.relative(name)) is not None:
                observed[name, "change"] = relative
        observed |= self._paired()
        for role, objective in (("quality", self.roles.quality), ("cost", self.roles.cost)):
            for of in ("change", "value"):
                if objective is not None and (objective.name, of) in observed:
                    observed[role, of] = observed[objective.name, of]
        if self.roles.sign > 0 and (gained := observed.get(("quality", "change"))) is not None:
            # A gate on the quality bounds how much worse it may be: of what is better the more, the loss.
            observed["quality", "change"] = Observed(-gained.value, -gained.high, -gained.low, gained.vague)
        tested = [s.change for s in self.slices if s.change is not None]
        for name, changes in (("worst_slice", tested), (LATENCY, [latency.change for latency in self.latencies])):
            if changes:
                ends = max(c.value for c in changes), max(c.low for c in changes), max(c.high for c in changes)
                observed[name, "change"] = Observed(*ends, any(c.vague for c in changes))
        if self._program_change is not None:
            observed[PROGRAM, "change"] = Observed.exact(self._program_change)
        return observed, self._missing()

    @cached_property
    def _program_change(self) -> float | None:
        """By how much the candidate's program is worse than the model in floats."""
        quality = program_quality(self.run, self.candidate)
        return None if quality is None else quality.change

    @property
    def _no_program(self) -> str:
        """Why that is not known, where it is not."""
        if program_quality(self.run, self.candidate) is None:
            return "no program was exported whose quality was measured (device=host)"
        return "the candidate's program was compared with no model in floats: end the recipe in a stage export"

    def _paired(self) -> dict[tuple[str, str], Observed]:
        """What the rows of the test data say; nothing where the run has none."""
        if self.evidence is None or self.change is None:
            return {}
        whole = Observed(self.change.value, self.change.low, self.change.high, self.change.vague)
        observed = {(self.evidence.metric, "change"): whole}
        if self.evidence.labels is not None:
            # The same rows give log-loss and normalized entropy the same relative change, and no other metric.
            observed["log_loss", "change"] = whole
            ours, theirs = (calibration_ratio(self.evidence, f) for f in self.prints)
            observed["calibration", "value"] = Observed(ours.value, *ours.interval(), ours.vague)
            # As if independent: wider than it is, as both are of the same rows.
            error = 1.96 * math.hypot(ours.error / ours.value, theirs.error / theirs.value)
            observed["calibration", "change"] = times(ours.value / theirs.value - 1, error, ours.vague or theirs.vague)
        return {key: value for key, value in observed.items() if key[0] in (*self.candidate.metrics, "calibration")}

    def _missing(self) -> dict[str, str]:
        no_rows = "the run has no rows of both models: repeat the search's command (log.txt says where they were lost)"
        production = self.names[1]
        known = sorted({*self.candidate.metrics} & {*self.production.metrics})
        reasons = {
            "calibration": no_rows if self.evidence is None else f"{self.evidence.examples} have none",
            "worst_slice": no_rows if self.evidence is None else "the rows have no slices with enough rows",
            "cost": "the search has no objective that is a cost: name the metric in the gate",
            PROGRAM: self._no_program,
            LATENCY: f"that of {production} is not known" if self._timed else "none is measured (device=host)",
        }
        if self.roles.cost is not None:
            del reasons["cost"]
        for gate in self.gates.values():
            unknown = f"no such metric was measured of both models; there are: {', '.join(known)}"
            if self.production.logged and self.is_cost(gate.metric):
                unknown = f"not known: {production} has no costs (of: value bounds the candidate's own)"
            reasons.setdefault(gate.metric, unknown)
        return reasons


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
        baseline: Name of the production model; by default `report.baseline`, then the newest one of the registry, then
            the logged scores of production, then the reference model, then the best baseline by validation.
        candidate: Rank or the beginning of a fingerprint; by default the candidate with the best verdict, the
            production model itself apart.

    Raises:
        RunFolderError: There is no such candidate or baseline.
    """
    settings = run.settings  # whatever else is missing, a damaged configuration is said
    if roles is None:
        return "the summary names no objective: there is nothing to compare by."
    if not run.summary.pareto:
        given = f" (asked for candidate {candidate})" if candidate else ""
        return f"the search has no candidate yet{given}: let it finish a trial, then write the report again."
    quality = roles.quality.name
    models = [b for b in run.summary.baselines if quality in b.metrics]
    if not models:
        return no_baseline(run, quality)
    try:
        production, how = production_of(models, roles, baseline or settings.baseline)
    except RunFolderError as error:
        if baseline is not None:
            raise
        return f"{error} (report.baseline)"  # the rest of the report is no worse for it
    candidates = [c for c in run.summary.pareto if quality in c.metrics]
    if candidate is not None:
        candidates = [candidate_of(run.summary.pareto, candidate, run.folder)]
    if not candidates:
        return f"no candidate has {quality}."
    others = [c for c in candidates if c.fingerprint != production.fingerprint]
    if not others:
        same = f"candidate {candidates[0].rank} is the production model itself ({production.name})"
        return f"{same}: there is nothing to launch."
    gains = {c.point.rank: c.gain for c in comparisons}
    order = [Verdict.SHIP, Verdict.HOLD, Verdict.REJECT]
    cases = [_case(run, roles, one, production, how) for one in others]
    return min(cases, key=lambda c: (order.index(c.verdict), -gains.get(c.candidate.rank, -math.inf), c.candidate.rank))


def _case(run: Run, roles: Roles, candidate: CandidateSummary, production: BaselineSummary, how: Standing) -> Case:
    """One candidate and the production model, with the rows of the test data where the run has those of both."""
    gates = {name: gate for name, gate in run.settings.gates.items() if gate is not None}
    evidence = run.evidence
    both = evidence is not None and {candidate.fingerprint, production.fingerprint} <= set(evidence.losses)
    return Case(run, roles, candidate, production, evidence if both else None, gates, how)


def no_baseline(run: Run, quality: str) -> str:
    """Why no baseline has the quality, and what to do about it."""
    if run.summary.baselines:
        return f"no baseline has a value of {quality}: see the candidates' table."
    if run.summary.left_out:
        return f"no baseline could be measured ({', '.join(run.summary.left_out)}): log.txt says why."
    if not run.baselines_wanted:
        return "no baseline was measured: search with runner.baselines=true, or add one (python -m rankitect.baseline)."
    return "the task names no baseline: add one (python -m rankitect.baseline add)."
