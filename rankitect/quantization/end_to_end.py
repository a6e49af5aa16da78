"""Rotations that are learned on a model's own loss with rounded activations and caches (SpinQuant, arXiv 2405.16406).

Weights stay where they are: what is rounded in another basis is turned there and back around the rounding, which costs
far less than to turn all weights at each step, and gives the same outputs. What is learned from is the divergence from
the model's own distributions in floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from rankitect.graph.quantized import INTEGER_BITS
from rankitect.models.numerics import levels_of
from rankitect.models.plan import Step, run_plan
from rankitect.models.supernet import Standalone
from rankitect.models.weights import SlicedParams, find_owner
from rankitect.quantization.cayley import CayleySGD
from rankitect.quantization.rotations import Turning
from rankitect.quantization.streams import Key

__all__ = ["learn_end_to_end", "rounded_logits", "rounded_loss"]


def rounded(x: torch.Tensor, bits: int) -> torch.Tensor:
    """What `rankitect.models.numerics.fake_tokens` gives, with the gradient of the range: an error grows with it."""
    if bits > INTEGER_BITS:  # more make no difference to a rotation
        return x
    least, most = levels_of(bits)
    low, high = x.amin(-1, keepdim=True).clamp_max(0), x.amax(-1, keepdim=True).clamp_min(0)
    scale = ((high - low) / (most - least)).clamp_min(1e-20)
    with torch.no_grad():
        zero = (least - (low / scale).round()).clamp(least, most)
        error = ((x / scale).round() + zero).clamp(least, most) - zero - x / scale
    return x + scale * error


class _Rounding(SlicedParams):
    """Weights of one step, whose inputs and caches are rounded in turned bases."""

    __slots__ = ("_bases", "_bits", "_done", "_read")

    def __init__(
        self, step: Step, tensors: torch.nn.Module, bases: Mapping[tuple[Key, int], torch.Tensor], bits: tuple[int, int]
    ) -> None:
        super().__init__(step, tensors)
        self._bases, self._bits = bases, bits
        self._read: tuple[torch.Tensor, torch.Tensor] | None = None
        self._done: set[int] = set()  # storages of what was rounded where it was written

    def _turned(self, x: torch.Tensor, name: str, axis: int, bits: int) -> torch.Tensor:
        """Rounded in the basis of a weight's axis: [..., k * n] with one range for all, or as it is without a basis."""
        basis = self._bases.get(((self._step.weights, name), axis))
        if basis is None:
            return rounded(x, bits)
        y = x.unflatten(-1, (-1, len(basis)))
        return (rounded((y @ basis).flatten(-2), bits).unflatten(-1, (-1, len(basis))) @ basis.T).flatten(-2)

    def linear(self, x: torch.Tensor, name: str, bias: str | None = None) -> torch.Tensor:
        """A weight applied to the last axis."""
        shape, (act_bits, cache_bits) = self._step.shapes[name], self._bits
        if self._read is None or self._read[0] is not x:
            self._read = x, self._turned(x, name, len(shape) - 1, act_bits)
        y = super().linear(self._read[1], name, bias)
        if len(shape) > 2 and ((self._step.weights, name), len(shape) - 2) in self._bases:
            y = self._turned(y.unflatten(-1, (-1, shape[-2])), name, len(shape) - 2, cache_bits).flatten(-2)
            self._done.add(y.untyped_storage().data_ptr())
        return y

    def read(self, h: torch.Tensor, name: str, dims: tuple[str | None, ...]) -> torch.Tensor:
        """The weight applied to hidden units."""
        turned = self._turned(h.flatten(-len(dims)), name, len(self._step.shapes[name]) - 1, self._bits[0])
        return F.linear(turned, getattr(self, name).flatten(1))

    def kept(self, x: torch.Tensor) -> torch.Tensor:
        """What a later call reads where `x` was kept for it."""
        return x if x.untyped_storage().data_ptr() in self._done else rounded(x, self._bits[1])


def rounded_logits(
    turning: Turning, model: Standalone, ids: torch.Tensor, rotations: Mapping[str, torch.Tensor], bits: tuple[int, int]
) -> torch.Tensor:
    """What the model with rounded activations gives, in bases that are turned."""
    bases = {touch: rotations[name] for name, axes in turning.axes.items() if name in rotations for touch in axes}
    plan = turning.plan
    owners = {s.weights: find_owner(model, s.weights) for s in plan.steps if s.shapes}
    outputs = {edge.source for edge in plan.outputs}

    def params(step: Step) -> Any:
        owner = owners.get(step.weights, model)
        return SlicedParams(step, owner) if step.path in outputs else _Rounding(step, owner, bases, bits)

    result: torch.Tensor = run_plan(plan, (ids,), params)
    return result


def rounded_loss(
    turning: Turning,
    model: Standalone,
    ids: torch.Tensor,
    target: torch.Tensor,
    rotations: Mapping[str, torch.Tensor],
    bits: tuple[int, int],
) -> torch.Tensor:
    """The mean divergence of the rounded model's distributions from others, nats a token.

    Args:
        turning: The model, ready to be turned.
        model: `turning.model({})`.
        ids: Tokens [B, T].
        target: Log-probabilities [B, T, V] of the model in floats.
        rotations: By the name of the basis.
        bits: Of activations, and of caches.
    """
    scores = rounded_logits(turning, model, ids, rotations, bits).log_softmax(-1)
    return F.kl_div(scores, target, reduction="none", log_target=True).sum(-1).mean()


def learn_end_to_end(
    turning: Turning,
    model: Standalone,
    batches: Sequence[torch.Tensor],
    start: Mapping[str, torch.Tensor],
    *,
    bits: tuple[int, int],
    steps: int,
    length: float = 0.03,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> dict[str, torch.Tensor]:
    """Rotations under which the rounded model gives what the model in floats does.

    Args:
        turning: The model, ready to be turned.
        model: `turning.model({})`.
        batches: Tokens [B, T], taken in turns.
        start: Where to begin, by the name of the basis.
        bits: Of activations, and of caches.
        steps: Steps of descent, whose length falls to 0 (cosine).
        length: Of the first step; see `CayleySGD`.
        progress: Called after each step with its number and its loss; raises to stop.
    """
    descents = {name: CayleySGD(rotation.float(), momentum=0.6) for name, rotation in start.items()}
    targets: dict[int, torch.Tensor] = {}
    model.requires_grad_(False)
    for step in range(steps):
        number = step % len(batches)
        ids = batches[number]
        if number not in targets:
            with torch.no_grad():
                targets[number] = model(ids).log_softmax(-1)
        rotations = {name: d.rotation.detach().to(ids.device).requires_grad_() for name, d in descents.items()}
        loss = rounded_loss(turning, model, ids, targets[number], rotations, bits)
        slopes = torch.autograd.grad(loss, list(rotations.values()), allow_unused=True)
        share = length * 0.5 * (1 + math.cos(math.pi * step / steps))
        for descent, slope in zip(descents.values(), slopes, strict=True):
            if slope is not None:
                descent.step(slope.cpu(), share)
        progress(step + 1, float(loss.detach()))
    model.requires_grad_(True)
    return {name: descent.rotation.double() for name, descent in descents.items()}
