"""Which architectures are a model class of `transformers`, and under which configuration and tensor names.

Its Llama and Mistral compute the same, save that Mistral can have a sliding window and a width that is no multiple of
its heads. Both have layers that are all alike, which is the one real limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from rankitect.blocks import GQA, Embed, SwiGLU, TiedHead
from rankitect.graph import Architecture, SearchSpace
from rankitect.models.backbone import huggingface_tensors
from rankitect.models.checkpoints import LlamaConfig
from rankitect.models.plan import Step, make_plan
from rankitect.models.supernet import Standalone

__all__ = ["HuggingFaceLayout", "huggingface_layout"]


@dataclass(frozen=True)
class HuggingFaceLayout:
    """How an architecture is written for `transformers`, or why it cannot be.

    Attributes:
        config: The model's numbers; None where there is no such model.
        layers: Scope of each layer, in the order in which they run; one that runs twice is there twice.
        overrides: Keys of config.json that make it another class than Llama.
        reason: Why there is no such model; None where there is one.
    """

    config: LlamaConfig | None
    layers: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None

    def tensors(self, model: Standalone) -> dict[str, torch.Tensor]:
        """The model's weights under Hugging Face's names, copied."""
        return huggingface_tensors(model, list(self.layers))


@dataclass(frozen=True)
class _Layer:
    """One run of a layer: where it is, and all that must be equal between layers."""

    scope: str
    attention: tuple[int, int, int] | None  # key/value heads, query heads of each, size of a head
    window: int | None
    ffn: int


def _layers(steps: tuple[Step, ...]) -> list[_Layer]:
    found: list[_Layer] = []
    attention: Step | None = None
    for step in steps:
        if isinstance(step.block, GQA):
            attention = step
        elif isinstance(step.block, SwiGLU):
            heads = window = None
            if attention is not None:
                kv, group, head, _ = attention.shapes["q"]
                heads, window = (kv, group, head), getattr(attention.block, "window", None)
            scope = ".".join(step.weights.split(".")[:2])
            found.append(_Layer(scope, heads, window, step.shapes["gate"][0]))
            attention = None
    return found


def huggingface_layout(space: SearchSpace, architecture: Architecture, config: LlamaConfig) -> HuggingFaceLayout:
    """Find the model class of `transformers` that an architecture of `mobile_llm` is, if there is one.

    Args:
        space: The search space.
        architecture: The closed choices.
        config: The backbone's numbers; those that the architecture decides are replaced.

    Returns:
        The layout; its `reason` says why where there is none.
    """
    steps = make_plan(space, architecture).steps
    kinds = {"embedding": Embed, "tied head": TiedHead}
    absent = [name for name, kind in kinds.items() if not any(isinstance(s.block, kind) for s in steps)]
    if absent:
        return _none(f"space {space.name!r} is not a Llama: it has no {' and no '.join(absent)}")
    layers = _layers(steps)
    if not layers:
        return _none("no layer is kept")
    different = _difference(layers)
    if different is not None:
        return _none(different)
    first = layers[0]
    if first.attention is None:
        return _none("attention is skipped in every layer; the Llama and Mistral of transformers always have it")
    kv, group, head = first.attention
    width = next(s.shapes["weight"][1] for s in steps if isinstance(s.block, Embed))
    found = replace(
        config, d_model=width, n_layers=len(layers), n_heads=kv * group, n_kv_heads=kv, head_dim=head, ffn=first.ffn
    )
    overrides: dict[str, Any] = {}
    if first.window is not None or width % found.n_heads:  # transformers 5 refuses such a Llama, not such a Mistral
        overrides = {
            "model_type": "mistral",
            "architectures": ["MistralForCausalLM"],
            "sliding_window": first.window,
        }
    return HuggingFaceLayout(found, tuple(layer.scope for layer in layers), overrides)


def _difference(layers: list[_Layer]) -> str | None:
    """The first way in which layers differ, in words; None where all are alike."""

    def attention(layer: _Layer) -> str:
        if layer.attention is None:
            return "no attention"
        seen = "full attention" if layer.window is None else f"attention to the last {layer.window} tokens"
        return f"{seen} with {layer.attention[0]} key/value heads of {layer.attention[1]} query heads"

    first = layers[0]
    for layer in layers[1:]:
        if attention(layer) != attention(first):
            return f"layers differ: {first.scope} has {attention(first)}, {layer.scope} has {attention(layer)}"
        if layer.ffn != first.ffn:
            return (
                f"layers differ: the feed-forward width of {first.scope} is {first.ffn}, of {layer.scope} {layer.ffn}"
            )
    return None


def _none(reason: str) -> HuggingFaceLayout:
    return HuggingFaceLayout(None, reason=reason)
