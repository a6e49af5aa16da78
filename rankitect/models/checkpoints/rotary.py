"""What config.json says about rotary positions: one fact that has had many spellings.

RoPE's base stands beside the other sizes (`rope_theta`), or with its scaling in a mapping that `transformers` 5 calls
`rope_parameters` and earlier versions `rope_scaling`; a class whose layers with a window have a base of their own has
one mapping for each kind of layer. A scaling that scales nothing is none, one that is not known is refused by name, and
so is any key that nobody here knows. A key that is null states nothing. What is stated twice must mean one thing,
however it is spelled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rankitect.errors import AssetError, shown
from rankitect.models.families import HuggingFaceFormat
from rankitect.models.families.blocks import SCALING_NUMBERS, SCALINGS, Rotation
from rankitect.models.families.keys import BASE, FULL, KIND, LOCAL, SCALING_KEYS
from rankitect.models.families.values import ROPE_BASE, Number, among

__all__ = ["ROTARY_KEYS", "read_rotation"]

_NESTED, _SCALING = _MAPPINGS = ("rope_parameters", "rope_scaling")
_PART, _ORIGINAL = "partial_rotary_factor", "original_max_position_embeddings"
_OLD_KIND = "type"
_KINDS = (KIND, _OLD_KIND)
_PLAIN, _YARN = "default", "yarn"
_FACTOR, _ATTENTION = "factor", "attention_factor"
_YARN_DEFAULTS = {"beta_fast": 32, "beta_slow": 1, "truncate": True}
_MSCALES = ("mscale", "mscale_all_dim")
ROTARY_KEYS = frozenset({*_MAPPINGS, BASE, _PART, _ORIGINAL})
"""The keys of config.json that are read here."""


def read_rotation(
    raw: Mapping[str, Any], layout: HuggingFaceFormat, context: int, where: str
) -> tuple[Rotation, float | None]:
    """How RoPE turns heads, and its base in layers with a window where that is another.

    Args:
        raw: The content of config.json.
        layout: Of the model's family.
        context: The longest sequence, tokens.
        where: The file, for errors.

    Raises:
        AssetError: RoPE is on a part of each head, or is scaled or described in a way that is not understood, or two
            statements contradict each other.
    """
    reader = _Reader(layout, context, where, {key: raw[key] for key in (BASE, _PART, _ORIGINAL) if key in raw})
    mappings = {name: _mapping(raw.get(name), f"{where}: {name}") for name in _MAPPINGS}
    if layout.local_base is None:
        return reader.one(mappings, layout.defaults["rope_base"], BASE), None
    nested = mappings.pop(_NESTED)
    if KIND not in mappings[_SCALING] and _OLD_KIND in mappings[_SCALING]:  # the class leaves it out of account
        raise AssetError(f"{where}: {_SCALING}.{_OLD_KIND} is stated. Supported: {KIND}.")
    unknown = sorted(nested.keys() - {FULL, LOCAL})
    if unknown:
        raise AssetError(f"{where}: {_NESTED} has {shown(unknown[0])}. Supported: {FULL!r} and {LOCAL!r}.")
    of = {kind: _mapping(nested.get(kind), f"{where}: {_NESTED}.{kind}") for kind in (FULL, LOCAL)}
    whole = reader.one({f"{_NESTED}.{FULL}": of[FULL], **mappings}, layout.defaults["rope_base"], BASE)
    beside = {BASE: raw[layout.local_base]} if layout.local_base in raw else {}
    local = _Reader(layout, context, where, beside)
    windowed = local.one({f"{_NESTED}.{LOCAL}": of[LOCAL]}, layout.defaults["local_rope_base"], layout.local_base)
    if windowed.scaling:
        raise AssetError(f"{where}: {_NESTED}.{LOCAL} is scaled RoPE. Only plain RoPE is supported there.")
    return whole, windowed.base


class _Reader:
    """Reads descriptions of RoPE.

    Args:
        layout: Of the model's family.
        context: The longest sequence, tokens.
        where: The file, for errors.
        beside: What stands beside the sizes.
    """

    def __init__(self, layout: HuggingFaceFormat, context: int, where: str, beside: Mapping[str, Any]) -> None:
        self._layout, self._context, self._where = layout, context, where
        self._beside = {key: value for key, value in beside.items() if value is not None}

    def one(self, mappings: Mapping[str, Mapping[str, Any]], default: float, key: str) -> Rotation:
        """What several statements say, if it is one thing.

        Args:
            mappings: What each mapping states, by its name; nothing for one that is not there.
            default: The base where none is stated.
            key: Of the base that stands beside the sizes.
        """
        beside = f"{self._where}: "
        bases: dict[str, float] = {}
        if BASE in self._beside:
            ROPE_BASE.check(self._beside[BASE], f"{beside}{key}")
            bases[key] = float(self._beside[BASE])
        self._whole_heads(self._beside, beside)
        fallback = bases.get(key, default)
        scalings: dict[str, tuple[str | float, ...]] = {}
        for name, statements in mappings.items():
            if not statements:
                continue
            scalings[name] = self._scaling(statements, f"{beside}{name}.")
            # whoever reads this mapping takes a base that it does not state from beside it, or the default
            bases[f"{name}.{BASE}" if BASE in statements else name] = float(statements.get(BASE, fallback))
        if not scalings:
            self._check_original(self._beside, beside)
        if len(set(bases.values())) > 1:
            said = ", ".join(f"{at} {'means' if at in mappings else 'is'} {base}" for at, base in bases.items())
            raise AssetError(f"{self._where}: RoPE's base is stated more than once, and differently: {said}.")
        if len(set(scalings.values())) > 1:
            raise AssetError(f"{self._where}: {' and '.join(scalings)} describe different scalings of RoPE.")
        return Rotation(next(iter(bases.values()), default), next(iter(scalings.values()), ()))

    def _whole_heads(self, statements: Mapping[str, Any], place: str) -> None:
        if _PART in statements and not among(statements[_PART], (1,)):
            raise AssetError(f"{place}{_PART} is {shown(statements[_PART])}. Only RoPE on whole heads is supported.")

    def _check_original(self, statements: Mapping[str, Any], place: str) -> None:
        """Where nothing is scaled, the context that was there before a scaling is the only one."""
        if _ORIGINAL in statements and not among(statements[_ORIGINAL], (self._context,)):
            raise AssetError(f"{place}{_ORIGINAL} is {shown(statements[_ORIGINAL])}, and RoPE is not scaled from it.")

    def _scaling(self, statements: Mapping[str, Any], place: str) -> tuple[str | float, ...]:
        """The scaling that a mapping describes; empty for none.

        Raises:
            AssetError: It is none that is understood.
        """
        self._whole_heads(statements, place)
        if BASE in statements:
            ROPE_BASE.check(statements[BASE], place + BASE)
        kinds = {kind: statements[kind] for kind in _KINDS if kind in statements}
        for kind, value in kinds.items():
            allowed = (_PLAIN, *sorted(self._layout.scalings))
            if not among(value, allowed):
                raise AssetError(f"{place}{kind} is {shown(value)}. Supported: {' or '.join(map(repr, allowed))}.")
        if len(set(kinds.values())) > 1:
            raise AssetError(f"{place}{' and '.join(kinds)} name different scalings.")
        scaling = next(iter(kinds.values()), _PLAIN)
        takes = () if scaling == _PLAIN else tuple(key for key in SCALING_KEYS[scaling] if key is not None)
        neutral = {_FACTOR: (1,), _ATTENTION: (1,)}
        for key, value in statements.items():
            known = {*_KINDS, BASE, _PART, _ORIGINAL, *takes, *(_MSCALES if scaling == _YARN else ())}
            if key not in known and not among(value, neutral.get(key, ())):
                raise AssetError(f"{place}{key} is {shown(value)}, which the RoPE of kind {scaling!r} does not have.")
        if _ORIGINAL not in takes:
            self._check_original({**self._beside, **statements}, place)
        if scaling == _PLAIN:
            return ()
        numbers = self._numbers(scaling, takes, statements, place)
        return () if scaling == "linear" and numbers == (1,) else (scaling, *numbers)

    def _numbers(
        self, scaling: str, takes: tuple[str, ...], statements: Mapping[str, Any], place: str
    ) -> tuple[float, ...]:
        """The numbers of a scaling, in the order in which the block takes them."""
        given = dict(statements)
        if _ORIGINAL in takes:
            both = [one for one in (self._beside.get(_ORIGINAL), statements.get(_ORIGINAL)) if one is not None]
            if len(both) > 1 and both[0] != both[1]:
                raise AssetError(f"{place}{_ORIGINAL} is {shown(both[1])}, beside it {shown(both[0])}.")
            given[_ORIGINAL] = both[0] if both else self._context
        if scaling == _YARN:
            given = {**_YARN_DEFAULTS, **given}
            if _ATTENTION not in given and _FACTOR in given:
                given[_ATTENTION] = _attention_factor(given, place)
        missing = [key for key in takes if key not in given]
        if missing:
            raise AssetError(f"{place}{missing[0]} is missing; the scaling {scaling!r} needs one.")
        keys = dict(zip(SCALINGS[scaling], SCALING_KEYS[scaling], strict=True))
        for number, key in keys.items():
            if key is not None:
                SCALING_NUMBERS[number].check(given[key], place + key)
        return tuple(self._context if key is None else given[key] for key in keys.values())


def _attention_factor(given: Mapping[str, Any], place: str) -> float:
    """YaRN's factor of heads, where it follows from others (arXiv 2309.00071, section 3.4)."""
    for key in (_FACTOR, *(key for key in _MSCALES if key in given)):
        Number(0, 1e6, whole=False).check(given[key], place + key)

    def scale(by: float) -> float:
        return 0.1 * by * math.log(given[_FACTOR]) + 1.0 if given[_FACTOR] > 1 else 1.0

    own, all_dims = (given.get(key) for key in _MSCALES)
    return scale(own) / scale(all_dims) if own and all_dims else scale(1)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    """What a description of RoPE states; nothing, for null.

    Raises:
        AssetError: It is neither a mapping nor null.
    """
    if value is not None and not isinstance(value, dict):
        raise AssetError(f"{what} is {shown(value)}; it must be a mapping, or null.")
    return {key: stated for key, stated in (value or {}).items() if stated is not None}
