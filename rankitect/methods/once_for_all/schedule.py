"""What each step of a once-for-all training is for: which learning rate, and how much the subnets count.

Delayed epsilon-shrinking (arXiv 2407.06167) trains the largest network alone up to step t0, then lets the others in.
The loss of each of them has a weight beta(t), so that their effective learning rate beta(t) lr(t) rises linearly to
weight * lr(Tw) at step Tw, and then follows the schedule:

    beta(t) = 0                                                      t < t0
    beta(t) = weight * (t - t0 + 1) / (Tw - t0) * lr(Tw) / lr(t)     t0 <= t < Tw
    beta(t) = weight                                                 t >= Tw
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankitect.errors import ConfigError

if TYPE_CHECKING:
    from rankitect.methods.once_for_all.settings import Kind
    from rankitect.training.settings import OptimizerConfig

__all__ = ["Schedule", "Segment"]


@dataclass(frozen=True)
class Segment:
    """A part of a training with a rise and fall of the learning rate of its own.

    Attributes:
        start: Its first step.
        end: The first step after it.
        peak: Share of the peak learning rate.
        opened: How many phases of progressive shrinking are open.
    """

    start: int
    end: int
    peak: float = 1.0
    opened: int = 0


class Schedule:
    """Learning rates and weights of the steps of a once-for-all training; see the module.

    Args:
        kind: Which of the four.
        steps: Steps of the whole.
        optimizer: Peak rate, and how it falls in each segment.
        delay: Share of the steps that train the largest alone.
        ramp: Share of the steps over which the others come in (deps).
        weight: Of the loss of each of the others after that.
        restart: Share of the peak rate at which later segments begin.
        phases: Phases of progressive shrinking.

    Raises:
        ConfigError: The ramp (deps) ends after the last step, or at a rate of 0, so that nobody would come in.

    Attributes:
        switch: The first step, t0, that trains more than the largest; `steps` where none does.
        ramped: The first step, Tw, after the ramp.
        segments: Parts with a learning rate schedule of their own, in order.
    """

    def __init__(
        self,
        kind: Kind,
        steps: int,
        optimizer: OptimizerConfig,
        *,
        delay: float = 0.5,
        ramp: float = 0.0,
        weight: float = 1.0,
        restart: float = 1.0,
        phases: int = 0,
    ) -> None:
        self.steps, self._optimizer, self._weight = steps, optimizer, weight
        self.switch = 0 if kind == "sandwich" else round(delay * steps)
        self.ramped = self.switch + (round(ramp * steps) if kind == "deps" else 0)
        if self.switch < self.ramped:
            self._check_ramp(delay, ramp)
        self.ramped = max(self.switch, min(self.ramped, steps))  # each share was rounded on its own
        self.segments = self._segments(kind, restart, phases)

    def _check_ramp(self, delay: float, ramp: float) -> None:
        if self.switch < self.steps and delay + ramp > 1 + 1e-9:
            raise ConfigError(
                f"controller.delay={delay:g} and controller.ramp={ramp:g} are shares of all steps, and together more "
                "than 1: the others would still be on their way in when training ends. Lower either of them."
            )
        falls = self._optimizer.schedule != "constant" and not self._optimizer.final_lr
        if self._weight and falls and self.switch < self.steps <= self.ramped:
            raise ConfigError(
                f"controller.optimizer.final_lr=0 with controller.delay={delay:g} and controller.ramp={ramp:g}: the "
                "others come in at the rate of the last step, and that is 0. Lower controller.ramp, or set a final_lr "
                "above 0."
            )

    def _segments(self, kind: Kind, restart: float, phases: int) -> list[Segment]:
        if kind in ("deps", "sandwich"):  # one rise and fall for all steps, whoever they train
            return [Segment(0, self.steps)]
        first = [Segment(0, self.switch)] if self.switch else []
        later = restart if first else 1.0
        left, count = self.steps - self.switch, max(1, phases if kind == "progressive" else 1)
        ends = [self.switch + left * i // count for i in range(count + 1)]
        return first + [
            Segment(ends[i], ends[i + 1], later, min(i + 1, phases)) for i in range(count) if ends[i + 1] > ends[i]
        ]

    def segment(self, step: int) -> Segment:
        """The segment of a step."""
        return next((s for s in self.segments if step < s.end), self.segments[-1])

    def lr(self, step: int) -> float:
        """The learning rate of a step."""
        from rankitect.training.optimizer import learning_rate

        own = self.segment(step)
        length = own.end - own.start
        config = self._optimizer.model_copy(update={"warmup": min(self._optimizer.warmup, length)})
        return own.peak * learning_rate(config, step - own.start, length)

    def weight(self, step: int) -> float:
        """The weight of the loss of each architecture but the largest; 0: the largest is trained alone."""
        if step < self.switch:
            return 0.0
        if step >= self.ramped:
            return self._weight
        risen = (step - self.switch + 1) / (self.ramped - self.switch)
        return self._weight * risen * self.lr(self.ramped) / self.lr(step)
