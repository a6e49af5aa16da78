"""`ranking_blocks`: rankers composed from low-level blocks, from the raw features to the logit.

A chain of blocks, each of which gives a vector and a set of fields. Every block chooses an operator for its vector and
one for its fields, the widths, and which earlier outputs, raw features included, go into them. With seven blocks and
NASRec's widths (`rankitect.search_spaces.nasrec`) it is NASRec-Full (arXiv 2207.07187), to which it adds the low-rank
cross network (arXiv 2008.13535), a linear layer on flattened fields, a weight for each id in the logit, identity and
zero, and towers: the whole several times, with weights and tables of its own, the logits averaged (arXiv 2310.04400).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, B, Block, Choice, Expr, Graph, SearchSpace, Wire, Zero
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


class _Block:
    """What one block of the chain is made of.

    Args:
        g: The graph, inside of the block's scope.
        embedding: Width of a field.
        options: The space's settings.
    """

    def __init__(self, g: Graph, embedding: Choice, options: Mapping[str, Any]) -> None:
        self.g, self.embedding, self.options = g, embedding, options

    def norm(self, act: str = "none") -> Block:
        """Layer norm of a vector."""
        from rankitect.blocks import LayerNorm

        return LayerNorm(act, self.options["eps"])

    def field_norm(self, act: str = "none") -> Block:
        """Layer norm over the fields."""
        from rankitect.blocks import FieldNorm

        return FieldNorm(act, self.options["eps"])

    def vector(self, pool: Sequence[Wire], fields: Sequence[Wire], width: Choice) -> Wire:
        """The vector of the block, from earlier vectors and the picked fields."""
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
        )

        g, o, most = self.g, self.options, max(int(w.type[-1].constant or 0) for w in pool[:1])
        most = max(most, *o["widths"])
        picked = g.pick("from", pool, most=o["most"])
        one, other = (g.pick(side, pool, most=1) if self._binary() else [] for side in ("left", "right"))

        def linear(*xs: Wire) -> Wire:
            return self.norm("relu")(Linear(width, bias=False)(*xs, name="linear"), name="norm")

        def flat(*xs: Wire) -> Wire:
            ids = FlatLinear(width, bias=False)(*fields, name="fields")
            numbers = Linear(width, bias=False, beside=o["channels"])(*xs, name="linear")
            return self.norm("relu")(ids + numbers, name="norm")

        def dot(*xs: Wire) -> Wire:
            dense = self.norm()(Linear(self.embedding, bias=False)(*xs, name="dense"), name="dense_norm")
            pairs = FieldLinear(g.choice("pairs", o["pairs"]), bias=False)(*fields, name="fields")
            joined = Join()(AsField()(dense), self.field_norm()(pairs, name="fields_norm"), name="join")
            return self.norm()(Linear(width, bias=False)(Dot()(joined, name="dot"), name="linear"), name="norm")

        def gate(*xs: Wire) -> Wire:
            hidden = g.choice("hidden", o["widths"])
            open_ = Linear(hidden)(*one, name="gate")
            value = Linear(hidden, bias=False)(*other, name="value")
            return self.norm()(Linear(width)(Gate()(open_, value), name="linear"), name="norm")

        def total(*xs: Wire) -> Wire:
            return self.norm()(TiedLinear(width, most)(*one, *other, name="linear"), name="norm")

        def cross(*xs: Wire) -> Wire:
            x0, x = Linear(width)(*one, name="first"), Linear(width)(*other, name="second")
            return self.norm()(LowRankCross(g.choice("rank", o["ranks"]))(x0, x, name="cross"), name="norm")

        made: dict[str, Any] = {
            "linear": linear,
            "flat": flat,
            "dot": dot,
            "gate": gate,
            "sum": total,
            "cross": cross,
            "identity": lambda *xs: Pad(width)(*xs, name="pad"),
            "zero": Zero(),
        }
        return g.oneof("op", {name: made[name] for name in o["dense_ops"]}, *picked)

    def _binary(self) -> bool:
        return bool({"gate", "sum", "cross"} & set(self.options["dense_ops"]))

    def fields(self, picked: Sequence[Wire], count: Choice) -> Wire:
        """The fields of the block, from the picked ones."""
        from rankitect.blocks import FieldAttention, FieldLinear, FieldPad, Linear

        g, o = self.g, self.options

        def linear(*xs: Wire) -> Wire:
            return self.field_norm("relu")(FieldLinear(count, bias=False)(*xs, name="linear"), name="norm")

        def attention(*xs: Wire) -> Wire:
            x = self.field_norm()(FieldLinear(count, bias=False)(*xs, name="linear"), name="norm")
            attended = FieldAttention(g.choice("heads", o["heads"]), o["head"])(x, name="attention")
            x = self.norm()(x + attended, name="attention_norm")
            hidden = Linear(self.embedding, "relu")(x, name="up")
            return self.norm()(x + Linear(self.embedding)(hidden, name="down"), name="mlp_norm")

        made: dict[str, Any] = {
            "linear": linear,
            "attention": attention,
            "identity": lambda *xs: FieldPad(count)(*xs, name="pad"),
            "zero": Zero(),
        }
        return g.oneof("op", {name: made[name] for name in o["field_ops"]}, *picked)


def _given(wire: Wire, gate: Expr) -> Wire:
    """A wire that is there where `gate` is 1, for a block that takes any number."""
    return replace(wire, edge=replace(wire.edge, gate=wire.edge.gate * gate, mixes=True))


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
    """The space.

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
        towers: How often the whole may stand there, all of one architecture.
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
    options = {
        "blocks": blocks, "embedding": embedding, "widths": widths, "counts": counts, "pairs": pairs, "ranks": ranks,
        "heads": heads, "head": head, "most": most, "dense_ops": dense_ops, "field_ops": field_ops, "wide": wide,
        "eps": eps, "channels": len(features.categorical) * max(embedding),
    }  # fmt: skip
    g.out = average(g, towers, lambda: _tower(g, numeric, ids, features, options))
    space = SearchSpace(g, version="3")
    space.points.update(_points(space, features, blocks))
    return space


def _tower(g: Graph, numeric: Wire, ids: Wire, features: Features, o: Mapping[str, Any]) -> Wire:
    """One whole ranker, to its logit."""
    from rankitect.blocks import FM, FlatLinear, Linear, Tables, ToFields

    width = g.choice("embedding", o["embedding"])
    tables = Tables(features.rows, features.slots, width)(ids, name="tables")
    vectors = [numeric if features.numeric else FlatLinear(max(o["widths"]))(tables, name="stem")]
    pool: list[tuple[Wire, Wire | None, Expr | None]] = [(tables, None, None)]
    for i in range(o["blocks"]):
        with g.inside(f"block{i}"):
            block = _Block(g, width, o)
            with g.inside("fields"):
                picked = g.pick("from", [main for main, _, _ in pool], most=o["most"])
                extras = [
                    _given(extra, wire.edge.gate * there)
                    for wire, (_, extra, there) in zip(picked, pool, strict=True)
                    if extra is not None and there is not None
                ]
                fields = block.fields([*picked, *extras], g.choice("count", o["counts"]))
            with g.inside("dense"):
                own = g.choice("width", o["widths"])
                vector = block.vector(vectors, [*picked, *extras], own)
                norm = block.norm()
                pairwise: Callable[..., Wire] = lambda x, own=own, norm=norm: norm(  # noqa: E731
                    Linear(own, bias=False)(FM()(x, name="fm"), name="linear"), name="norm"
                )
                merged = vector + g.oneof("fm", {"no": Zero(), "yes": pairwise}, fields)
            there = g.choice("to_fields", ["no", "yes"]).is_("yes")
            vectors.append(merged)
            extra = block.norm()(ToFields(EXTRA, width)(vector.always(), name="to_fields"), name="to_fields_norm")
            pool.append((fields, extra, there))
    last, own_extra, own_there = pool[-1]
    assert own_extra is not None
    assert own_there is not None
    flat = FlatLinear(1, bias=False)(last.always(), _given(own_extra, own_there), name="flat")
    logit = Linear(1)(vectors[-1], name="head") + flat
    if "yes" not in o["wide"]:
        return logit
    made: dict[str, Any] = {"yes": lambda x: id_weights(features, x), "no": Zero()}
    return logit + g.oneof("wide", {name: made[name] for name in o["wide"]}, ids)


def _points(space: SearchSpace, features: Features, blocks: int) -> dict[str, Architecture]:
    """Known rankers in the terms of this space, as far as its settings hold them: where a search may begin.

    Their layers are those of the space, with its norms, and their sizes its first that are enough.
    """
    last, fields = blocks - 1, len(features.categorical)
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
    found: dict[str, Architecture] = {}
    for name, parts in wanted.items():
        values = {path: choice.values[0] for path, choice in space.choices.items()}
        for path, choice in space.choices.items():
            if path.endswith("fields.count"):
                values[path] = min((n for n in choice.values if n >= fields), default=max(choice.values))  # type: ignore[operator]
            elif path.endswith(("dense.fm", "to_fields")):
                values[path] = "no"
        for i, choices in parts.items():
            for key, value in choices.items():
                values[f"block{i}.{key}"] = value  # type: ignore[assignment]
        try:
            found[name] = space.architecture({path: value for path, value in values.items() if path in space.choices})
        except SpaceError:
            continue  # an operator or an input that these settings leave out

        def tower(narrow: bool, values: dict[str, Any] = values) -> dict[str, Any]:
            smallest = {p: min(space.choices[p].values) for p in values if p.endswith("dense.width")}
            return {**values, **smallest} if narrow else values

        found |= multi(space, name, tower)
    return found


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
        embedding: list[int] = Field([16], min_length=1, description="widths of the embedding tables")
        widths: list[int] = Field([64, 32, 128], min_length=1, description="widths of a block's vector")
        counts: list[int] = Field([16, 8, 32], min_length=1, description="numbers of a block's fields")
        pairs: list[int] = Field([8, 16], min_length=1, description="fields whose dot products are taken")
        ranks: list[int] = Field([16, 64], min_length=1, description="ranks of cross networks")
        heads: list[int] = Field([2, 4], min_length=1, description="attention heads")
        head: int = Field(8, ge=1, description="size of an attention head")
        dense_ops: list[str] = Field(list(DENSE_OPS), min_length=1, description="operators of vectors")
        field_ops: list[str] = Field(list(FIELD_OPS), min_length=1, description="operators of fields")
        most: int = Field(4, ge=1, description="inputs of an operator that takes any number")
        wide: list[Literal["yes", "no"]] = Field(
            ["yes", "no"], min_length=1, description="whether the logit has a weight for each id"
        )
        towers: list[Annotated[int, Field(ge=1)]] = Field(
            [1, 2, 4], min_length=1, description="how often the whole stands there, with the logits averaged"
        )
        eps: float = Field(NORM_EPS, gt=0, description="added to the variances of layer norms")

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> SearchSpace:
        """The space for the task's features."""
        return ranking_blocks(parts.of_task("features"), **config.model_dump())
