"""The stage `rotate`: the model in a basis in which few bits hold its activations, its cache and its weights better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rankitect.contracts import JSON, Spent
from rankitect.contracts.capability import offers
from rankitect.errors import ConfigError
from rankitect.graph.quantized import INTEGER_BITS
from rankitect.quantization.settings import Bits
from rankitect.recipes.text import HasText

if TYPE_CHECKING:
    from torch import Tensor

    from rankitect.config.parts import Parts
    from rankitect.contracts.stage import StageContext
    from rankitect.data.windows import TextWindows
    from rankitect.graph import SearchSpace
    from rankitect.models.supernet import Standalone
    from rankitect.quantization.rotations import Turning

__all__ = ["Rotate", "RotateConfig"]


class RotateConfig(BaseModel):
    """Which rotations, and how they are chosen.

    Attributes:
        kind: "random" draws Hadamard matrices with random signs; "learned" begins there and makes the error of rounding
            small on training text.
        objective: What is made small. "local": the ranges that are rounded, without running the model; "end_to_end":
            the loss of the model with rounded activations, as SpinQuant does it, after the local one.
        head: What becomes of a head that shares the embedding's table: a matrix before the table ("mix"), or a table of
            its own ("untied"), which other tools can read.
        r2: Whether the values of each layer's heads are turned.
        r3: Whether queries and keys are multiplied by a Hadamard matrix while the model runs.
        r4: Whether hidden units of feed-forwards are.
        r4_block: Largest size of the matrices of R4.
        act_bits: What activations are going to be rounded to; learned rotations are made for it.
        cache_bits: The same of keys and values.
        tokens: Training text that rotations are learned on, in tokens.
        context: Tokens of a window of it.
        steps: Steps of descent of the local objective.
        end_steps: Steps of the end-to-end objective, each on a window.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["random", "learned"] = Field(default="learned", description="how rotations are chosen")
    objective: Literal["local", "end_to_end"] = Field(default="local", description="what learned rotations make small")
    head: Literal["mix", "untied"] = Field(default="mix", description="of a head that shares the embedding's table")
    r2: bool = Field(default=True, description="turn the values of heads")
    r3: bool = Field(default=True, description="turn queries and keys while the model runs")
    r4: bool = Field(default=True, description="turn hidden units while the model runs")
    r4_block: int = Field(default=0, ge=0, le=2**16, description="largest size of R4's matrices; 0: the whole width")
    act_bits: Bits = Field(default=4, description="of activations, afterwards")
    cache_bits: Bits = Field(default=4, description="of keys and values, afterwards")
    tokens: int = Field(default=1024, ge=8, le=10**7, description="training text that rotations are learned on")
    context: int = Field(default=128, ge=8, le=2**20, description="tokens of a window of it")
    steps: int = Field(default=110, ge=1, le=10**5, description="steps of the local objective")
    end_steps: int = Field(default=16, ge=1, le=10**5, description="steps of the end-to-end objective, after it")

    @property
    def windows(self) -> int:
        """Windows of text."""
        return -(-self.tokens // self.context)

    @model_validator(mode="after")
    def _something(self) -> RotateConfig:
        if self.kind == "learned" and self.context > self.tokens:
            raise ValueError(f"context is {self.context}; a window is no more than the tokens={self.tokens} of all")
        values = self.cache_bits if self.r2 else 32  # of what is cached, only these are in a basis that is learned
        if self.kind == "learned" and min(self.act_bits, values) > INTEGER_BITS:
            raise ValueError(
                f"act_bits={self.act_bits}, cache_bits={self.cache_bits} and r2={str(self.r2).lower()} round nothing "
                "to integers in a basis that is learned: give act_bits, or with r2=true cache_bits, of at most "
                f"{INTEGER_BITS}, or kind=random"
            )
        return self


class Rotate:
    """Turns the model into another basis. In floats it computes what it did.

    Args:
        config: Which rotations.
        data: Text that they are learned on; None for random ones.
    """

    Config = RotateConfig

    def __init__(self, config: RotateConfig, data: TextWindows | None) -> None:
        self.config, self._data = config, data

    @classmethod
    def from_config(cls, config: RotateConfig, parts: Parts) -> Rotate:
        """Made from its section of the configuration.

        Raises:
            ConfigError: Rotations are to be learned, and the task has no text.
        """
        if config.kind == "random":
            return cls(config, None)
        if not offers(parts.task, HasText):
            raise ConfigError(
                f"kind=learned learns rotations on text, and task={parts.names.get('task', '')} has none: kind=random."
            )
        return cls(config, parts.task.data)

    def check(self) -> None:
        """Raise what stands in the way before any work.

        Raises:
            DataError: The text is shorter than what is asked for.
        """
        if self._data is not None:
            self._data.require("train", self.config.windows, self.config.context)

    def space_after(self, space: SearchSpace) -> SearchSpace:
        """The space of the rotated largest model; sizes of R4 are those of each model in the end.

        Raises:
            SpaceError: There is no stream that could be rotated, or the model is rotated already; names the node.
        """
        from rankitect.models.backbone import largest
        from rankitect.quantization.rotations import rotated_space

        c = self.config
        return rotated_space(space, largest(space), head=c.head, r3=c.r3, r4=c.r4, block=c.r4_block)

    def provenance(self) -> Mapping[str, JSON]:
        """The settings, and the text."""
        from rankitect.training.placement import placement

        text = {} if self._data is None else {"data": self._data.text.fingerprint}
        return {**self.config.model_dump(mode="json"), **text, **placement().named}

    def run(self, model: Standalone, context: StageContext) -> Standalone:
        """Give a model of the rotated blocks, with rotated weights."""
        from rankitect.quantization.rotations import draw, turning

        space = context.require_space("rotated")
        context.progress(0, 1, "reading the graph")
        c = self.config
        ready = turning(space, model, head=c.head, r2=c.r2, r3=c.r3, r4=c.r4, block=c.r4_block)
        rotations = draw(ready.sizes, context.seed)
        if c.kind == "learned":
            rotations = self._learned(ready, ready.model({}, model), rotations, context)
        context.space = ready.space
        return ready.model(rotations, model)

    def _learned(
        self, ready: Turning, unturned: Standalone, start: Mapping[str, Tensor], context: StageContext
    ) -> dict[str, Tensor]:
        """Rotations that make the error of rounding small, from random ones.

        Args:
            ready: The model, ready to be turned.
            unturned: The same as a module, in the basis that it had.
            start: The random rotations.
            context: Of the stage.
        """
        from rankitect.quantization.activations import gather
        from rankitect.quantization.learned import learn_local
        from rankitect.training.spending import training_flops

        c, rotations = self.config, dict(start)
        flops = ready.space.cost(context.architecture, "flops", "", B=1, T=c.context, P=0)
        rows = gather(
            ready, unturned, self._windows(context), act_bits=c.act_bits, cache_bits=c.cache_bits, seed=context.seed
        )
        amount = c.windows * c.context
        context.spent = Spent(train_tokens=amount, train_flops=training_flops(flops, amount, c.context))
        for done, name in enumerate(rows, 1):
            context.check()
            context.progress(done, len(rows), f"learning {name}")
            rotations[name] = learn_local(
                rows[name], start[name], steps=c.steps, seed=context.seed, check=context.check
            )
        if c.objective == "end_to_end":
            rotations = self._end_to_end(ready, unturned, rotations, context)
        return rotations

    def _end_to_end(
        self, ready: Turning, unturned: Standalone, start: Mapping[str, Tensor], context: StageContext
    ) -> dict[str, Tensor]:
        """Rotations that are learned on, with the loss of the rounded model. Arguments as for `_learned`."""
        from rankitect.quantization.end_to_end import learn_end_to_end
        from rankitect.training.spending import training_flops

        c, before = self.config, context.spent
        flops = ready.space.cost(context.architecture, "flops", "", B=1, T=c.context, P=0)
        batches = [ids[:, :-1] for ids in self._windows(context)]

        def progress(step: int, loss: float) -> None:
            amount = step * c.context
            context.spent = before + Spent(
                train_tokens=amount,
                teacher_tokens=min(step, len(batches)) * c.context,
                train_flops=training_flops(flops, amount, c.context),
            )
            context.check()
            context.progress(step, c.end_steps, f"divergence {loss:.3f}")

        bits = (c.act_bits, c.cache_bits)
        return learn_end_to_end(ready, unturned, batches, start, bits=bits, steps=c.end_steps, progress=progress)

    def _windows(self, context: StageContext) -> Iterator[Tensor]:
        """Windows of training text, [1, T + 1]."""
        from rankitect.training.placement import placement

        assert self._data is not None  # `from_config` has made sure
        c = self.config
        for number in range(c.windows):
            context.check()
            context.progress(number, c.windows, "gathering activations")
            yield placement().move(self._data.batch_at("train", number, batch=1, context=c.context, seed=context.seed))
