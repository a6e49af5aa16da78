"""What a model rounds in the bases that can be turned: gathered once, with how much the loss depends on each vector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from rankitect.graph.quantized import INTEGER_BITS
from rankitect.models.plan import Step, run_plan
from rankitect.models.supernet import Standalone
from rankitect.models.weights import SlicedParams, find_owner
from rankitect.quantization.rotations import Turning
from rankitect.quantization.streams import Key

__all__ = ["Rows", "gather"]


@dataclass(frozen=True)
class Rows:
    """Vectors that a model rounds in one basis.

    Attributes:
        vectors: [R, k, n]: k vectors of n channels are rounded together, by one range.
        weights: How much the loss depends on errors in a row, [R].
    """

    vectors: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class _Seen:
    basis: str
    tensor: torch.Tensor  # [..., k * n]
    parts: int
    cached: bool


class _Watch:
    """Collects what is rounded while a model runs."""

    def __init__(self, turning: Turning) -> None:
        self._basis: Mapping[tuple[Key, int], str] = {
            touch: name for name, axes in turning.axes.items() for touch in axes
        }
        self.seen: dict[tuple[str, int], _Seen] = {}

    def see(self, step: Step, name: str, axis: int, x: torch.Tensor, *, cached: bool = False) -> None:
        """Take a note of an input or an output of a weight whose axis is in a basis that can be turned."""
        basis = self._basis.get(((step.weights, name), axis))
        place = (step.path, id(x))
        if basis is not None and place not in self.seen and x.requires_grad:
            x.retain_grad()
            size = step.shapes[name][axis]
            self.seen[place] = _Seen(basis, x, 1 if cached else x.shape[-1] // size, cached)


class _Watched(SlicedParams):
    """Weights of one step, whose inputs and whose outputs by heads are watched."""

    __slots__ = ("_watch",)

    def __init__(self, step: Step, tensors: torch.nn.Module, watch: _Watch) -> None:
        super().__init__(step, tensors)
        self._watch = watch

    def linear(self, x: torch.Tensor, name: str, bias: str | None = None) -> torch.Tensor:
        """A weight applied to the last axis."""
        shape = self._step.shapes[name]
        self._watch.see(self._step, name, len(shape) - 1, x)
        y = super().linear(x, name, bias)
        if len(shape) > 2:  # what is kept of each head is rounded by itself
            y = y.unflatten(-1, (-1, shape[-2]))
            self._watch.see(self._step, name, len(shape) - 2, y, cached=True)
            y = y.flatten(-2)
        return y

    def read(self, h: torch.Tensor, name: str, dims: tuple[str | None, ...]) -> torch.Tensor:
        """The weight applied to hidden units."""
        h = h.flatten(-len(dims))
        self._watch.see(self._step, name, len(self._step.shapes[name]) - 1, h)
        return F.linear(h, getattr(self, name).flatten(1))


def gather(
    turning: Turning,
    model: Standalone,
    batches: Iterable[torch.Tensor],
    *,
    act_bits: int,
    cache_bits: int,
    seed: int,
    rows: int = 128,
) -> dict[str, list[Rows]]:
    """The vectors that the layers of a model round, by the name of their basis; those of equal parts are joined.

    How much the loss depends on the error of a vector is the length of the loss's gradient by it, which is the same in
    every basis. Its square would be right for small errors (Fisher's matrix); those of 4 bits are large, and it would
    be the vectors of a few tokens alone that count.

    Args:
        turning: Says which bases there are; what is gathered is in the model's own.
        model: `turning.model({})`.
        batches: Token ids [B, T + 1].
        act_bits: Bits of what matrices read; from 16 on nothing is gathered of it.
        cache_bits: Bits of what is kept for later calls; likewise.
        seed: Of the draw of vectors.
        rows: How many vectors of each place are kept of a batch, at most.
    """
    plan, generator = turning.plan, torch.Generator().manual_seed(seed)
    owners = {s.weights: find_owner(model, s.weights) for s in plan.steps if s.shapes}
    outputs = {edge.source for edge in plan.outputs}
    known: dict[tuple[str, int], list[Rows]] = {}

    def forward(watch: _Watch) -> Callable[[torch.Tensor], torch.Tensor]:
        def params(step: Step) -> Any:
            owner = owners.get(step.weights, model)
            return SlicedParams(step, owner) if step.path in outputs else _Watched(step, owner, watch)

        def after(step: Step, p: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return tuple(x.requires_grad_() if x.is_floating_point() and x.is_leaf else x for x in given)

        return lambda ids: run_plan(plan, (ids,), params, after=after)

    model.requires_grad_(False)
    for ids in batches:
        watch = _Watch(turning)
        logits = forward(watch)(ids[:, :-1])
        F.cross_entropy(logits.flatten(0, -2).float(), ids[:, 1:].flatten(), reduction="sum").backward()
        for seen in watch.seen.values():
            bits = cache_bits if seen.cached else act_bits
            if bits <= INTEGER_BITS and seen.tensor.grad is not None:
                known.setdefault((seen.basis, seen.parts), []).append(_rows(seen, bits, rows, generator))
    model.requires_grad_(True)
    result: dict[str, list[Rows]] = {}
    for (name, _), parts in known.items():
        joined = Rows(torch.cat([p.vectors for p in parts]), torch.cat([p.weights for p in parts]))
        result.setdefault(name, []).append(joined)
    return result


def _rows(seen: _Seen, bits: int, most: int, generator: torch.Generator) -> Rows:
    vectors, slopes = seen.tensor.detach(), seen.tensor.grad
    assert slopes is not None
    vectors, slopes = (x.reshape(-1, x.shape[-1]) for x in (vectors, slopes))
    chosen = torch.randperm(len(vectors), generator=generator)[:most].to(vectors.device)
    share = len(vectors) / len(chosen)
    weights = slopes[chosen].norm(dim=-1) * share / ((1 << bits) - 1) ** 2
    return Rows(vectors[chosen].float().cpu().unflatten(-1, (seen.parts, -1)), weights.float().cpu())
