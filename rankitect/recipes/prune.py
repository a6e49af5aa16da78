"""The stage `prune`: a trained model made smaller by what calibration text shows of it.

Layers are left out by block influence (ShortGPT, arXiv 2403.03853), hidden units of feed-forwards by the size of their
activations, as Llama Guard 3-1B-INT4 (arXiv 2411.17713) was made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rankitect.contracts import JSON, Spent
from rankitect.contracts.capability import offers
from rankitect.errors import ConfigError
from rankitect.models.families import axes
from rankitect.recipes.text import HasText
from rankitect.training.placement import placement

if TYPE_CHECKING:
    from torch import Tensor

    from rankitect.config.parts import Parts
    from rankitect.contracts.stage import StageContext
    from rankitect.graph import SearchSpace
    from rankitect.models.supernet import Standalone

__all__ = ["Prune"]

_BATCH = 1024
"""Tokens of a calibration batch."""


class Prune:
    """Gives a smaller model of the same space."""

    class Config(BaseModel):
        """Keys of a stage `prune`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        layers: int | None = Field(default=None, ge=1, le=1000, description="layers to keep; null: all")
        ffn: int | None = Field(
            default=None, ge=1, le=2**20, description="hidden units of each feed-forward at most; null: all"
        )
        criterion: Literal["magnitude", "energy"] = Field(
            default="magnitude", description="of hidden units: mean square, or times the weights that read them"
        )
        refit: bool = Field(default=True, description="fit the weights that read hidden units again, in closed form")
        tokens: int = Field(default=8192, ge=64, le=10**9, description="calibration tokens")
        context: int = Field(default=128, ge=8, le=2**20, description="tokens of a calibration window")

        @model_validator(mode="after")
        def _something(self) -> Self:
            if self.layers is None and self.ffn is None:
                raise ValueError("layers and ffn are null: there is nothing to prune")
            return self

    def __init__(self, config: Config, task: HasText) -> None:
        self.config, self._task = config, task

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Prune:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The task has no text.
        """
        if not offers(parts.task, HasText):
            raise ConfigError(
                f"this stage calibrates on text, and task={parts.names.get('task', '')} has none: leave it out."
            )
        return cls(config, parts.task)

    def check(self) -> None:
        """Raise what stands in the way before any work.

        Raises:
            DataError: There is no window of calibration text.
        """
        self._task.data.require("train", 1, self.config.context)

    def space_after(self, space: SearchSpace) -> SearchSpace:
        """The same space, which must hold what the stage makes.

        Raises:
            ConfigError: It drops no layers, has no feed-forward of that width, or its hidden units cannot be taken away
                one by one, as a stage before this one has rotated or quantized them.
        """
        c, choices = self.config, space.choices
        if c.ffn is not None:
            _require_separate_units(space)
        number = len(axes.paths(choices, axes.RUNS))
        if c.layers is not None and (not axes.drops(choices) or c.layers > number):
            allowed = f"at most {number}" if axes.drops(choices) else "null, as no layer of the space can be left out"
            raise ConfigError(f"layers is {c.layers}; allowed: {allowed}.")
        widths = [choices[path].values for path in axes.paths(choices, axes.FFN)]
        if c.ffn is not None and (not widths or any(c.ffn not in values for values in widths)):
            values = sorted({int(v) for each in widths for v in each})  # type: ignore[arg-type]
            shown = ", ".join(map(str, values[:12])) + (", …" if len(values) > 12 else "")
            raise ConfigError(f"ffn is {c.ffn}; allowed in space={space.name}: {shown or 'null'}.")
        return space

    def provenance(self) -> Mapping[str, JSON]:
        """The settings, and the calibration text."""
        data = self._task.data.text.fingerprint
        return {**self.config.model_dump(mode="json"), "data": data, **placement().named}

    def run(self, model: Standalone, context: StageContext) -> Standalone:
        """Calibrate on the model as it is, and give what is left of it."""
        from rankitect.models.importance import observe
        from rankitect.models.pruning import pruned, smaller

        c, space = self.config, context.require_space("pruned")
        batches = self._batches(context)
        statistics = observe(model, batches, lambda done: context.progress(done, self._steps[1], "calibration"))
        architecture = smaller(space, context.architecture, c.layers, c.ffn, statistics.influence)
        context.spent = Spent(eval_tokens=statistics.tokens)
        if architecture == context.architecture:
            return model
        result = pruned(space, model.to("cpu"), architecture, statistics, c.criterion, c.refit)
        context.architecture = architecture
        return placement().place(result)

    @property
    def _steps(self) -> tuple[int, int]:
        """Windows of a batch, and batches."""
        c = self.config
        windows = self._task.data.require("train", 1, c.context).windows(c.context)
        batch = max(1, min(_BATCH // c.context, windows))
        return batch, max(1, min(c.tokens, windows * c.context) // (batch * c.context))

    def _batches(self, context: StageContext) -> Iterator[Tensor]:
        batch, steps = self._steps
        for ids in self._task.data.batches(
            "train", batch=batch, context=self.config.context, seed=context.seed, steps=steps
        ):
            context.check()
            yield placement().move(ids)


def _require_separate_units(space: SearchSpace) -> None:
    """Refuse a space in whose models a hidden unit is not one row of a matrix and one column of the next.

    Raises:
        ConfigError: Names the node.
    """
    from rankitect.blocks import SwiGLU

    for node in space.graph.nodes:
        block = node.block
        if isinstance(block, SwiGLU) and block.hadamard > 1:
            raise ConfigError(
                f"the hidden units of {node.path} are rotated (R4), so that none can be taken away by itself: put "
                "prune before rotate."
            )
        if isinstance(block, SwiGLU) and any(param.scales_of for param in node.params.values()):
            raise ConfigError(
                f"the weights of {node.path} have stored scales, which are of all of its hidden units: put prune "
                "before quantize."
            )
