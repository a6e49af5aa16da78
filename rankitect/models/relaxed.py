"""The relaxed supernet: every choice mixed by weights, so that an architecture's loss has a gradient.

Each choice is given as a distribution over its values (one-hot, a softmax, or a Gumbel-softmax sample). Candidates of a
`oneof` are summed by weight; a dimension becomes a mask whose entry j is the probability that the dimension is larger
than j, applied once to what the dimension counts: the prefix property makes the mask exact at one-hot weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, Edge, Expr, SearchSpace
from rankitect.models.identities import Listen, check_relaxed
from rankitect.models.plan import Step, bounds, relaxed_plan, run_plan
from rankitect.models.relaxed_bits import MixedBits, mixed_bits
from rankitect.models.supernet import Supernet
from rankitect.models.weights import EVALUATION, LinearReading, Mode, ParameterHolder, looked_up
from rankitect.space.tables import Assignments, TabulatedExpr, joint_grid, tabulate

__all__ = ["Mixture", "RelaxedSupernet", "one_hot"]

Weights = Mapping[str, torch.Tensor]


def one_hot(space: SearchSpace, architecture: Architecture) -> dict[str, torch.Tensor]:
    """The weights at which a relaxed supernet equals one architecture."""
    columns = space.encode([architecture])
    weights = {}
    for path, choice in space.choices.items():
        weights[path] = torch.zeros(len(choice.values))
        weights[path][int(columns[path][0])] = 1.0
    return weights


class _Masks:
    """Compiled once for a space: tables of gates and sizes, and for each dimension which joint values reach entry j."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.bound = bounds(space)
        self._tables: dict[Expr, TabulatedExpr] = {}
        self._reach: dict[tuple[Expr, torch.device], tuple[tuple[str, ...], torch.Tensor]] = {}

    def tables(self, expr: Expr) -> TabulatedExpr:
        if expr not in self._tables:
            self._tables[expr] = tabulate(expr, self.space.choices, self.space.defaults)
        return self._tables[expr]

    def reach(self, expr: Expr, device: torch.device) -> tuple[tuple[str, ...], torch.Tensor]:
        """The choices of a dimension, and [joint values..., entries] of 0 and 1: is entry j inside."""
        key = (expr, device)
        if key not in self._reach:
            paths = tuple(sorted(expr.paths))
            values = torch.as_tensor(
                expr.evaluate(Assignments(self.space.choices, joint_grid(self.space.choices, paths), {}))
            )
            inside = values[..., None] > torch.arange(self.bound(expr))
            self._reach[key] = (paths, inside.float().to(device))
        return self._reach[key]


class Mixture:
    """One set of weights for all choices, with what follows from them.

    Args:
        masks: The space's compiled masks.
        weights: For each choice, a vector over its values that sums to 1.
    """

    def __init__(self, masks: _Masks, weights: Weights) -> None:
        self._masks, self._weights = masks, weights
        self._means: dict[Expr, torch.Tensor] = {}
        self._known_masks: dict[Expr, torch.Tensor] = {}
        self._device = next((w.device for w in weights.values()), torch.device("cpu"))
        self._zero = torch.zeros((), device=self._device)

    def mean(self, expr: Expr) -> Any:
        """The expectation of an expression; a number where nothing is open."""
        if expr.constant is not None:
            return int(expr.constant)
        if expr not in self._means:
            with _outside_of_checkpoints():
                self._means[expr] = self._masks.tables(expr).expectation(self._weights.__getitem__, self._zero)
        return self._means[expr]

    def mask(self, expr: Expr) -> torch.Tensor:
        """Probability that each entry of a dimension is kept, [largest size]."""
        if expr not in self._known_masks:
            paths, value = self._masks.reach(expr, self._device)
            with _outside_of_checkpoints():
                for path in paths:
                    value = torch.tensordot(self._weights[path], value, dims=1)
            self._known_masks[expr] = value
        return self._known_masks[expr]

    def chances(self, path: str) -> torch.Tensor:
        """Probability of each value of a choice."""
        return self._weights[path]

    def sizes(self, expr: Expr) -> torch.Tensor:
        """Probability of each size of a dimension, [largest size + 1]."""
        # Entry j of the mask is P(size > j), so P(size = j) is the difference of neighbours.
        mask = self.mask(expr)
        return torch.cat([mask.new_ones(1), mask]) - torch.cat([mask, mask.new_zeros(1)])


class _RelaxedParams(LinearReading):
    """Whole weights, and masks in place of slices (the `Params` that blocks see)."""

    __slots__ = ("_bits", "_known", "_last", "_mixture", "_mode", "_step", "_tensors", "present")

    def __init__(
        self, step: Step, tensors: nn.Module, mixture: Mixture, bits: MixedBits | None = None, mode: Mode = EVALUATION
    ) -> None:
        self._step, self._tensors, self._mixture, self._bits, self._mode = step, tensors, mixture, bits, mode
        self._known: dict[str, torch.Tensor] = {}
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None
        self.present = step.present

    @property
    def training(self) -> bool:
        """Whether statistics are those of the batch."""
        return self._mode.of_batch

    def momentum(self, usual: float) -> float:
        """How far weights that are not trained are moved."""
        return self._mode.momentum(usual)

    def __getattr__(self, name: str) -> torch.Tensor:
        if name.startswith("_"):  # as in `SlicedParams`
            raise AttributeError(name)
        weight: torch.Tensor = getattr(self._tensors, name)
        if self._bits is None or name not in self._bits.matrices:
            return weight
        if name not in self._known:
            supported = self._bits.supported(name, weight, self._mixture.mask)
            self._known[name] = self._bits.weight(name, supported, self._mixture.chances)
        return self._known[name]

    def _tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Activations as a matrix gets them. Those that go into several are rounded once."""
        if self._bits is None:
            return x
        if self._last is None or self._last[0] is not x:
            self._last = x, self._bits.activations(x, self._mixture.chances)
        return self._last[1]

    def linear(self, x: torch.Tensor, name: str, bias: str | None = None) -> torch.Tensor:
        """A weight applied to the last axis, after its activations were rounded."""
        return super().linear(self._tokens(x), name, bias)

    def kept(self, x: torch.Tensor) -> torch.Tensor:
        """What a later call reads where `x` was kept for it."""
        return x if self._bits is None else self._bits.kept(x, self._mixture.chances)

    def lookup(self, name: str, rows: torch.Tensor, bags: torch.Tensor | None = None) -> torch.Tensor:
        """Rows of a table, at its largest width."""
        if self._bits is None or name not in self._bits.matrices:
            return looked_up(self._tensors, name, rows, bags)
        vectors = looked_up(self._tensors, name, rows)
        dim = self._bits.matrices[name][1][-1]
        if dim.constant is None:
            vectors = vectors * (self._mixture.mask(dim).detach() > 0).to(vectors.dtype)
        vectors = self._bits.weight(name, vectors, self._mixture.chances, rows.dim())
        if bags is None:
            return vectors
        return F.embedding_bag(torch.arange(len(rows), device=rows.device), vectors, bags, mode="sum")

    def mask(self, name: str) -> torch.Tensor | None:
        """Probability that each entry of an axis is kept; None where it is of fixed size."""
        size = self._step.sizes[name]
        return None if not size.paths else self._mixture.mask(size)

    def size(self, name: str) -> Any:
        """The expected value of an axis name or field."""
        size = self._step.sizes.get(name)
        if size is None or size.symbols:
            raise SpaceError(f"at {self._step.path}: {name!r} is no size that the architecture decides: ask a tensor")
        return self._mixture.mean(size)

    def sizes(self, dims: tuple[Expr | str, ...]) -> list[int]:
        """The largest values of dimensions."""
        return [self._step.resolve(self._step.sizes[d] if isinstance(d, str) else d) for d in dims]

    def read(self, h: torch.Tensor, name: str, dims: tuple[str | None, ...]) -> torch.Tensor:
        """The weight applied to hidden units, those that may be left out weighed by the probability that they stay."""
        sizes = [self._step.sizes[d] if d is not None else None for d in dims]
        variants = self._tensors.variants.get(name) if isinstance(self._tensors, ParameterHolder) else None
        if variants is not None:  # one product with the expected weight, as the change is of the same shape
            weight = getattr(self._tensors, name)
            for axis, dim in enumerate(sizes):
                weight = self.masked(weight, dim, axis + 1) if dim is not None else weight
            weight = weight + variants.mixed(self._mixture.sizes, sizes)
            if self._bits is not None:
                weight = self._bits.weight(name, weight, self._mixture.chances)
        else:
            weight = getattr(self, name)
            for axis, dim in enumerate(sizes):
                h = self.masked(h, dim, axis - len(dims)) if dim is not None else h
        return F.linear(self._tokens(h.flatten(-len(dims))), weight.flatten(1))

    def masked(self, x: torch.Tensor, dim: Expr, axis: int) -> torch.Tensor:
        """`x` times the mask of a dimension along `axis`."""
        if dim.constant is not None:
            return x
        axis = axis % x.dim()
        return x * self._mixture.mask(dim).view(-1, *([1] * (x.dim() - axis - 1)))


class RelaxedSupernet(nn.Module):
    """A supernet with all choices open.

    Args:
        supernet: The weights, which stay the supernet's own; it also says whether the activations of a layer are
            computed again in the backward pass (`Supernet.recompute`).

    Raises:
        SpaceError: A block of the user's gives another result when it is relaxed.
    """

    def __init__(self, supernet: Supernet) -> None:
        super().__init__()
        self._supernet = [supernet]
        self.space = supernet.space
        self._plan = relaxed_plan(self.space)
        self._masks = _Masks(self.space)
        self._bits = mixed_bits(self.space)
        for owner in dict.fromkeys(step.weights for step in self._plan.steps if step.shapes):
            for variants in supernet.weights.owner(owner).variants.values():
                variants.prepare()
        if supernet.checkable:
            check_relaxed(self.space, supernet.trace, self._trace)

    def freeze(self, frozen: bool) -> None:
        """Whether the supernet's weights want no gradients."""
        self._supernet[0].requires_grad_(not frozen)

    def mixture(self, weights: Weights) -> Mixture:
        """Check weights and prepare what follows from them.

        Raises:
            SpaceError: A choice has no weights, or as many as it has not values.
        """
        for path, choice in self.space.choices.items():
            if path not in weights or weights[path].shape != (len(choice.values),):
                got = list(weights[path].shape) if path in weights else "nothing"
                raise SpaceError(f"choice {path!r} needs weights of shape [{len(choice.values)}], not {got}")
        return Mixture(self._masks, weights)

    def forward(self, weights: Weights, *inputs: torch.Tensor) -> Any:
        """The outputs under a mixture of all choices, differentiable in weights and parameters."""
        return self._run(weights, inputs, None)

    def _trace(self, architecture: Architecture, inputs: Sequence[torch.Tensor], listen: Listen) -> None:
        self._run(one_hot(self.space, architecture), inputs, listen)

    def _run(self, weights: Weights, inputs: Sequence[torch.Tensor], listen: Listen | None) -> Any:
        tree = self._supernet[0].weights
        mixture = self.mixture(_beside(weights, next(tree.parameters(), None)))
        owners = {s.weights: tree.owner(s.weights) for s in self._plan.steps if s.shapes}
        mode = Mode(training=self.training and listen is None)

        def params(step: Step) -> _RelaxedParams:
            if listen is not None:
                listen(step, None)
            return _RelaxedParams(step, owners.get(step.weights, tree), mixture, self._bits.get(step.path), mode)

        def mix(edge: Edge, x: torch.Tensor) -> torch.Tensor:
            return x * mixture.mean(edge.gate) if edge.mixes and edge.gate.constant is None else x

        def masked(step: Step, p: _RelaxedParams, outputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            kept = _mask_outputs(step, p, outputs)
            if listen is not None:
                listen(step, kept)
            return kept

        recompute = self._supernet[0].recompute and listen is None  # whoever listens is told of every step once
        return run_plan(self._plan, inputs, params, mix, masked, recompute=recompute)

    def expected_cost(self, weights: Weights, kind: str, scope: str = "", **symbols: int) -> torch.Tensor:
        """The expected cost under independent choices: exact, and differentiable in the weights."""
        tables = self.space.cost_tables(kind, scope, **symbols)
        first = next(iter(weights.values()))
        cost: torch.Tensor = tables.expectation(weights.__getitem__, first.new_zeros((), dtype=torch.float64))
        return cost


def _outside_of_checkpoints() -> AbstractContextManager[None]:
    """What is computed inside is kept for the backward pass as usual, also in a layer whose activations are computed
    again: a mixture computes its masks once, so that the second pass would miss them."""
    return torch.autograd.graph.saved_tensors_hooks(_itself, _itself)


def _itself(x: torch.Tensor) -> torch.Tensor:
    return x


def _beside(weights: Weights, parameter: torch.Tensor | None) -> Weights:
    """The weights of all choices where a model's parameters are: hundreds of short vectors, moved as one."""
    if parameter is None or not weights or all(w.device == parameter.device for w in weights.values()):
        return weights
    together = torch.cat(list(weights.values())).to(parameter.device)
    return dict(zip(weights, together.split([len(w) for w in weights.values()]), strict=True))


def _mask_outputs(step: Step, params: _RelaxedParams, outputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    masked = list(outputs)
    for index, axis, dim in step.masked:
        masked[index] = params.masked(masked[index], dim, axis)
    return tuple(masked)
