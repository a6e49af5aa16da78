"""Bits as choices of the space `mobile_llm`: of every layer's attention and feed-forward, of embedding and head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.graph import Graph
from rankitect.models.families import axes
from rankitect.space.expr import as_expr

__all__ = ["FLOATS", "Bits", "BitsConfig"]


@dataclass(frozen=True)
class Bits:
    """In how many bits weights may be: 32 (floats), 8 (a scale for each output) or 4 (in groups).

    Activations that are multiplied with 4 or 8 bits have 8 bits, as mobile runtimes have it.

    Attributes:
        layers: Of a layer's attention and of its feed-forward, a choice each.
        embedding: Of the embedding's table, one choice.
        head: Of the matrix that scores tokens, one choice.
        group: Weights of 4 bits that share a scale; 0 for a scale for each output.
        cache: Of keys and values, of all layers.
    """

    layers: Sequence[int] = (32,)
    embedding: Sequence[int] = (32,)
    head: Sequence[int] = (32,)
    group: int = 32
    cache: int = 32

    def fields(self, g: Graph, name: str, values: Sequence[int], table: bool = False) -> dict[str, Any]:
        """The fields of a block whose bits are a choice; none where they are floats.

        Args:
            g: Gets the choice.
            name: Of the choice.
            values: Its values.
            table: Whether the block looks rows up, so that it has no activations.
        """
        if tuple(values) == (32,):
            return {}
        bits = g.choice(name, values)
        few = sum((bits.is_(v) for v in values if v < 32), start=as_expr(0))
        group = self.group * bits.is_(4) if 4 in values and self.group else 0
        return {"bits": bits, "scale_group": group, **({} if table else {"act_bits": 32 - 24 * few})}

    def of_attention(self, g: Graph) -> dict[str, Any]:
        """The fields of a layer's attention."""
        return {
            **self.fields(g, axes.ATTENTION_BITS, self.layers),
            **({"cache_bits": self.cache} if self.cache < 32 else {}),
        }


FLOATS = Bits()


_SomeBits = Annotated[list[Literal[32, 8, 4]], Field(min_length=1)]


class BitsConfig(BaseModel):
    """Keys of `space.bits`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: _SomeBits = Field(
        default=[32, 8, 4], description="bits of a layer's attention, and of its feed-forward: 32, 8, 4"
    )
    embedding: _SomeBits = Field(default=[32, 8, 4], description="bits of the embedding's table")
    head: _SomeBits = Field(default=[32, 8, 4], description="bits of the matrix that scores tokens")
    group: int = Field(
        32, ge=0, le=2**20, description="weights of 4 bits that share a scale; 0: a scale for each output"
    )
    cache: Literal[32, 16, 8, 4] = Field(32, description="bits of keys and values")
