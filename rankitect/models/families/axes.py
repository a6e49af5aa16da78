"""The axes along which a pretrained decoder is pruned, and which choice of a space decides each of them.

The names are stated here and nowhere else: the space `mobile_llm` names its choices by these constants, the table of a
family's weights (`family.Weight.dims`) says by them what each dimension counts, and whoever reads an architecture of
such a space asks the functions below which layers it drops or where it skips attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from rankitect.space.repeats import LAYERS, RUNS, repeats, running

if TYPE_CHECKING:
    from rankitect.space.choices import Choice, ChoiceValue

__all__ = [
    "ATTENTION_BITS",
    "CHANNELS",
    "DROPPED",
    "EMBED_BITS",
    "FFN",
    "FFN_BITS",
    "FULL",
    "HEAD_BITS",
    "KV_HEADS",
    "ONCE",
    "PATTERN",
    "QUERY_HEADS",
    "RUNS",
    "SKIP",
    "TWICE",
    "WINDOW",
    "AttentionPattern",
    "axis_of",
    "deciding",
    "drops",
    "is_bits",
    "layer",
    "layers",
    "number_of",
    "path",
    "paths",
    "skips",
    "whole",
]

CHANNELS = "width"
"""Channels of the residual stream, one choice for the whole model."""
KV_HEADS = "kv_heads"
"""Key/value heads of a layer."""
QUERY_HEADS = "group"
"""Query heads of each key/value head of a layer."""
FFN = "ffn"
"""Hidden units of a layer's feed-forward."""
PATTERN = "attn"
"""What a layer's attention sees: one of the values of `AttentionPattern`."""

ATTENTION_BITS = "attn_bits"
"""Bits of the weights of a layer's attention."""
FFN_BITS = "ffn_bits"
"""Bits of the weights of a layer's feed-forward."""
EMBED_BITS = "embed_bits"
"""Bits of the embedding's table, one choice for the whole model."""
HEAD_BITS = "head_bits"
"""Bits of the matrix that scores tokens, one choice for the whole model; it may be the embedding's table."""

AttentionPattern = Literal["full", "swa", "skip"]
"""Every earlier token, a sliding window of them, or no attention at all."""
FULL: AttentionPattern = "full"
WINDOW: AttentionPattern = "swa"
SKIP: AttentionPattern = "skip"

DROPPED, ONCE, TWICE = 0, 1, 2
"""How often a layer runs (the values of `RUNS`): depth is pruned by `DROPPED`, weights are shared by `TWICE`."""

_OF_LAYERS = frozenset({KV_HEADS, QUERY_HEADS, FFN, PATTERN, RUNS, ATTENTION_BITS, FFN_BITS})
_OF_ALL = frozenset({CHANNELS, KV_HEADS, QUERY_HEADS, FFN, EMBED_BITS, HEAD_BITS})
"""The axes that one choice may decide for the whole model, or for all layers: its name is the axis."""
_BITS = frozenset({ATTENTION_BITS, FFN_BITS, EMBED_BITS, HEAD_BITS})


def layer(number: int) -> str:
    """The scope of a layer.

    >>> layer(3)
    'layers.3'
    """
    return f"{LAYERS}.{number}"


def path(axis: str, scope: int | str) -> str:
    """The choice that decides an axis of one layer, given by its number or its scope.

    >>> path(FFN, 3), path(RUNS, "layers.0")
    ('layers.3.ffn', 'layers.0.runs')
    """
    return f"{layer(scope) if isinstance(scope, int) else scope}.{axis}"


def deciding(choices: Iterable[str], axis: str, scope: int | str) -> str:
    """The choice that decides an axis of a layer: its own, or the one for all layers where these are alike.

    >>> deciding(["width", "layers.0.ffn"], FFN, 0), deciding(["width", "ffn"], FFN, 0)
    ('layers.0.ffn', 'ffn')
    """
    return axis if axis in _OF_ALL and axis in choices else path(axis, scope)


def axis_of(choice: str) -> str | None:
    """The axis that a choice decides, of a layer or of all; None for a choice that decides no axis of a decoder.

    >>> axis_of("layers.3.ffn"), axis_of("width"), axis_of("ffn"), axis_of("optimizer.lr")
    ('ffn', 'width', 'ffn', None)
    """
    if choice in _OF_ALL:
        return choice
    scope, _, axis = choice.rpartition(".")
    return axis if axis in _OF_LAYERS and number_of(scope) is not None else None


def is_bits(choice: str) -> bool:
    """Whether a choice decides bits of weights.

    >>> is_bits("layers.3.ffn_bits"), is_bits("head_bits"), is_bits("layers.3.ffn")
    (True, True, False)
    """
    return axis_of(choice) in _BITS


def number_of(place: str) -> int | None:
    """The number of the layer that a choice, a node or an owner of weights is in; None outside of the layers.

    >>> number_of("layers.3.mlp"), number_of("embed")
    (3, None)
    """
    scope, _, rest = place.partition(".")
    number = rest.partition(".")[0]
    return int(number) if scope == LAYERS and number.isdecimal() else None


def paths(choices: Iterable[str], axis: str) -> list[str]:
    """Those of a space's choices that decide an axis, in the order in which they are given."""
    return [choice for choice in choices if axis_of(choice) == axis]


def layers(choices: Mapping[str, Any]) -> list[int]:
    """The numbers of all layers that have choices, dropped ones included."""
    return list(repeats(choices))


def drops(choices: Mapping[str, Choice]) -> bool:
    """Whether a space can drop a layer."""
    return any(DROPPED in choices[p].values for p in paths(choices, RUNS))


def skips(choices: Mapping[str, Any]) -> list[bool]:
    """For each layer that runs in an architecture, whether it skips attention; one that has none skips nothing."""
    return [own.get(PATTERN) == SKIP for own in running(choices).values()]


def whole(name: str, choice: Choice) -> ChoiceValue:
    """The value of a choice that keeps everything: the largest size, full attention, every layer once.

    A layer of a backbone that runs twice has that as its first value, and keeps it.
    """
    if axis_of(name) == RUNS:
        return TWICE if choice.values[0] == TWICE else ONCE
    if choice.numeric:
        return max(choice.values)
    return FULL if FULL in choice.values else choice.values[0]
