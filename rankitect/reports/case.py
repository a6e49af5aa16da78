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
from rankitect.reports.comparison import Comparison, Roles
from rankitect.reports.reading import Baseline, Candidate, Metric, Run
from rankitect.study.summary import candidate_of

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
        found = judge(self.gates, observed, missing)
        if self.change is None or min(self.change.seeds) > 1:
            return found
        # Without a second seed nobody knows how far a retrained model would differ: that is no pass.
        unsure = {"quality", "worst_slice", self.roles.quality.name}
        reason = "one training seed: what another would give is not known (confirm.seeds)"
        return [
            replace(r, outcome=Outcome.OPEN, reason=reason)
            if r.outcome is Outcome.PASS and r.gate.of == "change" and r.gate.metric in unsure
            else r
            for r in found
        ]

    @cached_property
    def verdict(self) -> Verdict:
        """What is advised."""
        found = verdict_of(self.results)
        # Whether the live model is the one that was compared nobody knows, unless somebody said so.
        doubt = self.run.summary.left_out and self.chosen != _NAMED
        return Verdict.HOLD if doubt and found is Verdict.SHIP else found

    def relative(self, name: str) -> Observed | None:
        """The relative change of a metric without rows; None where one of both has none."""
        ours, theirs = self.candidate.metrics.get(name), self.production.metrics.get(name)
        if ours is None or theirs is None or ours.value is None or not theirs.value:
            return None
        value = ours.value / theirs.value - 1
        if ours.ci95 is None and theirs.ci95 is None:
            return Observed.exact(value)
        # Unpaired: relative errors of independent values add up as squares.
        return _times(value, math.hypot(_half(ours), _half(theirs)))

    def _observed(self) -> tuple[dict[tuple[str, str], Observed], dict[str, str]]:
        found: dict[tuple[str, str], Observed] = {}
        for name, metric in self.candidate.metrics.items():
            if metric.value is not None:
                low, high = metric.ci95 or (metric.value, metric.value)
                found[name, "value"] = Observed(metric.value, low, high)
            if (relative := self.relative(name)) is not None:
                found[name, "change"] = relative
        if self.change is not None and self.evidence is not None:
            # The same rows give log-loss and normalized entropy the same relative change, and no other metric.
            for name in (self.evidence.metric, *(["log_loss"] if self.evidence.of_clicks else [])):
                if name in self.candidate.metrics:
                    found[name, "change"] = Observed(self.change.value, self.change.low, self.change.high)
        for role, objective in (("quality", self.roles.quality), ("cost", self.roles.cost)):
            for of in ("change", "value"):
                if objective is not None and (objective.name, of) in found:
                    found[role, of] = found[objective.name, of]
        if self.evidence is not None and self.evidence.of_clicks:
            ours, theirs = (calibration_ratio(self.evidence, f) for f in self.prints)
            found["calibration", "value"] = Observed(ours.value, *ours.interval())
            # As if independent: wider than it is, as both are of the same rows.
            error = 1.96 * math.hypot(ours.error / ours.value, theirs.error / theirs.value)
            found["calibration", "change"] = _times(ours.value / theirs.value - 1, error)
        tested = [s.change for s in self.slices if s.change is not None]
        if tested:
            ends = max(c.value for c in tested), max(c.low for c in tested), max(c.high for c in tested)
            found["worst_slice", "change"] = Observed(*ends)
        return found, self._missing()

    def _missing(self) -> dict[str, str]:
        no_rows = "the run has no rows of both models: repeat the search's command (log.txt says where they were lost)"
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


def _times(change: float, error: float) -> Observed:
    """A relative change whose ratio has this relative 95% error, on the logarithmic scale: it stays above -100%."""
    low, high = sorted(end - 1 for end in around(1 + change, error))
    return Observed(change, low, high)


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
        baseline: Name of the production model; by default `report.baseline`, then the newest one of the registry, then
            the backbone, then the best baseline.
        candidate: Rank or the beginning of a fingerprint; by default the candidate with the best verdict, the
            production model itself apart.

    Raises:
        RunFolderError: There is no such candidate or baseline.
    """
    settings = run.settings
    if roles is None or not run.summary.pareto:
        given = f" (asked for candidate {candidate})" if candidate else ""
        return f"the search has no candidate yet{given}: let it finish a trial, then write the report again."
    quality = roles.quality.name
    models = [b for b in run.summary.baselines if quality in b.metrics and b.fingerprint]
    if not models:
        return "no baseline was measured: search with runner.baselines=true, or add one (python -m rankitect.baseline)."
    try:
        production, how = _production(models, roles, baseline or settings.baseline)
    except RunFolderError as error:
        if baseline is not None:
            raise
        return f"{error} (report.baseline)"  # the rest of the report is no worse for it
    gates = {name: gate for name, gate in settings.gates.items() if gate is not None}
    evidence = run.evidence
    known = set() if evidence is None else set(evidence.losses)

    def made(one: Candidate) -> Case:
        both = {one.fingerprint, production.fingerprint} <= known
        return Case(run, roles, one, production, evidence if both else None, gates, how)

    found = [c for c in run.summary.pareto if quality in c.metrics]
    if candidate is not None:
        found = [candidate_of(run.summary.pareto, candidate, run.folder)]
    if not found:
        return f"no candidate has {quality}."
    live = [c for c in found if c.fingerprint == production.fingerprint]
    found = [c for c in found if c not in live]
    if not found:
        same = f"candidate {live[0].rank} is the production model itself ({production.name})"
        return f"{same}: there is nothing to launch."
    gains = {c.point.rank: c.gain for c in comparisons}
    order = [Verdict.SHIP, Verdict.HOLD, Verdict.REJECT]
    cases = [made(c) for c in found]
    return min(cases, key=lambda c: (order.index(c.verdict), -gains.get(c.candidate.rank, -math.inf), c.candidate.rank))


def _production(models: Sequence[Baseline], roles: Roles, name: str | None) -> tuple[Baseline, str]:
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
    if roles.backbone is not None and roles.backbone in models:
        return roles.backbone, "the backbone; no baseline is named as production (report.baseline)"
    best = min(models, key=lambda b: -roles.sign * float(b.metrics[roles.quality.name].value or 0))
    return best, "the best baseline on the test data; none is named as production (report.baseline)"
