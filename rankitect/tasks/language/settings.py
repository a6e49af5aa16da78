"""Keys of `task` for language models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["LanguageConfig"]


class LanguageConfig(BaseModel):
    """What language models are pruned from, and the text they are trained on and judged by."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = Field("smollm2-135m", description="asset, .gguf file, Hugging Face folder, or random")
    text: str = Field("pydoc-topics", description="pydoc-topics, or a file or folder of text, JSONL or parquet")
    field: str = Field("text", description="field or column of the text in JSONL and parquet")
    context: int = Field(256, ge=8, description="tokens of a window in quality and costs")
    split_seed: int = Field(0, ge=0, description="seed of the split of documents")
    criterion: Literal["energy", "magnitude", "fisher", "taylor"] = Field(
        "energy", description="importance of hidden units and heads"
    )
    refit: bool = Field(True, description="refit pruned weights in closed form on calibration text")
    calibration_tokens: int = Field(8192, ge=64, description="tokens of training text for importance and refits")
    slope_tokens: int = Field(4096, ge=0, description="of which with gradients, for second-order estimates")
    test_windows: int | None = Field(48, ge=1, description="windows of the test split; null for all")
    search_windows: int | None = Field(24, ge=1, description="windows of the search split for screening")
    uniform: list[Annotated[float, Field(gt=0, lt=1)]] | None = Field(
        None,
        description="block FLOPs of the uniformly pruned baselines, of the backbone's; null: those of 0.75, 0.6 "
        "and 0.5 that feed-forward widths reach",
    )
    depth_baselines: bool = Field(False, description="also measure depth pruning at these sizes")
