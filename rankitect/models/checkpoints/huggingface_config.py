"""Reading config.json: every key is understood, or known to change nothing, or refused by name.

Which keys a family understands, and at which values others are neutral, is stated by its `HuggingFaceFormat`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rankitect.errors import AssetError, closest, shown
from rankitect.models.checkpoints.huggingface_layers import MAX_LAYERS, read_layers
from rankitect.models.checkpoints.layer_rotations import BY_LAYER
from rankitect.models.checkpoints.mobilellm import MODEL_TYPE as MOBILELLM
from rankitect.models.checkpoints.mobilellm import as_llama
from rankitect.models.checkpoints.own_code import CODE, check_code
from rankitect.models.checkpoints.rotary import ROTARY_KEYS, read_rotation
from rankitect.models.families import FAMILIES, DecoderBlocks, DecoderConfig, Family, HuggingFaceFormat
from rankitect.models.families.family import TextPart
from rankitect.models.families.keys import is_mixture
from rankitect.models.families.values import LIMITS, Number, among, same

__all__ = ["read_config"]

_SCORE = Number(1, 2**31 - 1)
_TIED = "tie_word_embeddings"
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
    if among(raw.get("model_type"), BY_LAYER):
        return read_layers(raw, where)
    raw, where = _text_part(as_llama(raw, where), where)
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
    rotation, local_base = read_rotation(raw, layout, numbers["context"], where)
    numbers["rope_base"] = rotation.base
    try:
        blocks = replace(
            _blocks(raw, family, numbers, where), rope_scaling=rotation.scaling, local_rope_base=local_base
        )
        return DecoderConfig(**numbers, family=family.name, blocks=blocks)
    except AssetError as error:
        raise error if str(error).startswith(where) else AssetError(f"{where}: {error}") from error


def _blocks(raw: Mapping[str, Any], family: Family, numbers: Mapping[str, Any], where: str) -> DecoderBlocks:
    """What the blocks of a model compute, apart from RoPE.

    Raises:
        AssetError: A key has a value that means nothing.
    """
    layout, layers, stated = family.huggingface, numbers["n_layers"], dict[str, Any]()
    if layers > MAX_LAYERS:
        raise AssetError(f"{where}: the model has {layers:,} layers; at most {MAX_LAYERS:,} are supported.")
    if layout.rotary is not None:
        stated["rotary"] = layout.rotary.read(raw, layers, where)
    if layout.windows is not None:
        stated["windows"] = layout.windows.read(raw, stated.get("rotary") or (True,) * layers, where)
    if layout.score_scale is not None and raw.get(layout.score_scale) is not None:
        _SCORE.check(raw[layout.score_scale], f"{where}: {layout.score_scale}")
        stated["score_scale"] = raw[layout.score_scale] ** -0.5
    if family.scales_embedding:
        stated["embed_scale"] = numbers["d_model"] ** 0.5
    return replace(family.blocks, **stated)


def _text_part(raw: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], str]:
    """The configuration of the text model, of a model that also sees images, and what to call it; else as given."""
    for layout in (family.huggingface for family in FAMILIES.values()):
        part = layout.text_part
        if part is not None and same(raw.get("model_type"), part.model_type):
            return _text_of(part, layout.neutral, raw, where), f"{where}: {part.key}"
    return raw, where


def _text_of(
    part: TextPart, neutral: Mapping[str, tuple[Any, ...]], raw: Mapping[str, Any], where: str
) -> Mapping[str, Any]:
    """The configuration of the text model of a model that also sees images.

    Raises:
        AssetError: It has none, or is stated in a way that is not understood.
    """
    given, text = raw.get("architectures"), raw.get(part.key)
    if given is not None and given != [part.architecture]:
        raise AssetError(f"{where}: architectures is {shown(given)}. Supported: {[part.architecture]}.")
    if not isinstance(text, dict):
        raise AssetError(f"{where}: {part.key} is {shown(text)}; it must be the configuration of the text model.")
    known = {part.key, _TIED, *part.ignored, *(key for key, values in neutral.items() if among(raw.get(key), values))}
    unknown = sorted(key for key, value in raw.items() if key not in known and value is not None)
    if unknown:
        raise AssetError(f"{where}: {shown(unknown[0])} is {shown(raw[unknown[0]])}, which is not understood.")
    for place, config in (("", raw), (f"{part.key}.", text)):
        if not among(config.get(_TIED), (True, None)):
            raise AssetError(f"{where}: {place}{_TIED} is {shown(config[_TIED])}. Supported: True.")
    return {"model_type": part.text_type, **text}


def _family(raw: Mapping[str, Any], where: str) -> Family:
    by_type = {family.huggingface.model_type: family for family in FAMILIES.values()}
    model_type = raw.get("model_type")
    if isinstance(model_type, str) and model_type in by_type:
        return by_type[model_type]
    parts = [family.huggingface.text_part for family in FAMILIES.values()]
    supported = [*by_type, MOBILELLM, *BY_LAYER, *(part.model_type for part in parts if part is not None)]
    name = model_type if isinstance(model_type, str) else ""
    mixture = ", a mixture of experts, which is not supported" if is_mixture(name) else ""
    near = closest(name, supported)
    nearest = f" The nearest to it is {near!r}." if near is not None else ""
    raise AssetError(
        f"{where}: model_type is {shown(model_type)}{mixture}. Supported: {', '.join(map(repr, supported))}.{nearest}"
    )


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
        allowed = f" Supported: {_listed(layout.required[missing[0]])}." if missing[0] in layout.required else ""
        raise AssetError(f"{where}: {missing[0]} is missing; a {family.title} must state it.{allowed}")
    check_code(raw.get(CODE), layout.model_type, layout.architecture, where)
    understood = {*layout.sizes.values(), *ROTARY_KEYS, *layout.of_layers, CODE}
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
        if name in _DERIVED and name not in layout.defaults:
            return None
        if name not in layout.defaults:
            raise AssetError(f"{where}: {key} is {'null' if key in raw else 'missing'}; it must be stated.")
        return layout.defaults[name]
    LIMITS[name].check(value, f"{where}: {key}")
    return value
