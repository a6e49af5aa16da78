"""Rounding to few bits: as torchao computes it, with gradients, and the same wherever a model of an architecture is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankitect.blocks import GQA, Bilinear, Embed, Linear, Norm, Rope, SwiGLU, TiedHead
from rankitect.errors import SpaceError
from rankitect.graph import B, Graph, SearchSpace, T
from rankitect.models.numerics import Numerics, fake_tokens, fake_weight, levels_of, quantized_levels, weight_scales
from rankitect.models.supernet import Supernet, build

VOCAB = 48


def decoder(**fields: Any) -> SearchSpace:
    """A decoder of one open layer, with these numerics in every block."""
    g = Graph("decoder")
    ids = g.input("ids", B, T, dtype="int")
    rope = Rope(16)(ids, name="rope")
    weights = {k: v for k, v in fields.items() if k != "cache_bits"}
    x = Embed(VOCAB, 64, **weights)(ids, name="embed")
    with g.inside("layers"), g.inside("0"):
        x = x + GQA(g.choice("kv", [2, 1]), 2, 32, **fields)(Norm()(x, name="norm1"), rope, name="attention")
        x = x + SwiGLU(g.choice("ffn", [128, 64]), **weights)(Norm()(x, name="norm2"), name="mlp")
    g.out = TiedHead(VOCAB, **weights)(x, name="head", weights="embed")
    return SearchSpace(g)


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCAB, (2, 9), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 8), st.sampled_from([0, 32, 64]), st.integers(0, 10**6))
def test_a_rounded_weight_is_levels_times_scales(bits: int, group: int, seed: int) -> None:
    weight = torch.randn(3, 5, 128, generator=torch.Generator().manual_seed(seed))
    numerics = Numerics(bits, group, rows=2)
    levels, scales = quantized_levels(weight, numerics)
    least, most = levels_of(bits)
    assert scales.shape == (3, 5, 128 // group if group else 1)
    assert int(levels.min()) >= least
    assert int(levels.max()) <= most
    again = levels.view(*scales.shape, -1) * scales[..., None]
    assert torch.equal(fake_weight(weight, numerics), again.view(weight.shape))
    assert torch.equal(fake_weight(weight, numerics, scales), again.view(weight.shape))


@pytest.mark.parametrize("bits", [4, 8])
def test_activations_are_rounded_as_torchao_rounds_them(bits: int) -> None:
    pytest.importorskip("torchao")
    from torchao.quantization.qat import IntxFakeQuantizeConfig, IntxFakeQuantizer

    x = torch.randn(40, 96, generator=torch.Generator().manual_seed(1)) * torch.logspace(-4, 3, 40)[:, None] + 0.3
    x[7] = 0.0
    x[8] = x[8].abs()
    x[9, :] = -2.5
    kind = getattr(torch, f"int{bits}")
    peer = IntxFakeQuantizer(IntxFakeQuantizeConfig(kind, "per_token", is_symmetric=False))
    assert torch.equal(fake_tokens(x, bits), peer(x))


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 0), (8, 0), (8, 64)])
def test_weights_are_rounded_as_torchao_rounds_them(bits: int, group: int) -> None:
    pytest.importorskip("torchao")
    from torchao.quantization.qat.utils import _fake_quantize_per_channel_group

    weight = torch.randn(24, 128, generator=torch.Generator().manual_seed(2))
    weight[3] = 0.0
    numerics = Numerics(bits, group)
    scales = weight_scales(weight, numerics)
    least, most = levels_of(bits)
    peer = _fake_quantize_per_channel_group(weight, scales, torch.zeros_like(scales), least, most, group or 128)
    assert torch.equal(fake_weight(weight, numerics), peer)


def test_gradients_go_straight_through() -> None:
    weight, x = torch.randn(6, 32, requires_grad=True), torch.randn(4, 32, requires_grad=True)
    slope = torch.randn(4, 6)
    rounded, tokens = fake_weight(weight, Numerics(4, 16)), fake_tokens(x, 8)
    (tokens @ rounded.T).backward(slope)
    assert weight.grad is not None
    assert x.grad is not None
    torch.testing.assert_close(weight.grad, slope.T @ tokens.detach())
    torch.testing.assert_close(x.grad, slope @ rounded.detach())


@pytest.mark.parametrize("group", [0, 16])
def test_stored_scales_learn_as_lsq_learns_them(group: int) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(6, 32, generator=generator, requires_grad=True)
    numerics = Numerics(4, group)
    scale = (weight_scales(weight, numerics) * 0.4).requires_grad_()  # some weights are cut off
    slope = torch.randn(6, 32, generator=generator)
    fake_weight(weight, numerics, scale).backward(slope)
    held = scale.detach().bfloat16().float() if group else scale.detach()
    count = group or 32
    level = (weight.detach().view(-1, count) / held.view(-1, 1)).requires_grad_(False)
    rounded = level.round()
    inside = (rounded >= -8) & (rounded <= 7)
    moved = torch.where(inside, rounded - level, rounded.clamp(-8, 7))
    wanted = (moved * slope.view(-1, count)).sum(1) / (count * 7) ** 0.5
    assert scale.grad is not None
    assert weight.grad is not None
    torch.testing.assert_close(scale.grad.flatten(), wanted)
    assert torch.equal(weight.grad, slope * inside.view(6, 32))


def test_what_is_already_rounded_stays() -> None:
    weight = fake_weight(torch.randn(8, 64), Numerics(4, 32))
    torch.testing.assert_close(fake_weight(weight, Numerics(4, 32)), weight, rtol=1e-2, atol=0.02)
    half = fake_weight(torch.randn(8, 64), Numerics(16))
    assert torch.equal(fake_weight(half, Numerics(16)), half)


@pytest.mark.parametrize("stored", ["minmax", "stored"])
def test_a_model_of_few_bits_is_the_float_model_of_rounded_weights(stored: str) -> None:
    fields: dict[str, Any] = {"bits": 4, "scale_group": 32, "ranges": stored}
    rounded, plain = decoder(**fields), decoder()
    architecture = plain.architecture({"layers.0.kv": 2, "layers.0.ffn": 64})
    model, twin = build(rounded, architecture, seed=1), build(plain, architecture, seed=1)
    with torch.no_grad():
        for name, weight in twin.named_parameters():
            if weight.dim() > 1:
                rows = 1 if name.endswith(("o", "down")) else weight.dim() - 1
                weight.copy_(fake_weight(weight, Numerics(4, 32, rows)))
        torch.testing.assert_close(model(tokens()), twin(tokens()))
    expected = {n for n, _ in twin.named_parameters()}
    extra = {n for n, _ in model.named_parameters()} - expected
    assert all(name.endswith("_scale") for name in extra)
    assert bool(extra) == (stored == "stored")
    assert rounded.cost(architecture, "params") == plain.cost(architecture, "params")


def test_an_active_subnet_of_few_bits_equals_the_extracted_model() -> None:
    space = decoder(bits=4, act_bits=8, cache_bits=4)
    supernet = Supernet(space)
    for seed in range(4):
        architecture = space.sample(seed)
        active, alone = supernet.activate(architecture), supernet.extract(architecture)
        with torch.no_grad():
            torch.testing.assert_close(active(tokens(seed)), alone(tokens(seed)))
        alone(tokens(seed)).square().sum().backward()
        active(tokens(seed)).square().sum().backward()
        for name, weight in alone.named_parameters():
            whole = supernet.weights.get_parameter(name).grad
            assert whole is not None
            assert weight.grad is not None
            torch.testing.assert_close(whole[tuple(slice(n) for n in weight.shape)], weight.grad)
        supernet.zero_grad()


def test_bits_may_be_choices() -> None:
    g = Graph("open")
    x = g.input("x", B, 64)
    bits = g.choice("bits", [32, 8, 4])
    g.out = Linear(8, bits=bits, scale_group=32 * bits.is_(4))(x, name="linear")
    space = SearchSpace(g)
    supernet = Supernet(space)
    inputs = torch.randn(4, 64)
    with torch.no_grad():
        outputs = {b: supernet.activate(space.architecture({"bits": b}))(inputs) for b in (32, 8, 4)}
    weight = supernet.weights.get_parameter("linear.weight")
    bias = supernet.weights.get_parameter("linear.bias")
    for b, numerics in ((32, Numerics(32)), (8, Numerics(8)), (4, Numerics(4, 32))):
        torch.testing.assert_close(outputs[b], inputs @ fake_weight(weight, numerics).T + bias)
    assert SearchSpace.from_json(space.to_json()).to_json() == space.to_json()


def test_weights_are_rounded_once_in_an_evaluation_and_again_when_they_change() -> None:
    space = decoder(bits=4)
    model = build(space, space.sample(0))
    with torch.no_grad():
        first = model(tokens())
        kept = {k: v[-1] for k, v in model._rounded._kept.items()}
        assert torch.equal(model(tokens()), first)
        assert kept
        assert all(model._rounded._kept[k][-1] is v for k, v in kept.items())
        model.get_parameter("layers.0.mlp.up").mul_(-1)
        assert not torch.equal(model(tokens()), first)
    model(tokens())  # a pass of a training
    assert not model._rounded._kept


def test_the_fields_are_not_stored_at_their_defaults() -> None:
    text = decoder().to_json()
    assert "act_bits" not in text
    assert "ranges" not in text
    space = decoder(bits=8, cache_bits=8, ranges="stored")
    assert SearchSpace.from_json(space.to_json()).to_json() == space.to_json()
    assert space.sample(0).fingerprint == decoder().sample(0).fingerprint


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"bits": 4, "scale_group": 48},
            r"the scale_group of the weight 'weight' is 48, which does not divide its 64 inputs",
        ),
        ({"bits": 4, "scale_group": -32}, r"scale_group of the weight 'weight' is -32"),
        ({"bits": 9}, r"bits is 9; allowed: 2, 3"),
        ({"act_bits": 1}, r"act_bits is 1; allowed"),
        ({"bits": 4, "ranges": "widest"}, r"ranges is 'widest'; allowed: minmax, stored"),
        ({"bits": True}, r"bits must be a whole number or an expression, not True"),
    ],
)
def test_numerics_that_no_runtime_has_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        decoder(**fields)


def test_bits_of_a_cache_are_refused_where_nothing_is_kept() -> None:
    g = Graph("no_cache")
    x = g.input("x", B, 8)
    g.out = Bilinear(cache_bits=8)(x, Linear(8, bits=4)(x, name="linear"), name="bilinear")
    with pytest.raises(SpaceError, match=r"at bilinear \(Bilinear\): cache_bits is given, and the block keeps"):
        SearchSpace(g)


def test_scales_of_one_architecture_are_no_supernets() -> None:
    with pytest.raises(SpaceError, match="stores scales of weights, which belong to one architecture"):
        Supernet(decoder(bits=4, ranges="stored"))
