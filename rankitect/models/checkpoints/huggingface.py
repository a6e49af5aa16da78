"""Pretrained models in Hugging Face folders (config.json, safetensors, tokenizer.json), without `transformers`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.data.files import write_atomically
from rankitect.data.tokenizer import Tokenizer, load_tokenizer
from rankitect.errors import AssetError
from rankitect.models.checkpoints.checkpoint import DecoderCheckpoint, check_tensors
from rankitect.models.families import FAMILIES, DecoderConfig, Family, family_of

if TYPE_CHECKING:
    import torch

__all__ = ["load_huggingface", "save_huggingface"]

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def load_huggingface(folder: Path) -> DecoderCheckpoint:
    """Load a model of a supported family from a Hugging Face folder.

    Args:
        folder: Holds config.json (its ``model_type`` names a supported family), model.safetensors or its shards with
            their index, and tokenizer.json.

    Returns:
        The checkpoint, tensors converted to float32.

    Raises:
        AssetError: A file is missing or damaged, or the model is of an unsupported kind.
    """
    config = _config(_read_json(folder / "config.json"), folder / "config.json")
    tensors: dict[str, torch.Tensor] = {}
    for file in _weight_files(folder):
        tensors |= _read_weights(file)
    if config.tied_embeddings:
        tensors.pop(family_of(config).head.huggingface, None)  # some writers repeat the tied embedding
    check_tensors(config, tensors, str(folder))
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > config.vocab:
        sizes = f"the tokenizer has {tokenizer.vocab_size} tokens, but the embedding has only {config.vocab} rows"
        raise AssetError(f"{folder}: {sizes}.")
    return DecoderCheckpoint(config, tensors, tokenizer, str(folder))


def save_huggingface(
    folder: str | Path, config: DecoderConfig, tensors: Mapping[str, torch.Tensor], tokenizer: Tokenizer | None = None
) -> None:
    """Write a model as a folder that ``transformers.AutoModelForCausalLM.from_pretrained(folder)`` loads.

    Every file is written atomically, config.json last: where it is, the model is whole.

    Args:
        folder: Created if it does not exist; other files in it are left alone.
        config: The model's sizes and family.
        tensors: float32 tensors in Hugging Face's names and layout, exactly those of `tensor_shapes`.
        tokenizer: Also written, with ``tokenizer_config.json``; None writes a folder without tokenizer.

    Raises:
        AssetError: The tensors are not those of the config.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    check_tensors(config, tensors, str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)
    # slices of a supernet share storage with it; clones do not, and only they may be stored
    own = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    write_atomically(folder / _WEIGHTS, lambda part: save_file(own, part, metadata={"format": "pt"}))
    special = dict(tokenizer.special_ids) if tokenizer else {}
    ids = {f"{role}_token_id": special[role] for role in ("bos", "eos", "pad") if role in special}
    if tokenizer:
        tokenizer.save(folder)
    _write_json(folder / "generation_config.json", ids)
    dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in own.values()}
    _write_json(folder / "config.json", _to_huggingface(config, ids, dtypes.pop() if len(dtypes) == 1 else "float32"))


def _to_huggingface(config: DecoderConfig, ids: Mapping[str, int], dtype: str) -> dict[str, Any]:
    layout = family_of(config).huggingface
    return {
        "architectures": [layout.architecture],
        "model_type": layout.model_type,
        "vocab_size": config.vocab,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn,
        "rope_theta": config.rope_base,  # for transformers 4; 5 reads the next line
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_embeddings,
        "max_position_embeddings": config.context,
        **layout.required,
        **layout.written,
        "torch_dtype": dtype,
        "bos_token_id": ids.get("bos_token_id"),  # null, or transformers would take the ids of Llama 1
        "eos_token_id": ids.get("eos_token_id"),
        "pad_token_id": ids.get("pad_token_id"),
    }


def _family(raw: Mapping[str, Any], file: Path) -> Family:
    by_type = {family.huggingface.model_type: family for family in FAMILIES.values()}
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in by_type:
        raise AssetError(f"{file}: model_type is {model_type!r}. Supported: {', '.join(map(repr, by_type))}.")
    return by_type[model_type]


def _config(raw: Mapping[str, Any], file: Path) -> DecoderConfig:
    """Read config.json's content, with the defaults that `transformers` gives to what is absent."""
    family = _family(raw, file)
    layout = family.huggingface
    rope = dict(raw.get("rope_parameters") or {})
    scaling = dict(raw.get("rope_scaling") or {})
    kind = str(scaling.get("rope_type") or scaling.get("type") or rope.get("rope_type") or "default")
    if kind != "default" or float(rope.get("partial_rotary_factor") or raw.get("partial_rotary_factor") or 1.0) != 1.0:
        raise AssetError(
            f"{file}: RoPE of kind {kind!r} or on a part of the head is not supported, only plain RoPE ('default')."
        )
    for key, allowed in {**layout.required, "quantization_config": None}.items():
        if raw.get(key, allowed) not in (allowed, None):
            raise AssetError(f"{file}: {key} is {raw[key]!r}. Supported: {allowed!r}.")
    heads, width = _integer(raw, "num_attention_heads", file), _integer(raw, "hidden_size", file)
    try:
        return DecoderConfig(
            vocab=_integer(raw, "vocab_size", file),
            d_model=width,
            n_layers=_integer(raw, "num_hidden_layers", file),
            n_heads=heads,
            n_kv_heads=_integer(raw, "num_key_value_heads", file, heads),
            head_dim=_integer(raw, "head_dim", file, width // max(heads, 1)),
            ffn=_integer(raw, "intermediate_size", file),
            rope_base=float(rope.get("rope_theta") or raw.get("rope_theta") or layout.rope_base),
            norm_eps=float(raw.get("rms_norm_eps") or layout.norm_eps),
            tied_embeddings=bool(raw.get("tie_word_embeddings", layout.tied_embeddings)),
            context=_integer(raw, "max_position_embeddings", file, layout.context),
            family=family.name,
        )
    except (TypeError, ValueError) as error:
        raise AssetError(f"{file}: {error}") from error


def _integer(raw: Mapping[str, Any], key: str, file: Path, default: int | None = None) -> int:
    value = raw.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise AssetError(f"{file}: {key} is {value!r}, it must be an integer (the same for every layer).")
    return value


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    if not (folder / _INDEX).is_file():
        pickled = (
            " Pickled weights (.bin, .pt) are not read, because loading one can run code: save them as safetensors."
        )
        raise AssetError(f"{folder} has no {_WEIGHTS} and no {_INDEX}.{pickled if any(folder.glob('*.bin')) else ''}")
    shards = _read_json(folder / _INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise AssetError(f"{folder / _INDEX} has no weight_map.")
    names = sorted({str(name) for name in shards.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(
            ".safetensors"
        ):  # an index may only name its own folder's files
            raise AssetError(
                f"{folder / _INDEX} names {name!r}; a shard must be a .safetensors file in the same folder."
            )
        if not (folder / name).is_file():
            raise AssetError(f"{folder} has no {name}, which {_INDEX} names. Copy the missing shard.")
    return [folder / name for name in names]


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        loaded = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise AssetError(f"{file} is truncated or damaged ({error}). Get the file again.") from error
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in loaded.items():
        if name.endswith("rotary_emb.inv_freq"):  # a buffer that old writers stored; it follows from the config
            continue
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            raise AssetError(
                f"{file}: {name} is stored as {tensor.dtype}. Supported: float32, float16, bfloat16, float64."
            )
        tensors[name] = tensor.to(torch.float32)
    return tensors


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise AssetError(f"{file.parent} has no {file.name}, so it is not a Hugging Face model folder.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AssetError(f"{file} cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise AssetError(f"{file} must hold a JSON object.")
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
