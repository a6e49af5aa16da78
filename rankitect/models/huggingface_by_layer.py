"""Models whose layers differ as folders for `transformers`, with their own small code (`huggingface_code`).

config.json says of each layer what it is, in the words of DeciLM. Where the model computes what DeciLM does (a Llama
with other key/value heads and feed-forward widths by layer, and layers without attention), it goes by that name: vLLM
and TensorRT-LLM have code of their own for that. DeciLM has one number of query heads for all layers; a model of
several is one of it only if it is written with heads that add nothing (`padded`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F

from rankitect.errors import AssetError, SpaceError, shown
from rankitect.models.checkpoints.huggingface_layers import ACTIVATIONS
from rankitect.models.checkpoints.layer_rotations import BY_LAYER, turned
from rankitect.models.checkpoints.own_code import OURS
from rankitect.models.decoder_layers import DecoderLayer, DecoderLayers
from rankitect.models.families import Weight, axes, family_of
from rankitect.models.families.blocks import Rotation
from rankitect.models.families.family import Key
from rankitect.models.families.writing import rope_keys
from rankitect.models.supernet import Standalone

__all__ = ["ByLayer", "not_decilm"]

_CONFIGURATION, _MODELING = (name.removesuffix(".py") for name in OURS)
_OWN, _DECI = zip(BY_LAYER, ("Rankitect", "DeciLM"), strict=True)
_MULTIPLE = 256
"""DeciLM's readers round feed-forward widths that are given as `ffn_mult` up to a multiple of this."""


def not_decilm(row: DecoderLayers, *, padded: bool = False) -> str | None:
    """Why DeciLM, as vLLM and TensorRT-LLM compute it, is not a model; None where it is.

    Args:
        row: The model's layers.
        padded: Whether heads that add nothing may be written.
    """
    reason = row.beyond_deci("DeciLM")
    if reason is not None:
        return reason
    if padded:
        return None
    if not row.layers[0].kv_heads:
        return "its first layer has no attention, and vLLM's DeciLM has it there"
    attending = [layer for layer in row.layers if layer.kv_heads]
    other = next((layer for layer in attending if layer.heads != attending[0].heads), None)
    if other is not None:
        return (
            f"{attending[0].scope} has {attending[0].heads} query heads, {other.scope} {other.heads}; layers of "
            "DeciLM have one number of them"
        )
    return None


@dataclass(frozen=True)
class ByLayer:
    """How a row of layers is written.

    Attributes:
        row: The layers.
        padded: Whether heads that add nothing are written, so that all layers have as many query heads.
    """

    row: DecoderLayers
    padded: bool = False

    @property
    def architecture(self) -> str:
        """The class of the model."""
        return f"{self._names[1]}ForCausalLM"

    @property
    def _names(self) -> tuple[str, str]:
        return _OWN if not_decilm(self.row, padded=self.padded) else _DECI

    @cached_property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """Key/value heads, and query heads of each, of every layer as they are written; (0, 0) for no attention."""
        own = [(layer.kv_heads, layer.group) for layer in self.row.layers]
        return tuple(_padded(own) if self.padded else own)

    def notes(self) -> Iterator[str]:
        """What a user should know of the files."""
        for layer, (kv, group) in zip(self.row.layers, self.heads, strict=True):
            if (kv, group) != (layer.kv_heads, layer.group):
                yield (
                    f"{layer.scope}: {layer.kv_heads} key/value heads of {layer.group} query heads are written as {kv} "
                    f"of {group}; those that are more have weights of 0"
                )

    def keys(self) -> dict[str, Any]:
        """The keys of config.json that say what the model computes, those of its class included."""
        config, (model_type, name) = self.row.config, self._names
        rotations = list(dict.fromkeys(layer.rotation for layer in self.row.layers if layer.rotation is not None))
        blocks = replace(config.blocks, windows=(), rotary=(), local=(), rope_scaling=(), local_rope_base=None)
        return {
            "architectures": [self.architecture],
            "model_type": model_type,
            "auto_map": {
                "AutoConfig": f"{_CONFIGURATION}.{name}Config",
                "AutoModelForCausalLM": f"{_MODELING}.{self.architecture}",
            },
            "vocab_size": config.vocab,
            "hidden_size": config.d_model,
            "num_hidden_layers": config.n_layers,
            "num_attention_heads": max(1, *(kv * group for kv, group in self.heads)),
            "head_dim": config.head_dim,
            "rms_norm_eps": config.norm_eps,
            "max_position_embeddings": config.context,
            "tie_word_embeddings": config.tied_embeddings,
            "hidden_act": ACTIVATIONS[config.blocks.act],
            "attention_bias": False,
            "qkv_bias": config.blocks.bias,
            "mlp_bias": False,
            **(rope_keys(None, config) if model_type == _DECI[0] else {}),
            "block_configs": [
                {"attention": _attention(layer, heads, rotations), "ffn": self._ffn(layer)}
                for layer, heads in zip(self.row.layers, self.heads, strict=True)
            ],
            "rotary": [turned(rotation, config.head_dim // 2) for rotation in rotations],
            "blocks": blocks.to_json(),
            **self.read_back(),
        }

    def read_back(self) -> dict[str, Any]:
        """The keys of config.json that only Rankitect reads: of what family the model is, and how `rotary` was made."""
        rotations = list(dict.fromkeys(layer.rotation for layer in self.row.layers if layer.rotation is not None))
        return {
            "family": self.row.config.family,
            "rotations": [{"base": one.base, "scaling": list(one.scaling)} for one in rotations],
        }

    def tensors(self, model: Standalone) -> dict[str, torch.Tensor]:
        """The model's weights under Hugging Face's names, copied."""
        return {
            name: self._stored(number, weight, model.owner(owner).get_parameter(parameter).detach())
            for name, number, weight, (owner, parameter) in self._places()
        } | self._silent()

    def parameters(self, stored: Mapping[str, torch.Tensor], where: str) -> dict[Key, torch.Tensor]:
        """The weights of the model in the space, from those of a folder: the inverse of `tensors`.

        Args:
            stored: All tensors of the folder by name.
            where: The folder, for errors.

        Raises:
            AssetError: They are not those of these layers.
        """
        silent = self._silent()
        names = {name for name, *_ in self._places()} | silent.keys()
        if stored.keys() != names:
            other = sorted(stored.keys() ^ names)[0]
            raise AssetError(f"{where}: the tensor {shown(other)} is {'not ' * (other in names)}of its layers.")
        weights: dict[Key, torch.Tensor] = {}
        for name, number, weight, key in self._places():
            shape, tensor = self.row.shapes[key], stored[name].float()
            written = self._shape(number, weight, shape)
            if tuple(tensor.shape) != weight.merged(written):
                raise AssetError(f"{where}: {name} has shape {tuple(tensor.shape)}, which is not that of its layers.")
            own = tensor.reshape(written)[tuple(map(slice, shape))].clone()
            again = self._stored(number, weight, own)
            if not torch.equal(again, tensor) or not torch.equal(weights.setdefault(key, own), own):
                raise AssetError(f"{where}: {name} is of a layer that runs twice, or padded, and its copies differ.")
        for name, tensor in silent.items():
            if not torch.equal(stored[name].float(), tensor):
                raise AssetError(f"{where}: the tensor {name} is not what its layers ask for.")
        return weights

    def _ffn(self, layer: DecoderLayer) -> dict[str, Any]:
        """What `block_configs` says of a feed-forward: its width, also as the multiple that TensorRT-LLM reads."""
        ffn: dict[str, Any] = {"no_op": not layer.ffn, "replace_with_linear": False, "intermediate_size": layer.ffn}
        if self._names == _DECI and not any(other.ffn % _MULTIPLE for other in self.row.layers):
            ffn["ffn_mult"] = 3 * layer.ffn / (2 * self.row.config.d_model)
        return ffn

    def _places(self) -> Iterator[tuple[str, int | None, Weight, Key]]:
        family = family_of(self.row.config)
        for number, weight, key in self.row.weights():
            yield family.huggingface_name(weight, number), number, weight, key

    def _shape(self, number: int | None, weight: Weight, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of a weight with the heads that are written."""
        if number is None:
            return tuple(shape)
        written = dict(zip((axes.KV_HEADS, axes.QUERY_HEADS), self.heads[number], strict=True))
        return tuple(written.get(dim, size) for dim, size in zip(weight.dims, shape, strict=True))

    def _stored(self, number: int | None, weight: Weight, tensor: torch.Tensor) -> torch.Tensor:
        """A weight of the space as files hold it; a copy on the CPU."""
        written = self._shape(number, weight, tensor.shape)
        more = [n - size for n, size in zip(written, tensor.shape, strict=True)]
        pads = [pad for extra in reversed(more) for pad in (0, extra)]  # the last dimension comes first
        return F.pad(tensor.to("cpu"), pads).clone().reshape(weight.merged(written)).contiguous()

    def _silent(self) -> dict[str, torch.Tensor]:
        """The weights of layers without attention that are written with heads that add nothing."""
        family, tensors = family_of(self.row.config), dict[str, torch.Tensor]()
        for number, (layer, (kv, group)) in enumerate(zip(self.row.layers, self.heads, strict=True)):
            if kv and not layer.kv_heads:
                silent = self.row.silent(number, kv, group)
                tensors |= {family.huggingface_name(weight, number): tensor for weight, tensor in silent}
        return tensors


def _padded(heads: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """For each layer as many key/value heads as it has, or more, so that all layers have the same query heads.

    Of all numbers of query heads the one is taken that adds the fewest heads. A layer without attention stays so, but
    the first, where vLLM wants one.
    """
    attending = [pair for pair in heads if pair[0]] or [(1, 1)]
    most = max(kv for kv, _ in attending) * max(group for _, group in attending)

    def fitting(total: int, pair: tuple[int, int]) -> tuple[int, int] | None:
        counts = (kv for kv in range(max(pair[0], 1), total + 1) if total % kv == 0 and total // kv >= pair[1])
        kv = next(counts, None)
        return None if kv is None else (kv, total // kv)

    best: tuple[int, list[tuple[int, int]]] | None = None
    for total in range(max(kv * group for kv, group in attending), most + 1):
        fits = [fitting(total, pair) if pair[0] or number == 0 else (0, 0) for number, pair in enumerate(heads)]
        known = [fit for fit in fits if fit is not None]
        cost = sum(kv * group + 2 * kv for kv, group in known)
        if len(known) == len(fits) and (best is None or cost < best[0]):
            best = cost, known
    if best is None:  # the most heads of either kind fit every layer
        raise SpaceError("its heads cannot be padded")
    return best[1]


def _attention(layer: DecoderLayer, heads: tuple[int, int], rotations: Sequence[Rotation]) -> dict[str, Any]:
    """What `block_configs` says of a layer's attention."""
    kv, group = heads
    attention: dict[str, Any] = {"no_op": not kv, "replace_with_linear": False, "n_heads_in_group": group or None}
    if kv:
        rotary = None if layer.rotation is None else rotations.index(layer.rotation)
        attention |= {"num_key_value_heads": kv, "window": layer.window, "rotary": rotary}
    return attention
