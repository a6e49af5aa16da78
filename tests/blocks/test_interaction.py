"""Ranking blocks against plain references written out here."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rankitect.blocks import (
    FM,
    Activation,
    AsField,
    Bilinear,
    Concat,
    Cross,
    Dot,
    FieldAttention,
    FieldLinear,
    FieldNorm,
    FieldPad,
    FlatLinear,
    Flatten,
    Gate,
    Join,
    LayerNorm,
    LowRankCross,
    Pad,
    TiedLinear,
    ToFields,
    Total,
)
from rankitect.errors import SpaceError
from rankitect.graph import B, Block, Graph
from tests.blocks.test_blocks import alone, weights


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_dot_products_of_pairs() -> None:
    x = drawn(3, 4, 5)
    pairs = [(x[:, i] * x[:, j]).sum(1) for i in range(4) for j in range(i)]
    torch.testing.assert_close(alone(Dot(), [(B, 4, 5)])(x), torch.stack(pairs, 1))
    fewer = alone(Dot(), [(B, 3, 5)])(x[:, :3])
    torch.testing.assert_close(alone(Dot(), [(B, 4, 5)])(x)[:, :3], fewer)


def test_a_factorization_machine_sums_products_of_pairs() -> None:
    x, y = drawn(3, 2, 5), drawn(3, 3, 5)
    z = torch.cat([x, y], 1)
    pairs = sum(z[:, i] * z[:, j] for i in range(5) for j in range(i))
    torch.testing.assert_close(alone(FM(), [(B, 2, 5), (B, 3, 5)])(x, y), pairs)
    torch.testing.assert_close(alone(Total(), [(B, 5)])(pairs), pairs.sum(1, keepdim=True))  # type: ignore[union-attr]


def test_cross_layers_multiply_by_the_first_input() -> None:
    x0, x = drawn(3, 4), drawn(3, 4) + 1
    full, low = alone(Cross(), [(B, 4), (B, 4)]), alone(LowRankCross(2), [(B, 4), (B, 4)])
    w = weights(full)
    torch.testing.assert_close(full(x0, x), x0 * (x @ w["weight"].T + w["bias"]) + x)
    w = weights(low)
    torch.testing.assert_close(low(x0, x), x0 * (x @ w["down"].T @ w["up"].T + w["bias"]) + x)


def test_a_gate_multiplies_by_a_sigmoid() -> None:
    x, y = drawn(3, 4), drawn(3, 4) + 1
    torch.testing.assert_close(alone(Gate(), [(B, 4), (B, 4)])(x, y), torch.sigmoid(x) * y)
    torch.testing.assert_close(alone(Gate(2.0), [(B, 4), (B, 4)])(x, y), 2 * torch.sigmoid(x) * y)


def test_bilinear_fusion() -> None:
    x, y = drawn(3, 4), drawn(3, 5)
    model = alone(Bilinear(), [(B, 4), (B, 5)])
    expected = torch.einsum("bd,dk,bk->b", x, weights(model)["weight"], y)
    torch.testing.assert_close(model(x, y)[:, 0], expected)


def test_a_linear_layer_over_the_field_axis_is_that_of_the_concatenation() -> None:
    x, y = drawn(3, 2, 5), drawn(3, 4, 5)
    model = alone(FieldLinear(6, "relu"), [(B, 2, 5), (B, 4, 5)])
    w = weights(model)
    whole = torch.cat([w["weight"], w["weight1"]], 1)
    expected = torch.relu(torch.einsum("nf,bfe->bne", whole, torch.cat([x, y], 1)) + w["bias"][:, None])
    torch.testing.assert_close(model(x, y), expected)


def test_flat_and_tied_linear_layers() -> None:
    x, y = drawn(3, 2, 5), drawn(3, 4, 3)
    model = alone(FlatLinear(6), [(B, 2, 5), (B, 4, 3)])
    w = weights(model)
    expected = x.flatten(1) @ w["weight"].flatten(1).T + y.flatten(1) @ w["weight1"].flatten(1).T + w["bias"]
    torch.testing.assert_close(model(x, y), expected)
    a, b = drawn(3, 2), drawn(3, 4)
    tied = alone(TiedLinear(6, 4), [(B, 2), (B, 4)])
    w = weights(tied)
    torch.testing.assert_close(tied(a, b), (F.pad(a, (0, 2)) + b) @ w["weight"].T + w["bias"])


def test_norms_are_torchs() -> None:
    x = drawn(3, 4, 5)
    torch.testing.assert_close(alone(LayerNorm("relu"), [(B, 4, 5)])(x), torch.relu(F.layer_norm(x, (5,))))
    expected = F.layer_norm(x.transpose(1, 2), (4,)).transpose(1, 2)
    torch.testing.assert_close(alone(FieldNorm(), [(B, 4, 5)])(x), expected)


def test_attention_over_fields_is_torchs() -> None:
    x = drawn(3, 4, 6)
    model = alone(FieldAttention(2, 3), [(B, 4, 6)])
    w = weights(model)
    theirs = torch.nn.MultiheadAttention(6, 2, bias=False, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([w[k].flatten(0, 1) for k in "qkv"]))
        theirs.out_proj.weight.copy_(w["o"].flatten(1))
    torch.testing.assert_close(model(x), theirs(x, x, x)[0])


def test_reshapes_and_sums() -> None:
    x, y = drawn(3, 2, 4), drawn(3, 5, 4)
    torch.testing.assert_close(alone(Join(), [(B, 2, 4), (B, 5, 4)])(x, y), torch.cat([x, y], 1))
    torch.testing.assert_close(alone(Flatten(), [(B, 2, 4)])(x), x.flatten(1))
    torch.testing.assert_close(alone(Flatten("width"), [(B, 2, 4)])(x), x.transpose(1, 2).flatten(1))
    torch.testing.assert_close(alone(FieldPad(3), [(B, 2, 4), (B, 5, 4)])(x, y), F.pad(x, (0, 0, 0, 1)) + y[:, :3])
    torch.testing.assert_close(alone(Pad(3), [(B, 2, 4), (B, 2, 2)])(x, x[..., :2])[..., 2], x[..., 2])
    v = drawn(3, 4)
    torch.testing.assert_close(alone(AsField(), [(B, 4)])(v), v[:, None])
    torch.testing.assert_close(alone(Concat(), [(B, 4), (B, 4)])(v, -v), torch.cat([v, -v], 1))
    torch.testing.assert_close(alone(Activation(), [(B, 4)])(v), torch.relu(v))
    model = alone(ToFields(2, 3), [(B, 4)])
    torch.testing.assert_close(model(v)[:, 1, 2], v @ weights(model)["weight"][1, 2])


@pytest.mark.parametrize(
    ("block", "first", "second"),
    [(Join(), (B, "open", 4), (B, 2, 4)), (Concat(), (B, "open"), (B, 2)), (Flatten(), (B, 2, "open"), None)],
    ids=["Join", "Concat", "Flatten"],
)
def test_an_open_axis_that_would_shift_others_is_refused(block: Block, first: tuple, second: tuple | None) -> None:
    g = Graph("shift")
    width = g.choice("open", [2, 4])

    def wire(name: str, dims: tuple) -> object:
        return g.input(name, *[width if d == "open" else d for d in dims])

    wires = [wire("x", first)] + ([wire("y", second)] if second else [])
    with pytest.raises(SpaceError, match="must be fixed"):
        block(*wires)  # type: ignore[arg-type]


def test_mistakes_are_named() -> None:
    for make in (lambda: LayerNorm("swish"), lambda: FieldLinear(2, "swish"), lambda: Activation("swish")):
        with pytest.raises(SpaceError, match="activation 'swish' is unknown; allowed: none, relu"):
            make()
    with pytest.raises(SpaceError, match="order must be 'fields' or 'width'"):
        Flatten("depth")
