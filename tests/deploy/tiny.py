"""A small language model with every kind of layer."""

from __future__ import annotations

import torch

from rankitect.graph import SearchSpace
from rankitect.models.supernet import Standalone, build
from rankitect.search_spaces.mobile_llm import mobile_llm

VOCAB = 64


def space(window: int = 6) -> SearchSpace:
    return mobile_llm(
        vocab=VOCAB, layers=4, widths=(64, 32), kv_heads=(1, 2), group=(1, 2), ffn=(64, 96), window=window, head=16
    )


def model(patterns: tuple[str, ...] = ("full", "swa", "skip"), window: int = 6, seed: int = 0) -> Standalone:
    made = space(window)
    choices: dict[str, object] = {"width": 64}
    for i in range(4):
        kind = patterns[i] if i < len(patterns) else "full"
        layer = {"runs": int(i < len(patterns)), "kv_heads": 2, "group": 2, "ffn": 96, "attn": kind}
        choices |= {f"layers.{i}.{name}": value for name, value in layer.items()}
    found = build(made, made.architecture(choices), seed).eval()
    with torch.no_grad():  # large enough that tokens differ clearly
        for parameter in found.parameters():
            parameter.mul_(2.0 if parameter.dim() > 1 else 1.0)
    return found


def ids(tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCAB, (1, tokens), generator=torch.Generator().manual_seed(seed))
