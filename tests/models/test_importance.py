"""Importance: statistics are what they say, and what does nothing ranks last."""

from __future__ import annotations

import pytest
import torch

from rankitect.errors import SpaceError
from rankitect.metrics.losses import cross_entropy
from rankitect.models.backbone import largest, rank
from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig, random_checkpoint
from rankitect.models.importance import CRITERIA, Statistics, gather, unit_scores
from rankitect.models.pretrained import space_tensors
from rankitect.models.supernet import Supernet
from rankitect.search_spaces.mobile_llm import from_backbone

CONFIG = DecoderConfig(vocab=256, d_model=24, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=8, ffn=20, context=64)
DEAD_UNIT, DEAD_HEAD, IDENTITY_LAYER, DEAD_CHANNEL = 13, 2, 1, 5
TEXT = [torch.randint(0, CONFIG.vocab, (2, 17), generator=torch.Generator().manual_seed(i)) for i in range(4)]


def planted() -> DecoderCheckpoint:
    """A random model with a unit, a head, a layer and a channel that do nothing."""
    checkpoint = random_checkpoint(CONFIG, 0)
    t = checkpoint.tensors
    for tensor in t.values():
        if tensor.ndim == 2:
            tensor.mul_(3)
    for i in range(CONFIG.n_layers):
        t[f"model.layers.{i}.mlp.up_proj.weight"][DEAD_UNIT] = 0
        t[f"model.layers.{i}.self_attn.o_proj.weight"].view(-1, CONFIG.n_heads, CONFIG.head_dim)[:, DEAD_HEAD] = 0
        for name in ("input_layernorm", "post_attention_layernorm"):
            t[f"model.layers.{i}.{name}.weight"][DEAD_CHANNEL] = 0
    t["model.norm.weight"][DEAD_CHANNEL] = 0
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        t[f"model.layers.{IDENTITY_LAYER}.{name}.weight"].mul_(1e-3)
    return checkpoint


CHECKPOINT = planted()
SPACE = from_backbone(CONFIG, context=16, ffn_step=4)
PLAIN = Supernet(SPACE, tensors=space_tensors(CHECKPOINT))
FOUND: Statistics = gather(PLAIN, largest(SPACE), TEXT, cross_entropy)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_dead_unit_ranks_last(criterion: str) -> None:
    orders = rank(CONFIG, PLAIN, FOUND, criterion)
    assert [int(order[-1]) for order in orders.ffn.values()] == [DEAD_UNIT] * CONFIG.n_layers


@pytest.mark.parametrize("criterion", ["energy", "fisher", "taylor"])
def test_a_dead_head_ranks_last_in_its_group_and_its_group_last(criterion: str) -> None:
    orders = rank(CONFIG, PLAIN, FOUND, criterion)
    for i in (0, 2):
        at = orders.kv[i].tolist().index(DEAD_HEAD // 2)
        assert orders.group[i][at].tolist() == [1, 0]


def test_a_dead_channel_ranks_last() -> None:
    order = rank(CONFIG, PLAIN, FOUND).channels
    assert order is not None
    assert int(order[-1]) == DEAD_CHANNEL


def test_block_influence_of_a_layer_that_does_little_is_near_zero() -> None:
    influence = FOUND.influence
    assert list(influence) == [f"layers.{i}" for i in range(CONFIG.n_layers)]
    assert 0 <= influence[f"layers.{IDENTITY_LAYER}"] < 1e-3
    assert min(influence["layers.0"], influence["layers.2"]) > 10 * influence[f"layers.{IDENTITY_LAYER}"]


def test_second_moments_are_those_of_the_hidden_units() -> None:
    """Taken from a plain computation of the first layer's attention-free part."""
    key = ("layers.0.mlp", "down")
    gram = FOUND.gram[key]
    torch.testing.assert_close(gram, gram.T)
    assert torch.linalg.eigvalsh(gram.double()).min() > -1e-9
    assert gram[DEAD_UNIT].abs().max() == 0
    assert FOUND.tokens == sum(b[:, :-1].numel() for b in TEXT)
    halves = [gather(PLAIN, largest(SPACE), TEXT[:2]), gather(PLAIN, largest(SPACE), TEXT[2:])]
    torch.testing.assert_close((halves[0].gram[key] + halves[1].gram[key]) / 2, gram)


def test_taylor_is_the_first_order_change_of_the_loss() -> None:
    """Compared with a finite difference on one batch: a unit's readout scaled a little down."""
    key, step = ("layers.0.mlp", "down"), 1e-2
    found = gather(PLAIN, largest(SPACE), TEXT[:1], cross_entropy)
    unit = int(found.taylor[key].argmax())
    model = PLAIN.activate(largest(SPACE))
    down = PLAIN.weights.owner("layers.0.mlp").get_parameter("down")

    def total(scale: float) -> float:
        with torch.no_grad():
            before = down[:, unit].clone()
            down[:, unit] *= scale
            logits = model(TEXT[0][:, :-1]).double()
            down[:, unit] = before
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), TEXT[0][:, 1:].flatten(), reduction="sum"))

    difference = abs(total(1 + step) - total(1 - step)) / (2 * step)
    assert difference == pytest.approx(float(found.taylor[key][unit]), rel=0.05)


def test_gathering_leaves_the_model_as_it_was() -> None:
    before = {name: tensor.clone() for name, tensor in PLAIN.state_dict().items()}
    gather(PLAIN, largest(SPACE), TEXT[:1], cross_entropy)
    assert all(torch.equal(before[name], tensor) for name, tensor in PLAIN.state_dict().items())
    assert all(p.grad is None for p in PLAIN.parameters())


def test_no_text_is_an_error() -> None:
    with pytest.raises(SpaceError, match="no calibration text"):
        gather(PLAIN, largest(SPACE), [])


def test_an_unknown_criterion_and_missing_gradients_are_errors() -> None:
    key, down = ("layers.0.mlp", "down"), PLAIN.weights.owner("layers.0.mlp").get_parameter("down")
    with pytest.raises(SpaceError, match="'size' is unknown; allowed: energy, magnitude, fisher, taylor"):
        unit_scores(FOUND, key, down, "size")
    bare = gather(PLAIN, largest(SPACE), TEXT[:1])
    with pytest.raises(SpaceError, match="'fisher' needs gradients"):
        unit_scores(bare, key, down, "fisher")
