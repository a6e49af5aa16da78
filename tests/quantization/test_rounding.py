"""Searched scales and GPTQ: less error than rounding to nearest, in a weight and in a model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from rankitect.blocks import GQA, Embed, Head, Linear, LowRankCross, Norm, Rope, SwiGLU, TiedHead
from rankitect.errors import ConfigError, SpaceError, TrainingError
from rankitect.graph import B, Graph, Params, SearchSpace, T
from rankitect.models.numerics import Numerics, fake_weight, weight_scales
from rankitect.models.supernet import Standalone, build
from rankitect.quantization.gptq import gptq, near_floats
from rankitect.quantization.ranges import searched_scales
from rankitect.quantization.settings import QuantizeConfig
from rankitect.quantization.spaces import check_calibration, quantized_space, with_ranges
from rankitect.quantization.weights import quantize_weights, with_numerics_of

VOCAB = 64
INPUTS = 96


def language_space(tied: bool = True) -> SearchSpace:
    g = Graph("language")
    ids = g.input("ids", B, T, dtype="int")
    rope, x = Rope(8)(ids, name="rope"), Embed(VOCAB, 32)(ids, name="embed")
    for i in range(2):
        with g.inside("layers"), g.inside(str(i)):
            x = x + GQA(2, 1, 16)(Norm()(x, name="norm1"), rope, name="attention")
            x = x + SwiGLU(g.choice("ffn", [64, 32]))(Norm()(x, name="norm2"), name="mlp")
    x = Norm()(x, name="norm")
    g.out = TiedHead(VOCAB)(x, name="head", weights="embed") if tied else Head(VOCAB)(x, name="head")
    return SearchSpace(g)


def text(rows: int = 12, seed: int = 0) -> torch.Tensor:
    """Tokens that follow each other closely, so that activations have few directions."""
    steps = torch.randint(1, 4, (rows, 32), generator=torch.Generator().manual_seed(seed))
    return steps.cumsum(1) % VOCAB


def inputs(seed: int = 0) -> torch.Tensor:
    """Correlated inputs of unequal size, as activations are."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(400, 24, generator=generator) @ torch.randn(24, INPUTS, generator=generator)
    return few * torch.linspace(0.1, 3, INPUTS) + 0.1 * torch.randn(400, INPUTS, generator=generator)


@pytest.mark.parametrize(("bits", "group"), [(4, 0), (4, 32), (3, 32), (8, 0)])
def test_searched_scales_and_then_gptq_lose_less_of_the_outputs(bits: int, group: int) -> None:
    x, weight = inputs(), torch.randn(40, INPUTS, generator=torch.Generator().manual_seed(1))
    weight[:, ::17] *= 4  # a few large weights stretch every range
    gram, numerics = x.T @ x / len(x), Numerics(bits, group)

    def error(rounded: torch.Tensor) -> float:
        return float((x @ (weight - rounded).T).square().mean())

    nearest = error(fake_weight(weight, numerics))
    scales = searched_scales(weight, numerics, gram)
    searched = error(fake_weight(weight, numerics, scales))
    fitted = gptq(weight, gram, numerics, scales)
    assert torch.equal(fake_weight(fitted, numerics, scales), fitted)
    assert searched <= nearest * 1.001
    assert error(fitted) < 0.6 * searched
    near = near_floats(weight, fitted, numerics, scales)
    assert torch.equal(fake_weight(near, numerics, scales), fitted)
    assert bool(((near - weight).abs() <= (fitted - weight).abs() + 1e-6).all())
    assert float((near - weight).abs().mean()) < 0.6 * float((fitted - weight).abs().mean())
    plain = searched_scales(weight, numerics)
    by_weight = (weight - fake_weight(weight, numerics, plain)).square().sum()
    assert by_weight <= (weight - fake_weight(weight, numerics)).square().sum()


def test_gptq_of_heads_and_units_is_that_of_the_flat_matrix() -> None:
    x, weight = inputs(), torch.randn(10, 3, 32, generator=torch.Generator().manual_seed(2))
    gram = x.T @ x / len(x)
    numerics, flat = Numerics(4, 32, rows=1), Numerics(4, 32)
    scales = weight_scales(weight, numerics)
    assert scales.shape == (10, 3)
    assert torch.equal(gptq(weight, gram, numerics, scales).flatten(1), gptq(weight.flatten(1), gram, flat, scales))


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_rounded_with_gptq_is_nearer_to_the_float_model(tied: bool) -> None:
    space = language_space(tied)
    architecture = space.sample(1)
    model = build(space, architecture, seed=3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "embed" not in name:
                weight.view(-1)[::37] *= 3
        wanted = model(text(4, seed=9)).log_softmax(-1)
    lost = {}
    for method in ("rtn", "searched", "gptq"):
        config = QuantizeConfig(method=method, bits=3, group=0, act_bits=8, head_bits=4)
        changed = quantized_space(space, config, "minmax" if method == "rtn" else "stored")
        rounded = with_numerics_of(changed, architecture, copy.deepcopy(model))
        quantize_weights(changed, rounded, config, text())
        with torch.no_grad():
            given = rounded(text(4, seed=9)).log_softmax(-1)
        lost[method] = float((wanted.exp() * (wanted - given)).sum(-1).mean())
    assert lost["gptq"] < 0.8 * lost["rtn"]
    assert lost["gptq"] < lost["searched"]
    assert lost["searched"] < 1.1 * lost["rtn"]


def test_a_table_that_embedding_and_head_share_stays_as_it_is() -> None:
    space = language_space()
    architecture = space.sample(0)
    model = build(space, architecture)
    before = model.get_parameter("embed.weight").detach().clone()
    config = QuantizeConfig(bits=4, group=0, head_bits=4, head_group=16)
    changed = quantized_space(space, config, "stored")
    rounded = with_numerics_of(changed, architecture, model)
    quantize_weights(changed, rounded, config, text())
    assert torch.equal(rounded.get_parameter("embed.weight"), before)
    assert rounded.get_parameter("embed.weight_scale").shape == (VOCAB, 1)
    assert rounded.get_parameter("embed.weight_head_scale").shape == (VOCAB, 2)


def test_weights_of_rankers_are_rounded_without_text() -> None:
    g = Graph("ranker")
    x = g.input("x", B, 16)
    h = Linear(g.choice("width", [24, 8]), "relu")(x, name="first")
    g.out = Linear(1)(LowRankCross(4)(h, h, name="cross"), name="last")
    space = SearchSpace(g)
    config = QuantizeConfig(method="searched", error="weights", bits=4, group=0)
    changed = quantized_space(space, config, "stored")
    model = with_numerics_of(changed, space.sample(0), build(space, space.sample(0)))
    quantize_weights(changed, model, config, None)
    with torch.no_grad():
        assert torch.isfinite(model(torch.randn(3, 16))).all()
    assert {n for n, _ in model.named_parameters() if n.endswith("scale")} == {
        "first.weight_scale", "cross.down_scale", "cross.up_scale", "last.weight_scale"
    }  # fmt: skip


def test_bits_that_are_choices_stay_the_architectures() -> None:
    g = Graph("open")
    x = g.input("x", B, 64)
    bits = g.choice("bits", [32, 8, 4])
    h = Linear(32, "relu", bits=bits, scale_group=32 * bits.is_(4))(x, name="open")
    g.out = Linear(2)(h, name="closed")
    space = SearchSpace(g)
    changed = quantized_space(space, QuantizeConfig(bits=8, group=0), "stored")
    assert changed.graph.node("open").params["weight"].bits == space.graph.node("open").params["weight"].bits
    for number, scale in ((32, None), (8, (32, 1)), (4, (32, 2))):
        architecture = space.architecture({"bits": number})
        model = with_numerics_of(changed, architecture, build(space, architecture))
        held = {name: tuple(p.shape) for name, p in model.named_parameters()}
        assert held.get("open.weight_scale") == scale
        assert held["closed.weight_scale"] == (2, 1)
    assert changed.cost(architecture, "params") == space.cost(architecture, "params")


def test_what_cannot_be_quantized_is_refused_before_any_work() -> None:
    space = language_space()
    with pytest.raises(SpaceError, match=r"at layers.0.attention \(GQA\): the scale_group of the weight 'q' is 48"):
        quantized_space(space, QuantizeConfig(group=48), "stored")
    few = QuantizeConfig(calibration_tokens=64, calibration_context=8, group=0)
    check_calibration(quantized_space(space, few, "stored"), few)
    wide = SearchSpace(_wide())
    with pytest.raises(ConfigError, match=r"moments of the 128 inputs of last.weight would be of rank 64 at most"):
        check_calibration(quantized_space(wide, few, "stored"), few)
    with pytest.raises(ConfigError, match="no weight of space 'language' is of few bits here: a stage `quantize` must"):
        with_ranges(space, "stored")


def _wide() -> Graph:
    g = Graph("wide")
    g.out = Linear(2)(Linear(g.choice("width", [128, 8]))(g.input("x", B, 8), name="first"), name="last")
    return g


def test_activations_that_are_not_finite_end_calibration_with_the_block() -> None:
    space = language_space()
    architecture = space.sample(0)
    model = build(space, architecture)
    with torch.no_grad():
        model.get_parameter("layers.0.mlp.down").fill_(float("nan"))
    config = QuantizeConfig(bits=4, group=0)
    changed = quantized_space(space, config, "stored")
    with pytest.raises(TrainingError, match=r"what layers\.1\.attention is given is not finite"):
        quantize_weights(changed, with_numerics_of(changed, architecture, model), config, text())


class Direct(Linear):
    """Multiplies by its weight itself."""

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] @ p.weight.T


def test_a_weight_that_calibration_text_does_not_reach_is_told(caplog: pytest.LogCaptureFixture) -> None:
    g = Graph("direct")
    x = Embed(VOCAB, 16)(g.input("ids", B, T, dtype="int"), name="embed")
    g.out = Head(VOCAB)(Direct(16, bias=False)(Linear(16)(x, name="usual"), name="own"), name="head")
    space = SearchSpace(g)
    config = QuantizeConfig(bits=4, group=0)
    changed = quantized_space(space, config, "stored")
    quantize_weights(changed, with_numerics_of(changed, space.sample(0), build(space, space.sample(0))), config, text())
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("own multiplies by weight itself")


def test_nothing_to_search_is_refused() -> None:
    keys: dict[str, Any] = {"bits": 32, "embedding_bits": 16, "head_bits": 32}
    assert QuantizeConfig(method="rtn", **keys).windows == 0
    with pytest.raises(ValueError, match="method=gptq searches scales, and no weight has any"):
        QuantizeConfig(**keys)


def test_a_quantized_model_in_floats_is_that_of_its_weights() -> None:
    space = language_space()
    architecture = space.sample(2)
    model = build(space, architecture)
    config = QuantizeConfig(method="searched", bits=4, group=0, cache_bits=8)
    changed = quantized_space(space, config, "stored")
    rounded = with_numerics_of(changed, architecture, model)
    with torch.no_grad():
        assert not torch.equal(rounded(text(2)), model(text(2)))
        plain = rounded.in_floats()
        assert isinstance(plain, Standalone)
        assert torch.equal(plain(text(2)), model(text(2)))
    assert {n for n, _ in plain.named_parameters()} == {n for n, _ in model.named_parameters()}
