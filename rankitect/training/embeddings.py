"""Who holds embedding tables while they are trained, and the optimisers that touch only the rows of a batch.

A table has many rows of which a batch uses few, so its optimiser runs inside of the backward pass, on those rows alone,
whatever holds the table:

- "torchrec": a torchrec `FusedEmbeddingBagCollection`, whose fbgemm kernel looks up and updates (SGD, Adagrad and
  row-wise Adagrad; Adam stays with torch), where the table is: on the CPU, or with fbgemm's CUDA build on a GPU. Its
  rows are a multiple of four wide: other tables are held with columns of zeros beside them, which no rule but row-wise
  Adagrad's minds (these stay with torch).
- "torch": sparse gradients, which a hook gives to an optimiser of torch's as soon as they are there (Adam, too).
- "auto": the first where it is installed and can, else the second.

Where several processes train together (`rankitect.training.parallel`), the kernel cannot wait for the gradients of the
others: "auto" and "torch" keep every table whole in every process and sum sparse gradients, "torchrec" divides the rows
of tables among the processes (those of `DIVIDED_ROWS` rows and more that the kernel can train), so that each holds its
part of rows and accumulators. A divided table is whole before it is taken over, in saved states, and when released.

Either way a table has no `.grad` after a backward pass, takes no part in the clipping of gradients, and is to be left
out of other optimisers (`dense_parameters`). A lookup changes nothing where gradients are off, where the table's
parameter wants none (`requires_grad`), and inside of `frozen`. The parameter itself stays where the model has it, under
its name, so saving, loading and extraction work as ever.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from rankitect.errors import TrainingError
from rankitect.graph import Architecture, SearchSpace
from rankitect.graph.cost import FLOAT_BYTES
from rankitect.models.memory import check_memory
from rankitect.models.weights import ParameterHolder
from rankitect.training.parallel import peers
from rankitect.training.placement import placement
from rankitect.training.table_stores import (
    DIVIDED_ROWS,
    FUSED_RULES,
    DividedStore,
    FusedStore,
    RowWiseAdagrad,
    Rule,
    TableConfig,
    TableStore,
    TorchStore,
    fused_width,
)

__all__ = ["RowWiseAdagrad", "TableConfig", "TableStorage", "table_memory", "torchrec_installed"]


class HasLookupTables(Protocol):
    """A model with tables: a supernet, a standalone model, or one's own."""

    def lookup_tables(self) -> Mapping[str, tuple[ParameterHolder, str]]:
        """Who holds each table, by parameter name."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """As of any module."""


def torchrec_installed() -> bool:
    """Whether torchrec and fbgemm are there."""
    return all(importlib.util.find_spec(name) is not None for name in ("torchrec", "fbgemm_gpu"))


def kernels_for(device: torch.device) -> bool:
    """Whether the installed fbgemm has kernels for a device: its CPU build has none for CUDA."""
    if device.type == "cpu" or not torchrec_installed():
        return device.type == "cpu"
    import fbgemm_gpu

    return device.type == "cuda" and "cuda" in fbgemm_gpu.__variant__


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


class TableStorage:
    """Takes over the tables of a model; see the module.

    Args:
        model: A supernet or a standalone model (or one's own with `lookup_tables()`). Supernets and what is activated
            from them share tables, so it is the supernet that is given.
        config: Backend and optimiser.

    Raises:
        TrainingError: torchrec is asked for and not installed, or the tables are held already.
        SpaceError: Accumulators and copies do not fit into memory (checked before they are allocated).

    >>> storage = TableStorage(model, TableConfig(optimizer="adagrad", lr=0.1))  # doctest: +SKIP
    >>> optimizer = torch.optim.Adam(storage.dense_parameters().values())  # doctest: +SKIP
    >>> loss.backward()  # the tables have taken their step  # doctest: +SKIP
    """

    def __init__(self, model: HasLookupTables, config: TableConfig | None = None) -> None:
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
        check_memory(self._needs(tables), "Training the embedding tables", placement().memory())
        self._stores: dict[str, TableStore] = {}
        fused = FusedStore if peers().world == 1 else DividedStore
        for name, (owner, key) in tables.items():
            kind = fused if self.backends[name] == "torchrec" else TorchStore
            self._stores[name] = kind(owner, key, config)
            owner.stores[key] = self._stores[name]

    def _choose(self, table: nn.Parameter) -> str:
        # fbgemm pads columns to a multiple of four. Row-wise Adagrad takes a mean over columns: padding changes it.
        whole = table.shape[1] == fused_width(table.shape[1]) or self.config.optimizer != "rowwise_adagrad"
        fused = self.config.optimizer in FUSED_RULES and whole and kernels_for(table.device)
        if peers().world > 1:
            # Blocks are of equal size, rounded up: with fewer than world ** 2 rows the last process may get none.
            least = max(DIVIDED_ROWS, peers().world ** 2)
            wanted = self.config.backend == "torchrec" and table.shape[0] >= least
        else:
            wanted = self.config.backend != "torch" and torchrec_installed()
        return "torchrec" if fused and wanted else "torch"

    def _needs(self, tables: Mapping[str, tuple[ParameterHolder, str]]) -> dict[str, int]:
        """Bytes to allocate: accumulators, and for a moment a copy of the table that is being taken over."""
        needed = {}
        for name, (owner, key) in tables.items():
            rows, width = owner.get_parameter(key).shape
            copy = 0
            if self.backends[name] == "torchrec":
                rows, width = -(-rows // peers().world), fused_width(width)
                copy = rows * width * FLOAT_BYTES
            needed[name] = copy + state_bytes(rows, width, self.config.optimizer)
        return needed

    def dense_parameters(self) -> dict[str, nn.Parameter]:
        """All other parameters of the model, for the dense optimiser."""
        return {name: p for name, p in self.model.named_parameters() if name not in self._stores}

    def set_lr(self, lr: float) -> None:
        """Set the tables' learning rate, for the steps to come."""
        for store in self._stores.values():
            store.set_lr(lr)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Lookups made inside do not change the tables, even if a backward pass goes through them later."""
        before = {name: store.frozen for name, store in self._stores.items()}
        for store in self._stores.values():
            store.frozen = True
        try:
            yield
        finally:
            for name, store in self._stores.items():
                store.frozen = before[name]

    def whole(self, name: str, held: Tensor) -> Tensor:
        """A parameter with all its rows, where the processes that train together divide them among each other.

        Args:
            name: Of the parameter; any of the model's.
            held: What this process holds of it, or of a copy. All processes call this at the same point.
        """
        return self._stores[name].whole(held) if name in self._stores else held

    def part(self, name: str, whole: Tensor) -> Tensor:
        """The rows of a parameter that this process holds: the inverse of `whole`."""
        return self._stores[name].part(whole) if name in self._stores else whole

    def shape(self, name: str, held: Tensor) -> torch.Size:
        """Of a parameter with all its rows."""
        return self._stores[name].shape if name in self._stores else held.shape

    def state(self) -> dict[str, Tensor]:
        """Accumulators of all rows, as `<accumulator>/<parameter>`: the same whichever backend. Live tensors, to be
        saved at once."""
        return {f"{k}/{name}": s.whole(value) for name, s in self._stores.items() for k, value in s.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave, of this backend or another.

        Raises:
            TrainingError: It is of other tables or another optimiser.
        """
        # Checked as a whole before anything is loaded: a refused state leaves the tables as they were.
        mine = {f"{key}/{name}": value for name, s in self._stores.items() for key, value in s.state().items()}
        parts = {key: self.part(key.partition("/")[2], value) for key, value in state.items()}
        if mine.keys() != parts.keys() or any(mine[k].shape != parts[k].shape for k in mine):
            raise TrainingError("The embedding tables' saved state belongs to another model or optimizer.")
        for key, value in parts.items():
            accumulator, _, name = key.partition("/")
            self._stores[name].load(accumulator, value)

    def release(self) -> None:
        """Give all tables back to the model, as plain parameters."""
        for store in self._stores.values():
            store.release()
        self._stores = {}
