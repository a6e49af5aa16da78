"""A lowered program beside the model that it was made from, and that beside the model in floats, on real inputs.

The errors that `lowering` checks are those of the lowering alone. What fewer bits cost is said here, for every program
that is delivered.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from rankitect.deploy.lowering import silenced
from rankitect.errors import DeployError
from rankitect.models.supernet import Standalone

if TYPE_CHECKING:
    from rankitect.deploy.generate import Generator
    from rankitect.deploy.ranker import DensePart

__all__ = [
    "TOKENS",
    "ProgramQuality",
    "classifier_quality",
    "language_quality",
    "ranker_quality",
    "report_quality",
]

TOKENS = 384
"""Tokens that a program predicts one by one to be compared."""
TOGETHER = 64
"""Images in one forward of a model: of more, the values between its layers could fill the memory."""
_RISING = "auc"
"""The metric of which more is better."""
_LEAST = 1e-12
"""For values of which others are shares, where they are 0."""
_NOTICED = 0.01
"""Relative loss of quality from which on a program is said to be worse."""


@dataclass(frozen=True)
class ProgramQuality:
    """What a program's quality is, and what the model's is on the same inputs.

    Attributes:
        metric: "perplexity", "normalized entropy", "cross-entropy", "auc" or, where rows have labels of one class or
            none, "logit".
        model: Of the model that was exported, in its own bits; lower is better, save for AUC. Of logits, their standard
            deviation.
        program: Of the program, measured with the runtime. Of logits, the largest difference to the model's.
        amount: Inputs that were predicted.
        unit: What they are counted in.
        agreement: Share of the inputs for which both find the same token most probable, or are on the same side of
            even odds.
        difference: The largest difference of two scores or logits, relative to the largest of the model's.
        floats: Of the model in floats, on the same inputs, where that is another one.
        unrounded: Of the model's own weights with nothing rounded, where the model in floats is not there to be asked.
            Weights that were made for few bits (GPTQ, training in few bits) were never meant to be used so: no quality
            is lost or gained against this value.
    """

    metric: str
    model: float
    program: float
    amount: int
    unit: str
    agreement: float
    difference: float
    floats: float | None = None
    unrounded: float | None = None

    @property
    def reference(self) -> float | None:
        """The value of the model in floats; None where it is not known, or the metric is no quality."""
        if self.metric == "logit" or (self.floats is None and self.unrounded is not None):
            return None
        return self.model if self.floats is None else self.floats

    @property
    def change(self) -> float | None:
        """By how much the program's value is worse than that of the model in floats, relative; None where there is no
        such value."""
        if self.reference is None:
            return None
        whole, program = (max(value, _LEAST) for value in (self.reference, self.program))
        return whole / program - 1 if self.metric == _RISING else program / whole - 1

    def without_floats(self) -> ProgramQuality:
        """The same where what was given as the model in floats is the model's own weights, unrounded."""
        return replace(self, floats=None, unrounded=self.floats)

    @property
    def worse(self) -> bool:
        """Whether the program is noticeably worse than the model."""
        return self.change is not None and not self.change <= _NOTICED

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "change": self.change}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ProgramQuality:
        """The inverse of `to_json`."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})

    def __str__(self) -> str:
        same = f"{self.agreement:.1%} of the decisions are the same"
        if self.metric == "logit":
            return (
                f"logits differ by at most {self.difference:.2g} of the largest on {self.amount:,} {self.unit}; {same}"
            )
        own = self.reference
        if own is None:
            said = f"{self.metric} {self.model:.4g} becomes {self.program:.4g}; the model in floats is not known"
        else:
            whole = f"{own:.4g}" if self.floats is None else f"{own:.4g} in floats"
            share = f" ({self.program / own - 1:+.1%})" if own else ""
            said = f"{self.metric} {whole} becomes {self.program:.4g}{share}"
        return f"{said} on {self.amount:,} {self.unit}; {same}"


def report_quality(quality: ProgramQuality, program: str, precision: str) -> None:
    """Say in the log what a program's quality is; as a warning where it is noticeably worse than its model's."""
    level = logging.WARNING if quality.worse else logging.INFO
    logging.getLogger("rankitect").log(level, "%s in %s: %s.", program, precision, quality)


@torch.inference_mode()
def language_quality(
    generator: Generator,
    model: Standalone,
    windows: torch.Tensor,
    *,
    prompt: int,
    capacity: int,
    tokens: int = TOKENS,
    floats: nn.Module | None = None,
) -> ProgramQuality:
    """The perplexity of a program, of its model and of the model in floats on the same text.

    The program reads the beginning of each window as a prompt, then one true token after another.

    Args:
        generator: Runs the program from a prompt on.
        model: What was exported.
        windows: Token ids of real text [W, T].
        prompt: Tokens of the program's prefill.
        capacity: Tokens of its longest sequence.
        tokens: How many are predicted, at most.
        floats: The model in floats; None where `model` is it.

    Raises:
        DeployError: The windows are too short to predict anything.
    """
    length = min(windows.shape[-1] if windows.dim() == 2 else 0, capacity)
    first = min(prompt, max(1, length // 4))
    if length < 2 or not len(windows):
        raise DeployError("The text that a program is compared on has no window of two tokens.")
    nats, same, count, difference, largest = [0.0, 0.0, 0.0], 0, 0, 0.0, 1e-12
    for window in windows[:, :length]:
        if count >= tokens:
            break
        end = min(length, first + tokens - count)
        wanted = model(window[None, : end - 1])[0].float()
        if floats is not None:
            whole = floats(window[None, : end - 1])[0].float()
            nats[2] += float(F.cross_entropy(whole[first - 1 : end - 1], window[first:end], reduction="sum"))
        scores = generator.start(window[:first].tolist())
        for position in range(first, end):
            expected, target = wanted[position - 1], window[position : position + 1]
            for place, given in enumerate((expected, scores)):
                nats[place] += float(F.cross_entropy(given[None], target))
            same += int(expected.argmax() == scores.argmax())
            difference = max(difference, float((expected - scores).abs().max()))
            largest = max(largest, float(expected.abs().max()))
            count += 1
            if position + 1 < end:
                scores = generator.step(int(window[position]))
    own, theirs, whole = (math.exp(min(total / count, 700.0)) for total in nats)
    agreement, reference = same / count, whole if floats is not None else None
    return ProgramQuality("perplexity", own, theirs, count, "tokens", agreement, difference / largest, reference)


@torch.inference_mode()
def ranker_quality(
    program: Path, method: str, batch: int, part: DensePart, inputs: Sequence[torch.Tensor], labels: torch.Tensor | None
) -> ProgramQuality:
    """The normalized entropy of a program and of its model on the same rows; of rows without labels the logits.

    Args:
        program: The .pte file.
        method: Its method for `batch` examples.
        batch: Examples of one call.
        part: The model after its lookups.
        inputs: The model's inputs for real rows, [n, ...] each.
        labels: 0 or 1 for each row, [n]; None where they are not known.

    Raises:
        DeployError: The program does not run.
    """
    expected = part.model(*inputs).reshape(-1).float()
    logits = _outputs(program, method, batch, part, inputs).reshape(-1)
    difference = float((logits - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    agreement = float(((logits > 0) == (expected > 0)).float().mean())
    rate = float(labels.float().mean()) if labels is not None else 0.0
    if labels is None or not 0 < rate < 1:
        spread = float(expected.std(correction=0))
        largest = float((logits - expected).abs().max())
        return ProgramQuality("logit", spread, largest, len(logits), "rows", agreement, difference)
    base = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    rounded = not part.model.plan.is_float
    whole = part.model.in_floats()(*inputs).reshape(-1).float() if rounded else expected
    own, theirs, plain = (
        float(F.binary_cross_entropy_with_logits(x, labels.float())) / base for x in (expected, logits, whole)
    )
    entropies = ProgramQuality("normalized entropy", own, theirs, len(logits), "rows", agreement, difference)
    return replace(entropies, unrounded=plain) if rounded else entropies


@torch.inference_mode()
def classifier_quality(
    program: Path,
    method: str,
    batch: int,
    part: DensePart,
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
) -> ProgramQuality:
    """The cross-entropy of a program and of its model on the same images.

    Args:
        program: The .pte file.
        method: Its method for `batch` images.
        batch: Images of one call.
        part: What was exported.
        model: What it was made from.
        images: As the model gets them, [n, C, H, W].
        labels: The class of each, [n].

    Raises:
        DeployError: The program does not run.
    """
    expected = torch.cat([model(some).float() for some in images.split(TOGETHER)])
    logits = _outputs(program, method, batch, part, (images,))
    difference = float((logits - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    agreement = float((logits.argmax(-1) == expected.argmax(-1)).float().mean())
    own, theirs = (float(F.cross_entropy(x, labels)) for x in (expected, logits))
    return ProgramQuality("cross-entropy", own, theirs, len(logits), "images", agreement, difference)


def _outputs(program: Path, method: str, batch: int, part: DensePart, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """What a program gives for rows, so many in each call, [n, ...]."""
    with silenced():
        from executorch.runtime import Runtime

        loaded = Runtime.get().load_program(program)
        run = loaded.load_method(method).execute
    outputs = []
    for start in range(0, len(inputs[0]), batch):
        rows = [x[start : start + batch] for x in inputs]
        short = batch - len(rows[0])
        padded = [torch.cat([x, x[:1].expand(short, *x.shape[1:])]) if short else x for x in rows]
        outputs.append(run([x.contiguous() for x in part.inputs(*padded)])[0][: batch - short])
    return torch.cat(outputs)
