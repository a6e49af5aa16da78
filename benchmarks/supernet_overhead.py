"""What a supernet costs: at full size over a hand-written model, and half-size over the same model standing alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from common import arguments, in_turns, random_backbone, ratio, seconds, table, verdict
from torch import nn

from rankitect.models.families import axes

FULL, HALF = 1.03, 1.10
"""The largest ratios allowed."""


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=15, batch=4, context=128)
    from rankitect.models.backbone import Backbone
    from rankitect.search_spaces.mobile_llm import from_backbone
    from tests.models.reference import ReferenceLlama

    checkpoint = random_backbone(options.quick)
    backbone = Backbone(checkpoint, from_backbone(checkpoint.config))
    ids = torch.randint(0, checkpoint.config.vocab, (options.batch, options.context + 1))
    narrow, shallow = half_size(backbone)
    pairs: list[tuple[str, str, nn.Module, nn.Module, float]] = [
        (
            "full size",
            "hand-written Llama",
            backbone.supernet.activate(backbone.largest),
            ReferenceLlama.load(checkpoint),
            FULL,
        ),
        ("narrow half", "the same alone", backbone.supernet.activate(narrow), backbone.inherit(narrow), HALF),
        ("mixed half", "the same alone", backbone.supernet.activate(shallow), backbone.inherit(shallow), HALF),
    ]
    rows = []
    for name, other, inside, alone, limit in pairs:
        for kind, job in {"forward": forward, "forward and backward": step, "step with AdamW": adam_step}.items():
            times = in_turns({"inside": job(inside, ids), "alone": job(alone, ids)}, options.rounds, warm_up=2)
            value, text = ratio(times, "inside", "alone")
            goal = verdict(value, at_most=limit)
            rows.append((name, kind, seconds(times["inside"]), f"{other}: {seconds(times['alone'])}", text, goal))
            for model in (inside, alone):
                owner(model).zero_grad(set_to_none=True)
    table(
        f"Supernet, {options.batch} x {options.context} tokens",
        ("in the supernet", "job", "time", "against", "ratio", "target"),
        rows,
        "The AdamW of a subnet in a supernet updates all of the supernet's weights, so that row has no target.",
    )


def half_size(backbone: Any) -> tuple[Any, Any]:
    """Two architectures of about half the block FLOPs: every layer narrower, and layers of all kinds."""
    space, config = backbone.space, backbone.checkpoint.config
    values = dict(backbone.largest.choices)
    values |= dict.fromkeys(axes.paths(values, axes.FFN), config.ffn // 2)
    values |= dict.fromkeys(axes.paths(values, axes.QUERY_HEADS), max(1, config.query_heads - 1))
    narrow = space.architecture(values)
    rng = torch.Generator().manual_seed(0)
    mixed = {p: c.values[0] for p, c in space.choices.items()} | dict(backbone.largest.choices)
    for i in range(config.n_layers):
        draw = float(torch.rand((), generator=rng))
        mixed[axes.path(axes.FFN, i)] = (config.ffn // 2, config.ffn)[i % 2]
        mixed[axes.path(axes.KV_HEADS, i)] = 2 if i % 3 else config.n_kv_heads
        mixed[axes.path(axes.PATTERN, i)] = axes.SKIP if draw < 0.2 else axes.WINDOW if draw < 0.4 else axes.FULL
        mixed[axes.path(axes.RUNS, i)] = axes.DROPPED if i % 6 == 5 else axes.ONCE
    return narrow, space.architecture(mixed)


def owner(model: nn.Module) -> nn.Module:
    """The module that holds the weights."""
    held = getattr(model, "_supernet", None)
    return held[0] if held else model


def forward(model: nn.Module, ids: torch.Tensor) -> Callable[[], object]:
    """Logits without gradients."""

    def job() -> object:
        with torch.inference_mode():
            return model(ids[:, :-1])

    return job


def step(model: nn.Module, ids: torch.Tensor) -> Callable[[], object]:
    """Loss and gradients of all weights."""
    from rankitect.metrics.losses import cross_entropy

    def job() -> object:
        owner(model).zero_grad(set_to_none=True)
        loss = cross_entropy(model(ids[:, :-1]), ids[:, 1:])
        loss.backward()
        return loss

    return job


def adam_step(model: nn.Module, ids: torch.Tensor) -> Callable[[], object]:
    """Loss, gradients and update."""
    once = step(model, ids)
    optimizer = torch.optim.AdamW(owner(model).parameters(), lr=1e-6, fused=True)

    def job() -> object:
        loss = once()
        optimizer.step()
        return loss

    return job


if __name__ == "__main__":
    main()
