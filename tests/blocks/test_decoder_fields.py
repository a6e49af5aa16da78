"""The fields in which families of decoders differ, against plain references and `transformers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rankitect.blocks import GQA, Embed, Norm, Rope, SwiGLU
from rankitect.errors import SpaceError
from rankitect.graph import B, Block, Graph, SearchSpace, T
from rankitect.models.deployed import DeployedCall
from rankitect.models.relaxed import RelaxedSupernet, one_hot
from rankitect.models.supernet import Standalone, Supernet, build
from tests.blocks.test_blocks import alone, weights

FIELDS = [
    {"bias": True},
    {"qk_norm": "head", "eps": 1e-3},
    {"qk_norm": "all", "eps": 1e-3, "window": 3},
    {"qk_norm": "head", "offset": 1.0, "scale": 0.3, "window": 3},
    {"rotary": False, "bias": True},
]


def lively(model: Any) -> Any:
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=noise))
    return model


def attention(w: dict[str, torch.Tensor], x: torch.Tensor, rope: torch.Tensor, block: GQA) -> torch.Tensor:
    """Attention with every field, as one formula."""
    q, k, v = (torch.einsum("btd,...d->bt...", x, w[name]) for name in "qkv")
    if block.bias:
        q, k, v = q + w["q_bias"], k + w["k_bias"], v + w["v_bias"]
    if block.qk_norm != "none":
        axes = -1 if block.qk_norm == "head" else (-1, -2)
        k = k / (k.square().mean(axes, keepdim=True) + block.eps).sqrt() * (w["k_norm"] + block.offset)
        axes = -1 if block.qk_norm == "head" else (-1, -2, -3)
        q = q / (q.square().mean(axes, keepdim=True) + block.eps).sqrt() * (w["q_norm"] + block.offset)
    k = k[:, :, :, None].expand(q.shape)
    v = v[:, :, :, None].expand(q.shape)
    if block.rotary:
        cos, sin = (part[:, None, None] for part in rope)
        q, k = (
            torch.cat([a * cos - b * sin, b * cos + a * sin], -1) for a, b in (t.chunk(2, -1) for t in (q, k))
        )  # fmt: skip
    scores = torch.einsum("btkgh,bskgh->bkgts", q, k) * (block.scale or block.head**-0.5)
    back = torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])
    hidden = (back < 0) | (back >= (block.window or x.shape[1]))
    chances = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    return torch.einsum("bkgts,bskgh,dkgh->btd", chances, v, w["o"])


@pytest.mark.parametrize("fields", FIELDS, ids=str)
@pytest.mark.parametrize("tokens", [2, 7, 12])
def test_attention_computes_what_its_fields_say(fields: dict[str, Any], tokens: int) -> None:
    block = GQA(2, 3, 4, **fields)
    model = lively(alone(block, [(B, T, 6), (2, T, 2)][: 1 + block.rotary]))
    rope = alone(Rope(2), [(B, T)], "int")(torch.zeros(2, tokens, dtype=torch.int64))
    x = torch.randn(2, tokens, 6, generator=torch.Generator().manual_seed(0))
    expected = attention(weights(model), x, rope, block)
    torch.testing.assert_close(model(x, *[rope] * block.rotary), expected, rtol=1e-4, atol=1e-5)


def decoder(open_choices: bool = True, **fields: Any) -> SearchSpace:
    """An embedding, and one layer of attention and feed-forward with choices."""
    g = Graph("decoder")
    ids = g.input("ids", B, T, dtype="int")
    x = Embed(11, g.choice("width", [8, 6]) if open_choices else 8, scale=2.0)(ids, name="embed")
    kv, group = (g.choice("kv_heads", [2, 1]), g.choice("group", [3, 2, 1])) if open_choices else (2, 3)
    block = GQA(kv, group, 4, **fields)
    rope = [Rope(2, scaling=("llama3", 4.0, 1.0, 4.0, 16.0))(ids, name="rope")] if block.rotary else []
    x = x + block(Norm(offset=1.0)(x, name="norm1"), *rope, name="attention")
    width = g.choice("ffn", [9, 5]) if open_choices else 9
    g.out = x + SwiGLU(width, "gelu_tanh")(Norm()(x, name="norm2"), name="mlp")
    return SearchSpace(g, version="1", defaults={"T": 9})


IDS = torch.randint(0, 11, (1, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("fields", FIELDS, ids=str)
@torch.no_grad()
def test_whatever_the_fields_all_readings_of_a_decoder_agree(fields: dict[str, Any]) -> None:
    space = decoder(**fields)
    again = SearchSpace.from_json(space.to_json())
    supernet = lively(Supernet(space))
    relaxed = RelaxedSupernet(supernet)
    for seed in range(6):
        architecture = space.sample(seed)
        model = supernet.extract(architecture)
        expected = model(IDS)
        torch.testing.assert_close(supernet.activate(architecture)(IDS), expected, rtol=1e-4, atol=1e-5)
        mixed = relaxed(one_hot(space, architecture), IDS)
        torch.testing.assert_close(mixed[..., : expected.shape[-1]], expected, rtol=1e-4, atol=1e-5)
        assert space.cost(architecture, "params") == sum(p.numel() for p in model.parameters())
        assert again.cost(architecture, "flops") == space.cost(architecture, "flops")
        for tokens in (IDS, IDS[:, :5]):
            call = DeployedCall(model.plan, model, 20, False, (tokens,))
            torch.testing.assert_close(call(*call.example())[0], model(tokens), rtol=1e-4, atol=1e-5)


SCALINGS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    (("linear", 4.0), {"rope_type": "linear", "factor": 4.0}),
    (("dynamic", 3.0, 64.0), {"rope_type": "dynamic", "factor": 3.0}),
    (
        ("llama3", 8.0, 1.0, 4.0, 32.0),
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        | {"original_max_position_embeddings": 32},
    ),
    (
        ("yarn", 4.0, 16.0, 32.0, 1.0, 1.1386294361119891, True),
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    ),
    (
        ("yarn", 4.0, 16.0, 8.0, 0.5, 0.7, False),
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 8.0}
        | {"beta_slow": 0.5, "attention_factor": 0.7, "truncate": False},
    ),
]


@pytest.mark.parametrize(("scaling", "parameters"), SCALINGS, ids=[s[0][0] for s in SCALINGS])
@pytest.mark.parametrize("tokens", [40, 100])
def test_scaled_positions_are_those_of_transformers(
    scaling: tuple[Any, ...], parameters: dict[str, Any], tokens: int
) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = transformers.LlamaConfig(
        hidden_size=32,
        num_attention_heads=2,
        max_position_embeddings=64,
        rope_parameters={"rope_theta": 500.0, **parameters},
    )
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(tokens)[None])
    expected = torch.stack([cos[0, :, :8], sin[0, :, :8]])
    given = alone(Rope(8, 500.0, scaling), [(B, T)], "int")(torch.zeros(1, tokens, dtype=torch.int64))
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=2e-5)


def test_a_program_that_would_have_to_turn_its_keys_anew_is_refused() -> None:
    g = Graph("rope")
    g.out = Rope(4, scaling=("dynamic", 2.0, 16.0))(g.input("ids", B, T, dtype="int"), name="rope")
    space = SearchSpace(g)
    model = build(space, space.architecture())
    ids = torch.zeros(1, 4, dtype=torch.int64)
    DeployedCall(model.plan, model, 16, False, (ids,))
    with pytest.raises(SpaceError, match="capacity of at most that, not 17"):
        DeployedCall(model.plan, model, 17, False, (ids,))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (lambda: GQA(1, 1, 4, qk_norm="heads"), "qk_norm is 'heads'; allowed: none, head, all"),
        (lambda: Norm(offset=0.5), "offset is 0.5; it must be 0 or 1"),
        (lambda: SwiGLU(4, "swish"), "activation 'swish' is unknown"),
        (lambda: Rope(4, scaling=("longrope", 2.0)), "scaling 'longrope' is unknown; allowed: linear, dynamic"),
        (lambda: Rope(4, scaling=("linear",)), "scaling 'linear' takes factor, not 0 numbers"),
    ],
)
def test_fields_that_mean_nothing_are_refused(block: Callable[[], Block], message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        alone(block(), [(B, T, 6)])
    assert message in str(caught.value)


def test_norms_and_gates_and_tables_with_their_fields() -> None:
    x = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    norm = lively(alone(Norm(1e-5, 1.0), [(B, T, 6)]))
    torch.testing.assert_close(norm(x), F.rms_norm(x, (6,), 1 + weights(norm)["weight"], 1e-5))
    gate: Standalone = alone(SwiGLU(7, "gelu_tanh"), [(B, T, 6)])
    w = weights(gate)
    gated = F.gelu(x @ w["gate"].T, approximate="tanh") * (x @ w["up"].T)
    torch.testing.assert_close(gate(x), gated @ w["down"].T)
