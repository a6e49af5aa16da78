"""What the stages that train a language model on text, or calibrate it, have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from rankitect.contracts import JSON, Spent
from rankitect.contracts.capability import offers
from rankitect.errors import ConfigError, safe, short
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

__all__ = ["HasText", "HasVerdicts", "TextStage", "TextTask"]

_CHUNK = 2**20
"""Tokens of a text that are looked through at a time."""


class HasText(Protocol):
    """A task whose models read text."""

    @property
    def data(self) -> TextWindows:
        """The text, its splits and the order of its windows."""
        ...


class HasVerdicts(Protocol):
    """A task whose models answer with one of a few tokens."""

    @property
    def verdict_ids(self) -> tuple[int, ...]:
        """These tokens."""
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
    """Whether there is a teacher, whose forward passes are charged as well."""

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
                Or their head scores only a part of the tokens that the loss asks for.
        """
        self._require_scores(space)
        for node in space.graph.nodes:
            if any(param.scales_of for param in node.params.values()):
                raise ConfigError(
                    f"the weights of {node.path} have stored scales, which this stage does not know how to train: put "
                    "it before quantize, or use the stage qat."
                )
        return space

    @property
    def targets_are_of_all_tokens(self) -> bool:
        """Whether the loss asks for the text's own tokens, or for those of a teacher that scores all."""
        return True

    def _require_scores(self, space: SearchSpace) -> None:
        """Refuse a head that cannot score what the loss asks for: each such token would cost about 100 nats, and the
        gradients of that would destroy the rest of the model.

        Raises:
            ConfigError: Names the head and a token.
        """
        from rankitect.blocks import Head

        for node in space.graph.nodes if self.targets_are_of_all_tokens else ():
            if isinstance(node.block, Head) and node.block.tokens:
                kept = node.block.tokens
                if (token := next(self._targets_beside(kept), None)) is not None:
                    raise ConfigError(
                        f"the head {short(safe(node.path), 60)} was cut to {len(kept)} tokens, and this stage trains "
                        f"on token {token}, which is none of them: put it before prune_vocabulary."
                    )

    def _targets_beside(self, kept: Sequence[int]) -> Iterator[int]:
        """Tokens that the task's loss asks for, and that are none of some."""
        import numpy as np

        if offers(self._task, HasVerdicts):
            yield from (token for token in self._task.verdict_ids if token not in kept)
            return
        ids = self._task.data.text.split("train").ids
        for start in range(0, len(ids), _CHUNK):
            yield from map(int, np.setdiff1d(ids[start : start + _CHUNK], np.asarray(kept)))

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
        teacher = self._teacher_flops(context, settings.context)

        def spent(amount: int) -> Spent:
            return _charge(space, context.architecture, amount, settings.context, teacher)

        def progress(done: int, total: int, report: StepReport) -> None:
            context.spent = spent(done * settings.batch * settings.context)
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
        context.spent = spent(result.tokens)
        context.check()
        return model

    def training_spent(self, space: SearchSpace, architecture: Architecture, amount: int) -> Spent:
        """What training an architecture with `objective` costs, with the forward passes of the backbone as a teacher.

        Args:
            space: The space of the architecture.
            architecture: What is trained.
            amount: Training tokens.
        """
        size = self.objective().config.context
        return _charge(space, architecture, amount, size, self._teacher_flops(None, size))

    def _teacher_flops(self, context: StageContext | None, size: int) -> float | None:
        """FLOPs of the teacher for a sequence of `size` tokens: of the model that the recipe has kept for this stage,
        else of the backbone. None without a teacher."""
        if not self.has_teacher:
            return None
        if context is not None and context.earlier_space is not None:
            return _forward_flops(context.earlier_space, context.earlier_architecture, size)
        return _forward_flops(self._task.space, self._task.reference, size)


def _charge(space: SearchSpace, architecture: Architecture, amount: int, size: int, teacher: float | None) -> Spent:
    """What training on so many tokens costs, in sequences of `size`, with a teacher of so many FLOPs a sequence."""
    from rankitect.training.spending import training_flops

    forward = _forward_flops(space, architecture, size)
    return Spent(
        train_tokens=amount,
        teacher_tokens=0 if teacher is None else amount,
        train_flops=training_flops(forward, amount, size, teacher or 0.0),
    )


def _forward_flops(space: SearchSpace, architecture: Architecture, size: int) -> float:
    return float(space.cost(architecture, "flops", "", B=1, T=size, P=0))
