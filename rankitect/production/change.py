"""By how much a candidate's quality differs from production's: relative, paired, clustered, over training seeds.

The relative change of normalized entropy is that of the mean log-loss, as both models are divided by the entropy of
the same rows. It is found in the logarithm, as perplexity's is, so that no interval reaches below -100%. Its error is
that of a ratio of means (delta method), robust to clusters of rows that are alike, with the spread over training seeds
on top (`rankitect.metrics.intervals`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankitect.metrics.intervals import Estimate, mean_estimate, seeded_estimate
from rankitect.production.evidence import Evidence, Slicing

__all__ = ["Change", "SliceChange", "change", "changes_by_slice", "changes_by_time", "heterogeneity"]

CONFIDENCE = 0.95
FEWEST = 100
"""Rows that a slice needs to be tested."""
_ENOUGH = 0.8
"""Share of the rows that must be in testable days, or weeks, for the change to be shown by these."""
_LEAST = 1e-300
"""Mean loss whose logarithm stands for that of 0."""


@dataclass(frozen=True)
class Change:
    """A relative difference in a quality of which less is better; below 0 the candidate is better.

    Attributes:
        value: Candidate over production, minus 1.
        low: Lower end of the interval.
        high: Upper end.
        p_value: Two-sided p-value of the hypothesis that there is no difference.
        sampling: Standard error over rows (or their clusters).
        seeding: Standard error over training seeds; None where a model has but one.
        rows: Rows.
        clusters: Clusters of rows that are alike; None where each row stands alone.
        seeds: Training seeds of the candidate and of production.
        vague: Whether the interval rests on two seeds or two clusters: it is then not worth showing.
    """

    value: float
    low: float
    high: float
    p_value: float
    sampling: float
    seeding: float | None
    rows: int
    clusters: int | None
    seeds: tuple[int, int]
    vague: bool = False

    @property
    def separated(self) -> bool:
        """Whether the interval excludes no difference."""
        return self.low > 0 or self.high < 0


def change(
    evidence: Evidence,
    candidate: str,
    production: str | Mapping[str, float],
    rows: NDArray[np.bool_] | None = None,
    confidence: float = CONFIDENCE,
) -> Change:
    """The relative change of the evidence's metric.

    Args:
        evidence: The rows.
        candidate: Fingerprint.
        production: Fingerprint; or shares of several models, by fingerprint, whose qualities' geometric mean it is.
        rows: Which rows to use, [N]; all when None.
        confidence: Confidence of the interval.

    Raises:
        KeyError: The rows know no such model.
    """
    if evidence.weights is not None:
        rows = (evidence.weights > 0) if rows is None else rows & (evidence.weights > 0)
    chosen = slice(None) if rows is None else rows
    weights = None if evidence.weights is None else evidence.weights[chosen]
    clusters = None if evidence.clusters is None else evidence.clusters[chosen]
    shares = {production: 1.0} if isinstance(production, str) else production
    # The logarithm of the ratio of two qualities is a difference, to which each row adds its influence. Both models see
    # the same rows, so what makes a row hard for both cancels out, and the interval is narrow.
    value, influence, runs = 0.0, np.zeros(1), []
    for share, name in [(1.0, candidate), *((-share, name) for name, share in shares.items())]:
        losses = evidence.losses[name][:, chosen].astype(np.float64)
        means = np.average(losses, axis=1, weights=weights)
        mean = max(float(means.mean()), _LEAST)  # a loss of 0 has no logarithm
        # Normalized entropy's logarithm is that of a mean, which a row moves by its part of it; perplexity's is a mean.
        log, below = (math.log(mean), mean) if evidence.of_clicks else (float(means.mean()), 1.0)
        value += share * log
        influence = influence + share * losses.mean(0) / below
        runs.append((share * means / below).tolist())
    over = mean_estimate(influence, clusters=clusters, weights=weights, value=value)
    if clusters is not None and len(np.unique(clusters)) < 2:
        over = Estimate(value, math.inf, 0.0)  # of one user nothing is known about others
    # The spread over training seeds comes on top: a candidate may be better because its seed was lucky.
    whole = seeded_estimate(over, *runs)
    ratio, low, high = (math.expm1(min(x, 700.0)) for x in (value, *whole.interval(confidence)))
    seeding = math.sqrt(max(0.0, whole.error**2 - over.error**2)) if all(len(run) > 1 for run in runs) else None
    return Change(
        value=ratio,
        low=low,
        high=high,
        p_value=_p_value(whole),
        sampling=(1 + ratio) * over.error,
        seeding=None if seeding is None else (1 + ratio) * seeding,
        rows=len(influence),
        clusters=None if clusters is None else len(np.unique(clusters)),
        seeds=(len(runs[0]), min(len(run) for run in runs[1:])),
        vague=whole.vague,
    )


def _p_value(estimate: Estimate) -> float:
    from scipy import stats

    if not math.isfinite(estimate.error):
        return 1.0
    if estimate.error == 0:
        return 1.0 if estimate.value == 0 else 0.0
    return float(2 * stats.t.sf(abs(estimate.value / estimate.error), estimate.freedom))


@dataclass(frozen=True)
class SliceChange:
    """A slice's change.

    Attributes:
        slicing: Name of the division.
        part: Name of the part.
        change: The change, with an interval wide enough for all slices together (Bonferroni); None below `FEWEST` rows.
        rows: Rows of the part.
        q_value: The p-value after Benjamini and Hochberg's correction (J. R. Stat. Soc. B 1995); None where not tested.
    """

    slicing: str
    part: str
    change: Change | None
    rows: int
    q_value: float | None = None

    @property
    def name(self) -> str:
        """Division and part."""
        return f"{self.slicing}: {self.part}"


def changes_by_slice(evidence: Evidence, candidate: str, production: str) -> list[SliceChange]:
    """The change in every slice, corrected for how many there are; the worst first, then what was not tested."""
    from scipy import stats

    counted = np.ones(evidence.rows, bool) if evidence.weights is None else evidence.weights > 0
    every = [(s, i, (s.codes == i) & counted) for s in evidence.slicings for i in range(len(s.parts))]
    sizes = [int(rows.sum()) for _, _, rows in every]
    tested = sum(size >= FEWEST for size in sizes)
    slices = []
    for (slicing, i, rows), size in zip(every, sizes, strict=True):
        part_change = None
        if size >= FEWEST:
            part_change = change(evidence, candidate, production, rows, 1 - (1 - CONFIDENCE) / tested)
        if size:
            slices.append(SliceChange(slicing.name, slicing.parts[i], part_change, size))
    # Among many slices some look bad by chance; the p-values are those of a false discovery rate (Benjamini-Hochberg).
    p_values = [s.change.p_value for s in slices if s.change is not None]
    corrected = iter(stats.false_discovery_control(p_values).tolist() if p_values else ())
    whole = [
        s if s.change is None else SliceChange(s.slicing, s.part, s.change, s.rows, next(corrected)) for s in slices
    ]
    return sorted(whole, key=lambda s: (s.change is None, 0.0 if s.change is None else -s.change.value))


PERIODS = ("day", "week", "month")


def changes_by_time(evidence: Evidence, candidate: str, production: str) -> list[SliceChange]:
    """The change in every day, week or month (the finest in most of which there are rows enough), in order; empty where
    days are not known. Weeks begin on Mondays and have their first day's name."""
    if evidence.days is None:
        return []
    counted = np.ones(evidence.rows, bool) if evidence.weights is None else evidence.weights > 0
    for period in PERIODS:
        begins, codes = np.unique(_begin(evidence.days, period), return_inverse=True)
        sizes = np.bincount(codes[counted], minlength=len(begins))
        if sizes[sizes >= FEWEST].sum() >= _ENOUGH * sizes.sum():
            break
    names = np.datetime_as_string(begins, unit="M" if period == "month" else "D").tolist()
    slices = []
    for i, (name, size) in enumerate(zip(names, sizes.tolist(), strict=True)):
        part_change = change(evidence, candidate, production, (codes == i) & counted) if size >= FEWEST else None
        slices.append(SliceChange(period, name, part_change, size))
    return slices


def _begin(days: NDArray[np.int64], period: str) -> NDArray[np.datetime64]:
    """The first day of each day's period."""
    if period == "week":
        days = (days + 3) // 7 * 7 - 3  # 1970-01-01 was a Thursday
    dates = days.astype("datetime64[D]")
    return dates.astype("datetime64[M]") if period == "month" else dates


def heterogeneity(changes: Sequence[Change]) -> float | None:
    """The p-value of Cochran's Q (Biometrics 1954): do these changes differ by more than their errors explain?

    Training seeds are common to all of them, so that only sampling errors count. None with fewer than two.
    """
    from scipy import stats

    usable = [c for c in changes if 0 < c.sampling < math.inf]
    if len(usable) < 2:
        return None
    values = np.array([c.value for c in usable])
    weights = np.array([c.sampling**-2 for c in usable])
    mean = float(np.average(values, weights=weights))
    return float(stats.chi2.sf(float(np.dot(weights, (values - mean) ** 2)), len(usable) - 1))


def slicing_of(name: str, codes: NDArray[np.int64], parts: Sequence[str], most: int) -> Slicing | None:
    """A slicing whose rarest parts are one ("other"); None where fewer than two parts have rows.

    Args:
        name: Name of the division.
        codes: Part of each row, [N]; -1 for none.
        parts: Names of all parts.
        most: Parts at most.
    """
    counts = np.bincount(codes[codes >= 0], minlength=len(parts))
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    if len(order) < 2:
        return None
    kept = sorted(order if len(order) <= most else order[: most - 1])
    place = np.full(len(parts) + 1, len(kept), np.int16)  # its last entry is that of -1
    place[-1] = -1
    place[kept] = np.arange(len(kept), dtype=np.int16)
    names = [parts[i] for i in kept] + (["other"] if len(order) > most else [])
    return Slicing(name, place[codes], tuple(names))
