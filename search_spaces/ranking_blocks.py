"""`ranking_blocks`: rankers composed from low-level blocks, from the raw features to the logit.

A chain of blocks, each of which gives a vector and a set of fields. Every block chooses an operator for its vector and
one for its fields, the widths, and which earlier outputs, raw features included, go into them. With seven blocks and
NASRec's widths (`rankitect.search_spaces.nasrec`) it is NASRec-Full (arXiv 2207.07187), to which it adds the low-rank
cross network (arXiv 2008.13535), a linear layer on flattened fields, a weight for each id in the logit, identity and
zero, and towers: the whole several times, with weights and tables of its own, the logits averaged (arXiv 2310.04400).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.config.quantities import Size
from rankitect.contracts.task import HasFeatures
from rankitect.errors import SpaceError
from rankitect.graph import Architecture, B, Block, Candidate, Choice, Graph, SearchSpace, Wire, Zero
from rankitect.search_spaces.ranking_parts import average, id_weights, multi, with_base

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.data.ranking.features import Features

__all__ = ["DENSE_OPS", "FIELD_OPS", "RankingBlocks", "ranking_blocks"]

DENSE_OPS = ("linear", "flat", "dot", "gate", "sum", "cross", "identity", "zero")
"""Operators of a block's vector. `flat` is a linear layer on all channels of all fields, beside the vectors."""
FIELD_OPS = ("linear", "attention", "identity", "zero")
"""Operators of a block's fields."""
NORM_EPS = 0.3
"""Added to variances by layer norms. Embeddings start small (deviation 0.02); with a usual 1e-5 the norms behind them
would blow their random start up to unit scale, which a model learns by heart before the embeddings have moved."""
EXTRA = 8
"""Fields that a block's vector may be turned into (NASRec's dense-to-sparse merger)."""


@dataclass(frozen=True)
class _Sizes:
    """The options of each block, with the names of `ranking_blocks`; and how many channels the tables' fields have in
    all, by which the linear layer of `flat` starts as if it stood beside them."""

    widths: Sequence[int]
    counts: Sequence[int]
    pairs: Sequence[int]
    ranks: Sequence[int]
    heads: Sequence[int]
    head: int
    dense_ops: Sequence[str]
    field_ops: Sequence[str]
    most: int
    eps: float
    channels: int

    def norm(self, act: str = "none") -> Block:
        """Layer norm of a vector."""
        from rankitect.blocks import LayerNorm

        return LayerNorm(act, self.eps)

    def field_norm(self, act: str = "none") -> Block:
        """Layer norm over the fields."""
        from rankitect.blocks import FieldNorm

        return FieldNorm(act, self.eps)


@with_base
def ranking_blocks(
    features: Features,
    blocks: int = 4,
    embedding: Sequence[int] = (16,),
    widths: Sequence[int] = (64, 32, 128),
    counts: Sequence[int] = (16, 8, 32),
    pairs: Sequence[int] = (8, 16),
    ranks: Sequence[int] = (16, 64),
    heads: Sequence[int] = (2, 4),
    head: int = 8,
    dense_ops: Sequence[str] = DENSE_OPS,
    field_ops: Sequence[str] = FIELD_OPS,
    most: int = 4,
    wide: Sequence[str] = ("yes", "no"),
    towers: Sequence[int] = (1, 2, 4),
    eps: float = NORM_EPS,
) -> SearchSpace:
    """The space of rankers in `blocks` blocks, with the known rankers that it holds as its points.

    Args:
        features: The data's features.
        blocks: Length of the chain.
        embedding: Widths of the embedding tables, one choice for all.
        widths: Widths of a block's vector.
        counts: Numbers of a block's fields.
        pairs: Numbers of fields whose pairwise dot products are taken.
        ranks: Ranks of cross networks.
        heads: Numbers of attention heads.
        head: Size of a head.
        dense_ops: Operators of vectors, from `DENSE_OPS`.
        field_ops: Operators of fields, from `FIELD_OPS`.
        most: Inputs of an operator that takes any number.
        wide: Whether the logit has a weight for each id ("yes", "no").
        towers: How many copies of the whole ranker there may be: one architecture, and weights of its own for each.
        eps: Added to the variances of layer norms; see `NORM_EPS`.

    Raises:
        SpaceError: An operator is unknown, there is no operator but "zero", or no categorical feature.
    """
    _check_ops(dense_ops, field_ops)
    if not features.categorical:
        raise SpaceError("ranking_blocks: the data have no categorical feature, and there is nothing to embed")
    g = Graph("ranking_blocks")
    numeric = g.input("numeric", B, len(features.numeric))
    ids = g.input("ids", B, sum(features.slots), dtype="int")
    channels = len(features.categorical) * max(embedding)
    sizes = _Sizes(widths, counts, pairs, ranks, heads, head, dense_ops, field_ops, most, eps, channels)

    def tower() -> Wire:
        logit = _tower(g, numeric, ids, features, blocks, embedding, sizes)
        kinds: dict[str, Candidate] = {"yes": partial(id_weights, features), "no": Zero()}
        return logit + g.oneof("wide", {name: kinds[name] for name in wide}, ids) if "yes" in wide else logit

    g.out = average(g, towers, tower)
    space = SearchSpace(g, version="3")
    space.points.update(_points(space, features, blocks))
    return space


def _tower(
    g: Graph, numeric: Wire, ids: Wire, features: Features, blocks: int, embedding: Sequence[int], sizes: _Sizes
) -> Wire:
    """One whole ranker, to its logit without the weights of ids: [B, 1]."""
    from rankitect.blocks import FlatLinear, Linear, Tables

    width = g.choice("embedding", embedding)
    tables = Tables(features.rows, features.slots, width)(ids, name="tables")
    vectors = [numeric if features.numeric else FlatLinear(max(sizes.widths))(tables, name="stem")]
    fields: list[Wire] = [tables]
    extras: list[Wire] = []
    for i in range(blocks):
        with g.inside(f"block{i}"):
            vector, own, extra = _block(g, width, vectors, fields, extras, sizes)
            vectors.append(vector)
            fields.append(own)
            extras.append(extra)
    flat = FlatLinear(1, bias=False)(fields[-1].always(), extras[-1], name="flat")
    return Linear(1)(vectors[-1], name="head") + flat


def _block(
    g: Graph, embedding: Choice, vectors: Sequence[Wire], fields: Sequence[Wire], extras: Sequence[Wire], sizes: _Sizes
) -> tuple[Wire, Wire, Wire]:
    """One block of the chain.

    Args:
        g: The graph, inside of the block's scope.
        embedding: Width of a field.
        vectors: What the numbers and every earlier block gave as a vector.
        fields: What the tables and every earlier block gave as fields.
        extras: The fields that each earlier block has made of its vector, if it does; they come along with its fields.
        sizes: What it may be made of.

    Returns:
        Its vector, its fields, and the fields made of its vector.
    """
    from rankitect.blocks import ToFields

    with g.inside("fields"):
        chosen = g.subset("from", len(fields), most=sizes.most)
        picked = [wire.when(chosen.has(i)) for i, wire in enumerate(fields)]
        picked += [wire.when(chosen.has(i)) for i, wire in enumerate(extras, start=1)]  # the tables have none
        own = _fields(g, embedding, picked, g.choice("count", sizes.counts), sizes)
    with g.inside("dense"):
        width = g.choice("width", sizes.widths)
        vector = _vector(g, embedding, vectors, picked, width, sizes)
        merged = vector + _pairwise(g, own, width, sizes)
    turned = g.choice("to_fields", ["no", "yes"]).is_("yes")
    extra = ToFields(EXTRA, embedding)(vector.always(), name="to_fields")
    return merged, own, sizes.norm()(extra, name="to_fields_norm").when(turned)


def _vector(
    g: Graph, embedding: Choice, vectors: Sequence[Wire], fields: Sequence[Wire], width: Choice, sizes: _Sizes
) -> Wire:
    """The vector of a block, from earlier vectors and the picked fields."""
    from rankitect.blocks import (
        AsField,
        Dot,
        FieldLinear,
        FlatLinear,
        Gate,
        Join,
        Linear,
        LowRankCross,
        Pad,
        TiedLinear,
    )  # fmt: skip

    picked = g.pick("from", vectors, most=sizes.most)
    # Operators of two vectors choose each by itself; where none of them is offered, there is no such choice.
    binary = {"gate", "sum", "cross"} & set(sizes.dense_ops)
    one, other = (g.pick(side, vectors, most=1) if binary else [] for side in ("left", "right"))

    def linear(*xs: Wire) -> Wire:
        return sizes.norm("relu")(Linear(width, bias=False)(*xs, name="linear"), name="norm")

    def flat(*xs: Wire) -> Wire:
        channels = FlatLinear(width, bias=False)(*fields, name="fields")
        numbers = Linear(width, bias=False, beside=sizes.channels)(*xs, name="linear")
        return sizes.norm("relu")(channels + numbers, name="norm")

    def dot(*xs: Wire) -> Wire:
        dense = sizes.norm()(Linear(embedding, bias=False)(*xs, name="dense"), name="dense_norm")
        pairs = FieldLinear(g.choice("pairs", sizes.pairs), bias=False)(*fields, name="fields")
        joined = Join()(AsField()(dense), sizes.field_norm()(pairs, name="fields_norm"), name="join")
        return sizes.norm()(Linear(width, bias=False)(Dot()(joined, name="dot"), name="linear"), name="norm")

    def gate(*xs: Wire) -> Wire:
        hidden = g.choice("hidden", sizes.widths)
        opened = Linear(hidden)(*one, name="gate")
        value = Linear(hidden, bias=False)(*other, name="value")
        return sizes.norm()(Linear(width)(Gate()(opened, value), name="linear"), name="norm")

    def total(*xs: Wire) -> Wire:
        # One weight serves inputs of all widths, and is as large as the widest needs.
        longest = max(int(vectors[0].type[-1].constant or 0), *sizes.widths)
        return sizes.norm()(TiedLinear(width, longest)(*one, *other, name="linear"), name="norm")

    def cross(*xs: Wire) -> Wire:
        x0, x = Linear(width)(*one, name="first"), Linear(width)(*other, name="second")
        return sizes.norm()(LowRankCross(g.choice("rank", sizes.ranks))(x0, x, name="cross"), name="norm")

    def identity(*xs: Wire) -> Wire:
        return Pad(width)(*xs, name="pad")

    operators: dict[str, Candidate] = {
        "linear": linear, "flat": flat, "dot": dot, "gate": gate, "sum": total, "cross": cross, "identity": identity,
        "zero": Zero(),
    }  # fmt: skip
    return g.oneof("op", {name: operators[name] for name in sizes.dense_ops}, *picked)


def _fields(g: Graph, embedding: Choice, picked: Sequence[Wire], count: Choice, sizes: _Sizes) -> Wire:
    """The fields of a block, from the picked ones."""
    from rankitect.blocks import FieldAttention, FieldLinear, FieldPad, Linear

    def linear(*xs: Wire) -> Wire:
        return sizes.field_norm("relu")(FieldLinear(count, bias=False)(*xs, name="linear"), name="norm")

    def attention(*xs: Wire) -> Wire:
        x = sizes.field_norm()(FieldLinear(count, bias=False)(*xs, name="linear"), name="norm")
        attended = FieldAttention(g.choice("heads", sizes.heads), sizes.head)(x, name="attention")
        x = sizes.norm()(x + attended, name="attention_norm")
        hidden = Linear(embedding, "relu")(x, name="up")
        return sizes.norm()(x + Linear(embedding)(hidden, name="down"), name="mlp_norm")

    def identity(*xs: Wire) -> Wire:
        return FieldPad(count)(*xs, name="pad")

    operators: dict[str, Candidate] = {
        "linear": linear, "attention": attention, "identity": identity, "zero": Zero(),
    }  # fmt: skip
    return g.oneof("op", {name: operators[name] for name in sizes.field_ops}, *picked)


def _pairwise(g: Graph, fields: Wire, width: Choice, sizes: _Sizes) -> Wire:
    """The fields' pairwise products, or nothing, to be added to a vector (NASRec's sparse-to-dense merger)."""
    from rankitect.blocks import FM, Linear

    def products(x: Wire) -> Wire:
        return sizes.norm()(Linear(width, bias=False)(FM()(x, name="fm"), name="linear"), name="norm")

    return g.oneof("fm", {"no": Zero(), "yes": products}, fields)


def _points(space: SearchSpace, features: Features, blocks: int) -> dict[str, Architecture]:
    """Known rankers in the terms of this space, as far as its settings hold them: where a search may begin.

    Their layers are those of the space, with its norms, and their sizes its first that are enough.
    """
    last, fields = blocks - 1, len(features.categorical)
    # In the choices of one block. `from` counts from the raw features, 0: the vector or fields of block i are i + 1.
    flat = {"dense.op": "flat", "dense.from": (0,), "fields.op": "zero", "fields.from": (0,)}
    head = {"dense.op": "linear", "dense.from": (1,), "fields.op": "identity", "fields.from": (0,)}
    cross = {**head, "dense.op": "cross", "dense.left": (1,)}
    chain = {0: flat, **{i: {**cross, "dense.right": (i,)} for i in range(1, blocks)}}
    wanted = {
        "deepfm": {0: flat, last: {**head, "dense.fm": "yes"}},
        "fm": {last: {**head, "dense.op": "zero", "dense.from": (0,), "dense.fm": "yes"}},
        "wide_deep": {0: flat, last: {**head, "fields.op": "zero"}},
        "dlrm": {0: flat, last: {**head, "dense.op": "dot", "fields.op": "zero"}},
        "dcnv2": chain,
        "autoint": {0: flat, last: {**head, "fields.op": "attention"}},
    }
    points: dict[str, Architecture] = {}
    for name, parts in wanted.items():
        values: dict[str, Any] = {path: choice.values[0] for path, choice in space.choices.items()}
        for path, choice in space.choices.items():
            if path.endswith("fields.count"):
                values[path] = min((n for n in choice.values if n >= fields), default=max(choice.values))  # type: ignore[operator]
            elif path.endswith(("dense.fm", "to_fields")):
                values[path] = "no"
        for i, choices in parts.items():
            values |= {f"block{i}.{key}": value for key, value in choices.items()}
        try:
            points[name] = space.architecture({path: value for path, value in values.items() if path in space.choices})
        except SpaceError:
            continue  # an operator or an input that these settings leave out
        points |= multi(space, name, partial(_narrowed, space, values))
    return points


def _narrowed(space: SearchSpace, values: dict[str, Any], narrow: bool) -> dict[str, Any]:
    """The choices of a ranker, or of one whose vectors are as narrow as they may be."""
    smallest = {p: min(space.choices[p].values) for p in values if p.endswith("dense.width")} if narrow else {}
    return {**values, **smallest}


def _check_ops(dense_ops: Sequence[str], field_ops: Sequence[str]) -> None:
    for what, given, known in (("dense_ops", dense_ops, DENSE_OPS), ("field_ops", field_ops, FIELD_OPS)):
        if unknown := [name for name in given if name not in known]:
            raise SpaceError(f"ranking_blocks: {what} has {unknown[0]!r}; allowed: {', '.join(known)}")
        if not set(given) - {"zero"}:
            raise SpaceError(f"ranking_blocks: {what} needs an operator beside 'zero'")


class RankingBlocks:
    """The space `ranking_blocks` of a task's features, as a configuration names it."""

    class Config(BaseModel):
        """Keys of `space`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        blocks: int = Field(4, ge=1, le=12, description="length of the chain")
        embedding: list[Size] = Field([16], min_length=1, description="widths of the embedding tables")
        widths: list[Size] = Field([64, 32, 128], min_length=1, description="widths of a block's vector")
        counts: list[Size] = Field([16, 8, 32], min_length=1, description="numbers of a block's fields")
        pairs: list[Size] = Field([8, 16], min_length=1, description="fields whose dot products are taken")
        ranks: list[Size] = Field([16, 64], min_length=1, description="ranks of cross networks")
        heads: list[Size] = Field([2, 4], min_length=1, description="attention heads")
        head: int = Field(8, ge=1, le=4096, description="size of an attention head")
        dense_ops: list[str] = Field(list(DENSE_OPS), min_length=1, description="operators of vectors")
        field_ops: list[str] = Field(list(FIELD_OPS), min_length=1, description="operators of fields")
        most: int = Field(4, ge=1, le=1000, description="inputs of an operator that takes any number")
        wide: list[Literal["yes", "no"]] = Field(
            ["yes", "no"], min_length=1, description="whether the logit has a weight for each id"
        )
        towers: list[Size] = Field(
            [1, 2, 4], min_length=1, description="how often the whole stands there, with the logits averaged"
        )
        eps: float = Field(NORM_EPS, gt=0, description="added to the variances of layer norms")

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> SearchSpace:
        """The space for the task's features."""
        return ranking_blocks(parts.require(HasFeatures, "space").features, **config.model_dump())
