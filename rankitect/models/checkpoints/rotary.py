"""What config.json says about rotary positions: one fact that has had many spellings.

RoPE's base stands beside the other sizes (`rope_theta`), or with its scaling in a mapping that `transformers` 5 calls
`rope_parameters` and earlier versions `rope_scaling`. What is supported is plain RoPE on whole heads. A scaling that
scales nothing is plain; any other, and any key that nobody here knows, is refused by name. A key that is null states
nothing. What is stated twice must mean one thing, however it is spelled.
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
    beside = {key: raw[key] for key in (_BASE, _PART, _ORIGINAL) if raw.get(key) is not None}
    bases = {_BASE: float(beside[_BASE])} if _check(beside, f"{where}: ", context) else {}
    fallback = bases.get(_BASE, default)
    for name in _MAPPINGS:
        statements = _mapping(raw.get(name), f"{where}: {name}")
        if _check(statements, f"{where}: {name}.", context):
            bases[f"{name}.{_BASE}"] = float(statements[_BASE])
        elif statements:  # whoever reads this mapping takes the base from beside it, or the default
            bases[name] = fallback
    if len(set(bases.values())) > 1:
        said = ", ".join(f"{key} is {base}" if _BASE in key else f"{key} means {base}" for key, base in bases.items())
        raise AssetError(f"{where}: RoPE's base is stated more than once, and differently: {said}.")
    return next(iter(bases.values()), default)


def _check(statements: Mapping[str, Any], place: str, context: int) -> bool:
    """Check that statements describe plain RoPE; give whether its base is one of them.

    Raises:
        AssetError: They describe another, or in a way that is not understood.
    """
    for key, value in statements.items():
        if key == _BASE:
            ROPE_BASE.check(value, place + key)
        elif not among(value, _neutral(key, context)):
            raise AssetError(f"{place}{key} is {shown(value)}. Only plain RoPE on whole heads is supported.")
    if any(statements.get(kind) == _LINEAR for kind in _KINDS) and _FACTOR not in statements:
        raise AssetError(f"{place}{_FACTOR} is missing; the scaling {_LINEAR!r} needs one.")
    return _BASE in statements


def _mapping(value: Any, what: str) -> dict[str, Any]:
    """What a description of RoPE states; nothing, for null.

    Raises:
        AssetError: It is neither a mapping nor null.
    """
    if value is not None and not isinstance(value, dict):
        raise AssetError(f"{what} is {shown(value)}; it must be a mapping, or null.")
    return {key: stated for key, stated in (value or {}).items() if stated is not None}


def _neutral(key: str, context: int) -> tuple[Any, ...]:
    """The values of a key that leave RoPE plain."""
    if key in _KINDS:
        return ("default", _LINEAR)  # linear scaling divides by its factor, which must be 1
    if key in (_FACTOR, "attention_factor", _PART):
        return (1,)
    return (context,) if key == _ORIGINAL else ()
