"""The relaxed supernet: at one-hot weights an architecture, between them an expectation."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankitect.blocks import Conv2d, GlobalPool, Linear
from rankitect.errors import SpaceError
from rankitect.graph import B, Graph, SearchSpace
from rankitect.models.relaxed import RelaxedSupernet, one_hot
from rankitect.models.supernet import Supernet
from tests.graph.drawing import every_space, seeds
from tests.graph.spaces import CASES, Split
from tests.models.test_supernet import outputs, squares, supernet_of


def random_weights(space: SearchSpace, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        p: torch.randn(len(c.values), generator=generator, dtype=torch.float64).softmax(0)
        for p, c in space.choices.items()
    }


@pytest.mark.identity
@pytest.mark.parametrize("name", every_space())
@given(seed=seeds)
def test_one_hot_weights_equal_the_activated_architecture(name: str, seed: int) -> None:
    supernet = supernet_of(name)
    space = supernet.space
    architecture = space.sample(seed)
    inputs = CASES[name].inputs(space, seed % 1000)
    relaxed = RelaxedSupernet(supernet)
    weights = one_hot(space, architecture)
    mixed = relaxed(weights, *inputs)
    mixed = mixed if isinstance(mixed, tuple) else (mixed,)
    active = outputs(supernet.activate(architecture), inputs)
    for m, a in zip(mixed, active, strict=True):
        part = m[tuple(slice(n) for n in a.shape)]  # an output whose size is a choice is padded with zeros
        torch.testing.assert_close(part, a, rtol=1e-4, atol=1e-4)
        assert float(m.detach().abs().sum()) == pytest.approx(float(part.detach().abs().sum()), rel=1e-4, abs=1e-5)
    gradients = []
    for made in (mixed, active):
        supernet.zero_grad()
        squares(tuple(made)).backward()
        gradients.append({n: p.grad for n, p in supernet.named_parameters()})
    for path, one in gradients[0].items():
        other = gradients[1][path]
        other = torch.zeros_like(supernet.get_parameter(path)) if other is None else other
        one = torch.zeros_like(other) if one is None else one
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(1 + other.norm()))


@pytest.mark.identity
@pytest.mark.parametrize("name", every_space())
@given(seed=seeds, kind=st.sampled_from(["params", "flops", "cache_bytes", "activation_bytes"]))
def test_expected_cost_at_one_hot_weights_is_the_cost(name: str, seed: int, kind: str) -> None:
    supernet = supernet_of(name)
    architecture = supernet.space.sample(seed)
    expected = RelaxedSupernet(supernet).expected_cost(one_hot(supernet.space, architecture), kind)
    assert float(expected) == supernet.space.cost(architecture, kind)


@pytest.mark.parametrize("name", ["dropped", "nested", "many", "in_a_row", "shared"])
@pytest.mark.parametrize("kind", ["params", "flops"])
def test_expected_cost_is_the_average_over_all_architectures(name: str, kind: str) -> None:
    supernet = supernet_of(name)
    space = supernet.space
    weights = random_weights(space, 3)
    columns = [range(len(c.values)) for c in space.choices.values()]
    average = 0.0
    rows = list(itertools.product(*columns))
    arrays = {p: torch.tensor([r[i] for r in rows]).numpy() for i, p in enumerate(space.choices)}
    costs = space.cost(space.canonical(arrays), kind)
    for row, cost in zip(rows, costs, strict=True):
        average += float(cost) * math.prod(float(weights[p][i]) for p, i in zip(space.choices, row, strict=True))
    assert float(RelaxedSupernet(supernet).expected_cost(weights, kind)) == pytest.approx(average, rel=1e-9)


@pytest.mark.parametrize("name", every_space())
def test_every_live_choice_gets_a_gradient(name: str) -> None:
    supernet = supernet_of(name)
    space = supernet.space
    logits = {p: torch.zeros(len(c.values), requires_grad=True) for p, c in space.choices.items()}
    weights = {p: v.softmax(0) for p, v in logits.items()}
    relaxed = RelaxedSupernet(supernet)
    made = relaxed(weights, *CASES[name].inputs(space))
    squares(made if isinstance(made, tuple) else (made,)).backward(retain_graph=True)
    for path, logit in logits.items():
        if len(logit) > 1:
            assert logit.grad is not None, path
            assert torch.isfinite(logit.grad).all()
            assert float(logit.grad.abs().sum()) > 0, path
    relaxed.expected_cost(weights, "flops").backward()


def test_all_outputs_of_a_block_are_masked() -> None:
    g = Graph("outputs")
    x = g.input("x", B, 3)
    left, right = g.outputs_of(Split(g.choice("left", [2, 4]), g.choice("right", [1, 5]))(x))
    g.out = (left, right)
    space = SearchSpace(g)
    supernet = Supernet(space)
    relaxed = RelaxedSupernet(supernet)
    with torch.no_grad():
        a, b = relaxed(one_hot(space, space.architecture(left=2, right=1)), torch.randn(4, 3))
    assert float(a[:, 2:].abs().sum()) == 0
    assert float(b[:, 1:].abs().sum()) == 0
    assert float(b[:, :1].abs().sum()) > 0
    assert supernet.weights.get_parameter("split.b").shape == (5, 3)


def test_a_choice_of_resolution_is_named_where_it_cannot_be_mixed() -> None:
    g = Graph("sizes")
    rows = g.choice("resolution", [8, 6])
    x = Conv2d(4, stride=2)(g.input("image", B, 3, rows, rows), name="stem")
    g.out = Linear(2)(GlobalPool()(x, name="pool"), name="classes")
    supernet = Supernet(SearchSpace(g))
    for size in (8, 6):
        assert supernet.activate(supernet.space.architecture({"resolution": size}))(torch.zeros(1, 3, size, size)).shape
    with pytest.raises(SpaceError, match="'resolution' decides the size of 'image'"):
        RelaxedSupernet(supernet)


def test_weights_of_a_wrong_shape_are_refused() -> None:
    supernet = supernet_of("many")
    weights = one_hot(supernet.space, supernet.space.sample(0))
    relaxed = RelaxedSupernet(supernet)
    with pytest.raises(SpaceError, match=r"choice 'width' needs weights of shape \[3\], not \[2\]"):
        relaxed.mixture({**weights, "width": torch.ones(2) / 2})
    with pytest.raises(SpaceError, match=r"choice 'op' needs weights of shape \[2\], not nothing"):
        relaxed.mixture({p: w for p, w in weights.items() if p != "op"})
