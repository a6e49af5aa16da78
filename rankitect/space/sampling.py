"""Drawing architectures: uniformly over distinct ones, also within ranges of cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from rankitect.errors import SpaceError
from rankitect.space.costs import Costed
from rankitect.space.counting import Elimination, eliminate
from rankitect.space.distribution import Distribution
from rankitect.space.names import nearest, shown
from rankitect.space.tables import JointTable, TabulatedExpr

__all__ = ["sample_columns"]

BATCH = 2048
ROUNDS = 40
"""Rounds after which it is asked whether going on is worth it."""
LONGEST = 2000
"""Rounds at most."""
HOPELESS = 8
"""Rounds without any hit after which to stop."""
STEEPEST = 1e4
"""Bound of a tilt, over the full span of a cost: beyond it only the extreme architecture is left."""
NEWTON = 24
"""Steps to find the tilt of several costs."""
CLOSE = 0.5
"""Standard deviations from the aim at which a tilt is good enough."""
EDGES = (0.9, 0.98)
"""Where in a range the mean cost is aimed at, if the middle yields nothing: nearer to the end at which most of the
architectures inside are, as uniform draws lie there."""
ENOUGH = 0.02
"""Share of plain draws inside the ranges above which no tilt is needed."""

Columns = dict[str, np.ndarray]


def sample_columns(
    space: Costed, distribution: Distribution, n: int, rng: np.random.Generator, scope: str = "", **ranges: Any
) -> Columns:
    """Index columns of `n` independent draws, uniform over the distinct feasible architectures within `ranges`.

    Where few architectures are inside, proposals come from the distribution exp(lambda . cost), with lambda such that
    the mean costs are inside, and are thinned by exp(-lambda . cost): the result is uniform again.

    Args:
        space: The space.
        distribution: Its uniform distribution.
        n: Draws.
        rng: Decides them.
        scope: The part of the graph that costs without one of their own count.
        ranges: Bounds by cost, and values of free dimensions.

    Raises:
        SpaceError: A range is impossible, or yields so little that a bounded number of draws is not enough.
    """
    bounds, tables = _bounded(space, scope, ranges)
    spans = {k: _span(space, distribution, t) for k, t in tables.items()}
    _check_spans(space, bounds, spans)
    bounds = {k: _ends(b, spans[k]) for k, b in bounds.items()}
    parts: list[Columns] = []
    count, drawn, seen = 0, 0, {k: [math.inf, -math.inf] for k in bounds}
    tilt: dict[str, float] = {}
    proposal: Elimination | None = None
    begun, edges = 0, iter(EDGES)
    for round_ in range(LONGEST):
        columns = _propose(space, distribution, rng, proposal)
        kept = np.broadcast_to(space.feasible(columns), BATCH).copy()
        weight = np.zeros(BATCH)
        for kind, (low, high) in bounds.items():
            cost = tables[kind].evaluate(space.choices, columns, BATCH)
            if kept.any():
                seen[kind] = [min(seen[kind][0], cost[kept].min()), max(seen[kind][1], cost[kept].max())]
            kept = kept & (cost >= low) & (cost <= high)
            if slope := tilt.get(kind, 0.0):
                at = low if slope > 0 else high  # where the weight is largest, so that it is at most 1
                weight -= slope * (cost - at)
        # Thinning by exp(-tilt . (cost - at)) undoes the tilt of the proposals: what is left is uniform.
        kept &= np.log(rng.random(BATCH)) <= weight
        drawn += BATCH
        if kept.any():
            parts.append({p: c[kept] for p, c in columns.items()})
            count += int(kept.sum())
        if count >= n:
            break
        if round_ >= begun + HOPELESS and not count:
            edge = next(edges, None) if tilt and distribution.factors is not None else None
            if edge is None or distribution.factors is None:
                break
            leaning = {k: edge if slope < 0 else 1 - edge for k, slope in tilt.items()}
            tilt, proposal = _tilt(space, distribution.factors, tables, bounds, spans, rng, leaning)
            begun = round_ + 1
            continue
        if round_ + 1 >= ROUNDS and count * LONGEST < n * (round_ + 1):  # at this yield the rest would not be enough
            break
        if round_ == 0 and bounds and count < ENOUGH * BATCH and distribution.factors is not None:
            tilt, proposal = _tilt(space, distribution.factors, tables, bounds, spans, rng)
    if count < n:
        offers = "; ".join(f"{k} from {_number(a)} to {_number(b)} seen" for k, (a, b) in seen.items() if a <= b)
        wanted = ", ".join(f"{k}=({_number(a)}, {_number(b)})" for k, (a, b) in bounds.items())
        raise SpaceError(
            f"space {space.name!r}: {count} of {n} architectures found with {wanted or 'its rules'} in {drawn:,} draws"
            + (f" ({offers})" if offers else "")
        )
    return {p: np.concatenate([part[p] for part in parts])[:n] for p in space.choices}


def _bounded(
    space: Costed, scope: str, ranges: Mapping[str, Any]
) -> tuple[dict[str, tuple[float, float]], dict[str, TabulatedExpr]]:
    """The bounds among the arguments of a draw, and the costs that they are of, compiled."""
    names = space.cost_names
    bounds = {k: _range(k, v) for k, v in ranges.items() if k.rpartition(":")[2] in names}
    symbols = {k: v for k, v in ranges.items() if k in space.defaults}
    if unknown := [k for k in ranges if k not in bounds and k not in symbols]:
        known = [*names, *space.defaults]
        nothing = f": space {space.name!r} has no costs"
        raise SpaceError(f"cannot bound {shown(unknown[0])}{nearest(unknown[0], known) if known else nothing}")
    tables = {}
    for key in bounds:
        part, _, kind = key.rpartition(":")
        tables[key] = space.cost_tables(kind, part or scope, **symbols)
    return bounds, tables


def _range(cost: str, bounds: Any) -> tuple[float, float]:
    """The lower and the upper bound of a cost."""
    try:
        low, high = (float(end) for end in bounds if isinstance(end, int | float | np.number))
        if math.isnan(low) or math.isnan(high):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise SpaceError(f"{cost} is bounded by two numbers (lowest, highest), not {shown(bounds)}") from None
    return low, high


def _ends(bounds: tuple[float, float], span: tuple[float, float] | None) -> tuple[float, float]:
    """Bounds of which neither is infinite where the span of the cost is known."""
    low, high = bounds
    return (low, high) if span is None else (low if low > -math.inf else span[0], high if high < math.inf else span[1])


def _check_spans(
    space: Costed, bounds: Mapping[str, tuple[float, float]], spans: Mapping[str, tuple[float, float] | None]
) -> None:
    """Raise where a range is none, or lies outside of what the space has."""
    for kind, (low, high) in bounds.items():
        if low > high:
            raise SpaceError(f"{kind}=({low:g}, {high:g}): the lower bound is above the upper")
    for kind, span in spans.items():
        low, high = bounds[kind]
        if span is not None and (high < span[0] or low > span[1]):
            raise SpaceError(
                f"space {space.name!r} has no architecture with {kind}=({_number(low)}, {_number(high)}): its {kind} "
                f"go from {_number(span[0])} to {_number(span[1])}"
            )


def _number(value: float) -> str:
    """An amount for people; one of less than a thousand with its fraction."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def cost_span(space: Costed, distribution: Distribution, key: str) -> tuple[float, float] | None:
    """The least and the largest cost of all architectures; None where they tie too many choices together to tell.

    Args:
        space: The space.
        distribution: Its uniform distribution.
        key: The cost, as a bound of `sample_columns` names it.
    """
    _, tables = _bounded(space, "", {key: (-math.inf, math.inf)})
    return _span(space, distribution, tables[key])


def _propose(
    space: Costed, distribution: Distribution, rng: np.random.Generator, proposal: Elimination | None
) -> Columns:
    chosen = proposal or distribution.uniform
    if chosen is not None:
        return chosen.sample(BATCH, rng)
    plain = {p: rng.integers(0, len(c.values), BATCH) for p, c in space.choices.items()}
    return space.canonical(plain)


def _span(space: Costed, distribution: Distribution, tables: TabulatedExpr) -> tuple[float, float] | None:
    """The least and the largest cost of all architectures; None where they tie too many choices together to tell."""
    if distribution.factors is None or tables.rest.terms:
        return None
    ends = []
    for sign in (-1.0, 1.0):
        signed = [JointTable(t.paths, sign * t.values) for t in tables.tables]
        try:
            best = eliminate(space.choices, [*distribution.factors, *signed], keep_steps=False, best=True)
        except SpaceError:
            return None
        ends.append(tables.constant + sign * best.log_total)
    return ends[0], ends[1]


def _tilt(
    space: Costed,
    factors: Sequence[JointTable],
    tables: Mapping[str, TabulatedExpr],
    bounds: Mapping[str, tuple[float, float]],
    spans: Mapping[str, tuple[float, float] | None],
    rng: np.random.Generator,
    leaning: Mapping[str, float] | None = None,
) -> tuple[dict[str, float], Elimination | None]:
    """The exponential tilt under which the mean cost is at a place in each range, by default its middle (a convex
    problem)."""
    kinds, aims, widths = list(bounds), [], []
    for kind in kinds:
        span = spans[kind]
        if span is None:
            return {}, None
        low, high = max(bounds[kind][0], span[0]), min(bounds[kind][1], span[1])
        widths.append(max(span[1] - span[0], 1.0))
        place = 0.5 if leaning is None else leaning[kind]
        aims.append((low + place * (high - low) - tables[kind].constant) / widths[-1])

    def run(tilt: np.ndarray, keep: bool = False) -> Elimination:
        extra = [
            JointTable(t.paths, t.values * (tilt[i] / widths[i])) for i, k in enumerate(kinds) for t in tables[k].tables
        ]
        return eliminate(space.choices, [*factors, *extra], keep_steps=keep)

    try:
        if len(kinds) == 1:

            def excess(x: float) -> float:
                return run(np.asarray([x])).log_total - x * aims[0]

            tilt = np.asarray([minimize_scalar(excess, bounds=(-STEEPEST, STEEPEST), method="bounded").x])
        else:
            tilt = _newton(space, tables, run, np.asarray(aims), np.asarray(widths), rng)
        proposal = run(tilt, keep=True)
    except SpaceError:  # the costs together tie too many choices: plain draws remain
        return {}, None
    return {k: float(tilt[i]) / widths[i] for i, k in enumerate(kinds)}, proposal


def _newton(
    space: Costed,
    tables: Mapping[str, TabulatedExpr],
    run: Callable[..., Elimination],
    aims: np.ndarray,
    widths: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """The tilt of several costs by Newton steps, whose mean and curvature are those of draws under the tilt so far."""
    tilt, step = np.zeros(len(aims)), np.zeros(len(aims))
    least = math.inf
    for _ in range(NEWTON):
        tried = np.clip(tilt + step, -STEEPEST, STEEPEST)
        tilted = run(tried, keep=True)
        excess = tilted.log_total - float(tried @ aims)
        if excess > least:  # the problem is convex, so a shorter step is better
            step = step / 4
            continue
        tilt, least = tried, excess
        columns = tilted.sample(BATCH, rng)
        costs = [t.evaluate(space.choices, columns, BATCH) - t.constant for t in tables.values()]
        drawn = np.stack(costs, axis=1) / widths
        missing = aims - drawn.mean(axis=0)
        spread = np.cov(drawn.T) + 1e-12 * np.eye(len(aims))
        step = np.linalg.solve(spread, missing)
        away = math.sqrt(max(0.0, float(step @ missing)))
        if away < CLOSE:
            break
        step *= min(1.0, 3.0 / away)  # the curvature is known only near the draws
    return tilt
