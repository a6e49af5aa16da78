"""What changes a model's weights: one stage of a recipe, and what it is given for one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from rankitect.contracts.evaluator import StopRequested
from rankitect.contracts.records import JSON, Spent
from rankitect.errors import ConfigError

if TYPE_CHECKING:
    from rankitect.graph import Architecture, SearchSpace

__all__ = [
    "EndsRecipe",
    "HasObjective",
    "LearnsFromEarlier",
    "Shortens",
    "Stage",
    "StageContext",
    "StageMeasure",
    "WorksOnSpaces",
]


@dataclass
class StageContext:
    """What a recipe gives one of its stages, for one model.

    Attributes:
        architecture: What the model is made from: it closes the choices of `space`. A stage whose result is a model of
            another one (a layer less, say) sets it before it returns.
        seed: Seed of every random number of the stage; equal seeds must give equal weights.
        position: Number of the stage in the recipe, from 0.
        folder: Where the stage may leave files for the user; None where none are wanted.
        checkpoint: File for the stage's state, kept over a kill; None where none is kept. It may exist already: then
            the stage goes on from it.
        should_stop: True when the user asked to stop. Save the state, then call `check`.
        progress: Called with (done, total, note) as often as convenient.
        spent: What the stage has cost so far. The stage replaces it as it goes, and has charged everything when `run`
            returns.
        artifacts: Files that the stage left in `folder`, by a short name, with their paths relative to it.
        space: The space of the model's graph; None where the model is made from no graph. A stage whose result computes
            something else (other blocks, see `SearchSpace.with_blocks`) sets it before it returns. What comes after the
            stage (stages, measurements, costs, files) is of `space` and `architecture` as it leaves them.
        earlier: The model that the stage has asked for (`LearnsFromEarlier`), in evaluation mode and not to be changed;
            None where it asks for none.
        earlier_architecture: What that model is made from.
        earlier_space: The space of its graph; None where it is made from no graph.
    """

    architecture: Any
    seed: int
    position: int = 0
    folder: Path | None = None
    checkpoint: Path | None = None
    should_stop: Callable[[], bool] = lambda: False
    progress: Callable[[int, int, str], None] = lambda done, total, note: None
    spent: Spent = field(default_factory=Spent)
    artifacts: dict[str, str] = field(default_factory=dict)
    space: SearchSpace | None = None
    earlier: Any = None
    earlier_architecture: Any = None
    earlier_space: SearchSpace | None = None

    def require_space(self, done: str) -> SearchSpace:
        """The space, for a stage that works on models of a graph alone.

        Args:
            done: What the stage does to them, for the message: "quantized".

        Raises:
            ConfigError: The model is made from no graph.
        """
        if self.space is None:
            raise ConfigError(f"only models of a graph can be {done}")
        return self.space

    def check(self) -> None:
        """Return at once, unless the user asked to stop.

        Raises:
            StopRequested: The stage goes on from its checkpoint when the run is resumed.
        """
        if self.should_stop():
            raise StopRequested


class Stage(Protocol):
    """Takes a model and gives a model. Deterministic under `context.seed`, on the same machine and threads.

    A stage class is a plug-in as all others are: it has a checked `Config` of its own and a class method
    `from_config(config, parts)`, and a configuration finds it through `configs/stage/<name>.yaml`.
    """

    def check(self) -> None:
        """Raise what can be known before any work: too little text, no teacher.

        Raises:
            RankitectError: With what to do about it.
        """
        ...

    def provenance(self) -> Mapping[str, JSON]:
        """Everything that the result depends on beside the model, the seed and the version of the code: settings, data,
        loss, teacher. Results of equal provenance are shared."""
        ...

    def run(self, model: Any, context: StageContext) -> Any:
        """Change the model, or make another of it.

        Args:
            model: The recipe's own copy: it may be changed in place.
            context: See `StageContext`; the stage charges `context.spent`.

        Returns:
            The model in evaluation mode: a module with the same parameters by name, or one of what the stage has set
            `context.space` and `context.architecture` to.

        Raises:
            StopRequested: From `context.check()`.
            TrainingError: The loss stays not finite, or the checkpoint belongs to something else.
        """
        ...


class Shortens(Protocol):
    """A stage that can be run for fewer tokens, to compare candidates quickly."""

    def shortened(self, tokens: int) -> Stage:
        """The same stage with this number of training tokens."""
        ...


class HasObjective(Protocol):
    """A stage that trains with a loss on batches. A search trains shared weights with that of a recipe's first such
    stage, so that both agree."""

    def objective(self, split: str) -> Any:
        """Batches and loss on a split of the data; see `rankitect.training.text.TextObjective` for language models."""
        ...

    def training_spent(self, space: SearchSpace, architecture: Architecture, amount: int) -> Spent:
        """What training an architecture with this loss costs; see `rankitect.contracts.task.ChargesTraining`."""
        ...


class WorksOnSpaces(Protocol):
    """A stage that depends on what the graph computes, or changes it. All such stages of a recipe are asked in their
    order before any work, each about the space as those before it leave it."""

    def space_after(self, space: SearchSpace) -> SearchSpace:
        """The space that the stage's model is of, where it is given one of `space`: itself where nothing changes.

        Raises:
            RankitectError: The stage cannot work on models of the space; says which node stands in the way, and what
                would work.
        """
        ...


class LearnsFromEarlier(Protocol):
    """A stage that learns from the model as it was earlier in the recipe: its teacher."""

    @property
    def earlier(self) -> str | None:
        """The name of a stage before it, for the model that this one gave; "float" for the model after the last stage
        whose result computes in floats, and of a model that has few bits from the beginning (bits that are choices) in
        floats after the last stage that trained it in these bits and gave it no others; None where it needs none."""
        ...


@dataclass(frozen=True)
class StageMeasure:
    """What a model is asked when a recipe begins and after each of its stages.

    Attributes:
        key: Hash of all that the answers depend on beside the model; answers that were stored under it are used again.
        of: Gives the answer for a model of an architecture of a space, as plain data, and what asking has cost.
    """

    key: str
    of: Callable[[Any, SearchSpace, Architecture], tuple[JSON, Spent]]


class EndsRecipe(Protocol):
    """A stage class whose result is files and no model: it stands last in a recipe."""

    ends_recipe: ClassVar[bool]
