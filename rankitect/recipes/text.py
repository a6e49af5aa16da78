"""What the stages that train a language model on text, or calibrate it, have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

from rankitect.contracts import JSON, Spent
from rankitect.contracts.capability import offers
from rankitect.errors import ConfigError
from rankitect.training.placement import placement

if TYPE_CHECKING:
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.contracts.stage import StageContext
    from rankitect.data.windows import TextWindows
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.training.optimizer import StepReport
    from rankitect.training.settings import DistilConfig, TextTraining
    from rankitect.training.text import TextObjective

__all__ = ["HasText", "TextStage", "TextTask"]


class HasText(Protocol):
    """A task whose models read text."""

    @property
    def data(self) -> TextWindows:
        """The text, its splits and the order of its windows."""
        ...


class TextTask(HasText, Protocol):
    """What these stages need of a task: text, and for distillation a teacher."""

    @property
    def space(self) -> SearchSpace:
        """The space that models are from."""
        ...

    @property
    def reference(self) -> Architecture:
        """The architecture of the backbone."""
        ...

    @property
    def backbone_name(self) -> str | None:
        """The pretrained model to inherit from and to learn from; None where there is none."""
        ...

    @property
    def backbone_fingerprint(self) -> str:
        """SHA-256 of its weights."""
        ...

    def next_token(self, config: TextTraining, split: str = "train") -> TextObjective[Any]:
        """Batches of the task's data, and the cross-entropy of what comes next in them."""
        ...

    def distillation(
        self, config: DistilConfig, split: str = "train", teacher: nn.Module | None = None
    ) -> TextObjective[Any]:
        """Batches and loss of a distillation from the backbone, or from the teacher that is given."""
        ...


class TextStage:
    """Training on windows of text; a subclass says with which objective.

    Args:
        config: Length, batches, optimiser.
        task: Gives the text.
    """

    needs_backbone: bool = False
    """Whether the teacher is the backbone."""
    has_teacher: bool = False
    """Whether there is a teacher, which is charged as the backbone is."""

    def __init__(self, config: TextTraining, task: TextTask) -> None:
        self.config, self._task = config, task
        self._objectives: dict[str, TextObjective[Any]] = {}

    @classmethod
    def from_config(cls, config: Any, parts: Parts) -> Self:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The task has no text.
        """
        if not offers(parts.task, TextTask):
            raise ConfigError(
                f"this stage trains on text, and task={parts.names.get('task', '')} has none: choose another stage, or "
                "recipe=none."
            )
        return cls(config, parts.task)

    def check(self) -> None:
        """Raise what stands in the way before any work.

        Raises:
            ConfigError: There is no backbone to learn from.
            DataError: The text is shorter than one batch.
        """
        if self.needs_backbone and self._task.backbone_name is None:
            raise ConfigError(
                "this stage learns from the backbone, and task.backbone is none: choose a backbone, or a recipe that "
                "needs none (recipe=pretrain)."
            )
        self._task.data.require("train", self.config.batch, self.config.context)

    def space_after(self, space: SearchSpace) -> SearchSpace:
        """The space itself.

        Raises:
            ConfigError: Its models store the scales of their weights: they would be trained as if they were weights.
        """
        for node in space.graph.nodes:
            if any(param.scales_of for param in node.params.values()):
                raise ConfigError(
                    f"the weights of {node.path} have stored scales, which this stage does not know how to train: put "
                    "it before quantize, or use the stage qat."
                )
        return space

    def objective(self, split: str = "train") -> TextObjective[Any]:
        """Batches and loss on a split, made once."""
        if split not in self._objectives:
            self._objectives[split] = self._objective(split)
        return self._objectives[split]

    def _objective(self, split: str) -> TextObjective[Any]:
        raise NotImplementedError

    def provenance(self) -> Mapping[str, JSON]:
        """Settings, text, loss, the teacher where there is one, and the precision where it is not float32."""
        task = self._task
        teacher: dict[str, JSON] = {"teacher's weights": task.backbone_fingerprint} if self.needs_backbone else {}
        data: dict[str, JSON] = {"data": task.data.text.fingerprint, "loss": type(self).__name__}
        return {**data, **teacher, **self.config.model_dump(mode="json"), **placement().named}

    def shortened(self, tokens: int) -> Self:
        """The same stage with this number of training tokens."""
        return type(self)(self.config.model_copy(update={"tokens": tokens}), self._task)

    def run(self, model: nn.Module, context: StageContext) -> nn.Module:
        """Train the model in place."""
        return self._train(model, context, self.objective())

    def _train(
        self,
        model: nn.Module,
        context: StageContext,
        objective: TextObjective[Any],
        rates: Mapping[str, float] | None = None,
    ) -> nn.Module:
        """Train a model in place.

        Args:
            model: The model.
            context: Charged as the training goes on.
            objective: Batches and loss.
            rates: See `rankitect.training.loop.train`.
        """
        from rankitect.training.text import train_on_text

        space, settings = context.space or self._task.space, objective.config

        def progress(done: int, total: int, report: StepReport) -> None:
            context.spent = self.training_spent(space, context.architecture, done * settings.batch * settings.context)
            context.progress(done, total, f"loss {report.loss:.3f}")

        result = train_on_text(
            model,
            objective,
            rates=rates,
            seed=context.seed,
            progress=progress,
            should_stop=context.should_stop,
            checkpoint=context.checkpoint,
            provenance=self.provenance(),
        )
        context.spent = self.training_spent(space, context.architecture, result.tokens)
        context.check()
        return model

    def training_spent(self, space: SearchSpace, architecture: Architecture, amount: int) -> Spent:
        """What training an architecture on so many tokens costs, with the forward passes of a teacher.

        Args:
            space: The space of the architecture.
            architecture: What is trained.
            amount: Training tokens.
        """
        from rankitect.training.spending import training_flops

        task, size = self._task, {"B": 1, "T": self.config.context, "P": 0}
        teacher = task.space.cost(task.reference, "flops", "", **size) if self.has_teacher else 0.0
        return Spent(
            train_tokens=amount,
            teacher_tokens=amount if self.has_teacher else 0,
            train_flops=training_flops(space.cost(architecture, "flops", "", **size), amount, size["T"], teacher),
        )
