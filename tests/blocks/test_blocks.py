"""Blocks against plain references written out here."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from rankitect.blocks import GQA, Embed, Linear, Norm, Rope, SwiGLU, TiedHead
from rankitect.blocks.attention import attended
from rankitect.graph import B, Block, Graph, P, SearchSpace, T
from rankitect.models.supernet import Standalone, build


def alone(block: Block, dims: list[tuple[object, ...]], dtype: str = "float") -> Standalone:
    """A model of one block named `it`."""
    g = Graph("alone")
    wires = [g.input(f"x{i}", *d, dtype=dtype) for i, d in enumerate(dims)]
    g.out = block(*wires, name="it")
    space = SearchSpace(g)
    return build(space, space.architecture())


def weights(model: Standalone) -> dict[str, torch.Tensor]:
    return {k.removeprefix("it."): v for k, v in model.state_dict().items()}


def attention(w: dict[str, torch.Tensor], x: torch.Tensor, window: int | None, base: float = 10000.0) -> torch.Tensor:
    """One token and one head at a time."""
    kv, group, head, _ = w["q"].shape
    tokens = x.shape[1]
    out = torch.zeros_like(x)

    def turned(v: torch.Tensor, at: int) -> torch.Tensor:
        half = head // 2
        angle = at * base ** (-torch.arange(half) / half)
        a, b = v[..., :half], v[..., half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    for k in range(kv):
        for g in range(group):
            for t in range(tokens):
                first = 0 if window is None else max(0, t - window + 1)
                q = turned(x[:, t] @ w["q"][k, g].T, t)
                keys = torch.stack([turned(x[:, s] @ w["k"][k].T, s) for s in range(first, t + 1)], 1)
                values = torch.stack([x[:, s] @ w["v"][k].T for s in range(first, t + 1)], 1)
                score = (keys @ q[..., None])[..., 0] / head**0.5
                out[:, t] += (score.softmax(-1)[:, None] @ values)[:, 0] @ w["o"][:, k, g].T
    return out


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(("kv", "group"), [(1, 1), (2, 3)])
@pytest.mark.parametrize("tokens", [1, 3, 7, 9, 10, 14])
def test_attention_equals_one_head_at_a_time(window: int | None, kv: int, group: int, tokens: int) -> None:
    model = alone(GQA(kv, group, 4, window), [(B, T, 6), (2, T, 2)])
    ids = torch.zeros(2, tokens, dtype=torch.int64)
    rope = alone(Rope(2), [(B, T)], "int")(ids)
    x = torch.randn(2, tokens, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(x, rope), attention(weights(model), x, window), rtol=1e-4, atol=1e-5)


@given(tokens=st.integers(1, 60), past=st.integers(0, 60), window=st.integers(1, 12))
def test_pairs_of_one_token_at_a_time_are_those_of_its_window(tokens: int, past: int, window: int) -> None:
    class Env:
        def __init__(self) -> None:
            self.known: dict[object, object] = {}

        def value(self, atom: object) -> int:
            return {"T": tokens, "P": past}[str(getattr(atom, "name", atom))]

    assert attended(None).evaluate(Env()) == tokens * (past + tokens)
    if past:
        assert attended(window).evaluate(Env()) == tokens * min(past + tokens, window)
    else:
        assert attended(window).evaluate(Env()) <= max(tokens**2, 2 * window * (tokens + window))
    assert P != T


def test_linear_is_that_of_the_concatenation() -> None:
    model = alone(Linear(5, "gelu"), [(B, 3), (B, 4)])
    w = weights(model)
    x, y = torch.randn(6, 3), torch.randn(6, 4)
    whole = torch.cat([w["weight"], w["weight1"]], dim=1)
    torch.testing.assert_close(model(x, y), F.gelu(F.linear(torch.cat([x, y], 1), whole, w["bias"])))


def test_norm_divides_by_the_root_of_the_mean_square() -> None:
    model = alone(Norm(1e-5), [(B, T, 6)])
    x = torch.randn(2, 3, 6)
    torch.testing.assert_close(model(x), x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt())


def test_swiglu_gates_its_hidden_units() -> None:
    model = alone(SwiGLU(7), [(B, T, 4)])
    w, x = weights(model), torch.randn(2, 3, 4)
    torch.testing.assert_close(model(x), (F.silu(x @ w["gate"].T) * (x @ w["up"].T)) @ w["down"].T)


def test_a_tied_head_scores_with_the_table() -> None:
    g = Graph("tied")
    x = Embed(9, 4)(g.input("ids", B, T, dtype="int"), name="embed")
    g.out = TiedHead(9)(x, name="head", weights="embed")
    space = SearchSpace(g)
    model = build(space, space.architecture())
    ids = torch.randint(9, (2, 5))
    table = model.state_dict()["embed.weight"]
    assert list(model.state_dict()) == ["embed.weight"]
    torch.testing.assert_close(model(ids), table[ids] @ table.T)
    assert space.cost(space.architecture(), "params") == 36
