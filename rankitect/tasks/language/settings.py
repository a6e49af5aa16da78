"""Keys of `task` for language models."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rankitect.data.storage import problem_of_place
from rankitect.models.families.values import NORM_EPS, ROPE_BASE

__all__ = ["SCRATCH", "BackboneConfig", "LanguageConfig", "ShapeConfig"]

SCRATCH = "none"
"""Value of `task.backbone` for models that begin with random weights."""


class ShapeConfig(BaseModel):
    """Sizes of the largest model from scratch; the defaults are MobileLLM-125M's (arXiv 2402.14905)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: int = Field(default=30, ge=1, le=1000, description="number of decoder layers")
    width: int = Field(default=576, ge=1, le=2**16, description="residual width")
    heads: int = Field(default=9, ge=1, le=4096, description="query heads of a layer; a multiple of kv_heads")
    kv_heads: int = Field(default=3, ge=1, le=4096, description="key/value heads of a layer")
    head: int = Field(default=64, ge=2, le=4096, multiple_of=2, description="size of a head")
    ffn: int = Field(default=1536, ge=1, le=2**20, description="feed-forward width")
    vocab: int = Field(
        default=32000, ge=1, le=2**24, description="rows of the embedding; at least the tokenizer's tokens"
    )
    tied: bool = Field(default=True, description="score tokens by the embedding's table; false: by the head's own")
    rope_base: float = Field(
        default=10000.0, ge=ROPE_BASE.low, le=ROPE_BASE.high, description="base of the rotary positions"
    )
    norm_eps: float = Field(
        default=1e-5, ge=NORM_EPS.low, le=NORM_EPS.high, description="added to the mean square in norms"
    )
    context: int = Field(default=2048, ge=8, le=2**20, description="longest sequence")

    @model_validator(mode="after")
    def _grouped(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads is {self.heads}, which is no multiple of kv_heads, {self.kv_heads}")
        return self


class BackboneConfig(BaseModel):
    """What models are pruned from, and what their calibration and their costs count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = Field(
        "smollm2-135m",
        description="asset, .gguf file, Hugging Face folder, candidate, random (a tiny one), or none (from scratch)",
    )
    begin: bool | None = Field(
        None, description="whether windows begin with the first token (bos); null: as the model was trained"
    )
    context: int = Field(256, ge=8, le=2**20, description="tokens of a window in quality and costs")
    cache_context: int | None = Field(
        None, ge=1, le=2**24, description="tokens whose keys and values kv_cache_bytes counts; null: context"
    )
    bits: Literal[32, 16, 8, 4] = Field(
        32, description="bits in which weight_bytes counts the weights of matrices; of 4, groups of 32 share a scale"
    )
    split_seed: int = Field(0, ge=0, lt=2**32, description="seed of the split of documents")
    criterion: Literal["energy", "magnitude", "fisher", "taylor"] = Field(
        "energy", description="importance of hidden units and heads"
    )
    refit: bool = Field(True, description="refit pruned weights in closed form on calibration text")
    calibration_tokens: int = Field(
        8192, ge=64, le=10**9, description="tokens of training text for importance and refits"
    )
    slope_tokens: int = Field(4096, ge=0, le=10**9, description="of which with gradients, for second-order estimates")
    uniform: list[Annotated[float, Field(gt=0, lt=1)]] | None = Field(
        None,
        description="block FLOPs of the uniformly pruned baselines, of the backbone's, as far as feed-forward widths "
        "reach them; null: 0.75, 0.6 and 0.5",
    )
    depth_baselines: bool = Field(False, description="also measure depth pruning at these sizes")


class LanguageConfig(BackboneConfig):
    """What language models are pruned from, and the text they are trained on and judged by."""

    shape: ShapeConfig = Field(ShapeConfig(), description="sizes of the largest model where backbone is none")
    tokenizer: str = Field(
        "bytes", description="where backbone is none: bytes, or the asset, file or folder whose tokenizer is used"
    )
    text: str = Field(
        "pydoc-topics", description="pydoc-topics, or a file, folder, glob or URI of text, JSONL or parquet"
    )
    field: str = Field("text", description="field or column of the text, or of chat messages, in JSONL and parquet")
    text_limit: int | None = Field(
        None, ge=1, le=10**15, description="bytes of text to read, the first documents; null: all"
    )
    test_windows: int | None = Field(48, ge=1, le=10**9, description="windows of the test split; null for all")
    search_windows: int | None = Field(24, ge=1, le=10**9, description="windows of the search split for screening")

    @model_validator(mode="after")
    def _placed(self) -> Self:
        # Not beside the field, as a message shows a field's value, which may hold a password.
        if (problem := problem_of_place(self.text)) is not None:
            raise ValueError(f"text: {problem}")
        return self
