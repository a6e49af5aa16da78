"""What a block of the user's states of itself, where that is wrong: told with the block's place and name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rankitect.errors import SpaceError
from rankitect.graph import B, Block, Elementwise, Graph, Param, SearchSpace, TensorType
from rankitect.space.expr import as_expr


def block(**methods: Any) -> type[Block]:
    """A block class `Odd` with some methods replaced."""
    right: dict[str, Any] = {
        "__annotations__": {"ports": "ClassVar[str]"},
        "__module__": __name__,
        "ports": "B D -> B D",
        "params": lambda self, x: {"weight": Param.of(x[1], x[1])},
        "run": lambda self, p, x: x @ p.weight,
        "flops": lambda self, x: 2 * x.numel * x[1],
    }
    return type("Odd", (Block,), {**right, **methods})


def space_of(kind: type[Block]) -> SearchSpace:
    g = Graph("odd")
    g.out = kind()(g.input("x", B, 4), name="node")
    return SearchSpace(g)


def test_a_number_is_a_cost() -> None:
    assert space_of(block(flops=lambda self, x: 0)).sample(0) is not None
    space = space_of(block(flops=lambda self, x: 7, cache=lambda self, x: 5))
    assert space.cost(space.sample(0), "flops") == 7
    assert space.cost(space.sample(0), "cache_bytes") == 20


@pytest.mark.parametrize("method", ["flops", "cache"])
@pytest.mark.parametrize("value", [None, 1.5, "2", True, -3, as_expr(-3), [4], float("nan"), object()])
def test_a_cost_of_another_type_is_refused(method: str, value: Any) -> None:
    with pytest.raises(SpaceError, match=rf"at node \(Odd\): `{method}` must give a whole number from 0") as refused:
        space_of(block(**{method: lambda self, x: value}))
    assert len(str(refused.value)) <= 500


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (None, "`params` must give a mapping"),
        ([1], "`params` must give a mapping"),
        ({"weight": 3}, "must give a `Param` for 'weight', not 3"),
        ({"weight": Param((4, 4))}, "make the weight with `Param.of`"),  # type: ignore[arg-type]
        ({"weight": Param([as_expr(4)])}, "make the weight with `Param.of`"),  # type: ignore[arg-type]
        ({"weight": Param.of(B, 4)}, "depends on B, which only a batch decides"),
        ({"weight": Param.of(4, init="xavier")}, "unknown start 'xavier'"),
        ({"weight": Param.of(4, inputs=(3,))}, "has 1 axes, and its inputs are"),
        ({"weight": Param((as_expr(4),), gate=1)}, "must be a condition"),  # type: ignore[arg-type]
        ({"a.b": Param.of(4)}, "a weight cannot be called 'a.b'"),
        ({"size": Param.of(4)}, "a weight cannot be called 'size'"),  # which `p.size` would hide
        ({"present": Param.of(4)}, "a weight cannot be called 'present'"),
        ({3: Param.of(4)}, "a weight cannot be called 3"),
    ],
)
def test_weights_that_are_none_are_refused(params: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=r"at node \(Odd\)") as refused:
        space_of(block(params=lambda self, x: params))
    assert message in str(refused.value)
    assert len(str(refused.value)) <= 500


def test_the_size_of_a_weight_is_at_least_1() -> None:
    with pytest.raises(SpaceError, match=r"at node \(Odd\): the size -2 of the weight 'weight' is -2"):
        space_of(block(params=lambda self, x: {"weight": Param.of(4, -2)}))


@pytest.mark.parametrize("method", ["params", "flops", "cache"])
def test_what_a_method_raises_is_told_with_the_block(method: str) -> None:
    def broken(self: Block, x: TensorType) -> Any:
        raise ZeroDivisionError("of the author's")

    with pytest.raises(SpaceError, match=rf"at node \(Odd\): `{method}` of Odd ended in ZeroDivisionError"):
        space_of(block(**{method: broken}))


@pytest.mark.parametrize("ports", [3, None, "B D", "B D -> B D*"])
def test_a_ports_line_that_is_none_is_told_with_the_block(ports: Any) -> None:
    with pytest.raises(SpaceError, match=r"at node \(Odd\)|ports line"):
        space_of(block(ports=ports))


def test_a_block_without_a_ports_line_is_told_so() -> None:
    class Portless(Elementwise):
        """No ports."""

        def run(self, p: Any, *inputs: Any) -> Any:
            return inputs[0]

    with pytest.raises(SpaceError, match=r"at node \(Portless\): `ports`"):
        space_of(Portless)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda g, x: g.repeat("l", -1, lambda i, h: h, x),
        lambda g, x: g.repeat("l", 1.5, lambda i, h: h, x),
        lambda g, x: g.repeat("l", True, lambda i, h: h, x),
        lambda g, x: g.repeat("l", 10**9, lambda i, h: h, x),
        lambda g, x: g.repeat("l", g.choice("d", [10**9, 2]), lambda i, h: h, x),
        lambda g, x: g.repeat("l", 1, lambda i, h: h, x, runs=3),
        lambda g, x: g.repeat("l", 1, lambda i, h: h, x, runs=[1, 10**9]),
        lambda g, x: g.repeat("l", 1, lambda i, h: h, x, runs=[]),
        lambda g, x: g.repeat("l", 1, lambda i, h: h, x, runs="12"),
    ],
)
def test_stacks_of_no_depth_are_refused(wrong: Callable[[Graph, Any], Any]) -> None:
    g = Graph("stack")
    with pytest.raises(SpaceError):
        wrong(g, g.input("x", B, 4))
