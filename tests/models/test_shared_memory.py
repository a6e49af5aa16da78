"""What a search holds once: a backbone's weights until training changes them, and refits without zeros."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankitect.errors import SpaceError
from rankitect.models.backbone import MOMENTS, REFITS, Backbone, largest, rank, refit_memory
from rankitect.models.checkpoints import DecoderConfig, random_checkpoint
from rankitect.models.importance import gather
from rankitect.models.pretrained import space_tensors
from rankitect.models.refit import Refit
from rankitect.models.refit_bank import RefitBank
from rankitect.models.relaxed import RelaxedSupernet
from rankitect.models.supernet import Supernet
from rankitect.search_spaces.mobile_llm import from_backbone

CONFIG = DecoderConfig(vocab=256, d_model=32, n_layers=2, n_heads=6, n_kv_heads=3, head_dim=8, ffn=48)
SPACE = from_backbone(CONFIG, context=16, ffn_step=16, window=8)
IDS = torch.randint(0, 256, (2, 17), generator=torch.Generator().manual_seed(0))


def calibrated() -> Backbone:
    checkpoint = random_checkpoint(CONFIG, 0)
    plain = Supernet(SPACE, tensors=space_tensors(checkpoint))
    statistics = gather(plain, largest(SPACE), [IDS] * 3)
    return Backbone(checkpoint, SPACE, rank(CONFIG, plain, statistics), statistics.gram)


def places(supernet: Supernet) -> dict[str, int]:
    """Where each weight's values are (asking for `data_ptr` would be taken for a wish to write)."""
    return {name: torch._C._data_address(weight.data) for name, weight in supernet.weights.named_parameters()}


def test_weights_for_a_search_are_the_teachers_until_they_change() -> None:
    teacher = calibrated().supernet
    whole, before = largest(SPACE), {n: w.detach().clone() for n, w in teacher.weights.named_parameters()}
    own = teacher.copy()
    assert torch.equal(own.activate(whole)(IDS), teacher.activate(whole)(IDS))
    assert places(own) == places(teacher), "reading copies nothing"

    path = next(p for p in SPACE.choices if p.endswith("layers.1.attn"))
    skipping = SPACE.architecture({**whole.choices, path: "skip"})
    optimizer = torch.optim.AdamW(own.parameters(), lr=0.1, weight_decay=0.0, fused=True)
    own.activate(skipping)(IDS).square().mean().backward()
    optimizer.step()
    apart = {name for name, place in places(own).items() if place != places(teacher)[name]}
    trained = {name for name, weight in own.weights.named_parameters() if weight.grad is not None}
    assert apart == trained, "what no step touched is still the teacher's"
    assert trained < before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.weights.named_parameters())


def test_a_checkpoint_shares_the_memory_of_the_model_that_calibrates() -> None:
    checkpoint, other = random_checkpoint(CONFIG, 0), random_checkpoint(CONFIG, 0)
    tensors = space_tensors(checkpoint, share=True)
    assert {t.data_ptr() for t in tensors.values()} == {t.data_ptr() for t in checkpoint.tensors.values()}
    assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in checkpoint.tensors.items())
    apart = space_tensors(other)
    assert not {t.data_ptr() for t in apart.values()} & {t.data_ptr() for t in other.tensors.values()}


@given(st.integers(0, 10**6), st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, unique=True))
def test_a_bank_mixes_as_rows_of_full_length_do(seed: int, sizes: list[tuple[int, int]]) -> None:
    torch.manual_seed(seed)
    full = torch.zeros(5, 3, 4)
    changes = {units: torch.randn(5, *units) for units in sizes}
    bank = RefitBank(full, sizes, changes.__getitem__)
    rows = torch.zeros(len(sizes), *full.shape)
    for row, (a, b) in zip(rows, sizes, strict=True):
        row[:, :a, :b] = changes[a, b]
    chances, again = (torch.rand(len(sizes), generator=torch.Generator().manual_seed(seed)) for _ in range(2))
    slope = torch.randn(full.shape)
    chances.requires_grad_(), again.requires_grad_()
    mixed, expected = bank.mixed(chances), (again @ rows.flatten(1)).view(full.shape)
    torch.testing.assert_close(mixed, expected)
    mixed.backward(slope), expected.backward(slope)
    torch.testing.assert_close(chances.grad, again.grad)
    assert all(torch.equal(bank.change(units), change) for units, change in changes.items())
    assert sum(cell.values.numel() for cell in bank._cells) == sum(change.numel() for change in changes.values())


def test_changes_are_the_same_before_and_after_all_are_made() -> None:
    torch.manual_seed(0)
    full, hidden = torch.randn(5, 8), torch.randn(50, 8)
    refit = Refit(full, hidden.T @ hidden / 50, [(n,) for n in range(1, 9)])
    alone = {n: refit.change((5, n)) for n in (3, 6)}
    error = refit.error((6,), torch.eye(5))
    refit.prepare()
    other = Refit(full, hidden.T @ hidden / 50, [(n,) for n in range(1, 9)])
    assert all(torch.equal(refit.change((5, n)), change) for n, change in alone.items())
    assert all(torch.equal(refit.change((4, n)), other.change((4, n))) for n in range(1, 8))
    assert error > 0
    with pytest.raises(SpaceError, match="let go of"):
        refit.error((6,), torch.eye(5))


def test_refits_take_what_is_estimated_before_there_are_any() -> None:
    backbone = calibrated()
    refits = [refit for holder in backbone.supernet.modules() for refit in _refits(holder)]
    estimate = refit_memory(CONFIG, SPACE)
    assert sum(refit._gram.nbytes for refit in refits) == estimate[MOMENTS]
    RelaxedSupernet(backbone.supernet)
    assert all(refit._gram is None for refit in refits)
    assert sum(cell.values.nbytes for refit in refits for cell in refit._bank._cells) == estimate[REFITS]


def _refits(module: torch.nn.Module) -> list[Refit]:
    return list(module.variants.values()) if "variants" in vars(module) else []
