"""Uniform pruning: what one gets without a search, the baselines that a search has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rankitect.domains.costs import cost_value
from rankitect.errors import ConfigError

if TYPE_CHECKING:
    from rankitect.graph import Architecture, SearchSpace

__all__ = ["uniform_depth", "uniform_width"]


def _nearest(
    space: SearchSpace, reference: Architecture, share: float, candidates: list[dict[str, Any]], context: int
) -> Architecture:
    whole = cost_value(space, reference, "block_flops", context)
    made = [space.architecture(c) for c in candidates]
    return min(made, key=lambda a: abs(cost_value(space, a, "block_flops", context) / whole - share))


def _everything(space: SearchSpace, reference: Architecture) -> dict[str, Any]:
    return {p: reference.choices.get(p, c.values[0]) for p, c in space.choices.items()}


def uniform_width(space: SearchSpace, reference: Architecture, share: float, context: int) -> Architecture:
    """One feed-forward width in every layer, the most important units kept, nearest to a share of the block FLOPs.

    The width of the last few layers is the next one where that brings the cost nearer.

    Raises:
        ConfigError: The smallest width still costs more than 1.02 times the share.
    """
    full = _everything(space, reference)
    paths = [p for p in space.choices if p.endswith(".ffn")]
    widths = sorted({int(v) for v in space.choices[paths[0]].values})  # type: ignore[arg-type]
    candidates = []
    for low, high in zip([widths[0], *widths], [widths[0], *widths[1:], widths[-1]], strict=True):
        for more in range(len(paths)):
            # spread the layers that keep the next width over the depth
            wide = {round(i * len(paths) / more) for i in range(more)} if more else set()
            candidates.append({**full, **{p: high if i in wide else low for i, p in enumerate(paths)}})
    found = _nearest(space, reference, share, candidates, context)
    cost = cost_value(space, found, "block_flops", context) / cost_value(space, reference, "block_flops", context)
    if cost > 1.02 * share:
        raise ConfigError(
            f"task.uniform: feed-forward width alone reaches {cost:.0%} of the block FLOPs, not {share:.0%}. "
            "Give larger shares, or task.uniform=[] for none."
        )
    return found


def uniform_depth(
    space: SearchSpace, reference: Architecture, share: float, influence: Mapping[str, float], context: int
) -> Architecture:
    """The layers of least block influence dropped (ShortGPT, arXiv 2403.03853), nearest to a share of the block FLOPs.

    At least one layer stays.
    """
    full = _everything(space, reference)
    order = sorted(influence, key=influence.__getitem__)
    candidates = [{**full, **{f"{scope}.runs": 0 for scope in order[:n]}} for n in range(len(order))]
    return _nearest(space, reference, share, candidates, context)
