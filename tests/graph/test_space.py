"""Architectures of a space: identity, counting, drawing, moving, encoding, storing."""

from __future__ import annotations

import itertools
import json
import pickle
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, B, Graph, SearchSpace
from rankitect.graph.cost import COSTS
from rankitect.models.supernet import Supernet
from rankitect.search_spaces.mobile_llm import mobile_llm
from tests.graph.drawing import every_space, seeds
from tests.graph.spaces import CASES
from tests.models.test_supernet import outputs, supernet_of

SMALL = ["dropped", "many", "nested", "in_a_row", "shared"]


def every_assignment(space: SearchSpace) -> list[dict[str, object]]:
    values = [c.values for c in space.choices.values()]
    return [dict(zip(space.choices, row, strict=True)) for row in itertools.product(*values)]


def distinct(space: SearchSpace) -> dict[str, Architecture]:
    """All distinct architectures by brute force."""
    found = {}
    for row in every_assignment(space):
        try:
            made = space.architecture(row)
        except SpaceError:
            continue
        found[made.fingerprint] = made
    return found


@pytest.mark.identity
@pytest.mark.parametrize("name", every_space())
@given(seed=seeds)
def test_an_architecture_survives_json(name: str, seed: int) -> None:
    space = CASES[name].make()
    architecture = space.sample(seed)
    again = space.validate(Architecture.from_json(architecture.to_json()))
    assert again == architecture
    assert again.fingerprint == architecture.fingerprint
    assert hash(again) == hash(architecture)
    assert again.choices == architecture.choices
    assert pickle.loads(pickle.dumps(architecture)) == architecture
    assert json.loads(architecture.to_json())["space"] == space.name
    assert space.decode(space.encode([architecture])) == [architecture]


@pytest.mark.identity
@pytest.mark.parametrize("name", every_space())
@given(seed=seeds, other=seeds)
def test_choices_without_effect_are_no_part_of_the_identity(name: str, seed: int, other: int) -> None:
    supernet = supernet_of(name)
    space, rng = supernet.space, np.random.default_rng(other)
    architecture = space.sample(seed)
    spelt = {p: c.values[rng.integers(len(c.values))] for p, c in space.choices.items()} | dict(architecture.choices)
    assert space.architecture(spelt).fingerprint == architecture.fingerprint
    # What is left out can be set to anything without a change of the model.
    columns = {p: np.asarray([c.position(spelt[p])]) for p, c in space.choices.items()}
    assert space.decode(space.canonical(columns)) == [architecture]
    for kind in COSTS:
        assert space.cost(columns, kind)[0] == space.cost(architecture, kind)


@pytest.mark.parametrize("name", SMALL)
def test_the_distinct_size_is_that_of_enumeration(name: str) -> None:
    space = CASES[name].make()
    size = space.size()
    assert size.raw == len(every_assignment(space))
    assert size.distinct == len(distinct(space))


@pytest.mark.parametrize("name", ["dropped", "many"])
def test_distinct_architectures_are_distinct_functions(name: str) -> None:
    supernet = supernet_of(name)
    inputs = CASES[name].inputs(supernet.space)
    made = {f: outputs(supernet.activate(a), inputs) for f, a in distinct(supernet.space).items()}
    seen = Counter(tuple(o.detach().numpy().tobytes() for o in out) for out in made.values())
    assert max(seen.values()) == 1


@pytest.mark.parametrize("name", SMALL)
def test_sampling_is_uniform_over_distinct_architectures(name: str) -> None:
    space = CASES[name].make()
    known = distinct(space)
    drawn = Counter(a.fingerprint for a in space.sample_many(4000, 0))
    assert set(drawn) <= set(known)
    assert chisquare([drawn[f] for f in known]).pvalue > 1e-3


def test_sampling_in_a_range_is_uniform_too() -> None:
    space = CASES["nested"].make()
    costs = {f: space.cost(a, "params") for f, a in distinct(space).items()}
    low, high = np.quantile(list(costs.values()), [0.9, 0.97])
    inside = [f for f, c in costs.items() if low <= c <= high]
    drawn = Counter(a.fingerprint for a in space.sample_many(2000, 0, params=(low, high)))
    assert set(drawn) <= set(inside)
    assert chisquare([drawn[f] for f in inside]).pvalue > 1e-3


def test_a_rare_range_is_reached_and_drawn_uniformly() -> None:
    """Far fewer than one in a thousand plain draws are inside: the proposal must be tilted, the result uniform."""
    g = Graph("wide")
    x = g.input("x", B, 1)
    from rankitect.blocks import Linear

    g.out = tuple(Linear(g.choice(f"w{i}", [1, 2, 3, 4]), bias=False)(x, name=f"l{i}") for i in range(12))
    space = SearchSpace(g)
    drawn = space.sample_many(1500, 1, params=(13, 13))
    assert {space.cost(a, "params") for a in drawn} == {13}
    counts = Counter(a.fingerprint for a in drawn)
    assert len(counts) == 12
    assert chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("name", every_space())
def test_a_sample_lies_in_its_ranges(name: str) -> None:
    space = CASES[name].make()
    costs = space.cost(space.sample_many(200, 0), "params")
    flops = space.cost(space.sample_many(200, 0), "flops")
    low, high = np.quantile(costs, [0.3, 0.6])
    for a in space.sample_many(20, 1, params=(low, high), flops=(flops.min(), flops.max())):
        assert low <= space.cost(a, "params") <= high


def test_ranges_of_a_scope_and_of_other_tokens() -> None:
    space = CASES["phone"].make()
    middle = float(np.median(space.cost(space.sample_many(200, 0), "flops", "layers", T=12)))
    a = space.sample(0, flops=(middle, 1.2 * middle), scope="layers", T=12)
    assert middle <= space.cost(a, "flops", "layers", T=12) <= 1.2 * middle


@pytest.mark.parametrize("name", every_space())
@given(seed=seeds, other=seeds)
def test_moves_give_valid_architectures(name: str, seed: int, other: int) -> None:
    space = CASES[name].make()
    mother, father = space.sample(seed), space.sample(other)
    mutant = space.mutate(mother, other)
    assert mutant != mother
    child = space.crossover(mother, father, seed)
    for a in (mutant, child):
        assert space.validate(a) == a
    assert space.mutate(mother, other) == mutant
    near = list(itertools.islice(space.neighbours(mother), 6))
    assert len({a.fingerprint for a in [mother, *near]}) == len(near) + 1
    for a in near:
        assert space.validate(a) == a


def test_neighbours_are_all_that_differ_in_one_value() -> None:
    space = CASES["many"].make()
    a = space.architecture(width=5, right=2, op="sum")
    found = {tuple(n.choices.values()) for n in space.neighbours(a)}
    assert found == {(3, 2, "sum"), (7, 2, "sum"), (5, 4, "sum"), (5, 2, "dense")}


@pytest.mark.parametrize("name", SMALL)
def test_distinct_architectures_have_distinct_features(name: str) -> None:
    space = CASES[name].make()
    rows = space.features(distinct(space).values())
    assert rows.shape == (space.size().distinct, len(space.feature_names))
    assert len({row.tobytes() for row in rows}) == len(rows)
    assert np.isfinite(rows).all()
    assert len(set(space.feature_names)) == len(space.feature_names)


def test_an_empty_subset_and_one_without_effect_differ_in_features() -> None:
    from rankitect.blocks import Linear
    from rankitect.graph import Zero

    g = Graph("subset")
    x = g.input("x", B, 2)

    def some(x: object) -> object:
        return Linear(2)(x, *g.pick("more", [x, x], least=0), name="lin")

    g.out = g.oneof("op", {"some": some, "none": Zero()}, x)
    space = SearchSpace(g)
    everything = distinct(space)
    assert len(everything) == 5
    assert len({r.tobytes() for r in space.features(everything.values())}) == 5


@pytest.mark.identity
@pytest.mark.parametrize("name", every_space())
@given(seed=seeds, kind=st.sampled_from(sorted(COSTS)), tokens=st.integers(1, 40), past=st.integers(0, 20))
def test_vectorised_costs_equal_the_scalar_ones(name: str, seed: int, kind: str, tokens: int, past: int) -> None:
    from rankitect.graph.cost import cost_expression
    from rankitect.space.tables import Assignments

    space = CASES[name].make()
    some = space.sample_many(5, seed)
    symbols = {"B": 2, "T": tokens, "P": past}
    together = space.cost(some, kind, **symbols)
    expression = cost_expression(space.graph, space.live, kind)
    for a, cost in zip(some, together, strict=True):
        row = {p: c[0] for p, c in space.encode([a]).items()}
        assert cost == space.cost(a, kind, **symbols) == expression.evaluate(Assignments(space.choices, row, symbols))


@pytest.mark.parametrize("name", every_space())
def test_a_space_survives_json(name: str) -> None:
    space = CASES[name].make()
    text = space.to_json()
    again = SearchSpace.from_json(text, allowed_packages=("rankitect", "tests"))
    assert again.to_json() == text
    assert again.size() == space.size()
    assert list(again.choices) == list(space.choices)
    inputs = CASES[name].inputs(space)
    ours, theirs = supernet_of(name), Supernet(again, seed=1)
    theirs.load_state_dict(ours.state_dict())
    for architecture in space.sample_many(5, 0):
        assert again.validate(architecture) == architecture
        for kind in COSTS:
            assert again.cost(architecture, kind) == space.cost(architecture, kind)
        for a, b in zip(
            outputs(ours.activate(architecture), inputs), outputs(theirs.activate(architecture), inputs), strict=True
        ):
            assert a.equal(b)


def test_a_space_without_choices_has_one_architecture() -> None:
    from rankitect.blocks import Linear

    g = Graph("fixed")
    g.out = Linear(g.choice("one", [3]))(g.input("x", B, 2))
    space = SearchSpace(g)
    assert space.size() == (1, 1)
    only = space.architecture()
    assert dict(only.choices) == {}
    assert space.sample_many(3, 0) == [only] * 3
    assert list(space.cost([only, only], "params")) == [9, 9]
    assert list(space.neighbours(only)) == []
    with pytest.raises(SpaceError, match="no feasible mutation"):
        space.mutate(only, 0)


@pytest.mark.parametrize("kind", ["params", "flops"])
def test_an_impossible_range_is_refused_with_what_the_space_offers(kind: str) -> None:
    space = CASES["nested"].make()
    costs = [space.cost(a, kind) for a in distinct(space).values()]
    offers = f"its {kind} go from {min(costs):,.0f} to {max(costs):,.0f}"
    for low, high in [(max(costs) + 1, 1e12), (0, min(costs) - 1)]:
        text = f"space 'nested' has no architecture with {kind}=({low:,.0f}, {high:,.0f}): {offers}"
        with pytest.raises(SpaceError, match=re.escape(text)):
            space.sample(0, **{kind: (low, high)})


def test_ranges_that_exclude_each_other_are_given_up() -> None:
    space = CASES["phone"].make()
    some = space.sample_many(500, 0)
    params, flops = space.cost(some, "params"), space.cost(some, "flops")
    with pytest.raises(
        SpaceError, match=r"0 of 1 architectures found with params=.*, flops=.* in [\d,]+ draws \(params"
    ):
        space.sample(0, params=(params.max(), 1e9), flops=(0, flops.min()))


def test_a_range_that_yields_little_is_drawn_from_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankitect.space.sampling.ROUNDS", 1)
    space = CASES["phone"].make()
    some = space.cost(space.sample_many(500, 0), "params")
    low, high = np.quantile(some, [0.5, 0.52])
    found = space.cost(space.sample_many(3000, 0, params=(low, high)), "params")
    assert len(found) == 3000
    assert low <= found.min()
    assert found.max() <= high


def test_two_rare_ranges_are_met_together() -> None:
    space = mobile_llm()
    a = space.sample(0, params=(60e6, 70e6), flops=(40e9, 45e9))
    assert 60e6 <= space.cost(a, "params") <= 70e6
    assert 40e9 <= space.cost(a, "flops") <= 45e9
