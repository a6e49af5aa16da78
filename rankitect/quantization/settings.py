"""In how many bits a model is to compute, and how its weights get there: settings, stated once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Bits", "NumericsConfig", "QuantizeConfig"]

Bits = Literal[2, 3, 4, 5, 6, 7, 8, 16, 32]
"""What a number may have: up to 8 an integer, 16 a float16, 32 a float."""
Group = Annotated[int, Field(ge=0, le=2**20)]


class NumericsConfig(BaseModel):
    """The bits of a model's numbers. A space whose bits are choices keeps those of the architecture, and a cache that
    it states, unless `cache_bits` has fewer than floats.

    Attributes:
        bits: Of matrices.
        group: Inputs that share a scale; 0 for a scale an output.
        act_bits: Of activations that go into matrices, by token.
        cache_bits: Of keys and values.
        embedding_bits: Of tables whose rows are looked up.
        embedding_group: As `group`.
        head_bits: Of the matrix that scores tokens.
        head_group: As `group`.
        head_act_bits: Of activations that go into that matrix; None as into the others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    bits: Bits = Field(default=4, description="of matrices: 2 to 8, 16 or 32 (float)")
    group: Group = Field(default=32, description="inputs of a matrix that share a scale; 0: a scale an output")
    act_bits: Bits = Field(default=8, description="of activations that go into matrices, by token")
    cache_bits: Bits = Field(default=32, description="of keys and values")
    embedding_bits: Bits = Field(default=8, description="of tables whose rows are looked up")
    embedding_group: Group = Field(default=0, description="as group")
    head_bits: Bits = Field(default=8, description="of the matrix that scores tokens")
    head_group: Group = Field(default=0, description="as group")
    head_act_bits: Bits | None = Field(default=None, description="of activations that go into it; null: act_bits")


class QuantizeConfig(NumericsConfig):
    """How weights are brought to their bits.

    Attributes:
        method: "rtn" rounds to nearest; "searched" first searches the scales; "gptq" searches them and lets weights
            that are still free make up for those that are rounded.
        error: What searched scales are to keep: the weights, or the outputs on calibration text.
        calibration_tokens: Tokens of training text, rounded up to whole windows.
        calibration_context: Tokens of a window.
        damping: Added to the moments of GPTQ, as a share of their mean.
    """

    method: Literal["rtn", "searched", "gptq"] = Field(default="gptq", description="how weights are rounded")
    error: Literal["weights", "outputs"] = Field(default="outputs", description="what searched scales keep")
    calibration_tokens: int = Field(default=8192, ge=64, le=10**9, description="tokens of training text")
    calibration_context: int = Field(default=128, ge=8, le=2**20, description="tokens of a window of calibration text")
    damping: float = Field(default=0.01, gt=0, le=1, description="of GPTQ's moments, as a share of their mean")

    @property
    def windows(self) -> int:
        """Windows of calibration text; none where the method asks for none."""
        return -(-self.calibration_tokens // self.calibration_context) if self.needs_text else 0

    @property
    def needs_text(self) -> bool:
        """Whether weights are rounded with regard to activations."""
        return self.method == "gptq" or (self.method == "searched" and self.error == "outputs")

    @model_validator(mode="after")
    def _some(self) -> QuantizeConfig:
        if self.windows and self.calibration_context > self.calibration_tokens:
            raise ValueError(
                f"calibration_context is {self.calibration_context}; a window is no more than the "
                f"calibration_tokens={self.calibration_tokens} of all"
            )
        if self.method != "rtn" and min(self.bits, self.embedding_bits, self.head_bits) > 8:
            raise ValueError(f"method={self.method} searches scales, and no weight has any: give bits of at most 8")
        return self
