"""Shared weights that reward a policy while they are trained, with a baseline model trained beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankitect.methods.shared_weights import CoTraining, Paired

if TYPE_CHECKING:
    import torch

    from rankitect.contracts import SharesWeights, Spent
    from rankitect.graph import Architecture
    from rankitect.models.supernet import Supernet

__all__ = ["RewardedTraining", "paired_reward"]

WINDOW, ENOUGH = 64, 16
"""Steps back from which it is judged how closely the baseline's loss follows the architecture's, and the least number
of steps for that."""


def paired_reward(loss: float, beside: float, history: Sequence[Sequence[float]]) -> float:
    """How much better an architecture was than the baseline, after what the batch did to both has been taken out.

    The baseline's loss is its usual loss plus what the batch added. An architecture feels the batch less or more than
    the baseline does, so that part counts with the coefficient of least variance, as for a control variate (Greensmith
    et al., JMLR 5, 2004): the covariance of the two losses over the variance of the baseline's, over recent steps. With
    a coefficient of 1 the reward is the plain difference, which can be noisier than the loss alone.

    Args:
        loss: The architecture's loss on this batch.
        beside: The baseline's loss on this batch.
        history: Rows of the steps before: target, loss, loss of the baseline, ...
    """
    late = np.asarray([row[1:3] for row in history[-WINDOW:]])
    if len(late) < ENOUGH:
        return beside - loss
    usual, spread = float(late[:, 1].mean()), np.cov(late.T)
    felt = min(max(float(spread[0, 1] / spread[1, 1]), 0.0), 1.0) if spread[1, 1] > 0 else 1.0
    return usual - loss + felt * (beside - usual)


class RewardedTraining:
    """Trains a supernet on one architecture a step, and rewards the architecture with its loss before the step.

    Args:
        supernet: Trained in place.
        task: Gives the loss.
        lr: Peak learning rate.
        steps: Length of the schedule.
        baseline: An architecture that is trained beside the supernet, on the same batches; None for no baseline.

    Attributes:
        history: A row for each step: target, loss and, with a baseline, its loss and the reward.
    """

    def __init__(
        self, supernet: Supernet, task: SharesWeights, lr: float, steps: int, baseline: Architecture | None
    ) -> None:
        self._weights = CoTraining(supernet, task, lr, steps)
        self._baseline = None if baseline is None else Paired(supernet, baseline, task, lr, steps)
        self.history: list[list[float]] = []

    def step(self, architecture: Architecture, target: float | None, step: int) -> tuple[float, float, Spent]:
        """One step; the loss before it, the reward, and what the step cost.

        A step whose reward is not finite leaves no row in the history.
        """
        loss, spent = self._weights.step(architecture, step)
        row, reward = [target if target is not None else 0.0, loss], -loss
        if self._baseline is not None:
            beside, more = self._baseline.step(step)
            reward, spent = paired_reward(loss, beside, self.history), spent + more
            row += [beside, reward]
        if np.isfinite(reward):
            self.history.append(row)
        return loss, reward, spent

    def save(self, path: Path, final: bool, info: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Write a checkpoint; see `CoTraining.save` for the arguments."""
        baseline = self._baseline
        more = dict(tensors) if baseline is None else {**tensors, **baseline.tensors()}
        halvings = 0 if baseline is None else baseline.halvings
        self._weights.save(path, final, {**info, "history": self.history, "baseline_halvings": halvings}, more)

    def load(self, path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Go on from a checkpoint; its `info` and `tensors`."""
        info, tensors = self._weights.load(path)
        self.history = info["history"]
        if self._baseline is not None:
            self._baseline.load(tensors, info["baseline_halvings"])
        return info, tensors

    def close(self) -> None:
        """Give embedding tables back to the models; no step follows."""
        self._weights.close()
        if self._baseline is not None:
            self._baseline.close()
