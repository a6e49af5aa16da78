"""What the author of a space reads when something is wrong: where it is, what it is, what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from rankitect.blocks import GQA, Embed, Linear, Norm, Rope, SwiGLU, TiedHead
from rankitect.errors import SpaceError
from rankitect.graph import B, Block, Elementwise, Graph, SearchSpace, Sum, T, Zero
from rankitect.graph.types import parse_ports
from tests.graph.spaces import DotInteract, Halves


class NoCost(Block):
    """A block that does not say its FLOPs."""

    ports: ClassVar[str] = "B D -> B D"


class Pair(Elementwise):
    """Two inputs of one type."""

    ports: ClassVar[str] = "B D, B D -> B D"


class Bad(Elementwise):
    """A ports line that is none."""

    ports: ClassVar[str] = "B D -> B D*"


def graph() -> tuple[Graph, Any, Any]:
    g = Graph("demo")
    return g, g.input("x", B, 4), g.input("tokens", B, T, 6)


def bad_wire() -> None:
    g, x, _ = graph()
    with g.inside("block0"):
        Pair()(x, Linear(g.choice("width", [3, 5]))(x), name="pair")


def bad_rank() -> None:
    _g, _x, t = graph()
    DotInteract(3)(t, t)


def bad_dtype() -> None:
    _g, x, _ = graph()
    Embed(9, 4)(x)


def bad_count() -> None:
    _g, x, _ = graph()
    Pair()(x)


def bad_candidate() -> None:
    g, x, _ = graph()
    with g.inside("layers.3"):
        g.oneof("op", {"wide": Linear(8), "narrow": Linear(g.choice("width", [4, 8]))}, x)


def only_zero() -> None:
    g, x, _ = graph()
    g.oneof("op", {"a": Zero(), "b": Zero()}, x)


def no_wire() -> None:
    g, x, _ = graph()
    g.oneof("op", {"a": lambda x: (x, x), "b": Zero()}, x)


def other_graph() -> None:
    Pair()(graph()[1], graph()[1])


def list_of_wires() -> None:
    _g, x, _ = graph()
    Sum()(x, [x, x])  # type: ignore[arg-type]


def picked_into_fixed() -> None:
    g, x, _ = graph()
    Norm()(g.pick("wire", [x, Linear(4)(x)])[1], name="norm")


def picked_none() -> None:
    g, x, _ = graph()
    Linear(3)(*g.pick("wire", [x, x], least=0), name="mix")


def picked_one_of() -> None:
    g, x, _ = graph()
    Linear(3)(g.pick("wire", [x, x])[0], name="mix")


def picked_out() -> None:
    g, x, _ = graph()
    g.out = tuple(g.pick("wire", [x, x]))


def picked_candidate() -> None:
    g, x, _ = graph()
    g.oneof("op", {"a": lambda *xs: xs[0], "b": Zero()}, *g.pick("wire", [x, x]))


def twice() -> None:
    g, _x, _ = graph()
    with g.inside("layers.1"):
        g.choice("width", [1, 2])
        g.choice("width", [1, 2])


def decides_nothing() -> None:
    g, x, _ = graph()
    g.choice("width", [3, 4])
    g.out = x
    SearchSpace(g)


def foreign_choice() -> None:
    g, x, _ = graph()
    g.out = Linear(Graph("other").choice("width", [1, 2]))(x, name="lin")
    SearchSpace(g)


def categorical_arithmetic() -> None:
    g, x, _ = graph()
    Linear(g.choice("act", ["relu", "gelu"]) * 2)(x)


def categorical_size() -> None:
    g, x, _ = graph()
    Linear(g.choice("act", ["relu", "gelu"]))(x)


def categorical_compared() -> None:
    g, _x, _ = graph()
    g.require(g.choice("act", ["relu", "gelu"]).eq(1))


def categorical_depth() -> None:
    g, x, _ = graph()
    g.repeat("layers", g.choice("depth", ["few", "many"]), lambda i, x: x, x)


def float_size() -> None:
    _g, x, _ = graph()
    Linear(2.5)(x)  # type: ignore[arg-type]


def real_size() -> None:
    g, x, _ = graph()
    Linear(g.choice("width", [2.0, 4.5]))(x)


def open_base() -> None:
    g, _x, _ = graph()
    Rope(4, g.choice("base", [10_000, 500_000]))(g.input("ids", B, T, dtype="int"), name="rope")  # type: ignore[arg-type]


def open_half() -> None:
    g, _x, _ = graph()
    Rope(g.choice("half", [2, 4]))(g.input("ids", B, T, dtype="int"), name="rope")  # type: ignore[arg-type]


def never_there() -> None:
    g, x, _ = graph()
    x.when(g.choice("kind", ["a", "b"]).is_("a") * g.choices["kind"].is_("b"))


def no_condition() -> None:
    g, x, _ = graph()
    x.when(g.choice("width", [3, 5]))


def conditional_into_fixed() -> None:
    g, x, _ = graph()
    Norm()(x.when(g.choice("kind", ["a", "b"]).is_("a")), name="norm")


def nobody_there() -> None:
    g, x, _ = graph()
    Sum()(x.when(g.choice("kind", ["a", "b"]).is_("a")), name="mix")


def when_of_the_graph() -> None:
    g, _x, _ = graph()
    g.choice("width", [3, 5], when=g.choice("kind", ["a", "b"]).is_("a"))


def no_flops() -> None:
    _g, x, _ = graph()
    NoCost()(x)


def changed_type() -> None:
    g, x, _ = graph()
    g.repeat("layers", 2, lambda i, x: Linear(5)(x), x)


def same_node() -> None:
    _g, x, _ = graph()
    Linear(3)(Linear(4)(x, name="lin"), name="lin")


def weights_unknown() -> None:
    g, _x, _t = graph()
    ids = g.input("ids", B, T, dtype="int")
    TiedHead(9)(Embed(9, 4)(ids, name="embed"), name="head", weights="embedd")


def weights_unlike() -> None:
    g, _x, _t = graph()
    ids = g.input("ids", B, T, dtype="int")
    TiedHead(8)(Embed(9, 4)(ids, name="embed"), name="head", weights="embed")


def no_output() -> None:
    SearchSpace(graph()[0])


def infeasible() -> None:
    g, x, _ = graph()
    w = g.choice("width", [3, 5])
    g.require(w.le(4), "narrow")
    g.require(w.ge(4), "wide")
    g.out = Linear(w)(x)
    SearchSpace(g)


def never() -> None:
    g, x, _ = graph()
    g.require(Linear(3)(x).type[1].eq(4))


def too_many_subsets() -> None:
    g, x, _ = graph()
    g.pick("wire", [x] * 20)


def sizes_of_nothing() -> None:
    g = Graph("demo")
    x = g.input("x", B, 4)
    g.oneof("op", {"a": lambda x: Other()(x), "b": Zero()}, x)


class Other(Elementwise):
    """An output with an axis of its own."""

    ports: ClassVar[str] = "B D -> B extent"
    extent: Any = T


AUTHORING: list[tuple[Callable[[], Any], str]] = [
    (
        bad_wire,
        "at block0.pair (Pair): axis D is 4 on an earlier port or in the block but block0.width on input 1; "
        "wires: [B, 4], [B, block0.width]",
    ),
    (bad_rank, "at dotinteract (DotInteract): input 0 needs 2 axes (B D), not 3; wires: [B, T, 6], [B, T, 6]"),
    (bad_dtype, "at embed (Embed): input 0 must be int, not float; wires: [B, 4]"),
    (bad_count, "at pair (Pair): takes 2 inputs (B D, B D -> B D), not 1; wires: [B, 4]"),
    (
        bad_candidate,
        "at layers.3.op: candidates must give one type, but 'wide' gives [B, 8] and 'narrow' gives [B, layers.3.width]",
    ),
    (only_zero, "at op: every candidate is Zero, so there is no output type"),
    (no_wire, "at op.a: a candidate must give a wire, not tuple"),
    (other_graph, "at pair (Pair): input 1 (x[B, 4]) belongs to another graph, 'demo'"),
    (list_of_wires, "at sum (Sum): input 1 is a list, not a wire (unpack a list with *)"),
    (
        picked_into_fixed,
        "at norm (Norm): input 0 (linear[B, 4]) was picked, so it may be absent; the port must take any number",
    ),
    (
        picked_none,
        "at mix (Linear): the choices 'wire' may leave none of its 2 inputs; pick with least=1 or add a wire "
        "that is always there",
    ),
    (
        picked_one_of,
        "at mix (Linear): the choices 'wire' may leave none of its 1 inputs; pick with least=1 or add a wire "
        "that is always there",
    ),
    (picked_out, "graph 'demo': x[B, 4] was picked, so it may be absent, and is no output"),
    (picked_candidate, "at op.a: x[B, 4] was picked, so it may be absent: put it into a block first"),
    (twice, "choice 'layers.1.width' is declared twice: to share a choice, pass the object that the first call gave"),
    (
        decides_nothing,
        "choice 'width' is declared but decides nothing in the graph; one that the task or a recipe reads is declared "
        "inside `with g.settings()`",
    ),
    (foreign_choice, "at lin: choice 'width' was not declared in graph 'demo'"),
    (
        categorical_arithmetic,
        "choice 'act' is categorical ('relu', 'gelu') and is no number: ask `is_(value)` or `has(member)`",
    ),
    (
        categorical_size,
        "choice 'act' is categorical ('relu', 'gelu') and is no number: ask `is_(value)` or `has(member)`",
    ),
    (
        categorical_compared,
        "choice 'act' is categorical ('relu', 'gelu') and is no number: ask `is_(value)` or `has(member)`",
    ),
    (
        categorical_depth,
        "choice 'depth' is categorical ('few', 'many') and is no number: ask `is_(value)` or `has(member)`",
    ),
    (
        float_size,
        "at linear (Linear): 'width' of output axis 'width' is on no input and is no whole number, choice or "
        "expression among the block's fields",
    ),
    (
        real_size,
        "choice 'width' is real (2.0, 4.5) and is no whole number: it can decide a setting, but no size; compare it "
        "with `le(value)` or `ge(value)`",
    ),
    (
        open_base,
        "at rope (Rope): base must be known when the block is made, and base is open: offer a block for each value "
        "with `oneof`",
    ),
    (
        open_half,
        "at rope (Rope): half must be known when the block is made, and half is open: offer a block for each value "
        "with `oneof`",
    ),
    (never_there, "a wire that is there when 0 holds is never there"),
    (no_condition, "a wire is there when a condition holds, 0 or 1, not when width: ask `is_(value)` or `ge`"),
    (
        conditional_into_fixed,
        "at norm (Norm): input 0 (x[B, 4]) was picked, so it may be absent; the port must take any number",
    ),
    (
        nobody_there,
        "at mix (Sum): the choices 'kind' may leave none of its 1 inputs; pick with least=1 or add a wire that is "
        "always there",
    ),
    (when_of_the_graph, "choice 'width': `when` is for settings; when a choice of the graph counts is derived"),
    (no_flops, "at nocost (NoCost): block NoCost does not state its FLOPs: define `flops`, or use Elementwise"),
    (changed_type, "at layers.0: a repeated layer must keep [B, 4], not give [B, 5]"),
    (same_node, "there is already a node 'lin': give this Linear a name of its own"),
    (weights_unknown, "at head (TiedHead): no node has weights 'embedd'; did you mean 'embed'?"),
    (weights_unlike, "head and embed share the weights 'embed', but weight is [8, 4] in one and [9, 4] in the other"),
    (no_output, "graph 'demo' has no output: assign `g.out`"),
    (infeasible, "space 'demo' has no feasible architecture: its rules exclude each other: narrow; wide"),
    (never, "rule 0 can never hold"),
    (too_many_subsets, "choice 'wire' would have 1,048,575 subsets of 20, more than 4,096: give `most`"),
    (
        sizes_of_nothing,
        "at op.b: Zero() cannot tell the sizes B, T of [B, T]: no input of the candidates or the graph has them",
    ),
    (lambda: parse_ports("B D"), "ports line 'B D' lacks '->' between inputs and outputs"),
    (lambda: Bad()(graph()[1]), "at bad (Bad): output axis 'D*' is not a formula of names, whole numbers, + - * // %"),
    (
        lambda: Linear(3, "swish"),
        "Linear: activation 'swish' is unknown; allowed: none, relu, relu6, hardswish, silu, gelu, gelu_tanh, tanh",
    ),
    (lambda: Norm()(), "Norm: put it on at least one wire"),
    (lambda: Graph("g").choice("w", []), "choice 'w' has no values to choose from"),
    (lambda: Graph("g").choice("w", [1, 1]), "choice 'w' lists a value twice: [1, 1]"),
    (lambda: Graph("g").choice("w", [1, "a"]), "choice 'w' mixes numbers with other values: [1, 'a']"),
    (
        lambda: Graph("g").choice("w", [None]),  # type: ignore[list-item]
        "choice 'w' must choose among numbers, strings and booleans, not None",
    ),
]


@pytest.mark.parametrize(("make", "text"), AUTHORING, ids=[f"{i}-{m.__name__}" for i, (m, _) in enumerate(AUTHORING)])
def test_a_mistake_of_the_author_is_named(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(SpaceError) as caught:
        make()
    assert str(caught.value) == text


def test_an_error_while_writing_leaves_the_graph_usable() -> None:
    g, x, _ = graph()
    with pytest.raises(SpaceError, match="output axis"), g.inside("block"):
        Linear("wide")(x)  # type: ignore[arg-type]
    g.out = Linear(3)(x, name="ok")
    assert [n.path for n in g.nodes] == ["x", "tokens", "ok"]
    assert GQA(1, 1, 4).label == "GQA"
    assert SwiGLU(4).fields()["width"] == 4
    assert len(g.outputs_of(Halves()(x))) == 2
