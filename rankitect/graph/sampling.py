"""Drawing and changing architectures: uniform over distinct ones, also within ranges of cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize

from rankitect.errors import SpaceError
from rankitect.graph.cost import COSTS
from rankitect.graph.counting import Elimination, eliminate
from rankitect.graph.names import nearest
from rankitect.graph.tables import Table, Tables

if TYPE_CHECKING:
    from rankitect.graph.architecture import Architecture
    from rankitect.graph.space import SearchSpace

__all__ = ["crossover", "mutate", "neighbours", "sample_columns"]

BATCH = 2048
ROUNDS = 40
ENOUGH = 0.02
"""Share of plain draws inside the ranges above which no tilt is needed."""

Columns = dict[str, np.ndarray]


def sample_columns(space: SearchSpace, n: int, rng: np.random.Generator, scope: str = "", **ranges: Any) -> Columns:
    """Index columns of `n` independent draws, uniform over the distinct feasible architectures within `ranges`.

    Where few architectures are inside, proposals come from the distribution exp(lambda . cost), with lambda such that
    the mean costs are inside, and are thinned by exp(-lambda . cost): the result is uniform again.

    Raises:
        SpaceError: A range is impossible, or nothing was found in it after a bounded number of draws.
    """
    bounds = {k: v for k, v in ranges.items() if k.rpartition(":")[2] in COSTS}
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
    found: list[Columns] = []
    count, drawn, seen = 0, 0, {k: [math.inf, -math.inf] for k in bounds}
    tilt: dict[str, float] = {}
    proposal: Elimination | None = None
    for round_ in range(ROUNDS):
        columns = _propose(space, rng, proposal)
        kept = space.feasible(columns)
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
        if count >= n:
            break
        if round_ == 0 and bounds and count < ENOUGH * BATCH and space.factors is not None:
            tilt, proposal = _tilt(space, tables, bounds)
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


def _tilt(
    space: SearchSpace, tables: Mapping[str, Tables], bounds: Mapping[str, tuple[float, float]]
) -> tuple[dict[str, float], Elimination | None]:
    """The exponential tilt under which the mean cost is the middle of each range (a convex problem)."""
    factors = space.factors or []
    if any(t.rest.terms for t in tables.values()):
        return {}, None
    kinds = list(bounds)
    scale = {k: max(abs(bounds[k][1]), 1.0) for k in kinds}
    middle = np.asarray([sum(bounds[k]) / 2 / scale[k] for k in kinds])

    def run(tilt: np.ndarray, keep: bool = False) -> Elimination:
        extra = [Table(t.paths, t.values * (tilt[i] / scale[k])) for i, k in enumerate(kinds) for t in tables[k].tables]
        return eliminate(space.choices, [*factors, *extra], keep_steps=keep)

    offset = np.asarray([tables[k].constant / scale[k] for k in kinds])

    def excess(tilt: np.ndarray) -> float:
        return run(tilt).log_total - float(tilt @ (middle - offset))

    try:
        best = minimize(
            excess, np.zeros(len(kinds)), method="Nelder-Mead" if len(kinds) > 1 else "Powell", options={"maxiter": 60}
        )
        proposal = run(best.x, keep=True)
    except SpaceError:  # the cost ties too many choices together: plain draws remain
        return {}, None
    return {k: float(np.atleast_1d(best.x)[i]) / scale[k] for i, k in enumerate(kinds)}, proposal


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
    paths = [p for p in architecture.choices if len(space.choices[p].values) > 1]
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
        for path in mother.choices.keys() & father.choices.keys():
            if rng.random() < 0.5:
                choices[path] = father.choices[path]
        made = _complete(space, choices, rng)
        if made is not None:
            return made
    return mother


def neighbours(space: SearchSpace, architecture: Architecture) -> Iterator[Architecture]:
    """See `SearchSpace.neighbours`."""
    seen = {architecture.fingerprint}
    for path in architecture.choices:
        for value in space.choices[path].values:
            if value == architecture.choices[path]:
                continue
            full = {p: c.values[0] for p, c in space.choices.items()} | dict(architecture.choices) | {path: value}
            try:
                made = space.architecture(full)
            except SpaceError:
                continue
            if made.fingerprint not in seen:
                seen.add(made.fingerprint)
                yield made
