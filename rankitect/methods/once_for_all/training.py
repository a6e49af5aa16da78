"""The training of shared weights that many architectures are then taken from as they are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankitect.contracts import Spent, offers
from rankitect.contracts.task import HasBackbone
from rankitect.errors import TrainingError
from rankitect.methods.once_for_all.guard import SpikeGuard
from rankitect.methods.once_for_all.opening import Opening
from rankitect.methods.once_for_all.schedule import Schedule
from rankitect.methods.shared_weights import (
    CoTraining,
    TrainingState,
    train_steps,
    training_defaults,
    usual_optimizer,
)
from rankitect.methods.supernet_search import STATE, Draws
from rankitect.methods.teaching import Lesson

if TYPE_CHECKING:
    from rankitect.contracts import Session, SharesWeights
    from rankitect.methods.bounded_space import BoundedSpace
    from rankitect.methods.once_for_all.settings import OnceForAllConfig
    from rankitect.models.supernet import Supernet
    from rankitect.training.settings import OptimizerConfig

__all__ = ["OnceForAllTraining", "scheduled"]

_SHARES = 40
"""How often, over the whole training, the subnets' share of an update is measured."""
_KEPT = 3
"""Points to go back to that are kept."""
_SHORTEST = 100
"""Steps of a training from which on it is guarded: of a shorter one there is no telling a spike."""


def _pretrained(task: object) -> bool:
    """Whether shared weights begin as those of a backbone, which is then the teacher in the task's own loss."""
    return offers(task, HasBackbone) and task.backbone_name is not None


def scheduled(config: OnceForAllConfig, task: object, phases: int = 0) -> tuple[Schedule, OptimizerConfig]:
    """What each step of a training is for, and what takes the steps.

    Args:
        config: The keys.
        task: Has numbers of its own for what they leave open.
        phases: Of progressive shrinking.

    Raises:
        ConfigError: The keys contradict each other; see `Schedule`.
    """
    steps, delay = config.length(task), config.delay
    if delay is None:
        delay = 0.0 if _pretrained(task) else 0.5
    first = round(delay * steps) or steps
    usual = usual_optimizer(task, config.weight_lr or training_defaults(task, True).lr, steps, config.optimizer.kind)
    optimizer = config.optimizer.config(usual, first)
    schedule = Schedule(
        config.schedule,
        steps,
        optimizer,
        delay=delay,
        ramp=config.ramp,
        weight=config.weight,
        restart=config.restart,
        phases=phases,
    )
    return schedule, optimizer


class OnceForAllTraining:
    """Trains a supernet by a schedule, with a guard against collapse; see `settings.OnceForAllConfig` for what each key
    means.

    Args:
        config: The keys.
        bounded: The space within the constraints.
        task: Gives the loss.
        supernet: Trained in place.
        seed: Of all draws.
        folder: Where checkpoints are written.

    Attributes:
        schedule: Rates and weights by step.
        weights: What takes the steps.
        state: How far it has come.
    """

    def __init__(
        self,
        config: OnceForAllConfig,
        bounded: BoundedSpace,
        task: SharesWeights,
        supernet: Supernet,
        seed: int,
        folder: Path,
    ) -> None:
        self._config, self._folder, self._supernet, self._task = config, folder, supernet, task
        self._seed, self._steps = seed, config.length(task)
        training = training_defaults(task, screened=True)
        lr = config.weight_lr or training.lr
        taught = 0.0 if _pretrained(task) else 0.5 if config.schedule == "progressive" else 1.0
        self._distil = taught if config.distil is None else config.distil
        # Units of a backbone are in the order of their calibration already.
        self._sorts = config.sort and config.weight > 0 and not _pretrained(task)
        self._draws = Draws(bounded, seed)
        self._opening: Opening | None = None
        if config.schedule == "progressive":
            self._opening = Opening(bounded, self._draws.largest, config.phases)
        self.schedule, optimizer = scheduled(config, task, self._opening.count if self._opening else 0)
        self.weights = CoTraining(
            supernet, task, lr, self._steps, batch=training.batch, table_lr=training.table_lr,
            optimizer=optimizer, rate=self.schedule.lr,
        )  # fmt: skip
        self._turns = {0, self.schedule.switch, *(segment.start for segment in self.schedule.segments)}
        window = min(50, max(5, self._steps // 100))
        self._apart = max(2 * window, self._steps // 20)  # steps between two points to go back to
        guarded = config.spike is not None and self._steps >= _SHORTEST
        self._guard = SpikeGuard(config.spike or 0.0, window) if guarded else None
        self.state, self.setbacks = TrainingState(), 0
        if (folder / STATE).exists():
            self._load(folder / STATE)

    def run(self, session: Session) -> None:
        """All steps that are left."""
        c = self._config
        train_steps(
            session, "supernet", self.state, self._steps,
            lambda step: self._step(session, step),
            lambda state: self._save(self._folder / STATE, final=state.step >= self._steps),
            share=c.share, every=c.checkpoint_every,
        )  # fmt: skip
        self.weights.close()
        if self.state.step <= self.schedule.switch < self._steps:
            session.logger.warning(
                "supernet: training ended after %d of %d steps, before any network but the largest was trained "
                "(controller.delay, controller.steps): what is taken from it is poor.", self.state.step, self._steps,
            )  # fmt: skip
        for path in self._folder.glob("point-*.safetensors"):
            path.unlink(missing_ok=True)

    # --- a step -----------------------------------------------------------------------------------------------------
    def lesson(self, step: int) -> Lesson:
        """What the architectures of a step learn. Where the others count for nothing they are not computed."""
        c, weight = self._config, self.schedule.weight(step)
        if not weight:
            return Lesson([self._draws.largest], [1.0])
        drawn = [self._draws.drawn(step * (c.nets - 1) + i) for i in range(c.nets - 1)]
        if self._opening is not None:
            opened = self.schedule.segment(step).opened
            drawn = [self._opening.within(each, opened) for each in drawn]
        else:
            drawn[0] = self._draws.smallest
        weights = [1.0] + [weight] * len(drawn)
        return Lesson([self._draws.largest, *drawn], weights, self._distil, c.temperature)

    def _step(self, session: Session, step: int) -> tuple[float, Spent]:
        """One step; the loss of the largest architecture before it, and what the step cost."""
        self._begin(step)
        lesson = self.lesson(step)
        shared = len(lesson.architectures) > 1 and step % max(1, self._steps // _SHARES) == 0
        try:
            losses, spent = self.weights.step_together(lesson, step, shared=shared)
            fallen = self._guard is not None and self._guard.collapsed(losses[0])
        except TrainingError as error:  # what is not finite was met too often
            if not self._back(session, step, str(error)):
                raise
            return math.nan, Spent()
        session.scalar("supernet/rate", self.schedule.lr(step), step + 1)
        session.scalar("supernet/weight", self.schedule.weight(step), step + 1)
        if shared and math.isfinite(self.weights.share):
            session.scalar("supernet/share_of_subnets", self.weights.share, step + 1)
        if len(losses) > 1:
            session.scalar("supernet/loss_of_subnets", float(np.mean(losses[1:])), step + 1)
        if self._guard is not None and fallen:
            self._back(session, step, f"the loss of the largest architecture rose to {self._guard.level:.4g}")
        return losses[0], spent

    def _begin(self, step: int) -> None:
        """What comes before a step: a point to go back to, units in order, another level to hold the loss against."""
        if self._guard is not None and step in self._turns:
            self._guard.restart()
        if self._guard is not None and step % self._apart == 0:
            self._save(self._point(step), final=False)
            self._point(step - _KEPT * self._apart).unlink(missing_ok=True)

        if step and step == self.schedule.switch and self._sorts:
            self._sort()

    def _sort(self) -> None:
        """Order the hidden units of the largest network by importance, with their statistics and the optimiser's
        moments; it may be smaller than the space's largest, which the constraints may exclude."""
        from rankitect.models.sorting import sort_units

        sort_units(self._supernet, moments=self.weights.optimizer.state(), reference=self._draws.largest)

    # --- going back -------------------------------------------------------------------------------------------------
    def _back(self, session: Session, step: int, why: str) -> bool:
        """Go back to a point well before a collapse, and on at half the rate; whether that is allowed once more."""
        points = self._points(step)
        if self._guard is None or not points or self.setbacks >= self._config.setbacks:
            if self._guard is not None:
                session.logger.warning(
                    "supernet: %s at step %d, and training has gone back %d times already (controller.setbacks): it "
                    "goes on. Lower controller.weight_lr.", why, step + 1, self.setbacks,
                )  # fmt: skip
                self._guard.restart()
            return False
        early = [at for at in points if at <= step - 2 * self._guard.window]
        at = max(early) if early else min(points)
        spent, setbacks = self.state.spent, self.setbacks + 1
        halvings = self.weights.optimizer.halvings
        self._load(points[at])
        self.state.spent, self.setbacks = spent, setbacks
        self.weights.optimizer.halvings = max(halvings, self.weights.optimizer.halvings) + 1
        session.logger.warning(
            "supernet: %s at step %d; training goes back to step %d, at half the rate (%d of %d times)",
            why, step + 1, at, setbacks, self._config.setbacks,
        )  # fmt: skip
        self._save(self._folder / STATE, final=False)  # before what it went back to is written anew
        self.state.step = at - 1  # the step that failed is counted next
        return True

    def _point(self, step: int) -> Path:
        """The file of a point to go back to."""
        return self._folder / f"point-{step:09d}.safetensors"

    def _points(self, step: int) -> dict[int, Path]:
        """Points to go back to from a step; others are of a run that was killed later on."""
        last = step // self._apart
        steps = [number * self._apart for number in range(max(0, last - _KEPT + 1), last + 1)]
        return {at: self._point(at) for at in steps if self._point(at).exists()}

    # --- checkpoints ------------------------------------------------------------------------------------------------
    def _save(self, path: Path, final: bool) -> None:
        info: dict[str, Any] = {**self.state.to_info(), "setbacks": self.setbacks}
        if self._guard is not None:
            info["guard"] = self._guard.to_info()
        self.weights.save(path, final, info)

    def _load(self, path: Path) -> None:
        about, _ = self.weights.load(path)
        loaded = TrainingState.from_info(about, self._task.unit)
        self.state.step, self.state.spent = loaded.step, loaded.spent
        self.setbacks = int(about["setbacks"])
        if self._guard is not None and "guard" in about:
            self._guard = SpikeGuard.from_info(about["guard"])
