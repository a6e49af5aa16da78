"""What fewer bits cost, choice by choice, before any search: how far the next-token distributions of the backbone move.

Each choice of bits is changed alone and the divergence from the backbone measured on a few hundred tokens of training
text. What stands before the changed block is computed once for all.

Activations and caches are not rounded meanwhile, save where a choice decides how they are: which way each value is
rounded depends on its last digits, so that any change before it would count as much as all the rounding behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from rankitect.graph.quantized import FLOAT
from rankitect.models.families import axes
from rankitect.models.plan import Plan, Step, run_plan
from rankitect.models.weights import SlicedParams, find_owner

if TYPE_CHECKING:
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.models.supernet import Supernet

__all__ = ["TOKENS", "bit_choices", "divergences"]

TOKENS = 512
"""Tokens on which divergences are measured."""


def bit_choices(space: SearchSpace) -> list[str]:
    """The choices of a space that decide bits and have several values."""
    return [path for path, choice in space.choices.items() if axes.is_bits(path) and len(choice.values) > 1]


class _Reference:
    """The backbone on some text: what every step gives, and the distributions at the end."""

    def __init__(self, supernet: Supernet, architecture: Architecture, ids: torch.Tensor) -> None:
        self.supernet, self._as_is = supernet, supernet.plan(architecture)
        self.plan = replace(self._as_is, steps=tuple(_unrounded(step, step) for step in self._as_is.steps))
        self.values: dict[str, torch.Tensor] = dict.fromkeys(self.plan.inputs, ids)

        def note(step: Step, p: Any, outputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            self.values[step.path] = outputs[0]
            return outputs

        logits = run_plan(self.plan, [ids], self._params, after=note)
        self.log_chances = logits.float().log_softmax(-1)

    def _params(self, step: Step) -> SlicedParams:
        weights = self.supernet.weights
        return SlicedParams(step, find_owner(weights, step.weights) if step.shapes else weights)

    def divergence(self, architecture: Architecture) -> float:
        """The mean divergence of an architecture's distributions that differs in numbers alone, nats a token."""
        steps = self.supernet.plan(architecture).steps
        pairs = list(zip(steps, self._as_is.steps, strict=True))
        first = next((i for i, (new, old) in enumerate(pairs) if _numbers(new) != _numbers(old)), len(steps))
        rest = tuple(_unrounded(new, old) for new, old in pairs[first:])
        inside = {step.path for step in rest}
        given = list(dict.fromkeys(e.source for s in rest for e in s.edges if e.source not in inside))
        given += [e.source for e in self.plan.outputs if e.source not in (*inside, *given)]
        logits = run_plan(Plan(tuple(given), rest, self.plan.outputs), [self.values[p] for p in given], self._params)
        moved = self.log_chances - logits.float().log_softmax(-1)
        return float((self.log_chances.exp() * moved).sum(-1).mean())


def _unrounded(step: Step, other: Step) -> Step:
    """A step without the rounding of activations and caches that it shares with another."""
    act = FLOAT if step.act_bits == other.act_bits else step.act_bits
    return replace(step, act_bits=act, cache_bits=FLOAT if step.cache_bits == other.cache_bits else step.cache_bits)


def _numbers(step: Step) -> tuple[Any, ...]:
    return step.path, dict(step.numerics), step.act_bits, step.cache_bits


@torch.inference_mode()
def divergences(
    supernet: Supernet,
    reference: Architecture,
    ids: torch.Tensor,
    choices: list[str],
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[str, list[float]]:
    """How far the distributions move at each value of some choices of bits, all else as in a reference.

    Args:
        supernet: The backbone's weights.
        reference: The backbone, or what is to be compared with.
        ids: Tokens [B, T].
        choices: Of bits.
        check: Called between measurements; raises to stop.
        progress: Called with (done, total, note) between choices.

    Returns:
        Kullback-Leibler divergences from the reference by choice, nats a token, in the order of its values.
    """
    space, at = supernet.space, _Reference(supernet, reference, ids)
    whole: Mapping[str, Any] = reference.choices
    moved: dict[str, list[float]] = {}
    for done, path in enumerate(choices):
        progress(done, len(choices), f"what {path} costs")
        moved[path] = []
        for value in space.choices[path].values:
            check()
            same = path not in whole or value == whole[path]
            changed = reference if same else space.architecture({**whole, path: value})
            moved[path].append(0.0 if same else max(0.0, at.divergence(changed)))
    return moved
