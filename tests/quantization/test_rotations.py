"""Models that are turned into another basis compute what they did, or are refused with the node in the way."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rankitect.blocks import GQA, Activation, Embed, Head, LayerNorm, Linear, Norm, SwiGLU, TiedHead
from rankitect.blocks.hadamard import block_matrix, hadamard, hadamard_block, turned
from rankitect.errors import SpaceError
from rankitect.graph import Architecture, B, Block, Expr, Graph, Param, Params, SearchSpace, Sum, TensorType
from rankitect.models.families import PLAIN
from rankitect.models.plan import make_plan
from rankitect.models.supernet import Standalone, build
from rankitect.quantization.rotations import draw, rotated_space, turning
from rankitect.quantization.streams import streams
from rankitect.search_spaces.mobile_llm import mobile_llm

TOLERANCE = 1e-5
"""Largest difference of logits, relative to the largest logit, in float32."""


@cache
def phone(tied: bool = True, **blocks: Any) -> SearchSpace:
    """Decoders of few layers, whose widths have Hadamard matrices or have none."""
    return mobile_llm(
        vocab=40, layers=3, widths=[24, 18, 32], kv_heads=[2, 1, 3], group=[2, 1], ffn=[24, 10, 40], head=8, window=4,
        tied=tied, blocks=replace(PLAIN, **blocks),
    )  # fmt: skip


def trained(space: SearchSpace, architecture: Architecture, seed: int) -> Standalone:
    """A model whose norms and biases are not as they started."""
    model, generator = build(space, architecture, seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 or "norm" in name or "bias" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def difference(space: SearchSpace, model: Standalone, inputs: torch.Tensor, seed: int, **options: Any) -> float:
    """The largest difference of outputs after random rotations, relative to the largest output."""
    ready = turning(space, model, **options)
    other = ready.model(draw(ready.sizes, seed), model)
    with torch.inference_mode():
        one, two = model(inputs), other(inputs)
    return float((one - two).abs().max() / one.abs().max())


def ids(seed: int, tokens: int = 7) -> torch.Tensor:
    return torch.randint(0, 40, (2, tokens), generator=torch.Generator().manual_seed(seed))


@pytest.mark.identity
@given(
    seed=st.integers(0, 2**31), tied=st.booleans(), head=st.sampled_from(["mix", "untied"]), online=st.booleans(),
    block=st.sampled_from([0, 4]),
)  # fmt: skip
def test_any_architecture_that_is_rotated_gives_the_same_logits(
    seed: int, tied: bool, head: Any, online: bool, block: int
) -> None:
    space = phone(tied)
    model = trained(space, space.sample(seed), seed)
    options = {"head": head, "r2": seed % 3 > 0, "r3": online, "r4": online, "block": block}
    assert difference(space, model, ids(seed), seed, **options) <= TOLERANCE


FAMILIES: dict[str, dict[str, Any]] = {
    "bias": {"bias": True},
    "norm of each head": {"qk_norm": "head"},
    "norm of all heads": {"qk_norm": "all"},
    "gains with an offset": {"norm_offset": 1.0},
    "a scaled embedding": {"embed_scale": 4.0},
    "layers without positions": {"rotary": (True, False, True)},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_blocks_of_every_family_are_rotated_exactly(name: str) -> None:
    space = phone(**FAMILIES[name])
    for seed in (1, 2):
        model = trained(space, space.sample(seed), seed)
        assert difference(space, model, ids(seed), seed, r3=True, r4=True) <= TOLERANCE


@pytest.mark.parametrize("norms", ["post", "both"])
def test_gains_that_are_added_to_the_stream_are_refused_unless_they_change_nothing(norms: str) -> None:
    space = phone(norms=norms)
    architecture = space.architecture({p: c.values[0] for p, c in space.choices.items()})
    assert difference(space, build(space, architecture), ids(0), 0, r3=True, r4=True) <= TOLERANCE
    with pytest.raises(SpaceError, match=r"layers\.0\.behind1 multiplies channels and adds them to the stream"):
        turning(space, trained(space, architecture, 0))
    with pytest.raises(SpaceError, match=r"layers\.0\.behind1 multiplies channels"):
        rotated_space(space, architecture, head="mix", r3=True, r4=True)  # before there is a model


def test_heads_of_one_table_behind_norms_of_their_own_are_turned_only_where_their_gains_agree() -> None:
    graph = Graph("two heads")
    x = Embed(30, 12)(graph.input("ids", B, 6, dtype="int"), name="embed")
    scores = [TiedHead(30)(Norm()(x, name=f"norm{n}"), name=f"head{n}", weights="embed") for n in range(2)]
    graph.out = Sum()(*scores, name="sum")
    space = SearchSpace(graph)
    model = build(space, space.sample(0), 0)
    gains = [p for name, p in model.named_parameters() if "norm" in name]
    with torch.no_grad():
        for gain in gains:
            gain.copy_(torch.linspace(0.5, 1.5, 12))
    assert difference(space, model, ids(0, 6) % 30, 0) <= TOLERANCE
    with torch.no_grad():
        gains[1].neg_()
    with pytest.raises(SpaceError, match="gain"):
        turning(space, model)


# --- other spaces -----------------------------------------------------------------------------------------------------
class Doubled(Block):
    """A residual block of a user's own, with weights of other names and an order of axes of its own."""

    ports: ClassVar[str] = "... D -> ... D"
    units: int

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        width = inputs[0][-1]
        return {"into": Param.of(width, self.units, inputs=(0,)), "out": Param.of(self.units, width, inputs=(0,))}

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] + torch.tanh(inputs[0] @ p.into) @ p.out

    def flops(self, *inputs: TensorType) -> Expr:
        return 4 * inputs[0].numel * self.units


class Squared(Doubled):
    """The same weights, and a product of channels besides, which they do not tell of."""

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        return super().run(p, *inputs) + inputs[0] * inputs[0]


def stack(*middle: Block) -> SearchSpace:
    """Numbers to a stream of 12 channels, blocks that are added to it, and a score."""
    graph = Graph("stack")
    width = graph.choice("width", [12, 10])
    x = Linear(width)(graph.input("x", B, 5), name="first")
    for number, block in enumerate(middle):
        x = x + Linear(width)(block(x, name=f"block{number}"), name=f"back{number}")
    graph.out = Linear(1)(Norm()(x, name="norm"), name="score")
    return SearchSpace(graph)


@pytest.mark.parametrize("block", [Norm(), SwiGLU(8), Linear(16, "relu"), Doubled(6)], ids=lambda b: b.label)
def test_streams_are_read_from_any_space(block: Block) -> None:
    space = stack(block, block)
    for architecture in space.neighbours(space.sample(0)):
        model = trained(space, architecture, 1)
        inputs = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
        assert difference(space, model, inputs, 1) <= TOLERANCE
        widths = {s.width for s in streams(space, make_plan(space, architecture))}
        assert architecture["width"] in widths


@pytest.mark.parametrize(
    ("block", "label"), [(LayerNorm(), "LayerNorm"), (Activation("silu"), "Activation"), (Squared(6), "Squared")]
)
def test_a_stream_whose_basis_a_block_depends_on_is_refused_with_the_node(block: Block, label: str) -> None:
    space = stack(block)
    with pytest.raises(SpaceError, match=rf"block0 \({label}\)"):
        turning(space, build(space, space.sample(0)))


def test_one_stream_of_a_decoder_is_read_with_all_its_weights() -> None:
    space = phone()
    plan = make_plan(space, space.architecture({p: c.values[0] for p, c in space.choices.items()}))
    (stream,) = streams(space, plan)
    names = {key[1] for by in stream.normed.values() for key, _ in by}
    assert names == {"q", "k", "v", "gate", "up", "weight"}
    assert {key[1] for key, _ in stream.writes} == {"o", "down", "weight"}
    assert len(stream.gains) == 2 * 3 + 1
    assert not stream.reads


# --- what a rotated model is ------------------------------------------------------------------------------------------
def test_costs_and_json_of_a_rotated_space_are_those_of_its_model() -> None:
    space = phone()
    architecture = space.architecture({p: c.values[0] for p, c in space.choices.items()})
    model = trained(space, architecture, 0)
    mixed, untied = (turning(space, model, head=head, r3=True, r4=True) for head in ("mix", "untied"))  # type: ignore[arg-type]
    assert isinstance(mixed.space.graph.node("head").block, TiedHead)
    assert type(untied.space.graph.node("head").block) is Head
    for ready, more in ((mixed, 24 * 24), (untied, 40 * 24)):
        turned_model = ready.model({}, model)
        held = sum(p.numel() for p in turned_model.parameters())
        assert ready.space.cost(architecture, "params") == held == space.cost(architecture, "params") + more
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            turned_model(ids(0))
        assert ready.space.cost(architecture, "flops", B=2, T=7) == counter.get_total_flops()
        again = SearchSpace.from_json(ready.space.to_json())
        assert again.to_json() == ready.space.to_json()
        assert architecture.fingerprint == again.validate(architecture).fingerprint
    with pytest.raises(SpaceError, match="is rotated already"):
        turning(mixed.space, mixed.model({}, model))


def test_rotations_spread_what_stands_out() -> None:
    space = phone()
    model = trained(space, space.architecture({p: c.values[0] for p, c in space.choices.items()}), 0)
    with torch.no_grad():
        model.owner("embed").weight[:, 3] *= 50
    ready = turning(space, model)
    after = ready.model(draw(ready.sizes, 0), model).owner("embed").weight.detach()
    before = model.owner("embed").weight.detach()
    assert float(after.abs().max()) < 0.5 * float(before.abs().max())


# --- Hadamard matrices ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [1, 2, 12, 20, 28, 48, 52, 344, 576, 1088, 1216, 1344, 1472])
def test_hadamard_matrices_are_orthogonal_with_entries_of_one_size(n: int) -> None:
    whole = hadamard(n)
    assert torch.allclose(whole @ whole.T, torch.eye(n, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(whole.abs(), torch.full_like(whole, n**-0.5))


def test_every_multiple_of_64_up_to_2688_has_one() -> None:
    assert [n for n in range(64, 2689, 64) if hadamard_block(n) != n] == []


@pytest.mark.parametrize(("n", "most", "block"), [(1536, 128, 128), (1536, 100, 96), (1344, 128, 112), (20, 9, 4)])
def test_blocks_are_the_largest_that_are_allowed(n: int, most: int, block: int) -> None:
    assert hadamard_block(n, most) == block


@pytest.mark.parametrize("block", [4, 48, 192, 384])
def test_products_with_factors_are_those_with_the_whole_matrix(block: int) -> None:
    x = torch.randn(3, 384, dtype=torch.float64)
    assert torch.allclose(turned(x, block), (x.view(3, -1, block) @ block_matrix(block)).flatten(1))
    assert GQA(1, 1, 8, hadamard=True).hadamard
    with pytest.raises(SpaceError, match="no Hadamard matrix of 10 rows"):
        SwiGLU(20, hadamard=10)


@pytest.mark.parametrize("size", [-4, 2**40, "8", True, 2.0, None])
def test_a_size_of_rotations_from_a_file_is_checked(size: Any) -> None:
    with pytest.raises(SpaceError, match=r"a rotation has from 1 to 65,536 channels"):
        SwiGLU(16, hadamard=size)
    with pytest.raises(SpaceError, match="GQA: hadamard is true or false"):
        GQA(1, 1, 8, hadamard=size if size is not True else 1)  # type: ignore[arg-type]
