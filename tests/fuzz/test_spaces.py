"""Stored spaces and architectures, and what an author may pass when a space is made."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch

from rankitect.blocks import GQA, Concat, Embed, Flatten, Head, Linear, Norm, Rope, SwiGLU, Tables
from rankitect.graph import Architecture, B, Graph, SearchSpace, Sum, T, Zero
from rankitect.models.supernet import build
from rankitect.space.choice_space import ChoiceSpace
from rankitect.space.declaring import Choices
from rankitect.space.scales import linear_range, log_range
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz

ODD = [-8, 0, 1, 3, 10**6, 2**31, 2**63, 10**400, 1.5, float("nan"), float("inf"), True, None, "x", "", [], {}, (1, 2)]


def model_space() -> SearchSpace:
    """Every verb of a graph: a width, a depth, a pick, a candidate that is left out, a rule, a setting, bits."""
    g = Graph("fuzzed")
    numbers, ids = g.input("numbers", B, 3), g.input("ids", B, 2, dtype="int")
    width = g.choice("width", [8, 4, 6])
    embedded = Flatten("width")(Tables((5, 7), (1, 1), g.choice("embedding", [4, 2]))(ids, name="tables"), name="flat")
    x = Linear(width, "relu")(Concat()(numbers, embedded, name="joined"), name="first")
    x = g.repeat(
        "layers", g.choice("depth", [2, 1]), lambda i, h: Norm()(h + Linear(width)(h, name="mix"), name="n"), x
    )
    bits = g.choice("bits", [32, 8, 4])
    few = Linear(width, "relu", bits=bits, scale_group=2 * bits.is_(4), act_bits=8, ranges="stored")
    kind = g.oneof("kind", {"wide": few, "none": Zero()}, x)
    g.out = Linear(1)(*g.pick("inputs", [x, kind, numbers], most=2), name="logit")
    g.require((width % 4).eq(0) | g.choices["depth"].is_(1), "a deep model has a width that four divides")
    with g.settings():
        g.choice("lr", log_range(1e-3, 1e-1, 3))
    space = SearchSpace(g, version="2")
    space.points["a"] = space.sample(0)
    return space


def decoder_space() -> SearchSpace:
    """What rotations, caches of few bits and a cut vocabulary add to the blocks of a decoder."""
    g = Graph("decoder")
    ids = g.input("ids", B, T, dtype="int")
    rope, x = Rope(4)(ids, name="rope"), Embed(12, 16, bits=8)(ids, name="embed")
    x = x + GQA(g.choice("heads", [2, 1]), 1, 8, hadamard=True, cache_bits=4)(x, rope, name="attention")
    x = x + SwiGLU(g.choice("width", [16, 8]), bits=4, scale_group=8, hadamard=8, ranges="stored")(x, name="mlp")
    g.out = Head(12, tokens=(1, 5, 7), bits=8)(x, name="head")
    return SearchSpace(g)


def settings_space() -> ChoiceSpace:
    """Every kind of choice, and conditions on them."""
    declared = Choices("training")
    declared.choice("lr", log_range(1e-4, 1e-2, 5))
    kind = declared.choice("optimizer", ["sgd", "adam"])
    momentum = declared.choice("momentum", [0.0, 0.5], when=kind.is_("sgd"))
    declared.flag("nesterov", when=momentum.ge(0.5))
    mix = declared.simplex("mix", ["web", "code"], 4)
    declared.subset("tasks", 3, most=2)
    declared.require(mix.part("code").ge(mix.part("web")), "at least as much code")
    return ChoiceSpace(declared)


@cache
def stored(make: Callable[[], ChoiceSpace]) -> str:
    return make().to_json()


def plain(data: Any) -> Any:
    """Data with the terms of each expression in one order: theirs means nothing."""
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if not isinstance(data, list):
        return data
    items = [plain(item) for item in data]
    pairs = all(isinstance(i, list) and len(i) == 2 and isinstance(i[1], list | int) for i in items)
    return sorted(items, key=json.dumps) if pairs else items


DEFAULTS = {
    "bits": 32, "scale_group": 0, "act_bits": 32, "cache_bits": 32, "ranges": "minmax", "hadamard": 0,
    "tokens": {"tuple": []},
}  # fmt: skip
"""Fields of blocks that are not written at their defaults."""


def within(given: Any, written: Any) -> bool:
    """Whether all that was given is in what is written; what was left out got its default."""
    if isinstance(given, dict) and isinstance(written, dict):
        usual = {key for key, value in given.items() if key in DEFAULTS and value == DEFAULTS[key]}
        return all(
            key in written and within(given[key], written[key]) for key in given.keys() - (usual - written.keys())
        )
    if isinstance(given, list) and isinstance(written, list):
        return len(given) == len(written) and all(map(within, given, written))
    return isinstance(given, bool) == isinstance(written, bool) and given == written


class _Stored(Fuzz):
    cases = 50
    origin: Callable[[], ChoiceSpace]

    def make(self, random: Random) -> bytes:
        data = json.loads(stored(type(self).origin))
        if random.random() < 0.15:
            return mutate.json_text(random, data)
        for _ in range(random.choice([0, 1, 1, 2])):
            data = _damaged(random, data)
        return json.dumps(data).encode("utf-8", "surrogatepass")

    def confirm(self, data: bytes, value: ChoiceSpace) -> None:
        given, written = (plain(json.loads(text)) for text in (data.decode("utf-8-sig"), value.to_json()))
        points, kept = given.pop("points", {}), written.pop("points")
        assert within(given, written)
        assert points.keys() == kept.keys()  # of whose choices only those with an effect are kept
        assert all(within(point["choices"], points[name]["choices"]) for name, point in kept.items())
        architecture = value.sample(1)
        assert value.validate(Architecture.from_json(architecture.to_json())) == architecture


def _damaged(random: Random, data: Any) -> Any:
    """Half of the time the general damage, half of the time what only a space has: numbers of expressions."""
    if random.random() < 0.4:
        return mutate.tree(random, data, 1)
    places = [p for p in _expressions(data) if p[0]]
    if not places:
        return data
    parent, key = random.choice(places)
    parent[key] = random.choice([
        "1e100000000", "1/0", "1/3", 1.5, 2**70, -3, [], [[1, []]], [[1, [[["var", "width"], 10**9]]]], True, None,
        [[1, [[["var", "nothing"], 1]]]], [[1, [[["op", "floordiv", 7, [[1, [[["var", "width"], 1]]]]], 1]]]],
        [[1, [[["op", "any"], 1]]]], [[1, [[["op", "min", 1], 1]]]], [[1, [[["is", "width", 99], 1]]]], nested(60),
        [[1, [[["has", "inputs", 99], 1]]]], [[1, [[["part", "mix", 1], 1]]]], [[1, [[["sym", "\x1b"], 1]]]],
        [[2, [[["var", "width"], 1]]], [2, [[["var", "width"], 1]]]], [[2**61, [[["var", "width"], 60]]]],
        [[1, [[["is", "width", 4], 1]]]], [[1, [[["var", "depth"], 1]]]], 1, 0, 4,
    ])  # fmt: skip
    return data


def nested(depth: int) -> Any:
    data: Any = [[1, [[["var", "width"], 1]]]]
    for _ in range(depth):
        data = [[1, [[["op", "floordiv", data, 3], 1]]]]
    return data


def _expressions(data: Any) -> list[tuple[Any, Any]]:
    """Places that hold a number or an expression."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    places: list[tuple[Any, Any]] = []
    for key, item in inner:
        if key in ("gate", "expr", "condition") or (isinstance(item, int) and not isinstance(item, bool)):
            places.append((data, key))
        places += _expressions(item)
    return places


class TestStoredSpace(_Stored):
    """Stored search spaces: graphs, expressions, choices and points."""

    origin = model_space

    def read(self, data: bytes, folder: Path) -> ChoiceSpace:
        return SearchSpace.from_json(data.decode("utf-8", "surrogateescape"))

    def confirm(self, data: bytes, value: ChoiceSpace) -> None:
        super().confirm(data, value)
        assert isinstance(value, SearchSpace)
        architecture = value.sample(2)
        if value.cost(architecture, "params") < 1e6:
            model = build(value, architecture)
            weights = [p for name, p in model.named_parameters() if not name.endswith("_scale")]
            assert sum(p.numel() for p in weights) == value.cost(architecture, "params")


class TestStoredDecoder(_Stored):
    """Stored spaces of compressed decoders."""

    origin = decoder_space

    def read(self, data: bytes, folder: Path) -> ChoiceSpace:
        space = SearchSpace.from_json(data.decode("utf-8", "surrogateescape"))
        architecture = space.sample(2)
        if space.cost(architecture, "params") < 1e6:
            with torch.no_grad():
                build(space, architecture)(torch.zeros(1, 3, dtype=torch.int64))
        return space


class TestStoredSettings(_Stored):
    """Stored spaces without a graph."""

    origin = settings_space

    def read(self, data: bytes, folder: Path) -> ChoiceSpace:
        return ChoiceSpace.from_json(data.decode("utf-8", "surrogateescape"))


class TestArchitecture(Fuzz):
    """Stored architectures, and whether a space takes them."""

    cases = 200

    def make(self, random: Random) -> tuple[str, bytes]:
        which = random.choice(["model", "settings"])
        data = json.loads(spaces()[which].sample(random.randrange(50)).to_json())
        if random.random() < 0.3:
            return which, mutate.json_text(random, data)
        return which, json.dumps(mutate.tree(random, data, 2)).encode("utf-8", "surrogatepass")

    def read(self, data: tuple[str, bytes], folder: Path) -> Architecture:
        return spaces()[data[0]].validate(Architecture.from_json(data[1].decode("utf-8", "surrogateescape")))

    def confirm(self, data: tuple[str, bytes], value: Architecture) -> None:
        given, space = json.loads(data[1].decode("utf-8-sig")), spaces()[data[0]]
        assert (given["space"], given["version"]) == (space.name, space.version)
        for path, chosen in value.choices.items():
            assert chosen in space.choices[path].values
            stored = given["choices"].get(path, space.choices[path].values[0])
            assert stored == (list(chosen) if isinstance(chosen, tuple) else chosen)


@cache
def spaces() -> dict[str, ChoiceSpace]:
    return {"model": model_space(), "settings": settings_space()}


class TestArguments(Fuzz):
    """What an author passes when a space is made, and a user when one is drawn from."""

    cases = 60

    def make(self, random: Random) -> dict[str, Any]:
        """Arguments that are right, of which some are replaced."""
        right: dict[str, Any] = {
            "name": "s", "input": 4, "width": [8, 4], "depth": [2, 1], "runs": (1,), "members": 3, "most": 2,
            "path": "w", "node": "a", "total": 4, "parts": ["x", "y"], "low": 0.1, "high": 0.5, "count": 3,
            "seed": 1, "draws": 3, "params": (0, 1e9), "B": 2, "power": 1, "divisor": 2, "version": "1", "default": 1,
        }  # fmt: skip
        for key in random.sample(sorted(right), random.choice([0, 1, 1, 2])):
            odd = random.choice(ODD)
            right[key] = random.choice([odd, [odd], [8, odd], [odd, odd], mutate.name(random), mutate.odd(random)])
        return right

    def read(self, data: dict[str, Any], folder: Path) -> SearchSpace:
        a = data
        g = Graph(a["name"])
        x = g.input("x", B, a["input"])
        width = g.choice(a["path"], a["width"])
        depth = g.choice("depth", a["depth"])
        size = width ** a["power"] // a["divisor"] * 2 + 2
        h = Linear(size, "relu")(x, name=a["node"])
        h = g.repeat("layers", depth, lambda i, w: Linear(size)(w, name="l"), h, runs=a["runs"])
        pool = g.pick("some", [h, *(Linear(size)(h, name=f"p{i}") for i in range(2))], most=a["most"])
        g.out = Linear(1)(h, Sum()(h, *pool, name="sum"), name="out")
        with g.settings():
            g.subset("tasks", a["members"], most=a["most"])
            mix = g.simplex("mix", a["parts"], a["total"])
            g.require(mix.part(0).ge(1))
            g.choice("lr", linear_range(a["low"], a["high"], a["count"]))
        space = SearchSpace(g, a["version"], {"B": a["default"]})
        space.sample(a["seed"], params=a["params"], B=a["B"])
        space.sample_many(a["draws"], 0)
        return space

    def confirm(self, data: dict[str, Any], value: SearchSpace) -> None:
        for architecture in value.sample_many(2, 3):
            assert architecture[data["path"]] in data["width"]
            assert operator.index(architecture[data["path"]]) > 0
            if value.cost(architecture, "params") < 1e6:
                model = build(value, architecture)
                assert sum(p.numel() for p in model.parameters()) == value.cost(architecture, "params")
                assert model(torch.ones(2, data["input"])).shape == (2, 1)
