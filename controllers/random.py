"""Random search: uniform over distinct architectures within the constraints, screened, the best of each size healed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from rankitect.contracts import Proposal
from rankitect.errors import ConfigError
from rankitect.methods.bounded_space import BoundedSpace, limits_of, main_cost
from rankitect.methods.objectives import Objectives
from rankitect.methods.staged import running_low

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts import Session, Trial
    from rankitect.graph import Architecture

__all__ = ["Random"]


class Random:
    """Draws `samples` architectures in each of `bands` equal parts of the constrained cost, screens them, and has the
    best of each part measured by the final evaluator. A part that holds fewer architectures gives what it has.

    The baseline that every method must beat at the same ledger (Li & Talwalkar, arXiv 1902.07638).
    """

    class Config(BaseModel):
        """Keys of `controller`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        samples: int = Field(8, ge=1, le=10**6, description="screened architectures in each band")
        bands: int = Field(6, ge=1, le=10**6, description="parts of the constrained cost, each giving one finalist")
        cost: str | None = Field(
            None, description="the constrained cost that is divided: a kind, or scope:kind; null: the first"
        )

    def __init__(
        self,
        config: Config,
        cost: str,
        space: Any,
        limits: dict[str, tuple[float, float]],
        seed: int,
        objectives: Objectives | None,
    ) -> None:
        self._config, self._cost, self._space, self._limits, self._seed = config, cost, space, limits, seed
        self._objectives, self._screen = objectives, objectives is not None
        self._asked, self._low = 0, False
        self._session: Session | None = None
        self._finals: set[Architecture] = set()
        self._best: dict[int, tuple[float, Architecture]] = {}
        self._seen: set[str] = set()
        self._used_up: set[int] = set()
        self._bands: dict[int, BoundedSpace] = {}

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Random:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The cost has no range that could be divided.
        """
        limits = limits_of(parts.task)
        cost = config.cost or main_cost(parts.task)
        if cost not in limits and (config.cost or limits):
            raise ConfigError(
                f"controller.cost is '{cost}', which no key of constraints bounds, so it cannot be divided. "
                f"Bounded: {', '.join(limits) or 'none'}."
            )
        objectives = Objectives.of(parts, "screen") if "screen" in parts.evaluators else None
        return cls(config, cost, parts.space, limits, parts.config.seed, objectives)

    def prepare(self, session: Session) -> None:
        """Keep the session, which knows what is left of the budget."""
        self._session = session

    def _draws(self) -> int:
        """How many architectures are drawn."""
        c = self._config
        # Decided once: a clock that passes the limit between two questions must not change the answer.
        self._low = self._low or (self._screen and running_low(self._session))
        return c.bands if not self._screen else 0 if self._low else c.samples * c.bands

    def waits(self) -> bool:
        """Before finalists are chosen, all screened ones must be known."""
        return self._screen and not self._finals and self._asked >= self._draws()

    def ask(self, n: int) -> list[Proposal]:
        """Screens band after band, as long as the budget allows, then one finalist of each band."""
        c = self._config
        draws = self._draws()
        by = "screen" if self._screen else "final"
        proposals: list[Proposal] = []
        while len(proposals) < n and self._asked < draws:
            if (architecture := self._draw(self._asked)) is not None:
                proposals.append(Proposal(architecture, by, {"band": self._asked % c.bands, "index": self._asked}))
            self._asked += 1
        if proposals or not self._screen:
            return proposals
        left = [
            (band, architecture)
            for band, (_, architecture) in sorted(self._best.items())
            if architecture not in self._finals
        ][:n]
        self._finals |= {architecture for _, architecture in left}
        return [Proposal(architecture, "final", {"band": band}) for band, architecture in left]

    def tell(self, trials: list[Trial]) -> None:
        """Keeps the best screened architecture of each band."""
        for trial in trials:
            if (
                trial.evaluator == "screen"
                and trial.ok
                and trial.measurement is not None
                and self._objectives is not None
            ):
                value, band = self._objectives.costs(trial.measurement)[0], int(trial.tags["band"])
                if band not in self._best or value < self._best[band][0]:
                    self._best[band] = (value, trial.architecture)

    def recover(self, trials: list[Trial]) -> None:
        """Continue after the last draw, and with the bands whose best was not yet measured in full."""
        self.reopen(trials)
        self.tell(trials)

    def reopen(self, trials: list[Trial]) -> None:
        """Count what an earlier process asked for."""
        for trial in trials:
            if "index" in trial.tags:
                self._asked = max(self._asked, int(trial.tags["index"]) + 1)
                self._seen.add(trial.architecture.fingerprint)
            else:
                self._finals.add(trial.architecture)

    def _draw(self, index: int) -> Architecture | None:
        """A new architecture in the band of a draw, a function of seed and index; None where the band is used up."""
        turn, band = divmod(index, self._config.bands)
        if band not in self._used_up:
            architecture = self._bounded(band).nth((self._seed, band), turn, self._seen)
            if architecture is not None:
                self._seen.add(architecture.fingerprint)
                return architecture
            self._used_up.add(band)
            logging.getLogger("rankitect").info(
                "part %d of %d of %s holds no more architectures", band + 1, self._config.bands, self._cost
            )
        return None

    def _bounded(self, band: int) -> BoundedSpace:
        """Draws within a part of the cost."""
        if band not in self._bands:
            bounds = dict(self._limits)
            if self._cost in bounds:
                low, high = bounds[self._cost]
                step = (high - low) / self._config.bands
                bounds[self._cost] = (low + band * step, low + (band + 1) * step)
            self._bands[band] = BoundedSpace(self._space, bounds)
        return self._bands[band]
