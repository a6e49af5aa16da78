"""Hidden units of any space in the order of their importance: which there are, and that nothing else changes."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import pytest
import torch

from rankitect.blocks import Linear
from rankitect.errors import SpaceError
from rankitect.graph import B, Elementwise, Graph, Params, SearchSpace
from rankitect.models.sorting import UnitGroup, sort_units, unit_groups, unit_scores
from rankitect.models.supernet import Supernet
from rankitect.models.weights import weight_of
from rankitect.search_spaces.mobile_llm import mobile_llm
from rankitect.search_spaces.ofa_mobilenet import ofa_mobilenet
from rankitect.search_spaces.ofa_resnet import ofa_resnet
from rankitect.training.optimizer import GuardedOptimizer, OptimizerConfig
from tests.graph.spaces import CASES

SHAPE = (3, 9, 8)


@cache
def mobilenet() -> Supernet:
    return trained(ofa_mobilenet(SHAPE, 3, scale=0.25, depths=(2, 1), kernels=(5, 3), expand=(3, 2)))


def trained(space: SearchSpace) -> Supernet:
    """Weights and statistics of which no two are alike."""
    supernet, draw = Supernet(space, seed=1), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in supernet.state_dict().values():
            tensor += 0.3 * torch.rand(tensor.shape, generator=draw)
    return supernet.eval()


def touched(group: UnitGroup) -> set[tuple[str, int]]:
    return {(".".join(key), axis) for key, axis in (*group.writes, *group.reads)}


def largest(space: SearchSpace) -> Any:
    whole = {p: max(c.values, key=lambda v: v if isinstance(v, int) else 0) for p, c in space.choices.items()}
    return space.architecture(whole)


def test_expanded_channels_are_moved_in_every_weight_that_counts_them() -> None:
    groups = {group.name: group for group in unit_groups(mobilenet().space)}
    block = "stages.1.blocks.0"
    group = groups[f"{block}.expand_conv.weight"]
    assert group.size == 3 * 16
    norms = {(f"{block}.{norm}_norm.{name}", 0) for norm in ("expand_conv", "depthwise") for name in (
        "weight", "bias", "mean", "variance"
    )}  # fmt: skip
    excite = {(f"{block}.excite.{name}", axis) for name, axis in (("reduce", 1), ("expand", 0), ("expand_bias", 0))}
    convolutions = {
        (f"{block}.expand_conv.weight", 0),
        (f"{block}.depthwise.weight", 0),
        (f"{block}.project.weight", 1),
    }
    assert touched(group) == norms | excite | convolutions
    assert {".".join(key) for key, _ in group.reads} == {f"{block}.project.weight", f"{block}.excite.reduce"}
    inner = groups[f"{block}.excite.reduce"]  # the hidden units of the gates are units, too
    assert touched(inner) == {(f"{block}.excite.{n}", a) for n, a in (("reduce", 0), ("reduce_bias", 0), ("expand", 1))}


@pytest.mark.parametrize("name", ["mobilenet", "resnet", "images", "ctr"])
def test_the_largest_architecture_computes_what_it_did(name: str) -> None:
    makers = {"mobilenet": lambda: mobilenet().space, "resnet": lambda: ofa_resnet(SHAPE, 3, widths=(8, 16))}
    space = makers[name]() if name in makers else CASES[name].make()
    supernet = trained(space)
    architecture = largest(space)
    draw = torch.Generator().manual_seed(3)
    if name in makers:
        inputs = [torch.randn(2, *SHAPE, generator=draw)]
    else:
        inputs = CASES[name].inputs(space, 3)
    with torch.no_grad():
        before = supernet.activate(architecture)(*inputs)
        whole = {key: tensor.clone() for key, tensor in supernet.state_dict().items()}
        orders = sort_units(supernet)
        assert orders
        assert any(not torch.equal(tensor, whole[key]) for key, tensor in supernet.state_dict().items())
        after = supernet.activate(architecture)(*inputs)
    assert torch.allclose(after, before, atol=1e-5 * float(1 + before.abs().max()))
    for group in unit_groups(space):
        scores = unit_scores(supernet, group)
        assert (scores[:-1] >= scores[1:]).all(), group.name
    assert all(torch.equal(order.sort().values, torch.arange(len(order))) for order in orders.values())
    again = sort_units(supernet)
    assert all(torch.equal(order, torch.arange(len(order))) for order in again.values())


@pytest.mark.parametrize("maker", [lambda: mobilenet().space, lambda: ofa_resnet(SHAPE, 3, widths=(8, 16))])
def test_units_that_the_reference_does_not_have_stay_behind_those_that_it_has(maker: Any) -> None:
    space = maker()
    supernet, draw = trained(space), torch.Generator().manual_seed(4)
    architecture = space.sample(2)
    shapes = supernet.plan(architecture).shapes()
    with torch.no_grad():  # nothing that was trained is as large as what was not
        for (owner, name), shape in shapes.items():
            weight = weight_of(supernet.weights.owner(owner), name)
            own = weight[tuple(slice(n) for n in shape)].clone()
            weight.mul_(100)
            weight[tuple(slice(n) for n in shape)] = own
    inputs = torch.randn(2, *SHAPE, generator=draw)
    with torch.no_grad():
        before = supernet.activate(architecture)(inputs)
        orders = sort_units(supernet, reference=architecture)
        after = supernet.activate(architecture)(inputs)
    assert torch.allclose(after, before, atol=1e-5 * float(1 + before.abs().max()))
    smaller = 0
    for group in unit_groups(space):
        if group.name in orders:
            scores, order = unit_scores(supernet, group, shapes), orders[group.name]
            assert (scores[:-1] >= scores[1:]).all(), group.name
            assert torch.equal(order[len(scores) :], torch.arange(len(scores), group.size))
            smaller += len(scores) < group.size
    assert smaller > 0


def test_moments_of_an_optimiser_move_with_their_weights() -> None:
    supernet = trained(ofa_resnet(SHAPE, 3, widths=(8, 16), depths=((1,), (1,))))
    optimizer = GuardedOptimizer(dict(supernet.weights.named_parameters()), OptimizerConfig(lr=1e-9), 3)
    architecture, x = largest(supernet.space), torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    supernet.train()

    def compute() -> tuple[torch.Tensor, float]:
        return supernet.activate(architecture)(x).square().mean(), 4

    optimizer.learn(compute, 0)
    groups = {group.name: group for group in unit_groups(supernet.space)}
    before = {key: tensor.clone() for key, tensor in optimizer.state().items()}
    orders = sort_units(supernet, moments=optimizer.state())
    name = "stages.1.first.conv1.weight"
    after, key = optimizer.state(), f"exp_avg/{name}"
    assert groups[name].size == 16
    stage = next(g for g in groups.values() if (("stages.0.first.conv1", "weight"), 1) in g.reads)
    own = "exp_avg/stages.1.first.conv1_norm.weight"
    assert torch.equal(after[own], before[own][orders[name]])
    assert after[key].abs().sum() > 0
    assert torch.allclose(after[key].abs().sum(), before[key].abs().sum())
    assert stage.name in orders


def test_a_decoders_feed_forward_has_the_units_that_its_family_names() -> None:
    space = mobile_llm(
        vocab=13, layers=1, widths=(12, 8), kv_heads=(2, 1), group=(2, 1), ffn=(20, 12), head=4, context=5
    )
    by_touch = [touched(group) for group in unit_groups(space)]
    assert {("layers.0.mlp.gate", 0), ("layers.0.mlp.up", 0), ("layers.0.mlp.down", 1)} in by_touch
    assert {
        (f"layers.0.attn.shared.{name}", axis) for name, axis in (("q", 0), ("k", 0), ("v", 0), ("o", 1))
    } in by_touch
    assert {("layers.0.attn.shared.q", 1), ("layers.0.attn.shared.o", 2)} in by_touch
    residual = next(touches for touches in by_touch if ("embed.weight", 1) in touches)
    assert {("norm.weight", 0), ("layers.0.mlp.down", 0), ("layers.0.attn.shared.q", 3)} <= residual
    assert len({group.name for group in unit_groups(space)}) == len(by_touch)


class Steps(Elementwise):
    """Each channel beside the ones before it: their order counts."""

    ports: ClassVar[str] = "... D -> ... D"

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].cumsum(-1)


def test_units_whose_order_counts_are_left_as_they_are() -> None:
    g = Graph("ordered")
    width = g.choice("width", [6, 3])
    x = Linear(width)(g.input("x", B, 4), name="before")
    g.out = Linear(2)(Linear(width)(Steps()(x), name="middle"), name="after")
    (group,) = unit_groups(SearchSpace(g))
    assert touched(group) == {("middle.weight", 0), ("middle.bias", 0), ("after.weight", 1)}


def test_scores_can_be_given_and_are_checked() -> None:
    supernet = trained(ofa_resnet(SHAPE, 3, widths=(8,), depths=((1,),)))
    group = next(g for g in unit_groups(supernet.space) if g.name == "stages.0.first.conv1.weight")
    orders = sort_units(supernet, {group.name: torch.arange(group.size).float()}, groups=[group])
    assert torch.equal(orders[group.name], torch.arange(group.size).flip(0))
    with pytest.raises(SpaceError, match=r"conv1.weight are 8, and their scores \[3\]"):
        sort_units(supernet, {group.name: torch.zeros(3)}, groups=[group])
