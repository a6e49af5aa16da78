"""Search with shared weights: a supernet is trained on sampled architectures, then architectures evolve on it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from rankitect.contracts import SharesWeights, require
from rankitect.errors import SpaceError
from rankitect.methods.bounded_space import BoundedSpace
from rankitect.methods.evolving import EvolutionConfig, EvolvingSearch
from rankitect.methods.shared_weights import CoTraining, TrainingState, train_steps, training_defaults
from rankitect.methods.staged import shared_sizes
from rankitect.methods.teaching import Lesson

if TYPE_CHECKING:
    from rankitect.contracts import Session, Spent
    from rankitect.graph import Architecture
    from rankitect.methods.objectives import Objectives
    from rankitect.models.supernet import Supernet

__all__ = ["Draws", "Paths", "Sampling", "SharedWeightsConfig", "SupernetConfig", "SupernetSearch"]

STATE = "supernet.safetensors"
CHUNK = 256
"""Architectures drawn at a time."""

Sampling = Literal["single_path", "any_path", "sandwich"]


class SharedWeightsConfig(EvolutionConfig):
    """Keys of `controller` for methods that train shared weights and then evolve architectures on them."""

    steps: int | None = Field(
        None, ge=0, le=10**9, description="steps of the whole training of the supernet; null: the task's"
    )
    weight_lr: float | None = Field(None, gt=0, description="peak rate of the shared weights; null: the task's")
    share: float = Field(0.5, gt=0, le=1, description="of a limited budget, what the supernet may use")
    checkpoint_every: int = Field(20, ge=1, le=10**9, description="steps between checkpoints")

    def length(self, task: object) -> int:
        """Steps of the whole training on a task."""
        return training_defaults(task, screened=True).steps if self.steps is None else self.steps


class SupernetConfig(SharedWeightsConfig):
    """Keys of `controller` for methods that draw architectures for each step in one way throughout."""

    sampling: Sampling = Field("any_path", description="which architectures a step trains")
    between: int = Field(
        1, ge=0, le=1000, description="random architectures between largest and smallest in a sandwich"
    )
    distil: float = Field(
        0.5, ge=0, le=1, description="share of the loss by which the largest teaches the others in a sandwich"
    )
    full: float = Field(
        0.0, ge=0, le=1, description="share of the steps over which the chance to train the largest falls from 1 to 0"
    )


class Draws:
    """The architectures that shared weights are trained for: the largest, the smallest, and random ones.

    Args:
        bounded: The space within the constraints.
        seed: Of all draws.
    """

    def __init__(self, bounded: BoundedSpace, seed: int) -> None:
        self._bounded, self._seed = bounded, seed
        self._chunk: tuple[int, list[Architecture]] | None = None

    @cached_property
    def largest(self) -> Architecture:
        """The architecture of most FLOPs within the constraints."""
        return self._bounded.extreme("flops", True, np.random.default_rng([self._seed, 2]))

    @cached_property
    def smallest(self) -> Architecture:
        """The architecture of fewest FLOPs within the constraints."""
        return self._bounded.extreme("flops", False, np.random.default_rng([self._seed, 3]))

    def drawn(self, index: int) -> Architecture:
        """The draw of an index. They are made many at a time: one alone costs as much as hundreds."""
        chunk, at = divmod(index, CHUNK)
        space, limits = self._bounded.space, self._bounded.limits
        if self._chunk is None or self._chunk[0] != chunk:
            rng = np.random.default_rng([self._seed, 5, chunk])
            try:
                self._chunk = chunk, space.sample_many(CHUNK, rng, **limits)
            except SpaceError:  # too few architectures are within the constraints for so many draws at once
                self._chunk = chunk, []
        if self._chunk[1]:
            return self._chunk[1][at]
        return space.sample(np.random.default_rng([self._seed, 5, chunk, at]), **limits)


class Paths(Draws):
    """Which architectures each step of a supernet's training is for.

    `single_path`: one, with one input at every place that can pick several (the inputs of a sum, say); `any_path`: one,
    uniform among all (NASRec's single-operator any-connection, arXiv 2207.07187); `sandwich`: the largest, some random
    ones, and the smallest (arXiv 1903.05134).

    Args:
        bounded: The space within the constraints.
        config: Kind and numbers.
        seed: Of all draws; a step's are a function of it and the step.
        steps: Length of the training.
    """

    def __init__(self, bounded: BoundedSpace, config: SupernetConfig, seed: int, steps: int) -> None:
        super().__init__(bounded, seed)
        self._config, self._steps = config, steps

    def at(self, step: int) -> list[Architecture]:
        """The architectures of a step, the largest first where it is among them."""
        c, rng = self._config, np.random.default_rng([self._seed, 4, step])
        falling = c.full * self._steps
        if step < falling and rng.random() < 1 - step / falling:
            return [self.largest]
        if c.sampling == "sandwich":
            return [self.largest, *(self.drawn(step * c.between + i) for i in range(c.between)), self.smallest]
        drawn = self.drawn(step)
        return [self._single(drawn, rng) if c.sampling == "single_path" else drawn]

    def _single(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """The architecture with one of its inputs at every place, where the rules allow it."""
        space, values = self._bounded.space, dict(architecture.choices)
        for path, choice in space.choices.items():
            value = values.get(path)
            if choice.kind == "subset" and isinstance(value, tuple) and len(value) > 1:
                single = (value[rng.integers(len(value))],)
                values[path] = single if single in choice.index else value
        full = {p: c.values[0] for p, c in space.choices.items()} | values
        try:
            return space.architecture(full)
        except SpaceError:
            return architecture


class SupernetSearch(EvolvingSearch):
    """Trains a supernet in `prepare`, hands it to the task, and evolves architectures by what an evaluator measures
    with the inherited weights.

    Works on any task that offers `supernet(space)`, `train_loss(model, step)` and `adopt(supernet)`.

    Args:
        config: Sizes.
        steps: Steps of the supernet that this search takes.
        by: Evaluator of the first stage.
        bounded: Draws and changes.
        objectives: What counts.
        task: See above.
        seed: Of everything.
    """

    trains = True
    """`prepare` trains weights."""
    independent = frozenset({*EvolutionConfig.model_fields, "share", "checkpoint_every"})
    """The supernet is trained before anything is measured."""

    def __init__(
        self,
        config: SharedWeightsConfig,
        steps: int,
        by: str,
        bounded: BoundedSpace,
        objectives: Objectives,
        task: object,
        seed: int,
    ) -> None:
        super().__init__(config, by, bounded, objectives, seed)
        self.samples, self.count = shared_sizes(config, task)
        self._training, self._steps, self._task = config, steps, task

    def prepare(self, session: Session) -> None:
        """Train the supernet, or go on from the last checkpoint; then let candidates inherit from it."""
        super().prepare(session)
        task = require(self._task, SharesWeights, "training a supernet")
        supernet = task.supernet(self.bounded.graph_space)
        if self._steps:
            self.train(session, task, supernet)
        task.adopt(supernet)

    def train(self, session: Session, task: SharesWeights, supernet: Supernet) -> None:
        """A hook: train a supernet in place, from its beginning or from the last checkpoint."""
        c, path = self._training, session.state_dir / STATE
        assert isinstance(c, SupernetConfig)  # a method of other keys trains in a way of its own
        training = training_defaults(task, screened=True)
        weights = CoTraining(
            supernet,
            task,
            c.weight_lr or training.lr,
            max(c.length(task), self._steps),
            batch=training.batch,
            table_lr=training.table_lr,
        )
        paths = Paths(self.bounded, c, self.seed, self._steps)
        state = TrainingState()
        if path.exists():
            state = TrainingState.from_info(weights.load(path)[0], task.unit)

        def one(step: int) -> tuple[float, Spent]:
            losses, spent = weights.step_together(Lesson(paths.at(step), distil=c.distil), step)
            return losses[-1], spent

        def save(state: TrainingState) -> None:
            weights.save(path, state.step >= self._steps, state.to_info())

        train_steps(session, "supernet", state, self._steps, one, save, share=c.share, every=c.checkpoint_every)
        weights.close()
