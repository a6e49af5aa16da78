"""Trying out on random numbers whether a block treats channels as its weights say (`rankitect.graph.rotation`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from rankitect.graph.quantized import FLOAT
from rankitect.graph.rotation import Channels, Side
from rankitect.models.plan import Step
from rankitect.models.weights import ParameterHolder, SlicedParams

__all__ = ["Facts", "Trial", "random_rotation", "turn_axis"]

_LARGE = 2**20
"""Elements above which a weight of a trial repeats one row, which is as good a trial and takes less time."""
_WIDEST = 16384
"""Channels of what is taken for a stream: the tokens that a head scores are none, and their rotation has no room."""
_TOLERANCE = 1e-4
"""Of a trial, relative to the largest output: a block may compute in float32, and a wrong claim errs by about 1."""


@dataclass
class Facts:
    """What a trial has shown of a step.

    Attributes:
        reads: For inputs that the step keeps, by number: the weights that sum over its channels, and nothing else
            looks at them.
        writes: The weights that give the output's channels, which nothing changes afterwards.
        same: The inputs whose basis the output has.
        gain: The weight that multiplies channels after a norm, and its value that changes nothing.
    """

    reads: dict[int, Side] = field(default_factory=dict)
    writes: Side = ()
    same: tuple[int, ...] = ()
    gain: tuple[str, float] | None = None


def random_rotation(n: int, generator: torch.Generator) -> torch.Tensor:
    """An orthogonal matrix [n, n] float64, uniformly drawn."""
    q, r = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))
    return q * r.diagonal().sign()


def turn_axis(tensor: torch.Tensor, rotation: torch.Tensor, axis: int) -> torch.Tensor:
    """A tensor with an axis multiplied by a matrix: channels c become c @ rotation."""
    if tensor.dim() > 1 and len(tensor) > 1 and tensor.stride(0) == 0 and axis % tensor.dim() != 0:  # one row, repeated
        return turn_axis(tensor[:1], rotation, axis).expand(tensor.shape)
    return (tensor.movedim(axis, -1) @ rotation).movedim(-1, axis)


class Trial:
    """A step on random weights and inputs.

    Args:
        step: The step.
        shapes: Of the inputs that it keeps.
        kinds: Of their numbers: "float" or "int".
    """

    def __init__(self, step: Step, shapes: Sequence[tuple[int, ...]], kinds: Sequence[str]) -> None:
        self._step = replace(step, numerics={}, act_bits=FLOAT, cache_bits=FLOAT)  # rounding is another in each basis
        self._random = torch.Generator().manual_seed(0)
        self._weights = {name: self._weight(shape) for name, shape in step.shapes.items()}
        self._inputs = [
            torch.randn(shape, dtype=torch.float64, generator=self._random)
            if kind == "float"
            else torch.zeros(shape, dtype=torch.int64)
            for shape, kind in zip(shapes, kinds, strict=True)
        ]

    def _weight(self, shape: tuple[int, ...]) -> torch.Tensor:
        large = torch.Size(shape).numel() > _LARGE
        part = (1, *shape[1:]) if large else shape
        weight = torch.randn(part, dtype=torch.float64, generator=self._random) * 0.3
        return weight.expand(shape)

    def facts(self, claims: Channels, neutral: Mapping[str, float]) -> Facts:
        """What holds of a block's claims.

        Args:
            claims: About all inputs of the node.
            neutral: For each weight the value that changes nothing, where it is a norm's gain.
        """
        with torch.inference_mode():
            try:
                return self._facts(claims, neutral)
            except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):  # the block's own code
                return Facts()

    def _facts(self, claims: Channels, neutral: Mapping[str, float]) -> Facts:
        facts, plain = Facts(), self._run({}, {})
        if not isinstance(plain, torch.Tensor) or not plain.is_floating_point() or not plain.dim():
            return facts
        positions = self._step.present
        reads = {i: self._held(claims.reads[p]) for i, p in enumerate(positions) if self._inputs[i].is_floating_point()}
        for i, side in reads.items():
            if side and self._same_if(plain, {i}, side, out=False):
                facts.reads[i] = side
        writes = self._held(claims.writes)
        if writes and self._same_if(plain, set(), writes, out=True):
            facts.writes = writes
        same = {i for i, p in enumerate(positions) if p in claims.same and i not in facts.reads}
        if same and (claims.gain is not None or not facts.writes):
            self._passes(facts, plain, claims, same, reads, writes, neutral)
        return facts

    def _passes(
        self, facts: Facts, plain: torch.Tensor, claims: Channels, same: set[int], reads: Mapping[int, Side],
        writes: Side, neutral: Mapping[str, float],
    ) -> None:  # fmt: skip
        """Find out whether the output has the basis of inputs, as a sum, a norm or a residual block has."""
        if claims.gain is not None and claims.gain in self._weights:
            weight, start = self._weights[claims.gain], neutral[claims.gain]
            ones = {claims.gain: torch.full_like(weight, start)}
            normed = self._run(ones, {})
            scaled = normed * (weight - start + 1)
            if _close(scaled, plain) and self._same_if(normed, same, (), out=True, weights=ones):
                facts.gain = claims.gain, start
            return
        touched = (*writes, *(touch for i in same for touch in reads.get(i, ())))
        if self._same_if(plain, same, touched, out=True):
            facts.same, facts.writes = tuple(sorted(same)), writes
            facts.reads |= {i: reads[i] for i in same if reads.get(i)}

    def _held(self, side: Side) -> Side:
        return tuple((name, axis) for name, axis in side if name in self._weights)

    def _same_if(
        self,
        plain: torch.Tensor,
        turned: set[int],
        side: Side,
        *,
        out: bool,
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> bool:
        """Whether the output is the same, or only turned (`out`), where inputs and axes of weights are turned."""
        widths = {self._inputs[i].shape[-1] for i in turned} | {self._weights[name].shape[a] for name, a in side}
        widths |= {plain.shape[-1]} if out else set()
        if len(widths) != 1 or max(widths) > _WIDEST:
            return False
        rotation = random_rotation(widths.pop(), self._random)
        other = dict(weights or {})
        for name, axis in side:
            other[name] = turn_axis(other.get(name, self._weights[name]), rotation, axis)
        result = self._run(other, {i: turn_axis(self._inputs[i], rotation, -1) for i in turned})
        return _close(result, turn_axis(plain, rotation, -1) if out else plain)

    def _run(self, weights: Mapping[str, torch.Tensor], inputs: Mapping[int, torch.Tensor]) -> torch.Tensor:
        holder = ParameterHolder()
        for name, weight in {**self._weights, **weights}.items():
            holder.register_parameter(name, nn.Parameter(weight, requires_grad=False))
        given = [inputs.get(i, x) for i, x in enumerate(self._inputs)]
        result: torch.Tensor = self._step.block.run(SlicedParams(self._step, holder), *given)
        return result


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= _TOLERANCE * other.abs().max().clamp_min(1e-9))
