"""The stage `export`: the model as a program of the mobile runtime, beside its weights. It stands last in a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from rankitect.contracts import JSON
from rankitect.contracts.capability import offers
from rankitect.deploy.candidate_program import CAPACITY, PROMPT, Precision
from rankitect.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from rankitect.config.parts import Parts
    from rankitect.contracts.stage import StageContext
    from rankitect.data.tokenizer import Tokenizer
    from rankitect.deploy.generate import Generator
    from rankitect.deploy.quality import ProgramQuality
    from rankitect.graph import SearchSpace
    from rankitect.models.supernet import Standalone

__all__ = ["Export"]


class HasSampleText(Protocol):
    """A task whose models read tokens."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the models."""
        ...

    def sample_text(self) -> Tensor:
        """Windows of text that no model was trained on, [W, T] int64."""
        ...


class JudgesPrograms(Protocol):
    """A task by which programs are judged otherwise than by the perplexity of text."""

    def check_program(self, prompt: int, capacity: int) -> None:
        """Refuse a program that cannot read what it would be judged by.

        Raises:
            ConfigError: It cannot.
        """
        ...

    def judge_program(
        self, path: Path, generator: Generator, model: Standalone, floats: nn.Module | None
    ) -> tuple[ProgramQuality, Mapping[str, JSON]]:
        """See `rankitect.deploy.artifact.ProgramJudge`."""
        ...


class Export:
    """Writes model.pte (ExecuTorch) with prefill and decode, its card and the tokenizer; changes no weight."""

    ends_recipe: ClassVar[bool] = True

    class Config(BaseModel):
        """Keys of a stage `export`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        prompt: int = Field(default=PROMPT, ge=1, le=2**20, description="tokens of a prefill")
        capacity: int = Field(default=CAPACITY, ge=2, le=2**20, description="tokens of the longest sequence")
        precision: Precision = Field(
            default="float32",
            description="of the program; 8da4w: 4-bit weights in groups of 32, where the model has no bits of its own",
        )

        @field_validator("capacity")
        @classmethod
        def _longer(cls, value: int, info: ValidationInfo) -> int:
            if value <= info.data.get("prompt", 0):
                raise ValueError(f"capacity must be more than the prompt's {info.data['prompt']} tokens")
            return value

    def __init__(self, config: Config, task: HasSampleText) -> None:
        self.config, self._task = config, task
        self._rounds = True  # as long as no space says otherwise

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Export:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The task's models have no tokenizer.
        """
        if not offers(parts.task, HasSampleText):
            raise ConfigError(f"this stage exports language models, and task={parts.names.get('task', '')} has none.")
        return cls(config, parts.task)

    def check(self) -> None:
        """Raise what stands in the way before any work.

        Raises:
            DeployError: ExecuTorch is not installed.
            ConfigError: The program could not read what it is to be judged by.
        """
        from rankitect.deploy.artifact import runtime_version

        runtime_version()
        if offers(self._task, JudgesPrograms):
            self._task.check_program(self.config.prompt, self.config.capacity)

    def space_after(self, space: SearchSpace) -> SearchSpace:
        """The space itself.

        Raises:
            DeployError: The runtime lacks bits of its models, and names the block; or 8da4w fits none of its matrices.
        """
        from rankitect.deploy.precision import require_8da4w, require_lowerable_space

        require_lowerable_space(space)
        if self.config.precision == "8da4w":
            require_8da4w(space)
        self._rounds = not space.is_float
        return space

    @property
    def earlier(self) -> str | None:
        """The model in floats, which the program's quality is compared with, where this one is rounded."""
        return "float" if self._rounds else None

    def provenance(self) -> Mapping[str, JSON]:
        """The settings."""
        return self.config.model_dump(mode="json")

    def run(self, model: Standalone, context: StageContext) -> Any:
        """Write the program where the recipe's run keeps files; without such a place there is nothing to do."""
        from rankitect.deploy.artifact import export

        if context.folder is not None:
            context.folder.mkdir(parents=True, exist_ok=True)
            c, task = self.config, self._task
            context.progress(0, 1, "lowering")
            written = export(
                context.folder,
                self._in_precision(model, context),
                task.tokenizer,
                prompt=c.prompt,
                capacity=c.capacity,
                text=task.sample_text(),
                floats=model if context.earlier is None and model.plan.is_float else context.earlier,
                judge=task.judge_program if offers(task, JudgesPrograms) else None,
            )
            context.artifacts.update(written)
        return model

    def _in_precision(self, model: Standalone, context: StageContext) -> Standalone:
        from rankitect.deploy.precision import in_8da4w

        if self.config.precision == "float32":
            return model
        assert context.space is not None  # a language model has a graph
        return in_8da4w(context.space, model)
