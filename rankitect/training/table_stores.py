"""What holds one embedding table while it is trained: torch, a kernel of torchrec, or one in each of several processes.

See `rankitect.training.embeddings`, which chooses among them.
"""

from __future__ import annotations

import gc
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankitect.errors import TrainingError
from rankitect.models.weights import ParameterHolder
from rankitect.training.parallel import peers

__all__ = [
    "DIVIDED_ROWS",
    "FUSED_RULES",
    "DividedStore",
    "FusedStore",
    "RowWiseAdagrad",
    "Rule",
    "TableConfig",
    "TableStore",
    "TorchStore",
    "fused_width",
]  # fmt: skip

Backend = Literal["auto", "torchrec", "torch"]
Rule = Literal["sgd", "adagrad", "rowwise_adagrad", "adam"]
BACKENDS = ("auto", "torchrec", "torch")
RULES = ("sgd", "adagrad", "rowwise_adagrad", "adam")
FUSED_RULES = ("sgd", "adagrad", "rowwise_adagrad")
"""What fbgemm has kernels for on a CPU."""
FUSED_WIDTH = 4
"""Widths of fbgemm's tables are multiples of this."""
DIVIDED_ROWS = 1024
"""Tables of fewer rows are not divided among processes: the messages would cost more than the rows."""


@dataclass(frozen=True)
class TableConfig:
    """How tables are held and trained.

    Attributes:
        backend: "auto", "torchrec" or "torch"; see the module.
        optimizer: "sgd", "adagrad", "rowwise_adagrad" (one accumulator a row, of the mean square over its columns;
            Mudigere et al., arXiv 2104.05158) or "adam" (moments of a row move only when it is used).
        lr: learning rate.
        eps: added to the root of accumulators.
        betas: decay of Adam's moments.
    """

    backend: Backend = "auto"
    optimizer: Rule = "rowwise_adagrad"
    lr: float = 0.05
    eps: float = 1e-8
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        problems = {
            f"backend must be one of {', '.join(BACKENDS)}, found {self.backend!r}": self.backend not in BACKENDS,
            f"optimizer must be one of {', '.join(RULES)}, found {self.optimizer!r}": self.optimizer not in RULES,
            f"lr must be above 0, found {self.lr}": not self.lr > 0,
            f"eps must be above 0, found {self.eps}": not self.eps > 0,
            f"betas must be in [0, 1), found {self.betas}": not all(0 <= b < 1 for b in self.betas),
            "torchrec has no Adam on a CPU: choose backend=torch, or another optimizer": self.backend == "torchrec"
            and self.optimizer == "adam",
        }
        for problem, holds in problems.items():
            if holds:
                raise TrainingError(f"Embedding tables: {problem}.")


class RowWiseAdagrad(torch.optim.Optimizer):
    """Adagrad with one accumulator a row: the sum of the mean squares of its gradients (arXiv 2104.05158).

    Takes sparse gradients of tables [rows, width].
    """

    def __init__(self, params: Any, lr: float = 0.05, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the rows that have gradients."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                state = self.state[table]
                if not state:
                    state["sum"] = table.new_zeros(table.shape[0])
                grad = table.grad.coalesce()  # a row that was looked up several times gets one summed gradient
                rows, values = grad.indices()[0], grad.values()
                state["sum"].index_add_(0, rows, values.square().mean(1))
                scale = -group["lr"] / (state["sum"][rows].sqrt() + group["eps"])
                table.index_add_(0, rows, values * scale[:, None])


def fused_width(width: int) -> int:
    """Columns of fbgemm's table for one of this width."""
    return -(-width // FUSED_WIDTH) * FUSED_WIDTH


class TableStore(ABC):
    """A table in one backend's hands (a `RowStore`)."""

    def __init__(self, owner: ParameterHolder, name: str) -> None:
        self.owner, self.name, self.frozen = owner, name, False

    @property
    def table(self) -> nn.Parameter:
        """What this process holds of it."""
        return self.owner.get_parameter(self.name)

    def __call__(self, rows: Tensor, bags: Tensor | None) -> Tensor:
        """What `Params.lookup` gives."""
        if self.frozen or not self.table.requires_grad or not torch.is_grad_enabled():
            return self.read(rows, bags)
        return self.trained(rows, bags)

    def read(self, rows: Tensor, bags: Tensor | None) -> Tensor:
        """A lookup that changes nothing."""
        table = self.table.detach()
        if bags is None:
            return F.embedding(rows, table)
        return F.embedding_bag(rows, table, bags, mode="sum")

    @abstractmethod
    def trained(self, rows: Tensor, bags: Tensor | None) -> Tensor:
        """A lookup whose backward pass has the rows take their step."""

    @property
    def shape(self) -> torch.Size:
        """Of the table, all rows counted."""
        return self.table.shape

    def whole(self, held: Tensor) -> Tensor:
        """All rows of something that this process holds a part of; every process calls this at the same point."""
        return held

    def part(self, whole: Tensor) -> Tensor:
        """The rows of something whole that this process holds."""
        return whole

    @abstractmethod
    def set_lr(self, lr: float) -> None:
        """Set the learning rate."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Live accumulators of the rows that this process holds, by torch's names for them."""

    @abstractmethod
    def load(self, name: str, value: Tensor) -> None:
        """Set an accumulator of the rows that this process holds."""

    def release(self) -> None:
        """Give the table back to the model."""
        del self.owner.stores[self.name]


class TorchStore(TableStore):
    """Torch's sparse gradients, applied as soon as the backward pass has computed them."""

    def __init__(self, owner: ParameterHolder, name: str, config: TableConfig) -> None:
        super().__init__(owner, name)
        table = [self.table]
        if config.optimizer == "sgd":
            self._optimizer: torch.optim.Optimizer = torch.optim.SGD(table, lr=config.lr)
        elif config.optimizer == "adagrad":
            # Its rows come from autograd and are sound; torch warns until somebody has said so.
            torch.sparse.check_sparse_tensor_invariants.disable()
            self._optimizer = torch.optim.Adagrad(table, lr=config.lr, eps=config.eps)
        elif config.optimizer == "rowwise_adagrad":
            self._optimizer = RowWiseAdagrad(table, lr=config.lr, eps=config.eps)
            self._optimizer.state[table[0]]["sum"] = table[0].new_zeros(table[0].shape[0])
        else:
            self._optimizer = torch.optim.SparseAdam(table, lr=config.lr, betas=config.betas, eps=config.eps)
            moments = {name: torch.zeros_like(table[0].detach()) for name in ("exp_avg", "exp_avg_sq")}
            self._optimizer.state[table[0]].update({"step": 0, **moments})
        # The hook runs within the backward pass, so that a step is taken exactly when a fused kernel would take it.
        self._hook = table[0].register_post_accumulate_grad_hook(self._apply)

    def trained(self, rows: Tensor, bags: Tensor | None) -> Tensor:
        """See `TableStore`."""
        if bags is None:
            return F.embedding(rows, self.table, sparse=True)
        return F.embedding_bag(rows, self.table, bags, mode="sum", sparse=True)

    def _apply(self, table: Tensor) -> None:
        if table.grad is not None:  # the processes that train together hold equal copies, and apply equal sums
            table.grad = peers().rows(table.grad)
        self._optimizer.step()
        table.grad = None

    def set_lr(self, lr: float) -> None:
        """See `TableStore`."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def state(self) -> dict[str, Tensor]:
        """See `TableStore`."""
        state = dict(self._optimizer.state[self.table])
        if isinstance(self._optimizer, torch.optim.Adagrad):
            state.pop("step")  # counts for a decay of the rate only, of which there is none
        return {
            name: value if isinstance(value, Tensor) else torch.tensor(float(value)) for name, value in state.items()
        }

    def load(self, name: str, value: Tensor) -> None:
        """See `TableStore`."""
        state = self._optimizer.state[self.table]
        if isinstance(state[name], Tensor):
            state[name].copy_(value)
        else:
            state[name] = int(value)

    def release(self) -> None:
        """See `TableStore`."""
        self._hook.remove()
        super().release()


class FusedStore(TableStore):
    """A torchrec collection of one table, updated by the kernel that computes its gradient."""

    def __init__(self, owner: ParameterHolder, name: str, config: TableConfig) -> None:
        super().__init__(owner, name)
        from torchrec.modules.embedding_configs import EmbeddingBagConfig

        self._shape = self.table.shape
        rows, self._width = self._shape
        self._wide = fused_width(self._width)
        table = EmbeddingBagConfig(name=name, embedding_dim=self._wide, num_embeddings=rows, feature_names=["rows"])
        self._make(table, config)
        held = dict(self._collection.named_parameters())[f"embedding_bags.{name}.weight"].detach()
        trained = self.table.requires_grad
        # The model's parameter becomes a view into the kernel's table, without the columns that pad its width.
        held.zero_()
        held[:, : self._width].copy_(self.part(self.table.detach()))
        owner.register_parameter(name, nn.Parameter(held[:, : self._width], trained))
        self._each = torch.arange(1, device=self.table.device)

    def _make(self, table: Any, config: TableConfig) -> None:
        """The collection of one table, and the kernel in it."""
        from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection
        from torchrec.optim import RowWiseAdagrad as FusedRowWiseAdagrad

        kinds = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "rowwise_adagrad": FusedRowWiseAdagrad}
        settings: dict[str, Any] = {"lr": config.lr} | ({} if config.optimizer == "sgd" else {"eps": config.eps})
        self._collection: Any = FusedEmbeddingBagCollection(
            [table], optimizer_type=kinds[config.optimizer], optimizer_kwargs=settings, device=self.table.device
        )
        # The collection's own forward takes its input apart, narrows ids to 32 bits, and copies what the kernel gives:
        # with one table of one feature, its kernel can be called as it is.
        self._kernel: Any = self._collection._emb_modules[0]

    def trained(self, rows: Tensor, bags: Tensor | None) -> Tensor:
        """See `TableStore`."""
        if bags is not None:
            vectors: Tensor = self._kernel(rows, torch.cat([bags, bags.new_tensor([len(rows)])]), None)
            return vectors
        # The kernel sums bags of rows; single rows are bags of one, whose offsets count up.
        if len(self._each) != rows.numel() + 1:
            self._each = torch.arange(rows.numel() + 1, device=rows.device)
        return self._kernel(rows.flatten(), self._each, None).view(*rows.shape, -1)

    def set_lr(self, lr: float) -> None:
        """See `TableStore`."""
        self._kernel._emb_module.set_learning_rate(lr)

    def state(self) -> dict[str, Tensor]:
        """See `TableStore`."""
        states = self._kernel._emb_module.split_optimizer_states()
        if not states:
            return {}
        accumulator = states[0][0]
        return {"sum": accumulator if accumulator.ndim == 1 else accumulator[:, : self._width]}

    def load(self, name: str, value: Tensor) -> None:
        """See `TableStore`."""
        self.state()[name].copy_(value)

    def release(self) -> None:
        """See `TableStore`."""
        self.owner.register_parameter(self.name, nn.Parameter(self.table.detach().clone(), self.table.requires_grad))
        super().release()


class DividedStore(FusedStore):
    """A table whose rows are divided among the processes that train together (torchrec, sharded by rows).

    Each process holds a block of rows with their accumulators. A lookup sends every row number to the process that
    holds the row, and the vectors back; the backward pass sends the gradients of all processes, which the kernel there
    sums and applies. So every lookup is a message: all processes do the same ones in the same order.
    """

    def _make(self, table: Any, config: TableConfig) -> None:
        import torch.distributed as dist
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from torchrec.distributed.comm_ops import set_gradient_division
        from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
        from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
        from torchrec.distributed.types import ShardingEnv
        from torchrec.modules.embedding_modules import EmbeddingBagCollection

        class ByRows(EmbeddingBagCollectionSharder):
            """Torchrec leaves rows out where the device is a CPU; its kernels and messages can."""

            def sharding_types(self, compute_device_type: str) -> list[str]:
                """Those for a CPU, and by rows."""
                return [*super().sharding_types(compute_device_type), "row_wise"]

        set_gradient_division(False)  # losses are weighed by rows already (`GuardedOptimizer`): gradients are summed
        kinds = {
            "sgd": EmbOptimType.EXACT_SGD,
            "adagrad": EmbOptimType.EXACT_ADAGRAD,
            "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        }
        world, device = peers().world, self.table.device
        local = int(os.environ.get("LOCAL_WORLD_SIZE", world))  # processes of this machine: each has a device there
        whole = EmbeddingBagCollection(tables=[table], device=torch.device("meta"))
        sharder = ByRows({"optimizer": kinds[config.optimizer], "learning_rate": config.lr, "eps": config.eps})
        plan = construct_module_sharding_plan(
            whole, {table.name: row_wise(compute_kernel="fused")}, sharder, local, world, device_type=device.type
        )
        self._collection = sharder.shard(whole, plan, ShardingEnv.from_process_group(dist.group.WORLD), device)
        self._kernel = self._collection._lookups[0]._emb_modules[0]

    @property
    def shape(self) -> torch.Size:
        """See `TableStore`."""
        return self._shape

    def whole(self, held: Tensor) -> Tensor:
        """See `TableStore`."""
        return peers().whole(held, self._shape[0])

    def part(self, whole: Tensor) -> Tensor:
        """See `TableStore`."""
        return whole[peers().block(self._shape[0])]

    def read(self, rows: Tensor, bags: Tensor | None) -> Tensor:
        """See `TableStore`."""
        # In inference mode the kernel is not found: on a CPU, it is registered as one that has a gradient only.
        with torch.inference_mode(False), torch.no_grad():
            return self.trained(rows.clone(), None if bags is None else bags.clone())

    def trained(self, rows: Tensor, bags: Tensor | None) -> Tensor:
        """See `TableStore`."""
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

        flat = rows.flatten().contiguous()
        lengths = torch.ones_like(flat) if bags is None else torch.diff(bags, append=bags.new_tensor([len(flat)]))
        count = len(lengths)
        # gloo gathers gradients of one size: parts of a batch differ by a row, which empty bags make up for.
        lengths = F.pad(lengths, (0, peers().longest(count) - count))
        vectors: Tensor = self._collection(KeyedJaggedTensor(["rows"], flat, lengths=lengths)).values()
        vectors = vectors[:count, : self._width]
        return vectors if bags is not None else vectors.view(*rows.shape, -1)

    def release(self) -> None:
        """See `TableStore`."""
        whole, trained = self.whole(self.table.detach()), self.table.requires_grad
        self.owner.register_parameter(self.name, nn.Parameter(whole, trained))
        TableStore.release(self)
        del self._collection, self._kernel
        # They are rings of objects that hold the connections to the other processes. Of a connection that is there when
        # Python ends, a thread may let go of a tensor too late, which aborts the process.
        gc.collect()
