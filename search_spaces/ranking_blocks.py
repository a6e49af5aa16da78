"""`ranking_blocks`: rankers composed from low-level blocks, from the raw features to the logit.

A chain of blocks, each of which gives a vector and a set of fields. Every block chooses an operator for its vector and
one for its fields, the widths, and which earlier outputs, raw features included, go into them. With seven blocks and
NASRec's widths (`nasrec`) it holds NASRec-Full (arXiv 2207.07187), to which it adds the low-rank cross network (arXiv
2008.13535), identity and zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, B, Block, Choice, Expr, Graph, SearchSpace, Wire, Zero

if TYPE_CHECKING:
    from rankitect.data.ranking.features import Features
    from rankitect.study.join import Parts

__all__ = ["DENSE_OPS", "FIELD_OPS", "NASREC_WIDTHS", "RankingBlocks", "nasrec", "nasrec_best_criteo", "ranking_blocks"]

DENSE_OPS = ("linear", "dot", "gate", "sum", "cross", "identity", "zero")
"""Operators of a block's vector."""
FIELD_OPS = ("linear", "attention", "identity", "zero")
"""Operators of a block's fields."""
NASREC_WIDTHS = (16, 32, 64, 128, 256, 512, 768, 1024)
NASREC_PAIRS = (6, 8, 11, 16, 23, 32, 39, 45)
"""Fields before the dot product for each of NASRec's widths: the rounded root of twice the width."""
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


def ranking_blocks(
    features: Features,
    blocks: int = 4,
    embedding: Sequence[int] = (16,),
    widths: Sequence[int] = (128, 64, 32, 256),
    counts: Sequence[int] = (16, 8, 32),
    pairs: Sequence[int] = (8, 16),
    ranks: Sequence[int] = (16, 64),
    heads: Sequence[int] = (2, 4),
    head: int = 8,
    dense_ops: Sequence[str] = DENSE_OPS,
    field_ops: Sequence[str] = FIELD_OPS,
    most: int = 4,
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
        eps: Added to the variances of layer norms; see `NORM_EPS`.

    Raises:
        SpaceError: An operator is unknown, there is no operator but "zero", or no categorical feature.
    """
    from rankitect.blocks import FM, FlatLinear, Linear, Tables, ToFields

    _check_ops(dense_ops, field_ops)
    if not features.categorical:
        raise SpaceError("ranking_blocks: the data have no categorical feature, and there is nothing to embed")
    g = Graph("ranking_blocks")
    numeric = g.input("numeric", B, len(features.numeric))
    ids = g.input("ids", B, sum(features.slots), dtype="int")
    width = g.choice("embedding", embedding)
    options = {
        "widths": widths, "pairs": pairs, "ranks": ranks, "heads": heads, "head": head, "most": most,
        "dense_ops": dense_ops, "field_ops": field_ops, "eps": eps,
    }  # fmt: skip
    tables = Tables(features.rows, features.slots, width)(ids, name="tables")
    vectors = [numeric if features.numeric else FlatLinear(max(widths))(tables, name="stem")]
    pool: list[tuple[Wire, Wire | None, Expr | None]] = [(tables, None, None)]
    for i in range(blocks):
        with g.inside(f"block{i}"):
            block = _Block(g, width, options)
            with g.inside("fields"):
                picked = g.pick("from", [main for main, _, _ in pool], most=most)
                extras = [
                    _given(extra, wire.edge.gate * there)
                    for wire, (_, extra, there) in zip(picked, pool, strict=True)
                    if extra is not None and there is not None
                ]
                fields = block.fields([*picked, *extras], g.choice("count", counts))
            with g.inside("dense"):
                own = g.choice("width", widths)
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
    g.out = Linear(1)(vectors[-1], name="head") + flat
    return SearchSpace(g, version="2")


def _check_ops(dense_ops: Sequence[str], field_ops: Sequence[str]) -> None:
    for what, given, known in (("dense_ops", dense_ops, DENSE_OPS), ("field_ops", field_ops, FIELD_OPS)):
        if unknown := [name for name in given if name not in known]:
            raise SpaceError(f"ranking_blocks: {what} has {unknown[0]!r}; allowed: {', '.join(known)}")
        if not set(given) - {"zero"}:
            raise SpaceError(f"ranking_blocks: {what} needs an operator beside 'zero'")


def nasrec(features: Features, **options: Any) -> SearchSpace:
    """The space with the blocks, widths and operators of NASRec-Full (arXiv 2207.07187, and its public code).

    Its sigmoid gate multiplies two projections and projects the product, where NASRec's multiplies a padded input:
    more, as the projection may be a padding. Dense features that are made into fields, and factorization machines
    merged into vectors, are as there.

    Args:
        features: The data's features.
        options: Other settings of `ranking_blocks`.
    """
    settings: dict[str, Any] = {
        "blocks": 7,
        "embedding": (16,),
        "widths": NASREC_WIDTHS,
        "counts": (16, 32, 48, 64),
        "pairs": NASREC_PAIRS,
        "heads": (8,),
        "head": 2,
        "dense_ops": ("linear", "dot", "gate", "sum"),
        "field_ops": ("linear", "attention"),
        "eps": 1e-5,
    }
    return ranking_blocks(features, **(settings | options))


_BEST_CRITEO: tuple[tuple[str, int, str, int, bool, bool, tuple[int, ...], tuple[int, ...], int, int], ...] = (
    ("gate", 128, "attention", 64, True, False, (0,), (0,), 0, 0),
    ("dot", 32, "linear", 64, False, False, (0,), (0,), 0, 1),
    ("dot", 768, "linear", 32, False, True, (1, 2), (0, 1, 2), 1, 2),
    ("gate", 768, "linear", 48, True, False, (0, 3), (0, 1, 2, 3), 2, 0),
    ("linear", 16, "linear", 16, False, True, (0, 2, 3, 4), (0, 1, 2, 3), 3, 1),
    ("linear", 768, "attention", 16, True, False, (0, 3, 4, 5), (1, 4), 2, 3),
    ("linear", 128, "attention", 48, False, True, (0, 2, 3), (1, 3), 6, 1),
)
"""Blocks of NASRec-Full's best one-shot architecture on Criteo: operator and width of the vector, operator and count of
the fields, whether the vector becomes fields, whether a factorization machine is merged, inputs of the vector and of
the fields, left and right input. From `nasrec/configs/criteo/ea_criteo_kaggle_xlarge_best_1shot.json` of the public
code."""


def nasrec_best_criteo(space: SearchSpace) -> Architecture:
    """NASRec-Full's best published architecture for Criteo.

    Args:
        space: A space made by `nasrec`, of any features.

    Raises:
        SpaceError: The space is another one.
    """
    if "block6.dense.op" not in space.choices or space.choices["block0.dense.width"].values != NASREC_WIDTHS:
        raise SpaceError("NASRec's best Criteo architecture needs a space made by nasrec(features)")
    widths: list[int] = [0]  # of the vectors so far: the first is the numbers
    values: dict[str, Any] = {"embedding": 16}
    for i, (op, width, field_op, count, merged, fm, vectors, fields, left, right) in enumerate(_BEST_CRITEO):
        larger = max(widths[left], widths[right])
        block = {
            "dense.op": op,
            "dense.width": width,
            "dense.from": vectors,
            "dense.left": (left,),
            "dense.right": (right,),
            "dense.fm": "yes" if fm else "no",
            "dense.op.gate.hidden": next(w for w in NASREC_WIDTHS if w >= larger),
            "dense.op.dot.pairs": NASREC_PAIRS[NASREC_WIDTHS.index(width)],
            "fields.op": field_op,
            "fields.count": count,
            "fields.from": fields,
            "fields.op.attention.heads": 8,
            "to_fields": "yes" if merged else "no",
        }
        values |= {f"block{i}.{key}": value for key, value in block.items()}
        widths.append(width)
    return space.architecture({path: value for path, value in values.items() if path in space.choices})


class RankingBlocks:
    """The space `ranking_blocks` of a task's features, as a configuration names it."""

    class Config(BaseModel):
        """Keys of `space`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        blocks: int = Field(4, ge=1, le=12, description="length of the chain")
        embedding: list[int] = Field([16], min_length=1, description="widths of the embedding tables")
        widths: list[int] = Field([128, 64, 32, 256], min_length=1, description="widths of a block's vector")
        counts: list[int] = Field([16, 8, 32], min_length=1, description="numbers of a block's fields")
        pairs: list[int] = Field([8, 16], min_length=1, description="fields whose dot products are taken")
        ranks: list[int] = Field([16, 64], min_length=1, description="ranks of cross networks")
        heads: list[int] = Field([2, 4], min_length=1, description="attention heads")
        head: int = Field(8, ge=1, description="size of an attention head")
        dense_ops: list[str] = Field(list(DENSE_OPS), min_length=1, description="operators of vectors")
        field_ops: list[str] = Field(list(FIELD_OPS), min_length=1, description="operators of fields")
        most: int = Field(4, ge=1, description="inputs of an operator that takes any number")
        eps: float = Field(NORM_EPS, gt=0, description="added to the variances of layer norms")

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> SearchSpace:
        """The space for the task's features."""
        return ranking_blocks(parts.of_task("features"), **config.model_dump())
