"""What a Llama checkpoint is (numbers, tensors, tokenizer), where to get one, and how to make a random one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rankitect.data.assets import ASSETS, asset_path
from rankitect.data.tokenizer import ByteTokenizer, Tokenizer
from rankitect.errors import AssetError

if TYPE_CHECKING:
    import torch

__all__ = ["LlamaCheckpoint", "LlamaConfig", "check_tensors", "load_checkpoint", "random_checkpoint", "tensor_shapes"]


@dataclass(frozen=True)
class LlamaConfig:
    """The numbers of a Llama model with equal layers.

    Attributes:
        vocab: Rows of the token embedding.
        d_model: Width of the residual stream.
        n_layers: Transformer layers.
        n_heads: Query heads a layer.
        n_kv_heads: Key and value heads a layer; divides `n_heads`.
        head_dim: Width of a head; even, because RoPE rotates pairs.
        ffn: Width of the SwiGLU feed-forward.
        rope_base: RoPE's base (theta).
        norm_eps: RMSNorm's epsilon.
        tied_embeddings: True if the output projection is the token embedding.
        context: Longest sequence the model was made for, tokens.
    """

    vocab: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn: int
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5
    tied_embeddings: bool = True
    context: int = 2048

    def __post_init__(self) -> None:
        """Check that the numbers can be a model.

        Raises:
            AssetError: A number is not allowed; the sentence names it.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "tied_embeddings" and not value > 0:
                raise AssetError(f"Llama config: {field.name} is {value}, it must be positive.")
        if self.n_heads % self.n_kv_heads:
            raise AssetError(
                f"Llama config: n_heads is {self.n_heads}, it must be a multiple of n_kv_heads, {self.n_kv_heads}."
            )
        if self.head_dim % 2:
            raise AssetError(f"Llama config: head_dim is {self.head_dim}, it must be even (RoPE rotates pairs).")


@dataclass(frozen=True)
class LlamaCheckpoint:
    """A pretrained model in memory.

    Attributes:
        config: The model's numbers.
        tensors: float32 tensors on the CPU under Hugging Face's names (``model.layers.0.self_attn.q_proj.weight``) and
            in its layout: linear weights are (out, in), and RoPE pairs element i of a head with element
            i + head_dim / 2. See `tensor_shapes`.
        tokenizer: The model's tokenizer; ids are below ``config.vocab``.
        source: Where it came from, for people.
    """

    config: LlamaConfig
    tensors: dict[str, torch.Tensor]
    tokenizer: Tokenizer
    source: str

    @property
    def n_params(self) -> int:
        """Parameters, a tied embedding counted once."""
        return sum(tensor.numel() for tensor in self.tensors.values())


def tensor_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a Llama model in Hugging Face's names and layout, in forward order."""
    width, queries, keys = config.d_model, config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab, width)}
    for layer in range(config.n_layers):
        prefix = f"model.layers.{layer}."
        shapes |= {
            f"{prefix}input_layernorm.weight": (width,),
            f"{prefix}self_attn.q_proj.weight": (queries, width),
            f"{prefix}self_attn.k_proj.weight": (keys, width),
            f"{prefix}self_attn.v_proj.weight": (keys, width),
            f"{prefix}self_attn.o_proj.weight": (width, queries),
            f"{prefix}post_attention_layernorm.weight": (width,),
            f"{prefix}mlp.gate_proj.weight": (config.ffn, width),
            f"{prefix}mlp.up_proj.weight": (config.ffn, width),
            f"{prefix}mlp.down_proj.weight": (width, config.ffn),
        }
    shapes["model.norm.weight"] = (width,)
    if not config.tied_embeddings:
        shapes["lm_head.weight"] = (config.vocab, width)
    return shapes


def check_tensors(config: LlamaConfig, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Check that tensors are exactly those of a config.

    Args:
        config: The model's numbers.
        tensors: Tensors by Hugging Face name.
        where: The file or folder, for errors.

    Raises:
        AssetError: A tensor is missing, unexpected, of another shape, or holds a value that is not a finite number.
    """
    if config.n_layers > len(tensors):  # before a table of a nonsense number of layers is made
        raise AssetError(
            f"{where}: its configuration announces {config.n_layers} layers, it holds {len(tensors)} tensors."
        )
    shapes = tensor_shapes(config)
    missing = [name for name in shapes if name not in tensors]
    if missing:
        raise AssetError(f"{where}: {_count(missing, 'tensor')} of {len(shapes)} missing: {_some(missing)}.")
    extra = sorted(name for name in tensors if name not in shapes)
    if extra:
        raise AssetError(
            f"{where}: {_count(extra, 'tensor')} that a plain Llama model does not have: {_some(extra)}. "
            "Biases, adapters, experts and scaled RoPE are not supported."
        )
    for name, shape in shapes.items():
        found = tuple(tensors[name].shape)
        if found != shape:
            raise AssetError(f"{where}: {name} has shape {found}, but its configuration asks for {shape}.")
        values = tensors[name].detach().float().cpu().numpy()
        # a sum is finite only if all values are, and much cheaper than a mask; it may overflow, so the mask decides
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = not np.isfinite(values.sum())
        if suspicious and not np.isfinite(values).all():
            raise AssetError(f"{where}: {name} holds values that are not finite numbers (NaN or infinity).")


def load_checkpoint(path_or_name: str | Path) -> LlamaCheckpoint:
    """Load a pretrained Llama model.

    Args:
        path_or_name: The name of an asset ("smollm2-135m", fetched on first use), a ``.gguf`` file, or a Hugging Face
            folder with config.json, safetensors and tokenizer.json.

    Raises:
        AssetError: There is no such asset, file or folder, or it is damaged or of an unsupported kind.
    """
    from rankitect.models.checkpoints.gguf import load_gguf
    from rankitect.models.checkpoints.huggingface import load_huggingface

    name = str(path_or_name)
    models = [known for known, asset in ASSETS.items() if asset.filename.endswith(".gguf")]
    if name in models:
        return load_gguf(
            asset_path(name), source=f"{name} ({ASSETS[name].requirement}, sha256 {ASSETS[name].sha256[:12]})"
        )
    path = Path(path_or_name).expanduser()
    if path.is_dir():
        return load_huggingface(path)
    if path.is_file() and path.suffix == ".gguf":
        return load_gguf(path)
    allowed = f"an asset ({', '.join(sorted(models))}), a .gguf file, or a Hugging Face folder with config.json"
    if path.exists():
        raise AssetError(f"{path} is not a checkpoint that can be loaded. Give {allowed}.")
    raise AssetError(f"There is no checkpoint {name!r}: no asset, file or folder has this name. Give {allowed}.")


def random_checkpoint(config: LlamaConfig, seed: int) -> LlamaCheckpoint:
    """An untrained model with the byte tokenizer, the same for the same config and seed.

    Weights are normal with standard deviation 0.02 times sqrt(576 / d_model), those that write into the residual stream
    divided by sqrt(2 n_layers), so that its variance does not grow with depth; norms are one.

    Args:
        config: The model's numbers; `vocab` at least 256, because tokens are bytes.
        seed: Any integer.

    Raises:
        AssetError: The vocabulary is smaller than the byte tokenizer's.
    """
    import torch

    tokenizer = ByteTokenizer()
    if config.vocab < tokenizer.vocab_size:
        raise AssetError(
            f"Llama config: vocab is {config.vocab}, a random checkpoint needs at least {tokenizer.vocab_size} (bytes)."
        )
    generator = torch.Generator().manual_seed(seed)
    std = 0.02 * (576 / config.d_model) ** 0.5
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in tensor_shapes(config).items():
        if len(shape) == 1:
            tensors[name] = torch.ones(shape)
            continue
        residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        tensors[name] = torch.randn(shape, generator=generator) * (
            std / (2 * config.n_layers) ** 0.5 if residual else std
        )
    return LlamaCheckpoint(config, tensors, tokenizer, f"random weights, seed {seed}")


def _count(names: list[str], noun: str) -> str:
    return f"{len(names)} {noun}{'s' if len(names) != 1 else ''}"


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
