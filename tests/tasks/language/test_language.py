"""The domain of language models: baselines, constraints, the second-order prior."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
import torch

from rankitect.config.quantities import Amounts
from rankitect.errors import ConfigError
from rankitect.metrics.losses import cross_entropy
from rankitect.models.backbone import Backbone, largest, rank
from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig, random_checkpoint
from rankitect.models.importance import gather
from rankitect.models.pretrained import space_tensors
from rankitect.models.supernet import Supernet
from rankitect.search_spaces.mobile_llm import from_backbone
from rankitect.space.architecture import Architecture
from rankitect.tasks.costs import LANGUAGE_COSTS, check_constraints, cost_value, language_costs
from rankitect.tasks.language.uniform import uniform_baselines, uniform_depth, uniform_width
from tests.tasks.language.tiny import own_cache, parts_of

CONFIG = DecoderConfig(vocab=256, d_model=32, n_layers=6, n_heads=4, n_kv_heads=2, head_dim=8, ffn=128)
SPACE = from_backbone(CONFIG, context=24, ffn_step=8, window=8)
WHOLE = largest(SPACE)
ALIKE = from_backbone(CONFIG, context=24, ffn_step=8, window=8, alike=True)


def share(architecture: Architecture) -> float:
    return cost_value(SPACE, architecture, "block_flops", 24) / cost_value(SPACE, WHOLE, "block_flops", 24)


@pytest.mark.parametrize("wanted", [0.9, 0.75, 0.6, 0.5])
def test_uniform_width_is_uniform_and_costs_what_was_asked(wanted: float) -> None:
    made = uniform_width(SPACE, WHOLE, wanted, 24)
    assert share(made) == pytest.approx(wanted, abs=0.02)
    widths = sorted({v for p, v in made.choices.items() if p.endswith(".ffn")})
    assert len(widths) <= 2
    assert widths[-1] - widths[0] <= 8, "at most one step apart"
    for path, value in made.choices.items():
        if not path.endswith(".ffn"):
            assert value == WHOLE[path], "nothing but feed-forward widths is pruned"


@pytest.mark.parametrize("wanted", [0.8, 0.5])
def test_uniform_depth_drops_the_layers_of_least_influence(wanted: float) -> None:
    influence = {f"layers.{i}": score for i, score in enumerate([0.9, 0.1, 0.5, 0.2, 0.4, 0.8])}
    made = uniform_depth(SPACE, WHOLE, wanted, influence, 24)
    assert share(made) == pytest.approx(wanted, abs=1 / 12 + 1e-6)
    dropped = [s for s in influence if made[f"{s}.runs"] == 0]
    assert dropped == sorted(influence, key=lambda s: influence[s])[: len(dropped)] or set(dropped) == set(
        sorted(influence, key=lambda s: influence[s])[: len(dropped)]
    )


def test_a_share_that_width_cannot_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"feed-forward width alone reaches \d+% of the block FLOPs, not 10%"):
        uniform_width(SPACE, WHOLE, 0.1, 24)


def test_a_baseline_that_width_cannot_reach_is_left_out_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    assert [name for name, _ in uniform_baselines(SPACE, WHOLE, [0.9, 0.1], None, 24)] == ["uniform width 90%"]
    (said,) = caplog.messages
    assert re.search(r"no baseline 'uniform width 10%': .* reaches \d+% of the block FLOPs, not 10%", said)


def test_amounts_are_in_the_costs_own_unit_and_what_bounds_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    costs = language_costs(SPACE, WHOLE, 24)
    for text, share in (("0.5..0.9", "[0.5,0.9]"), ("..0.9", "[0,0.9]"), ("0.5..", "[0.5,1]")):
        said = f"constraints.block_flops={text} is an amount, in FLOP"
        with pytest.raises(ConfigError, match=re.escape(said) + ".*" + re.escape(f"constraints.block_flops={share}")):
            costs.limits({"block_flops": Amounts.parse(text)})
    few = {"weight_bytes": Amounts.parse("..1.5")}
    with pytest.raises(
        ConfigError, match=r"\(weight_bytes \.\.1\.5\).*Shares of the backbone's are written \[low,high\]"
    ):
        check_constraints(SPACE, costs.limits(few), few, "the backbone")
    for text, warned in (("1..", 1), ("..1e12", 1), (f"..{0.9 * costs.value(WHOLE, 'params')}", 0)):
        caplog.clear()
        bounds = {"params": Amounts.parse(text)}
        check_constraints(SPACE, costs.limits(bounds), bounds, "the backbone")
        assert len(caplog.messages) == warned, text
    assert not any("(-inf" in message for message in caplog.messages)


def test_constraints_are_relative_to_the_backbone() -> None:
    found = language_costs(SPACE, WHOLE, 24).limits({"block_flops": (0.5, 0.8), "params": (0.0, 0.9)})
    flops, params = SPACE.cost(WHOLE, "flops", "layers"), SPACE.cost(WHOLE, "params")
    assert found == {"layers:flops": (0.5 * flops, 0.8 * flops), "params": (0.0, 0.9 * params)}
    for made in SPACE.sample_many(50, 0, **found):
        assert 0.5 <= share(made) <= 0.8


def test_costs_at_other_lengths_and_bits_are_bounded_together() -> None:
    costs = language_costs(SPACE, WHOLE, 24, cache_context=512, bits=4)
    whole = {name: costs.value(WHOLE, name) for name in ("decode_flops", "kv_cache_bytes", "weight_bytes")}
    matrices, params = SPACE.cost(WHOLE, "matrix_params"), SPACE.cost(WHOLE, "params")
    least = 4 * (params - matrices) + matrices * 4.5 / 8  # a group at the end of a row may be smaller than 32
    assert least <= whole["weight_bytes"] <= 1.05 * least
    assert whole["kv_cache_bytes"] == SPACE.cost(WHOLE, "cache_bytes", T=512, P=0)
    assert whole["decode_flops"] == SPACE.cost(WHOLE, "flops", T=1, P=23)
    bounds = costs.limits(
        {
            "block_flops": (0.3, 0.9),
            "decode_flops": (0.0, 0.9),
            "kv_cache_bytes": Amounts(high=0.7 * whole["kv_cache_bytes"]),
            "weight_bytes": Amounts(0.5 * whole["weight_bytes"], 0.95 * whole["weight_bytes"]),
        }
    )
    for drawn in SPACE.sample_many(50, 0, **bounds):
        assert 0.3 <= share(drawn) <= 0.9
        assert costs.value(drawn, "decode_flops") <= 0.9 * whole["decode_flops"]
        assert costs.value(drawn, "kv_cache_bytes") <= 0.7 * whole["kv_cache_bytes"]
        assert 0.5 * whole["weight_bytes"] <= costs.value(drawn, "weight_bytes") <= 0.95 * whole["weight_bytes"]
    # The space's own kinds mean what they meant before.
    assert SPACE.cost(WHOLE, "weight_bytes") == 4 * params


@pytest.mark.parametrize("name", ["latency", "block_flop", "prefill_ms"])
def test_an_unknown_constraint_is_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(ConfigError, match=f"constraints: there is no cost '{name}'"):
        language_costs(SPACE, WHOLE, 24).limits({name: (0.1, 0.5)})


def test_every_cost_is_that_of_its_name() -> None:
    small = uniform_width(SPACE, WHOLE, 0.6, 24)
    for name in LANGUAGE_COSTS:
        assert 0 < cost_value(SPACE, small, name, 24) <= cost_value(SPACE, WHOLE, name, 24)
    heads, size = CONFIG.n_kv_heads, CONFIG.head_dim
    assert cost_value(SPACE, WHOLE, "kv_cache_bytes", 24) == 2 * 4 * CONFIG.n_layers * heads * size * 24


# --- the second-order prior -------------------------------------------------------------------------------------------
def trained_a_little() -> tuple[DecoderCheckpoint, list[torch.Tensor]]:
    """A tiny model that has learned a simple language, so that its layers do something; and text of it."""
    checkpoint = random_checkpoint(CONFIG, 0)
    generator = torch.Generator().manual_seed(0)
    words = 32
    follows = torch.randint(0, words, (8, words, 2), generator=generator)

    def text(batch: int) -> torch.Tensor:
        ids = torch.randint(0, words, (batch, 25), generator=generator)
        for t in range(2, 25):
            pick = torch.randint(0, 2, (batch,), generator=generator)
            ids[:, t] = follows[ids[:, t - 2] % 8, ids[:, t - 1], pick]
        return ids

    model = Supernet(SPACE, tensors=space_tensors(checkpoint))
    whole = model.activate(WHOLE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        ids = text(16)
        loss = cross_entropy(whole(ids[:, :-1]), ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trained = model.extract(WHOLE)
    from rankitect.models.pretrained import file_tensors

    tensors = file_tensors(trained, CONFIG, [f"layers.{i}" for i in range(CONFIG.n_layers)])
    checkpoint.tensors.update(tensors)
    return checkpoint, [text(8) for _ in range(16)]


@pytest.fixture(scope="module")
def calibrated() -> Any:
    from rankitect.metrics.losses import sampled_cross_entropy
    from rankitect.tasks.language.prior import second_order

    checkpoint, text = trained_a_little()
    plain = Supernet(SPACE, tensors=space_tensors(checkpoint))
    statistics = gather(plain, WHOLE, text, sampled_cross_entropy(0))
    orders = rank(CONFIG, plain, statistics)
    backbone, alike = (
        Backbone(checkpoint, space, orders, statistics.gram, statistics.influence) for space in (SPACE, ALIKE)
    )
    return backbone, second_order(backbone, statistics), text, alike, second_order(alike, statistics)


def test_one_choice_for_all_layers_is_that_of_every_layer(calibrated: Any) -> None:
    backbone, prior, text, alike, prior_alike = calibrated
    each = {path: path.partition(".")[0] == "layers" for path in ALIKE.choices}
    assert [path for path, of_one in each.items() if not of_one] == ["width", "kv_heads", "group", "ffn"]
    for seed in range(3):
        one = ALIKE.sample(seed)
        values = {path: value for path, value in one.choices.items() if path in SPACE.choices}
        for axis in {"kv_heads", "group", "ffn"} & one.choices.keys():
            values |= {f"layers.{i}.{axis}": one[axis] for i in range(CONFIG.n_layers)}
        same = SPACE.architecture(values)
        assert ALIKE.cost(one, "flops") == SPACE.cost(same, "flops")
        with torch.no_grad():
            assert torch.equal(alike.inherit(one)(text[0]), backbone.inherit(same)(text[0])), "refits included"
    for axis in ("kv_heads", "group", "ffn"):
        together = sum(prior[f"layers.{i}.{axis}"] for i in range(CONFIG.n_layers))
        torch.testing.assert_close(prior_alike[axis], together)
    widths = {a["ffn"] for a in (uniform_width(ALIKE, largest(ALIKE), share, 24) for share in (0.9, 0.6))}
    assert len(widths) == 2


def test_the_prior_is_nothing_for_the_whole_and_rises_as_less_is_kept(calibrated: Any) -> None:
    prior = calibrated[1]
    assert set(prior) == {p for p in SPACE.choices if p != "width"}
    for path, rises in prior.items():
        choice = SPACE.choices[path]
        assert float(rises[choice.values.index(WHOLE[path])]) == pytest.approx(0, abs=1e-7)
        if path.endswith((".ffn", ".kv_heads", ".group")):
            order = sorted(range(len(choice.values)), key=lambda i: -choice.values[i])
            ranked = [float(rises[i]) for i in order]
            assert all(a <= b + 1e-6 for a, b in pairwise(ranked)), path


def test_the_prior_is_close_to_what_pruning_one_thing_costs(calibrated: Any) -> None:
    """Against the measured divergence from the whole model on the calibration text, for small and for large changes."""
    backbone, prior, text, *_ = calibrated
    with torch.no_grad():
        teacher = [backbone.supernet.activate(WHOLE)(ids[:, :-1]).log_softmax(-1) for ids in text]

    def divergence(architecture: Architecture) -> float:
        with torch.no_grad():
            found = [backbone.supernet.activate(architecture)(ids[:, :-1]).log_softmax(-1) for ids in text]
        rows = [(t.exp() * (t - s)).sum(-1).mean() for t, s in zip(teacher, found, strict=True)]
        return float(torch.stack(rows).mean())

    full = {p: WHOLE.get(p, c.values[0]) for p, c in SPACE.choices.items()}
    foretold, measured = [], []
    for i in range(CONFIG.n_layers):
        for width in (120, 96, 64):
            path = f"layers.{i}.ffn"
            foretold.append(float(prior[path][SPACE.choices[path].values.index(width)]))
            measured.append(divergence(SPACE.architecture({**full, path: width})))
    a, b = torch.tensor(foretold).log(), torch.tensor(measured).log()
    assert float(torch.corrcoef(torch.stack([a, b]))[0, 1]) > 0.9
    assert float((a - b).abs().median()) < 0.7, "within a factor of two, for the most"


# --- the domain as the command joins it -------------------------------------------------------------------------------
def test_the_domain_gives_baselines_and_a_space_whose_largest_is_the_backbone(tmp_path: Any) -> None:
    with own_cache(tmp_path / "cache"):
        parts = parts_of(tmp_path, "controller=random", "task.depth_baselines=true")
        names = [b.name for b in parts.baselines]
        assert names == [
            "backbone", "uniform width 75%", "uniform width 60%", "uniform depth 75%", "uniform depth 60%",
        ]  # fmt: skip
        assert parts.baselines[0].architecture == parts.task.reference
        assert parts.task.limits().keys() == {"layers:flops"}


def test_baselines_of_fewer_layers_are_refused_where_none_may_be_dropped(tmp_path: Any) -> None:
    refused = pytest.raises(ConfigError, match=r"depth_baselines=true asks for baselines of fewer layers.*space\.depth")
    with own_cache(tmp_path / "cache"), refused:
        parts_of(tmp_path, "controller=random", "task.depth_baselines=true", "space.depth=false")


def test_calibration_is_remembered(tmp_path: Any) -> None:
    said: list[str] = []
    with own_cache(tmp_path / "cache"):
        first = parts_of(tmp_path, "controller=random", say=said.append).task.statistics
        again = parts_of(tmp_path, "controller=random", say=said.append).task.statistics
    assert sum("Calibration" in line for line in said) == 1
    assert first.influence == again.influence
    assert all(torch.equal(first.gram[key], again.gram[key]) for key in first.gram)
