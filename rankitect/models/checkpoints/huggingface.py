"""Pretrained models in Hugging Face folders (config.json, safetensors, tokenizer.json), without `transformers`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.data.files import write_atomically, write_whole
from rankitect.data.members import listing, member
from rankitect.data.tokenizer import Tokenizer, load_tokenizer
from rankitect.documents import read_json
from rankitect.errors import AssetError
from rankitect.models.checkpoints.checkpoint import DecoderCheckpoint, check_tensors
from rankitect.models.checkpoints.fused import fused
from rankitect.models.checkpoints.huggingface_config import read_config
from rankitect.models.checkpoints.huggingface_layers import layer_numbers
from rankitect.models.checkpoints.layer_rotations import BY_LAYER, DECILM
from rankitect.models.checkpoints.silent_heads import without_silent_heads
from rankitect.models.checkpoints.usage import Usage
from rankitect.models.checkpoints.usage_sources import usage_of_folder
from rankitect.models.checkpoints.weights import WEIGHTS, read_weights
from rankitect.models.families import DecoderConfig, family_of
from rankitect.models.families.writing import huggingface_keys, unwritable

if TYPE_CHECKING:
    import torch

__all__ = ["load_huggingface", "save_huggingface", "write_folder"]

_CONFIG, _ADAPTER = "config.json", "adapter_config.json"


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
    if (folder / _ADAPTER).exists():  # transformers would apply it to the weights, or to those of another folder
        raise AssetError(
            f"{folder} holds an adapter ({_ADAPTER}). Merge it into its model first, and save that "
            "(peft: merge_and_unload)."
        )
    file = member(folder, _CONFIG)
    if file is None:
        advice = " Give the .gguf file itself." if any(folder.glob("*.gguf")) else ""
        raise AssetError(
            f"{folder} has no {_CONFIG}, so it is not a Hugging Face model folder. {listing(folder)}{advice}"
        )
    raw = read_json(file, dict[str, Any], AssetError)
    config = read_config(raw, str(file))
    by_layer = raw.get("model_type") in BY_LAYER
    tensors = read_weights(folder, config, layer_numbers(raw) if by_layer else None)
    check_tensors(config, tensors, str(folder))
    if raw.get("model_type") == DECILM:
        config, tensors = without_silent_heads(config, tensors)
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > config.vocab:
        sizes = f"the tokenizer has {tokenizer.vocab_size} tokens, but the embedding has only {config.vocab} rows"
        raise AssetError(f"{folder}: {sizes}.")
    usage = usage_of_folder(folder, raw, tokenizer, config.vocab)
    return DecoderCheckpoint(config, tensors, tokenizer, str(folder), usage)


def save_huggingface(
    folder: str | Path,
    config: DecoderConfig,
    tensors: Mapping[str, torch.Tensor],
    tokenizer: Tokenizer | None = None,
    usage: Usage | None = None,
) -> None:
    """Write a model as a folder that ``transformers.AutoModelForCausalLM.from_pretrained(folder)`` loads.

    Every file is written atomically, config.json last: where it is, the model is whole.

    Args:
        folder: Created if it does not exist; other files in it are left alone.
        config: The model's sizes and family.
        tensors: float32 tensors in Hugging Face's names and layout, exactly those of `tensor_shapes`.
        tokenizer: Also written, with ``tokenizer_config.json``; None writes a folder without tokenizer.
        usage: How the model is used, written beside the tokenizer; by default what the tokenizer knows.

    Raises:
        AssetError: The tensors are not those of the config, or the class of its family cannot be such a model.
    """
    folder, family = Path(folder), family_of(config)
    reason = unwritable(family, config)
    if reason is not None:
        raise AssetError(f"{folder}: this model cannot be written as a {family.title}: {reason}.")
    check_tensors(config, tensors, str(folder))
    write_folder(folder, huggingface_keys(family, config), fused(tensors, config), tokenizer, usage)


def write_folder(
    folder: Path,
    keys: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    tokenizer: Tokenizer | None = None,
    usage: Usage | None = None,
    code: Mapping[str, str] | None = None,
) -> None:
    """Write the files of a folder, each atomically, config.json last.

    Args:
        folder: Created if it does not exist; other files in it are left alone.
        keys: Those of config.json that say what the model computes.
        tensors: As the model's class names them.
        tokenizer: Also written, with ``tokenizer_config.json``; None writes a folder without tokenizer.
        usage: How the model is used; by default what the tokenizer knows.
        code: Files of code that go along, by name.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / _CONFIG).unlink(missing_ok=True)
    # slices of a supernet share storage with it; clones do not, and only they may be stored
    own = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    write_atomically(folder / WEIGHTS, lambda part: save_file(own, part, metadata={"format": "pt"}))
    for name, text in (code or {}).items():
        write_whole(folder / name, text)
    usage, ids = usage or Usage(), dict[str, Any]()
    if tokenizer:
        usage.save(folder, tokenizer)
        ids = usage.completed(tokenizer)
    else:
        _write_json(folder / "generation_config.json", {})
    dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in own.values()}
    content = {
        **keys,
        "torch_dtype": dtypes.pop() if len(dtypes) == 1 else "float32",
        "bos_token_id": ids.get("bos_token_id"),  # null, or transformers would take the ids of another model
        "eos_token_id": ids.get("eos_token_id"),
        "pad_token_id": ids.get("pad_token_id"),
    }
    _write_json(folder / _CONFIG, content)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
