"""The stage `gguf`: the model as a file that llama.cpp, Ollama and LM Studio run. It stands last in a recipe."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field

from rankitect.contracts import JSON
from rankitect.contracts.capability import offers
from rankitect.errors import ConfigError, SpaceError
from rankitect.models.checkpoints.precisions import GGUFPrecision

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts.stage import StageContext
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.models.supernet import Standalone

__all__ = ["GGUF", "WritesGGUF"]

FILE = "model.gguf"
_log = logging.getLogger("rankitect")


class WritesGGUF(Protocol):
    """A task whose models can be GGUF files."""

    def check_gguf(self, precision: GGUFPrecision) -> None:
        """Check that its tokenizer can be in such a file, and that the precision can be made.

        Raises:
            AssetError: One cannot.
        """
        ...

    def save_gguf(
        self, path: Path, space: SearchSpace, architecture: Architecture, model: Standalone, precision: GGUFPrecision
    ) -> None:
        """Write a model.

        Raises:
            SpaceError: The architecture is no model of llama.cpp.
        """
        ...


class GGUF:
    """Writes model.gguf, with the tokenizer and how the model is used inside of it; changes no weight."""

    ends_recipe: ClassVar[bool] = True

    class Config(BaseModel):
        """Keys of a stage `gguf`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        precision: GGUFPrecision = Field(default="float16", description="of the matrices; from q8_0 on by llama.cpp")

    def __init__(self, config: Config, task: WritesGGUF) -> None:
        self.config, self._task = config, task

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> GGUF:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The task's models cannot be GGUF files.
        """
        if not offers(parts.task, WritesGGUF):
            raise ConfigError(f"this stage writes language models, and task={parts.names.get('task', '')} has none.")
        return cls(config, parts.task)

    def check(self) -> None:
        """Raise what stands in the way before any work.

        Raises:
            AssetError: The tokenizer cannot be in such a file, or the precision cannot be made.
        """
        self._task.check_gguf(self.config.precision)

    def space_after(self, space: SearchSpace) -> SearchSpace:
        """The space as it is.

        Raises:
            SpaceError: Its models hold rotations for which llama.cpp has no place.
        """
        from rankitect.models.decoder_layers import online_rotation

        if reason := online_rotation((node.path, node.block) for node in space.graph.nodes):
            raise SpaceError(reason)
        return space

    def provenance(self) -> Mapping[str, JSON]:
        """The settings."""
        return self.config.model_dump(mode="json")

    def run(self, model: Standalone, context: StageContext) -> Any:
        """Write the file where the recipe's run keeps files; without such a place there is nothing to do.

        An architecture that llama.cpp does not have costs the file only; the log says why.
        """
        if context.folder is None:
            return model
        assert context.space is not None  # the task is one of language models, which are made from graphs
        context.folder.mkdir(parents=True, exist_ok=True)
        context.progress(0, 1, "writing")
        try:
            self._task.save_gguf(
                context.folder / FILE, context.space, context.architecture, model, self.config.precision
            )
        except SpaceError as error:
            _log.warning("No GGUF file: %s", error)
        else:
            context.artifacts["gguf"] = FILE
        return model
