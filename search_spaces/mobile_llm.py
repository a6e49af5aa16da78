"""`mobile_llm`: decoder-only language models for phones, from scratch or as pruned versions of a backbone.

Every layer chooses whether it runs (and, with sharing, whether it runs twice), its key/value heads and query heads of
each, its feed-forward width, and its attention pattern; the residual width is one choice for all. The family is that of
MobileLLM (arXiv 2402.14905); the patterns full / sliding window / skip are MobileLLM-Flash's (arXiv 2603.15954).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.errors import SpaceError
from rankitect.graph import Architecture, B, Graph, SearchSpace, T, Wire, Zero

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.models.checkpoints import LlamaConfig

__all__ = ["POINTS", "MobileLLM", "from_backbone", "mobile_llm", "point"]

POINTS = {
    "mobilellm-125m": {"layers": 30, "width": 576, "kv": 3, "group": 3, "ffn": 1536, "runs": 1},
    "mobilellm-125m-ls": {"layers": 30, "width": 576, "kv": 3, "group": 3, "ffn": 1536, "runs": 2},
    "mobilellm-350m": {"layers": 32, "width": 960, "kv": 5, "group": 3, "ffn": 2560, "runs": 1},
    "mobilellm-350m-ls": {"layers": 32, "width": 960, "kv": 5, "group": 3, "ffn": 2560, "runs": 2},
}
"""The published models (arXiv 2402.14905, table of architectures), heads of 64 and a vocabulary of 32,000."""


def mobile_llm(
    vocab: int = 32000,
    layers: int = 32,
    widths: Sequence[int] = (576, 768, 960),
    kv_heads: Sequence[int] = (2, 3, 4, 5),
    group: Sequence[int] = (1, 2, 3),
    ffn: Sequence[int] = (1024, 1536, 2048, 2560),
    patterns: Sequence[str] = ("full", "swa", "skip"),
    runs: Sequence[int] = (1, 0, 2),
    head: int = 64,
    window: int = 128,
    context: int = 256,
    rope_base: float = 10000.0,
    norm_eps: float = 1e-5,
) -> SearchSpace:
    """The space. Its defaults hold MobileLLM-125M and 350M and their layer-sharing variants (`POINTS`).

    Args:
        vocab: Tokens.
        layers: The largest number of layers.
        widths: Residual widths.
        kv_heads: Key/value heads of a layer.
        group: Query heads of each key/value head.
        ffn: Feed-forward widths of a layer.
        patterns: Attention patterns of a layer: "full", "swa" (sliding window) and "skip".
        runs: How often a layer may run: 0 drops it, 2 runs it twice in a row with one set of weights.
        head: Size of a head.
        window: Tokens that the sliding window sees.
        context: Tokens of a prefill in costs, unless they are given.
        rope_base: Base of the rotary positions.
        norm_eps: Added to the mean square in norms.
    """
    from rankitect.blocks import GQA, Embed, Norm, Rope, SwiGLU, TiedHead

    g = Graph("mobile_llm")
    ids = g.input("ids", B, T, dtype="int")
    width = g.choice("width", widths)
    rope = Rope(head // 2, rope_base)(ids, name="rope")
    attention = {"full": None, "swa": window, "skip": 0}

    def layer(i: int, x: Wire) -> Wire:
        k, q, f = g.choice("kv_heads", kv_heads), g.choice("group", group), g.choice("ffn", ffn)
        kinds = {p: Zero() if p == "skip" else GQA(k, q, head, attention[p]) for p in patterns}
        x = x + g.oneof("attn", kinds, Norm(norm_eps)(x, name="norm1"), rope, share=True)
        return x + SwiGLU(f)(Norm(norm_eps)(x, name="norm2"), name="mlp")

    x = g.repeat("layers", layers, layer, Embed(vocab, width)(ids, name="embed"), runs=runs)
    g.out = TiedHead(vocab)(Norm(norm_eps)(x, name="norm"), name="head", weights="embed")
    return SearchSpace(g, version="1", defaults={"T": context})


def from_backbone(
    config: LlamaConfig,
    context: int = 256,
    widths: Sequence[int] = (),
    ffn_step: int = 128,
    patterns: Sequence[str] = ("full", "swa", "skip"),
    window: int = 128,
    sharing: bool = False,
) -> SearchSpace:
    """The space of a pretrained Llama's pruned versions; its largest architecture is the backbone itself.

    Args:
        config: The backbone's sizes.
        context: Tokens of a prefill in costs.
        widths: Residual widths beside the backbone's own.
        ffn_step: Feed-forward widths are multiples of this, up to the backbone's.
        patterns: Attention patterns.
        window: Tokens that the sliding window sees.
        sharing: Whether a layer may run twice.

    Raises:
        SpaceError: A width is larger than the backbone's.
    """
    too_wide = [w for w in widths if w > config.d_model]
    if too_wide:
        raise SpaceError(f"widths: {too_wide[0]} is more than the backbone's {config.d_model}")
    ffn = sorted({config.ffn, *range(ffn_step, config.ffn + 1, ffn_step)}, reverse=True)
    return mobile_llm(
        vocab=config.vocab,
        layers=config.n_layers,
        widths=sorted({config.d_model, *widths}, reverse=True),
        kv_heads=range(config.n_kv_heads, 0, -1),
        group=range(config.n_heads // config.n_kv_heads, 0, -1),
        ffn=ffn,
        patterns=patterns,
        runs=(1, 0, 2) if sharing else (1, 0),
        head=config.head_dim,
        window=window,
        context=context,
        rope_base=config.rope_base,
        norm_eps=config.norm_eps,
    )


def point(space: SearchSpace, name: str) -> Architecture:
    """A published model as an architecture of a `mobile_llm` space.

    Raises:
        SpaceError: The name is unknown, or the space lacks one of its values.
    """
    if name not in POINTS:
        raise SpaceError(f"unknown model {name!r}; known: {', '.join(POINTS)}")
    wanted = POINTS[name]
    values: dict[str, Any] = {"width": wanted["width"]}
    for path in space.choices:
        if path.startswith("layers."):
            _, index, kind = path.split(".")
            inside = int(index) < wanted["layers"]
            named = {"kv_heads": wanted["kv"], "group": wanted["group"], "ffn": wanted["ffn"], "attn": "full"}
            values[path] = (wanted["runs"] if inside else 0) if kind == "runs" else named[kind]
    return space.architecture(values)


class MobileLLM:
    """The space `mobile_llm` of the pruned versions of a task's backbone, as a configuration names it."""

    class Config(BaseModel):
        """Keys of `space`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        widths: list[int] = Field(default=[], description="residual widths beside the backbone's own")
        ffn_step: int = Field(128, ge=1, description="feed-forward widths are multiples of this")
        patterns: list[Literal["full", "swa", "skip"]] = Field(
            default=["full", "swa", "skip"], min_length=1, description="attention patterns of a layer"
        )
        window: int = Field(128, ge=2, description="tokens that a sliding window sees")
        sharing: bool = Field(False, description="whether a layer may run twice with one set of weights")

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> SearchSpace:
        """The space for the task's backbone."""
        return from_backbone(
            parts.of_task("checkpoint").config,
            context=parts.task.context,
            widths=config.widths,
            ffn_step=config.ffn_step,
            patterns=config.patterns,
            window=config.window,
            sharing=config.sharing,
        )
