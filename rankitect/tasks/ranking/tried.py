"""Trying a registered module on real rows, before a search relies on it: whatever it does, the answer is a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankitect.errors import BaselineError, short

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rankitect.data.ranking.batch import RankingBatch

__all__ = ["SIGNATURE", "TRIED_ROWS", "try_module"]

TRIED_ROWS = 64

SIGNATURE = (
    "a ranking module is called as module(numeric, ids), float32 [B, N] and int64 [B, S], and gives one logit a row, "
    "float [B] or [B, 1]"
)
_EXTREME = 1e3
"""Times its weights are multiplied: logits then leave the range from 0 to 1, and probabilities cannot."""
_LONGEST = 120
"""Characters of somebody else's message."""


def try_module(module: nn.Module, batch: RankingBatch, called: str, trained: bool) -> None:
    """Call a module on real rows, all at once and one alone, and look at what it gives.

    Args:
        module: The module; its weights are as before afterwards.
        batch: Some rows.
        called: What the user calls it, for messages.
        trained: Whether it comes with weights; else it must be possible to train it.

    Raises:
        BaselineError: It raises, gives no logit a row, something that is not finite, or probabilities; or it has no
            weights and cannot be trained.
    """
    import torch

    was_training = module.training
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = _called(module, batch, called)
            _called(module, batch.part(slice(0, 1)), called)
            if _within_one(logits) and _stays_within_one(module, batch, called):
                raise BaselineError(
                    f"{called} gives values from {float(logits.min()):.3g} to {float(logits.max()):.3g}, and never one "
                    "outside of 0 to 1: these are probabilities. Leave the last sigmoid out; it must give logits."
                )
        if not trained:
            _try_training(module.train(), batch, called)
    finally:
        module.train(was_training)


def _called(module: nn.Module, batch: RankingBatch, called: str) -> torch.Tensor:
    """The logits of some rows."""
    import torch

    try:
        logits = module(*batch.inputs)
    except Exception as error:  # whatever somebody else's code raises
        said = short(f"{type(error).__name__}: {' '.join(str(error).split())}", _LONGEST)
        raise BaselineError(
            f"{called} cannot be called on {len(batch)} rows ({said}): {SIGNATURE}; here N = {batch.numeric.shape[1]}, "
            f"S = {batch.ids.shape[1]}."
        ) from error
    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
        kind = f"a tensor of {logits.dtype}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise BaselineError(f"{called} gives {kind}: {SIGNATURE}.")
    if tuple(logits.shape) not in ((len(batch),), (len(batch), 1)):
        raise BaselineError(f"{called} gives {list(logits.shape)} for {len(batch)} rows: {SIGNATURE}.")
    if not bool(torch.isfinite(logits).all()):
        bad = int((~torch.isfinite(logits)).sum())
        raise BaselineError(f"{called} gives no finite number for {bad} of {len(batch)} rows. Are its weights whole?")
    return logits


def _within_one(logits: torch.Tensor) -> bool:
    return bool(((logits >= 0) & (logits <= 1)).all())


def _stays_within_one(module: nn.Module, batch: RankingBatch, called: str) -> bool:
    """Whether a module gives values from 0 to 1 whatever its weights are."""
    import torch

    weights = [p for p in module.parameters() if p.is_floating_point()]
    kept = [p.detach().clone() for p in weights]
    within = []
    try:
        for factor in (_EXTREME, -_EXTREME):
            for weight, value in zip(weights, kept, strict=True):
                weight.data.copy_(value * factor)
            values = module(*batch.inputs)
            within.append(_within_one(torch.nan_to_num(values, nan=2.0)))
    finally:
        for weight, value in zip(weights, kept, strict=True):
            weight.data.copy_(value)
    return all(within)


def _try_training(module: nn.Module, batch: RankingBatch, called: str) -> None:
    """Whether one step of training would reach a weight."""
    from rankitect.metrics.ranking import ranking_loss

    weights = [p for p in module.parameters() if p.requires_grad]
    if not weights:
        raise BaselineError(f"{called} has nothing to train and comes without weights: give weights=FILE.safetensors.")
    try:
        ranking_loss(module, batch).backward()
    except Exception as error:
        said = short(f"{type(error).__name__}: {' '.join(str(error).split())}", _LONGEST)
        raise BaselineError(f"{called} cannot be trained ({said}). Give its weights (weights=), or mend it.") from error
    reached = any(p.grad is not None for p in weights)
    module.zero_grad(set_to_none=True)
    if not reached:
        raise BaselineError(
            f"{called} cannot be trained: the loss reaches none of its weights. Give its weights (weights=)."
        )
