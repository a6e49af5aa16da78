"""Writing GGUF files: keys, tensors in some precision, and what llama.cpp makes of a file in fewer bits."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.data.chat_templates import DEFAULT
from rankitect.data.files import write_atomically
from rankitect.data.table_writing import adds
from rankitect.data.tokenizer import Tokenizer
from rankitect.errors import AssetError
from rankitect.models.checkpoints.gguf_file import GGUFFile
from rankitect.models.checkpoints.gguf_tokenizer import ROLES
from rankitect.models.checkpoints.precisions import FILE_TYPES, PLAIN, GGUFPrecision, require_quantizer
from rankitect.models.checkpoints.usage import Usage, as_ids
from rankitect.models.checkpoints.usage_sources import SAMPLING

if TYPE_CHECKING:
    import gguf
    import torch

__all__ = ["stops_left_out", "usage_keys", "write_gguf"]

_log = logging.getLogger("rankitect")
_STOPS = ("eos", "eot", "eom")


def usage_keys(usage: Usage, tokenizer: Tokenizer) -> Iterator[tuple[str, Any]]:
    """The keys of a file that say how its model is used, each with its value: what `usage_of_gguf` reads back.

    Files have room for three stop tokens; of more, the others are left out (`stops_left_out`).

    Args:
        usage: Chat templates, begin and stop tokens, sampling defaults.
        tokenizer: The model's.
    """
    prefix = "tokenizer.ggml."
    generation = usage.completed(tokenizer)
    first = usage.first_token(tokenizer)
    ids = {
        **tokenizer.special_ids,
        "bos": usage.begin_id if first is None else first,
        "pad": next(iter(as_ids(generation.get("pad_token_id"))), None),
    }
    stops = dict(zip(_STOPS, as_ids(generation.get("eos_token_id")), strict=False))
    for role, number in {**ids, **stops}.items():
        if number is not None:
            yield f"{prefix}{ROLES.get(role, role)}_token_id", int(number)
    ends = usage.settings.get("add_eos_token")
    # stated in any case: without them, some kinds of tokenizers add a begin token
    yield f"{prefix}add_bos_token", first is not None
    yield f"{prefix}add_eos_token", adds(tokenizer)[1] if ends is None else bool(ends)
    if usage.templates.get(DEFAULT):
        yield "tokenizer.chat_template", usage.templates[DEFAULT]
    named = [name for name in usage.templates if name != DEFAULT]
    if named:
        yield "tokenizer.chat_templates", named
    for name in named:
        yield f"tokenizer.chat_template.{name}", usage.templates[name]
    for name, key in SAMPLING.items():
        value = usage.generation.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield f"general.sampling.{name}", int(value) if name == "top_k" else float(value)


def stops_left_out(usage: Usage, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The stop tokens for which a file has no room. Arguments as of `usage_keys`."""
    return as_ids(usage.completed(tokenizer).get("eos_token_id"))[len(_STOPS) :]


def write_gguf(
    path: Path,
    architecture: str,
    keys: Iterable[tuple[str, Any]],
    tensors: Mapping[str, torch.Tensor],
    precision: GGUFPrecision = "float16",
) -> None:
    """Write a file, whole or not at all.

    Args:
        path: Replaced if it is there.
        architecture: llama.cpp's name of what the model computes.
        keys: Their values become the type of GGUF that readers expect: whole numbers 32 bits, others float32.
        tensors: By name, float32, the slowest dimension first. Vectors stay in float32.
        precision: Of the matrices.

    Raises:
        AssetError: The precision needs llama-cpp-python, which is not installed, or llama.cpp cannot give it.
        OSError: The disk is full or cannot be written.
    """
    keys = list(keys)
    if precision in PLAIN:
        write_atomically(path, lambda part: _write(part, architecture, keys, tensors, precision))
        return
    require_quantizer(precision)
    whole = path.with_name(f".{path.name}.float32")
    try:
        _write(whole, architecture, keys, tensors, "float32")
        write_atomically(path, lambda part: _quantize(whole, part, precision))
    finally:
        whole.unlink(missing_ok=True)


def _write(
    path: Path,
    architecture: str,
    keys: Iterable[tuple[str, Any]],
    tensors: Mapping[str, torch.Tensor],
    precision: GGUFPrecision,
) -> None:
    import gguf

    kind = {"float16": gguf.GGMLQuantizationType.F16, "bfloat16": gguf.GGMLQuantizationType.BF16}.get(precision)
    writer = gguf.GGUFWriter(path, architecture)
    try:
        writer.add_file_type(FILE_TYPES[precision])
        for key, value in keys:
            _add(writer, key, value)
        for name, tensor in tensors.items():
            values = tensor.float().numpy()
            if kind is None or values.ndim < 2:
                writer.add_tensor(name, values)
            else:
                writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def _quantize(source: Path, target: Path, precision: GGUFPrecision) -> None:
    import llama_cpp

    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)  # it prints a line for every tensor
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = FILE_TYPES[precision], 1
    failed = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings))
    if failed or not target.exists():
        raise AssetError(f"llama.cpp cannot bring the model to {precision}.")
    matrices = [entry for entry in GGUFFile(target).tensors.values() if len(entry.shape) > 1]
    kept = sum(entry.kind.name in ("F32", "F16", "BF16") for entry in matrices)
    if kept:
        _log.warning(
            "%d of %d matrices stay in 16 bits or more: blocks of %s do not fit their rows. Widths, and products of "
            "heads and their size, that are multiples of 256 fit all of them.",
            kept,
            len(matrices),
            precision,
        )
