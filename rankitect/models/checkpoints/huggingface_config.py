"""Reading config.json: every key is understood, or known to change nothing, or refused by name.

Which keys a family understands, and at which values others are neutral, is stated by its `HuggingFaceFormat`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankitect.errors import AssetError, shown
from rankitect.models.checkpoints.rotary import ROTARY_KEYS, rope_base
from rankitect.models.families import FAMILIES, DecoderConfig, Family, HuggingFaceFormat
from rankitect.models.families.values import LIMITS, among

__all__ = ["read_config"]

_DERIVED = ("n_kv_heads", "head_dim")
"""Numbers that follow from others where a file leaves them out, or says null."""


def read_config(raw: Mapping[str, Any], where: str) -> DecoderConfig:
    """The sizes of a model.

    Args:
        raw: The content of config.json.
        where: The file, for errors.

    Raises:
        AssetError: The model is of no supported family, a number is missing or cannot be one, or a key would change
            what the model computes.
    """
    family = _family(raw, where)
    layout = family.huggingface
    _check_architectures(raw.get("architectures"), layout, where)
    _check_keys(raw, family, where)
    numbers = {name: _number(raw, name, key, layout, where) for name, key in layout.sizes.items()}
    if numbers["n_kv_heads"] is None:
        numbers["n_kv_heads"] = numbers["n_heads"]
    if numbers["head_dim"] is None:
        numbers["head_dim"] = numbers["d_model"] // numbers["n_heads"]
    numbers["norm_eps"] = float(numbers["norm_eps"])
    numbers["rope_base"] = rope_base(raw, layout.defaults["rope_base"], numbers["context"], where)
    try:
        return DecoderConfig(**numbers, family=family.name)
    except AssetError as error:
        raise AssetError(f"{where}: {error}") from error


def _family(raw: Mapping[str, Any], where: str) -> Family:
    by_type = {family.huggingface.model_type: family for family in FAMILIES.values()}
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in by_type:
        raise AssetError(f"{where}: model_type is {shown(model_type)}. Supported: {', '.join(map(repr, by_type))}.")
    return by_type[model_type]


def _check_architectures(given: Any, layout: HuggingFaceFormat, where: str) -> None:
    """Refuse a model with another output than the next token's, or of another class than its type's."""
    allowed = [layout.architecture, layout.architecture.replace("ForCausalLM", "Model")]
    if given is not None and not (isinstance(given, list) and all(name in allowed for name in given)):
        raise AssetError(f"{where}: architectures is {shown(given)}. Supported: {allowed[:1]}.")


def _check_keys(raw: Mapping[str, Any], family: Family, where: str) -> None:
    """Refuse what would compute something else than the family's blocks do, or might."""
    layout = family.huggingface
    missing = sorted(layout.explicit - raw.keys())
    if missing:
        allowed = _listed(layout.required[missing[0]])
        raise AssetError(f"{where}: {missing[0]} is missing; a {family.title} must state it. Supported: {allowed}.")
    understood = {*layout.sizes.values(), *ROTARY_KEYS}
    for key, value in raw.items():
        if key in layout.required:
            if not among(value, layout.required[key]):
                raise AssetError(f"{where}: {key} is {shown(value)}. Supported: {_listed(layout.required[key])}.")
        elif key in understood or key in layout.ignored or value is None:
            continue
        elif key not in layout.neutral:
            raise AssetError(
                f"{where}: {shown(key)} is {shown(value)}, and no {family.title} that is understood has this key. "
                "If it changes nothing that the model computes, remove it from the file."
            )
        elif not among(value, layout.neutral[key]):
            raise AssetError(f"{where}: {key} is {shown(value)}. Supported: {_listed(layout.neutral[key])}.")


def _listed(values: tuple[Any, ...]) -> str:
    return " or ".join(map(repr, values))


def _number(raw: Mapping[str, Any], name: str, key: str, layout: HuggingFaceFormat, where: str) -> Any:
    """A number of the model, its default where none is stated, or None for one that follows from others.

    Raises:
        AssetError: It is missing, or of the wrong type, or out of range.
    """
    value = raw.get(key)
    if value is None:  # null states nothing
        if name in _DERIVED:
            return None
        if name not in layout.defaults:
            raise AssetError(f"{where}: {key} is {'null' if key in raw else 'missing'}; it must be stated.")
        return layout.defaults[name]
    LIMITS[name].check(value, f"{where}: {key}")
    return value
