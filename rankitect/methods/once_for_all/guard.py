"""When a training of shared weights has collapsed, told by the loss of the largest architecture.

Published supernets collapse in mid-training, at rates at which a single network trains well: all architectures pull at
the same weights. A loss that is not a number is the optimiser's own concern (`GuardedOptimizer`); this is for losses
that are numbers, and stay high.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

__all__ = ["SpikeGuard"]

_NOISE = 6
"""Standard errors of a smoothed loss by which it must have risen as well."""


@dataclass
class SpikeGuard:
    """Follows a loss, smoothed over a window of steps.

    It has collapsed when the smoothed loss has lost `share` of all that was learnt: of the way from its level in the
    first window to its lowest. A rise within the noise of single steps is none.

    Attributes:
        share: Of the way down.
        window: Steps.
        seen: Steps since the last `restart`.
        first: Level at the very beginning.
        level: Smoothed loss.
        lowest: The least level since the last `restart`.
        variance: Of single losses around the level, smoothed likewise.
        calm: That variance when the level was lowest: a spike widens its own.
    """

    share: float
    window: int
    seen: int = 0
    first: float = math.nan
    level: float = 0.0
    lowest: float = math.inf
    variance: float = 0.0
    calm: float = 0.0

    def collapsed(self, loss: float) -> bool:
        """Take the loss of a step; whether training has collapsed.

        Args:
            loss: Of the largest architecture; one that is not finite counts for nothing.
        """
        if not math.isfinite(loss):
            return False
        self.seen += 1
        gain = max(1 / self.seen, 1 / self.window)
        off = loss - self.level
        self.level += gain * off
        if self.seen > 1:
            self.variance += gain * (off * off - self.variance)
        if self.seen < self.window:
            return False
        if math.isnan(self.first):
            self.first = self.level
        if self.level < self.lowest:
            self.lowest, self.calm = self.level, self.variance
        noise = _NOISE * math.sqrt(self.calm / self.window)
        return self.level - self.lowest > max(self.share * (self.first - self.lowest), noise, 1e-12)

    def restart(self) -> None:
        """Another level is the lowest from now on: what is trained, or how fast, has changed."""
        self.seen, self.level, self.lowest = 0, 0.0, math.inf
        self.variance = self.calm = 0.0

    def to_info(self) -> dict[str, Any]:
        """The state, for a checkpoint; None stands for what is not finite."""
        values = {field.name: vars(self)[field.name] for field in fields(self)}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> Self:
        """The inverse of `to_info`."""
        lacking: dict[str, Any] = {"first": math.nan, "lowest": math.inf}
        return cls(**{name: lacking[name] if value is None else value for name, value in info.items()})
