"""Which architectures are a model class of `transformers`, and under which configuration and tensor names.

The layers of its decoders are of one size, which is the one real limit. Which class a model is written as follows from
the family of its backbone (`Family.written_as`), and what that class cannot be is said by `families.writing`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, SearchSpace
from rankitect.models.decoder_layers import decoder_layers
from rankitect.models.families import FAMILIES, DecoderConfig, family_of
from rankitect.models.families.writing import unwritable
from rankitect.models.pretrained import file_tensors
from rankitect.models.supernet import Standalone

__all__ = ["HuggingFaceLayout", "huggingface_layout"]


@dataclass(frozen=True)
class HuggingFaceLayout:
    """How an architecture is written for `transformers`, or why it cannot be.

    Attributes:
        config: The model's sizes, and the family as which it is written; None where there is no such model.
        layers: Scope of each layer, in the order in which they run; one that runs twice is there twice.
        reason: Why there is no such model; None where there is one.
    """

    config: DecoderConfig | None
    layers: tuple[str, ...] = ()
    reason: str | None = None

    def tensors(self, model: Standalone) -> dict[str, torch.Tensor]:
        """The model's weights under Hugging Face's names, copied.

        Raises:
            SpaceError: There is no such model of `transformers`.
        """
        if self.config is None:
            raise SpaceError(f"this architecture is no model class of transformers: {self.reason}")
        return file_tensors(model, self.config, self.layers)


def huggingface_layout(space: SearchSpace, architecture: Architecture, config: DecoderConfig) -> HuggingFaceLayout:
    """Find the model class of `transformers` that an architecture of `mobile_llm` is, if there is one.

    Args:
        space: The search space.
        architecture: The closed choices.
        config: The backbone's sizes; those that the architecture decides are replaced.

    Returns:
        The layout; its `reason` says why where there is none.
    """
    family, row = family_of(config), decoder_layers(space, architecture, config)
    if row.difference is not None:
        return _none(row.difference)
    sizes = row.config
    if not row.layers[0].kv_heads:
        return _none(f"attention is skipped in every layer; the {family.title} of transformers always has it")
    if not row.layers[0].ffn:
        return _none(f"no layer has a feed-forward; the {family.title} of transformers always has it")
    turned = [sizes.blocks.rotation(i, sizes.rope_base) for i in range(len(row.layers))]
    for layer, rotation in zip(row.layers, turned, strict=True):
        if layer.rotation != rotation:
            return _none(
                f"{layer.scope} sees {layer.seen} and is turned by other positions than layers of the {family.title} "
                "of transformers that see as much"
            )
    sizes = replace(sizes, family=family.written_as(sizes))
    reason = unwritable(FAMILIES[sizes.family], sizes)
    return _none(reason) if reason is not None else HuggingFaceLayout(sizes, row.scopes)


def _none(reason: str) -> HuggingFaceLayout:
    return HuggingFaceLayout(None, reason=reason)
