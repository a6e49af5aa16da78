"""What a pretrained checkpoint is (sizes, tensors, tokenizer), what it must hold, and how to make a random one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rankitect.data.tokenizer import ByteTokenizer, Tokenizer
from rankitect.errors import AssetError, safe, short
from rankitect.models.checkpoints.usage import Usage
from rankitect.models.families import DecoderConfig, family_of
from rankitect.models.memory import LIMIT_VARIABLE, available_memory

if TYPE_CHECKING:
    import torch

__all__ = ["DecoderCheckpoint", "check_fits", "check_layers", "check_tensors", "random_checkpoint", "tensor_shapes"]


@dataclass(frozen=True)
class DecoderCheckpoint:
    """A pretrained model in memory.

    Attributes:
        config: The model's sizes, and its family.
        tensors: float32 tensors on the CPU under Hugging Face's names (``model.layers.0.self_attn.q_proj.weight``) and
            in its layout: linear weights are (out, in), and RoPE pairs element i of a head with element
            i + head_dim / 2. See `tensor_shapes`. Empty once they were let go of.
        tokenizer: The model's tokenizer; ids are below ``config.vocab``.
        source: Where it came from, for people.
        usage: How it is used: chat template, begin and stop tokens, sampling defaults; its licence.
    """

    config: DecoderConfig
    tensors: dict[str, torch.Tensor]
    tokenizer: Tokenizer
    source: str
    usage: Usage = field(default_factory=Usage)

    def let_go(self) -> None:
        """Drop the tensors, when a model was made of them that keeps its own: memory of a whole model."""
        self.tensors.clear()

    @property
    def n_params(self) -> int:
        """Parameters, a tied embedding counted once."""
        return sum(tensor.numel() for tensor in self.tensors.values())


def tensor_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model in Hugging Face's names and layout, in the order of the forward."""
    return family_of(config).tensor_shapes(config)


def check_tensors(config: DecoderConfig, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Check that tensors are exactly those of a config.

    Args:
        config: The model's sizes and family.
        tensors: Tensors by Hugging Face name.
        where: The file or folder, for errors.

    Raises:
        AssetError: A tensor is missing, unexpected, of another shape, or holds a value that is not a finite number.
    """
    check_layers(config, len(tensors), where)
    family = family_of(config)
    shapes = family.tensor_shapes(config)
    missing = [name for name in shapes if name not in tensors]
    extra = sorted(name for name in tensors if name not in shapes)
    if missing:
        instead = f" It holds instead: {_some(extra)}." if extra else ""
        raise AssetError(f"{where}: {_count(missing, 'tensor')} of {len(shapes)} missing: {_some(missing)}.{instead}")
    if extra:
        raise AssetError(
            f"{where}: {_count(extra, 'tensor')} that a plain {family.title} model does not have: {_some(extra)}. "
            "Adapters and experts are not supported."
        )
    for name, shape in shapes.items():
        given = tuple(tensors[name].shape)
        if given != shape:
            raise AssetError(f"{where}: {name} has shape {given}, but its configuration asks for {shape}.")
        values = tensors[name].detach().float().cpu().numpy()
        # a sum is finite only if all values are, and much cheaper than a mask; it may overflow, so the mask decides
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = not np.isfinite(values.sum())
        if suspicious and not np.isfinite(values).all():
            raise AssetError(f"{where}: {name} holds values that are not finite numbers (NaN or infinity).")


def check_layers(config: DecoderConfig, n_tensors: int, where: str) -> None:
    """Check that there are as many tensors as layers, before a table of a nonsense number of layers is made.

    Raises:
        AssetError: There are fewer.
    """
    if config.n_layers > n_tensors:
        raise AssetError(
            f"{where}: its configuration announces {config.n_layers} layers, it holds {n_tensors} tensors."
        )


def check_fits(n_values: int, where: str) -> None:
    """Check that a model fits into memory as float32, before it is read.

    Args:
        n_values: Values of all its tensors.
        where: The file or folder, for errors.

    Raises:
        AssetError: There is less memory than that.
    """
    needed, limit = 4 * n_values, available_memory()
    if limit is not None and needed > limit:
        raise AssetError(
            f"{where} needs {needed / 2**30:,.1f} GiB as float32, but only {max(limit, 0) / 2**30:,.1f} GiB of memory "
            f"are available; {LIMIT_VARIABLE} sets the limit by hand."
        )


def random_checkpoint(config: DecoderConfig, seed: int) -> DecoderCheckpoint:
    """An untrained model with the byte tokenizer, the same for the same config and seed.

    Weights are normal with standard deviation 0.02 times sqrt(576 / d_model), those that write into the residual stream
    divided by sqrt(2 n_layers), so that its variance does not grow with depth; norms change nothing, biases are zero.

    Args:
        config: The model's sizes and family; `vocab` at least 256, because tokens are bytes.
        seed: Any integer.

    Raises:
        AssetError: The vocabulary is smaller than the byte tokenizer's.
    """
    import torch

    tokenizer = ByteTokenizer()
    if config.vocab < tokenizer.vocab_size:
        raise AssetError(
            f"model config: vocab is {config.vocab}, a random checkpoint needs at least {tokenizer.vocab_size} (bytes)."
        )
    generator = torch.Generator().manual_seed(seed)
    std = 0.02 * (576 / config.d_model) ** 0.5
    family = family_of(config)
    tensors: dict[str, torch.Tensor] = {}
    for number, weight in family.weights(config):
        name, shape = family.huggingface_name(weight, number), weight.stored_shape(config, number)
        if weight.kind != "matrix":
            tensors[name] = torch.full(shape, 1 - config.blocks.norm_offset if weight.kind == "gain" else 0.0)
        else:
            scale = std / (2 * config.n_layers) ** 0.5 if weight.reads_units else std
            tensors[name] = torch.randn(shape, generator=generator) * scale
    return DecoderCheckpoint(config, tensors, tokenizer, f"random weights, seed {seed}")


def _count(names: list[str], noun: str) -> str:
    return f"{len(names)} {noun}{'s' if len(names) != 1 else ''}"


def _some(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(short(safe(name), 60) for name in names[:most]) + more
