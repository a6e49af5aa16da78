"""A guarded optimiser step: schedule, clipping, and what to do about a loss that is not a number.

`train` drives one of these; a method that alternates between weights and architecture drives two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rankitect.errors import TrainingError
from rankitect.training.parallel import one_part, peers
from rankitect.training.placement import placement
from rankitect.training.settings import OptimizerConfig
from rankitect.training.sharding import is_divided, part_of, whole

if TYPE_CHECKING:
    from rankitect.training.embeddings import TableStorage

__all__ = ["GuardedOptimizer", "OptimizerConfig", "StepReport", "backpropagate", "learning_rate"]

_OF_TABLES = "tables:"
_RATE = "rate"
_FUSED = {"sgd": ("cpu", "cuda", "mps"), "adagrad": ("cpu", "cuda"), "adamw": ("cpu", "cuda", "mps")}
"""Devices on which torch has one kernel for the whole step of an optimiser."""


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes:
        loss: the loss before the step.
        lr: the learning rate used.
        grad_norm: L2 norm of the gradient before clipping.
        skipped: whether the step was left out because something was not finite.
    """

    loss: float
    lr: float
    grad_norm: float
    skipped: bool


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Learning rate of a step.

    Args:
        config: peak, schedule, warm-up and end.
        step: from 0.
        steps: length of the whole schedule.

    >>> [round(learning_rate(OptimizerConfig(lr=1.0), step, 4), 2) for step in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup) / max(1, steps - config.warmup)
    height = 1.0 - done if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return config.lr * (config.final_lr + (1.0 - config.final_lr) * max(0.0, height))


def _optimizer(config: OptimizerConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    first = next((parameter for group in groups for parameter in group["params"]), None)
    device = "cpu" if first is None else first.device.type
    fused = device in _FUSED.get(config.kind, _FUSED["adamw"])
    if config.kind == "sgd":
        momentum, nesterov = config.momentum, config.nesterov and config.momentum > 0
        sgd = torch.optim.SGD(groups, lr=config.lr, momentum=momentum, nesterov=nesterov, fused=fused)
        _still(sgd)
        return sgd
    if config.kind == "adagrad":
        return torch.optim.Adagrad(groups, lr=config.lr, eps=config.eps, fused=fused)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def _still(optimizer: torch.optim.Optimizer) -> None:
    """Start SGD's momentum from zero, as from nothing: torch's kernel refuses a step in which some have none yet."""
    if isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["momentum"]:
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def backpropagate(
    compute: Callable[[], tuple[Tensor, float]], gradients: Callable[[], Sequence[Tensor]]
) -> tuple[float, float]:
    """The loss on a batch and its gradients, in one piece or in as many parts, one after the other, as the placement
    says and there are rows for.

    Where processes train together, what is left in each is its share of the gradient: their sum over all processes
    (`Group.sum_`) is that of the whole batch. All agree on whether a loss is finite before any goes backwards, since
    backward passes of a divided model wait for each other.

    Args:
        compute: Gives the loss on this process's rows (`Group.shard`), and their number. Where a batch is computed in
            parts it is called for each, and their gradients are added.
        gradients: Gives the gradients of what is trained, after the last part; there are none before.

    Returns:
        The mean loss of all processes, and the rows of all parts of this one. Gradients mean nothing where it is not
        finite.
    """
    most = placement().accumulate
    if most == 1:
        loss, size = compute()
        return _backpropagate_at_once(loss, size), size
    total = rows = 0.0
    part, parts = 0, 1
    while part < parts:
        with one_part(part, most) as group:
            loss, size = compute()
        value = loss.item()
        if math.isfinite(group.total(value)):
            (loss * size).backward()
        total, rows = total + value * size, rows + size
        part, parts = part + 1, max(group.asked, default=1)
    value, share = peers().mean(total / max(rows, 1e-12), rows)
    if grads := gradients():
        torch._foreach_mul_(list(grads), share / max(rows, 1e-12))
    return value, rows


def _backpropagate_at_once(loss: Tensor, size: float) -> float:
    value, share = peers().mean(loss.item(), size)
    if math.isfinite(value):
        (loss if share == 1.0 else loss * share).backward()
    return value


def _with_rates(parameters: Mapping[str, nn.Parameter], rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """A group for each rate. Rates are rounded to a tenth of a power of two: a group is a kernel of its own."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, rate in rates.items():
        if name in parameters:
            rounded = 0.0 if rate <= 0 else 2.0 ** (round(10 * math.log2(rate)) / 10)
            groups.setdefault(rounded, []).append(parameters[name])
    return [{"params": each, "weight_decay": 0.0, _RATE: rate} for rate, each in sorted(groups.items())]


def _gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


class GuardedOptimizer:
    """An optimiser over named parameters; see the module.

    Args:
        parameters: by name; those that need no gradient are left out. A parameter without gradient in a step (a layer
            that the activated architecture skips) keeps its value and its running means.
        config: see `OptimizerConfig`.
        steps: length of the schedule.
        tables: holds and trains embedding tables, which are then not among the parameters; their learning rate follows
            the same schedule. They take their step in the backward pass, so that of a gradient that is not finite is
            not taken back.
        rates: by name, what the learning rate is multiplied with for some parameters (scales, say, which are much
            smaller than weights); these have no weight decay.
        rate: the learning rate of a step before any halving, in place of the configuration's schedule.

    Raises:
        TrainingError: when nothing can be trained.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter] | Iterable[tuple[str, nn.Parameter]],
        config: OptimizerConfig,
        steps: int,
        tables: TableStorage | None = None,
        rates: Mapping[str, float] | None = None,
        rate: Callable[[int], float] | None = None,
    ) -> None:
        self.config, self.steps, self._tables, self._rate = config, steps, tables, rate
        self.parameters = {name: parameter for name, parameter in dict(parameters).items() if parameter.requires_grad}
        if not self.parameters and tables is None:
            raise TrainingError("There is nothing to train: no parameter needs a gradient.")
        self.halvings = 0
        usual = [parameter for name, parameter in self.parameters.items() if name not in (rates or {})]
        matrices = [parameter for parameter in usual if parameter.ndim > 1]
        vectors = [parameter for parameter in usual if parameter.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay, _RATE: 1.0},
            {"params": vectors, "weight_decay": 0.0, _RATE: 1.0},
            *_with_rates(self.parameters, rates or {}),
        ]
        filled = [group for group in groups if group["params"]]
        self._optimizer = _optimizer(config, filled or groups[:1])  # none where tables hold everything

    def lr(self, step: int) -> float:
        """Learning rate of a step, after the halvings so far."""
        rate = learning_rate(self.config, step, self.steps) if self._rate is None else self._rate(step)
        return rate * 0.5**self.halvings

    def begin(self, step: int) -> None:
        """Called before the forward pass of a step, where there are tables: fused ones take their rate from there."""
        if self._tables is not None:
            self._tables.set_lr(self._tables.config.lr * self.lr(step) / self.config.lr)

    def step(self, loss: Tensor, step: int, size: float = 1.0) -> StepReport:
        """Back-propagates a loss and updates the parameters, or skips the step when something is not finite.

        Args:
            loss: scalar; where processes train together, the mean over this one's part of the batch.
            step: number of the step, from 0; decides the learning rate.
            size: rows or tokens that the loss is the mean of; weighs it among processes that train together.

        Raises:
            TrainingError: when it was not finite more often than `retries` allows.
        """
        self._optimizer.zero_grad(set_to_none=True)
        return self._finish(_backpropagate_at_once(loss, size), step)

    def gradients(self) -> dict[str, Tensor]:
        """Copies of the gradients that there are, by parameter."""
        return {name: p.grad.clone() for name, p in self.parameters.items() if p.grad is not None}

    def learn(
        self, compute: Callable[[], tuple[Tensor, float]], step: int, look: Callable[[], None] | None = None
    ) -> tuple[StepReport, float]:
        """A step on a batch, in one piece or in as many parts, one after the other, as the placement says.

        Args:
            compute: Gives the loss on this process's rows (`Group.shard`), and their number. Where a batch is computed
                in parts it is called for each, and their gradients are added.
            step: As for `step`.
            look: Called when all gradients are there, before they are clipped.

        Returns:
            The report, and the rows of all parts.

        Raises:
            TrainingError: As `step`, or there are tables, which take a step in every backward pass.
        """
        parts = placement().accumulate
        if parts > 1 and self._tables is not None:
            raise TrainingError(
                f"placement.accumulate={parts} adds the gradients of the parts of a batch, and embedding tables take "
                "their step on each: use placement.accumulate=1, or task.tables.optimizer=dense."
            )
        self._optimizer.zero_grad(set_to_none=True)
        value, rows = backpropagate(compute, lambda: _gradients(self.parameters.values()))
        if look is not None:
            look()
        return self._finish(value, step), rows

    def _finish(self, value: float, step: int) -> StepReport:
        """Update the parameters from their gradients, or not, where something is not finite."""
        lr, norm = self.lr(step), math.nan
        if math.isfinite(value):
            grads = _gradients(self.parameters.values())
            peers().sum_([grad for grad in grads if not is_divided(grad)])  # the others were summed as they came
            norm = self._clip(grads)
        if not math.isfinite(norm):
            self._optimizer.zero_grad(set_to_none=True)
            self._back_off(value, norm, step, lr)
            return StepReport(value, lr, norm, skipped=True)
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group[_RATE]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return StepReport(value, lr, norm, skipped=False)

    def _clip(self, grads: Sequence[Tensor]) -> float:
        if not grads:
            return 0.0
        total = whole(nn.utils.get_total_norm(grads))
        if self.config.clip is not None:
            scale = self.config.clip / (total.item() + 1e-6)
            if scale < 1.0:  # where the gradient is short, its memory need not be touched
                torch._foreach_mul_(list(grads), scale)
        return total.item()

    def _back_off(self, loss: float, norm: float, step: int, lr: float) -> None:
        self.halvings += 1
        if self.halvings > self.config.retries:
            what = "loss" if not math.isfinite(loss) else "gradient"
            raise TrainingError(
                f"Training cannot go on: the {what} is not finite at step {step + 1} (learning rate {lr:.3g}, already "
                f"halved {self.halvings - 1} times). Lower the learning rate or clip harder; if it happens at the "
                "first step, the model or the data holds values that are not finite."
            )

    def whole(self, name: str, held: Tensor) -> Tensor:
        """A parameter of the model, all of it, where the processes divide it; see `TableStorage.whole`."""
        return whole(held) if self._tables is None else self._tables.whole(name, held)

    def part(self, name: str, everything: Tensor) -> Tensor:
        """What this process holds of a parameter; see `TableStorage.part`."""
        if self._tables is not None:
            return self._tables.part(name, everything)
        held = self.parameters.get(name)
        return everything if held is None else part_of(everything, held)

    def state(self) -> dict[str, Tensor]:
        """Running means and step counts, as `<moment>/<parameter>`; live tensors, to be saved at once."""
        state = {
            f"{moment}/{name}": whole(value)
            for name, parameter in self.parameters.items()
            for moment, value in self._optimizer.state.get(parameter, {}).items()
            if isinstance(value, Tensor)
        }
        if self._tables is not None:
            state |= {f"{_OF_TABLES}{key}": value for key, value in self._tables.state().items()}
        return state

    def load_state(self, state: Mapping[str, Tensor], halvings: int) -> None:
        """Goes on from what `state` gave and from so many halvings; what it does not have starts anew.

        Raises:
            TrainingError: when the state has other parameters or shapes.
        """
        self.halvings = halvings
        if self._tables is not None:
            held = {k.removeprefix(_OF_TABLES): v for k, v in state.items() if k.startswith(_OF_TABLES)}
            self._tables.load_state(held)
            state = {key: value for key, value in state.items() if not key.startswith(_OF_TABLES)}
        if not isinstance(self._optimizer, torch.optim.Adagrad):  # whose state is there, whole, from the start
            self._optimizer.state.clear()
            _still(self._optimizer)
        for key, value in state.items():
            moment, _, name = key.partition("/")
            parameter = self.parameters.get(name)
            if parameter is None or (value.ndim and value.shape != parameter.shape):
                raise TrainingError(f"The optimiser's saved state does not belong to this model: {name!r} differs.")
            self._optimizer.state[parameter][moment] = self._held(moment, value, parameter)

    def _held(self, moment: str, value: Tensor, parameter: nn.Parameter) -> Tensor:
        """A part of the state where it is kept: with the parameter, but for a count of steps that no kernel reads."""
        if moment == "step" and not self._optimizer.defaults.get("fused"):
            return value.to("cpu", copy=True)
        own = value.to(parameter.device, copy=True)
        return part_of(own, parameter) if own.ndim else own
