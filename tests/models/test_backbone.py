"""The backbone as a supernet: at its largest it is the pretrained model, and a prefix is the pruned one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, SearchSpace
from rankitect.metrics.losses import cross_entropy
from rankitect.models.backbone import Backbone, largest, rank
from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig, random_checkpoint
from rankitect.models.importance import Statistics, gather
from rankitect.models.pretrained import Orders, space_tensors
from rankitect.models.relaxed import RelaxedSupernet, one_hot
from rankitect.models.supernet import Supernet
from rankitect.search_spaces.mobile_llm import from_backbone
from tests.models.reference import ReferenceLlama

CONFIG = DecoderConfig(
    vocab=256, d_model=32, n_layers=3, n_heads=6, n_kv_heads=3, head_dim=8, ffn=48, rope_base=5000.0, context=64
)
KV, GROUP, HEAD = CONFIG.n_kv_heads, CONFIG.n_heads // CONFIG.n_kv_heads, CONFIG.head_dim
IDS = torch.randint(0, CONFIG.vocab, (2, 20), generator=torch.Generator().manual_seed(5))
TEXT = [torch.randint(0, CONFIG.vocab, (2, 21), generator=torch.Generator().manual_seed(i)) for i in range(8)]


def lively(config: DecoderConfig = CONFIG) -> DecoderCheckpoint:
    """Random weights large enough that a wrong slice shows in the logits."""
    checkpoint = random_checkpoint(config, 0)
    noise = torch.Generator().manual_seed(1)
    for tensor in checkpoint.tensors.values():
        if tensor.ndim == 2:
            tensor.mul_(3)
        else:
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=noise))
    return checkpoint


CHECKPOINT = lively()
SPACE = from_backbone(CONFIG, context=20, widths=(24,), ffn_step=16, window=8, sharing=True)
PLAIN = Supernet(SPACE, tensors=space_tensors(CHECKPOINT))
STATISTICS: Statistics = gather(PLAIN, largest(SPACE), TEXT, cross_entropy)
ORDERS = rank(CONFIG, PLAIN, STATISTICS)
SORTED = Backbone(CHECKPOINT, SPACE, ORDERS)
REFITTED = Backbone(CHECKPOINT, SPACE, ORDERS, STATISTICS.gram, STATISTICS.influence)
BACKBONES = {"plain": Backbone(CHECKPOINT, SPACE), "sorted": SORTED, "refitted": REFITTED}

architectures = st.integers(0, 2**32 - 1).map(lambda seed: SPACE.sample(seed))


def changed(space: SearchSpace, **values: object) -> Architecture:
    """The backbone with one choice changed in every layer."""
    found = {path: largest(space).get(path, choice.values[0]) for path, choice in space.choices.items()}
    for path in found:
        found[path] = values.get(path.split(".")[-1], found[path])  # type: ignore[assignment]
    return space.architecture(found)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_largest_architecture_is_the_pretrained_model(name: str) -> None:
    backbone = BACKBONES[name]
    with torch.no_grad():
        expected = ReferenceLlama.load(CHECKPOINT)(IDS)
        torch.testing.assert_close(backbone.supernet.activate(backbone.largest)(IDS), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(backbone.inherit(backbone.largest)(IDS), expected, rtol=1e-4, atol=1e-5)


def test_the_orders_change_something() -> None:
    assert ORDERS.channels is not None
    assert ORDERS.channels.tolist() != list(range(CONFIG.d_model))
    assert any(o.tolist() != list(range(CONFIG.ffn)) for o in ORDERS.ffn.values())
    for order, size in [(ORDERS.channels, CONFIG.d_model), (ORDERS.ffn[0], CONFIG.ffn), (ORDERS.kv[0], KV)]:
        assert sorted(order.tolist()) == list(range(size)), "an order is a permutation"


@given(architectures, st.sampled_from(sorted(BACKBONES)))
def test_extraction_equals_activation_to_the_bit(architecture: Architecture, name: str) -> None:
    backbone = BACKBONES[name]
    active, alone = backbone.supernet.activate(architecture), backbone.inherit(architecture)
    with torch.no_grad():
        assert torch.equal(active(IDS), alone(IDS))
    assert sum(p.numel() for p in alone.parameters()) == SPACE.cost(architecture, "params")


@given(architectures, st.sampled_from(sorted(BACKBONES)))
def test_relaxed_at_one_hot_equals_activation(architecture: Architecture, name: str) -> None:
    backbone = BACKBONES[name]
    with torch.no_grad():
        relaxed = RelaxedSupernet(backbone.supernet)(one_hot(SPACE, architecture), IDS)
        expected = backbone.supernet.activate(architecture)(IDS)
    torch.testing.assert_close(relaxed, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_a_mixture_of_sizes_lies_between_them_and_has_a_gradient() -> None:
    weights = one_hot(SPACE, changed(SPACE, ffn=32, kv_heads=2))
    weights["layers.0.ffn"] = torch.full_like(weights["layers.0.ffn"], 1 / len(weights["layers.0.ffn"]))
    weights = {path: w.requires_grad_() for path, w in weights.items()}
    logits = RelaxedSupernet(REFITTED.supernet)(weights, IDS)
    cross_entropy(logits[:, :-1], IDS[:, 1:]).backward()
    for path in ("layers.0.ffn", "layers.0.kv_heads", "layers.0.group", "layers.0.attn", "layers.0.runs", "width"):
        gradient = weights[path].grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0, path


def zeroed(dead_heads: dict[int, list[int]], dead_units: dict[int, list[int]]) -> torch.Tensor:
    """The reference's logits with heads and feed-forward units taken out by zeros."""
    tensors = {name: tensor.clone() for name, tensor in CHECKPOINT.tensors.items()}
    for layer, heads in dead_heads.items():
        o = tensors[f"model.layers.{layer}.self_attn.o_proj.weight"].view(CONFIG.d_model, CONFIG.n_heads, HEAD)
        o[:, heads] = 0
    for layer, units in dead_units.items():
        tensors[f"model.layers.{layer}.mlp.down_proj.weight"][:, units] = 0
    with torch.no_grad():
        return ReferenceLlama.load(dataclasses.replace(CHECKPOINT, tensors=tensors))(IDS)


@pytest.mark.parametrize("kept", [1, 2])
def test_fewer_key_value_heads_are_the_backbone_without_the_least_important_ones(kept: int) -> None:
    dead = {i: [int(k) * GROUP + g for k in order[kept:] for g in range(GROUP)] for i, order in ORDERS.kv.items()}
    with torch.no_grad():
        found = SORTED.inherit(changed(SPACE, kv_heads=kept))(IDS)
    torch.testing.assert_close(found, zeroed(dead, {}), rtol=1e-4, atol=1e-5)


def test_smaller_groups_are_the_backbone_without_each_groups_least_important_heads() -> None:
    dead = {
        i: [int(k) * GROUP + int(g) for k, order in zip(ORDERS.kv[i], ORDERS.group[i], strict=True) for g in order[1:]]
        for i in ORDERS.kv
    }
    with torch.no_grad():
        found = SORTED.inherit(changed(SPACE, group=1))(IDS)
    torch.testing.assert_close(found, zeroed(dead, {}), rtol=1e-4, atol=1e-5)


@settings(max_examples=3)
@given(st.sampled_from([16, 32]))
def test_a_narrower_feed_forward_is_the_backbone_without_the_least_important_units(kept: int) -> None:
    dead = {i: order[kept:].tolist() for i, order in ORDERS.ffn.items()}
    with torch.no_grad():
        found = SORTED.inherit(changed(SPACE, ffn=kept))(IDS)
    torch.testing.assert_close(found, zeroed({}, dead), rtol=1e-4, atol=1e-5)


def test_a_dropped_layer_is_the_backbone_without_it() -> None:
    values = {path: largest(SPACE).get(path, c.values[0]) for path, c in SPACE.choices.items()}
    architecture = SPACE.architecture({**values, "layers.1.runs": 0})
    with torch.no_grad():
        found = SORTED.inherit(architecture)(IDS)
    expected = zeroed({1: list(range(CONFIG.n_heads))}, {1: list(range(CONFIG.ffn))})
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_refits_bring_a_pruned_layer_nearer_to_the_whole_one() -> None:
    """On the calibration text, with one layer pruned, so that its output is what the refit has minimised."""
    values = {path: largest(SPACE).get(path, c.values[0]) for path, c in SPACE.choices.items()}
    architecture = SPACE.architecture({**values, "layers.2.ffn": 16, "layers.2.kv_heads": 2})
    ids = torch.cat([batch[:, :-1] for batch in TEXT])
    with torch.no_grad():
        whole = SORTED.supernet.activate(SORTED.largest)(ids)
        plain, refitted = (b.inherit(architecture)(ids) for b in (SORTED, REFITTED))
    assert (refitted - whole).square().mean() < (plain - whole).square().mean()


def test_orders_given_by_hand_sort_heads_and_units() -> None:
    orders = Orders(
        channels=torch.arange(CONFIG.d_model).flip(0),
        kv={0: torch.tensor([2, 0, 1])},
        group={0: torch.tensor([[1, 0], [0, 1], [1, 0]])},
        ffn={0: torch.arange(CONFIG.ffn).flip(0)},
    )
    tensors = space_tensors(CHECKPOINT, orders)
    q = CHECKPOINT.tensors["model.layers.0.self_attn.q_proj.weight"].view(KV, GROUP, HEAD, CONFIG.d_model)
    assert torch.equal(tensors["layers.0.attn.shared", "q"][0, 0], q[2, 1].flip(-1))
    down = CHECKPOINT.tensors["model.layers.0.mlp.down_proj.weight"]
    assert torch.equal(tensors["layers.0.mlp", "down"], down.flip(0, 1))


def test_a_width_beyond_the_backbone_is_refused() -> None:
    with pytest.raises(SpaceError, match="64 is more than the backbone's 32"):
        from_backbone(CONFIG, widths=(64,))


def test_samples_of_the_space_are_pruned_backbones_of_every_kind() -> None:
    drawn = SPACE.sample_many(400, np.random.default_rng(0))
    kinds = {(a.get("layers.0.attn"), a.get("layers.0.runs")) for a in drawn}
    assert {(attn, runs) for attn in ("full", "swa", "skip") for runs in (1, 2)} | {(None, 0)} == kinds


def test_an_extracted_model_shares_no_memory_with_the_supernet_or_between_weights() -> None:
    alone = REFITTED.inherit(REFITTED.largest)
    held = {p.untyped_storage().data_ptr() for p in REFITTED.supernet.parameters()}
    own = [p.untyped_storage().data_ptr() for p in alone.parameters()]
    assert len(set(own)) == len(own)
    assert held.isdisjoint(own)
    assert all(p.is_contiguous() and p.data_ptr() % 64 == 0 for p in alone.parameters())
    with torch.no_grad():
        before = REFITTED.supernet.activate(REFITTED.largest)(IDS)
        for p in alone.parameters():
            p.zero_()
        assert torch.equal(REFITTED.supernet.activate(REFITTED.largest)(IDS), before)


def test_a_supernet_of_another_precision_is_extracted_in_it() -> None:
    supernet = Supernet(SPACE, tensors=space_tensors(CHECKPOINT)).to(torch.bfloat16)
    architecture = changed(SPACE, ffn=32, group=1)
    alone = supernet.extract(architecture)
    assert {p.dtype for p in alone.parameters()} == {torch.bfloat16}
    owner = alone.owner("layers.0.mlp").get_parameter("gate")
    assert torch.equal(owner, supernet.weights.owner("layers.0.mlp").get_parameter("gate")[:32])
