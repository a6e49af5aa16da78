"""Unusual but legal graphs, and the arithmetic of sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankitect.blocks import Linear, Norm
from rankitect.errors import SpaceError
from rankitect.graph import B, Choice, Expr, Graph, SearchSpace, Sum, T, Zero, all_of, any_of, as_expr, log_range, sym
from rankitect.models.relaxed import RelaxedSupernet, one_hot
from rankitect.models.supernet import Supernet, build
from rankitect.space.expr_data import data_of, expr_of
from rankitect.space.tables import Assignments


def demo() -> tuple[Graph, Any]:
    g = Graph("demo")
    return g, g.input("x", B, 4)


def identities(space: SearchSpace, *inputs: torch.Tensor) -> None:
    supernet = Supernet(space)
    relaxed = RelaxedSupernet(supernet)
    for a in space.sample_many(8, 0):
        out = supernet.activate(a)(*inputs)
        alone = supernet.extract(a)
        assert torch.equal(out, alone(*inputs))
        assert space.cost(a, "params") == sum(p.numel() for p in alone.parameters())
        torch.testing.assert_close(relaxed(one_hot(space, a), *inputs), out, rtol=1e-4, atol=1e-5)


def test_a_wire_may_be_used_twice_by_one_block() -> None:
    g, x = demo()
    g.out = Linear(3)(x, x, *g.pick("more", [x, x], least=0), name="lin")
    identities(SearchSpace(g), torch.randn(2, 4))


def test_an_optional_wire_may_be_picked() -> None:
    g, x = demo()
    y = g.oneof("op", {"lin": Linear(4), "none": Zero()}, x)
    g.out = Linear(2)(*g.pick("wire", [x, y]), name="end")
    space = SearchSpace(g)
    identities(space, torch.randn(2, 4))
    only = space.architecture({"op": "none", "wire": (1,)})
    bias = Supernet(space).extract(only).owner("end").bias
    assert bias.shape == (2,)


def test_a_wire_exists_only_where_its_condition_holds() -> None:
    g = Graph("demo")
    x = g.input("x", B, 4)
    deep = g.choice("kind", ["wide", "deep"]).is_("deep")
    g.out = Sum()(x, Linear(4)(x, name="layer").when(deep), name="sum")
    space = SearchSpace(g)
    assert [space.cost(space.architecture(kind=kind), "params") for kind in ("wide", "deep")] == [0, 20]
    inputs = torch.randn(3, 4)
    assert build(space, space.architecture(kind="wide"), 0)(inputs).equal(inputs)
    assert not build(space, space.architecture(kind="deep"), 0)(inputs).equal(inputs)
    identities(space, inputs)


def test_settings_are_choices_that_no_block_reads() -> None:
    g = Graph("demo")
    x = g.input("x", B, 4)
    width = g.choice("width", [4, 8])
    with g.settings():
        g.choice("lr", log_range(1e-4, 1e-2, 3))
        g.simplex("mix", ["a", "b"], 2, when=width.ge(8))
    g.out = Linear(1)(Linear(width)(x, name="hidden"), name="out")
    space = SearchSpace(g)
    assert space.settings == ("lr", "mix")
    assert space.size().distinct == 3 + 3 * 3
    assert set(space.architecture(width=4, lr=1e-3).choices) == {"width", "lr"}
    again = SearchSpace.from_json(space.to_json())
    assert again.settings == space.settings
    assert again.sample_many(5, 0) == space.sample_many(5, 0)


def test_candidates_may_be_given_wires_that_may_be_absent() -> None:
    g, x = demo()
    y = g.oneof("a", {"lin": Linear(4), "none": Zero()}, x)
    z = g.oneof("b", {"sum": Sum(), "lin": Linear(4), "none": Zero()}, x, y)
    w = g.oneof("c", {"norm": Norm(), "none": Zero()}, z)
    g.out = Linear(1)(y, z, w, name="end")
    identities(SearchSpace(g), torch.randn(3, 4))


@pytest.mark.parametrize("runs", [(1,), (2,), (0, 1), (3, 1), (0,), (2, 0)])
def test_layers_run_as_often_as_chosen(runs: tuple[int, ...]) -> None:
    g, x = demo()
    g.out = g.repeat("layers", 2, lambda i, x: x + Linear(4, "tanh")(x, name="lin"), x, runs=runs)
    space = SearchSpace(g)
    identities(space, torch.randn(3, 4))
    assert space.size().distinct == len(runs) ** 2
    once = 32 * 2 * max(0, min(runs))
    assert min(space.cost(a, "flops") for a in space.sample_many(40, 0)) == once


def test_twins_share_their_choices_and_no_weights() -> None:
    g, x = demo()
    ends = []
    for i in range(2):
        with g.replicate(i):
            width = g.choice("width", [2, 3])
            g.require(width.le(3))
            up = Linear(width, "tanh")(x, name="up")
            again = Linear(width, "tanh")(x, name="up_again", weights="up")
            ends.append(Linear(4)(up, again, name="down"))
    g.out = g.oneof("both", {"one": lambda a, b: a, "two": lambda a, b: Sum()(a, b)}, *ends)
    space = SearchSpace(g)
    assert set(space.choices) == {"width", "both"}
    one, two = (space.architecture(width=3, both=both) for both in ("one", "two"))
    assert space.cost(two, "params") == 2 * space.cost(one, "params")
    assert {"up.weight", "twin1.up.weight"} <= set(build(space, two).state_dict())
    identities(space, torch.randn(3, 4))


def test_a_rule_over_choices_without_effect_is_vacuous() -> None:
    g, x = demo()
    w, v = g.choice("w", [8, 2]), g.choice("v", [1, 2])

    def deep(x: Any) -> Any:
        return Linear(4)(Linear(w)(x, name="a") + Linear(w)(Linear(v)(x, name="b"), name="c"), name="d")

    g.require(w.le(v), "w at most v")
    g.out = g.oneof("op", {"deep": deep, "flat": Linear(4)}, x)
    space = SearchSpace(g)
    assert dict(space.architecture(op="flat", w=8, v=1).choices) == {"op": "flat"}
    assert dict(space.architecture(op="deep", w=2, v=2).choices) == {"w": 2, "v": 2, "op": "deep"}
    with pytest.raises(SpaceError, match="rule 'w at most v' does not hold for v=1, w=8"):
        space.architecture(op="deep", w=8, v=1)
    assert space.size().distinct == 2
    identities(space, torch.randn(2, 4))


def test_pools_may_be_large_where_few_are_picked() -> None:
    g, x = demo()
    pool = [x]
    for i in range(40):
        pool.append(Linear(4)(pool[-1], name=f"lin{i}"))
    g.out = Linear(1)(*g.pick("wire", pool, most=2), name="end")
    space = SearchSpace(g)
    assert space.size().distinct == 41 + 41 * 40 // 2
    identities(space, torch.randn(2, 4))


def test_weights_are_looked_up_in_the_scope_first() -> None:
    g, x = demo()
    outer = Linear(4)(x, name="lin")
    with g.inside("a"):
        inner = Linear(4)(outer, name="lin")
        again = Linear(4)(inner, name="again", weights="lin")
    g.out = Linear(4)(again, name="last", weights="lin")
    owners = {n.path: n.weights for n in g.nodes}
    assert (owners["a.again"], owners["last"]) == ("a.lin", "lin")
    identities(SearchSpace(g), torch.randn(2, 4))


def test_numpy_numbers_are_numbers() -> None:
    g, x = demo()
    w = g.choice("width", np.arange(2, 5))
    g.out = Linear(w)(x, name="lin")
    space = SearchSpace(g)
    a = space.architecture(width=np.int64(3))
    assert a.to_json() == '{"choices":{"width":3},"space":"demo","version":"1"}'
    assert isinstance(a["width"], int)


def test_all_outputs_of_a_wire() -> None:
    g, x = demo()
    assert g.outputs_of(x) == (x,)
    assert g.describe() == {"nodes": 1, "edges": 0, "choices": 0, "rules": 0}
    g.out = (x, x)
    assert g.out == (x, x)


A, C = Choice("a", [0, 1, 2, 5]), Choice("c", ["p", "q", "r"])
CHOICES = {"a": A, "c": C}


def value(expr: Expr, a: int = 0, c: int = 0, **symbols: int) -> Any:
    return expr.evaluate(Assignments(CHOICES, {"a": np.int64(a), "c": np.int64(c)}, symbols))


def expressions() -> st.SearchStrategy[tuple[Expr, Any]]:
    """Pairs of an expression and a Python function that says the same."""
    leaves = st.sampled_from(
        [
            (A.as_number(), lambda a, c, t: a),
            (T, lambda a, c, t: t),
            (C.is_("p"), lambda a, c, t: int(c == "p")),
            (C.is_("r"), lambda a, c, t: int(c == "r")),
            (as_expr(3), lambda a, c, t: 3),
        ]
    )
    pairs = [
        (lambda x, y: x + y, lambda x, y: x + y),
        (lambda x, y: x - y, lambda x, y: x - y),
        (lambda x, y: x * y, lambda x, y: x * y),
        (lambda x, y: x // (y * y + 1), lambda x, y: x // (y * y + 1)),
        (lambda x, y: x % (y * y + 1), lambda x, y: x % (y * y + 1)),
        (lambda x, y: x.le(y), lambda x, y: int(x <= y)),
        (lambda x, y: x.eq(y), lambda x, y: int(x == y)),
        (lambda x, y: any_of([x.ge(y), y.eq(3)]), lambda x, y: int(x >= y or y == 3)),
        (lambda x, y: ~x.le(y) & all_of([x.ge(1)]), lambda x, y: int(x > y and x >= 1)),
    ]

    def grow(inner: Any) -> Any:
        def make(pair: Any, x: Any, y: Any) -> Any:
            return pair[0](x[0], y[0]), lambda a, c, t: pair[1](x[1](a, c, t), y[1](a, c, t))

        return st.builds(make, st.sampled_from(pairs), inner, inner)

    return st.recursive(leaves, grow, max_leaves=6)


@given(pair=expressions(), t=st.integers(1, 9))
def test_expressions_say_what_python_says(pair: tuple[Expr, Any], t: int) -> None:
    expr, function = pair
    again = expr_of(data_of(expr), {"a": A, "c": C})
    assert again == expr
    assert hash(again) == hash(expr)
    for i, a in enumerate(A.values):
        for j, c in enumerate(C.values):
            assert value(expr, i, j, T=t) == function(a, c, t)
    rows = np.arange(12)
    columns = {"a": rows % 4, "c": rows // 4}
    many = np.broadcast_to(np.asarray(expr.evaluate(Assignments(CHOICES, columns, {"T": t}))), 12)
    assert list(many) == [value(expr, i % 4, i // 4, T=t) for i in rows]
    with pytest.MonkeyPatch.context() as patch:  # as arrays, which is else for long expressions
        patch.setattr("rankitect.space.expr.MANY_TERMS", 0)
        assert [value(expr, i % 4, i // 4, T=t) for i in rows] == list(many)
        again = expr.evaluate(Assignments(CHOICES, columns, {"T": t}))
        assert list(np.broadcast_to(np.asarray(again), 12)) == list(many)
        grid = {"a": np.arange(4)[:, None], "c": np.arange(3)[None]}
        laid = np.broadcast_to(np.asarray(expr.evaluate(Assignments(CHOICES, grid, {"T": t}))), (4, 3))
        assert list(laid.T.reshape(-1)) == list(many)


def test_equal_sizes_are_equal_expressions() -> None:
    a = A.as_number()
    assert 2 * a * T == T * a + a * T
    assert (a * 64) // 64 == a
    assert (a * T) // T == a
    assert sum((C.is_(v) for v in ("p", "q", "r")), start=as_expr(0)) == 1
    assert C.is_("p") * C.is_("q") == 0
    assert str(2 * a - 3) == "2*a - 3"
    assert sym("T") == T
    with pytest.raises(SpaceError, match="a // 0: a dimension cannot be divided by zero"):
        a // 0


def test_division_by_a_choice_of_nothing_is_nothing() -> None:
    """Scalars and arrays agree, so that shapes and vectorised costs do."""
    for expr in (T // A, T % A):
        many = expr.evaluate(Assignments(CHOICES, {"a": np.arange(4), "c": np.arange(4)}, {"T": 7}))
        assert list(many) == [value(expr, i, T=7) for i in range(4)]
        assert many[0] == 0
