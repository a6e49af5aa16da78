"""How a pretrained model is used, read from where the model comes from: a Hugging Face folder or GGUF's keys."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankitect.data.chat_templates import DEFAULT, TEMPLATE, TEMPLATES, chat_templates, named_templates
from rankitect.data.members import member
from rankitect.data.tokenizer import Tokenizer
from rankitect.errors import AssetError, safe, short
from rankitect.models.checkpoints.gguf_tokenizer import begins_by_default
from rankitect.models.checkpoints.own_code import IDENTITY, OURS
from rankitect.models.checkpoints.usage import (
    GENERATION,
    SETTINGS,
    SPECIAL,
    TOKENIZER,
    Usage,
    checked_ids,
    checked_settings,
    read_object,
)

__all__ = ["SAMPLING", "usage_of_folder", "usage_of_gguf"]

_log = logging.getLogger("rankitect")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".ckpt", ".index.json")
_OF_TOKENIZER = (
    *(TOKENIZER, SPECIAL, "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.json"),
)
_READ_APART = (SETTINGS, GENERATION, TEMPLATE, TEMPLATES)
_TEXTS = ("", ".md", ".txt", ".json", ".jsonl", ".jinja", ".yaml", ".yml", ".toml", ".rst", ".pdf", ".bib", ".cff")
_LARGEST, _LARGEST_TOKENIZER, _MOST = 4 << 20, 256 << 20, 200
SAMPLING = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
SAMPLING |= {"penalty_repeat": "repetition_penalty"}
_TABLES = ("tokens", "scores", "token_type", "merges")


def usage_of_folder(folder: Path, config: Mapping[str, Any], tokenizer: Tokenizer, vocab: int) -> Usage:
    """Everything in a Hugging Face folder that is neither weights nor sizes. What is left out is said in the log.

    Args:
        folder: The folder.
        config: Content of its config.json, which may name begin and stop tokens too.
        tokenizer: Read from it.
        vocab: Tokens that the model knows.

    Raises:
        AssetError: A file cannot be read, or names a token that there is not.
    """
    settings = checked_settings(read_object(folder, SETTINGS), tokenizer, folder / SETTINGS)
    templates = chat_templates(settings, folder)
    dropped = [f"{SETTINGS}: auto_map (code)"] if settings.pop("auto_map", None) is not None else []
    settings.pop("chat_template", None)
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if config.get(key) is not None}
    generation = checked_ids(ids, vocab, folder / "config.json")
    own = checked_ids(read_object(folder, GENERATION), vocab, folder / GENERATION)
    files: dict[str, bytes] = {}
    about: dict[str, bytes] = {}
    for entry in sorted(folder.iterdir()):
        name = entry.name
        if name in _READ_APART or name in (IDENTITY, *OURS) or name.lower().endswith(_WEIGHTS):
            continue
        of_tokenizer = name in _OF_TOKENIZER
        reason = _reason(entry, folder, _LARGEST_TOKENIZER if of_tokenizer else _LARGEST, of_tokenizer)
        if reason is None and len(about) < _MOST:
            (files if of_tokenizer else about)[name] = entry.read_bytes()
        else:
            dropped.append(f"{short(safe(name), 60)} ({reason or 'too many files'})")
    usage = Usage({**generation, **own}, settings, templates, files, about, tuple(dropped))
    if dropped:
        shown = ", ".join(dropped[:20]) + (f" and {len(dropped) - 20} more" if len(dropped) > 20 else "")
        _log.warning("Left out of candidates: %s of the backbone's folder %s.", shown, folder)
    return Usage(usage.completed(tokenizer), settings, templates, files, about, tuple(dropped))


def _reason(entry: Path, folder: Path, largest: int, of_tokenizer: bool) -> str | None:
    """Why a file of a folder is left out; None where it is taken."""
    if entry.is_dir():
        return "a folder"
    try:
        if member(folder, entry.name) is None:
            return "nothing"
    except AssetError:
        return "a link out of the folder, or no file"
    if not of_tokenizer and (entry.name.startswith(".") or entry.suffix.lower() not in _TEXTS):
        return "hidden" if entry.name.startswith(".") else "code" if entry.suffix == ".py" else "of an unknown kind"
    size = entry.stat().st_size
    return f"{size:,} bytes" if size > largest else None


def usage_of_gguf(metadata: Mapping[str, Any], tokenizer: Tokenizer, vocab: int, context: int, path: Path) -> Usage:
    """What a GGUF file's keys say of the use of its model, and what llama.cpp takes for granted where they do not.

    Args:
        metadata: All keys with their values.
        tokenizer: Read from them.
        vocab: Tokens that the model knows.
        context: Longest sequence that the model was made for, tokens.
        path: The file, for errors.

    Raises:
        AssetError: A key names a token that there is not, or is not understood.
    """

    def key(name: str) -> Any:
        return metadata.get(f"tokenizer.ggml.{name}")

    stops = [key(f"{name}_token_id") for name in ("eos", "eot", "eom")]
    stops = list(dict.fromkeys(stop for stop in stops if stop is not None))
    ids: dict[str, Any] = {"bos_token_id": key("bos_token_id"), "pad_token_id": key("padding_token_id")}
    ids["eos_token_id"] = stops[0] if len(stops) == 1 else stops or None
    sampling = {f"general.sampling.{name}": to for name, to in SAMPLING.items()}
    generation = {to: metadata[name] for name, to in sampling.items() if name in metadata}
    generation = {**checked_ids(ids, vocab, path), **({"do_sample": True, **generation} if generation else {})}
    settings: dict[str, Any] = {"model_max_length": context}
    for name in ("add_bos_token", "add_eos_token", "add_space_prefix"):
        if key(name) is not None:
            settings[name] = key(name)
    if key("bos_token_id") is not None and begins_by_default(key("model"), key("pre")):
        settings.setdefault("add_bos_token", True)
    settings = checked_settings(settings, tokenizer, path)
    prefix = "tokenizer.chat_template"
    named = [
        (name.removeprefix(f"{prefix}."), text) for name, text in metadata.items() if name.startswith(f"{prefix}.")
    ]
    usual = [(DEFAULT, metadata[prefix])] if prefix in metadata else []
    templates = named_templates([*usual, *named], f"{path}: {prefix}")
    tables = {f"tokenizer.ggml.{name}" for name in _TABLES}
    others = {k: v for k, v in metadata.items() if k not in tables and not k.startswith(prefix)}
    about = {"gguf_metadata.json": json.dumps(others, indent=1, default=str).encode() + b"\n"}
    return Usage(generation, settings, templates, about=about)
