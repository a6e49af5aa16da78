"""The policy of a search by REINFORCE: independent probabilities for each choice, learnt from rewards old and new."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rankitect.graph import Architecture, ChoiceSpace
    from rankitect.methods.cost_target import CostTarget

__all__ = ["Policy", "Record", "advantages"]


@dataclass(frozen=True)
class Record:
    """An architecture that was drawn, and what came of it.

    Attributes:
        architecture: What was drawn.
        target: The cost target that it was drawn for; None without one.
        price: The price of cost at which the policy met that target.
        reward: Higher is better.
        chance: log probability of its live choices when it was drawn.
    """

    architecture: Architecture
    target: float | None
    price: float
    reward: float
    chance: float

    def to_data(self) -> list[Any]:
        """Plain data for a checkpoint."""
        return [self.architecture.to_data()["choices"], self.target, self.price, self.reward, self.chance]

    @classmethod
    def from_data(cls, space: ChoiceSpace, data: Sequence[Any]) -> Record:
        """The inverse of `to_data`."""
        choices, target, price, reward, chance = data
        return cls(space.architecture(choices), target, float(price), float(reward), float(chance))


def advantages(records: Sequence[Record], memory: Sequence[Record]) -> np.ndarray:
    """How much better each record did than is usual at its cost target, in standard deviations.

    What is usual is a straight line over targets through the rewards in memory: a larger model is expected to do
    better.

    Args:
        records: Records of which memory holds some or all.
        memory: What was seen so far.

    Returns:
        float64 [records].
    """
    rewards = np.asarray([r.reward for r in memory])
    targets = np.asarray([0.0 if r.target is None else r.target for r in memory])
    # A line through fewer rewards, or through one target alone, would fit their noise.
    sloped = len(memory) >= 4 and float(np.ptp(targets)) > 1e-9
    line = np.polyfit(targets, rewards, 1) if sloped else np.asarray([0.0, rewards.mean()])
    spread = float((rewards - np.polyval(line, targets)).std())
    at = np.asarray([0.0 if r.target is None else r.target for r in records])
    standardised: np.ndarray = (np.asarray([r.reward for r in records]) - np.polyval(line, at)) / max(spread, 1e-12)
    return np.clip(standardised, -3.0, 3.0)


class Policy:
    """A softmax over the values of each choice, tilted by a price of cost at which the expected cost is a target.

    The gradient of an architecture's log probability with respect to the logits of a live choice is (one-hot of its
    value - probabilities); choices that are not live had no part in the result.

    Args:
        space: The space.
        cost: How the cost target is met; None for no target.
        clip: Largest importance weight of a record that an earlier policy drew.
    """

    def __init__(self, space: ChoiceSpace, cost: CostTarget | None, clip: float) -> None:
        import torch

        self.space, self._cost, self._clip = space, cost, clip
        self.logits = {p: torch.zeros(len(c.values), dtype=torch.float64) for p, c in space.choices.items()}

    def price(self, target: float | None) -> float:
        """The price of cost, in logits, at which the expected cost is a target now; 0 without a target."""
        return 0.0 if self._cost is None or target is None else self._cost.price(self.logits, target, 1.0)

    def chances(self, price: float = 0.0) -> dict[str, np.ndarray]:
        """Probabilities of the values of each choice at a price of cost."""
        return self._priced()(price)

    def _priced(self) -> Callable[[float], dict[str, np.ndarray]]:
        """What `chances` gives, as a function, for as long as the logits stay."""
        from rankitect.methods.cost_target import Softmaxes

        if self._cost is None:
            chances = Softmaxes(self.logits).at()
            return lambda price: chances
        tilted = self._cost.priced(self.logits)
        return lambda price: tilted(price, 1.0)

    def draw(self, chances: Mapping[str, np.ndarray], rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Positions of values for every choice, [n] each; rules are not checked."""
        # Inverse transform sampling for all choices at once: each value owns a part of [0, 1), here by its upper end.
        ends = np.ones((len(chances), max(map(len, chances.values()), default=1)))
        for row, chance in zip(ends, chances.values(), strict=True):
            np.cumsum(chance[:-1], out=row[: len(chance) - 1])
        drawn = (ends[:, :, None] <= rng.random((len(chances), 1, n))).sum(1)
        return dict(zip(chances, drawn, strict=True))

    def log_chance(self, architecture: Architecture, chances: Mapping[str, np.ndarray]) -> float:
        """log probability of the live choices of an architecture."""
        return sum(
            math.log(max(float(chances[p][self.space.choices[p].position(v)]), 1e-12))
            for p, v in architecture.choices.items()
        )

    def learn(self, records: Sequence[Record], scores: np.ndarray, lr: float) -> list[float]:
        """One step of policy gradient on some records, new or old.

        A record counts by min(clip, probability now / probability when it was drawn), so that rewards are used again
        where the policy has not moved far.

        Args:
            records: What was drawn.
            scores: Advantage of each.
            lr: Size of the step, in logits for an advantage of one standard deviation.

        Returns:
            The weight of each record.
        """
        steps = {p: np.zeros(len(x)) for p, x in self.logits.items()}
        weights, priced = [], self._priced()
        for record, score in zip(records, scores, strict=True):
            chances = priced(record.price)
            # The policy has moved since the draw: weigh by the ratio of probabilities, clipped against large variance.
            ratio = self.log_chance(record.architecture, chances) - record.chance
            weights.append(min(self._clip, math.exp(min(ratio, 50.0))))
            for path, value in record.architecture.choices.items():
                slope = -chances[path]
                slope[self.space.choices[path].position(value)] += 1.0
                steps[path] += weights[-1] * float(score) * slope
        for path, step in steps.items():
            # On a scale of real numbers a value also speaks for those near to it: an ascent in smoothed logits.
            nearness = self.space.choices[path].nearness
            step = step if nearness is None else nearness @ step
            self.logits[path].numpy()[:] += lr * step / max(1, len(records))
        return weights
