"""The fused losses equal the plain formulae in value and gradient."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from rankitect.metrics.losses import (
    SparseTargets,
    cross_entropy,
    kl_divergence,
    sparse_kl_divergence,
    token_nats,
    top_targets,
)


def pair(seed, tokens=7, vocab=23, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(2, tokens, vocab, generator=generator) * scale for _ in range(2))
    targets = torch.randint(0, vocab, (2, tokens), generator=generator)
    return student.requires_grad_(), teacher, targets


def value_and_gradient(loss, logits):
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.detach(), gradient


def assert_same(one, other, logits):
    (a, da), (b, db) = value_and_gradient(one, logits), value_and_gradient(other, logits)
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(da, db, atol=2e-5, rtol=1e-4)


def plain_kl(logits, teacher, temperature=1.0):
    log_p, log_q = (teacher / temperature).log_softmax(-1), (logits / temperature).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean() * temperature**2


def plain_sparse_kl(logits, targets):
    q = logits.softmax(-1)
    kept = q.gather(-1, targets.ids)
    tail = 1 - kept.sum(-1)
    inside = (targets.probs * (targets.probs.log() - kept.log())).sum(-1)
    return (inside + torch.xlogy(targets.tail, targets.tail) - targets.tail * tail.log()).mean()


@given(seed=st.integers(0, 10_000), tokens=st.sampled_from([1, 5, 40, 70]))
def test_cross_entropy_equals_torchs(seed, tokens):
    logits, _, targets = pair(seed, tokens)
    assert_same(cross_entropy(logits, targets), F.cross_entropy(logits.flatten(0, 1), targets.flatten()), logits)
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    torch.testing.assert_close(token_nats(logits, targets), nats.detach())


@given(seed=st.integers(0, 10_000))
def test_full_kl_equals_the_formula(seed):
    logits, teacher, _ = pair(seed, tokens=40)
    assert_same(kl_divergence(logits, teacher), plain_kl(logits, teacher), logits)


@given(seed=st.integers(0, 10_000), k=st.integers(1, 20), weight=st.sampled_from([0.0, 0.5]))
def test_sparse_kl_with_cross_entropy_equals_the_formula(seed, k, weight):
    logits, teacher, labels = pair(seed)
    targets = top_targets(teacher, k)
    plain = plain_sparse_kl(logits, targets) + weight * F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert_same(sparse_kl_divergence(logits, targets, targets=labels, ce_weight=weight), plain, logits)


@given(seed=st.integers(0, 10_000), temperature=st.sampled_from([1.0, 2.0]))
def test_sparse_kl_over_the_whole_vocabulary_is_the_full_kl(seed, temperature):
    logits, teacher, _ = pair(seed)
    targets = top_targets(teacher, 99, temperature=temperature)
    assert targets.tail.max() < 1e-5
    sparse = sparse_kl_divergence(logits, targets, temperature=temperature)
    assert_same(sparse, plain_kl(logits, teacher, temperature), logits)


@given(seed=st.integers(0, 10_000), k=st.integers(1, 22))
def test_sparse_kl_is_between_zero_and_the_full_kl_and_zero_at_the_teacher(seed, k):
    logits, teacher, _ = pair(seed)
    targets = top_targets(teacher, k)
    assert -1e-6 <= sparse_kl_divergence(logits, targets) <= kl_divergence(logits, teacher) + 1e-5
    own = teacher.clone().requires_grad_()
    value, gradient = value_and_gradient(sparse_kl_divergence(own, targets), own)
    assert value.abs() < 1e-5
    assert gradient.abs().max() < 1e-5


@given(seed=st.integers(0, 10_000), k=st.integers(1, 10))
def test_sampled_tail_gives_the_full_kl_and_its_gradient_on_average(seed, k):
    logits, teacher, _ = pair(seed, tokens=2)
    full, gradient = value_and_gradient(kl_divergence(logits, teacher), logits)
    found = [
        value_and_gradient(sparse_kl_divergence(logits, top_targets(teacher, k, samples=12, seed=draw)), logits)
        for draw in range(150)
    ]
    values, gradients = (torch.stack(part) for part in zip(*found, strict=True))
    assert abs(values.mean() - full) <= 5 * values.std() / 150**0.5 + 1e-4
    assert ((gradients.mean(0) - gradient).abs() <= 6 * gradients.std(0) / 150**0.5 + 1e-3).all()
    targets = top_targets(teacher, k, samples=12)
    torch.testing.assert_close(targets.probs.sum(-1), torch.ones(2, 2))
    assert torch.equal(targets.ids, top_targets(teacher, k, samples=12).ids)
    kept = torch.zeros_like(teacher, dtype=torch.bool).scatter_(-1, targets.ids[..., :k], True)
    assert not kept.gather(-1, targets.ids[..., k:]).any()


def test_outer_gradient_scales_and_no_gradient_is_computed_without_need():
    logits, teacher, labels = pair(0)
    once, thrice = (torch.autograd.grad(c * cross_entropy(logits, labels), logits)[0] for c in (1, 3))
    torch.testing.assert_close(3 * once, thrice)
    with torch.no_grad():
        assert not kl_divergence(logits, teacher).requires_grad
        assert torch.isfinite(sparse_kl_divergence(logits, top_targets(teacher, 3)))


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[[1000.0, -1000.0, 0.0, 3.0]]], requires_grad=True)
    targets = SparseTargets(
        torch.tensor([[[0]]]), torch.tensor([[[0.5]]]), torch.tensor([[0.5]]), torch.tensor([[0.0]])
    )
    value, gradient = value_and_gradient(sparse_kl_divergence(logits, targets), logits)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_cross_entropy_weight_without_targets_is_a_mistake():
    logits, teacher, _ = pair(0)
    with pytest.raises(ValueError, match="ce_weight needs targets"):
        sparse_kl_divergence(logits, top_targets(teacher, 3), ce_weight=1.0)
