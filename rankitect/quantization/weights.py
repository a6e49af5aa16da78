"""The weights of a model brought to their bits: scales and levels, layer after layer on calibration text.

Every matrix is fitted to the inputs that it gets in the quantized model, from weights that are quantized already. The
walk is that of the model itself, with all calibration text as one batch: within a block, first the weights that are
applied to its inputs, then those that are applied to what these give.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from rankitect.blocks import Head
from rankitect.errors import TrainingError
from rankitect.graph import B, SearchSpace, TensorType
from rankitect.graph.quantized import INTEGER_BITS
from rankitect.models.numerics import Numerics, RoundedWeights, weight_scales
from rankitect.models.plan import Plan, Step, make_plan, run_plan
from rankitect.models.supernet import Standalone
from rankitect.models.weights import SlicedParams, weight_of
from rankitect.quantization.gptq import gptq, near_floats
from rankitect.quantization.ranges import searched_scales

if TYPE_CHECKING:
    from rankitect.graph import Architecture
    from rankitect.quantization.settings import QuantizeConfig

__all__ = ["quantize_weights", "scales_of", "with_numerics_of"]

_ROWS = 8
"""Windows that go through a block at a time."""
_log = logging.getLogger(__name__)
Seen = Callable[[str, torch.Tensor], None]


def with_numerics_of(space: SearchSpace, architecture: Architecture, model: Standalone) -> Standalone:
    """A model of the same weights with the numerics of a space; new scales are those that follow from the weights.

    Args:
        space: The model's own with other numerics (see `rankitect.quantization.spaces`).
        architecture: Of the model.
        model: Whose weights are taken, not copied.
    """
    plan = make_plan(space, architecture)
    tensors: dict[tuple[str, str], torch.Tensor] = {}
    for step in plan.steps:
        owner = model.owner(step.weights) if step.shapes else None
        scales = {n.scale: name for name, n in step.numerics.items() if n.scale is not None}
        for name in step.shapes:
            if owner is not None and name not in scales:
                tensors[step.weights, name] = weight_of(owner, name).detach()
        for scale, name in scales.items():
            weight = tensors[step.weights, name]
            held = {} if owner is None else dict(owner.named_parameters(recurse=False))
            same = scale in held and held[scale].shape == step.shapes[scale]
            tensors[step.weights, scale] = (
                held[scale].detach() if same else weight_scales(weight, step.numerics[name]).clone()
            )
    return Standalone(plan, tensors)


def scales_of(model: Standalone) -> dict[str, torch.nn.Parameter]:
    """The stored scales of a model, by parameter name."""
    return {
        f"{step.weights}.{n.scale}": model.owner(step.weights).get_parameter(n.scale)
        for step in model.plan.steps
        for n in step.numerics.values()
        if n.scale is not None
    }


def quantize_weights(
    space: SearchSpace,
    model: Standalone,
    config: QuantizeConfig,
    ids: torch.Tensor | None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Set the stored scales of a model, and with GPTQ its weights, in place.

    Args:
        space: Of the model, in which weights store their scales.
        model: As `with_numerics_of` gives it.
        config: How.
        ids: Calibration text [N, T]; None where the method needs none.
        progress: Called with (blocks done, blocks, note), and where the user may ask to stop.

    Raises:
        TrainingError: Activations on the calibration text are not finite.
    """
    _Walk(space, model, config, progress).run(ids)


class _Watched(SlicedParams):
    """Weights of a step that shows what its matrices are applied to. Those that are still to be rounded give nothing
    but not-a-number, so that what depends on them is known to, and nothing is multiplied in vain."""

    __slots__ = ("_pending", "_seen")

    def __init__(self, step: Step, tensors: Any, rounded: RoundedWeights, pending: Collection[str], seen: Seen) -> None:
        super().__init__(step, tensors, rounded)
        self._pending, self._seen = pending, seen

    def linear(self, x: torch.Tensor, name: str, bias: str | None = None) -> torch.Tensor:
        """Show the inputs as the matrix gets them, then apply the weight."""
        if name not in self._pending:
            return super().linear(x, name, bias)
        self._seen(name, self._tokens(x))
        return _nothing(x, prod(self._step.shapes[name][:-1]))

    def read(self, h: torch.Tensor, name: str, dims: tuple[str | None, ...]) -> torch.Tensor:
        """Show the hidden units as the matrix gets them, then read them."""
        if name not in self._pending:
            return super().read(h, name, dims)
        flat = h.flatten(-len(dims))
        self._seen(name, self._tokens(flat))
        return _nothing(flat, self._step.shapes[name][0])


def _nothing(x: torch.Tensor, outputs: int) -> torch.Tensor:
    return x.new_full((1,), float("nan")).expand(*x.shape[:-1], outputs)


class _Walk:
    """One pass through a model that leaves every block quantized behind it."""

    def __init__(
        self, space: SearchSpace, model: Standalone, config: QuantizeConfig, progress: Callable[[int, int, str], None]
    ) -> None:
        self._space, self._model, self._config, self._progress = space, model, config, progress
        self._plan: Plan = model.plan
        self._done: set[tuple[str, str]] = set()
        self._shared = _shared(self._plan)
        self._rounded = RoundedWeights()
        self._total = sum(any(n.scale for n in step.numerics.values()) for step in self._plan.steps)

    @torch.no_grad()
    def run(self, ids: torch.Tensor | None) -> None:
        if ids is None:
            for step in self._plan.steps:
                for name in self._pending(step):
                    self._round(step, name, None)
            return
        run_plan(self._plan, (ids,), self._params, call=self._turn)

    def _params(self, step: Step) -> SlicedParams:
        self._rounded.clear()  # of one step at a time
        return SlicedParams(step, self._model.owner(step.weights) if step.shapes else self._model, self._rounded)

    def _pending(self, step: Step) -> list[str]:
        """Weights of a step whose scales are still to be set."""
        names = [name for name, numerics in step.numerics.items() if numerics.scale is not None]
        return [name for name in names if (step.weights, str(step.numerics[name].scale)) not in self._done]

    def _turn(self, step: Step, p: SlicedParams, given: Sequence[torch.Tensor]) -> Any:
        pending = self._pending(step)
        if pending:
            _require_finite(step, given)
            self._progress(len({owner for owner, _ in self._done}), self._total, step.path)
        while pending and (grams := self._watched(step, given, pending)):
            for name, gram in grams.items():
                self._round(step, name, gram)
                pending.remove(name)
        for name in pending:  # tables, which are looked up
            if not self._space.graph.node(step.path).params[name].is_table:
                _log.warning(
                    "%s multiplies by %s itself, and not through Params.linear or read: calibration text tells nothing "
                    "of this weight, whose scales are those of the least error of its own.", step.path, name,
                )  # fmt: skip
            self._round(step, name, None)
        if isinstance(step.block, Head):  # nothing reads the scores, and those of all of the text would be gigabytes
            return given[0]
        return self._each(step, given, lambda: p)

    def _each(self, step: Step, given: Sequence[torch.Tensor], params: Callable[[], SlicedParams]) -> Any:
        """What a block gives, some windows at a time."""
        graph = self._space.graph
        batched = [_is_batched(graph.node(e.source).outputs[e.index]) for e in step.edges]
        if not any(batched) or not all(map(_is_batched, graph.node(step.path).outputs)):
            return step.block.run(params(), *given)
        rows = next(len(x) for x, split in zip(given, batched, strict=True) if split)
        parts = []
        for start in range(0, rows, _ROWS):
            some = [x[start : start + _ROWS] if split else x for x, split in zip(given, batched, strict=True)]
            parts.append(step.block.run(params(), *some))
        if isinstance(parts[0], tuple):
            return tuple(torch.cat(each) for each in zip(*parts, strict=True))
        return torch.cat(parts)

    def _watched(self, step: Step, given: Sequence[torch.Tensor], pending: Collection[str]) -> dict[str, torch.Tensor]:
        """The mean outer products of what pending weights of a step are applied to, of those whose inputs depend on no
        other pending weight."""
        grams: dict[str, torch.Tensor] = {}
        rows: dict[str, int] = {}
        last: list[Any] = [None, None]  # what goes into several matrices is multiplied once

        def seen(name: str, x: torch.Tensor) -> None:
            if last[0] is not x:
                flat = x.float().flatten(0, -2)
                last[:] = [x, None if flat[0].isnan().any() else flat.T @ flat]
            if last[1] is not None:
                grams[name] = grams[name] + last[1] if name in grams else last[1]
                rows[name] = rows.get(name, 0) + x.shape[:-1].numel()

        owner = self._model.owner(step.weights)
        self._each(step, given, lambda: _Watched(step, owner, self._rounded, pending, seen))
        return {name: gram / rows[name] for name, gram in grams.items()}

    def _round(self, step: Step, name: str, gram: torch.Tensor | None) -> None:
        """Set the scales of one weight and, with GPTQ, the weight."""
        numerics, owner = step.numerics[name], self._model.owner(step.weights)
        assert numerics.scale is not None
        weight, stored = owner.get_parameter(name), owner.get_parameter(numerics.scale)
        if numerics.bits < INTEGER_BITS:
            scale = searched_scales(weight, numerics, gram if self._config.error == "outputs" else None)
        else:  # of 256 levels none are to be had by cutting off
            scale = weight_scales(weight, numerics)
        stored.copy_(scale)
        # A weight that several blocks read in their own bits stays as it is: what is good for one is bad for another.
        if gram is not None and self._config.method == "gptq" and (step.weights, name) not in self._shared:
            rounded = gptq(weight, gram, numerics, scale, self._config.damping)
            weight.copy_(near_floats(weight, rounded, numerics, scale))
        self._done.add((step.weights, numerics.scale))


def _require_finite(step: Step, given: Sequence[torch.Tensor]) -> None:
    """Refuse activations that are not finite: nothing is to be fitted to them.

    Raises:
        TrainingError: There are some; names the block.
    """
    if not all(bool(x.isfinite().all()) for x in given):
        raise TrainingError(f"On calibration text, what {step.path} is given is not finite: nothing can be fitted.")


def _is_batched(kind: TensorType) -> bool:
    return bool(kind.dims) and kind.dims[0] == B


def _shared(plan: Plan) -> set[tuple[str, str]]:
    """Weights that are rounded in more than one way."""
    ways: dict[tuple[str, str], set[Numerics | None]] = {}
    for step in plan.steps:
        for name in step.shapes:
            ways.setdefault((step.weights, name), set()).add(step.numerics.get(name))
    return {key for key, each in ways.items() if len(each) > 1}
