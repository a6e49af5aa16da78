"""Marginal costs of certain values, which are looked up, are those that gradients give."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankitect.data.ranking.features import CategoricalFeature, Features
from rankitect.graph import SearchSpace
from rankitect.methods.cost_target import CostTarget
from rankitect.search_spaces.mobile_llm import mobile_llm
from rankitect.search_spaces.ranking_blocks import ranking_blocks


@cache
def language() -> SearchSpace:
    return mobile_llm(vocab=64, layers=3, widths=(16, 32), kv_heads=(1, 2), group=(2,), ffn=(32, 64), head=8, window=8)


@cache
def ranking() -> SearchSpace:
    features = Features(("price",), (CategoricalFeature("user", 9), CategoricalFeature("tags", 7, 3)))
    return ranking_blocks(features, blocks=1, embedding=(4, 2), widths=(6, 3), counts=(3, 5), ranks=(2, 1), most=2)


def drawn(space: SearchSpace, seed: int) -> dict[str, int]:
    rng = np.random.default_rng(seed)
    return {p: int(rng.integers(len(c.values))) for p, c in space.choices.items()}


@pytest.mark.parametrize(("space", "cost"), [(language, "flops"), (language, "layers:params"), (ranking, "flops")])
@given(st.integers(0, 2**32 - 1))
def test_marginal_costs_that_are_looked_up_are_the_gradients_to_the_last_digit(space, cost, seed):
    whole, positions = space(), drawn(space(), seed)
    target = CostTarget(whole, cost, whole.sample(np.random.default_rng(0)))
    target.remember({p: torch.eye(len(c.values), dtype=torch.float64)[positions[p]] for p, c in whole.choices.items()})
    gradients = dict(target.marginal)
    target.remember_values(positions)
    assert all(torch.equal(gradients[p], target.marginal[p]) for p in whole.choices)


def test_marginal_costs_are_differences_of_costs():
    space = language()
    target = CostTarget(space, "flops", space.sample(np.random.default_rng(0)))
    positions = drawn(space, 3)
    target.remember_values(positions)
    for path, choice in space.choices.items():
        columns = {p: np.full(len(choice.values), n) for p, n in positions.items()}
        columns[path] = np.arange(len(choice.values))
        costs = target._tables.evaluate(space.choices, columns, len(choice.values)) / target.whole
        assert target.marginal[path].numpy() == pytest.approx(costs - costs.min(), abs=1e-12)
