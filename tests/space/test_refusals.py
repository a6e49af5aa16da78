"""What an author or a user may not pass to choices, draws and costs, and what stored expressions may not hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rankitect.blocks import Linear
from rankitect.errors import SpaceError
from rankitect.graph import Architecture, B, Graph, SearchSpace
from rankitect.space.choice_space import ChoiceSpace
from rankitect.space.choices import Choice
from rankitect.space.declaring import Choices
from rankitect.space.scales import linear_range, log_range


def ranker(values: Any, between: Callable[[Graph, Choice], None] = lambda g, width: None) -> SearchSpace:
    g = Graph("ranker")
    x = g.input("x", B, 4)
    width = g.choice("width", values)
    between(g, width)
    g.out = Linear(1)(Linear(width)(x, name="first"), name="logit")
    return SearchSpace(g)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([-8, 16], r"at first \(Linear\): the size width of an output is -8 for width=-8; a size is at least 0"),
        ([True, False], "is categorical"),
        ([True, 8], "mixes numbers with other values"),
        ([float("nan"), 1.0], "finite numbers, not nan"),
        ([float("inf"), 1.0], "finite numbers, not inf"),
        ([8, 8], "lists a value twice"),
        ([8, 8.0], "lists a value twice"),
        ([], "has no values"),
        ("relu", "needs a list of values to choose from, not 'relu'"),
        ({8, 4}, "needs a list of values"),
        ({"a": 1}, "needs a list of values"),
        (8, "needs a list of values"),
        (None, "needs a list of values"),
        ([10**30, 4], "numbers up to"),
        ([10**400, 1.5], "finite numbers, not a number of"),
        ([[1], [2]], "numbers, strings and booleans"),
        ([None], "numbers, strings and booleans"),
        (["x" * 2000, "y"], "2,000 letters"),
        (range(1, 100_000), "99,999 values"),
    ],
)
def test_values_that_no_width_can_have_are_refused(values: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as refused:
        ranker(values)
    assert len(str(refused.value)) <= 500


def test_numbers_of_numpy_and_generators_are_values() -> None:
    assert Choice("a", np.asarray([8, 4])).kind == "ordinal"  # type: ignore[arg-type]
    assert Choices("s").choice("a", np.asarray([0.5, 1.5], np.float32)).kind == "real"  # type: ignore[arg-type]
    assert Choices("s").choice("a", (n for n in (1, 2))).values == (1, 2)  # type: ignore[arg-type]


def test_a_size_that_a_rule_or_a_gate_keeps_from_being_negative_is_allowed() -> None:
    space = ranker([-8, 8], lambda g, width: g.require(width.ge(1)))
    assert {a["width"] for a in space.sample_many(5, 0)} == {8}
    g = Graph("gated")
    x, width = g.input("x", B, 4), g.choice("width", [8, -8])
    g.out = Linear(1)(x, Linear(width)(x, name="first").when(width.ge(1)), name="logit")
    assert SearchSpace(g).size().distinct == 2


@pytest.mark.parametrize("name", ["", "a..b", "x" * 400, "a\x1b[31m", None, 3, ["a"]])
def test_names_that_cannot_be_shown_are_refused(name: Any) -> None:
    for wrong in (
        lambda: Graph(name),
        lambda: Choices("s").choice(name, [1, 2]),
        lambda: Graph("g").input(name, B, 4),
        lambda: Linear(2)(Graph("g").input("x", B, 4), name=name) if name is not None else Graph(name),
    ):
        with pytest.raises(SpaceError, match="the name of") as refused:
            wrong()
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True, [1.5], float("nan")])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    space = ranker([8, 4])
    for draw in (space.sample, lambda s: space.sample_many(2, s), lambda s: space.mutate(space.sample(0), s)):
        with pytest.raises(SpaceError, match="a seed must be a whole number from 0"):
            draw(seed)


@pytest.mark.parametrize("count", [-1, 1.5, "a", None, 10**9, True])
def test_a_number_of_draws_is_a_whole_number(count: Any) -> None:
    with pytest.raises(SpaceError, match="the number of architectures to draw"):
        ranker([8, 4]).sample_many(count, 0)
    assert ranker([8, 4]).sample_many(0, 0) == []


@pytest.mark.parametrize("bounds", [5, (1,), (1, 2, 3), (float("nan"), 1e9), ("a", "b"), None, (None, 1), (0, 10**400)])
def test_bounds_are_two_numbers(bounds: Any) -> None:
    with pytest.raises(SpaceError, match="params is bounded by two numbers") as refused:
        ranker([8, 4]).sample(0, params=bounds)
    assert len(str(refused.value)) <= 500


def test_bounds_may_be_infinite() -> None:
    space = ranker(list(range(1, 200)))
    widest, inf = space.cost(space.architecture(width=199), "params"), float("inf")
    assert {a["width"] for a in space.sample_many(9, 0, params=(widest, inf))} == {199}
    assert {a["width"] for a in space.sample_many(9, 0, params=(-inf, 7))} == {1}
    assert len(space.sample_many(9, 0, params=(-inf, inf))) == 9


@pytest.mark.parametrize("value", [-1, "x", 1.5, 10**30, None, [2]])
def test_free_dimensions_are_whole_numbers(value: Any) -> None:
    space = ranker([8, 4])
    with pytest.raises(SpaceError, match="dimension 'B' must be a whole number"):
        space.cost(space.sample(0), "flops", B=value)
    with pytest.raises(SpaceError, match="dimension 'B' must be a whole number"):
        space.sample(0, flops=(0, 1e18), B=value)
    with pytest.raises(SpaceError, match="unknown dimension 'Z'"):
        space.cost(space.sample(0), "flops", Z=3)


def test_costs_that_int64_cannot_hold_are_refused_and_not_wrapped_around() -> None:
    space = ranker([2**40, 2**41])
    assert space.cost(space.architecture(width=2**41), "params") == 5 * 2**41 + 2**41 + 1
    with pytest.raises(SpaceError, match="too large"):
        space.cost(space.architecture(width=2**41), "flops", B=2**39)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda c: c.subset("a", -1), lambda c: c.subset("a", 10**9, least=5 * 10**8), lambda c: c.subset("a", 1.5),
        lambda c: c.subset("a", 4, least=3, most=2), lambda c: c.simplex("a", 2, 10**9), lambda c: c.simplex("a", 1, 4),
        lambda c: c.simplex("a", "ab", 4), lambda c: c.simplex("a", ["x", "x"], 4), lambda c: c.simplex("a", 2, True),
        lambda c: c.simplex("a", 600, 1), lambda c: linear_range("a", 1, 3), lambda c: linear_range(0, 1, 10**9),
        lambda c: log_range(0, 1, 3), lambda c: linear_range(0, 1, 2.0), lambda c: c.choice("a", [1, 2], when=True),
        lambda c: c.choice("a", [2, 4]) ** -1, lambda c: c.choice("a", [2, 4]) ** 10**9,
    ],
)  # fmt: skip
def test_other_choices_and_ranges_are_refused_at_once(wrong: Callable[[Choices], Any]) -> None:
    with pytest.raises(SpaceError) as refused:
        wrong(Choices("s"))
    assert len(str(refused.value)) <= 500


def test_a_mixture_lists_all_ways_to_share_out_the_most_even_first() -> None:
    values = Choices("s").simplex("mix", 3, 4).values
    assert len(values) == len(set(values)) == 15
    assert all(sum(v) == 4 for v in values)
    assert values[0] == (2, 1, 1)
    assert len(Choices("s").simplex("mix", 500, 1).values) == 500
    assert log_range(1e-300, 1e300, 3).values == (1e-300, 1.0, 1e300)


# --- stored -----------------------------------------------------------------------------------------------------------
VAR = [[1, [[["var", "width"], 1]]]]


def nested(depth: int) -> Any:
    data: Any = VAR
    for _ in range(depth):
        data = [[1, [[["op", "floordiv", data, 3], 1]]]]
    return data


@pytest.mark.parametrize(
    "dim",
    [
        "1e100000000", "1/0", "0x10", "١/٢", 1.5, True, None, {}, 2**70, -(2**70), [], [[1, []]], [[0, VAR[0][1]]],
        [*VAR, *VAR],
        [[1, [[["var", "width"], 10**9]]]], [[1, [[["var", "width"], -1]]]], [[1, [[["var", "other"], 1]]]],
        [[1, [[["var", "width"], 1], [["var", "width"], 1]]]], [[1, [[["is", "width", 99], 1]]]],
        [[1, [[["is", "width", 8], 2]]]],
        [[1, [[["has", "width", 0], 1]]]], [[1, [[["part", "width", 0], 1]]]], [[1, [[["op", "sin", 1, 2], 1]]]],
        [[1, [[["op", "min", 1], 1]]]], [[1, [[["op", "any"], 1]]]], [[1, [[["op"], 1]]]], [[1, [[[], 1]]]], [[1]],
        [[1, 2, 3]],
        [[1, [[["sym", "\x1b"], 1]]]], nested(60), [[1, [[["op", "any", *[VAR] * 40_000], 1]]]],
    ],
)  # fmt: skip
def test_a_stored_size_is_refused_at_once(dim: Any) -> None:
    data = json.loads(ranker([8, 4]).to_json())
    data["nodes"][0]["outputs"][0]["dims"][1] = dim
    text = json.dumps(data)
    with pytest.raises(SpaceError) as refused:
        SearchSpace.from_json(text)
    assert len(str(refused.value)) <= 500


def change(*path: Any) -> Callable[[Any], Callable[[Any], None]]:
    def to(value: Any) -> Callable[[Any], None]:
        def apply(data: Any) -> None:
            for key in path[:-1]:
                data = data[key]
            data[path[-1]] = value

        return apply

    return to


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change("schema")(2), "schema"),
        (change("version")(1), "version"),
        (change("more")(1), "more"),
        (change("defaults", "B")(-1), "dimension 'B'"),
        (change("nodes", 1, "path")("x"), "two nodes 'x'"),
        (change("nodes", 1, "inputs", 0, "from")("logit"), "no node before it"),
        (change("nodes", 1, "inputs", 0, "index")(4), "has no output 4"),
        (change("nodes", 1, "inputs", 0, "gate")([[1, [[["sym", "B"], 1]]]]), "condition depends on B"),
        (change("nodes", 1, "outputs", 0, "dims", 1)(9), "not what is stored"),
        (change("nodes", 1, "block", "class")("os.system"), "not from an allowed package"),
        (change("nodes", 1, "block", "class")("rankitect.__main__.main"), "not from an allowed package"),
        (change("nodes", 1, "block", "class")("rankitect.errors.SpaceError"), "is no block"),
        (change("nodes", 1, "block", "fields", "width")("wide"), "first"),
        (change("nodes", 1, "block", "fields", "depth")(3), "no Linear can be made"),
        (change("choices", 0, "kind")("categorical"), "cannot be of kind 'categorical'"),
        (change("choices", 0, "log")(True), "is not declared as"),
        (change("choices", 0, "values")(None), "lacks 'values'"),
        (change("rules")([{"condition": 1, "text": "always"}]), "depends on no choice"),
        (change("out", 0, "from")("nowhere"), "no node before it"),
        (change("points")({"a": {"space": "ranker", "version": "1", "choices": {"width": 5}}}), "cannot be 5"),
    ],
)
def test_a_damaged_stored_space_is_refused_with_the_place(damage: Callable[[Any], None], message: str) -> None:
    data = json.loads(ranker([8, 4]).to_json())
    damage(data)
    with pytest.raises(SpaceError, match=message) as refused:
        SearchSpace.from_json(json.dumps(data))
    assert len(str(refused.value)) <= 500


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "1" * 5000, '{"space": 1}', "", '{"a": 1, "a": 2}', "nan"])
def test_a_text_that_is_no_space_or_architecture_is_a_sentence(text: str) -> None:
    for read in (SearchSpace.from_json, ChoiceSpace.from_json, Architecture.from_json):
        with pytest.raises(SpaceError) as refused:
            read(text)  # type: ignore[operator]
        assert len(str(refused.value)) <= 500


def test_a_setting_that_asks_for_a_later_one_is_refused() -> None:
    declared = Choices("s")
    kind = declared.choice("kind", ["a", "b"])
    declared.choice("more", [1, 2], when=kind.is_("a"))
    data = json.loads(ChoiceSpace(declared).to_json())
    assert json.loads(ChoiceSpace.from_json(json.dumps(data)).to_json()) == data
    data["settings"] = {"kind": [[1, [[["is", "more", 1], 1]]]], "more": 1}
    with pytest.raises(SpaceError, match="not declared before it"):
        ChoiceSpace.from_json(json.dumps(data))
    data["settings"] = {"kind": 1}
    with pytest.raises(SpaceError, match="only settings"):
        ChoiceSpace.from_json(json.dumps(data))
