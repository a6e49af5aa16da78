"""Spaces without a graph: identity, counting, drawing, moving, encoding, storing."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from rankitect.errors import SpaceError
from rankitect.space.architecture import Architecture
from rankitect.space.choice_space import ChoiceSpace
from rankitect.space.choices import Choice
from rankitect.space.declaring import Choices
from rankitect.space.scales import linear_range, log_range
from rankitect.space.tables import tabulate

seeds = st.integers(0, 2**32 - 1)


def training() -> ChoiceSpace:
    """Settings of a training: every kind of choice, a condition in a condition, and a rule over parts."""
    declared = Choices("training")
    declared.choice("lr", log_range(1e-4, 1e-2, 5))
    kind = declared.choice("optimizer", ["sgd", "adam"])
    with declared.inside("sgd"):
        momentum = declared.choice("momentum", [0.0, 0.5, 0.9], when=kind.is_("sgd"))
        declared.flag("nesterov", when=momentum.ge(0.5))
    declared.choice("batch", [64, 32, 128])
    mix = declared.simplex("mix", ["web", "code", "books"], 4)
    declared.subset("tasks", 3, most=2)
    declared.require(mix.part("code").ge(mix.part("books")), "at least as much code as books")
    return ChoiceSpace(declared)


SPACE = training()


def distinct(space: ChoiceSpace) -> dict[str, Architecture]:
    """All distinct architectures by brute force."""
    everything = {}
    for row in itertools.product(*(c.values for c in space.choices.values())):
        try:
            architecture = space.architecture(dict(zip(space.choices, row, strict=True)))
        except SpaceError:
            continue
        everything[architecture.fingerprint] = architecture
    return everything


EVERYTHING = distinct(SPACE)


def test_the_size_is_that_of_enumeration() -> None:
    assert SPACE.size().distinct == len(EVERYTHING)
    assert SPACE.size().raw == 5 * 2 * 3 * 2 * 3 * 15 * 6


def test_sampling_is_uniform_over_distinct_architectures() -> None:
    drawn = Counter(a.fingerprint for a in SPACE.sample_many(20 * len(EVERYTHING), 0))
    assert drawn.keys() <= EVERYTHING.keys()
    assert chisquare([drawn[f] for f in EVERYTHING]).pvalue > 1e-3


@given(seed=seeds)
def test_an_architecture_and_its_floats_survive_json(seed: int) -> None:
    architecture = SPACE.sample(seed)
    again = SPACE.validate(Architecture.from_json(architecture.to_json()))
    assert again.fingerprint == architecture.fingerprint
    assert dict(again.choices) == dict(architecture.choices)
    assert SPACE.decode(SPACE.encode([architecture])) == [architecture]
    assert architecture["lr"] in SPACE.choices["lr"].values


def test_a_setting_without_effect_is_no_part_of_the_identity() -> None:
    plain = {"lr": 1e-3, "optimizer": "adam", "batch": 64, "mix": (2, 1, 1), "tasks": (0,)}
    one = SPACE.architecture(plain)
    assert SPACE.architecture({**plain, "sgd.momentum": 0.9, "sgd.nesterov": True}) == one
    assert "sgd.momentum" not in one.choices
    slow = SPACE.architecture({**plain, "optimizer": "sgd", "sgd.momentum": 0.0})
    assert "sgd.nesterov" not in slow.choices, "it asks for a momentum"


@given(seed=seeds, other=seeds)
def test_moves_give_other_valid_architectures(seed: int, other: int) -> None:
    mother, father = SPACE.sample(seed), SPACE.sample(other)
    mutant, child = SPACE.mutate(mother, seed), SPACE.crossover(mother, father, seed)
    assert mutant.fingerprint in EVERYTHING
    assert mutant != mother
    assert child.fingerprint in EVERYTHING
    for path in child.choices.keys() & mother.choices.keys() & father.choices.keys():
        assert child[path] in (mother[path], father[path])


def test_neighbours_differ_in_one_choice_and_of_a_mixture_in_one_shifted_part() -> None:
    start = SPACE.architecture(lr=1e-3, optimizer="adam", batch=64, mix=(2, 1, 1), tasks=(0,))
    neighbours = list(SPACE.neighbours(start))
    assert len({a.fingerprint for a in neighbours}) == len(neighbours)
    changed = Counter(p for a in neighbours for p in start.choices if a[p] != start[p])
    # Of six shifts of one part, the rule forbids those to more books than code: two.
    assert changed == {"lr": 4, "optimizer": 1, "batch": 2, "mix": 3, "tasks": 5}
    for mix in (a["mix"] for a in neighbours if a["mix"] != start["mix"]):
        assert sorted(np.subtract(mix, start["mix"])) == [-1, 0, 1]


def test_distinct_architectures_have_distinct_features() -> None:
    rows = SPACE.features(EVERYTHING.values())
    assert rows.shape == (len(EVERYTHING), len(SPACE.feature_names))
    assert len({row.tobytes() for row in rows}) == len(EVERYTHING)


def test_features_know_the_order_of_numbers_and_the_shares_of_a_mixture() -> None:
    at = {name: i for i, name in enumerate(SPACE.feature_names)}
    plain = {"optimizer": "adam", "batch": 64, "mix": (2, 1, 1), "tasks": (0,)}
    rows = SPACE.features([SPACE.architecture({**plain, "lr": lr}) for lr in SPACE.choices["lr"].values])
    assert rows[:, at["lr"]] == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=1e-5)
    assert list(rows[0, [at["mix:web"], at["mix:code"], at["mix:books"]]]) == [0.5, 0.25, 0.25]
    assert rows[0, at["sgd.momentum"]] == -1


def test_a_space_survives_json() -> None:
    again = ChoiceSpace.from_json(SPACE.to_json())
    assert again.to_json() == SPACE.to_json()
    assert again.sample_many(20, 1) == SPACE.sample_many(20, 1)
    assert list(again.choices) == list(SPACE.choices)
    with pytest.raises(SpaceError, match="a space in JSON is not of the form"):
        ChoiceSpace.from_json('{"schema": 1}')


def test_a_real_number_changes_to_near_ones_more_often() -> None:
    rng, choice = np.random.default_rng(0), SPACE.choices["lr"]
    drawn = Counter(choice.changed(1e-4, rng) for _ in range(4000))
    counts = [drawn[v] for v in choice.values]
    assert counts[0] == 0
    assert counts[1] > 1.5 * counts[2] > 2 * counts[3]
    assert counts[4] > 0


def test_costs_of_a_space_without_a_graph_are_those_that_it_was_given() -> None:
    space = training()
    with pytest.raises(SpaceError, match="cannot bound 'flops': space 'training' has no costs"):
        space.sample(0, flops=(0, 1))
    with pytest.raises(SpaceError, match="unknown cost 'flops'"):
        space.cost(space.sample(0), "flops")
    batch = space.choices["batch"]
    space.learned["memory"] = lambda: tabulate(batch * 10, space.choices)
    assert space.cost(space.sample(0, memory=(1000, 2000)), "memory") == 1280
    with pytest.raises(SpaceError, match=r"no architecture with memory=\(1, 2\): its memory go from 320 to 1,280"):
        space.sample(0, memory=(1, 2))


@pytest.mark.parametrize(
    ("declare", "text"),
    [
        (lambda d: d.choice("lr", [0.1, float("nan")]), "choice 'lr' must choose among finite numbers, not nan"),
        (lambda d: d.choice("lr", [0.1, "a"]), None),
        (lambda d: d.choice("lr", [0.1, 1, 1.0]), "choice 'lr' lists a value twice: [0.1, 1.0, 1.0]"),
        (lambda d: log_range(0, 1, 3), "a logarithmic range needs low > 0, not 0"),
        (lambda d: linear_range(1, 1, 3), "a range needs finite numbers low < high, not 1 and 1"),
        (lambda d: linear_range(0, 1, 1), "the number of values in a range must be a whole number from 2"),
        (lambda d: d.choice("lr", log_range(1, 2, 3)) * 2, "choice 'lr' is real (1.0, 1.41421, 2.0) and is no whole"),
        (
            lambda d: d.choice("lr", log_range(1, 2, 3)).le(d.choice("b", [1])),
            "choice 'lr' is real and can be compared",
        ),
        (lambda d: d.simplex("mix", 1, 3), "choice 'mix': the number of members must be a whole number from 2"),
        (
            lambda d: d.simplex("mix", 3, 2, least=1),
            "choice 'mix': 2 parts cannot be shared out among 3 members, 1 each",
        ),
        (
            lambda d: d.simplex("mix", 9, 20),
            "choice 'mix' would have 3,108,105 ways to share 20 parts out among 9 memb",
        ),
        (lambda d: d.simplex("mix", ["a", "b"], 3).part("c"), "choice 'mix' has no member 'c'; known: a, b"),
        (
            lambda d: d.simplex("mix", 2, 3) + 1,
            "choice 'mix' is simplex ((2, 1), (1, 2), (3, 0), (0, 3)) and is no num",
        ),
        (
            lambda d: d.simplex("mix", ["a", "b"], 3).position([1, 1]),
            "choice 'mix' cannot be (1, 1); allowed: 2 whole numbers from 0 that sum to 3 (a, b)",
        ),
        (
            lambda d: d.choice("b", [1, 2], when=Choice("a", ["x", "y"]).is_("x")),
            "choice 'b': its `when` asks for 'a', which is not declared before it",
        ),
    ],
)
def test_a_mistake_of_the_author_is_named(declare: object, text: str | None) -> None:
    declared = Choices("d")
    with pytest.raises(SpaceError) as caught:
        declare(declared)  # type: ignore[operator]
    assert str(caught.value).startswith(text or "choice 'lr' mixes numbers with other values"), str(caught.value)


def test_simplex_values_are_all_compositions_the_most_even_first() -> None:
    mix = Choices("d").simplex("mix", 3, 4)
    assert mix.values[0] == (2, 1, 1)
    assert set(mix.values) == {v for v in itertools.product(range(5), repeat=3) if sum(v) == 4}
    assert mix.setting((2, 1, 1)) == [2, 1, 1]
    assert Choices("d").simplex("mix", ["a", "b"], 2, least=1).values == ((1, 1),)


def test_the_room_needs_neither_torch_nor_a_graph() -> None:
    code = (
        "import sys; import rankitect.space.choice_space; "
        "print([m for m in sys.modules if m == 'torch' or m.startswith('rankitect.graph')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []


@given(members=st.integers(2, 5), total=st.integers(1, 9), least=st.integers(0, 2))
def test_a_simplex_has_every_way_to_share_once_and_its_moves_lead_back(members: int, total: int, least: int) -> None:
    declared = Choices("mixture")
    if total < least * members:
        with pytest.raises(SpaceError, match="cannot be shared out"):
            declared.simplex("mix", members, total, least)
        return
    mix = declared.simplex("mix", members, total, least)
    free = total - least * members
    assert len(set(mix.values)) == len(mix.values) == math.comb(free + members - 1, members - 1)
    assert ChoiceSpace(declared).size().distinct == len(mix.values)
    for value in mix.values:
        assert sum(value) == total
        assert min(value) >= least
        assert all(value in mix.neighbours(other) for other in mix.neighbours(value))


def test_large_sizes_are_exact_or_rounded_to_what_is_known() -> None:
    for count in (24, 25, 29, 31):
        declared = Choices("many")
        for i in range(count):
            declared.choice(f"c{i}", [1, 2, 3])
        distinct = ChoiceSpace(declared).size().distinct
        assert distinct == (3**count if 3**count < 10**12 else int(float(f"{3**count:.6g}")))


def test_a_rule_on_the_value_of_a_mixture_survives_json() -> None:
    declared = Choices("mixture")
    mix = declared.simplex("mix", ["web", "code"], 4)
    declared.require(~mix.is_((3, 1)), "not three to one")
    space = ChoiceSpace(declared)
    assert space.size().distinct == 4
    assert ChoiceSpace.from_json(space.to_json()).to_json() == space.to_json()


def test_what_is_no_condition_is_no_rule_and_no_when() -> None:
    declared = Choices("training")
    batch, flag = declared.choice("batch", [32, 64]), declared.flag("flag")
    for wrong in (batch, batch % 3):
        with pytest.raises(SpaceError, match="choice 'lr': `when` must be a condition, 1 or 0, not"):
            declared.choice("lr", [0.1, 0.2], when=wrong)
    with pytest.raises(SpaceError, match=r"rule 2\*batch must be a condition, 1 or 0"):
        declared.require(batch * 2)
    with pytest.raises(SpaceError, match="choice 'flag' is categorical"):
        declared.choice("lr", [0.1, 0.2], when=flag)
    assert "lr" not in declared.choices
