"""Scores of a differentiable search: probabilities at a cost target, sampled weights, discretisation, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rankitect.contracts import Spent
from rankitect.errors import SpaceError, TrainingError, brief
from rankitect.methods.bounded_space import Limits, nearest_within, within
from rankitect.methods.cost_target import BISECTIONS, CostTarget

if TYPE_CHECKING:
    import torch

    from rankitect.contracts import Unit
    from rankitect.graph import Architecture, SearchSpace

__all__ = ["Scores"]

PRIOR_STEPS = 20.0
"""How many steps' worth of gradients the prior counts as."""
MOST = 4.0
"""A multiplier stays within this factor of 1."""
OUTLIER = 2 * MOST
"""One measured multiplier counts as at most this, and at least 0. Slopes of a single batch have heavy tails: a
few of them can make a feed-forward layer look worthless (docs/adr/0007)."""
DRAWS = 512
"""Feasible draws of which the best is taken where the best value of every choice is not feasible together."""
SPARE = 0.004
"""Share of the largest cost that is not worth spending."""
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
        """The architecture of the best total score whose cost is at most the target and near it, and at least `least`.

        The best value of each choice at a price of cost is taken, at the lowest price that meets the target. Where that
        breaks a bound on another cost, single changes follow that lose the least score for what they bring it nearer to
        all bounds; what is left of the target is then spent on the best single changes. Where a rule forbids the
        result, the best of many feasible draws is taken.

        Args:
            target: Of the reference's cost.
            rng: Decides the draws.
            least: The same, from below.
            limits: Bounds on other costs, as `SearchSpace.sample` takes them.

        Raises:
            SpaceError: No feasible architecture meets the target and the bounds.
        """
        others = {key: bounds for key, bounds in (limits or {}).items() if key != self._target.name}
        # Bisection for the lowest price of cost at which the best values together cost at most the target. A price
        # slightly below 0 breaks ties between equal scores in favour of the larger value.
        low, high = -1e-3, 1.0
        start = self.chances(target, SHARP)
        best_values = _BestValues(self.space, self._target, self._scores, start)
        while (hardened := best_values.at(high)) is not None and self._target.of(hardened) > target and high < 1e6:
            high *= 4
        best: Architecture | None = None
        for _ in range(2 * BISECTIONS):
            middle = (low + high) / 2
            hardened = best_values.at(middle)
            if hardened is not None and self._target.of(hardened) <= target:
                best, high = hardened, middle
            else:
                low = middle
        if best is not None and others:
            best = nearest_within(self.space, best, {**others, **self._bounds(0.0, target)}, self._score)
        if best is None:
            best = self._best_draw(0.0, target, rng, others)
        best = self._spend(best, target, others)
        return best if self._target.of(best) >= least else self._best_draw(least, target, rng, others)

    def _score(self, architecture: Architecture) -> float:
        columns, scores = self.space.encode([architecture]), self._scores
        return sum(float(scores[p][columns[p][0]]) for p in architecture.choices)

    def _bounds(self, least: float, target: float) -> Limits:
        return {self._target.name: (least * self._target.whole, target * self._target.whole)}

    def _best_draw(self, least: float, target: float, rng: np.random.Generator, others: Limits) -> Architecture:
        bounds = {**others, **self._bounds(least, target)}
        return max(self.space.sample_many(DRAWS, rng, **bounds), key=self._score)

    def _spend(self, architecture: Architecture, target: float, others: Limits) -> Architecture:
        current, score, cost = architecture, self._score(architecture), self._target.of(architecture)
        while target - cost > SPARE:
            better = []
            near = [a for a in self.space.neighbours(current) if within(self.space, a, others)]
            for other, total in zip(near, self._target.of_many(near), strict=True):
                gain, price = self._score(other) - score, total - cost
                if gain > 0 and cost + price <= target:
                    # The most gain for its cost comes first; fingerprints order equals the same way in every run.
                    better.append((gain / max(price, 1e-6), other.fingerprint, other))
            if not better:
                break
            current = max(better)[2]
            score, cost = self._score(current), self._target.of(current)
        return current

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


class _BestValues:
    """The best value of each choice at a price of cost, for many prices.

    Args:
        space: The space.
        target: Tells marginal costs, and remembers those of the last price that was asked for.
        scores: Of each value of each choice.
        start: Probabilities, for the first marginal costs.
    """

    def __init__(
        self,
        space: SearchSpace,
        target: CostTarget,
        scores: Mapping[str, torch.Tensor],
        start: Mapping[str, torch.Tensor],
    ) -> None:
        self._space, self._target = space, target
        self._paths = list(scores)
        self._scores = self._table(scores, -math.inf)
        target.remember(start)
        self._first = self._table(target.marginal, 0.0)
        self._marginal: dict[tuple[int, ...], tuple[dict[str, torch.Tensor], np.ndarray]] = {}
        self._architectures: dict[tuple[int, ...], Architecture | None] = {}

    def at(self, mu: float) -> Architecture | None:
        """The architecture at a price; None where a rule forbids it."""
        # Marginal costs depend on what the other choices are, and the values picked depend on marginal costs: iterate.
        marginal, picked = self._first, tuple[int, ...]()
        for step in range(3):
            if step:
                remembered, marginal = self._marginal_costs(picked)
                self._target.marginal.update(remembered)
            picked = tuple((self._scores - mu * marginal).argmax(1).tolist())
        if picked not in self._architectures:
            values = {p: self._space.choices[p].values[n] for p, n in zip(self._paths, picked, strict=True)}
            try:
                self._architectures[picked] = self._space.architecture(values)
            except SpaceError:
                self._architectures[picked] = None
        return self._architectures[picked]

    def _marginal_costs(self, picked: tuple[int, ...]) -> tuple[dict[str, torch.Tensor], np.ndarray]:
        if picked not in self._marginal:
            self._target.remember_values(dict(zip(self._paths, picked, strict=True)))
            self._marginal[picked] = dict(self._target.marginal), self._table(self._target.marginal, 0.0)
        return self._marginal[picked]

    def _table(self, vectors: Mapping[str, torch.Tensor], beyond: float) -> np.ndarray:
        """A row for each choice, filled up with `beyond`."""
        table = np.full((len(self._paths), max((len(vectors[p]) for p in self._paths), default=1)), beyond)
        for row, path in zip(table, self._paths, strict=True):
            row[: len(vectors[path])] = vectors[path].numpy()
        return table


def _multiplier(slope: torch.Tensor, rises: torch.Tensor, drawn: int) -> float | None:
    """One estimate of m, by regression; None where no value is larger than the drawn one.

    The slope toward each larger value u than the drawn v estimates 2 m (E(u) - E(v)): the loss is quadratic in what was
    left out, and the refits of nested sizes leave residuals that are orthogonal to what the larger size adds.
    """
    foretold = 2 * (rises - rises[drawn])
    foretold = foretold.where(foretold < 0, foretold.new_zeros(()))
    strength = float(foretold.square().sum())
    return float(((slope - slope[drawn]) * foretold).sum()) / strength if strength > 0 else None
