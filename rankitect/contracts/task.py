"""What a model is for: its data, its loss, its quality, and what else a method or a measurement may ask of a task.

`Task` has the members that the platform's own evaluators train and measure with. Whatever only some tasks have is a
Protocol of its own, a *capability*, which a task has by having its members. A method names those that it needs and gets
a task of that type from `require`, or a message that says what is lacking.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from rankitect.contracts.device import Latencies
    from rankitect.contracts.evaluator import TrialContext
    from rankitect.contracts.records import Metric, MetricSpec, Spent, Unit
    from rankitect.contracts.stage import StageMeasure
    from rankitect.graph import Architecture, ChoiceSpace, SearchSpace

__all__ = [
    "BoundsCosts",
    "ChargesTraining",
    "HasBackbone",
    "HasContrasts",
    "HasFeatures",
    "HasPrior",
    "HasProduction",
    "HasReference",
    "HasSearchLoss",
    "HoldsTables",
    "InheritsWeights",
    "LearnsLatency",
    "MeasuresStages",
    "Quality",
    "ReadsChoices",
    "SavesCandidates",
    "SharedTraining",
    "SharesWeights",
    "Task",
    "TellsCosts",
    "TrainsBriefly",
    "TunesSharedTraining",
]


class Quality(Protocol):
    """How good a model is on a split."""

    @property
    def metrics(self) -> dict[str, Metric]:
        """Values by name: those that `Task.quality_specs` promises, and any more."""
        ...

    @property
    def amount(self) -> int:
        """What it was measured over, in the task's unit."""
        ...


class Task(Protocol):
    """Data, loss and quality of one kind of model. Splits are named "train", "test", and `search_split`."""

    @property
    def unit(self) -> Unit:
        """What the data are counted in."""
        ...

    @property
    def search_split(self) -> str:
        """The split that a search chooses by; no weight is trained on it."""
        ...

    def batch_at(self, split: str, step: int) -> Any:
        """The batch of a training step, a pure function of its arguments; `len` of it counts examples or tokens."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss to train on, a scalar with gradients."""
        ...

    def quality(
        self, model: nn.Module, split: str, *, sample: int | None = None, check: Callable[[], None] | None = None
    ) -> Quality:
        """Measure a model; it keeps its mode.

        Args:
            model: The model.
            split: The split.
            sample: How much of it is used, in a unit of the task's choice; None takes the task's own number.
            check: Called now and then; may raise, to stop.
        """
        ...

    def quality_specs(self, split: str) -> list[MetricSpec]:
        """The metrics that `quality` promises for a split, the one to choose by first."""
        ...


# --- costs ------------------------------------------------------------------------------------------------------------
class HasProduction(Protocol):
    """A task whose constraints are relative to a production model, where there is one."""

    def production_cost(self, name: str) -> float | None:
        """A cost of that model; None where there is none, or it is not known.

        Args:
            name: The cost, as constraints name it.
        """
        ...


class HasReference(Protocol):
    """A task that knows the architecture that relative costs are of."""

    @property
    def reference(self) -> Architecture:
        """That architecture."""
        ...


class BoundsCosts(Protocol):
    """A task that knows the bounds which the configuration sets on costs."""

    def limits(self, constraints: Mapping[str, Any] | None = None) -> dict[str, tuple[float, float]]:
        """Bounds for `SearchSpace.sample`.

        Args:
            constraints: Ranges by cost (`rankitect.config.quantities.Bounds`); None: the configuration's.
        """
        ...


class TellsCosts(Protocol):
    """A task that knows costs without a measurement."""

    @property
    def cost_specs(self) -> list[MetricSpec]:
        """The costs as metrics."""
        ...

    def costs(self, architecture: Architecture) -> dict[str, Metric]:
        """All costs of an architecture by name."""
        ...


class ChargesTraining(Protocol):
    """A task that tells what training on its data costs."""

    def training_spent(self, space: SearchSpace, architecture: Architecture, amount: int) -> Spent:
        """What training an architecture costs: the data, the FLOPs, and the forward passes of a teacher.

        Args:
            space: The space of the architecture: the one that is searched, or its base.
            architecture: What is trained.
            amount: How much data it is trained on, in the task's unit.
        """
        ...


class LearnsLatency(Protocol):
    """A task that predicts latencies on the configured device."""

    @property
    def latency(self) -> Latencies | None:
        """The predictions; None without a device."""
        ...

    def learn_latency(self, check: Callable[[], None], progress: Callable[[int, int, str], None]) -> None:
        """Learn the latencies that are configured, where that was not done.

        Args:
            check: Called between measurements; raises to stop.
            progress: Told measurements made, measurements at most, and a note.
        """
        ...


# --- weights ----------------------------------------------------------------------------------------------------------
class SharedTraining(NamedTuple):
    """How shared weights are trained.

    Attributes:
        steps: Steps of the whole training.
        lr: Peak learning rate of all weights but embedding tables.
        batch: Examples of a step; None: the task's.
        table_lr: Peak learning rate of embedding tables; None: the task's.
        optimizer: AdamW, or SGD with Nesterov momentum.
    """

    steps: int
    lr: float
    batch: int | None = None
    table_lr: float | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"


class InheritsWeights(Protocol):
    """A task whose candidates may be measured with weights that they inherit."""

    @property
    def inherited(self) -> Any:
        """The weights (`rankitect.models.supernet.Supernet`): a search's, or those of a backbone; None where there are
        none yet."""
        ...


class SharesWeights(InheritsWeights, Protocol):
    """A task on which a search may train one set of weights for all architectures of a space."""

    @property
    def unit(self) -> Unit:
        """What the data are counted in."""
        ...

    def supernet(self, space: SearchSpace) -> Any:
        """Weights for a search to train (`rankitect.models.supernet.Supernet`)."""
        ...

    def train_loss(self, model: nn.Module, step: int) -> tuple[Tensor, int]:
        """The loss of a model on the training batch of a step, and how much data that was. The same step gives the same
        data, so that two models can be compared before either has learnt from them."""
        ...

    def adopt(self, supernet: Any) -> None:
        """Let candidates inherit from these weights from now on; None: as before any search."""
        ...


class HasSearchLoss(Protocol):
    """A task with a differentiable loss to choose architectures by, on data that no weight is trained on."""

    @property
    def unit(self) -> Unit:
        """What the data are counted in."""
        ...

    def search_loss(self, forward: Callable[..., Tensor], step: int) -> tuple[Tensor, int]:
        """The loss of a forward pass on the batch of a step, and how much data that was."""
        ...


class TunesSharedTraining(Protocol):
    """A task with numbers of its own for searches with shared weights."""

    @property
    def samples_per_update(self) -> int:
        """Architectures that shared weights are trained on between two updates of what draws them."""
        ...

    @property
    def shared_sizes(self) -> tuple[int, int]:
        """Architectures that a search with shared weights measures with them, and how many of these in full."""
        ...

    def shared_training(self, screened: bool) -> SharedTraining:
        """The training of shared weights.

        Args:
            screened: Whether candidates are then told apart by the weights that they inherit.
        """
        ...

    def train_loss(self, model: nn.Module, step: int, batch: int | None = None) -> tuple[Tensor, int]:
        """As `SharesWeights.train_loss`, on batches of the size that `shared_training` names."""
        ...


class HoldsTables(Protocol):
    """A task that trains embedding tables of shared weights in a way of its own."""

    def hold_tables(self, model: Any, lr: float | None = None) -> Any:
        """The storage of a model's tables (`rankitect.training.embeddings.TableStorage`); None where it has none.

        Args:
            model: The model.
            lr: Peak learning rate; None: the task's.
        """
        ...


class TrainsBriefly(Protocol):
    """A task that can train one architecture alone, for a first look at it."""

    def briefly_trained(self, architecture: Architecture, context: TrialContext) -> tuple[nn.Module, Spent]:
        """A model after a short training from scratch, and what that cost."""
        ...


class HasPrior(Protocol):
    """A task that can tell before a search what each value of each choice is likely to cost in quality."""

    def prior(
        self, check: Callable[[], None], progress: Callable[[int, int, str], None]
    ) -> tuple[dict[str, Tensor], Spent]:
        """For each choice, how much the loss is expected to rise at each of its values, and what finding out cost.

        Args:
            check: Called between measurements; raises to stop.
            progress: Called with (done, total, note) as measurements end.
        """
        ...


# --- what spaces and methods are made for -----------------------------------------------------------------------------
class HasBackbone(Protocol):
    """A task with a pretrained model to prune."""

    @property
    def backbone_name(self) -> str | None:
        """Where the model is from; None where the task has the sizes of one only, and models start from scratch."""
        ...

    @property
    def checkpoint(self) -> Any:
        """The pretrained model as it was read."""
        ...

    @property
    def context(self) -> int:
        """Tokens of a window."""
        ...


class HasFeatures(Protocol):
    """A task whose models read features of a table."""

    @property
    def features(self) -> Any:
        """What the data give to a model."""
        ...


class HasContrasts(Protocol):
    """A task that knows pairs of architectures that show which design rules hold."""

    def contrasts(self, workload: str) -> Sequence[Any]:
        """Architectures of equal latency under a workload that differ in one rule of design."""
        ...


class SavesCandidates(Protocol):
    """A task that writes candidates with all that is needed to use them: a tokenizer, vocabularies and scaling."""

    def save_candidate(self, folder: Path, architecture: Architecture, model: Any) -> dict[str, str]:
        """Write a candidate (`rankitect.models.candidate`).

        Args:
            folder: Where to.
            architecture: What was searched.
            model: Its model, trained (`rankitect.models.supernet.Standalone`).

        Returns:
            Paths relative to the folder, by artifact.
        """
        ...


class MeasuresStages(Protocol):
    """A task that tells how good a model is after each stage of its recipe."""

    def stage_measure(self, check: Callable[[], None]) -> StageMeasure:
        """What a model is asked.

        Args:
            check: Called now and then; may raise, to stop.
        """
        ...

    def write_stages(
        self, folder: Path, stages: Sequence[tuple[str, Any]], program: Mapping[str, Any] | None
    ) -> dict[str, str]:
        """Write the answers into a candidate's folder.

        Args:
            folder: The folder.
            stages: For each stage its name and the answer after it, None where there is none; "" for the beginning.
            program: The card of the program (`rankitect.deploy.artifact`), where the recipe has written one.

        Returns:
            Paths relative to the folder, by artifact.
        """
        ...


class ReadsChoices(Protocol):
    """A task that reads choices which shape no graph by itself, without settings that are bound to them."""

    def reads(self, space: ChoiceSpace) -> Collection[str]:
        """The paths of these choices."""
        ...
