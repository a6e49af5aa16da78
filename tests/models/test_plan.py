"""Plans: the one slicing function, the walk over steps, and names that models may have."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from rankitect.blocks import Linear
from rankitect.errors import SpaceError
from rankitect.graph import B, Elementwise, Graph, Params, SearchSpace, Zero
from rankitect.models.plan import make_plan, relaxed_plan, weight_bounds
from rankitect.models.relaxed import RelaxedSupernet, one_hot
from rankitect.models.supernet import Supernet, build
from rankitect.models.weights import take
from tests.graph.spaces import CASES


def test_a_prefix_is_a_view_and_the_whole_is_itself() -> None:
    weight = torch.arange(12.0).view(3, 4)
    assert take(weight, (3, 4)) is weight
    part = take(weight, (2, 3))
    assert torch.equal(part, weight[:2, :3])
    assert part.data_ptr() == weight.data_ptr()


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (3,), (3, 4, 1)])
def test_a_weight_too_small_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SpaceError, match=r"a weight of shape \[3, 4\] has no prefix of shape"):
        take(torch.zeros(3, 4), shape)


def test_a_plan_holds_live_nodes_only() -> None:
    space = CASES["llama"].make()
    choices = {p: c.values[0] for p, c in space.choices.items()} | {"depth": 1, "layers.0.attn": "skip"}
    paths = [s.path for s in make_plan(space, space.architecture(choices)).steps]
    assert "layers.0.ffn" in paths
    assert not any(p.startswith(("layers.1", "layers.2", "layers.0.attn")) for p in paths if not p.endswith("switch"))
    assert len(relaxed_plan(space).steps) > len(paths)


def test_bounds_leave_out_what_rules_forbid() -> None:
    g = Graph("ruled")
    x = g.input("x", B, 2)
    a, b = g.choice("a", [2, 8]), g.choice("b", [3, 9])
    g.require((a + b).le(12), "small")
    g.out = Linear(a * b)(x, name="lin")
    space = SearchSpace(g)
    assert weight_bounds(space)["lin", "weight"] == (24, 2)
    assert {int(a["a"]) * int(a["b"]) for a in space.sample_many(50, 0)} == {6, 18, 24}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["type", "half", "forward", "plan", "owner", "weights", "train"])
def test_a_node_may_have_any_name(name: str) -> None:
    g = Graph("names")
    with g.inside(name):
        g.out = Linear(g.choice("width", [3, 2]))(g.input("x", B, 2), name=name)
    supernet = Supernet(SearchSpace(g))
    architecture = supernet.space.sample(0)
    x = torch.randn(4, 2)
    model = supernet.extract(architecture)
    assert torch.equal(model(x), supernet.activate(architecture)(x))
    assert set(model.state_dict()) == {f"{name}.{name}.weight", f"{name}.{name}.bias"}


class Mean(Elementwise):
    """The mean over channels, by their number."""

    ports: ClassVar[str] = "B D -> B"
    axis: str = "D"

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].sum(-1) / p.size(self.axis)


def test_a_block_may_ask_for_sizes_that_the_architecture_decides() -> None:
    def space(axis: str) -> SearchSpace:
        g = Graph("mean")
        g.out = Mean(axis)(Linear(g.choice("width", [4, 2]), bias=False)(g.input("x", B, 3), name="lin"), name="mean")
        return SearchSpace(g)

    supernet = Supernet(space("D"))
    x = torch.randn(5, 3)
    for architecture in supernet.space.sample_many(4, 0):
        weight = supernet.weights.get_parameter("lin.weight")[: int(architecture["width"])]  # type: ignore[arg-type]
        wanted = (x @ weight.T).mean(-1)
        torch.testing.assert_close(supernet.activate(architecture)(x), wanted)
        torch.testing.assert_close(RelaxedSupernet(supernet)(one_hot(supernet.space, architecture), x), wanted)
    with pytest.raises(SpaceError, match="at mean: 'B' is no size that the architecture decides: ask a tensor"):
        Supernet(space("B"))


def test_zeros_stand_where_nothing_else_is_left() -> None:
    g = Graph("zeros")
    x = g.input("x", B, 2)
    w = g.choice("width", [3, 5])
    y = g.oneof("op", {"none": Zero(), "lin": Linear(w)}, x)
    g.out = (y, Linear(1)(y, name="end"), Zero()(x))
    space = SearchSpace(g)
    gone = space.architecture(width=5, op="none")
    model = build(space, gone)
    out, end, zero = model(torch.ones(4, 2))
    assert torch.equal(out, torch.zeros(4, 5))
    assert torch.equal(end, model.owner("end").bias.expand(4, 1))
    assert torch.equal(zero, torch.zeros(4, 2))
    assert not any(name.startswith("op") for name in model.state_dict())


def test_zeros_take_sizes_from_inputs_and_keep_nothing_alive() -> None:
    g = Graph("alive")
    x = g.input("x", B, 2)
    deep = Linear(3)(Linear(g.choice("width", [8, 4]))(x, name="a"), name="b")
    y = g.oneof("op", {"lin": Linear(6), "none": Zero()}, deep)
    g.out = Linear(1)(y, name="end")
    space = SearchSpace(g)
    assert dict(space.architecture(op="none").choices) == {"op": "none"}
    assert space.size().distinct == 3
