"""Weights that are not trained: running statistics in training, in evaluation, and taken anew for one architecture."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rankitect.blocks import BatchNorm, Linear
from rankitect.errors import SpaceError
from rankitect.graph import B, Graph, SearchSpace
from rankitect.models.statistics import has_statistics, recalibrate
from rankitect.models.supernet import Supernet, build
from tests.graph.spaces import CASES

IMAGES = CASES["images"].make()


def batches(count: int, size: int = 8) -> list[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(3)
    return [(torch.randn(size, 3, 9, 7, generator=generator),) for _ in range(count)]


def one_norm() -> SearchSpace:
    g = Graph("one")
    width = g.choice("width", [4, 2])
    g.out = BatchNorm(momentum=0.2)(Linear(width)(g.input("x", B, 3), name="linear"), name="norm")
    return SearchSpace(g)


def test_statistics_are_no_parameters_and_stay_in_a_models_state() -> None:
    model = build(IMAGES, IMAGES.sample(0))
    names = {name for name, _ in model.named_parameters()}
    buffers = {name for name, _ in model.named_buffers()}
    assert {"norm.mean", "norm.variance"} <= buffers
    assert not buffers & names
    assert buffers | names == set(model.state_dict())
    assert has_statistics(IMAGES)
    assert not has_statistics(CASES["ctr"].make())


def test_training_moves_statistics_as_torch_does() -> None:
    space = one_norm()
    model = build(space, space.architecture({"width": 4}))
    theirs = nn.BatchNorm1d(4, momentum=0.2)
    for _ in range(3):
        x = torch.randn(5, 3)
        hidden = torch.nn.functional.linear(x, *(model.owner("linear").get_parameter(n) for n in ("weight", "bias")))
        assert torch.allclose(model(x), theirs(hidden), atol=1e-6)
    assert torch.allclose(model.owner("norm").get_buffer("mean"), theirs.running_mean)
    assert torch.allclose(model.owner("norm").get_buffer("variance"), theirs.running_var)
    x = torch.randn(5, 3)
    hidden = torch.nn.functional.linear(x, *(model.owner("linear").get_parameter(n) for n in ("weight", "bias")))
    assert torch.allclose(model.eval()(x), theirs.eval()(hidden), atol=1e-6)


def test_an_architecture_moves_its_part_of_shared_statistics() -> None:
    supernet = Supernet(one_norm(), seed=1)
    supernet.activate(supernet.space.architecture({"width": 2}))(torch.randn(6, 3) + 1)
    mean = supernet.weights.owner("norm").get_buffer("mean")
    assert (mean[:2] != 0).all()
    assert (mean[2:] == 0).all()


def test_an_evaluation_is_independent_of_the_batch_and_changes_nothing() -> None:
    supernet = Supernet(IMAGES, seed=1)
    architecture = IMAGES.sample(4)
    for inputs in batches(3):
        supernet.activate(architecture)(*inputs)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    supernet.eval()
    x = batches(1, 64)[0][0]
    for model in (supernet.activate(architecture), supernet.extract(architecture).eval()):
        whole = model(x)
        assert torch.allclose(torch.cat([model(row[None]) for row in x]), whole, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())


def test_statistics_taken_anew_are_means_over_batches_and_belong_to_one_view() -> None:
    supernet = Supernet(one_norm(), seed=1)
    small, large = (supernet.activate(supernet.space.architecture({"width": n})) for n in (2, 4))
    data = [(torch.randn(16, 3),) for _ in range(3)]
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    assert recalibrate(small, data) == 48
    assert small.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())
    linear = supernet.weights.owner("linear")
    weight, bias = linear.get_parameter("weight")[:2], linear.get_parameter("bias")[:2]
    hidden = [torch.nn.functional.linear(x, weight, bias) for (x,) in data]
    assert torch.allclose(small.mode.own["norm", "mean"], torch.stack([h.mean(0) for h in hidden]).mean(0), atol=1e-6)
    variances = torch.stack([h.var(0) for h in hidden]).mean(0)
    assert torch.allclose(small.mode.own["norm", "variance"], variances, atol=1e-6)
    alone = supernet.extract(supernet.space.architecture({"width": 2}))
    recalibrate(alone, data)
    x = torch.randn(7, 3)
    assert torch.equal(alone.eval()(x), small.eval()(x))
    assert not torch.equal(large.eval()(x)[:, :2], small(x))
    with torch.no_grad():
        alone.owner("norm").get_buffer("mean").fill_(float("nan"))
    recalibrate(alone, data)
    assert torch.equal(alone(x), small(x))
    with pytest.raises(SpaceError, match="no batches"):
        recalibrate(alone, [])
    assert torch.equal(alone(x), small(x))


def test_activations_that_are_computed_again_move_statistics_once() -> None:
    kept, again = Supernet(IMAGES, seed=1), Supernet(IMAGES, seed=1)
    again.recompute = True
    architecture = IMAGES.sample(5)
    for supernet in (kept, again):
        supernet.activate(architecture)(*batches(1)[0]).square().sum().backward()
    theirs = again.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in kept.state_dict().items())
