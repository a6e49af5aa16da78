"""Changing architectures: mutation, crossover and neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rankitect.errors import SpaceError
from rankitect.space.architecture import Architecture
from rankitect.space.encoding import Encoding

__all__ = ["crossover", "mutate", "neighbours"]


def _complete(space: Encoding, choices: dict[str, Any], rng: np.random.Generator) -> Architecture | None:
    """Close what is missing at random; None where a rule is broken."""
    for path, choice in space.choices.items():
        choices.setdefault(path, choice.values[rng.integers(len(choice.values))])
    try:
        return space.architecture(choices)
    except SpaceError:
        return None


def mutate(space: Encoding, architecture: Architecture, rng: np.random.Generator, tries: int) -> Architecture:
    """See `ChoiceSpace.mutate`."""
    # In the space's order: an architecture that was read from JSON has its own.
    paths = [p for p, c in space.choices.items() if p in architecture.choices and len(c.values) > 1]
    for _ in range(tries if paths else 0):
        path = paths[rng.integers(len(paths))]
        value = space.choices[path].changed(architecture.choices[path], rng)
        mutant = _complete(space, {**architecture.choices, path: value}, rng)
        if mutant is not None and mutant != architecture:
            return mutant
    raise SpaceError(f"no feasible mutation of {architecture} found in {tries} tries")


def crossover(space: Encoding, mother: Architecture, father: Architecture, rng: np.random.Generator) -> Architecture:
    """See `ChoiceSpace.crossover`."""
    for _ in range(100):
        choices = dict(father.choices) | dict(mother.choices)
        for path in space.choices:  # in a fixed order: that of a set differs from process to process
            if path in mother.choices and path in father.choices and rng.random() < 0.5:
                choices[path] = father.choices[path]
        child = _complete(space, choices, rng)
        if child is not None:
            return child
    return mother


def neighbours(space: Encoding, architecture: Architecture) -> Iterator[Architecture]:
    """See `ChoiceSpace.neighbours`."""
    start = space.encode([architecture])
    changes = [
        (path, space.choices[path].index[other])
        for path, value in architecture.choices.items()
        for other in space.choices[path].neighbours(value)
    ]
    if not changes:
        return
    # All changed rows at once: liveness and rules are asked for whole columns.
    columns = {path: np.repeat(column, len(changes)) for path, column in start.items()}
    for at, (path, i) in enumerate(changes):
        columns[path][at] = i
    columns = space.canonical(columns)
    allowed = space.feasible(columns)
    seen = {architecture.fingerprint}
    for neighbour in space.decode({p: c[allowed] for p, c in columns.items()}) if allowed.any() else ():
        if neighbour.fingerprint not in seen:
            seen.add(neighbour.fingerprint)
            yield neighbour
