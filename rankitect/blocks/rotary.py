"""Rotary positions (RoPE, arXiv 2104.09864): the angles, how they are scaled to longer texts, and how heads are turned.

A scaling is a tuple: its name, then its numbers in the order in which the function of that name below takes them. Each
is what the model library `transformers` computes under the same name, in the same precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from inspect import signature
from typing import ClassVar

import torch
import torch.nn.functional as F

from rankitect.errors import SpaceError
from rankitect.graph import Call, Elementwise, Packing, Params

__all__ = ["SCALINGS", "Rope", "Scaling", "rotate", "turn"]

Scaling = tuple[str | float, ...]
"""A name of `SCALINGS` and the numbers that it takes; empty for none."""


def _plain(half: int, base: float) -> torch.Tensor:
    return 1.0 / (base ** (torch.arange(0, 2 * half, 2, dtype=torch.float32) / (2 * half)))


def _linear(half: int, base: float, tokens: int, factor: float) -> tuple[torch.Tensor, float]:
    """Positions divided by a factor (arXiv 2306.15595)."""
    return _plain(half, base) / factor, 1.0


def _dynamic(half: int, base: float, tokens: int, factor: float, original: float) -> tuple[torch.Tensor, float]:
    """A base that grows with the text once it is longer than the original context ("dynamic NTK")."""
    if tokens > original:
        base *= ((factor * tokens / original) - (factor - 1)) ** (2 * half / (2 * half - 2))
    return _plain(half, base), 1.0


def _llama3(
    half: int, base: float, tokens: int, factor: float, low: float, high: float, original: float
) -> tuple[torch.Tensor, float]:
    """Only long waves are divided by the factor, with a smooth passage (Llama 3.1, arXiv 2407.21783)."""
    frequency = _plain(half, base)
    wave = 2 * math.pi / frequency
    smooth = (original / wave - low) / (high - low)
    between = (1 - smooth) * frequency / factor + smooth * frequency
    scaled = torch.where(wave > original / low, frequency / factor, between)
    return torch.where(wave < original / high, frequency, scaled), 1.0


def _yarn(
    half: int,
    base: float,
    tokens: int,
    factor: float,
    original: float,
    fast: float,
    slow: float,
    attention: float,
    truncate: float,
) -> tuple[torch.Tensor, float]:
    """YaRN (arXiv 2309.00071): long waves are divided by the factor, and heads are scaled by `attention`."""

    def border(rotations: float) -> float:
        return half * math.log(original / (rotations * 2 * math.pi)) / math.log(base)

    first, last = border(fast), border(slow)
    if truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * half - 1)
    ramp = (torch.arange(half, dtype=torch.float32) - first) / (last - first if last != first else 0.001)
    kept = 1 - ramp.clamp(0, 1)
    frequency = _plain(half, base)
    powers = base ** (torch.arange(0, 2 * half, 2, dtype=torch.float32) / (2 * half))
    return 1.0 / (factor * powers) * (1 - kept) + frequency * kept, attention


SCALINGS: Mapping[str, Callable[..., tuple[torch.Tensor, float]]] = {
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
}
"""For each kind of scaling the function from half a head's size, base, length of the text in tokens and the scaling's
own numbers to the frequencies [half] and the factor of cosines and sines."""


class Rope(Elementwise):
    """Cosines and sines of rotary positions: ids [B, T] -> [2, T, half].

    Args:
        half: Half of a head's size.
        base: Of the frequencies.
        scaling: A name of `SCALINGS` with its numbers; empty for none.
    """

    ports: ClassVar[str] = "B T : int -> 2 T half"
    plain: ClassVar[tuple[str, ...]] = ("half", "scaling")
    half: int
    base: float = 10000.0
    scaling: Scaling = ()

    def __post_init__(self) -> None:
        if not self.scaling:
            return
        kind, *numbers = self.scaling
        known = SCALINGS.get(kind) if isinstance(kind, str) else None
        if known is None:
            raise SpaceError(f"Rope: scaling {kind!r} is unknown; allowed: {', '.join(SCALINGS)}")
        takes = list(signature(known).parameters)[3:]
        if len(numbers) != len(takes):
            raise SpaceError(f"Rope: scaling {kind!r} takes {', '.join(takes)}, not {len(numbers)} numbers")

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        ids = inputs[0]
        return self._table(ids.shape[1], ids.device)

    def packed(self, p: Params, packing: Packing, *inputs: torch.Tensor) -> torch.Tensor:
        """See `Block.packed`. Each row has positions of its own: [2, B, 1, T, half].

        Raises:
            SpaceError: The scaling depends on the length of each text.
        """
        positions = packing.positions
        tokens = int(positions.max()) + 1
        if self.scaling[:1] == ("dynamic",) and tokens > float(self.scaling[2]):
            raise SpaceError(
                f"Rope: scaling 'dynamic' turns texts of more than {self.scaling[2]:,.0f} tokens by their length, so "
                f"that texts of different lengths cannot be packed; there is one of {tokens:,}"
            )
        return self._table(tokens, positions.device)[:, positions].unsqueeze(2)

    def _table(self, tokens: int, device: torch.device) -> torch.Tensor:
        """[2, tokens, half]."""
        if self.scaling:
            kind, *numbers = self.scaling
            frequency, factor = SCALINGS[str(kind)](self.half, self.base, tokens, *numbers)
            frequency = frequency.to(device)
        else:
            frequency = self.base ** (-torch.arange(self.half, dtype=torch.float32, device=device) / self.half)
            factor = 1.0
        angle = torch.arange(tokens, dtype=torch.float32, device=device)[:, None] * frequency
        table = torch.stack([angle.cos(), angle.sin()])
        return table if factor == 1 else table * factor

    def deploy(self, p: Params, call: Call, *inputs: torch.Tensor) -> torch.Tensor:
        """See `Block.deploy`.

        Raises:
            SpaceError: The scaling depends on the length of the text, and a sequence may be longer than what it leaves
                alone: keys that are cached would have to be turned anew.
        """
        if self.scaling[:1] == ("dynamic",) and call.capacity > float(self.scaling[2]):
            raise SpaceError(
                f"Rope: a deployed program turns each key once, and scaling 'dynamic' turns all of them anew in texts "
                f"of more than {self.scaling[2]:,.0f} tokens; ask for a capacity of at most that, not {call.capacity:,}"
            )
        tokens = call.capacity if call.decode else inputs[0].shape[1]

        def table() -> torch.Tensor:
            return self._table(tokens, torch.device("cpu")).transpose(0, 1).flatten(1)

        rows = call.constant((self, tokens), table)
        if call.decode:
            rows = F.embedding(call.position, rows)
        return rows.view(-1, 2, self.half).permute(1, 0, 2)


def rotate(x: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    """Rotate the two halves of each head by the positions' angles: [B, H, T, h], [2, T, h/2] -> [B, H, T, h]."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = rope
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def turn(x: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    """What `rotate` gives, with slices that keep their axis, as mobile runtimes want them."""
    half = x.shape[-1] // 2
    left, right, cos, sin = x[..., :half], x[..., half:], rope[:1], rope[1:]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
