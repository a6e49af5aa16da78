"""As which model of llama.cpp an architecture is written: one of its family's, or one whose layers differ (`deci`).

llama.cpp's architecture `deci`, made for NVIDIA's pruned Llamas (arXiv 2411.19146), states heads and feed-forward
widths by layer, and a layer of no heads has no attention. In everything else its layers are a Llama's: no window, no
norm of heads, SwiGLU. Queries, keys and values may have biases, and positions may be scaled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rankitect.errors import AssetError, SpaceError, shown
from rankitect.graph import Architecture, SearchSpace
from rankitect.models.checkpoints.gguf_config import read_sizes
from rankitect.models.checkpoints.gguf_metadata import Metadata
from rankitect.models.decoder_layers import DecoderLayer, DecoderLayers, decoder_layers
from rankitect.models.families import DecoderConfig, Family, Weight, family_of
from rankitect.models.families.family import Key
from rankitect.models.families.gguf_keys import (
    DECI,
    FACTORS,
    WINDOW_PATTERN,
    block_keys,
    frequency_factors,
    halves_apart,
    halves_interleaved,
    unwritable_in_gguf,
)
from rankitect.models.supernet import Standalone

__all__ = ["GGUFLayout", "gguf_layout"]

_NEEDED = "0.3.36"
"""The llama-cpp-python that was seen to read which layers see a window (llama.cpp: pull request 29042)."""


@dataclass(frozen=True)
class GGUFLayout:
    """How an architecture is written as a GGUF file, or why it cannot be.

    Attributes:
        row: The architecture's layers; windows as long as the model's context are none.
        architecture: The name of llama.cpp's architecture; empty where there is none.
        reason: Why there is none; None where there is one.
        notes: What else a user should know of the file.
    """

    row: DecoderLayers
    architecture: str = ""
    reason: str | None = None
    notes: tuple[str, ...] = ()

    def stated(self) -> Iterator[tuple[str, Any]]:
        """The keys of the file that say what the model computes, each with its value."""
        config, layers, by_layer = self.row.config, self._layers, self.architecture == DECI
        yield f"{self.architecture}.vocab_size", config.vocab
        yield f"{self.architecture}.context_length", config.context
        yield f"{self.architecture}.embedding_length", config.d_model
        yield f"{self.architecture}.block_count", config.n_layers
        yield f"{self.architecture}.rope.dimension_count", config.head_dim
        yield f"{self.architecture}.attention.key_length", config.head_dim
        yield f"{self.architecture}.attention.value_length", config.head_dim
        yield f"{self.architecture}.rope.freq_base", float(config.rope_base)
        yield f"{self.architecture}.attention.layer_norm_rms_epsilon", float(config.norm_eps)
        stated = {
            "feed_forward_length": [layer.ffn for layer in layers],
            "attention.head_count": [layer.heads for layer in layers],
            "attention.head_count_kv": [layer.kv_heads for layer in layers],
        }
        for name, values in stated.items():
            yield f"{self.architecture}.{name}", values if by_layer else values[0]
        for name, value in block_keys(self._family, config).items():
            yield f"{self.architecture}.{name}", value

    def tensors(self, model: Standalone) -> dict[str, torch.Tensor]:
        """The model's weights under llama.cpp's names and in its order of rows, copied.

        Raises:
            SpaceError: There is no such model of llama.cpp.
        """
        if self.reason is not None:
            raise SpaceError(f"this architecture is no model of llama.cpp: {self.reason}")
        stored = {
            name: self._stored(weight, model.owner(owner).get_parameter(parameter).detach())
            for name, weight, (owner, parameter) in self.places()
        }
        factors = frequency_factors(self.row.config)
        return self._fused(stored | self._silent()) | ({} if factors is None else {FACTORS: factors})

    def parameters(self, stored: Mapping[str, torch.Tensor], where: str) -> dict[Key, torch.Tensor]:
        """The weights of the model in the space, from those of a file: the inverse of `tensors`.

        Args:
            stored: All tensors of the file by name.
            where: The file, for errors.

        Raises:
            AssetError: They are not those of this architecture.
        """
        stored, constants = self._parted(stored, where), self._silent()
        factors = frequency_factors(self.row.config)
        if factors is not None:
            constants[FACTORS] = factors
        names = {name for name, *_ in self.places()} | constants.keys()
        if stored.keys() != names:
            other = sorted(stored.keys() ^ names)[0]
            raise AssetError(f"{where}: the tensor {shown(other)} is {'not ' * (other in names)}of its architecture.")
        for name, tensor in constants.items():
            if stored[name].shape != tensor.shape or not torch.allclose(stored[name], tensor, rtol=1e-5):
                raise AssetError(f"{where}: the tensor {name} is not what its architecture asks for.")
        weights: dict[Key, torch.Tensor] = {}
        for name, weight, key in self.places():
            shape = self.row.shapes[key]
            if stored[name].shape != weight.merged(shape):
                raise AssetError(
                    f"{where}: {name} has shape {tuple(stored[name].shape)}, which is not that of its architecture."
                )
            tensor = self._loaded(weight, stored[name]).reshape(shape)
            if not torch.equal(weights.setdefault(key, tensor), tensor):
                raise AssetError(f"{where}: {name} is of a layer that runs twice, and its two copies differ.")
        return weights

    def places(self) -> Iterator[tuple[str, Weight, Key]]:
        """The name in the file of each weight, the weight, and its key in the space."""
        for number, weight, key in self.row.weights():
            prefix = "" if number is None else self._family.gguf.layer.format(number)
            yield prefix + weight.gguf, weight, key

    @property
    def _family(self) -> Family:
        return family_of(self.row.config)

    @property
    def _layers(self) -> tuple[DecoderLayer, ...]:
        """The layers as they are written.

        llama.cpp takes the size of a head for 0 where the first layer has no attention. So that layer gets a head, one
        that adds nothing.
        """
        first, *others = self.row.layers
        if self.architecture == DECI and not first.kv_heads:
            first = replace(first, kv_heads=1, group=1)
        return (first, *others)

    def _silent(self) -> dict[str, torch.Tensor]:
        """The weights of the head that adds nothing, where the first layer is written with one."""
        if self._layers == self.row.layers:
            return {}
        prefix = self._family.gguf.layer.format(0)
        return {prefix + weight.gguf: tensor for weight, tensor in self.row.silent(0, 1, 1)}

    def _joints(self) -> Iterator[tuple[str, list[str]]]:
        """The matrices of the file that hold several weights, each with the names that these would have alone."""
        if self.architecture == DECI:
            return
        for number in range(len(self.row.layers)):
            prefix = self._family.gguf.layer.format(number)
            for name, parts in self._family.gguf.fused.items():
                yield prefix + name, [prefix + part for part in parts]

    def _fused(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Tensors as the file holds them, from one for each weight."""
        stored = dict(tensors)
        for name, parts in self._joints():
            stored[name] = torch.cat([stored.pop(part) for part in parts])
        return stored

    def _parted(self, stored: Mapping[str, torch.Tensor], where: str) -> dict[str, torch.Tensor]:
        """The inverse of `_fused`.

        Raises:
            AssetError: A matrix has another number of rows than its weights have.
        """
        tensors = dict(stored)
        rows = {name: weight.merged(self.row.shapes[key])[0] for name, weight, key in self.places()}
        for name, parts in self._joints():
            whole, sizes = tensors.pop(name, torch.empty(0)), [rows[part] for part in parts]
            if whole.shape[0] != sum(sizes):
                raise AssetError(f"{where}: {name} is missing, or has not the {sum(sizes)} rows of its architecture.")
            tensors |= dict(zip(parts, whole.split(sizes), strict=True))
        return tensors

    def _stored(self, weight: Weight, tensor: torch.Tensor) -> torch.Tensor:
        """A weight of the space as files hold it; a copy on the CPU."""
        tensor = tensor.to("cpu").clone().reshape(weight.merged(tensor.shape)).contiguous()
        if weight.kind == "gain":
            tensor = tensor + self.row.config.blocks.norm_offset
        return self._rows(weight, tensor, apart=False)

    def _loaded(self, weight: Weight, tensor: torch.Tensor) -> torch.Tensor:
        """The inverse of `_stored`."""
        if weight.kind == "gain":
            tensor = tensor - self.row.config.blocks.norm_offset
        return self._rows(weight, tensor, apart=True)

    def _rows(self, weight: Weight, tensor: torch.Tensor, *, apart: bool) -> torch.Tensor:
        """A rotated weight with the halves of its heads apart, from interleaved ones; or the other way.

        llama.cpp rotates neighbouring rows of a head in some architectures, and the halves in others.
        """
        if not weight.rotated or not (self.architecture == DECI or self._family.gguf.rotates_neighbours):
            return tensor
        head = self.row.config.head_dim
        return halves_apart(tensor, head) if apart else halves_interleaved(tensor, head)


def gguf_layout(space: SearchSpace, architecture: Architecture, config: DecoderConfig) -> GGUFLayout:
    """Find the model of llama.cpp that an architecture of `mobile_llm` is, if there is one.

    Args:
        space: The search space.
        architecture: The closed choices.
        config: The backbone's sizes; those that the architecture decides are replaced.

    Returns:
        The layout; its `reason` says why where there is none.
    """
    row = _without_long_windows(decoder_layers(space, architecture, config))
    if not row.layers:
        return GGUFLayout(row, reason=row.difference)
    family = family_of(config)
    own = row.difference or _without_a_part(row) or _other_positions(row) or unwritable_in_gguf(family, row.config)
    uniform = GGUFLayout(row, family.gguf.architecture)
    own = own or _misread(uniform)
    if own is None:
        return replace(uniform, notes=_version_needed(uniform))
    reason = _not_deci(row)
    if reason is not None:
        return GGUFLayout(row, reason=own if row.difference is None else reason)
    notes = [f"written as {DECI}: {own}"]
    if not row.layers[0].kv_heads:
        notes.append("the first layer is written with a head whose weights are 0: llama.cpp wants one there")
    return GGUFLayout(row, DECI, notes=tuple(notes))


def _without_a_part(row: DecoderLayers) -> str | None:
    """Why layers that are alike are not those of a family: they have no attention or no feed-forward; else None."""
    first = row.layers[0]
    if not first.kv_heads:
        return "its layers have no attention"
    return None if first.ffn else "its layers have no feed-forward"


def _version_needed(layout: GGUFLayout) -> tuple[str, ...]:
    """A note of the version of llama.cpp that reads which layers see a window; none where every version knows it."""
    key = f"{layout.architecture}.{WINDOW_PATTERN}"
    if key not in dict(layout.stated()):
        return ()
    return (
        f"which layers see a window is said by {key}, which llama.cpp reads since September 2026 (llama-cpp-python "
        f"{_NEEDED}); older ones ignore it and compute something else",
    )


def _without_long_windows(row: DecoderLayers) -> DecoderLayers:
    """The same, without windows that no text of the model's context is longer than."""
    context = row.config.context
    layers = tuple(
        replace(layer, window=None) if layer.window is not None and layer.window >= context else layer
        for layer in row.layers
    )
    windows = tuple(layer.window for layer in layers)
    blocks = replace(row.config.blocks, windows=windows if any(windows) else ())
    return replace(row, layers=layers, config=replace(row.config, blocks=blocks))


def _other_positions(row: DecoderLayers) -> str | None:
    """Which layer is turned by other positions than those of the family that see as much; None where none is."""
    config = row.config
    for number, layer in enumerate(row.layers):
        if layer.kv_heads and layer.rotation != config.blocks.rotation(number, config.rope_base):
            return f"{layer.scope} sees {layer.seen} and is turned by other positions than layers that see as much"
    return None


def _misread(layout: GGUFLayout) -> str | None:
    """In what the blocks that follow from a file's keys differ from the model's; None where they are the same."""
    config, family = layout.row.config, family_of(layout.row.config)
    keys = Metadata(Path("its keys"), dict(layout.stated()))
    try:
        read = read_sizes(family, keys, config.vocab, tied=config.tied_embeddings).blocks
    except AssetError as error:
        return str(error)
    own, theirs = vars(replace(config.blocks, rope_scaling=())), vars(replace(read, rope_scaling=()))
    other = next((name for name, value in own.items() if theirs[name] != value), None)
    if other is None:
        return None
    return (
        f"its {other} is {shown(own[other])}, and that of a {family.gguf.architecture} of these sizes in llama.cpp is "
        f"{shown(theirs[other])}"
    )


def _not_deci(row: DecoderLayers) -> str | None:
    """Why llama.cpp's `deci` is not an architecture; None where it is."""
    reason = row.beyond_deci(DECI, offset=True)
    if reason is not None:
        return f"{reason}; layers that are alike are written as their family's (space.alike=true)"
    bare = next((layer for layer in row.layers if not layer.ffn), None)
    if bare is not None:
        return f"{bare.scope} has no feed-forward, and llama.cpp leaves such a layer out"
    return unwritable_in_gguf(None, row.config)
