"""Small spaces that together use every verb and corner of the graph; the tests of identities run over all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch

from rankitect.blocks import (
    GQA,
    AvgPool,
    BatchNorm,
    Conv2d,
    Depthwise,
    Embed,
    GlobalPool,
    Linear,
    MaxPool,
    Norm,
    Rope,
    SqueezeExcite,
    SwiGLU,
    TiedHead,
)
from rankitect.graph import (
    B,
    Block,
    Elementwise,
    Expr,
    Graph,
    Param,
    Params,
    SearchSpace,
    Sum,
    T,
    TensorType,
    Wire,
    Zero,
    all_of,
)
from rankitect.search_spaces.mobile_llm import mobile_llm
from rankitect.space.expr import ExprLike


class DotInteract(Block):
    """Pairwise dot products of F fields and a dense vector, projected: hidden units F+1 choose 2."""

    ports: ClassVar[str] = "B D, B F E -> B width"
    width: ExprLike

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        fields = inputs[1][1]
        return {
            "lift": Param.of(inputs[1][2], inputs[0][1]),
            "weight": Param.of(self.width, (fields + 1) * fields // 2),
        }

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        dense, fields = inputs
        rows = torch.cat([torch.nn.functional.linear(dense, p.lift)[:, None], fields], dim=1)
        i, j = torch.triu_indices(rows.shape[1], rows.shape[1], 1)
        return torch.nn.functional.linear((rows @ rows.transpose(1, 2))[:, i, j], p.weight)

    def flops(self, *inputs: TensorType) -> Expr:
        dense, fields = inputs
        n, width = fields[1] + 1, fields[2]
        return 2 * dense.numel * width + 2 * dense[0] * (n * n * width + (n * fields[1] // 2) * self.width)


class Halves(Elementwise):
    """Two outputs: the input, and its negative beside zeros where it is positive."""

    ports: ClassVar[str] = "... D -> ... D, ... D"

    def run(self, p: Params, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.relu(inputs[0]), torch.relu(-inputs[0])


class Split(Block):
    """Two outputs of different widths, each with a weight that reads the same hidden units."""

    ports: ClassVar[str] = "B D -> B left, B right"
    left: ExprLike
    right: ExprLike

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        return {"a": Param.of(self.left, inputs[0][1]), "b": Param.of(self.right, inputs[0][1])}

    def run(self, p: Params, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.nn.functional.linear(inputs[0], p.a), torch.nn.functional.linear(inputs[0], p.b)

    def flops(self, *inputs: TensorType) -> Expr:
        return 2 * inputs[0].numel * self.left + 2 * inputs[0].numel * self.right


def ctr() -> SearchSpace:
    """A ranker: picked inputs, a candidate that leaves nothing, blocks that die when nobody picks them."""
    g = Graph("ctr")
    dense, fields = g.input("dense", B, 5), g.input("fields", B, 3, 4)
    pool = [Linear(6, "relu")(dense, name="bottom")]
    for i in range(3):
        with g.inside(f"block{i}"):
            w = g.choice("width", [4, 8, 6])
            xs = g.pick("wire", pool)
            y = g.oneof("op", {"relu": Linear(w, "relu"), "linear": Linear(w)}, *xs)
            z = g.oneof("cross", {"dot": DotInteract(w), "none": Zero()}, pool[0], fields)
            pool.append(y + z)
    g.out = Linear(1)(*pool, name="logit")
    return SearchSpace(g, defaults={"B": 2})


def dropped() -> SearchSpace:
    """Blocks of which one is picked at a time, so that whole chains and their choices have no effect."""
    g = Graph("dropped")
    pool = [Linear(4, "relu")(g.input("x", B, 3), name="stem")]
    for i in range(3):
        with g.inside(f"b{i}"):
            (*xs,) = g.pick("from", pool, most=1)
            hidden = Linear(g.choice("hidden", [2, 5]), "tanh")(*xs, name="in")
            pool.append(Linear(4)(hidden, name="out"))
    g.out = Linear(2)(*g.pick("last", pool[1:], most=1), name="head")
    return SearchSpace(g)


def llama() -> SearchSpace:
    """A decoder with a choice of depth, heads that must divide, and patterns of attention."""
    g = Graph("llama")
    ids = g.input("ids", B, T, dtype="int")
    width, depth = g.choice("d_model", [16, 8, 24]), g.choice("depth", [2, 3, 1])
    rope = Rope(2)(ids, name="rope")

    def layer(i: int, x: Wire) -> Wire:
        heads, kv, f = g.choice("heads", [4, 6]), g.choice("kv", [2, 3, 4]), g.choice("ffn", [12, 20])
        g.require((heads % kv).eq(0), "heads must be a multiple of kv")
        a = Norm()(x, name="norm1")
        groups = heads // kv
        kinds = {"full": GQA(kv, groups, 4), "swa": GQA(kv, groups, 4, window=3), "skip": Zero()}
        x = x + g.oneof("attn", kinds, a, rope)
        return x + SwiGLU(f)(Norm()(x, name="norm2"), name="ffn")

    x = g.repeat("layers", depth, layer, Embed(11, width)(ids, name="embed"))
    g.out = TiedHead(11)(Norm()(x, name="norm"), name="head", weights="embed")
    return SearchSpace(g, defaults={"T": 4})


def in_a_row() -> SearchSpace:
    """A rule across layers: at most two layers in a row without attention."""
    g = Graph("in_a_row")
    ids = g.input("ids", B, T, dtype="int")
    rope = Rope(2)(ids, name="rope")
    skips: list[Expr] = []

    def layer(i: int, x: Wire) -> Wire:
        kinds = {"full": GQA(1, 2, 4), "swa": GQA(1, 2, 4, window=2), "skip": Zero()}
        x = x + g.oneof("attn", kinds, Norm()(x, name="norm"), rope, share=True)
        skips.append(g.choices[f"layers.{i}.attn"].is_("skip"))
        if i >= 2:
            g.require(~all_of(skips[-3:]), f"no attention in three layers in a row up to {i}")
        return x

    x = g.repeat("layers", 4, layer, Embed(7, 8)(ids, name="embed"))
    g.out = TiedHead(7)(x, weights="embed")
    return SearchSpace(g, defaults={"T": 5})


def many() -> SearchSpace:
    """Several inputs and outputs, blocks with two outputs, a choice shared by two layers, a wire used twice."""
    g = Graph("many")
    x, y = g.input("x", B, 4), g.input("y", B, 6)
    w = g.choice("width", [3, 7, 5])
    both = Split(w, g.choice("right", [2, 4]))(x + Linear(4)(y, name="down"), name="split")
    left, right = g.outputs_of(both)
    relu, other = g.outputs_of(Halves()(left))
    a = Linear(w)(right, right, name="twice")
    b = g.oneof("op", {"sum": Sum(), "dense": lambda *xs: Linear(w, "gelu")(*xs, name="mix")}, relu, other, a)
    g.out = (Linear(2)(b, name="first"), b + relu, y)
    return SearchSpace(g, defaults={"B": 3})


def nested() -> SearchSpace:
    """A `oneof` inside a `repeat` inside a `oneof`, with layers that may run twice, and a scope of its own."""
    g = Graph("nested")
    x = Linear(6)(g.input("x", B, 3), name="stem")

    def inner(i: int, x: Wire) -> Wire:
        h = Linear(g.choice("hidden", [4, 8]), "silu")(Norm()(x, name="norm"), name="up")
        narrow = Linear(6)
        return x + g.oneof("kind", {"dense": narrow, "none": Zero(), "twice": lambda v: narrow(narrow(v, name="a"))}, h)

    def deep(x: Wire) -> Wire:
        return g.repeat("cell", g.choice("depth", [1, 0, 2]), inner, x, runs=(1, 2))

    x = g.oneof(
        "body",
        {"deep": deep, "flat": lambda x: x, "gate": lambda x: g.oneof("in", {"a": Linear(6), "no": Zero()}, x)},
        x,
    )
    g.out = Linear(1)(x, name="head")
    return SearchSpace(g)


def shared() -> SearchSpace:
    """Weights shared by different nodes, of which one may be left out; a width of 0; zeros where the inputs are ids."""
    g = Graph("shared")
    ids, scale = g.input("ids", B, T, dtype="int"), g.input("scale", B, 4)
    d = g.choice("d", [4, 6])
    x = Embed(9, d)(ids, name="embed")
    y = g.oneof("again", {"yes": lambda x: Linear(d)(x, name="lin"), "no": Zero()}, x)
    z = Linear(d)(x, name="other", weights="again.yes.lin")
    extra = g.oneof("extra", {"none": Zero(), "table": Embed(9, d)}, ids)
    gone = Linear(3)(Linear(g.choice("maybe", [0, 4]))(scale, name="narrow"), name="wide")
    g.out = (Linear(2)(y, extra, name="ends"), z, gone, Sum()(extra, y))
    return SearchSpace(g, defaults={"T": 3})


def phone() -> SearchSpace:
    """`mobile_llm` in small: layers that may be left out or run twice."""
    return mobile_llm(
        vocab=13, layers=3, widths=(12, 8), kv_heads=(2, 1), group=(2, 1), ffn=(20, 12), head=4, window=3, context=5
    )


def few_bits() -> SearchSpace:
    """Bits and groups of weights and bits of what is kept as choices, beside sizes; a table that two blocks read."""
    g = Graph("few_bits")
    ids = g.input("ids", B, T, dtype="int")
    bits, wide = g.choice("bits", [32, 8, 4]), g.choice("width", [16, 8])
    fields = {"bits": bits, "scale_group": 8 * bits.is_(4)}
    x = Embed(9, wide, bits=g.choice("table", [4, 32, 16]))(ids, name="embed")
    kept = {"cache_bits": g.choice("cache", [32, 8])}
    attention = GQA(g.choice("kv", [2, 1]), g.choice("group", [2, 1]), 8, rotary=False, **fields, **kept)
    x = x + attention(Norm()(x, name="norm1"), name="attention")
    x = x + SwiGLU(g.choice("ffn", [24, 8]), bits=g.choice("ffn_bits", [8, 3]))(Norm()(x, name="norm2"), name="mlp")
    g.out = TiedHead(9, **fields)(x, name="head", weights="embed")
    return SearchSpace(g, defaults={"T": 5})


def images() -> SearchSpace:
    """Convolutions of open width, kernel and expansion, with running statistics; odd sizes; a layer that may go."""
    g = Graph("images")
    wide, kernel, expand = g.choice("width", [8, 4]), g.choice("kernel", [5, 3, 1]), g.choice("expand", [3, 2])
    x = BatchNorm("relu")(Conv2d(wide, stride=2)(g.input("x", B, 3, 9, 7), name="stem"), name="norm")

    def block(i: int, x: Wire) -> Wire:
        h = BatchNorm("hardswish")(Conv2d(wide * expand, 1)(x, name="expand"), name="norm1")
        h = BatchNorm("relu6")(Depthwise(kernel)(h, name="depthwise"), name="norm2")
        h = SqueezeExcite(g.choice("hidden", [4, 2]))(h, name="excite")
        return x + BatchNorm()(Conv2d(wide, 1)(h, name="project"), name="norm3")

    x = g.repeat("blocks", g.choice("depth", [2, 1]), block, x)
    kinds = {"max": MaxPool(3, 2), "mean": AvgPool(2, 2), "grouped": Conv2d(wide, 3, 2, bias=True, group=2)}
    x = g.oneof("reduce", kinds, x)
    g.out = Linear(3)(GlobalPool()(x, name="pool"), name="classes")
    return SearchSpace(g)


@dataclass(frozen=True)
class Case:
    """A space and how to feed it."""

    name: str
    make: Callable[[], SearchSpace]
    tokens: int = 5
    vocab: int = 7

    def inputs(
        self, space: SearchSpace, seed: int = 0, batch: int = 2, tokens: int | None = None
    ) -> list[torch.Tensor]:
        """Random inputs of a space, by their types."""
        generator = torch.Generator().manual_seed(seed)
        sizes = {"B": batch, "T": tokens or self.tokens}
        found = []
        for node in space.graph.inputs:
            kind = node.outputs[0]
            shape = [sizes[str(d)] if d.symbols else int(d.constant or 0) for d in kind.dims]
            if kind.dtype == "int":
                found.append(torch.randint(self.vocab, shape, generator=generator))
            else:
                found.append(torch.randn(shape, generator=generator))
        return found


CASES = {
    c.__name__: Case(c.__name__, cache(c))
    for c in (ctr, dropped, llama, in_a_row, many, nested, shared, phone, few_bits, images)
}
