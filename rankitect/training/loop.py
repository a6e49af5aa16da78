"""The one training loop: from scratch, healing, short training and supernets all go through it.

A batch is a function of the step's number, and torch's random numbers are seeded anew at every step, so that a run that
was interrupted and resumed is equal to one that was not (on the same number of threads).
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from rankitect.contracts import JSON
from rankitect.errors import TrainingError, brief
from rankitect.training.checkpoint import load_state, save_state
from rankitect.training.identity import batch_digest, differences, identity_of
from rankitect.training.optimizer import GuardedOptimizer, OptimizerConfig, StepReport
from rankitect.training.parallel import peers, share_statistics
from rankitect.training.placement import placement
from rankitect.training.sharding import bring_back, divided

if TYPE_CHECKING:
    from rankitect.training.embeddings import TableStorage

__all__ = ["TrainConfig", "TrainResult", "load_tensors", "model_tensors", "step_seed", "train"]

Batch = TypeVar("Batch")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainConfig:
    """How long, with what optimiser, under what seed.

    Attributes:
        steps: number of steps.
        optimizer: learning rate, schedule, clipping; see `OptimizerConfig`.
        seed: of random numbers that the loss draws (dropout, Gumbel noise); batches have their own.
        checkpoint_every: steps between checkpoints, where a checkpoint file is given.
        checkpoint_seconds: least seconds between two checkpoints. The state of a large model takes seconds to write;
            what a kill costs is then about this much work.
    """

    steps: int = 45
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    seed: int = 0
    checkpoint_every: int = 50
    checkpoint_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.checkpoint_every < 1:
            raise TrainingError("Training settings: steps must be at least 0 and checkpoint_every at least 1.")


@dataclass(frozen=True)
class TrainResult:
    """What was trained.

    Attributes:
        steps: steps done, skipped ones included.
        tokens: tokens (or examples) of all batches.
        seconds: wall-clock seconds, over all interrupted parts.
        losses: loss of each step, [steps]; not a number where a step was skipped for it.
        skipped: number of steps left out because something was not finite.
        finished: False when the stop callback ended it early.
    """

    steps: int
    tokens: int
    seconds: float
    losses: list[float]
    skipped: int
    finished: bool

    @property
    def tokens_per_second(self) -> float:
        """Training speed."""
        return self.tokens / self.seconds if self.seconds else 0.0


def step_seed(seed: int, step: int) -> int:
    """A seed for the random numbers of one step.

    >>> step_seed(0, 1) == step_seed(0, 1) != step_seed(1, 0)
    True
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}:{step}".encode(), digest_size=7).digest(), "little")


def train(
    model: nn.Module,
    loss_fn: Callable[[nn.Module, Batch], Tensor],
    batch_at: Callable[[int], Batch],
    config: TrainConfig,
    *,
    size: Callable[[Batch], int] | None = None,
    parameters: Mapping[str, nn.Parameter] | None = None,
    rates: Mapping[str, float] | None = None,
    tables: TableStorage | None = None,
    before_step: Callable[[int], None] | None = None,
    progress: Callable[[int, int, StepReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    checkpoint: Path | None = None,
    keep_finished: bool = True,
    provenance: Mapping[str, JSON] | None = None,
    divide: bool = False,
) -> TrainResult:
    """Trains a model in place.

    Args:
        model: left in evaluation mode.
        loss_fn: (model, batch) to a scalar loss.
        batch_at: step, from 0, to its batch; a pure function.
        config: see `TrainConfig`.
        size: tokens or examples of a batch, for the ledger; by default B * T for ids [B, T + 1], else the first
            dimension, or `len`.
        parameters: what to train; by default all parameters of the model, but those that `tables` holds.
        rates: learning rates of some parameters; see `GuardedOptimizer`, as for the tables.
        tables: trains the model's embedding tables.
        before_step: called with the step's number before its batch, such as to activate an architecture.
        progress: called with (steps done, steps, report of the step).
        should_stop: asked before every step; True saves the state and returns.
        checkpoint: file of the state. When it is there, training goes on from it. One that cannot be written while
            training runs costs a warning and what a kill would lose, not the training.
        keep_finished: whether the state of finished training is written as well; where the caller keeps the model
            itself, it need not be.
        provenance: what else the result depends on, by name: the data, the mixture, a teacher. Kept in the checkpoint,
            which is refused where any of it differs. Where a caller gives none, a hash of the last batch is kept, so
            that training does not go on with other data.
        divide: whether the placement may divide the model among the processes that train it. What `progress` and
            `should_stop` see of the model is then as it was before.

    Raises:
        TrainingError: when the loss stays not finite, or the checkpoint is damaged or belongs to another model, other
            settings or another provenance; the message names what differs.
    """
    count, place = size or _batch_size, placement()
    place.place(model)
    given = model
    if divide and place.shard and peers().world > 1:
        model = divided(given, place)
    if parameters is None:
        parameters = dict(model.named_parameters()) if tables is None else tables.dense_parameters()
    optimizer = GuardedOptimizer(parameters, config.optimizer, config.steps, tables, rates)
    digest = _digest_of(batch_at, config.seed) if provenance is None and peers().world == 1 else None
    identity = identity_of(config, model, tables, loss_fn, provenance or {})
    state = None if checkpoint is None else _SavedState(checkpoint, identity, model, optimizer, digest)
    run = _Run() if state is None or not state.path.exists() else state.load()

    def compute() -> tuple[Tensor, float]:
        batch = place.move(batch_at(run.step))
        with place.computing():
            return loss_fn(model, batch), count(batch)

    before = run.seconds
    started = saved = time.monotonic()
    finished = True
    model.train()
    with place.own_random_numbers(), place.compiled(model), torch.enable_grad():
        while run.step < config.steps:
            if should_stop is not None and should_stop():
                finished = False
                break
            place.seed(step_seed(config.seed, run.step))
            if before_step is not None:
                before_step(run.step)
            optimizer.begin(run.step)
            report, amount = optimizer.learn(compute, run.step)
            share_statistics(model)
            run.note(report, int(peers().total(amount)), before + time.monotonic() - started)
            if progress is not None:
                progress(run.step, config.steps, report)
            due = run.step % config.checkpoint_every == 0 and time.monotonic() - saved >= config.checkpoint_seconds
            if state is not None and due and run.step < config.steps:
                state.save(run)
                saved = time.monotonic()
    model.eval()
    if state is not None and (keep_finished or not finished):
        state.save(run)
    if model is not given:
        bring_back(given, model, place)
        given.eval()
    return TrainResult(run.step, run.tokens, run.seconds, run.losses, run.skipped, finished)


@dataclass
class _Run:
    """What changes from step to step, beside tensors."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    skipped: int = 0

    def note(self, report: StepReport, tokens: int, seconds: float) -> None:
        """Count a step that was done, `seconds` after the beginning of the training."""
        self.losses.append(report.loss)
        self.step, self.skipped = self.step + 1, self.skipped + report.skipped
        self.tokens, self.seconds = self.tokens + tokens, seconds


def _batch_size(batch: object) -> int:
    if isinstance(batch, Tensor):
        return batch.shape[0] * (batch.shape[1] - 1) if batch.ndim == 2 else batch.shape[0]
    return len(batch)  # type: ignore[arg-type]


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers by name, each once, also where two modules share one."""
    saved = model.state_dict(keep_vars=True)
    named: dict[str, Tensor] = dict(model.named_parameters())
    return named | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `model_tensors`, in place.

    Raises:
        TrainingError: The tensors are not exactly the model's, by name and shape; the model is left as it was.
    """
    own = model_tensors(model)
    wrong = sorted(own.keys() ^ tensors.keys()) or [n for n, t in own.items() if t.shape != tensors[n].shape]
    if wrong:
        raise TrainingError(f"The saved weights do not belong to this model: {wrong[0]!r} differs.")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _digest_of(batch_at: Callable[[int], Any], seed: int) -> Callable[[int], str]:
    """The hash of the batch of a step, drawn with the random numbers of that step."""

    def digest(step: int) -> str:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(step_seed(seed, step))
            return batch_digest(batch_at(step))

    return digest


@dataclass(frozen=True)
class _SavedState:
    """The state of a training in a file.

    Attributes:
        path: The file.
        identity: What the training belongs to.
        model: What is trained.
        optimizer: Trains it.
        digest: Gives the hash of a step's batch; None where the identity says which data they are.
    """

    path: Path
    identity: Mapping[str, JSON]
    model: nn.Module
    optimizer: GuardedOptimizer
    digest: Callable[[int], str] | None

    def save(self, run: _Run) -> None:
        """Write the state. Where that cannot be done, training goes on without it."""
        from safetensors import SafetensorError  # which is also what it raises on a full disk

        whole = self.optimizer.whole
        try:
            tensors = {f"model/{name}": whole(name, tensor) for name, tensor in model_tensors(self.model).items()}
            tensors |= {f"optimizer/{name}": tensor for name, tensor in self.optimizer.state().items()}
            info: dict[str, Any] = {
                "identity": dict(self.identity), "halvings": self.optimizer.halvings, "run": asdict(run),
            }  # fmt: skip
            if self.digest is not None and run.step:
                info["batch"] = self.digest(run.step - 1)
            save_state(self.path, tensors, info)
        except (OSError, SafetensorError) as error:
            _log.warning(
                "The training state cannot be written to %s (%s); training goes on without it.", self.path, error
            )

    def load(self) -> _Run:
        """Put the state into model and optimizer; gives how far it had come.

        Raises:
            TrainingError: It is damaged, or that of another training.
        """
        tensors, info = load_state(self.path)
        remedy = "delete it, or choose another folder."
        if different := differences(info.get("identity"), self.identity):
            raise TrainingError(f"{brief(self.path)} was written by training with {different}: {remedy}")
        states = {n.removeprefix("optimizer/"): value for n, value in tensors.items() if n.startswith("optimizer/")}
        # The identity is that of this training, so that what does not fit below can only be damage.
        try:
            with torch.no_grad():
                for name, tensor in model_tensors(self.model).items():
                    tensor.copy_(self.optimizer.part(name, tensors[f"model/{name}"]))
            self.optimizer.load_state(states, info["halvings"])
            run = _Run(**info["run"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TrainingError(
                f"{brief(self.path)} is a damaged training state ({brief(error, 100)}): {remedy}"
            ) from error
        goes_on = 0 < run.step < self.identity["steps"]  # type: ignore[operator]
        now = self.digest(run.step - 1) if goes_on and self.digest is not None else None
        if now is not None and info.get("batch", now) != now:
            raise TrainingError(
                f"{brief(self.path)} was written by training on other data: its batch of step {run.step} was another: "
                f"{remedy}"
            )
        return run
