"""The spaces of images keep every identity, in training and in evaluation, and hold the networks of their papers."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

import pytest
import torch
from hypothesis import given
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, SearchSpace
from rankitect.models.relaxed import RelaxedSupernet, one_hot
from rankitect.models.supernet import Supernet
from rankitect.search_spaces.image_parts import divisible, divisible_open
from rankitect.search_spaces.nb201 import EDGES, OPERATIONS, arch_str, architecture_of, nb201
from rankitect.search_spaces.ofa_mobilenet import OfaMobileNet, ofa_mobilenet
from rankitect.search_spaces.ofa_resnet import OfaResNet, ofa_resnet
from tests.graph.drawing import seeds

SHAPE = (3, 9, 8)
MAKERS: dict[str, Callable[[], SearchSpace]] = {
    "resnet": lambda: ofa_resnet(SHAPE, 3, widths=(8, 16), depths=((2, 1), (3, 2))),
    "bottlenecks": lambda: ofa_resnet(SHAPE, 3, "bottleneck", (16, 24), scales=(1.0, 0.5), expand=(100, 50)),
    "mobilenet": lambda: ofa_mobilenet(SHAPE, 3, scale=0.25, depths=(2, 1), kernels=(5, 3, 1), expand=(3, 2)),
    "nb201": lambda: nb201(SHAPE, 3, channels=4, cells=1),
}
PARTS = range(8) if os.environ.get("RANKITECT_HYPOTHESIS") == "long" else range(1)
"""So that `make test-long` tries 10,000 architectures of each of these spaces."""
every_space = pytest.mark.parametrize("name", list(MAKERS))


@cache
def supernet_of(name: str) -> Supernet:
    supernet = Supernet(MAKERS[name](), seed=1)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():  # a bias of zero, a mean of 0 and a variance of 1 would hide mistakes
        for tensor in supernet.state_dict().values():
            tensor += 0.3 * torch.rand(tensor.shape, generator=draw)
    return supernet


def images(seed: int, rows: int = 4) -> torch.Tensor:
    return torch.randn(rows, *SHAPE, generator=torch.Generator().manual_seed(seed % 1000))


@pytest.mark.identity
@every_space
@pytest.mark.parametrize("part", PARTS)
@given(seed=seeds)
def test_every_reading_of_an_architecture_agrees(name: str, part: int, seed: int) -> None:
    supernet, x = supernet_of(name), images(seed)
    space = supernet.space
    architecture = space.sample(seed)
    assert Architecture.from_json(architecture.to_json()).fingerprint == architecture.fingerprint
    alone = supernet.extract(architecture)
    assert space.cost(architecture, "params") == sum(p.numel() for p in alone.parameters())
    assert space.cost(architecture, "weight_bytes") == 4 * sum(t.numel() for t in alone.state_dict().values())
    before = {key: tensor.clone() for key, tensor in supernet.state_dict().items()}
    with torch.no_grad():
        supernet.eval(), alone.eval()
        active = supernet.activate(architecture)
        with FlopCounterMode(display=False) as counter:
            whole = alone(x)
        assert space.cost(architecture, "flops", B=len(x)) == counter.get_total_flops()
        assert torch.equal(active(x), whole)
        near = {"rtol": 1e-4, "atol": 1e-5 * float(1 + whole.abs().max())}
        torch.testing.assert_close(torch.cat([active(row[None]) for row in x]), whole, **near)
        relaxed = RelaxedSupernet(supernet).eval()
        torch.testing.assert_close(relaxed(one_hot(space, architecture), x), whole, **near)
        assert all(torch.equal(tensor, before[key]) for key, tensor in supernet.state_dict().items())
        supernet.train(), alone.train()
        assert torch.equal(supernet.activate(architecture)(x), alone(x))
        after = supernet.state_dict()
        for key, mine in alone.state_dict().items():
            part_of_it = after[f"weights.{key}"][tuple(slice(n) for n in mine.shape)]
            assert torch.equal(part_of_it, mine), key
        supernet.load_state_dict(before)


@every_space
def test_gradients_reach_every_choice(name: str) -> None:
    supernet = supernet_of(name)
    space = supernet.space
    logits = {p: torch.zeros(len(c.values), requires_grad=True) for p, c in space.choices.items()}
    relaxed = RelaxedSupernet(supernet)
    relaxed({p: v.softmax(0) for p, v in logits.items()}, images(0)).square().sum().backward()
    for path, logit in logits.items():
        assert logit.grad is not None, path
        assert bool(logit.grad.isfinite().all()), path
        if not path.endswith("kernel"):  # a larger kernel sees nothing more of an image of one pixel
            assert float(logit.grad.abs().sum()) > 0, path


def test_the_space_survives_json() -> None:
    space = supernet_of("mobilenet").space
    again = SearchSpace.from_json(space.to_json())
    assert again.points == space.points
    assert again.to_json() == space.to_json()


def test_once_for_alls_networks_have_their_published_sizes() -> None:
    space = ofa_mobilenet()
    largest, smallest = space.points["ofa_d4_e6_k7"], space.points["ofa_d2_e3_k3"]
    assert space.cost(largest, "flops") / 2e6 == pytest.approx(567, rel=0.01)  # DepS's plots reach this
    assert space.cost(largest, "params") == pytest.approx(7.66e6, rel=0.01)
    assert space.points["smallest"] == smallest
    assert divisible(11.0) == 16  # not 8, which is less than nine tenths
    assert all(divisible_open(width).constant == divisible(width) for width in range(1, 400))


def test_nas_bench_201s_resnet_has_the_benchmarks_sizes() -> None:
    space = nb201()
    assert space.cost(space.points["resnet"], "flops") / 2e6 == pytest.approx(184.73, abs=0.01)
    assert space.cost(space.points["resnet"], "params") / 1e6 == pytest.approx(1.29, abs=0.005)


@given(seed=seeds)
def test_cells_are_spelled_as_the_benchmark_spells_them(seed: int) -> None:
    space = supernet_of("nb201").space
    draw = torch.Generator().manual_seed(seed)
    names = [OPERATIONS[int(i)] for i in torch.randint(len(OPERATIONS), (len(EDGES),), generator=draw)]
    edges = [f"{name}~{edge[0]}" for name, edge in zip(names, EDGES, strict=True)]
    text = f"|{edges[0]}|+|{'|'.join(edges[1:3])}|+|{'|'.join(edges[3:])}|"
    architecture = architecture_of(space, text)
    assert architecture_of(space, arch_str(architecture)) == architecture


def test_mistakes_are_named() -> None:
    with pytest.raises(SpaceError, match="'nor_conv_5x5' is no cell"):
        architecture_of(supernet_of("nb201").space, "|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    with pytest.raises(SpaceError, match="4 rows has no centre"):
        ofa_mobilenet(SHAPE, 3, kernels=(4, 3))
    with pytest.raises(SpaceError, match="2 stages have widths, and 1 have depths"):
        ofa_resnet(SHAPE, 3, widths=(8, 16), depths=((2, 1),))
    with pytest.raises(SpaceError, match="block 'wide' is unknown"):
        ofa_resnet(SHAPE, 3, "wide")


def test_squeezed_channels_follow_mobilenets_rule() -> None:
    # 24 channels that are widened three times have 72, of which a quarter is 18: 16 is less than nine tenths of it.
    space = ofa_mobilenet((3, 32, 32), 3, depths=(2,), kernels=(3,), expand=(3,))
    model = Supernet(space).extract(space.points["largest"])
    assert model.state_dict()["stages.1.first.excite.reduce"].shape == (24, 72)
    tiny = ofa_mobilenet((3, 8, 8), 3, scale=0.1, depths=(1,), kernels=(3,), expand=(1,))
    weights = Supernet(tiny).extract(tiny.points["largest"]).state_dict()
    assert min(weights[name].shape[0] for name in weights if name.endswith("excite.reduce")) == 8


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 17])
def test_widths_are_scaled_by_positive_numbers(value: float) -> None:
    with pytest.raises(ValidationError, match="scales"):
        OfaResNet.Config(scales=[1.0, value])
    with pytest.raises(ValidationError, match="scale"):
        OfaMobileNet.Config(scale=value)
