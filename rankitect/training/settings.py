"""Settings of training, stated once: the model that checks a configuration is what training runs with.

Kept apart from `optimizer`, which imports torch: a configuration is checked before any heavy package is loaded.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Betas",
    "Clip",
    "DistilConfig",
    "LearningRate",
    "Momentum",
    "Nesterov",
    "OptimizerConfig",
    "Schedule",
    "TextTraining",
    "Warmup",
    "WeightDecay",
]

# A field's limits go with its type, so that a subclass that changes a default does not state them again.
_Fraction = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(gt=0, description="peak learning rate")]
Warmup = Annotated[int, Field(ge=0, le=10**9, description="steps over which the learning rate rises")]
Schedule = Annotated[Literal["linear", "cosine", "constant"], Field(description="after warm-up")]
Betas = Annotated[tuple[_Fraction, _Fraction], Field(description="AdamW's averaging")]
Momentum = Annotated[float, Field(ge=0, lt=1, description="of SGD")]
Nesterov = Annotated[bool, Field(description="whether SGD looks ahead along its momentum")]
WeightDecay = Annotated[float, Field(ge=0, description="of matrices and tables")]
Clip = Annotated[Annotated[float, Field(gt=0)] | None, Field(description="largest gradient norm; null does not clip")]


class OptimizerConfig(BaseModel):
    """An optimiser with a schedule. A subclass gives its own defaults; fields and their limits are stated here only.

    Attributes:
        kind: AdamW, Adagrad, or SGD.
        lr: Peak learning rate.
        schedule: How it falls to `final_lr` after the warm-up.
        warmup: Steps over which it rises linearly from 0; the first step is already above 0.
        final_lr: Share of `lr` at the end.
        betas: Decay of AdamW's two running means.
        eps: AdamW's and Adagrad's denominator floor.
        momentum: Of SGD; 0 is plain.
        nesterov: Whether SGD looks ahead along its momentum (Sutskever et al. 2013).
        weight_decay: Decoupled in AdamW, added to the gradient (L2) in the others; only for matrices, never for norms,
            biases and other vectors.
        clip: Greatest L2 norm of the whole gradient; None does not clip.
        retries: How often a loss or gradient that is not finite may be met with a skipped step and half the rate.

    Raises:
        pydantic.ValidationError: A value is of the wrong type or outside its range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["adamw", "adagrad", "sgd"] = Field(default="adamw", description="the optimiser")
    lr: LearningRate = 3e-4
    schedule: Schedule = "linear"
    warmup: Warmup = 0
    final_lr: float = Field(default=0.0, ge=0, le=1, description="share of the learning rate at the end")
    betas: Betas = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0, description="denominator floor of AdamW and Adagrad")
    momentum: Momentum = 0.0
    nesterov: Nesterov = False
    weight_decay: WeightDecay = 0.01
    clip: Clip = 1.0
    retries: int = Field(
        default=4, ge=0, le=1000, description="how often training may go on after a loss that is not finite"
    )


class TextTraining(OptimizerConfig):
    """Training of a language model on windows of text, with an optimiser.

    Attributes:
        tokens: Training tokens; rounded up to whole batches.
        batch: Windows in a step.
        context: Tokens of a window.
    """

    tokens: int = Field(default=10240, ge=1, le=10**12, description="training tokens; rounded up to whole batches")
    batch: int = Field(default=4, ge=1, le=2**20, description="windows of a step")
    context: int = Field(default=128, ge=8, le=2**20, description="tokens of a window")

    @property
    def steps(self) -> int:
        """Number of steps."""
        return -(-self.tokens // (self.batch * self.context))


class DistilConfig(TextTraining):
    """Distillation of a teacher's next-token distributions into a model: healing, with the defaults of healing.

    Attributes:
        teacher: Whose distributions: those of the pretrained backbone ("backbone"), of the model before it was
            quantized ("float"), or of the model as an earlier stage of the recipe gave it (the stage's name).
        k: The teacher's tokens that are kept at each position; None keeps no file and compares all logits.
        samples: Tokens that stand for all others at each position; 0 compares the others as one mass.
        ce_weight: Weight of the cross-entropy with the text's own tokens, added to the KL divergence.
        temperature: Of both softmaxes in the KL divergence.
    """

    teacher: str = Field(
        default="backbone", min_length=1, description="whose distributions: backbone, float, or a stage before"
    )
    k: int | None = Field(default=64, ge=1, le=2**20, description="kept teacher logits of a token; null compares all")
    samples: int = Field(
        default=64, ge=0, le=2**20, description="tokens that stand for all others; 0: they are one mass"
    )
    ce_weight: float = Field(default=0.0, ge=0, description="weight of the next-token loss beside the distillation")
    temperature: float = Field(default=1.0, gt=0, description="of both softmaxes in the distillation")
    lr: Annotated[LearningRate, Field(le=1)] = 2e-4
    warmup: Warmup = 4
