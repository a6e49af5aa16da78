"""What the ranking spaces have in common: towers of one architecture, and a weight for each id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, ParamSpec, cast

from rankitect.graph import Architecture, Graph, SearchSpace, Sum, Wire

if TYPE_CHECKING:
    from rankitect.data.ranking.features import Features

__all__ = ["average", "id_weights", "multi", "with_base"]

P = ParamSpec("P")


def with_base(build: Callable[P, SearchSpace]) -> Callable[P, SearchSpace]:
    """Gives the spaces that a function builds their base: the same space with the first number of `towers` alone."""

    @wraps(build)
    def based(*args: P.args, **kwargs: P.kwargs) -> SearchSpace:
        space = build(*args, **kwargs)
        given = signature(build).bind(*args, **kwargs)
        given.apply_defaults()
        towers = given.arguments["towers"]
        if len(towers) > 1:
            given.arguments["towers"] = towers[:1]
            space.base = cast("Callable[..., SearchSpace]", build)(*given.args, **given.kwargs)
            space.base.closed["towers"] = str(towers[0])
        return space

    return based


def average(g: Graph, counts: Sequence[int], tower: Callable[[], Wire]) -> Wire:
    """Towers of one architecture, each with weights of its own, whose logits are averaged: [B, 1].

    Several sets of embeddings, each with interactions of its own, are the multi-embedding of arXiv 2310.04400.

    Args:
        g: The graph; it gets a choice "towers" where there is more than one count.
        counts: How many there may be.
        tower: Builds one, to its logit [B, 1].
    """
    from rankitect.blocks import Scale

    logits = []
    for i in range(max(counts)):
        with g.replicate(i):
            logits.append(tower())

    def mean(count: int, *each: Wire) -> Wire:
        return Scale(1 / count)(Sum()(*each[:count], name="sum"), name="mean") if count > 1 else each[0]

    return g.oneof("towers", {str(n): partial(mean, n) for n in counts}, *logits) if len(logits) > 1 else logits[0]


def multi(space: SearchSpace, name: str, tower: Callable[[bool], Mapping[str, Any]]) -> dict[str, Architecture]:
    """A known ranker in several towers: as many narrow ones as there may be, and half as many of ordinary width.

    Args:
        space: Made with `average`.
        name: Of the ranker; "<name>_x8" is the one in eight towers.
        tower: The choices of one, narrow or not.

    Raises:
        SpaceError: The space has no such architecture.
    """
    counts = sorted(int(str(n)) for n in space.choices["towers"].values) if "towers" in space.choices else [1]
    return {
        f"{name}_x{count}": space.architecture({**tower(narrow), "towers": str(count)})
        for count, narrow in zip(reversed(counts), (True, False), strict=False)
        if count > 1
    }


def id_weights(features: Features, ids: Wire) -> Wire:
    """The sum of one weight for each id, zero at first: [B, S] -> [B, 1]; the wide part of Wide & Deep (1606.07792)."""
    from rankitect.blocks import Flatten, Tables, Total

    weights = Tables(features.rows, features.slots, 1, init="zeros")(ids, name="tables")
    return Total()(Flatten()(weights, name="flat"), name="total")
