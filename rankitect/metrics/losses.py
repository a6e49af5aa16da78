"""Losses over a large vocabulary that read the logits once and hold one copy of their size, the gradient.

Plain PyTorch keeps several [tokens, vocabulary] arrays (log-softmax, its gradient, the target's probabilities). Here
the value and the gradient with respect to the logits are found together, a few rows at a time, so that a row is still
in the processor's cache when it is read again. Second derivatives are not available.

Shapes: B batch, T positions, N tokens (any leading dimensions), V vocabulary, K kept teacher logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "SparseTargets",
    "cross_entropy",
    "kl_divergence",
    "sampled_cross_entropy",
    "sparse_kl_divergence",
    "token_nats",
    "top_targets",
]

_ROWS = 64  # small enough to stay in cache, large enough that threads seldom wait for each other
_ROWS_ELSEWHERE = 2048  # on an accelerator, where every operation is a message
_TOKENS = 1024  # 200 MB of logits for a vocabulary of 49152
_TOKENS_ELSEWHERE = 4096  # enough work for an accelerator in each of its many short operations
_LEAST = 1e-6  # floor of the student's tail mass; its error in float32 is of this size


@dataclass(frozen=True)
class SparseTargets:
    """A distribution over the vocabulary of which only the K likeliest tokens are known one by one.

    Attributes:
        ids: token ids, [..., K] int64. An id may come twice in a row only where the tail is 0.
        probs: their weights, [..., K] float32.
        tail: probability of all other tokens together, [...] float32; with `probs` it sums to 1.
        entropy: of the distribution that is stood for, nats, [...] float32.
    """

    ids: Tensor
    probs: Tensor
    tail: Tensor
    entropy: Tensor


def top_targets(logits: Tensor, k: int, *, samples: int = 0, temperature: float = 1.0, seed: int = 0) -> SparseTargets:
    """The K likeliest tokens of softmax(logits / temperature), and the others either as one mass or as a sample.

    With samples, the expected gradient of the divergence is that of the whole vocabulary; with one mass, a student is
    free to spread it over the wrong tokens. The sample is systematic (evenly spaced on the others' cumulative
    probability, in the order of their ids), which varies less than independent draws.

    Args:
        logits: [..., V] float32.
        k: how many of the likeliest tokens to keep; all of them when V is smaller.
        samples: how many of the others to draw at each position, S; each weighs 1 / S of their mass. 0 keeps the mass.
        temperature: above 1 flattens the distribution.
        seed: of the sample.

    Returns:
        Ids and probs [..., K + S].
    """
    logits = _wide(logits)
    log_p = (logits if temperature == 1.0 else logits / temperature).log_softmax(-1)
    kept, ids = torch.topk(log_p, min(k, logits.shape[-1]), dim=-1)
    probs = kept.exp()
    tail = (1.0 - probs.sum(-1)).clamp_min(0.0)
    if not samples or k >= logits.shape[-1]:
        return SparseTargets(ids, probs, tail, -torch.xlogy(probs, probs).sum(-1) - torch.xlogy(tail, tail))
    p = log_p.exp()
    entropy = -(p * log_p).sum(-1)
    rest = p.scatter_(-1, ids, 0.0).to(_widest(p.device)).cumsum(-1)
    draws = torch.rand(tail.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)[..., None]
    points = (draws.to(rest.device, rest.dtype) + torch.arange(samples, device=rest.device)) / samples * rest[..., -1:]
    drawn = torch.searchsorted(rest, points, right=True).clamp_max(logits.shape[-1] - 1)
    weights = (tail / samples)[..., None].expand(*tail.shape, samples)
    return SparseTargets(torch.cat([ids, drawn], -1), torch.cat([probs, weights], -1), torch.zeros_like(tail), entropy)


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each target token, in nats, without gradient and without a copy of the logits.

    Args:
        logits: [..., V] float32.
        targets: [...] int64.

    Returns:
        [...] float32.
    """
    flat, wanted = logits.detach().flatten(0, -2), targets.flatten()
    nats, size = torch.empty(len(flat), dtype=torch.float32, device=flat.device), rows_at_a_time(flat.device)
    for start in range(0, len(flat), size):
        rows = flat[start : start + size].float()
        picked = rows.gather(1, wanted[start : start + size, None])[:, 0]
        nats[start : start + size] = torch.logsumexp(rows, dim=1) - picked
    return nats.view(targets.shape)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over all tokens, in nats.

    Args:
        logits: [..., V] float32.
        targets: [...] int64.
    """
    none = torch.zeros(targets.numel(), device=logits.device)
    return _sparse(logits, SparseTargets(targets.reshape(-1, 1), (none + 1.0)[:, None], none, none), None, 0.0)


def sparse_kl_divergence(
    logits: Tensor,
    teacher: SparseTargets,
    *,
    targets: Tensor | None = None,
    ce_weight: float = 0.0,
    temperature: float = 1.0,
) -> Tensor:
    """Mean KL(teacher || student) over the teacher's kept tokens and one bucket for all others, in nats.

    Merging the others into one bucket makes it a lower bound of the full KL; with samples for the others it is an
    unbiased estimate; with K = V it is the full KL.

    Args:
        logits: the student's, [..., V] float32.
        teacher: made at the same temperature, leading dimensions as the logits.
        targets: the text's own next tokens, [...] int64; needed where `ce_weight` is not 0.
        ce_weight: weight of the cross-entropy (always at temperature 1) that is added.
        temperature: divides the student's logits; the KL is multiplied by its square, which keeps the gradient's size.
    """
    tokens = teacher.tail.numel()
    flat = SparseTargets(
        teacher.ids.reshape(tokens, -1),
        teacher.probs.reshape(tokens, -1),
        teacher.tail.reshape(tokens),
        teacher.entropy.reshape(tokens),
    )
    if ce_weight and targets is None:
        raise ValueError("ce_weight needs targets")
    labels = targets.reshape(-1) if ce_weight and targets is not None else None
    if temperature == 1.0:
        return _sparse(logits, flat, labels, ce_weight)
    loss = _sparse(logits / temperature, flat, None, 0.0) * temperature**2
    return loss if targets is None or not ce_weight else loss + ce_weight * cross_entropy(logits, targets)


def kl_divergence(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean KL(teacher || student) over the whole vocabulary, in nats.

    Args:
        logits: the student's, [..., V] float32.
        teacher_logits: [..., V] float32, without gradient.
    """
    loss: Tensor = _DenseKL.apply(_wide(logits), _wide(teacher_logits))
    return loss


def _sparse(logits: Tensor, teacher: SparseTargets, labels: Tensor | None, weight: float) -> Tensor:
    loss: Tensor = _SparseKL.apply(_wide(logits), teacher.ids, teacher.probs, teacher.tail, labels, weight)
    return loss - teacher.entropy.mean()


def rows_at_a_time(device: torch.device) -> int:
    """Rows of logits that are read at a time on a device."""
    return _ROWS if device.type == "cpu" else _ROWS_ELSEWHERE


def tokens_at_a_time(device: torch.device) -> int:
    """About how many tokens go forward at a time on a device, where nothing is trained."""
    return _TOKENS if device.type == "cpu" else _TOKENS_ELSEWHERE


def _wide(logits: Tensor) -> Tensor:
    """Logits in float32 where they are in less, as in a model that computes in bfloat16."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _widest(device: torch.device) -> torch.dtype:
    """What sums are made in: Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class _SparseKL(torch.autograd.Function):
    """Cross-entropy between the targets and the student, value and gradient in one pass.

    With q the student's softmax, p and t the teacher's kept probabilities and tail, and r the student's tail:
    dH/dz_j = q_j - p_j for a kept j, and q_j (1 - t / r) for any other. A label is the case K = 1, p = 1, t = 0.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, ids: Tensor, probs: Tensor, tail: Tensor, labels: Tensor | None, weight: float
    ) -> Tensor:
        flat = logits.detach().flatten(0, -2)
        wanted, size = ctx.needs_input_grad[0], rows_at_a_time(flat.device)
        grad = torch.empty_like(flat, memory_format=torch.contiguous_format) if wanted else None
        scratch = None if wanted else flat.new_empty(min(size, len(flat)), flat.shape[1])
        loss = torch.zeros((), dtype=_widest(flat.device), device=flat.device)
        for start in range(0, len(flat), size):
            part = slice(start, start + size)
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
                share = (t / rest)[:, None]
                exps.mul_((1.0 - share + weight) / sums)
                exps.scatter_add_(1, kept, share * q - p)
                if labels is not None:
                    exps.scatter_add_(1, own, torch.full_like(log_total, -weight))
        ctx.gradient, ctx.shape = grad, logits.shape
        return (loss / max(len(flat), 1)).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        return _scaled(ctx, grads[0]), None, None, None, None, None


class _DenseKL(torch.autograd.Function):
    """Value and gradient (q - p) in one pass."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        flat, teacher = logits.detach().flatten(0, -2), teacher_logits.flatten(0, -2)
        grad = torch.empty_like(flat, memory_format=torch.contiguous_format) if ctx.needs_input_grad[0] else None
        loss, size = torch.zeros((), dtype=_widest(flat.device), device=flat.device), rows_at_a_time(flat.device)
        for start in range(0, len(flat), size):
            part = slice(start, start + size)
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


def sampled_cross_entropy(seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy with labels drawn from the model itself: its gradients give the Fisher information."""
    generator = torch.Generator().manual_seed(seed)

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        # Drawn on the CPU wherever the model is, so that the labels are the same.
        chances = logits.detach().float().softmax(-1).flatten(0, 1).cpu()
        drawn = torch.multinomial(chances, 1, generator=generator).view(targets.shape).to(targets.device)
        return cross_entropy(logits, drawn)

    return loss
