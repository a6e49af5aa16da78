"""A sum of products of atoms as arrays: long expressions are evaluated at once and not term by term."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from rankitect.space.atoms import Number

__all__ = ["Products"]

MAX_ENTRIES = 1 << 20
"""Factors at a time, over all architectures; with more, a walk from term to term needs less memory and is as fast."""


A = TypeVar("A", bound=Hashable)


class Products(Generic[A]):
    """The terms of an expression, whatever its atoms are.

    Args:
        terms: Coefficients by monomial, which is a tuple of (atom, power).

    Attributes:
        atoms: What the terms are products of.
    """

    def __init__(self, terms: Mapping[tuple[tuple[A, int], ...], Number]) -> None:
        self.atoms: list[A] = list(dict.fromkeys(atom for monomial in terms for atom, _ in monomial))
        place = {atom: i for i, atom in enumerate(self.atoms)}
        one = len(self.atoms)
        rows = [[place[atom] for atom, power in monomial for _ in range(power)] for monomial in terms]
        degree = max(map(len, rows), default=0)
        # Factor by factor, so that a product is over the first axis; the shorter terms are filled up with ones.
        filled = np.asarray([row + [one] * (degree - len(row)) for row in rows], dtype=np.intp)
        self._factors = filled.reshape(len(rows), degree).T.copy()  # also of no terms at all, which are 0
        whole = all(isinstance(c, int) for c in terms.values())
        self._coefficients = np.asarray([int(c) if whole else float(c) for c in terms.values()])

    def evaluate(self, values: Sequence[Any]) -> Any:
        """The sum, or None where it is better found term by term: on grids, on fractions, on very many architectures.

        Args:
            values: Of `atoms`: whole numbers, or int64 arrays [n].

        Returns:
            A number where all values are, else an array [n].
        """
        n = 0
        for value in values:
            if type(value) is np.ndarray:
                if value.ndim != 1 or value.dtype != np.int64:
                    return None
                n = max(n, len(value))
            elif not isinstance(value, int | np.integer):
                return None
        if self._factors.size * max(n, 1) > MAX_ENTRIES:
            return None
        if not n:
            rows = np.asarray([*values, 1], dtype=np.int64)
            return (self._coefficients @ rows[self._factors].prod(axis=0)).item()
        rows = np.ones((len(values) + 1, n), dtype=np.int64)
        for row, value in zip(rows, values, strict=False):
            row[:] = value
        return self._coefficients @ rows[self._factors].prod(axis=0)
