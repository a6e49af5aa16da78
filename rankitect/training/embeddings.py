"""Who holds embedding tables while they are trained, and the optimisers that touch only the rows of a batch.

A table has many rows of which a batch uses few, so its optimiser runs inside of the backward pass, on those rows alone,
whatever holds the table:

- "torchrec": a torchrec `FusedEmbeddingBagCollection`, whose fbgemm kernel looks up and updates (SGD, Adagrad and
  row-wise Adagrad; fbgemm's CPU kernels have no Adam). Its rows are a multiple of four wide: other tables are held with
  columns of zeros beside them, which no rule but row-wise Adagrad's minds (these stay with torch).
- "torch": sparse gradients, which a hook gives to an optimiser of torch's as soon as they are there (Adam, too).
- "auto": the first where it is installed and can, else the second.

Either way a table has no `.grad` after a backward pass, takes no part in the clipping of gradients, and is to be left
out of other optimisers (`dense_parameters`). A lookup changes nothing where gradients are off, where the table's
parameter wants none (`requires_grad`), and inside of `frozen`. The parameter itself stays where the model has it, under
its name, so saving, loading and extraction work as ever.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankitect.errors import TrainingError
from rankitect.graph import Architecture, SearchSpace
from rankitect.graph.cost import FLOAT_BYTES
from rankitect.models.memory import check_memory
from rankitect.models.plan import Owner
from rankitect.training.parallel import peers

__all__ = ["RowWiseAdagrad", "TableConfig", "TableStorage", "table_memory", "torchrec_installed"]

Backend = Literal["auto", "torchrec", "torch"]
Rule = Literal["sgd", "adagrad", "rowwise_adagrad", "adam"]
BACKENDS = ("auto", "torchrec", "torch")
RULES = ("sgd", "adagrad", "rowwise_adagrad", "adam")
FUSED_RULES = ("sgd", "adagrad", "rowwise_adagrad")
"""What fbgemm has kernels for on a CPU."""
FUSED_WIDTH = 4
"""Widths of fbgemm's tables are multiples of this."""


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
        for problem, found in problems.items():
            if found:
                raise TrainingError(f"Embedding tables: {problem}.")


class HoldsTables(Protocol):
    """A model with tables: a supernet, a standalone model, or one's own."""

    def lookup_tables(self) -> Mapping[str, tuple[Owner, str]]:
        """Who holds each table, by parameter name."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """As of any module."""


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
                grad = table.grad.coalesce()
                rows, values = grad.indices()[0], grad.values()
                state["sum"].index_add_(0, rows, values.square().mean(1))
                scale = -group["lr"] / (state["sum"][rows].sqrt() + group["eps"])
                table.index_add_(0, rows, values * scale[:, None])


def torchrec_installed() -> bool:
    """Whether torchrec and fbgemm are there."""
    return all(importlib.util.find_spec(name) is not None for name in ("torchrec", "fbgemm_gpu"))


def _fused_width(width: int) -> int:
    """Columns of fbgemm's table for one of this width."""
    return -(-width // FUSED_WIDTH) * FUSED_WIDTH


def state_bytes(rows: int, width: int, optimizer: Rule) -> int:
    """Bytes of an optimiser's accumulators for a table."""
    elements = {"sgd": 0, "rowwise_adagrad": rows, "adagrad": rows * width, "adam": 2 * rows * width}[optimizer]
    return elements * FLOAT_BYTES


def table_memory(space: SearchSpace, architecture: Architecture, config: TableConfig) -> int:
    """Bytes that an architecture's tables take in training, with their optimiser, before anything is allocated.

    Args:
        space: The space.
        architecture: One of its architectures.
        config: How the tables are trained.
    """
    size, rows = (int(space.cost(architecture, kind)) for kind in ("table_bytes", "table_rows"))
    kept = {"sgd": 0, "rowwise_adagrad": rows * FLOAT_BYTES, "adagrad": size, "adam": 2 * size}
    return size + kept[config.optimizer]


class _Store:
    """A table in one backend's hands (a `RowStore`)."""

    def __init__(self, owner: Owner, name: str) -> None:
        self.owner, self.name, self.frozen = owner, name, False

    @property
    def table(self) -> nn.Parameter:
        return self.owner.get_parameter(self.name)

    def __call__(self, rows: Tensor, bags: Tensor | None) -> Tensor:
        """What `Params.lookup` gives."""
        table = self.table
        if self.frozen or not table.requires_grad or not torch.is_grad_enabled():
            table = table.detach()  # type: ignore[assignment]
            if bags is None:
                return F.embedding(rows, table)
            return F.embedding_bag(rows, table, bags, mode="sum")
        return self.trained(rows, bags)

    def trained(self, rows: Tensor, bags: Tensor | None) -> Tensor:
        raise NotImplementedError

    def set_lr(self, lr: float) -> None:
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """Live accumulators, by torch's names for them."""
        raise NotImplementedError

    def release(self) -> None:
        """Give the table back to the model."""
        del self.owner.stores[self.name]


class _TorchStore(_Store):
    """Sparse gradients, applied when they are there."""

    def __init__(self, owner: Owner, name: str, config: TableConfig) -> None:
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
        self._hook = table[0].register_post_accumulate_grad_hook(self._apply)

    def trained(self, rows: Tensor, bags: Tensor | None) -> Tensor:
        if bags is None:
            return F.embedding(rows, self.table, sparse=True)
        return F.embedding_bag(rows, self.table, bags, mode="sum", sparse=True)

    def _apply(self, table: Tensor) -> None:
        if table.grad is not None:
            table.grad = peers().rows(table.grad)
        self._optimizer.step()
        table.grad = None

    def set_lr(self, lr: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def state(self) -> dict[str, Tensor]:
        found = dict(self._optimizer.state[self.table])
        if isinstance(self._optimizer, torch.optim.Adagrad):
            found.pop("step")  # counts for a decay of the rate only, of which there is none
        return {
            name: value if isinstance(value, Tensor) else torch.tensor(float(value)) for name, value in found.items()
        }

    def load(self, name: str, value: Tensor) -> None:
        """Set an accumulator."""
        found = self._optimizer.state[self.table]
        if isinstance(found[name], Tensor):
            found[name].copy_(value)
        else:
            found[name] = int(value)

    def release(self) -> None:
        self._hook.remove()
        super().release()


class _FusedStore(_Store):
    """A torchrec collection of one table, updated by the kernel that computes its gradient."""

    def __init__(self, owner: Owner, name: str, config: TableConfig) -> None:
        super().__init__(owner, name)
        from torchrec.modules.embedding_configs import EmbeddingBagConfig
        from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection
        from torchrec.optim import RowWiseAdagrad as FusedRowWiseAdagrad

        kinds = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "rowwise_adagrad": FusedRowWiseAdagrad}
        settings: dict[str, Any] = {"lr": config.lr}
        if config.optimizer != "sgd":
            settings["eps"] = config.eps
        rows, self._width = self.table.shape
        wide = _fused_width(self._width)
        table = EmbeddingBagConfig(name=name, embedding_dim=wide, num_embeddings=rows, feature_names=["rows"])
        self._collection = FusedEmbeddingBagCollection(
            [table], optimizer_type=kinds[config.optimizer], optimizer_kwargs=settings, device=torch.device("cpu")
        )
        # The collection's own forward takes its input apart, narrows ids to 32 bits, and copies what the kernel gives:
        # with one table of one feature, its kernel can be called as it is.
        self._kernel = self._collection._emb_modules[0]
        held = dict(self._collection.named_parameters())[f"embedding_bags.{name}.weight"]
        trained = self.table.requires_grad
        with torch.no_grad():
            held.zero_()
            held[:, : self._width].copy_(self.table)
        owner.register_parameter(name, held if wide == self._width else nn.Parameter(held.detach()[:, : self._width]))
        self.table.requires_grad_(trained)
        self._each = torch.arange(1)

    def trained(self, rows: Tensor, bags: Tensor | None) -> Tensor:
        if bags is not None:
            found: Tensor = self._kernel(rows, torch.cat([bags, bags.new_tensor([len(rows)])]), None)
            return found
        if len(self._each) != rows.numel() + 1:
            self._each = torch.arange(rows.numel() + 1)
        return self._kernel(rows.flatten(), self._each, None).view(*rows.shape, -1)

    def set_lr(self, lr: float) -> None:
        optimizer = self._collection.fused_optimizer()
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()  # hands the rate to the kernel; rows change in the backward pass only

    def state(self) -> dict[str, Tensor]:
        states = self._kernel._emb_module.split_optimizer_states()
        if not states:
            return {}
        found = states[0][0]
        return {"sum": found if found.ndim == 1 else found[:, : self._width]}

    def load(self, name: str, value: Tensor) -> None:
        """Set an accumulator."""
        self.state()[name].copy_(value)

    def release(self) -> None:
        self.owner.register_parameter(self.name, nn.Parameter(self.table.detach().clone(), self.table.requires_grad))
        super().release()


class TableStorage:
    """Takes over the tables of a model; see the module.

    Args:
        model: A supernet or a standalone model (or one's own with `lookup_tables()`). Supernets and what is activated
        from them
            share tables, so it is the supernet that is given.
        config: Backend and optimiser.

    Raises:
        TrainingError: torchrec is asked for and not installed, or the tables are held already.
        SpaceError: Accumulators and copies do not fit into memory (checked before they are allocated).

    >>> storage = TableStorage(model, TableConfig(optimizer="adagrad", lr=0.1))  # doctest: +SKIP
    >>> optimizer = torch.optim.Adam(storage.dense_parameters().values())  # doctest: +SKIP
    >>> loss.backward()  # the tables have taken their step  # doctest: +SKIP
    """

    def __init__(self, model: HoldsTables, config: TableConfig | None = None) -> None:
        self.model, self.config = model, config or TableConfig()
        config = self.config
        tables = dict(model.lookup_tables())
        if held := [name for name, (owner, key) in tables.items() if key in owner.stores]:
            raise TrainingError(f"Embedding tables: {held[0]} is held already; `release` it first.")
        if config.backend == "torchrec" and not torchrec_installed():
            raise TrainingError(
                "Embedding tables: backend=torchrec needs torchrec and fbgemm, which are not installed (docs/adr/0003 "
                "says how); backend=torch works without."
            )
        self.backends = {name: self._choose(owner.get_parameter(key)) for name, (owner, key) in tables.items()}
        check_memory(self._needs(tables), "Training the embedding tables")
        self._stores: dict[str, _TorchStore | _FusedStore] = {}
        for name, (owner, key) in tables.items():
            kind = _FusedStore if self.backends[name] == "torchrec" else _TorchStore
            self._stores[name] = kind(owner, key, config)
            owner.stores[key] = self._stores[name]

    def _choose(self, table: nn.Parameter) -> str:
        whole = table.shape[1] == _fused_width(table.shape[1]) or self.config.optimizer != "rowwise_adagrad"
        fused = self.config.optimizer in FUSED_RULES and whole
        # The fused kernel takes its step in the backward pass, before other processes' gradients are there.
        alone = peers().world == 1
        wanted = self.config.backend != "torch" and torchrec_installed() and table.device.type == "cpu" and alone
        return "torchrec" if fused and wanted else "torch"

    def _needs(self, tables: Mapping[str, tuple[Owner, str]]) -> dict[str, int]:
        """Bytes to allocate: accumulators, and for a moment a copy of the table that is being taken over."""
        found = {}
        for name, (owner, key) in tables.items():
            rows, width = owner.get_parameter(key).shape
            width = _fused_width(width) if self.backends[name] == "torchrec" else width
            copy = rows * width * FLOAT_BYTES if self.backends[name] == "torchrec" else 0
            found[name] = copy + state_bytes(rows, width, self.config.optimizer)
        return found

    def dense_parameters(self) -> dict[str, nn.Parameter]:
        """All other parameters of the model, for the dense optimiser."""
        return {name: p for name, p in self.model.named_parameters() if name not in self._stores}

    def set_lr(self, lr: float) -> None:
        """Set the tables' learning rate, for the steps to come."""
        for store in self._stores.values():
            store.set_lr(lr)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Lookups inside do not change the tables, whoever goes backward through them, and when."""
        before = {name: store.frozen for name, store in self._stores.items()}
        for store in self._stores.values():
            store.frozen = True
        try:
            yield
        finally:
            for name, store in self._stores.items():
                store.frozen = before[name]

    def state(self) -> dict[str, Tensor]:
        """Accumulators, as `<accumulator>/<parameter>`: the same whichever backend. Live tensors, to be saved at
        once."""
        return {f"{key}/{name}": value for name, s in self._stores.items() for key, value in s.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave, of this backend or another.

        Raises:
            TrainingError: It is of other tables or another optimiser.
        """
        mine = self.state()
        if mine.keys() != state.keys() or any(mine[k].shape != state[k].shape for k in mine):
            raise TrainingError("The embedding tables' saved state belongs to another model or optimizer.")
        for key, value in state.items():
            accumulator, _, name = key.partition("/")
            self._stores[name].load(accumulator, value)

    def release(self) -> None:
        """Give all tables back to the model, as plain parameters."""
        for store in self._stores.values():
            store.release()
        self._stores = {}
