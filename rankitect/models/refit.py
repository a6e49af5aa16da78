"""Closed-form refits: what a weight that reads hidden units should be once some of the units are gone.

The kept units are correlated with the lost ones; ridge regression on calibration text lets their weights give what the
whole layer gave. This is the reconstruction step of structured optimal-brain-surgeon pruning (compare ZipLM,
arXiv 2302.04089, section 3), computed for each size that a space allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from rankitect.errors import SpaceError
from rankitect.graph import Expr
from rankitect.models.refit_bank import RefitBank

__all__ = ["RIDGE", "Refit", "refit_change"]

RIDGE = 0.01
"""Ridge, as a share of the mean diagonal of the units' second moments."""


@torch.no_grad()
def refit_change(full: torch.Tensor, gram: torch.Tensor, units: Sequence[int], ridge: float = RIDGE) -> torch.Tensor:
    """What to add to the kept prefix of a weight.

    Minimises E||W h - (W_kept + C) h_kept||^2 + lambda ||C||^2 over C, lambda = `ridge` times the mean of diag(gram).

    Args:
        full: The weight, [outputs, units...].
        gram: E[h h'] over all units, flattened, [n, n].
        units: How many units are kept along each of the units' axes.

    Returns:
        [outputs, *units], float32.
    """
    inside = torch.zeros(full.shape[1:], dtype=torch.bool)
    inside[tuple(slice(n) for n in units)] = True
    kept, lost = (each.flatten().nonzero()[:, 0].to(full.device) for each in (inside, ~inside))
    # The kept units predict the lost ones by ridge regression; what the lost ones contributed is added through that.
    square = _with_ridge(gram, ridge)[kept][:, kept]
    right = (gram[kept][:, lost] @ full.flatten(1)[:, lost].T).double()
    change = torch.cholesky_solve(right, torch.linalg.cholesky(square))
    return change.T.float().reshape(full.shape[0], *units).contiguous()


def _with_ridge(gram: torch.Tensor, ridge: float) -> torch.Tensor:
    square = gram.double()
    square.diagonal().add_(ridge * float(square.diagonal().mean()) + 1e-12)
    return square


class _Prefixes:
    """`refit_change` for every prefix of one axis of units, from one Cholesky factor.

    With C + lambda I = L L', the best prediction of the lost units from the first k is L_lost,k L_kk^-1, so the
    refitted weights are (W L)_k L_kk^-1.
    """

    def __init__(self, full: torch.Tensor, gram: torch.Tensor, ridge: float = RIDGE) -> None:
        self._full = full
        self._lower = torch.linalg.cholesky(_with_ridge(gram, ridge))
        self._mixed = full.double() @ self._lower

    @torch.no_grad()
    def change(self, kept: int) -> torch.Tensor:
        """What to add to the first `kept` columns, [outputs, kept]."""
        lower = self._lower[:kept, :kept]
        refitted = torch.linalg.solve_triangular(lower, self._mixed[:, :kept], upper=False, left=False)
        return (refitted - self._full[:, :kept]).float().contiguous()


class Refit:
    """The changes of one weight for every size (the `Variants` of `models.plan`), computed when first needed.

    Args:
        full: The weight at its largest, [outputs, units...].
        gram: Second moments of all units, [n, n].
        options: The sizes, one tuple over the units' axes each.
    """

    def __init__(self, full: torch.Tensor, gram: torch.Tensor, options: Sequence[tuple[int, ...]]) -> None:
        self._full = full
        self._gram: torch.Tensor | None = gram.to(full.device)
        self._units = tuple(full.shape[1:])
        self._options = [o for o in options if o != self._units]
        self._known: dict[tuple[int, ...], torch.Tensor] = {}
        self._bank: RefitBank | None = None
        self._prefixes: _Prefixes | None = None

    def change(self, shape: Sequence[int]) -> torch.Tensor | None:
        """What to add to the prefix of this shape; None where no unit is cut."""
        units = tuple(shape[1:])
        if units == self._units:
            return None
        if self._bank is not None:
            return self._bank.change(units)[: shape[0]]
        if units not in self._known:
            self._known[units] = self._compute(units)
        return self._known[units][: shape[0]]

    def prepare(self) -> None:
        """Make the changes of all sizes, and let go of what they are made from: `error` cannot be asked any more."""
        if self._bank is None and self._options:
            self._bank = RefitBank(self._full, self._options, self._taken)
        self._gram = self._prefixes = None

    def _taken(self, units: tuple[int, ...]) -> torch.Tensor:
        """The change of a size, for the bank; it is kept there and nowhere else."""
        return self._known.pop(units) if units in self._known else self._compute(units)

    def _compute(self, units: tuple[int, ...]) -> torch.Tensor:
        if len(units) > 1:
            return refit_change(self._full, self._moments, units)
        self._prefixes = self._prefixes or _Prefixes(self._full, self._moments)
        change = self._prefixes.change(units[0])
        if len(self._known) + 1 >= len(self._options):
            self._prefixes = None  # all sizes are known: 25 MB a layer
        return change

    @property
    def _moments(self) -> torch.Tensor:
        """Second moments of all units.

        Raises:
            SpaceError: They were let go of.
        """
        if self._gram is None:
            raise SpaceError("the second moments of hidden units were let go of when the refits of all sizes were made")
        return self._gram

    @torch.no_grad()
    def error(self, units: Sequence[int] | None, slopes: torch.Tensor) -> float:
        """The second-order estimate of how much a token's loss rises when only these units are kept (refitted), nats.

        Half the expected square of the loss's slope along the change of the output, the two taken as independent (the
        Kronecker-factored Fisher information of optimal-brain-surgeon pruning, arXiv 2210.07129).

        Args:
            units: How many units are kept along each axis; None for no unit at all.
            slopes: Mean outer product of the loss's gradient at the output, [outputs, outputs].
        """
        lost = self._full.clone()
        if units is not None:
            part = self._full[(slice(None), *(slice(n) for n in units))]
            change = self.change((self._full.shape[0], *units))
            lost[(slice(None), *(slice(n) for n in units))] -= part if change is None else part + change
        flat = lost.flatten(1)
        return 0.5 * float(((slopes.to(flat.device) @ flat) * (flat @ self._moments)).sum())

    def mixed(self, weight: Callable[[Expr], torch.Tensor], dims: Sequence[Expr | None]) -> torch.Tensor:
        """The expected change at its largest, [outputs, units...], given each size's probability."""
        if not self._options:  # nothing is ever left out
            return torch.zeros_like(self._full)
        chances = []
        known = {d: weight(d) for d in dims if d is not None}
        for units in self._options:
            factors = [known[d][n] for d, n in zip(dims, units, strict=True) if d is not None]
            chances.append(math.prod(factors[1:], start=factors[0]))
        if self._bank is None:
            self.prepare()
        return self._full.new_zeros(self._full.shape) if self._bank is None else self._bank.mixed(torch.stack(chances))
