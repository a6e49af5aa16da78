"""Uniform pruning: what one gets without a search, the baselines that a search has to beat."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from rankitect.errors import ConfigError
from rankitect.graph.quantized import FLOAT
from rankitect.models.families import axes
from rankitect.tasks.costs import cost_value

if TYPE_CHECKING:
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.space.choices import Choice

__all__ = [
    "depths",
    "few_bits",
    "in_bits",
    "nearest",
    "patterned",
    "uniform_baselines",
    "uniform_depth",
    "uniform_width",
    "widths",
]


_log = logging.getLogger("rankitect")

SHARES = (0.75, 0.6, 0.5)
"""Of the reference's block FLOPs, where the user gives none."""

Cost: TypeAlias = "Callable[[Architecture], float]"


def nearest(family: Iterable[Architecture], cost: Cost, target: float) -> Architecture:
    """The architecture of a family whose cost is nearest to a target."""
    return min(family, key=lambda a: abs(cost(a) - target))


def _everything(space: SearchSpace, reference: Architecture) -> dict[str, Any]:
    return {p: reference.choices.get(p, c.values[0]) for p, c in space.choices.items()}


def widths(space: SearchSpace, reference: Architecture) -> Iterator[Architecture]:
    """One feed-forward width in every layer, the most important units kept; narrowest first.

    Between two widths, more and more layers, spread over the depth, have the wider one. Where the layers of the
    backbone differ, all keep the same share of their own width, as nearly as their choices allow.
    """
    full = _everything(space, reference)
    paths = axes.paths(space.choices, axes.FFN)
    sizes = {path: sorted(int(v) for v in space.choices[path].values) for path in paths}  # type: ignore[arg-type]
    shares = [Fraction(size, own[-1]) for own in [max(sizes.values(), key=len)] for size in own]
    kept = [{p: min(own, key=lambda size: abs(size - share * own[-1])) for p, own in sizes.items()} for share in shares]
    for low, high in zip(kept, [*kept[1:], kept[-1]], strict=True):
        for more in range(len(paths)):
            wide = {round(i * len(paths) / more) for i in range(more)} if more else set()
            chosen = {p: (high if i in wide else low)[p] for i, p in enumerate(paths)}
            yield space.architecture({**full, **chosen})


def depths(space: SearchSpace, reference: Architecture, influence: Mapping[str, float]) -> Iterator[Architecture]:
    """More and more layers dropped, those of least block influence first (ShortGPT, arXiv 2403.03853); one stays."""
    full = _everything(space, reference)
    order = sorted(influence, key=influence.__getitem__)
    for n in range(len(order)):
        yield space.architecture({**full, **{axes.path(axes.RUNS, scope): axes.DROPPED for scope in order[:n]}})


def patterned(space: SearchSpace, reference: Architecture, layers: Iterable[int], pattern: str) -> Architecture:
    """The reference with another attention pattern in some layers."""
    changed = {axes.path(axes.PATTERN, i): pattern for i in layers}
    return space.architecture({**_everything(space, reference), **changed})


def uniform_width(space: SearchSpace, reference: Architecture, share: float, context: int) -> Architecture:
    """The member of `widths` nearest to a share of the reference's block FLOPs.

    Raises:
        ConfigError: The smallest width still costs more than 1.02 times the share.
    """
    return _narrowed(widths(space, reference), _relative(space, reference, context), share)


def _narrowed(family: Iterable[Architecture], cost: Cost, share: float) -> Architecture:
    """See `uniform_width`."""
    narrowed = nearest(family, cost, share)
    if (reached := cost(narrowed)) > 1.02 * share:
        raise ConfigError(
            f"task.uniform: feed-forward width alone reaches {reached:.0%} of the block FLOPs, not {share:.0%}. "
            "Give larger shares."
        )
    return narrowed


def uniform_depth(
    space: SearchSpace, reference: Architecture, share: float, influence: Mapping[str, float], context: int
) -> Architecture:
    """The member of `depths` nearest to a share of the reference's block FLOPs."""
    return nearest(depths(space, reference, influence), _relative(space, reference, context), share)


def uniform_baselines(
    space: SearchSpace,
    reference: Architecture,
    shares: Sequence[float] | None,
    influence: Mapping[str, float] | None,
    context: int,
) -> Iterator[tuple[str, Architecture]]:
    """The uniformly pruned models that a search is held against, with their names; then, where bits are open, the whole
    model and these in one number of bits. In a space that prunes nothing there are none of the former.

    Args:
        space: The space.
        reference: The whole model.
        shares: Of its block FLOPs, as far as width alone reaches them; what it does not reach is told in the log. None:
            `SHARES`, of which it is not.
        influence: Of each layer, to leave the least important out; None: no models of fewer layers.
        context: Tokens that FLOPs are counted at.
    """
    pruned = dict(_pruned(space, reference, shares, influence, context))
    yield from pruned.items()
    for bits in few_bits(space):
        for name, architecture in {"uniform": reference, **pruned}.items():
            yield f"{name} {bits} bits", in_bits(space, architecture, bits)


def few_bits(space: SearchSpace) -> list[int]:
    """The numbers of bits, of less than floats, that layers may have."""
    paths = [*axes.paths(space.choices, axes.FFN_BITS), *axes.paths(space.choices, axes.ATTENTION_BITS)]
    values = {int(v) for path in paths for v in space.choices[path].values}  # type: ignore[arg-type]
    return sorted((b for b in values if b < FLOAT), reverse=True)


def in_bits(space: SearchSpace, architecture: Architecture, bits: int) -> Architecture:
    """An architecture with all weights in so many bits, or in the next that a choice offers."""

    def nearest_of(choice: Choice) -> Any:
        values = sorted(int(v) for v in choice.values)  # type: ignore[arg-type]
        return next((v for v in values if v >= bits), values[-1])

    changed = {path: nearest_of(choice) for path, choice in space.choices.items() if axes.is_bits(path)}
    return space.architecture({**_everything(space, architecture), **changed})


def _pruned(
    space: SearchSpace,
    reference: Architecture,
    shares: Sequence[float] | None,
    influence: Mapping[str, float] | None,
    context: int,
) -> Iterator[tuple[str, Architecture]]:
    wanted, choices = SHARES if shares is None else shares, space.choices
    narrows = any(len(choices[path].values) > 1 for path in axes.paths(choices, axes.FFN))
    # Hundreds of widths, each counted once for all shares.
    family, cost = list(widths(space, reference)) if narrows else [], cache(_relative(space, reference, context))
    for share in wanted if narrows else ():
        try:
            yield f"uniform width {share:.0%}", _narrowed(family, cost, share)
        except ConfigError as error:
            if shares is not None:
                _log.warning("There is no baseline 'uniform width %.0f%%': %s", 100 * share, error)
    for share in wanted if influence is not None and axes.drops(choices) else ():
        yield f"uniform depth {share:.0%}", uniform_depth(space, reference, share, influence or {}, context)


def _relative(space: SearchSpace, reference: Architecture, context: int) -> Cost:
    whole = cost_value(space, reference, "block_flops", context)
    return lambda a: cost_value(space, a, "block_flops", context) / whole
