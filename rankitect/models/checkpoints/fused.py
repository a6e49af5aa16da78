"""Matrices that hold several weights one below the other, as some families store them: taken apart, and joined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rankitect.errors import AssetError
from rankitect.models.families import DecoderConfig, family_of

if TYPE_CHECKING:
    import torch

__all__ = ["fused", "joints", "parted"]


def joints(config: DecoderConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The fused matrices of a model in Hugging Face folders by name, each with the names of its weights."""
    layout = family_of(config).huggingface
    for number in range(config.n_layers if not config.layers else 0):  # by layer, none is fused
        prefix = layout.layer.format(number)
        for name, parts in layout.fused.items():
            yield prefix + name, tuple(prefix + part for part in parts)


def fused(tensors: Mapping[str, torch.Tensor], config: DecoderConfig) -> dict[str, torch.Tensor]:
    """Tensors as a family's files hold them, from those of its weights."""
    import torch

    stored = dict(tensors)
    for name, parts in joints(config):
        stored[name] = torch.cat([stored.pop(part) for part in parts])
    return stored


def parted(stored: Mapping[str, torch.Tensor], config: DecoderConfig, where: str) -> dict[str, torch.Tensor]:
    """The tensors of a family's weights, from those that its files hold: the inverse of `fused`.

    A fused matrix that is missing is left for `check_tensors`, which names the weights that it would have held.

    Args:
        stored: Tensors by name.
        config: The model's sizes and family.
        where: The file or folder, for errors.

    Raises:
        AssetError: A fused matrix has another number of rows than its weights have.
    """
    tensors, shapes = dict(stored), family_of(config).tensor_shapes(config)
    for name, parts in joints(config):
        if name not in tensors:
            continue
        whole = tensors.pop(name)
        rows = [shapes[part][0] for part in parts]
        if whole.dim() != 2 or whole.shape[0] != sum(rows):
            raise AssetError(
                f"{where}: {name} has shape {tuple(whole.shape)}, but its configuration asks for {sum(rows)} rows."
            )
        tensors |= {part: rows_of.contiguous() for part, rows_of in zip(parts, whole.split(rows), strict=True)}
    return tensors
