"""The stage `prune_vocabulary`: a head that scores only the tokens which can come next.

What a guard writes are a few tokens (Llama Guard 3-1B-INT4, arXiv 2411.17713: 20 of 128,000). The table of the head is
cut to their rows, and the scores stand where a runtime expects those of all tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from rankitect.blocks import Head, TiedHead
from rankitect.contracts import JSON, Spent
from rankitect.contracts.capability import offers
from rankitect.errors import ConfigError, safe, short
from rankitect.recipes.text import HasVerdicts

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts.stage import StageContext
    from rankitect.data.tokenizer import Tokenizer
    from rankitect.graph import SearchSpace
    from rankitect.graph.nodes import Node
    from rankitect.models.checkpoints import DecoderCheckpoint
    from rankitect.models.supernet import Standalone

__all__ = ["PruneVocabulary"]


class HasTokenizer(Protocol):
    """A task whose models read tokens."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the models."""
        ...

    @property
    def checkpoint(self) -> DecoderCheckpoint:
        """What says which tokens end an answer."""
        ...


class PruneVocabulary:
    """Gives a model with a head of its own for a few tokens; of those it scores as before."""

    class Config(BaseModel):
        """Keys of a stage `prune_vocabulary`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        keep: (
            Literal["verdicts"]
            | Annotated[
                list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(min_length=1, max_length=10_000)
            ]
        ) = Field(default="verdicts", description="verdicts, or texts, of which all tokens are kept")

    def __init__(self, config: Config, tokens: tuple[int, ...]) -> None:
        self.config, self._tokens = config, tokens

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> PruneVocabulary:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The task's models have no tokens, or there are no verdicts to keep.
        """
        task, name = parts.task, parts.names.get("task", "")
        if not offers(task, HasTokenizer):
            raise ConfigError(f"this stage cuts the head of language models, and task={name} has none.")
        stops = task.checkpoint.usage.stop_ids  # without which no answer would end
        if isinstance(config.keep, str):
            if not offers(task, HasVerdicts):
                raise ConfigError(f"keep=verdicts: task={name} has no verdicts. Give the texts whose tokens are kept.")
            return cls(config, tuple(sorted({*task.verdict_ids, *stops})))
        kept = {int(token) for ids in task.tokenizer.encode_batch(config.keep) for token in ids}
        return cls(config, tuple(sorted(kept | set(stops))))

    def check(self) -> None:
        """Nothing can be known before there is a space."""

    def space_after(self, space: SearchSpace) -> SearchSpace:
        """The space with the smaller head.

        Raises:
            ConfigError: It has no head over tokens, or one that was cut already.
        """
        head, block = _head(space)
        wrong = [token for token in self._tokens if token >= block.vocab]
        if wrong:
            raise ConfigError(f"token {wrong[0]} is kept, and the model has {block.vocab} tokens.")
        if block.tokens:
            shown = short(safe(head.path), 60)
            raise ConfigError(f"the head {shown} was cut to {len(block.tokens)} tokens before.")
        if block.ranges != "minmax":
            raise ConfigError("the head has ranges of its own already: put prune_vocabulary before quantize.")
        numerics = block.numerics()
        return space.with_blocks(
            {head.path: Head(block.vocab, tokens=self._tokens, **numerics)}, {head.path: head.path}
        )

    def provenance(self) -> Mapping[str, JSON]:
        """The tokens."""
        return {"tokens": list(self._tokens)}

    def run(self, model: Standalone, context: StageContext) -> Standalone:
        """Give the model with the rows of these tokens; nothing is computed, so nothing is charged."""
        from rankitect.models.plan import make_plan
        from rankitect.models.supernet import Standalone
        from rankitect.models.weights import weight_of
        from rankitect.training.placement import placement

        given = context.require_space("given a smaller head")
        space = self.space_after(given)
        head, block = _head(given)
        plan = make_plan(space, context.architecture)
        tensors = {}
        for owner, name in plan.shapes():
            if owner == head.path:
                rows = model.owner(head.weights).get_parameter(name).detach()[list(self._tokens)]
                mixed = isinstance(block, TiedHead) and block.mix  # merged, as there is no table to share any more
                mix = model.owner(head.weights).get_parameter("mix").detach() if mixed else None
                tensors[owner, name] = rows.clone() if mix is None else rows @ mix
            else:
                tensors[owner, name] = weight_of(model.owner(owner), name).detach().clone()
        context.space, context.spent = space, Spent()
        return placement().place(Standalone(plan, tensors)).eval()


def _head(space: SearchSpace) -> tuple[Node, Head]:
    """The node that scores tokens.

    Raises:
        ConfigError: There is none, or it mixes what it reads.
    """
    for node in space.graph.nodes:
        if isinstance(node.block, Head) and any(edge.source == node.path for edge in space.graph.outputs):
            return node, node.block
    raise ConfigError(f"space={space.name} has no head over tokens at its output.")
