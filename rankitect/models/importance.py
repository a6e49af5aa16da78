"""Which units of a pretrained model matter: statistics on calibration text, and rankings from them.

Statistics are gathered where blocks call `read`, so any block with internal dimensions can be ranked. A ranking is of
*positions* along an axis, best first; `backbone` sorts weights by it, after which "the first k" is the pruned model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rankitect.blocks import GQA, Norm, SwiGLU
from rankitect.errors import SpaceError
from rankitect.graph import Architecture
from rankitect.graph.block import Sum
from rankitect.models.plan import Plan, Step, run_plan
from rankitect.models.supernet import PlannedModel, Supernet
from rankitect.models.weights import SlicedParams, find_owner

__all__ = ["CRITERIA", "Statistics", "gather", "observe", "unit_scores"]

Key = tuple[str, str]
Show = Callable[[Key, torch.Tensor], torch.Tensor]

CRITERIA: Mapping[str, str] = {
    "energy": "mean square of the unit's activation times the squared norm of the weights that read it",
    "magnitude": "mean square of the unit's activation",
    "fisher": "mean over batches of the squared first-order change of the loss when the unit is removed",
    "taylor": "mean over batches of the absolute first-order change of the loss when the unit is removed",
}
"""Criteria for hidden units and heads, by name."""


@dataclass
class Statistics:
    """What calibration has seen of a model.

    Attributes:
        gram: For each weight that reads hidden units, by (owner, name): their mean outer product, [n, n]; of a layer
            that runs twice, over both of its runs, as in `slopes`.
        fisher: For each such weight, the mean squared first-order effect of removing each unit, [n] (if asked for).
        taylor: The same with the absolute value.
        slopes: For each such weight, the mean outer product of the loss's gradient at its output, a token's loss
            counted as one, [outputs, outputs] (if asked for).
        residual: Mean square of each channel of the residual stream, summed over its reads (behind the norms, where it
            is read through one), [D].
        influence: For each layer, 1 minus the mean cosine of what goes in and what comes out (block influence,
            ShortGPT, arXiv 2403.03853).
        tokens: Tokens seen.
    """

    gram: dict[Key, torch.Tensor] = field(default_factory=dict)
    fisher: dict[Key, torch.Tensor] = field(default_factory=dict)
    taylor: dict[Key, torch.Tensor] = field(default_factory=dict)
    slopes: dict[Key, torch.Tensor] = field(default_factory=dict)
    residual: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    influence: dict[str, float] = field(default_factory=dict)
    tokens: int = 0


class _Observed(SlicedParams):
    """Weights that show each block's hidden units to an observer on the way."""

    __slots__ = ("_show", "_shown")

    def __init__(self, step: Step, tensors: Any, show: Show, shown: Show) -> None:
        super().__init__(step, tensors)
        self._show, self._shown = show, shown

    def read(self, h: torch.Tensor, name: str, dims: tuple[str | None, ...]) -> torch.Tensor:
        """Show the hidden units, then read them and show the output."""
        key = (self._step.weights, name)
        return self._shown(key, super().read(self._show(key, h), name, dims))


class _Observer:
    """Runs one plan on batches of token ids and gathers statistics of what passes through it."""

    def __init__(self, plan: Plan, weights: nn.Module, gradients: bool) -> None:
        self.plan, self._weights = plan, weights
        self.gradients = gradients
        self.statistics = Statistics()
        self._reads = _reads_of(self.plan.steps)
        self._masks: dict[Key, torch.Tensor] = {}
        self._outputs: dict[str, torch.Tensor] = {}

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        self._masks, self._outputs = {}, {}
        with torch.set_grad_enabled(self.gradients):
            logits: torch.Tensor = run_plan(self.plan, (ids,), self._params, after=self._after)
        for scope, entry, end in self._layers():
            similar = float(F.cosine_similarity(self._outputs[entry], self._outputs[end], dim=-1).sum())
            self.statistics.influence[scope] = self.statistics.influence.get(scope, 0.0) + ids.numel() - similar
        self.statistics.tokens += ids.numel()
        return logits

    def add_gradients(self) -> None:
        """Add the first-order effects of the last batch, after its backward."""
        for key, mask in self._masks.items():
            effect = (mask.grad if mask.grad is not None else torch.zeros_like(mask)).flatten()
            _add(self.statistics.fisher, key, effect.square())
            _add(self.statistics.taylor, key, effect.abs())

    def _params(self, step: Step) -> _Observed:
        weights = self._weights
        return _Observed(step, find_owner(weights, step.weights) if step.shapes else weights, self._show, self._shown)

    def _show(self, key: Key, x: torch.Tensor) -> torch.Tensor:
        _add(self.statistics.gram, key, _outer(x.detach().flatten(0, 1).flatten(1)))
        if not self.gradients:
            return x
        # The gradient of a mask of ones is the first-order change of the loss when each unit is removed.
        if key not in self._masks:  # a layer that runs twice has one for both of its runs
            self._masks[key] = torch.ones(x.shape[2:], device=x.device, requires_grad=True)
        return x * self._masks[key]

    def _shown(self, key: Key, x: torch.Tensor) -> torch.Tensor:
        if self.gradients and x.requires_grad:

            def add(slope: torch.Tensor) -> None:
                _add(self.statistics.slopes, key, _outer(slope.flatten(0, 1)))

            x.register_hook(add)
        return x

    def _after(self, step: Step, p: Any, outputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        self._outputs[step.path] = outputs[0].detach()
        if step.path in self._reads:
            square = _wide(outputs[0].detach()).square().flatten(0, -2).sum(0)
            residual = self.statistics.residual
            self.statistics.residual = residual + square if residual.numel() else square
        return outputs

    def _layers(self) -> Iterator[tuple[str, str, str]]:
        """The scope of each repeated layer, with the node that the layer reads and the last node in it."""
        scopes: dict[str, list[Step]] = {}
        for step in self.plan.steps:
            parts = step.path.split(".")
            if len(parts) > 2 and parts[1].isdigit():
                scopes.setdefault(".".join(parts[:2]), []).append(step)
        for scope, steps in scopes.items():
            yield scope, steps[0].edges[0].source, steps[-1].path


def _reads_of(steps: Sequence[Step]) -> set[str]:
    """The nodes whose outputs are reads of the residual stream.

    A norm reads it, unless it stands behind a part, so that what it gives is only added to the stream; attention and
    feed-forwards without a norm before them read it themselves.
    """
    norms = {step.path for step in steps if isinstance(step.block, Norm)}
    readers = [step for step in steps if not isinstance(step.block, Sum)]
    behind = norms - {edge.source for step in readers for edge in step.edges}
    plain = {step.edges[0].source for step in readers if isinstance(step.block, GQA | SwiGLU)} - norms
    return (norms - behind) | plain


def _wide(x: torch.Tensor) -> torch.Tensor:
    """In float32 where it is in less, as in a model that computes in bfloat16: sums are over all of the text."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _outer(rows: torch.Tensor) -> torch.Tensor:
    """The sum of the outer products of rows, in float32 whatever the model computes in."""
    kind, rows = rows.device.type, _wide(rows)
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return rows.T @ rows
    with torch.autocast(kind, enabled=False):
        return rows.T @ rows


def _add(sums: dict[Key, torch.Tensor], key: Key, value: torch.Tensor) -> None:
    sums[key] = sums[key].add_(value) if key in sums else value


def gather(
    supernet: Supernet,
    architecture: Architecture,
    batches: Iterable[torch.Tensor],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Statistics:
    """Run calibration batches through one architecture.

    Args:
        supernet: The weights.
        architecture: Usually the largest.
        batches: Token ids [B, T+1]; the first T are the input.
        loss: From logits [B, T, V] and targets [B, T], the mean over tokens; where given, gradients are taken.
        progress: Called with the number of batches done.

    Raises:
        SpaceError: There is no batch.
    """
    observer = _Observer(supernet.plan(architecture), supernet.weights, loss is not None)
    supernet.requires_grad_(False)  # gradients of units are wanted; those of weights take as much as the weights
    try:
        return _gathered(observer, batches, loss, progress)
    finally:
        supernet.requires_grad_(True)


def observe(
    model: PlannedModel, batches: Iterable[torch.Tensor], progress: Callable[[int], None] | None = None
) -> Statistics:
    """What `gather` gives without gradients, of a model as it is.

    Args:
        model: The model; it keeps its mode.
        batches: Token ids [B, T+1]; the first T are the input.
        progress: Called with the number of batches done.

    Raises:
        SpaceError: There is no batch.
    """
    return _gathered(_Observer(model.plan, model.tree, False), batches, None, progress)


def _gathered(
    observer: _Observer,
    batches: Iterable[torch.Tensor],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None,
    progress: Callable[[int], None] | None,
) -> Statistics:
    for done, batch in enumerate(batches):
        logits = observer(batch[:, :-1])
        if loss is not None and logits.requires_grad:
            # The sum over tokens: gradients at an output are then those of each token's own loss.
            (loss(logits, batch[:, 1:]) * batch[:, 1:].numel()).backward()
            observer.add_gradients()
        if progress is not None:
            progress(done + 1)
    statistics = observer.statistics
    if statistics.tokens == 0:
        raise SpaceError("no calibration text: give at least one batch")
    uses = Counter(step.weights for step in observer.plan.steps)
    statistics.gram = {key: gram / (uses[key[0]] * statistics.tokens) for key, gram in statistics.gram.items()}
    statistics.slopes = {key: slope / (uses[key[0]] * statistics.tokens) for key, slope in statistics.slopes.items()}
    statistics.residual = statistics.residual / statistics.tokens
    statistics.influence = {scope: total / statistics.tokens for scope, total in statistics.influence.items()}
    return _on_cpu(statistics)


def _on_cpu(statistics: Statistics) -> Statistics:
    """Where rankings are made and files written, wherever the model was."""
    gathered = (statistics.gram, statistics.fisher, statistics.taylor, statistics.slopes)
    for sums in gathered:
        sums.update({key: value.cpu() for key, value in sums.items()})
    statistics.residual = statistics.residual.cpu()
    return statistics


def unit_scores(statistics: Statistics, key: Key, readout: torch.Tensor, criterion: str) -> torch.Tensor:
    """The importance of each hidden unit of a node, in the shape of the hidden units.

    Args:
        statistics: From `gather`.
        key: Owner and name of the weight that reads them.
        readout: That weight, [outputs, units...].
        criterion: A key of `CRITERIA`.

    Raises:
        SpaceError: The criterion is unknown, or the statistics lack what it needs.
    """
    shape = readout.shape[1:]
    power = statistics.gram[key].diagonal()
    if criterion == "energy":
        return (power * readout.detach().flatten(1).square().sum(0)).view(shape)
    if criterion == "magnitude":
        return power.view(shape)
    if criterion not in CRITERIA:
        raise SpaceError(f"importance criterion {criterion!r} is unknown; allowed: {', '.join(CRITERIA)}")
    by_key = statistics.fisher if criterion == "fisher" else statistics.taylor
    if key not in by_key:
        raise SpaceError(f"importance criterion {criterion!r} needs gradients: gather the statistics with a loss")
    return by_key[key].view(shape)
