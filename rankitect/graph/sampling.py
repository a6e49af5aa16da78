"""Drawing and changing architectures: uniform over distinct ones, also within ranges of cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar

from rankitect.errors import SpaceError
from rankitect.graph.cost import COSTS
from rankitect.space.counting import Elimination, eliminate
from rankitect.space.names import nearest
from rankitect.space.tables import Table, Tables

if TYPE_CHECKING:
    from rankitect.graph.space import SearchSpace
    from rankitect.space.architecture import Architecture

__all__ = ["crossover", "mutate", "neighbours", "sample_columns"]

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
ENOUGH = 0.02
"""Share of plain draws inside the ranges above which no tilt is needed."""

Columns = dict[str, np.ndarray]


def sample_columns(space: SearchSpace, n: int, rng: np.random.Generator, scope: str = "", **ranges: Any) -> Columns:
    """Index columns of `n` independent draws, uniform over the distinct feasible architectures within `ranges`.

    Where few architectures are inside, proposals come from the distribution exp(lambda . cost), with lambda such that
    the mean costs are inside, and are thinned by exp(-lambda . cost): the result is uniform again.

    Raises:
        SpaceError: A range is impossible, or yields so little that a bounded number of draws is not enough.
    """
    bounds = {k: v for k, v in ranges.items() if k.rpartition(":")[2] in (*COSTS, *space.learned)}
    symbols = {k: int(v) for k, v in ranges.items() if k in space.defaults}
    unknown = [k for k in ranges if k not in bounds and k not in symbols]
    if unknown:
        raise SpaceError(f"cannot bound {unknown[0]!r}{nearest(unknown[0], [*COSTS, *space.defaults])}")
    tables = {}
    for key in bounds:
        part, _, kind = key.rpartition(":")
        tables[key] = space.cost_tables(kind, part or scope, **symbols)
    for kind, (low, high) in bounds.items():
        if low > high:
            raise SpaceError(f"{kind}=({low:g}, {high:g}): the lower bound is above the upper")
    spans = {k: _span(space, t) for k, t in tables.items()}
    for kind, span in spans.items():
        low, high = bounds[kind]
        if span is not None and (high < span[0] or low > span[1]):
            raise SpaceError(
                f"space {space.name!r} has no architecture with {kind}=({low:,.0f}, {high:,.0f}): its {kind} go from "
                f"{span[0]:,.0f} to {span[1]:,.0f}"
            )
    found: list[Columns] = []
    count, drawn, seen = 0, 0, {k: [math.inf, -math.inf] for k in bounds}
    tilt: dict[str, float] = {}
    proposal: Elimination | None = None
    for round_ in range(LONGEST):
        columns = _propose(space, rng, proposal)
        kept = np.broadcast_to(space.feasible(columns), BATCH).copy()
        weight = np.zeros(BATCH)
        for kind, (low, high) in bounds.items():
            cost = tables[kind].evaluate(space.choices, columns, BATCH)
            if kept.any():
                seen[kind] = [min(seen[kind][0], cost[kept].min()), max(seen[kind][1], cost[kept].max())]
            kept = kept & (cost >= low) & (cost <= high)
            at = low if tilt.get(kind, 0.0) > 0 else high
            weight -= tilt.get(kind, 0.0) * (cost - at)
        kept &= np.log(rng.random(BATCH)) <= weight
        drawn += BATCH
        if kept.any():
            found.append({p: c[kept] for p, c in columns.items()})
            count += int(kept.sum())
        if count >= n or (round_ >= HOPELESS and not count):
            break
        if round_ + 1 >= ROUNDS and count * LONGEST < n * (round_ + 1):  # at this yield the rest would not be enough
            break
        if round_ == 0 and bounds and count < ENOUGH * BATCH and space.factors is not None:
            tilt, proposal = _tilt(space, tables, bounds, spans, rng)
    if count < n:
        offers = "; ".join(f"{k} from {a:,.0f} to {b:,.0f} seen" for k, (a, b) in seen.items() if a <= b)
        wanted = ", ".join(f"{k}=({a:,.0f}, {b:,.0f})" for k, (a, b) in bounds.items())
        raise SpaceError(
            f"space {space.name!r}: {count} of {n} architectures found with {wanted or 'its rules'} in {drawn:,} draws"
            + (f" ({offers})" if offers else "")
        )
    return {p: np.concatenate([f[p] for f in found])[:n] for p in space.choices}


def _propose(space: SearchSpace, rng: np.random.Generator, proposal: Elimination | None) -> Columns:
    chosen = proposal or space._uniform
    if chosen is not None:
        return chosen.sample(BATCH, rng)
    plain = {p: rng.integers(0, len(c.values), BATCH) for p, c in space.choices.items()}
    return space.canonical(plain)


def _span(space: SearchSpace, tables: Tables) -> tuple[float, float] | None:
    """The least and the largest cost of all architectures; None where they tie too many choices together to tell."""
    if space.factors is None or tables.rest.terms:
        return None
    ends = []
    for sign in (-1.0, 1.0):
        signed = [Table(t.paths, sign * t.values) for t in tables.tables]
        try:
            best = eliminate(space.choices, [*space.factors, *signed], keep_steps=False, best=True)
        except SpaceError:
            return None
        ends.append(tables.constant + sign * best.log_total)
    return ends[0], ends[1]


def _tilt(
    space: SearchSpace,
    tables: Mapping[str, Tables],
    bounds: Mapping[str, tuple[float, float]],
    spans: Mapping[str, tuple[float, float] | None],
    rng: np.random.Generator,
) -> tuple[dict[str, float], Elimination | None]:
    """The exponential tilt under which the mean cost is the middle of each range (a convex problem)."""
    factors, kinds, aims, widths = space.factors or [], list(bounds), [], []
    for kind in kinds:
        span = spans[kind]
        if span is None:
            return {}, None
        low, high = max(bounds[kind][0], span[0]), min(bounds[kind][1], span[1])
        widths.append(max(span[1] - span[0], 1.0))
        aims.append(((low + high) / 2 - tables[kind].constant) / widths[-1])

    def run(tilt: np.ndarray, keep: bool = False) -> Elimination:
        extra = [
            Table(t.paths, t.values * (tilt[i] / widths[i])) for i, k in enumerate(kinds) for t in tables[k].tables
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
    space: SearchSpace,
    tables: Mapping[str, Tables],
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
        made = run(tried, keep=True)
        excess = made.log_total - float(tried @ aims)
        if excess > least:  # the problem is convex, so a shorter step is better
            step = step / 4
            continue
        tilt, least = tried, excess
        columns = made.sample(BATCH, rng)
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


def _complete(space: SearchSpace, choices: dict[str, Any], rng: np.random.Generator) -> Architecture | None:
    """Close what is missing at random; None where a rule is broken."""
    for path, choice in space.choices.items():
        choices.setdefault(path, choice.values[rng.integers(len(choice.values))])
    try:
        return space.architecture(choices)
    except SpaceError:
        return None


def mutate(space: SearchSpace, architecture: Architecture, rng: np.random.Generator, tries: int) -> Architecture:
    """See `SearchSpace.mutate`."""
    # In the space's order: one that was read from JSON has its own.
    paths = [p for p, c in space.choices.items() if p in architecture.choices and len(c.values) > 1]
    for _ in range(tries if paths else 0):
        path = paths[rng.integers(len(paths))]
        others = [v for v in space.choices[path].values if v != architecture.choices[path]]
        made = _complete(space, {**architecture.choices, path: others[rng.integers(len(others))]}, rng)
        if made is not None and made != architecture:
            return made
    raise SpaceError(f"no feasible mutation of {architecture} found in {tries} tries")


def crossover(space: SearchSpace, mother: Architecture, father: Architecture, rng: np.random.Generator) -> Architecture:
    """See `SearchSpace.crossover`."""
    for _ in range(100):
        choices = dict(father.choices) | dict(mother.choices)
        for path in space.choices:  # in a fixed order: that of a set differs from process to process
            if path in mother.choices and path in father.choices and rng.random() < 0.5:
                choices[path] = father.choices[path]
        made = _complete(space, choices, rng)
        if made is not None:
            return made
    return mother


def neighbours(space: SearchSpace, architecture: Architecture) -> Iterator[Architecture]:
    """See `SearchSpace.neighbours`."""
    start = space.encode([architecture])
    changes = [
        (path, i)
        for path, value in architecture.choices.items()
        for i, other in enumerate(space.choices[path].values)
        if other != value
    ]
    columns = {path: np.repeat(column, len(changes)) for path, column in start.items()}
    for at, (path, i) in enumerate(changes):
        columns[path][at] = i
    columns = space.canonical(columns) if changes else columns
    allowed = space.feasible(columns) if changes else np.zeros(0, dtype=bool)
    seen = {architecture.fingerprint}
    for made in space.decode({p: c[allowed] for p, c in columns.items()}) if allowed.any() else ():
        if made.fingerprint not in seen:
            seen.add(made.fingerprint)
            yield made
