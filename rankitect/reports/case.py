"""What is compared in a production comparison: the candidate, the live model, the gates, and what they find."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from rankitect.errors import RunFolderError
from rankitect.metrics.intervals import around
from rankitect.production.calibration import calibration_ratio
from rankitect.production.change import Change, SliceChange, change, changes_by_slice
from rankitect.production.evidence import Evidence
from rankitect.production.gates import GateResult, Observed, Outcome, Verdict, judge, verdict_of
from rankitect.production.settings import GateConfig
from rankitect.reports.comparison import Comparison
from rankitect.reports.roles import Roles
from rankitect.reports.run import Run
from rankitect.study.summary import BaselineSummary, CandidateSummary, MetricSummary, candidate_of

__all__ = ["Case", "case_of"]

_NAMED = "named in the configuration or on the command line"


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
    candidate: CandidateSummary
    production: BaselineSummary
    evidence: Evidence | None
    gates: Mapping[str, GateConfig]
    chosen: str

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
        results = judge(self.gates, observed, missing)
        if self.change is None or min(self.change.seeds) > 1:
            return results
        # Without a second seed nobody knows how far a retrained model would differ: that is no pass.
        unsure = {"quality", "worst_slice", self.roles.quality.name}
        reason = "one training seed: what another would give is not known (confirm.seeds)"
        return [
            replace(r, outcome=Outcome.OPEN, reason=reason)
            if r.outcome is Outcome.PASS and r.gate.of == "change" and r.gate.metric in unsure
            else r
            for r in results
        ]

    @cached_property
    def verdict(self) -> Verdict:
        """What is advised."""
        verdict = verdict_of(self.results)
        # Unless somebody named it, nobody knows whether the live model is the one that was compared.
        doubt = self.run.summary.left_out and self.chosen != _NAMED
        return Verdict.HOLD if doubt and verdict is Verdict.SHIP else verdict

    def relative(self, name: str) -> Observed | None:
        """The relative change of a metric without rows; None where one of both has none."""
        ours, theirs = self.candidate.metrics.get(name), self.production.metrics.get(name)
        if ours is None or theirs is None or not theirs.value:
            return None
        value = ours.value / theirs.value - 1
        if ours.ci95 is None and theirs.ci95 is None:
            return Observed.exact(value)
        # Unpaired: relative errors of independent values add up as squares.
        return _times(value, math.hypot(_half(ours), _half(theirs)))

    def _observed(self) -> tuple[dict[tuple[str, str], Observed], dict[str, str]]:
        """What the gates look at, by metric and "change" or "value"; and why what else they may name is missing."""
        observed: dict[tuple[str, str], Observed] = {}
        for name, metric in self.candidate.metrics.items():
            low, high = metric.ci95 or (metric.value, metric.value)
            observed[name, "value"] = Observed(metric.value, low, high)
            if (relative := self.relative(name)) is not None:
                observed[name, "change"] = relative
        observed |= self._paired()
        for role, objective in (("quality", self.roles.quality), ("cost", self.roles.cost)):
            for of in ("change", "value"):
                if objective is not None and (objective.name, of) in observed:
                    observed[role, of] = observed[objective.name, of]
        tested = [s.change for s in self.slices if s.change is not None]
        if tested:
            ends = max(c.value for c in tested), max(c.low for c in tested), max(c.high for c in tested)
            observed["worst_slice", "change"] = Observed(*ends)
        return observed, self._missing()

    def _paired(self) -> dict[tuple[str, str], Observed]:
        """What the rows of the test data say; nothing where the run has none."""
        if self.evidence is None or self.change is None:
            return {}
        whole = Observed(self.change.value, self.change.low, self.change.high)
        observed = {(self.evidence.metric, "change"): whole}
        if self.evidence.labels is not None:
            # The same rows give log-loss and normalized entropy the same relative change, and no other metric.
            observed["log_loss", "change"] = whole
            ours, theirs = (calibration_ratio(self.evidence, f) for f in self.prints)
            observed["calibration", "value"] = Observed(ours.value, *ours.interval())
            # As if independent: wider than it is, as both are of the same rows.
            error = 1.96 * math.hypot(ours.error / ours.value, theirs.error / theirs.value)
            observed["calibration", "change"] = _times(ours.value / theirs.value - 1, error)
        return {key: value for key, value in observed.items() if key[0] in (*self.candidate.metrics, "calibration")}

    def _missing(self) -> dict[str, str]:
        no_rows = "the run has no rows of both models: repeat the search's command (log.txt says where they were lost)"
        known = sorted({*self.candidate.metrics, *self.production.metrics})
        reasons = {
            "calibration": no_rows if self.evidence is None else f"{self.evidence.examples} have none",
            "worst_slice": no_rows if self.evidence is None else "the rows have no slices with enough rows",
            "cost": "the search has no objective that is a cost: name the metric in the gate",
        }
        for gate in self.gates.values():
            reasons.setdefault(
                gate.metric,
                f"no such metric was measured of both models; there are: {', '.join(known)}",
            )
        return reasons


def _times(change: float, error: float) -> Observed:
    """A relative change whose ratio has this relative 95% error, on the logarithmic scale: it stays above -100%."""
    low, high = sorted(end - 1 for end in around(1 + change, error))
    return Observed(change, low, high)


def _half(metric: MetricSummary) -> float:
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
        baseline: Name of the production model; by default `report.baseline`, then the newest one of the registry, then
            the reference model, then the best baseline.
        candidate: Rank or the beginning of a fingerprint; by default the candidate with the best verdict, the
            production model itself apart.

    Raises:
        RunFolderError: There is no such candidate or baseline.
    """
    settings = run.settings  # whatever else is missing, a damaged configuration is said
    if roles is None or not run.summary.pareto:
        given = f" (asked for candidate {candidate})" if candidate else ""
        return f"the search has no candidate yet{given}: let it finish a trial, then write the report again."
    quality = roles.quality.name
    models = [b for b in run.summary.baselines if quality in b.metrics]
    if not models:
        return "no baseline was measured: search with runner.baselines=true, or add one (python -m rankitect.baseline)."
    try:
        production, how = _production(models, roles, baseline or settings.baseline)
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


def _case(run: Run, roles: Roles, candidate: CandidateSummary, production: BaselineSummary, how: str) -> Case:
    """One candidate and the production model, with the rows of the test data where the run has those of both."""
    gates = {name: gate for name, gate in run.settings.gates.items() if gate is not None}
    evidence = run.evidence
    both = evidence is not None and {candidate.fingerprint, production.fingerprint} <= set(evidence.losses)
    return Case(run, roles, candidate, production, evidence if both else None, gates, how)


def _production(models: Sequence[BaselineSummary], roles: Roles, name: str | None) -> tuple[BaselineSummary, str]:
    """The model to replace, and how it was chosen."""
    if name is not None:
        # A model that somebody registered under the name of a known one is what is meant by it.
        same = [b for b in models if b.registered is not None and b.name.rpartition(" v")[0] == name]
        same = same or [b for b in models if name in (b.name, b.name.replace("_", " "))]
        if not same:
            raise RunFolderError(
                f"There is no baseline '{name}' in this run: {', '.join(b.name for b in models)}. Add one with python "
                "-m rankitect.baseline add, and repeat the search's command to have it measured."
            )
        return same[-1], _NAMED
    live = [b for b in models if b.registered is not None and b.registered.live]
    if live:
        newest = max(live, key=lambda b: b.registered.added if b.registered else "")
        return newest, "the newest registered production model (rankitect.baseline)"
    if roles.reference is not None and roles.reference in models:
        return roles.reference, f"the {roles.reference.name}; no baseline is named as production (report.baseline)"
    best = min(models, key=lambda b: -roles.sign * b.metrics[roles.quality.name].value)
    return best, "the best baseline on the test data; none is named as production (report.baseline)"
