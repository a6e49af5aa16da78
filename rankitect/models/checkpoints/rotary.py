"""What config.json says about rotary positions: one fact that has had many spellings.

RoPE's base stands beside the other sizes (`rope_theta`), or with its scaling in a mapping that `transformers` 5 calls
`rope_parameters` and earlier versions `rope_scaling`. What is supported is plain RoPE on whole heads. A scaling that
scales nothing is plain; any other, and any key that nobody here knows, is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankitect.errors import AssetError, shown
from rankitect.models.families.values import ROPE_BASE, among

__all__ = ["ROTARY_KEYS", "rope_base"]

_MAPPINGS = ("rope_parameters", "rope_scaling")
_BASE, _PART, _ORIGINAL = "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"
_KINDS = ("rope_type", "type")
_LINEAR, _FACTOR = "linear", "factor"
ROTARY_KEYS = frozenset({*_MAPPINGS, _BASE, _PART, _ORIGINAL})
"""The keys of config.json that are read here."""


def rope_base(raw: Mapping[str, Any], default: float, context: int, where: str) -> float:
    """RoPE's base, where config.json describes plain RoPE.

    Args:
        raw: The content of config.json.
        default: The base where none is stated.
        context: The longest sequence, tokens.
        where: The file, for errors.

    Raises:
        AssetError: RoPE is scaled, or on a part of each head, or is described in a way that is not understood, or two
            statements contradict each other.
    """
    mappings = {key: _mapping(raw[key], f"{where}: {key}") for key in _MAPPINGS if key in raw}
    places = {"": {key: raw[key] for key in (_BASE, _PART, _ORIGINAL) if key in raw}}
    places |= {f"{key}.": mapping for key, mapping in mappings.items()}
    bases: dict[str, float] = {}
    for place, statements in places.items():
        for key, value in statements.items():
            name = f"{where}: {place}{key}"
            if key == _BASE:
                ROPE_BASE.check(value, name)
                bases[place + key] = float(value)
            elif value is not None and not among(value, _neutral(key, context)):
                raise AssetError(f"{name} is {shown(value)}. Only plain RoPE on whole heads is supported.")
        if any(statements.get(kind) == _LINEAR for kind in _KINDS) and statements.get(_FACTOR) is None:
            raise AssetError(f"{where}: {place}{_FACTOR} is missing; the scaling {_LINEAR!r} needs one.")
    stated = [mapping for mapping in mappings.values() if mapping]
    if len(stated) > 1 and stated[0] != stated[1]:
        raise AssetError(f"{where}: {' and '.join(_MAPPINGS)} say different things about RoPE.")
    if len(set(bases.values())) > 1:
        said = ", ".join(f"{key} is {base}" for key, base in bases.items())
        raise AssetError(f"{where}: RoPE's base is stated more than once, and differently: {said}.")
    return next(iter(bases.values()), default)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    """A description of RoPE, empty for null.

    Raises:
        AssetError: It is neither.
    """
    if value is not None and not isinstance(value, dict):
        raise AssetError(f"{what} is {shown(value)}; it must be a mapping, or null.")
    return value or {}


def _neutral(key: str, context: int) -> tuple[Any, ...]:
    """The values of a key that leave RoPE plain."""
    if key in _KINDS:
        return ("default", _LINEAR)  # linear scaling divides by its factor, which must be 1
    if key in (_FACTOR, "attention_factor", _PART):
        return (1,)
    return (context,) if key == _ORIGINAL else ()
