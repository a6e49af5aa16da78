"""The two ranking spaces keep what is promised for every space, and hold the published models."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rankitect.data.ranking.features import CategoricalFeature, Features
from rankitect.errors import SpaceError
from rankitect.graph import Architecture, SearchSpace
from rankitect.methods.bounded_space import BoundedSpace
from rankitect.models.relaxed import RelaxedSupernet, one_hot
from rankitect.models.supernet import Supernet, build
from rankitect.search_spaces.nasrec import nasrec, nasrec_best_criteo
from rankitect.search_spaces.ranking_blocks import ranking_blocks
from rankitect.search_spaces.ranking_engineered import feature_groups, point, ranking_engineered
from rankitect.search_spaces.ranking_points import MODELS, baseline
from tests.graph.drawing import seeds

MIXED = Features(
    ("price", "age", "hour"),
    (CategoricalFeature("user", 9), CategoricalFeature("tags", 7, 3), CategoricalFeature("item", 30)),
)
NO_NUMBERS = Features((), MIXED.categorical)
CRITEO = Features(tuple(f"I{i}" for i in range(1, 14)), tuple(CategoricalFeature(f"C{i}", 50) for i in range(1, 27)))


def blocks(features: Features) -> SearchSpace:
    return ranking_blocks(
        features, blocks=2, embedding=(4, 2), widths=(6, 3), counts=(3, 5), pairs=(2, 4), ranks=(2, 1), heads=(1, 2),
        head=2, most=2,
    )  # fmt: skip


def engineered(features: Features) -> SearchSpace:
    return ranking_engineered(
        features, embedding=(4, 2), width=(4, 2), group_rows=(10,), bottom_layers=1, bottom=(5, 3), top_layers=2,
        top=(6, 3), cross_layers=(1, 2), ranks=(2, 1), attention_layers=(1, 2), heads=(1, 2), head=2,
    )  # fmt: skip


MAKERS = {
    "blocks": (blocks, MIXED),
    "blocks without numbers": (blocks, NO_NUMBERS),
    "engineered": (engineered, MIXED),
    "engineered without numbers": (engineered, NO_NUMBERS),
}
every_space = pytest.mark.parametrize("name", ["blocks", "engineered"])
DRAWN = 400


@cache
def supernet_of(name: str) -> Supernet:
    maker, features = MAKERS[name]
    found = Supernet(maker(features), seed=1)
    with torch.no_grad():  # a bias of zero would hide mistakes
        for parameter in found.parameters():
            parameter += 0.3 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(2))
    return found


@cache
def drawn(name: str) -> list[Architecture]:
    """Architectures, drawn at once: each draw alone would draw thousands."""
    return supernet_of(name).space.sample_many(DRAWN, 0)


def inputs(features: Features, seed: int = 0, batch: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    columns = []
    for feature in features.categorical:
        ids = torch.randint(feature.rows, (batch, feature.slots), generator=draw)
        if feature.slots > 1:
            ids[torch.rand(ids.shape, generator=draw) < 0.4] = -1
        columns.append(ids)
    return torch.randn(batch, len(features.numeric), generator=draw), torch.cat(columns, 1)


def gradients(model: torch.nn.Module, output: torch.Tensor) -> dict[str, torch.Tensor | None]:
    model.zero_grad()
    output.square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.identity
@pytest.mark.parametrize("name", list(MAKERS))
@given(seed=seeds)
def test_activated_equals_extracted(name: str, seed: int) -> None:
    supernet, (_, features) = supernet_of(name), MAKERS[name]
    architecture = drawn(name)[seed % DRAWN]
    x = inputs(features, seed % 1000)
    alone = supernet.extract(architecture)
    there, here = alone(*x), supernet.activate(architecture)(*x)
    assert here.shape == (4, 1)
    assert torch.equal(there, here)
    mine, whole = gradients(alone, there), gradients(supernet.weights, here)
    for path, one in mine.items():
        other = whole[path]
        if one is None or other is None:
            assert one is None or not one.any()
            assert other is None or not other.any()
            continue
        part = other[tuple(slice(n) for n in one.shape)]
        torch.testing.assert_close(one, part, rtol=1e-4, atol=1e-5 * float(1 + one.norm()))
        assert float(other.abs().sum()) == pytest.approx(float(part.abs().sum()), rel=1e-4)


@pytest.mark.identity
@every_space
@given(seed=seeds)
def test_costs_equal_what_the_standalone_model_does(name: str, seed: int) -> None:
    space, (_, features) = supernet_of(name).space, MAKERS[name]
    architecture = drawn(name)[seed % DRAWN]
    model = build(space, architecture)
    assert space.cost(architecture, "params") == sum(p.numel() for p in model.parameters())
    tables = [p for n, p in model.named_parameters() if n.endswith(".table")]
    assert space.cost(architecture, "table_rows") == sum(len(t) for t in tables)
    assert space.cost(architecture, "table_bytes") == sum(4 * t.numel() for t in tables)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(*inputs(features, seed % 1000, batch=3))
    assert space.cost(architecture, "flops", B=3) == counter.get_total_flops()


@pytest.mark.identity
@every_space
@given(seed=seeds)
def test_one_hot_weights_equal_the_activated_architecture(name: str, seed: int) -> None:
    supernet, (_, features) = supernet_of(name), MAKERS[name]
    space = supernet.space
    architecture = drawn(name)[seed % DRAWN]
    x, weights, relaxed = inputs(features, seed % 1000), one_hot(space, architecture), RelaxedSupernet(supernet)
    mixed, active = relaxed(weights, *x), supernet.activate(architecture)(*x)
    torch.testing.assert_close(mixed, active, rtol=1e-3, atol=1e-4 * float(1 + active.detach().norm()))
    ours, theirs = gradients(supernet, mixed), gradients(supernet, active)
    for path, one in ours.items():
        zero = torch.zeros_like(supernet.get_parameter(path))
        one, other = (zero if g is None else g for g in (one, theirs[path]))
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3 * float(1 + other.norm()))
    for kind in ("flops", "params", "table_bytes"):
        assert float(relaxed.expected_cost(weights, kind)) == space.cost(architecture, kind)


@every_space
def test_every_choice_gets_a_gradient(name: str) -> None:
    supernet, (_, features) = supernet_of(name), MAKERS[name]
    space = supernet.space
    logits = {p: torch.zeros(len(c.values), requires_grad=True) for p, c in space.choices.items()}
    relaxed = RelaxedSupernet(supernet)
    relaxed({p: v.softmax(0) for p, v in logits.items()}, *inputs(features)).square().sum().backward()
    for path, logit in logits.items():
        if len(logit) > 1:
            assert logit.grad is not None, path
            assert bool(logit.grad.isfinite().all()), path
            assert float(logit.grad.abs().sum()) > 0, path


@every_space
def test_the_expected_cost_is_near_the_average(name: str) -> None:
    space = supernet_of(name).space
    rng = np.random.default_rng(0)
    columns = {p: rng.integers(0, len(c.values), 20_000) for p, c in space.choices.items()}
    uniform = {p: torch.full((len(c.values),), 1 / len(c.values)) for p, c in space.choices.items()}
    expected = RelaxedSupernet(supernet_of(name)).expected_cost(uniform, "flops")
    assert float(expected) == pytest.approx(float(space.cost(columns, "flops").mean()), rel=0.1)


@every_space
def test_the_space_survives_json(name: str) -> None:
    space = supernet_of(name).space
    again = SearchSpace.from_json(space.to_json())
    some = drawn(name)[:5]
    assert again.to_json() == space.to_json()
    assert (again.cost(some, "flops") == space.cost(some, "flops")).all()
    assert [again.validate(Architecture.from_json(a.to_json())).fingerprint for a in some] == [
        a.fingerprint for a in some
    ]


def test_nasrecs_published_criteo_architecture_is_a_point() -> None:
    space = nasrec(CRITEO)
    architecture = nasrec_best_criteo(space)
    chosen = architecture.choices
    # Nothing reads the blocks 3 to 5 of the published architecture: they are no part of it.
    assert [chosen.get(f"block{i}.dense.op") for i in range(7)] == ["gate", "dot", "dot", None, None, None, "linear"]
    # Its repository gives 1.45 million operations, multiplication and addition counted as one.
    assert space.cost(architecture, "flops") / 2 == pytest.approx(1.45e6, rel=0.03)
    assert chosen["block6.dense.from"] == (0, 2, 3)
    model = build(space, architecture)
    assert space.cost(architecture, "params") == sum(p.numel() for p in model.parameters())
    assert model(*inputs(CRITEO)).shape == (4, 1)
    with pytest.raises(SpaceError, match="needs a space made by nasrec"):
        nasrec_best_criteo(blocks(MIXED))


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("features", [MIXED, NO_NUMBERS], ids=["numbers", "no numbers"])
def test_a_named_model_is_built(name: str, features: Features) -> None:
    space, architecture = baseline(name, features, embedding=4, hidden=(8, 6))
    model = build(space, architecture)
    logits = model(*inputs(features))
    assert logits.shape == (4, 1)
    assert math.isfinite(float(logits.detach().sum()))
    again = SearchSpace.from_json(space.to_json())
    assert again.validate(architecture) == architecture


def test_a_dcn_v2_is_the_one_written_by_hand() -> None:
    space, architecture = baseline("dcnv2", MIXED, embedding=4, hidden=(8, 6), cross_layers=2)
    model: Any = build(space, architecture, seed=3)
    numeric, ids = inputs(MIXED)
    w = dict(model.named_parameters())
    table = w["tables.group0.embedding.table"]
    tags = [table[9 + row[row >= 0]].sum(0) for row in ids[:, 1:4]]
    fields = torch.stack([table[ids[:, 0]], torch.stack(tags), table[16 + ids[:, 4]]], 1)
    x0 = torch.cat([numeric, fields.flatten(1)], 1)
    x = x0
    for i in range(2):
        key = f"cross.kind.full.stack.{i}.cross"
        x = x0 * (x @ w[f"{key}.weight"].T + w[f"{key}.bias"]) + x
    h = x0
    for i in range(2):
        h = torch.relu(h @ w[f"top.layer{i}.weight"].T + w[f"top.layer{i}.bias"])
    logit = h @ w["top.logit.weight1"].T + w["top.logit.bias"]  # its second input: that of two layers
    logit = logit + x @ w["logit.cross.weight"].T + w["logit.cross.bias"]
    torch.testing.assert_close(model(numeric, ids), logit)


def test_towers_are_one_architecture_with_weights_of_their_own_whose_logits_are_averaged() -> None:
    space = engineered(MIXED)
    one = point(space, "deepfm", MIXED)
    four = space.architecture({**one.choices, "towers": "4"})
    for kind in ("params", "table_rows", "table_bytes"):
        assert space.cost(four, kind) == 4 * space.cost(one, kind)
    single, whole, batch = build(space, one, 3), build(space, four, 5), inputs(MIXED)
    each = []
    for prefix in ("", "twin1.", "twin2.", "twin3."):
        single.load_state_dict({name: whole.get_parameter(f"{prefix}{name}").detach() for name in single.state_dict()})
        each.append(single(*batch).detach())
    torch.testing.assert_close(whole(*batch).detach(), torch.stack(each).mean(0))
    assert not torch.allclose(each[0], each[1])


@every_space
def test_known_rankers_are_points_of_the_space(name: str) -> None:
    space, (_, features) = supernet_of(name).space, MAKERS[name]
    assert {"deepfm", "dlrm", "autoint", "wide_deep"} <= space.points.keys()
    for architecture in space.points.values():
        assert space.validate(architecture) == architecture
        assert build(space, architecture)(*inputs(features)).shape == (4, 1)
    assert SearchSpace.from_json(space.to_json()).points == space.points
    assert len({a.fingerprint for a in space.points.values()}) == len(space.points)


@every_space
def test_known_rankers_in_towers_are_narrow_where_they_are_many(name: str) -> None:
    space = supernet_of(name).space
    few, many = sorted(int(str(n)) for n in space.choices["towers"].values)[-2:]
    flops = {}
    for count in (few, many):
        architecture = space.points[f"deepfm_x{count}"]
        assert architecture["towers"] == str(count)
        flops[count] = float(space.cost(architecture, "flops")) / count
    assert flops[many] < flops[few]


def test_a_deepfm_of_blocks_uses_what_a_deepfm_is_made_of() -> None:
    choices = blocks(MIXED).points["deepfm"].choices
    assert choices["block0.dense.op"] == "flat"
    assert (choices["block1.dense.op"], choices["block1.dense.fm"], choices["wide"]) == ("linear", "yes", "yes")
    assert "fm" not in ranking_blocks(MIXED, dense_ops=("linear", "flat")).points, "it needs the operator zero"
    assert "deepfm" in ranking_blocks(MIXED, dense_ops=("linear", "flat")).points


def test_numbers_beside_many_embeddings_start_as_one_layer() -> None:
    wide = Features(("a", "b"), tuple(CategoricalFeature(f"c{i}", 9) for i in range(20)))
    space = ranking_blocks(wide, widths=(256,))
    weights = dict(build(space, space.points["deepfm"], seed=1).named_parameters())
    for part in ("fields.weight", "linear.weight"):
        assert float(weights[f"block0.dense.op.flat.{part}"].detach().std()) == pytest.approx(
            (20 * 16 + 2) ** -0.5, rel=0.1
        )


@every_space
def test_a_base_is_the_space_with_one_tower(name: str) -> None:
    space = supernet_of(name).space
    base = space.base
    assert base is not None
    assert base.closed == {"towers": "1"}
    assert set(space.choices) - set(base.choices) == {"towers"}
    small = base.sample(3)
    one = space.architecture({**small.choices, **base.closed})
    assert base.validate(one) == small
    assert all(space.cost(one, kind) == base.cost(small, kind) for kind in ("flops", "params", "table_bytes"))
    with pytest.raises(SpaceError, match="'towers' is closed at '1'"):
        base.validate(space.architecture({**small.choices, "towers": "2"}))
    again = SearchSpace.from_json(space.to_json()).base
    assert again is not None
    assert again.validate(one) == small


@every_space
def test_moves_of_shared_weights_stay_in_the_base_and_scale_up_at_the_end(name: str) -> None:
    space = supernet_of(name).space
    assert space.base is not None
    one = space.points["deepfm"]
    flops = space.cost(one, "flops")
    moves, rng = BoundedSpace(space.base, {"flops": (0.0, 2.5 * flops)}, space), np.random.default_rng(0)
    drawn = [moves.sample(rng), moves.mutate(one, rng), moves.crossover(one, space.points["dlrm"], rng)]
    for architecture in (one, *(a for a in drawn if a is not None)):
        assert space.validate(architecture)["towers"] == "1"
        assert moves.lift(moves.lower(architecture)) == architecture
    assert [a["towers"] for a in moves.scaled(one)] == ["1", "2"], "four of them cost too much"
    assert BoundedSpace(space, {}).scaled(one) == [one]


def test_shared_weights_search_the_whole_space_where_its_base_is_out_of_bounds() -> None:
    space = engineered(MIXED)
    assert space.base is not None
    most = max(space.base.cost(a, "flops") for a in space.base.sample_many(300, 0))

    def bounded(low: float, high: float) -> BoundedSpace:
        return BoundedSpace.of(
            SimpleNamespace(space=space, task=SimpleNamespace(limits=lambda: {"flops": (low, high)})), True
        )  # type: ignore[arg-type]

    assert bounded(0, most).space is space.base
    assert bounded(3 * most, 4 * most).space is space
    assert bounded(3 * most, 4 * most).whole is None


def test_features_are_grouped_by_the_size_of_their_tables() -> None:
    assert feature_groups([5, 900, 20, 10_000], [10, 1000]) == {"group0": [0], "group1": [1, 2], "group2": [3]}
    assert feature_groups([5, 6], [10, 1000]) == {"group0": [0, 1]}


def test_mistakes_are_named() -> None:
    with pytest.raises(SpaceError, match="dense_ops has 'conv'; allowed: linear, flat, dot"):
        ranking_blocks(MIXED, dense_ops=("linear", "conv"))
    with pytest.raises(SpaceError, match="no categorical feature"):
        ranking_blocks(Features(("a",), ()))
    with pytest.raises(SpaceError, match="cross_kinds has 'deep'; allowed: full, low_rank"):
        ranking_engineered(MIXED, cross_kinds=("deep",))
    with pytest.raises(SpaceError, match="unknown model 'dcn'"):
        baseline("dcn", MIXED)


@pytest.mark.parametrize(("name", "features"), [("with numbers", MIXED), ("without numbers", NO_NUMBERS)])
def test_ranking_blocks_keeps_its_choices_fingerprints_and_costs(name: str, features: Features) -> None:
    """Runs of earlier versions name architectures by these; a change of the space needs a new version."""
    before = json.loads((Path(__file__).parent / "ranking_blocks.json").read_text())[name]
    space = blocks(features)
    assert list(space.choices) == before["choices"]
    kinds = ("params", "flops", "activation_bytes", "table_rows")
    drawn = space.sample_many(len(before["architectures"]), 7)
    assert [[a.fingerprint[:16], *(space.cost(a, kind) for kind in kinds)] for a in drawn] == before["architectures"]
    assert {name: a.fingerprint[:16] for name, a in space.points.items()} == before["points"]
