"""`ranking_engineered`: the space that an engineer opens around a production ranker.

Embedding tables by group of features, a bottom MLP on the numbers, the known interactions (dot products, cross network,
factorization machine, self-attention), a top MLP and a wide part. Open are all depths and widths, the rank and kind of
the cross network, the embedding width of each group and how it is brought to the common width, which of these parts
feed the top MLP, and which of them feed the logit. DLRM, DCN-V2, DeepFM, AutoInt, Wide&Deep and logistic regression are
points of it (`rankitect.search_spaces.ranking_points` has them by name).

The whole may stand there more than once: towers of one architecture, each with tables and weights of its own, whose
logits are averaged (several sets of embeddings with interactions of their own: multi-embedding, arXiv 2310.04400).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from rankitect.config.quantities import Size
from rankitect.contracts.task import HasFeatures
from rankitect.errors import SpaceError
from rankitect.graph import Architecture, B, Choice, Graph, SearchSpace, Wire
from rankitect.search_spaces.ranking_parts import average, id_weights, multi, with_base

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.data.ranking.features import Features

__all__ = ["LOGIT_PARTS", "POINTS", "TOP_PARTS", "RankingEngineered", "point", "ranking_engineered"]

TOP_PARTS = ("raw", "bottom", "dot", "cross", "fm", "attention")
"""What may feed the top MLP: `raw` is the numbers beside all embeddings."""
LOGIT_PARTS = ("top", "cross", "fm", "attention", "wide", "dot")
"""What may feed the logit."""
POINTS = {
    "lr": ((), ("wide",)),
    "wide_deep": (("raw",), ("top", "wide")),
    "deepfm": (("raw",), ("top", "fm", "wide")),
    "dlrm": (("bottom", "dot"), ("top",)),
    "dcnv2": (("raw",), ("top", "cross")),
    "autoint": (("raw",), ("top", "attention")),
}
"""What feeds the top MLP and what the logit sums, by model: logistic regression; Wide & Deep (arXiv 1606.07792); DeepFM
(1703.04247); DLRM (1906.00091); DCN-V2 in parallel (2008.13535); AutoInt+ (1810.11921)."""


@with_base
def ranking_engineered(
    features: Features,
    embedding: Sequence[int] = (16, 8, 4),
    width: Sequence[int] = (16, 8),
    group_rows: Sequence[int] = (1000,),
    bottom_layers: int = 2,
    bottom: Sequence[int] = (64, 128, 32),
    top_layers: int = 3,
    top: Sequence[int] = (128, 256, 64, 32),
    cross_layers: Sequence[int] = (2, 1, 3),
    cross_kinds: Sequence[str] = ("low_rank", "full"),
    ranks: Sequence[int] = (32, 64, 16),
    attention_layers: Sequence[int] = (1, 2, 3),
    heads: Sequence[int] = (2, 4),
    head: int = 8,
    towers: Sequence[int] = (1, 2, 4, 8),
) -> SearchSpace:
    """The space of rankers that combine known interactions, with the named models of `POINTS` as its points.

    Args:
        features: The data's features.
        embedding: Widths of the tables of a group.
        width: Widths of a field in interactions, one choice for all.
        group_rows: Bounds between the groups: features of at most so many rows are in one group.
        bottom_layers: The most layers of the MLP on numbers, before its last, which has the interactions' width.
        bottom: Widths of those layers.
        top_layers: The most layers of the top MLP.
        top: Widths of those layers.
        cross_layers: Depths of the cross network.
        cross_kinds: "full" (a whole matrix) and "low_rank".
        ranks: Ranks of the cross network, one choice for all layers.
        attention_layers: Depths of the self-attention.
        heads: Numbers of attention heads, one choice for all layers.
        head: Size of a head.
        towers: How many copies of the whole ranker there may be: one architecture, and weights of its own for each.

    Raises:
        SpaceError: There is no categorical feature.
    """
    from rankitect.blocks import Concat, Flatten

    if not features.categorical:
        raise SpaceError("ranking_engineered: the data have no categorical feature, and there is nothing to embed")
    g = Graph("ranking_engineered")
    numeric = g.input("numeric", B, len(features.numeric))
    ids = g.input("ids", B, sum(features.slots), dtype="int")

    def tower() -> Wire:
        common = g.choice("width", width)
        fields = _embeddings(g, ids, features, common, embedding, group_rows)
        flat = Flatten("width" if len(common.values) > 1 else "fields")
        raw = flat(fields, name="flat")
        parts: dict[str, Wire] = {}
        joined = fields
        if features.numeric:
            raw = Concat()(numeric, raw, name="raw")
            parts["bottom"], joined = _bottom(g, numeric, fields, common, bottom, bottom_layers)
        parts["raw"] = raw
        parts |= _interactions(g, fields, joined, heads, head, attention_layers)
        parts["attention"] = flat(parts["attention"], name="attended")
        parts["cross"] = _cross(g, raw, cross_kinds, cross_layers, ranks)
        return _logit(g, numeric, ids, features, parts, top, top_layers)

    g.out = average(g, towers, tower)
    space = SearchSpace(g, version="3")
    for name in POINTS:
        try:
            space.points[name] = point(space, name, features)
            if name != "lr":
                space.points |= multi(space, name, partial(_thin, space, space.points[name]))
        except SpaceError:
            continue  # a part that these settings leave out
    return space


def _thin(space: SearchSpace, architecture: Architecture, narrow: bool) -> dict[str, Any]:
    """A tower's choices: MLPs of one layer and crosses of low rank, of the first size or of the smallest."""
    values = {path: architecture.get(path, choice.values[0]) for path, choice in space.choices.items()}
    for path, choice in space.choices.items():
        if path.startswith(("top.width", "bottom.width", "cross.", "attention.")) and path != "cross.kind":
            values[path] = min(choice.values) if narrow else choice.values[0]
        elif path in ("top.layers", "bottom.layers"):
            values[path] = choice.values[0]
    if "cross.kind" in values and "low_rank" in space.choices["cross.kind"].values:
        values["cross.kind"] = "low_rank"
    return values


def feature_groups(rows: Sequence[int], bounds: Sequence[int]) -> dict[str, list[int]]:
    """Positions of the features by size of their tables, from small to large; empty groups are left out.

    >>> feature_groups([5, 90, 4000], [100])
    {'group0': [0, 1], 'group1': [2]}
    """
    edges = [0, *sorted(bounds), max(rows) + 1]
    groups = [[i for i, n in enumerate(rows) if low < n <= high] for low, high in pairwise(edges)]
    return {f"group{i}": group for i, group in enumerate(g for g in groups if g)}


def _embeddings(
    g: Graph, ids: Wire, features: Features, common: Choice, widths: Sequence[int], bounds: Sequence[int]
) -> Wire:
    """Fields of the common width, [B, F, width], group after group."""
    from rankitect.blocks import Join, Linear, Pad, Tables
    from rankitect.blocks.tables import columns_of

    joined: Wire | None = None
    for name, members in feature_groups(features.rows, bounds).items():
        with g.inside(f"tables.{name}"):
            rows, slots = ([sizes[i] for i in members] for sizes in (features.rows, features.slots))
            own = g.choice("width", widths)
            columns = columns_of(features.slots, members)
            table = Tables(tuple(rows), tuple(slots), own, columns)(ids, name="embedding")
            if own.values == common.values and len(own.values) == 1:
                projected = table
            else:
                projected = g.oneof("projection", {"pad": Pad(common), "linear": Linear(common)}, table)
                fits = own.le(common)
                if fits != 1:
                    pad = g.choices[f"tables.{name}.projection"].is_("pad")
                    g.require(~pad | fits, f"tables.{name}: only a narrower embedding can be padded")
        joined = projected if joined is None else Join()(joined, projected, name="fields")
    assert joined is not None
    return joined


def _bottom(
    g: Graph, numeric: Wire, fields: Wire, common: Choice, widths: Sequence[int], layers: int
) -> tuple[Wire, Wire]:
    """The MLP on numbers, [B, width], and the fields with that as one more, the first."""
    from rankitect.blocks import AsField, Join, Linear

    with g.inside("bottom"):
        outs = [numeric, *_mlp(g, [numeric], widths, layers)]
        last = Linear(common, "relu")(*g.pick("layers", outs, most=1), name="last")
        return last, Join()(AsField()(last, name="field"), fields, name="joined")


def _mlp(g: Graph, inputs: Sequence[Wire], widths: Sequence[int], layers: int) -> list[Wire]:
    """The outputs of each layer."""
    from rankitect.blocks import Linear

    outs: list[Wire] = []
    for i in range(layers):
        wires = outs[-1:] or list(inputs)
        outs.append(Linear(g.choice(f"width{i}", widths), "relu")(*wires, name=f"layer{i}"))
    return outs


def _interactions(
    g: Graph, fields: Wire, joined: Wire, heads: Sequence[int], head: int, layers: Sequence[int]
) -> dict[str, Wire]:
    """Dot products (with the numbers), factorization machine and self-attention."""
    from rankitect.blocks import FM, Activation, Dot, FieldAttention, Linear

    with g.inside("attention"):
        count = g.choice("heads", heads)
        depth = g.choice("layers", layers)

        def layer(i: int, x: Wire) -> Wire:
            kept = Linear(x.type[-1], bias=False)(x, name="residual")
            return Activation()(FieldAttention(count, head)(x, name="attention") + kept, name="relu")

        attended = g.repeat("stack", depth, layer, fields)
    return {"dot": Dot()(joined, name="dot"), "fm": FM()(fields, name="fm"), "attention": attended}


def _cross(g: Graph, raw: Wire, kinds: Sequence[str], layers: Sequence[int], ranks: Sequence[int]) -> Wire:
    """The cross network, whose layers are all of one kind."""
    from rankitect.blocks import Cross, LowRankCross

    with g.inside("cross"):
        depth = g.choice("layers", layers)

        def full(x0: Wire) -> Wire:
            return g.repeat("stack", depth, lambda i, x: Cross()(x0, x, name="cross"), x0)

        def low_rank(x0: Wire) -> Wire:
            rank = g.choice("rank", ranks)
            return g.repeat("stack", depth, lambda i, x: LowRankCross(rank)(x0, x, name="cross"), x0)

        networks = {"full": full, "low_rank": low_rank}
        if unknown := [kind for kind in kinds if kind not in networks]:
            raise SpaceError(f"ranking_engineered: cross_kinds has {unknown[0]!r}; allowed: {', '.join(networks)}")
        return g.oneof("kind", {kind: networks[kind] for kind in kinds}, raw)


def _logit(
    g: Graph,
    numeric: Wire,
    ids: Wire,
    features: Features,
    parts: Mapping[str, Wire],
    widths: Sequence[int],
    layers: int,
) -> Wire:
    """The top MLP on what it picks, and the logit, the sum of what it picks."""
    from rankitect.blocks import Linear, Total
    from rankitect.graph import Sum

    with g.inside("top"):
        picked = g.pick("from", [parts[name] for name in top_parts(features)])
        top = Linear(1)(*g.pick("layers", _mlp(g, picked, widths, layers), most=1), name="logit")
    with g.inside("wide"):
        wide = id_weights(features, ids)
        wide = wide + Linear(1)(numeric, name="numeric") if features.numeric else wide
    with g.inside("logit"):
        ends = {
            "top": top,
            "cross": Linear(1)(parts["cross"], name="cross"),
            "fm": Total()(parts["fm"], name="fm"),
            "attention": Linear(1)(parts["attention"], name="attention"),
            "wide": wide,
            "dot": Linear(1)(parts["dot"], name="dot"),
        }
        return Sum()(*g.pick("from", [ends[name] for name in LOGIT_PARTS]), name="sum")


def top_parts(features: Features) -> tuple[str, ...]:
    """What may feed the top MLP, in the order of the choice `top.from`."""
    return tuple(name for name in TOP_PARTS if features.numeric or name != "bottom")


def point(space: SearchSpace, name: str, features: Features) -> Architecture:
    """A named model in a `ranking_engineered` space, at each choice's first value that allows it.

    Args:
        space: The space.
        name: A key of `POINTS`.
        features: The features that the space was made for.

    Raises:
        SpaceError: The name is unknown, or the space lacks a part.
    """
    if name not in POINTS:
        raise SpaceError(f"unknown model {name!r} of ranking_engineered; known: {', '.join(POINTS)}")
    inputs, ends = POINTS[name]
    parts = top_parts(features)
    values = {path: choice.values[0] for path, choice in space.choices.items()}
    values["top.from"] = tuple(parts.index(part) for part in inputs if part in parts) or (0,)
    values["logit.from"] = tuple(sorted(LOGIT_PARTS.index(part) for part in ends))
    for path in ("top.layers", "bottom.layers"):
        if path in values:
            values[path] = space.choices[path].values[-1]  # all of the layers
    if "cross.kind" in values and "full" in space.choices["cross.kind"].values:
        values["cross.kind"] = "full"
    return space.architecture(values)


class RankingEngineered:
    """The space `ranking_engineered` of a task's features, as a configuration names it."""

    class Config(BaseModel):
        """Keys of `space`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        embedding: list[Size] = Field([16, 8, 4], min_length=1, description="widths of a group's embedding tables")
        width: list[Size] = Field([16, 8], min_length=1, description="widths of a field in interactions")
        group_rows: list[Annotated[int, Field(ge=0, le=2**31)]] = Field(
            [1000], description="bounds, in table rows, between groups of features"
        )
        bottom_layers: int = Field(
            2, ge=1, le=1000, description="the most layers of the MLP on numbers, before its last"
        )
        bottom: list[Size] = Field([64, 128, 32], min_length=1, description="widths of those layers")
        top_layers: int = Field(3, ge=1, le=1000, description="the most layers of the top MLP")
        top: list[Size] = Field([128, 256, 64, 32], min_length=1, description="widths of those layers")
        cross_layers: list[Size] = Field([2, 1, 3], min_length=1, description="depths of the cross network")
        cross_kinds: list[str] = Field(
            ["low_rank", "full"], min_length=1, description="matrices of the cross network: low_rank, full"
        )
        ranks: list[Size] = Field([32, 64, 16], min_length=1, description="ranks of the cross network")
        attention_layers: list[Size] = Field([1, 2, 3], min_length=1, description="depths of the self-attention")
        heads: list[Size] = Field([2, 4], min_length=1, description="attention heads of a layer")
        head: int = Field(8, ge=1, le=4096, description="size of an attention head")
        towers: list[Size] = Field(
            [1, 2, 4, 8], min_length=1, description="how often the whole stands there, with the logits averaged"
        )

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> SearchSpace:
        """The space for the task's features."""
        return ranking_engineered(parts.require(HasFeatures, "space").features, **config.model_dump())
