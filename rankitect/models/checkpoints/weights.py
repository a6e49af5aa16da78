"""The weights of a Hugging Face folder: safetensors, whole or in shards, with whatever prefixes they were saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.data.members import listing, member
from rankitect.data.tensors import opened_tensors, read_tensors
from rankitect.documents import read_json
from rankitect.errors import AssetError, brief, shown
from rankitect.models.checkpoints.checkpoint import check_fits, check_layers
from rankitect.models.checkpoints.fused import joints, parted
from rankitect.models.checkpoints.renumbered import renumbered
from rankitect.models.families import DecoderConfig, Family, family_of

if TYPE_CHECKING:
    import torch

__all__ = ["WEIGHTS", "read_weights"]

WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SUFFIX = ".safetensors"
_WRAPPERS = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that wrappers of PyTorch add: `torch.compile`, data parallel training, activation checkpoints."""
_FREQUENCIES = "rotary_emb.inv_freq"
"""A buffer that old writers stored. What it holds follows from the configuration."""


def read_weights(folder: Path, config: DecoderConfig, numbers: Sequence[int] | None = None) -> dict[str, torch.Tensor]:
    """All weights of a folder as float32, under the names that its family gives them.

    Args:
        folder: Holds model.safetensors, or its shards with their index.
        config: The model's sizes and family.
        numbers: Of its layers in the files, where some there compute nothing; None where all are its own.

    Raises:
        AssetError: A file is missing, damaged or outside of the folder, a weight is there twice, or is stored as
            something else than floating-point numbers.
    """
    stored: dict[str, torch.Tensor] = {}
    files = _weight_files(folder)
    check_fits(sum(map(_count, files)), str(folder))
    for file, expected in files.items():
        tensors = _read_file(file)
        if expected is not None and expected != tensors.keys():
            name = sorted(expected ^ tensors.keys())[0]
            held = "holds, but the index does not say so" if name in tensors else "does not hold, but the index says so"
            raise AssetError(f"{file} and {_INDEX} contradict each other: {shown(name)} is a tensor that it {held}.")
        twice = sorted(stored.keys() & tensors.keys())
        if twice:
            raise AssetError(f"{folder}: the tensor {shown(twice[0])} is in more than one file.")
        stored |= tensors
    check_layers(config, len(stored), str(folder))
    if numbers is not None and list(numbers) != list(range(len(numbers))):
        names = renumbered(stored, numbers, str(folder))
        stored = {names[name]: tensor for name, tensor in stored.items()}
    family = family_of(config)
    tensors = parted(_named(stored, family, config, folder), config, str(folder))
    if config.tied_embeddings:
        _tie(tensors, family, folder)
    return tensors


def _weight_files(folder: Path) -> dict[Path, set[str] | None]:
    """The files of a folder, each with the tensors that an index says it holds; None without an index."""
    whole = member(folder, WEIGHTS)
    if whole is not None:
        return {whole: None}
    index = member(folder, _INDEX)
    if index is None:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        advice = (
            " Pickled weights (.bin, .pt) are not read, because loading one can run code: save them as safetensors."
        )
        raise AssetError(f"{folder} has no {WEIGHTS} and no {_INDEX}.{advice if pickled else ''} {listing(folder)}")
    files = read_json(index, dict[str, Any], AssetError).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        raise AssetError(f"{index} has no weight_map from the names of tensors to those of files.")
    shards: dict[Path, set[str] | None] = {}
    for name in sorted(set(files.values())):
        if Path(name).name != name or not name.endswith(_SUFFIX):
            raise AssetError(f"{index} names {shown(name)}; a shard must be a {_SUFFIX} file in the same folder.")
        shard = member(folder, name)
        if shard is None:
            raise AssetError(f"{folder} has no {name}, which {_INDEX} names. Copy the missing shard. {listing(folder)}")
        shards[shard] = {tensor for tensor, file in files.items() if file == name}
    return shards


def _count(file: Path) -> int:
    """How many values the tensors of a file have."""
    with opened_tensors(file, "pt", _damaged(file)) as opened:
        return sum(prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118 - no mapping


def _damaged(file: Path) -> str:
    return f"{brief(file, 300)} is truncated or damaged. Get the file again"


def _read_file(file: Path) -> dict[str, torch.Tensor]:
    import torch

    tensors = read_tensors(file, _damaged(file))
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    for name, tensor in tensors.items():
        if tensor.dtype not in kinds:
            raise AssetError(
                f"{file}: {shown(name)} is stored as {tensor.dtype}. Supported: float32, float16, bfloat16, float64."
            )
    return {name: tensor.to(torch.float32) for name, tensor in tensors.items()}


def _named(
    stored: Mapping[str, torch.Tensor], family: Family, config: DecoderConfig, folder: Path
) -> dict[str, torch.Tensor]:
    """Tensors under the names that the family gives them; those of no weight keep their own, for `check_tensors`."""
    known, base = family.tensor_shapes(config).keys() | {family.head.huggingface}, family.huggingface.base
    known |= {name for name, _ in joints(config)}
    text = family.huggingface.text_part
    prefixes = text.prefixes if text is not None else {}
    named: dict[str, torch.Tensor] = {}
    origins: dict[str, str] = {}
    for origin, tensor in stored.items():
        plain = ".".join(part for part in origin.split(".") if part not in _WRAPPERS)
        if text is not None and plain.startswith(text.others):
            continue
        if plain.endswith(_FREQUENCIES):
            _check_frequencies(tensor, config, f"{folder}: {shown(origin)}")
            continue
        inner = next((to + plain.removeprefix(p) for p, to in prefixes.items() if plain.startswith(p)), plain)
        spellings = (plain, base + plain, plain.removeprefix(base), inner)
        name = next((spelling for spelling in spellings if spelling in known), origin)
        if name in named:
            raise AssetError(f"{folder}: {shown(origins[name])} and {shown(origin)} are both the weight {name}.")
        named[name], origins[name] = tensor, origin
    return named


def _check_frequencies(tensor: torch.Tensor, config: DecoderConfig, what: str) -> None:
    """Refuse stored frequencies of RoPE that are others than those of the configuration: of a scaling, say."""
    import torch

    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    plain = config.rope_base**-exponents
    # as coarse as bfloat16 and float16, in which some files keep them
    if tensor.shape != plain.shape or not torch.allclose(tensor.double(), plain, rtol=1e-2, atol=1e-7):
        raise AssetError(
            f"{what} holds other frequencies than plain RoPE of base {config.rope_base:g} has; they are not supported."
        )


def _tie(tensors: dict[str, torch.Tensor], family: Family, folder: Path) -> None:
    """Keep a tied table once, under the embedding's name: some writers store it twice, some under the head's name."""
    import torch

    embedding, head = family.embedding.huggingface, family.head.huggingface
    if head in tensors:
        own = tensors.pop(head)
        if not torch.equal(tensors.setdefault(embedding, own), own):
            raise AssetError(
                f"{folder}: its configuration ties {head} to {embedding}, but the two hold different values."
            )
