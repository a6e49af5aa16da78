"""config.json of models whose layers differ: NVIDIA's DeciLM (`nemotron-nas`), and those with this project's own code.

`block_configs` says of each layer what its attention and its feed-forward are. As everywhere, a key is understood, or
known to change nothing at its value, or refused by name. The code that such folders bring is not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rankitect.errors import AssetError, shown
from rankitect.models.checkpoints.layer_rotations import DECILM, OWN, ROTARY, ROTATIONS, LayerRotations, StatedLayer
from rankitect.models.checkpoints.own_code import CODE, check_classes
from rankitect.models.checkpoints.rotary import ROTARY_KEYS
from rankitect.models.families import FAMILIES, LLAMA, PLAIN, DecoderBlocks, DecoderConfig, LayerSizes
from rankitect.models.families.keys import HUGGINGFACE_IGNORED, HUGGINGFACE_NEUTRAL
from rankitect.models.families.values import LIMITS, Flag, Number, among, same

__all__ = ["ACTIVATIONS", "MAX_LAYERS", "layer_numbers", "read_layers"]

ACTIVATIONS = {"silu": "silu", "gelu_tanh": "gelu_pytorch_tanh"}
"""What `transformers` calls the activations of blocks."""
MAX_LAYERS = 10_000
_CLASSES = {OWN: "RankitectForCausalLM", DECILM: "DeciLMForCausalLM"}
_SIZES = {
    "vocab": "vocab_size",
    "d_model": "hidden_size",
    "norm_eps": "rms_norm_eps",
    "context": "max_position_embeddings",
}
_HEADS, _HEAD, _LAYERS, _TIED = "num_attention_heads", "head_dim", "num_hidden_layers", "tie_word_embeddings"
_BLOCKS, _FAMILY, _BIAS = "blocks", "family", "qkv_bias"
_EACH = "block_configs"
_REQUIRED: Mapping[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "num_key_value_heads": (None,),
    "intermediate_size": (None,),
}
_ATTENTION: Mapping[str, tuple[Any, ...]] = {
    "replace_with_linear": (False, None),
    "sparsify": (None,),
    "window_length": (None,),
    "num_sink_tokens": (None,),
    "use_prefill_window_in_sink_attention": (False, None),
    "unshifted_sink": (False, None),
    "mamba": (None,),
    "llama4": (None,),
}
_FFN: Mapping[str, tuple[Any, ...]] = {
    "replace_with_linear": (False, None),
    "sparsify": (None,),
    "gated": (True, None),
    "hidden_act": ("silu", None),
    "moe": (None,),
}
"""Keys of a part of a layer that change what it computes, with the values at which they do not."""
_SAID_BY_LAYER = ("windows", "rotary", "local", "rope_scaling", "local_rope_base")
"""Fields of blocks that `block_configs` and `rotations` say."""
_MULTIPLE = 256
_WIDTH = Number(1, 2**31 - 1)
_INDEX = Number(0, 1)
_MULTIPLIER = Number(1e-4, 1e4, whole=False)


def read_layers(raw: Mapping[str, Any], where: str) -> DecoderConfig:
    """The sizes of a model whose layers may differ. Layers that compute nothing are left out (`layer_numbers`).

    Args:
        raw: The content of config.json; its `model_type` is one of `BY_LAYER`.
        where: The file, for errors.

    Raises:
        AssetError: Something is missing, or cannot be a model's, or is not understood.
    """
    _check_keys(raw, where)
    numbers: dict[str, Any] = {name: raw.get(key) for name, key in _SIZES.items()}
    for name, key in _SIZES.items():
        LIMITS[name].check(numbers[name], f"{where}: {key}")
    LIMITS["n_heads"].check(raw.get(_HEADS), f"{where}: {_HEADS}")
    head = numbers["d_model"] // raw[_HEADS] if raw.get(_HEAD) is None else raw[_HEAD]
    LIMITS["head_dim"].check(head, f"{where}: {_HEAD}")
    tied = False if raw.get(_TIED) is None else raw[_TIED]
    Flag().check(tied, f"{where}: {_TIED}")
    layers = [layer for layer in _layers(raw, numbers["d_model"], where) if layer.kv_heads or layer.ffn]
    if not layers:
        raise AssetError(f"{where}: no layer of {_EACH} computes anything.")
    numbers |= {"norm_eps": float(numbers["norm_eps"]), "head_dim": head, "tied_embeddings": tied}
    try:
        rotations = LayerRotations.read(raw, numbers["context"], layers, where)
        family, blocks = _family_and_blocks(raw, where)
        base = rotations.main.base
        config = DecoderConfig(
            **numbers, n_layers=1, n_heads=1, n_kv_heads=1, ffn=1, family=family, rope_base=base
        ).with_layers([LayerSizes(layer.kv_heads, layer.group, layer.ffn) for layer in layers])
        config = replace(config, blocks=replace(blocks, **rotations.fields(layers)))
        rotations.check_turns(raw, config.head_dim // 2, where)
    except AssetError as error:
        raise error if str(error).startswith(where) else AssetError(f"{where}: {error}") from error
    return config


def layer_numbers(raw: Mapping[str, Any]) -> list[int]:
    """The numbers of the layers that compute something, of a model that `read_layers` has read."""
    parts = ("attention", "ffn")
    return [number for number, block in enumerate(raw[_EACH]) if not all(block[part].get("no_op") for part in parts)]


def _check_keys(raw: Mapping[str, Any], where: str) -> None:
    """Refuse what is not understood, or would compute something else."""
    model_type, given = raw["model_type"], raw.get("architectures")
    architecture = _CLASSES[model_type]
    allowed = [architecture, architecture.replace("ForCausalLM", "Model")]
    if given is not None and not (isinstance(given, list) and all(name in allowed for name in given)):
        raise AssetError(f"{where}: architectures is {shown(given)}. Supported: {allowed[:1]}.")
    sources = ["rankitect", *(["decilm"] if model_type == DECILM else [])]
    base = architecture.removesuffix("ForCausalLM")
    code = {
        "AutoConfig": [f"configuration_{source}.{base}Config" for source in sources],
        "AutoModelForCausalLM": [f"modeling_{source}.{architecture}" for source in sources],
    }
    check_classes(raw.get(CODE), code, architecture, where)
    understood = {*_SIZES.values(), _HEADS, _HEAD, _LAYERS, _TIED, _BLOCKS, ROTARY, ROTATIONS, _FAMILY, _BIAS, _EACH}
    understood |= {CODE, *(ROTARY_KEYS if model_type == DECILM else ())}
    neutral = {**HUGGINGFACE_NEUTRAL, **_REQUIRED, "hidden_act": _activations(raw)}
    for key, value in raw.items():
        if key in understood or key in HUGGINGFACE_IGNORED or value is None:
            continue
        if key not in neutral:
            raise AssetError(f"{where}: {shown(key)} is {shown(value)}, and no {base} that is understood has this key.")
        if not among(value, neutral[key]):
            raise AssetError(f"{where}: {key} is {shown(value)}. Supported: {' or '.join(map(repr, neutral[key]))}.")


def _activations(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """What `hidden_act` may be: that of the blocks, or, as earlier versions wrote it beside any blocks, "silu"."""
    stated = raw.get(_BLOCKS)
    act = stated.get("act") if isinstance(stated, dict) else None
    own = [name for blocks, name in ACTIVATIONS.items() if blocks == act]
    return tuple(dict.fromkeys(["silu", *own]))


def _layers(raw: Mapping[str, Any], width: int, where: str) -> list[StatedLayer]:
    blocks, count = raw.get(_EACH), raw.get(_LAYERS)
    if not isinstance(blocks, list) or not 0 < len(blocks) <= MAX_LAYERS:
        raise AssetError(f"{where}: {_EACH} is {shown(blocks)}; it must be a list of up to {MAX_LAYERS:,} layers.")
    if count is not None and not same(count, len(blocks)):
        raise AssetError(f"{where}: {_LAYERS} is {shown(count)}, but {_EACH} has {len(blocks)} layers.")
    layers = []
    for number, block in enumerate(blocks):
        place = f"{where}: {_EACH}[{number}]"
        if not isinstance(block, dict):
            raise AssetError(f"{place} is {shown(block)}; it must be a mapping.")
        more = sorted(str(key) for key, value in block.items() if key not in ("attention", "ffn") and value is not None)
        if more:
            raise AssetError(f"{place}: {shown(more[0])} is not understood.")
        kv_heads, group, window, rotary = _attention(_part(block, "attention", _ATTENTION, place), raw, place)
        ffn = _ffn(_part(block, "ffn", _FFN, place), width, f"{place}.ffn")
        layers.append(StatedLayer(kv_heads, group, ffn, window, rotary))
    most = max(1, *(layer.kv_heads * layer.group for layer in layers))
    if raw["model_type"] == OWN and raw[_HEADS] != most:
        raise AssetError(f"{where}: {_HEADS} is {raw[_HEADS]}, but the most that a layer has is {most}.")
    return layers


_KNOWN = {
    "attention": ("no_op", "n_heads_in_group", "num_key_value_heads", "window", ROTARY),
    "ffn": ("no_op", "intermediate_size", "ffn_mult"),
}


def _part(block: Mapping[str, Any], name: str, neutral: Mapping[str, tuple[Any, ...]], place: str) -> dict[str, Any]:
    """What is said of a layer's attention, or of its feed-forward."""
    part = block.get(name)
    if not isinstance(part, dict):
        raise AssetError(f"{place}.{name} is {shown(part)}; it must be a mapping.")
    Flag().check(part.get("no_op", False), f"{place}.{name}.no_op")
    for key, value in part.items():
        if key in _KNOWN[name] or value is None:
            continue
        if key not in neutral:
            raise AssetError(f"{place}.{name}: {shown(key)} is {shown(value)}, which is not understood.")
        if not among(value, neutral[key]):
            allowed = " or ".join(map(repr, neutral[key]))
            raise AssetError(f"{place}.{name}.{key} is {shown(value)}. Supported: {allowed}.")
    return part


def _attention(part: Mapping[str, Any], raw: Mapping[str, Any], place: str) -> tuple[int, int, int | None, int | None]:
    """Key/value heads, query heads of each, the window, and the number of the rotation; none for no attention."""
    if part.get("no_op"):
        return 0, 0, None, None
    heads: int = raw[_HEADS]
    group: Any = part.get("n_heads_in_group")
    kv: Any = part.get("num_key_value_heads")
    _WIDTH.check(group, f"{place}.attention.n_heads_in_group")
    if kv is None and raw["model_type"] == DECILM:
        kv = heads // group
    _WIDTH.check(kv, f"{place}.attention.num_key_value_heads")
    if raw["model_type"] == DECILM and kv * group != heads:
        raise AssetError(
            f"{place}.attention has key/value heads of {group} query heads each (n_heads_in_group), but {_HEADS} is "
            f"{heads}."
        )
    window, rotary = part.get("window"), part.get(ROTARY)
    if window is not None:
        _WIDTH.check(window, f"{place}.attention.window")
    if raw["model_type"] == DECILM:
        if window is not None or not among(rotary, (0, None)):
            raise AssetError(f"{place}.attention has a window or positions of its own, and layers of DeciLM have none.")
        rotary = 0
    if rotary is not None:
        _INDEX.check(rotary, f"{place}.attention.{ROTARY}")
    return kv, group, window, rotary


def _ffn(part: Mapping[str, Any], width: int, place: str) -> int:
    """The width of a feed-forward; 0 for none."""
    if part.get("no_op"):
        return 0
    stated, multiplier = part.get("intermediate_size"), part.get("ffn_mult")
    if multiplier is None:
        _WIDTH.check(stated, f"{place}.intermediate_size")
        return int(stated)  # type: ignore[arg-type]
    _MULTIPLIER.check(multiplier, f"{place}.ffn_mult")
    multiplied = -(-int(2 * multiplier * width / 3) // _MULTIPLE) * _MULTIPLE
    if stated is not None and not same(stated, multiplied):
        raise AssetError(f"{place}: intermediate_size is {shown(stated)}, but ffn_mult means {multiplied}.")
    return multiplied


def _family_and_blocks(raw: Mapping[str, Any], where: str) -> tuple[str, DecoderBlocks]:
    """The name of the family, and what its blocks compute, apart from what is said by layer."""
    given, bias = raw.get(_BLOCKS), raw.get(_BIAS)
    bias = False if bias is None else bias
    Flag().check(bias, f"{where}: {_BIAS}")
    blocks = replace(PLAIN, bias=bias) if given is None else DecoderBlocks.from_json(given)
    by_layer = next((name for name in _SAID_BY_LAYER if vars(blocks)[name] != vars(PLAIN)[name]), None)
    if by_layer is not None:
        raise AssetError(f"{where}: {_BLOCKS} has {by_layer!r}, which is said by layer.")
    if blocks.bias != bias or (raw["model_type"] == DECILM and blocks != replace(PLAIN, bias=bias)):
        raise AssetError(f"{where}: {_BLOCKS} is {shown(given)} and {_BIAS} is {bias}, which contradict each other.")
    usual = "qwen2" if bias else LLAMA.name
    name = raw.get(_FAMILY, usual if raw["model_type"] == DECILM else None)
    if not isinstance(name, str) or name not in FAMILIES:
        raise AssetError(f"{where}: {_FAMILY} is {shown(name)}. Supported: {', '.join(map(repr, FAMILIES))}.")
    own = FAMILIES[name].blocks
    if (own.bias, own.qk_norm, own.norms) != (blocks.bias, blocks.qk_norm, blocks.norms):
        raise AssetError(f"{where}: {_FAMILY} is {name!r}, whose blocks are not those of {_BLOCKS}, {shown(given)}.")
    return name, blocks
