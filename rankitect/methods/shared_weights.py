"""Training of shared weights: one optimiser over a supernet, an architecture (or several) a step, with checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.contracts import SharedTraining, SharesWeights, Spent, offers, require
from rankitect.contracts.task import HoldsTables, TunesSharedTraining
from rankitect.errors import TrainingError, brief
from rankitect.methods.teaching import Learned, Lesson, share_of_update, taught
from rankitect.training.parallel import peers, share_statistics
from rankitect.training.placement import placement

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rankitect.contracts import Session, Unit
    from rankitect.graph import Architecture
    from rankitect.models.supernet import Supernet
    from rankitect.training.embeddings import TableStorage
    from rankitect.training.settings import OptimizerConfig

__all__ = [
    "USUAL_FALL",
    "CoTraining",
    "Paired",
    "TrainingState",
    "samples_per_update",
    "train_steps",
    "training_defaults",
    "usual_optimizer",
]

USUAL = SharedTraining(40, 1.5e-4)
"""The training of shared weights on a task that has no numbers of its own."""
USUAL_FALL: Mapping[str, Any] = {"schedule": "linear", "final_lr": 0.1}
"""How the learning rate of shared weights falls after its warm-up."""
_WARMUP = 4
_KINDS: Mapping[str, Mapping[str, Any]] = {
    "adamw": {"weight_decay": 0.0},
    "sgd": {"kind": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 3e-5, "clip": None},
}


def training_defaults(task: object, screened: bool = False) -> SharedTraining:
    """The training of shared weights that suits a task.

    Args:
        task: The task.
        screened: Whether candidates are then told apart by the weights that they inherit.
    """
    return task.shared_training(screened) if offers(task, TunesSharedTraining) else USUAL


def samples_per_update(task: object) -> int:
    """Architectures that shared weights are trained on between two updates of what draws them: a task's own number,
    where an update costs much more than a step of the weights; else 1."""
    return task.samples_per_update if offers(task, TunesSharedTraining) else 1


def usual_optimizer(task: object, lr: float, steps: int, kind: str | None = None) -> OptimizerConfig:
    """How shared weights are trained on a task: with AdamW, or with SGD and Nesterov momentum.

    Args:
        task: The task.
        lr: Peak learning rate.
        steps: Length of the schedule.
        kind: "adamw" or "sgd"; None: the task's (`SharedTraining.optimizer`).
    """
    from rankitect.training.settings import OptimizerConfig

    usual = _KINDS[kind or training_defaults(task).optimizer]
    return OptimizerConfig(lr=lr, warmup=min(_WARMUP, steps), **USUAL_FALL, **usual)


def _held(task: object, model: nn.Module, lr: float | None = None) -> TableStorage | None:
    """Who trains the embedding tables of a model, where the task has a way of its own for them."""
    storage: TableStorage | None = task.hold_tables(model, lr) if offers(task, HoldsTables) else None
    return storage


def _loss_of(task: SharesWeights, batch: int | None) -> Callable[[nn.Module, int], tuple[torch.Tensor, int]]:
    """The training loss on batches of a size; None: the task's."""
    loss: Callable[[nn.Module, int], tuple[torch.Tensor, int]] = task.train_loss
    if batch is not None:
        sized = require(task, TunesSharedTraining, f"training with batches of {batch}")
        loss = partial(sized.train_loss, batch=batch)

    def computed(model: nn.Module, step: int) -> tuple[torch.Tensor, int]:
        with placement().computing():
            return loss(model, step)

    return computed


class CoTraining:
    """Trains a supernet for the architectures that a method samples.

    Args:
        supernet: Trained in place.
        task: Gives the loss.
        lr: Peak learning rate.
        steps: Length of the schedule.
        batch: Rows of a step; None: the task's.
        table_lr: Peak learning rate of embedding tables; None: the task's.
        optimizer: How it is trained, where that is not `usual_optimizer`; `lr` is its own.
        rate: The learning rate of a step, where the optimizer's schedule does not say it.

    Attributes:
        optimizer: What takes the steps.
        share: What the last measured step owed to all architectures but the first; see `share_of_update`.
    """

    def __init__(
        self,
        supernet: Supernet,
        task: SharesWeights,
        lr: float,
        steps: int,
        *,
        batch: int | None = None,
        table_lr: float | None = None,
        optimizer: OptimizerConfig | None = None,
        rate: Callable[[int], float] | None = None,
    ) -> None:
        from rankitect.training.optimizer import GuardedOptimizer

        self.supernet, self._task = placement().place(supernet), task
        self._loss = _loss_of(task, batch)
        self._tables = _held(task, supernet, table_lr)
        weights = self._tables.dense_parameters() if self._tables else dict(supernet.weights.named_parameters())
        config = optimizer or usual_optimizer(task, lr, steps)
        self.optimizer = GuardedOptimizer(weights, config, steps, self._tables, rate=rate)
        self.share = math.nan

    def close(self) -> None:
        """Give the tables back to the supernet; no step follows."""
        if self._tables is not None:
            self._tables.release()

    def step(self, architecture: Architecture, step: int) -> tuple[float, Spent]:
        """One step on one architecture; the loss before it, and what the step cost."""
        self.optimizer.begin(step)
        model = self.supernet.activate(architecture)
        report, amount = self.optimizer.learn(lambda: self._loss(model, step), step)
        share_statistics(self.supernet)
        return report.loss, self._spent(architecture, amount)

    def _spent(self, architecture: Architecture, amount: float) -> Spent:
        """What a step cost in all processes that train together, of which each has a part of the batch."""
        from rankitect.training.spending import training_spent

        task, whole = self._task, int(peers().total(amount))
        return training_spent(task, task.unit, self.supernet.space, architecture, whole)

    def step_together(self, lesson: Lesson, step: int, *, shared: bool = False) -> tuple[list[float], Spent]:
        """One step on several architectures, all on the same batch.

        Args:
            lesson: The architectures, and what each of them learns.
            step: Decides the batch and the learning rate.
            shared: Whether `share` is measured; not where several processes or parts of a batch make the gradient, or
                where tables take their own step in every backward pass, of which there would be two.

        Returns:
            The loss of each before the step, without distillation, and what the step cost. In-place distillation adds
            nothing: the first architecture is trained in any case, and its outputs are at hand.
        """
        self.optimizer.begin(step)
        parts: list[list[Learned]] = []
        first: dict[str, torch.Tensor] = {}
        alone = self._tables is None and peers().world == placement().accumulate == 1
        shared = shared and alone and len(lesson.architectures) > 1
        self.share = math.nan

        def compute() -> tuple[torch.Tensor, float]:
            learned = taught(lesson, self.supernet, self._loss, step)
            own = learned[0].term
            if shared and all(math.isfinite(each.term.item()) for each in learned):  # before the others' is added
                own.backward()
                first.update(self.optimizer.gradients())
                own = own.detach()
            parts.append([replace(each, term=each.term.detach()) for each in learned])
            return sum((each.term for each in learned[1:]), own), sum(each.amount for each in learned)

        def measure() -> None:
            if first:
                self.share = share_of_update(self.optimizer, first)

        self.optimizer.learn(compute, step, measure if shared else None)
        share_statistics(self.supernet)
        means, spent = [], Spent()
        for architecture, own in zip(lesson.architectures, zip(*parts, strict=True), strict=True):
            amount = sum(each.amount for each in own)
            mean = own[0].loss if len(own) == 1 else sum(each.loss * each.amount for each in own) / max(amount, 1)
            means.append(peers().mean(mean, amount)[0])
            spent += self._spent(architecture, amount)
        return means, spent

    def save(
        self,
        path: Path,
        final: bool,
        info: Mapping[str, Any] | None = None,
        tensors: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Write the weights and, unless this is the end, the optimiser's state.

        Args:
            path: The file.
            final: Whether no more steps follow.
            info: Anything more that JSON can hold.
            tensors: More tensors, by names of the caller's.
        """
        from rankitect.training.checkpoint import save_state
        from rankitect.training.loop import model_tensors

        whole = self.optimizer.whole
        saved = {f"weight/{n}": whole(f"weights.{n}", w) for n, w in model_tensors(self.supernet.weights).items()}
        if not final:
            saved.update({f"state/{name}": t for name, t in self.optimizer.state().items()})
        saved.update({f"more/{name}": t for name, t in (tensors or {}).items()})
        save_state(path, saved, {"halvings": self.optimizer.halvings, "final": final, **(info or {})})

    def load(self, path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Go on from a file that `save` wrote; its `info` and `tensors`.

        Raises:
            TrainingError: The file is damaged, or of another model.
        """
        import torch

        from rankitect.training.checkpoint import load_state
        from rankitect.training.loop import model_tensors

        tensors, about = load_state(path)
        try:
            with torch.no_grad():
                for name, weight in model_tensors(self.supernet.weights).items():
                    weight.copy_(self.optimizer.part(f"weights.{name}", tensors[f"weight/{name}"]))
            state = {name.removeprefix("state/"): t for name, t in tensors.items() if name.startswith("state/")}
            # No step follows weights that were saved at the end; earlier versions did not say so.
            if not about.get("final", not state):
                self.optimizer.load_state(state, int(about["halvings"]))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TrainingError(
                f"{brief(path)} does not fit this search ({brief(error, 100)}): delete the folder it is in, or choose "
                "another output_dir=."
            ) from error
        return about, {n.removeprefix("more/"): t for n, t in tensors.items() if n.startswith("more/")}


class Paired:
    """A fixed model trained beside a supernet, on the same batches at the same rate: what the batch was worth.

    It starts from the supernet's weights.

    Args:
        supernet: Where it starts from; left as it is.
        architecture: What it is.
        task: Gives the loss.
        lr: Peak learning rate.
        steps: Length of the schedule.
    """

    def __init__(
        self, supernet: Supernet, architecture: Architecture, task: SharesWeights, lr: float, steps: int
    ) -> None:
        from rankitect.training.optimizer import GuardedOptimizer

        self._task, self._space, self._architecture = task, supernet.space, architecture
        self._loss = _loss_of(task, None)
        self.model = supernet.extract(architecture)
        self._tables = _held(task, self.model)
        weights = self._tables.dense_parameters() if self._tables else dict(self.model.named_parameters())
        self._optimizer = GuardedOptimizer(weights, usual_optimizer(task, lr, steps), steps, self._tables)

    def close(self) -> None:
        """Give the tables back to the model; no step follows."""
        if self._tables is not None:
            self._tables.release()

    @property
    def halvings(self) -> int:
        """How often its rate was halved."""
        return self._optimizer.halvings

    def step(self, step: int) -> tuple[float, Spent]:
        """One step; the loss before it, and what the step cost."""
        from rankitect.training.spending import training_spent

        self._optimizer.begin(step)
        report, amount = self._optimizer.learn(lambda: self._loss(self.model, step), step)
        share_statistics(self.model)
        whole = int(peers().total(amount))
        return report.loss, training_spent(self._task, self._task.unit, self._space, self._architecture, whole)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights and optimiser state, for a checkpoint."""
        from rankitect.training.loop import model_tensors

        weights = {f"baseline/{n}": self._optimizer.whole(n, w) for n, w in model_tensors(self.model).items()}
        return weights | {f"baseline_state/{n}": t for n, t in self._optimizer.state().items()}

    def load(self, tensors: Mapping[str, torch.Tensor], halvings: int) -> None:
        """Go on from what `tensors` gave."""
        import torch

        from rankitect.training.loop import model_tensors

        with torch.no_grad():
            for name, weight in model_tensors(self.model).items():
                weight.copy_(self._optimizer.part(name, tensors[f"baseline/{name}"]))
        state = {n.removeprefix("baseline_state/"): t for n, t in tensors.items() if n.startswith("baseline_state/")}
        self._optimizer.load_state(state, halvings)


@dataclass
class TrainingState:
    """How far a training of shared weights has come.

    Attributes:
        step: Steps done.
        spent: What they cost.
    """

    step: int = 0
    spent: Spent = field(default_factory=Spent)

    @classmethod
    def from_info(cls, info: Mapping[str, Any], unit: Unit) -> TrainingState:
        """The state in the `info` of a checkpoint; one of an earlier version knows the amount of data alone.

        Args:
            info: What `to_info` gave.
            unit: What the data are counted in.
        """
        spent = Spent.from_dict(info["spent"]) if "spent" in info else Spent.training(int(info["tokens"]), unit)
        return cls(int(info["step"]), spent)

    def to_info(self) -> dict[str, Any]:
        """The state for the `info` of a checkpoint."""
        return {"step": self.step, "spent": self.spent.to_dict()}


def train_steps(
    session: Session,
    name: str,
    state: TrainingState,
    steps: int,
    one: Callable[[int], tuple[float, Spent]],
    save: Callable[[TrainingState], None],
    *,
    share: float = 1.0,
    every: int = 20,
) -> None:
    """The steps of a preparation that are left: charged, shown, saved, and stopped where the user asks.

    Args:
        session: The study's.
        name: Of the charge and of scalars.
        state: How far it has come; changed in place.
        steps: Where it ends.
        one: From a step's number to its loss and what it cost.
        save: Writes a checkpoint.
        share: Of a limited budget, what may be used; the rest is for trials.
        every: Steps between checkpoints, at least: writing them takes at most a tenth of the time.
    """
    saved, took = time.monotonic(), 0.0
    while state.step < steps and session.remaining() > 1 - share:
        loss, spent = one(state.step)
        state.step, state.spent = state.step + 1, state.spent + spent
        session.scalar(f"{name}/loss", loss, state.step)
        session.progress(state.step, steps, f"loss {loss:.4f}")
        session.charge(name, state.spent)
        if state.step % every == 0 or state.step == steps or session.should_stop():
            now = time.monotonic()
            due = peers().agree(now - saved >= 9 * took)[0]  # all save at once: each may hold a part of the tables
            if due or state.step == steps or session.should_stop():
                save(state)
                saved = time.monotonic()
                took = saved - now
            session.check()
    if state.step < steps:
        session.logger.info("%s stops after %d steps: its share of the budget is spent.", name, state.step)
        save(state)
