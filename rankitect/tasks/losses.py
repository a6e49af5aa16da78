"""Losses over a large vocabulary that read the logits once and hold one copy of their size, the gradient.

Plain PyTorch keeps several [tokens, vocabulary] arrays (log-softmax, its gradient, the target's probabilities). Here
the value and the gradient with respect to the logits are found together, a few rows at a time, so that a row is still
in the processor's cache when it is read again. Second derivatives are not available.

Shapes: B batch, T positions, N tokens (any leading dimensions), V vocabulary, K kept teacher logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["SparseTargets", "cross_entropy", "kl_divergence", "sparse_kl_divergence", "token_nats", "top_targets"]

_ROWS = 64  # small enough to stay in cache, large enough that threads seldom wait for each other
_LEAST = 1e-6  # floor of the student's tail mass; its error in float32 is of this size


@dataclass(frozen=True)
class SparseTargets:
    """A distribution over the vocabulary of which only the K likeliest tokens are known one by one.

    Attributes:
        ids: token ids, [..., K] int64, no id twice in a row.
        probs: their probabilities, [..., K] float32.
        tail: probability of all other tokens together, [...] float32.
    """

    ids: Tensor
    probs: Tensor
    tail: Tensor


def top_targets(logits: Tensor, k: int, temperature: float = 1.0) -> SparseTargets:
    """The K likeliest tokens of softmax(logits / temperature) and the mass of the others.

    Args:
        logits: [..., V] float32.
        k: how many tokens to keep; all of them when V is smaller.
        temperature: above 1 flattens the distribution.
    """
    values, ids = torch.topk(logits, min(k, logits.shape[-1]), dim=-1)
    total = torch.logsumexp(logits if temperature == 1.0 else logits / temperature, dim=-1, keepdim=True)
    probs = torch.exp(values / temperature - total)
    return SparseTargets(ids, probs, (1.0 - probs.sum(-1)).clamp_min(0.0))


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each target token, in nats, without gradient and without a copy of the logits.

    Args:
        logits: [..., V] float32.
        targets: [...] int64.

    Returns:
        [...] float32.
    """
    flat, wanted = logits.detach().flatten(0, -2), targets.flatten()
    nats = torch.empty(len(flat), dtype=torch.float32, device=flat.device)
    for start in range(0, len(flat), _ROWS):
        rows = flat[start : start + _ROWS].float()
        picked = rows.gather(1, wanted[start : start + _ROWS, None])[:, 0]
        nats[start : start + _ROWS] = torch.logsumexp(rows, dim=1) - picked
    return nats.view(targets.shape)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over all tokens, in nats.

    Args:
        logits: [..., V] float32.
        targets: [...] int64.
    """
    one, none = (torch.full((targets.numel(),), value, device=logits.device) for value in (1.0, 0.0))
    return _sparse(logits, targets.reshape(-1, 1), one[:, None], none, None, 0.0)


def sparse_kl_divergence(
    logits: Tensor,
    teacher: SparseTargets,
    *,
    targets: Tensor | None = None,
    ce_weight: float = 0.0,
    temperature: float = 1.0,
) -> Tensor:
    """Mean KL(teacher || student) over the K kept tokens and one bucket for all others, in nats.

    Merging the others into one bucket makes it a lower bound of the full KL; the two are equal when K = V.

    Args:
        logits: the student's, [..., V] float32.
        teacher: made at the same temperature, leading dimensions as the logits.
        targets: the text's own next tokens, [...] int64; needed where `ce_weight` is not 0.
        ce_weight: weight of the cross-entropy (always at temperature 1) that is added.
        temperature: divides the student's logits; the KL is multiplied by its square, which keeps the gradient's size.
    """
    tokens = teacher.tail.numel()
    ids, probs = teacher.ids.reshape(tokens, -1), teacher.probs.reshape(tokens, -1)
    tail = teacher.tail.reshape(tokens)
    if ce_weight and targets is None:
        raise ValueError("ce_weight needs targets")
    labels = targets.reshape(-1) if ce_weight and targets is not None else None
    if temperature == 1.0:
        return _sparse(logits, ids, probs, tail, labels, ce_weight)
    loss = _sparse(logits / temperature, ids, probs, tail, None, 0.0) * temperature**2
    return loss if targets is None or not ce_weight else loss + ce_weight * cross_entropy(logits, targets)


def kl_divergence(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean KL(teacher || student) over the whole vocabulary, in nats.

    Args:
        logits: the student's, [..., V] float32.
        teacher_logits: [..., V] float32, without gradient.
    """
    loss: Tensor = _DenseKL.apply(logits, teacher_logits)
    return loss


def _sparse(logits: Tensor, ids: Tensor, probs: Tensor, tail: Tensor, labels: Tensor | None, weight: float) -> Tensor:
    loss: Tensor = _SparseKL.apply(logits, ids, probs, tail, labels, weight)
    return loss


class _SparseKL(torch.autograd.Function):
    """Value and gradient in one pass.

    With q the student's softmax, p and t the teacher's kept probabilities and tail, and r the student's tail:
    dKL/dz_j = q_j - p_j for a kept j, and q_j (1 - t / r) for any other. Cross-entropy is the case K = 1, p = 1, t = 0.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, ids: Tensor, probs: Tensor, tail: Tensor, labels: Tensor | None, weight: float
    ) -> Tensor:
        flat = logits.detach().flatten(0, -2)
        wanted = ctx.needs_input_grad[0]
        grad = torch.empty_like(flat, memory_format=torch.contiguous_format) if wanted else None
        scratch = None if wanted else flat.new_empty(min(_ROWS, len(flat)), flat.shape[1])
        entropy = torch.xlogy(probs, probs).sum() + torch.xlogy(tail, tail).sum()  # of the targets, negated
        loss = torch.zeros((), dtype=torch.float64, device=flat.device)
        for start in range(0, len(flat), _ROWS):
            part = slice(start, start + _ROWS)
            z, p, t, kept = flat[part], probs[part], tail[part], ids[part]
            exps = grad[part] if grad is not None else scratch[: len(z)]  # type: ignore[index]
            top = z.amax(1, keepdim=True)
            torch.sub(z, top, out=exps)
            exps.exp_()
            sums = exps.sum(1, keepdim=True)
            log_total = top + sums.log()
            log_q = z.gather(1, kept) - log_total
            q = log_q.exp()
            rest = (1.0 - q.sum(1)).clamp_min(_LEAST)
            loss -= (p * log_q).sum() + (t * rest.log()).sum()
            if labels is not None:
                own = labels[part, None]
                loss -= weight * (z.gather(1, own) - log_total).sum()
            if grad is not None:
                exps.mul_((1.0 - t / rest + weight)[:, None] / sums)
                exps.scatter_(1, kept, (1.0 + weight) * q - p)
                if labels is not None:
                    exps.scatter_add_(1, own, torch.full_like(log_total, -weight))
        ctx.gradient, ctx.shape = grad, logits.shape
        return ((loss + entropy) / max(len(flat), 1)).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        return _scaled(ctx, grads[0]), None, None, None, None, None


class _DenseKL(torch.autograd.Function):
    """Value and gradient (q - p) in one pass."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        flat, teacher = logits.detach().flatten(0, -2), teacher_logits.flatten(0, -2)
        grad = torch.empty_like(flat, memory_format=torch.contiguous_format) if ctx.needs_input_grad[0] else None
        loss = torch.zeros((), dtype=torch.float64, device=flat.device)
        for start in range(0, len(flat), _ROWS):
            part = slice(start, start + _ROWS)
            log_q, log_p = flat[part].log_softmax(1), teacher[part].log_softmax(1)
            p = log_p.exp()
            loss += (p * (log_p - log_q)).sum()
            if grad is not None:
                torch.sub(log_q.exp_(), p, out=grad[part])
        ctx.gradient, ctx.shape = grad, logits.shape
        return (loss / max(len(flat), 1)).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _scaled(ctx, grads[0]), None


def _scaled(ctx: Any, outer: Tensor) -> Tensor:
    """The stored gradient of the sum, as that of the mean times the outer gradient; it is given away, not copied."""
    grad: Tensor = ctx.gradient
    if grad is None:
        raise RuntimeError("this loss can be differentiated once only")
    ctx.gradient = None
    return grad.mul_(outer / max(len(grad), 1)).view(ctx.shape)
