"""Scores of a model from a few batches, without training it: zero-cost proxies and SiGeo. Higher is better.

Formulas as published; what public code does otherwise is not copied. A module is whatever holds weights together (a
layer's weight and bias). Gradients are those of the task's own loss. A module that gets no gradient is left out of
every score: it says nothing of the model, and a logarithm of nothing would outweigh all modules that do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rankitect.errors import TrainingError

__all__ = [
    "Gradients",
    "capture_inputs",
    "fisher_rao",
    "gather_gradients",
    "grad_norm",
    "nwot",
    "sigeo",
    "snip",
    "synflow",
    "zico",
]

_DEAD = "A proxy compares gradients; no weight of this model gets one from the loss, so that it has no score."
_TINY = 1e-12
_FLOOR = 1e-10
_NORMS = (F.layer_norm, F.rms_norm, F.batch_norm, F.group_norm)
_SWITCHES = (F.relu, torch.relu, Tensor.relu, F.relu_, F.relu6, F.silu, F.gelu, F.leaky_relu, F.hardswish)


@dataclass(frozen=True)
class Gradients:
    """Gradients of T batches at the same weights.

    Attributes:
        by_module: For each module that gets a gradient, [T, n] float32 over its n weights.
        weights: For each of these, [n].
        losses: Loss of each batch, [T] float64.
    """

    by_module: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    losses: Tensor


def gather_gradients(model: nn.Module, losses: Iterable[Callable[[nn.Module], Tensor]]) -> Gradients:
    """The gradients of some losses, weights left as they are.

    Args:
        model: Every parameter that wants a gradient counts. Where the losses do not depend on one, its gradient is 0;
            where they depend on none of a module, the module is left out.
        losses: From the model to a scalar, one a batch.

    Raises:
        TrainingError: No weight gets a gradient, or a loss or a gradient is not finite.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows: dict[str, list[Tensor]] = {}
    values = []
    modules: dict[str, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        modules.setdefault(name.rpartition(".")[0], []).append(parameter)
    for loss_of in losses:
        with torch.enable_grad():
            loss = loss_of(model)
            if not loss.requires_grad:
                raise TrainingError(_DEAD)
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        grads = dict(zip(map(id, parameters.values()), gradients, strict=True))
        values.append(float(loss.detach()))
        for module, owned in modules.items():
            parts = [g.detach().to_dense().flatten() if (g := grads[id(p)]) is not None else _zeros(p) for p in owned]
            rows.setdefault(module, []).append(torch.cat(parts))
    by_module = {m: torch.stack(many) for m, many in rows.items()}
    alive = {m: g for m, g in by_module.items() if g.count_nonzero()}
    if not alive:
        raise TrainingError(_DEAD)
    if not all(math.isfinite(value) for value in values) or not all(g.isfinite().all() for g in alive.values()):
        raise TrainingError(
            "A proxy compares finite gradients; the loss of this model or its gradients are not finite."
        )
    weights = {m: torch.cat([p.detach().flatten() for p in modules[m]]) for m in alive}
    return Gradients(alive, weights, torch.tensor(values, dtype=torch.float64))


def _zeros(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter).detach().flatten()


def grad_norm(grads: Gradients) -> float:
    """Sum over modules of the L2 norm of the mean gradient (Abdelfattah et al., arXiv 2101.08134)."""
    return sum(float(g.mean(0).double().norm()) for g in grads.by_module.values())


def snip(grads: Gradients) -> float:
    """Sum over weights of |gradient * weight|, the gradient averaged over batches (arXiv 1810.02340)."""
    return sum(float((g.mean(0).double() * grads.weights[m].double()).abs().sum()) for m, g in grads.by_module.items())


def zico(grads: Gradients) -> float:
    """Sum over modules of log sum over weights of mean |gradient| / standard deviation (arXiv 2301.11300).

    Mean and (population) deviation are over batches; weights whose gradient does not vary are left out, and modules of
    which none does.

    Raises:
        TrainingError: No gradient varies, as with a single batch.
    """
    terms = []
    for g in grads.by_module.values():
        g = g.double()
        spread = g.std(0, correction=0)
        varying = spread > 0
        if varying.any():
            terms.append(math.log(float((g.abs().mean(0)[varying] / spread[varying]).sum()) + _TINY))
    if not terms:
        raise TrainingError(
            "ZiCo compares the gradients of several batches; no gradient of this model varies with them."
        )
    return sum(terms)


def fisher_rao(grads: Gradients) -> float:
    """log of the Fisher-Rao norm of the weights: half the log of the mean over batches of (gradient . weights)^2."""
    inner = torch.stack([g.double() @ grads.weights[m].double() for m, g in grads.by_module.items()]).sum(0)
    return 0.5 * math.log(float(inner.square().mean()) + _FLOOR)


def sigeo(grads: Gradients, coefficients: tuple[float, float, float] = (1.0, 50.0, 1.0)) -> float:
    """SiGeo (arXiv 2311.13169, equation 7): ZiCo term + Fisher-Rao term - current loss, each with its coefficient.

    The Fisher-Rao norm is the mean of squared inner products, as in the paper; its code has the square of a sum.
    """
    first, second, third = coefficients
    return first * zico(grads) + second * fisher_rao(grads) - third * float(grads.losses.mean())


# --- scores that need no labels ---------------------------------------------------------------------------------------
class _Captured(Exception):
    """Ends a forward pass whose inputs are known."""


def capture_inputs(model: nn.Module, loss_of: Callable[[nn.Module], Any]) -> tuple[Tensor, ...]:
    """The tensors that a loss gives its model.

    Raises:
        TrainingError: The loss does not call it.
    """
    heard: list[tuple[Tensor, ...]] = []

    def listen(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        heard.append(inputs)
        raise _Captured

    handle = model.register_forward_pre_hook(listen)
    try:
        loss_of(model)
    except _Captured:
        pass
    finally:
        handle.remove()
    if not heard:
        raise TrainingError("A proxy of a model's units needs a loss that calls the model; this one does not.")
    return heard[0]


class _WithoutNorms(TorchFunctionMode):
    """Normalisations only scale by their weight, as SynFlow wants a network without them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _NORMS:
            return func(*args, **kwargs)
        at = {F.layer_norm: 2, F.rms_norm: 2, F.batch_norm: 3, F.group_norm: 2}[func]
        weight = kwargs.get("weight", args[at] if len(args) > at else None)
        if weight is None:
            return args[0]
        channels_first = func in (F.batch_norm, F.group_norm)
        return args[0] * (weight.view(-1, *[1] * (args[0].dim() - 2)) if channels_first else weight)


def synflow(model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Sum over weights of weight * gradient of the summed output (Tanaka et al., arXiv 2006.05467).

    All weights are made positive, numbers among the inputs ones, and normalisations left out; float64, since the sum
    grows with a power of the depth.

    Args:
        model: Left as it is.
        inputs: Of one batch; ids stay as they are.

    Raises:
        TrainingError: The output depends on no weight, or the sum is too large for float64.
    """
    weights = {n: p.detach().double().abs().requires_grad_(True) for n, p in model.named_parameters()}
    ones = tuple(torch.ones_like(x, dtype=torch.float64) if x.is_floating_point() else x for x in inputs)
    with torch.enable_grad(), _WithoutNorms():
        output = torch.func.functional_call(model, weights, ones)
        if not output.requires_grad:
            raise TrainingError(_DEAD)
        gradients = torch.autograd.grad(output.sum(), list(weights.values()), allow_unused=True)
    flows = [float((g * w).detach().sum()) for g, w in zip(gradients, weights.values(), strict=True) if g is not None]
    if not any(flows):
        raise TrainingError(_DEAD)
    return _finite("SynFlow", sum(flows))


def _finite(score: str, value: float) -> float:
    if not math.isfinite(value):
        raise TrainingError(f"{score} of this model is {value}, which compares with nothing.")
    return value


class _Switches(TorchFunctionMode):
    """Listens which units are on (their input above 0) for each of `rows` examples."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.kernel: Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _SWITCHES and args[0].shape[0] % self.rows == 0:
            on = (args[0].detach() > 0).reshape(self.rows, -1).double()
            together = on @ on.T + (1 - on) @ (1 - on).T
            self.kernel = together if self.kernel is None else self.kernel + together
        return func(*args, **(kwargs or {}))


def nwot(model: nn.Module, inputs: tuple[Tensor, ...], jitter: float = 0.0) -> float:
    """log determinant of how many units are on or off together, for each two examples (NWOT, arXiv 2006.04647v3).

    Counted at ReLU and its relatives (SiLU, GELU, hard swish).

    Args:
        model: Left as it is.
        inputs: Of one batch.
        jitter: Added to the diagonal, so that the determinant is above 0 where two examples are equal, and least where
            the model has no such unit and tells none apart.

    Raises:
        TrainingError: The model has no such unit or cannot tell two examples apart, and there is no jitter.
    """
    switches = _Switches(len(inputs[0]))
    with torch.no_grad(), switches:
        model(*inputs)
    if switches.kernel is None and not jitter:
        raise TrainingError("NWOT counts ReLU, SiLU, GELU and hard-swish units; this model has none.")
    own = jitter * torch.eye(switches.rows, dtype=torch.float64, device=inputs[0].device)
    kernel = own if switches.kernel is None else switches.kernel + own
    return _finite("NWOT", float(torch.linalg.slogdet(kernel).logabsdet))
