"""Scores of a differentiable search: probabilities at a cost target, sampled weights, discretisation, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rankitect.contracts import Spent
from rankitect.controllers.dnas_discrete import Discretisation
from rankitect.errors import SpaceError, TrainingError, brief
from rankitect.methods.cost_target import CostTarget

if TYPE_CHECKING:
    import torch

    from rankitect.contracts import Unit
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.methods.bounded_space import Limits

__all__ = ["Scores"]

PRIOR_STEPS = 20.0
"""How many steps' worth of gradients the prior counts as."""
MOST = 4.0
"""A multiplier stays within this factor of 1."""
OUTLIER = 2 * MOST
"""One measured multiplier counts as at most this, and at least 0. Slopes of a single batch have heavy tails: a
few of them can make a feed-forward layer look worthless (docs/adr/0007)."""
SHARP = 1e-4
"""Scale, in nats, at which probabilities are nearly choices."""


class Scores:
    """A score for each value of each choice, in nats; higher is better.

    A choice with a prior has the score -m E(value), where E is the prior's rise of the loss and m a multiplier that the
    search estimates from measured gradients; a choice without has free scores.

    Args:
        space: The space.
        cost: The cost that targets are of: a kind, or scope:kind.
        reference: The architecture whose cost is 1.
        rises: For some choices, how much the loss is expected to rise at each value.

    Attributes:
        step: Steps done.
        spent: What they cost.
    """

    def __init__(
        self, space: SearchSpace, cost: str, reference: Architecture, rises: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        import torch

        self.space, self.step, self.spent = space, 0, Spent()
        self._target = CostTarget(space, cost, reference)
        self._rises = {p: r.double() for p, r in (rises or {}).items()}
        self._free = {p: torch.zeros(len(c.values), dtype=torch.float64) for p, c in space.choices.items()}
        self._evidence = {p: torch.zeros(2, dtype=torch.float64) for p in self._rises}  # sums of w * m and of w

    @property
    def _scores(self) -> dict[str, torch.Tensor]:
        return {p: s - self.multiplier(p) * self._rises[p] if p in self._rises else s for p, s in self._free.items()}

    def multiplier(self, path: str) -> float:
        """The factor by which measured gradients scale a choice's prior: a running mean that starts at 1."""
        gathered, weight = self._evidence[path].tolist()
        return float(np.clip((PRIOR_STEPS + gathered) / (PRIOR_STEPS + weight), 1 / MOST, MOST))

    def chances(self, target: float, scale: float) -> dict[str, torch.Tensor]:
        """Probabilities of all values with the expected cost at `target` (of the largest architecture's)."""
        return self._target.chances(self._scores, target, scale)

    def sample(self, target: float, scale: float, rng: np.random.Generator, count: int = 1) -> list[Architecture]:
        """Feasible architectures drawn from the probabilities at a target.

        Raises:
            SpaceError: Too few of many draws met the rules.
        """
        chances = {p: c.numpy() / float(c.sum()) for p, c in self.chances(target, scale).items()}
        sampled: list[Architecture] = []
        for _ in range(1000 * count):
            values = {p: c.values[rng.choice(len(c.values), p=chances[p])] for p, c in self.space.choices.items()}
            try:
                sampled.append(self.space.architecture(values))
            except SpaceError:
                continue
            if len(sampled) == count:
                return sampled
        raise SpaceError(
            f"no feasible architecture in 1,000 draws at {target:.0%}: the rules forbid nearly everything likely"
        )

    def draw(
        self, target: float, scale: float, temperature: float, rng: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """Weights at a target, float32 leaves that want gradients.

        Gumbel-softmax samples, one-hot where there is a prior.
        """
        import torch

        weights = {}
        for path, chance in self.chances(target, scale).items():
            noise = torch.from_numpy(rng.gumbel(size=len(chance)))
            logits = chance.clamp_min(1e-12).log() + noise
            soft = (logits / temperature).softmax(0).float()
            hard = torch.zeros_like(soft).scatter_(0, logits.argmax(0, keepdim=True), 1.0)
            weights[path] = (hard if path in self._rises else soft).requires_grad_(True)
        return weights

    def move(self, weights: Mapping[str, torch.Tensor], lr: float) -> None:
        """Learn from the gradients that `weights` have.

        Free scores take a step of mirror descent; a choice with a prior gets one more estimate of its multiplier.
        """
        for path, weight in weights.items():
            if weight.grad is None or not bool(weight.grad.isfinite().all()):
                continue
            slope = weight.grad.double()
            if path not in self._rises:
                self._free[path] -= lr * (slope - slope.mean())
                continue
            measured = _multiplier(slope, self._rises[path], int(weight.argmax()))
            if measured is not None:
                self._evidence[path] += slope.new_tensor([min(max(measured, 0.0), OUTLIER), 1.0])
        self.step += 1

    def discretise(
        self, target: float, rng: np.random.Generator, least: float = 0.0, limits: Limits | None = None
    ) -> Architecture:
        """The architecture of the best total score at a target; see `dnas_discrete.Discretisation.at`."""
        return self.discretisation(limits).at(target, rng, self.chances(target, SHARP), least)

    def discretisation(self, limits: Limits | None = None) -> Discretisation:
        """How architectures are chosen by these scores, within bounds on other costs than the targets'."""
        others = {key: bounds for key, bounds in (limits or {}).items() if key != self._target.name}
        return Discretisation(self.space, self._target, self._scores, others)

    # --- checkpoints ------------------------------------------------------------------------------------------------
    def save(self, path: Path) -> None:
        """Write everything, atomically."""
        from rankitect.training.checkpoint import save_state

        tensors = {f"free|{p}": s for p, s in self._free.items()}
        tensors |= {f"rise|{p}": r for p, r in self._rises.items()}
        tensors |= {f"evidence|{p}": e for p, e in self._evidence.items()}
        tensors |= {f"marginal|{p}": m for p, m in self._target.marginal.items()}
        save_state(path, tensors, {"step": self.step, "spent": self.spent.to_dict()})

    @classmethod
    def load(cls, space: SearchSpace, cost: str, reference: Architecture, path: Path, unit: Unit) -> Scores | None:
        """Read a checkpoint; None where there is none.

        The unit is for checkpoints of earlier versions, which hold an amount of data alone.

        Raises:
            TrainingError: The checkpoint is damaged, or of another space.
        """
        from rankitect.training.checkpoint import load_state

        if not path.exists():
            return None
        tensors, state = load_state(path)
        scores = cls(space, cost, reference)
        marginal = scores._target.marginal
        parts = {"free": scores._free, "rise": scores._rises, "evidence": scores._evidence, "marginal": marginal}
        try:
            for key, tensor in tensors.items():
                part, _, choice = key.partition("|")
                if part != "evidence" and tensor.shape != (len(space.choices[choice].values),):
                    raise ValueError(f"{choice} has {list(tensor.shape)} values")
                parts[part][choice] = tensor
            if missing := space.choices.keys() - scores._free.keys():
                raise ValueError(f"there is no {min(missing)}")
            scores.step = int(state["step"])
            known = "spent" in state
            scores.spent = Spent.from_dict(state["spent"]) if known else Spent.training(state["tokens"], unit)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TrainingError(
                f"{brief(path)} does not fit this search ({brief(error, 100)}): delete the folder it is in, or choose "
                "another output_dir=."
            ) from error
        return scores


def _multiplier(slope: torch.Tensor, rises: torch.Tensor, drawn: int) -> float | None:
    """One estimate of m, by regression; None where no value is larger than the drawn one.

    The slope toward each larger value u than the drawn v estimates 2 m (E(u) - E(v)): the loss is quadratic in what was
    left out, and the refits of nested sizes leave residuals that are orthogonal to what the larger size adds.
    """
    foretold = 2 * (rises - rises[drawn])
    foretold = foretold.where(foretold < 0, foretold.new_zeros(()))
    strength = float(foretold.square().sum())
    return float(((slope - slope[drawn]) * foretold).sum()) / strength if strength > 0 else None
