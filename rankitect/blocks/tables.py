"""Embedding tables of categorical features: ids of an example's slots to one vector a feature."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate
from typing import ClassVar

import torch

from rankitect.errors import SpaceError
from rankitect.graph import Expr, Param, Params, Quantized, TensorType, as_expr
from rankitect.space.expr import ExprLike

__all__ = ["Tables", "columns_of"]


class Tables(Quantized):
    """Embeddings of F categorical features: ids [B, S] -> [B, F, width].

    All features' rows lie one after another in a single weight `table`, so that one lookup serves them all. An id
    counts within its own feature; a feature of several slots (multi-hot) gets the sum over its slots, those of id -1
    left out. Features of different widths are several of these blocks, each on its own columns.

    Args:
        rows: Rows of each feature, [F]. Ids are 0 to rows - 1.
        slots: Columns of each feature, [F]; 1 for a single-valued one, whose id is never -1.
        width: Columns of the table.
        columns: Where the slots are among the ids' columns. Default: they are all of them, in order.
        init: How the table starts: "normal" or "zeros".
    """

    ports: ClassVar[str] = "B S : int -> B F width"
    rows: tuple[int, ...]
    slots: tuple[int, ...]
    width: ExprLike
    columns: tuple[int, ...] = ()
    init: str = "normal"

    _starts: ClassVar[list[int]]
    """The first row of each slot's feature, [S]."""
    _taken: ClassVar[tuple[int, ...]]
    """The columns that are taken, named or not, [S]."""
    _columns: ClassVar[list[int] | slice]
    """The columns that are taken, as a slice where they follow each other."""

    def __post_init__(self) -> None:
        if not self.rows or len(self.rows) != len(self.slots):
            raise SpaceError(f"Tables: {len(self.rows)} numbers of rows for {len(self.slots)} numbers of slots")
        if min(self.rows) < 1 or min(self.slots) < 1:
            raise SpaceError("Tables: every feature needs at least one row and one slot")
        if self.columns and len(self.columns) != sum(self.slots):
            raise SpaceError(f"Tables: {len(self.columns)} columns for {sum(self.slots)} slots")
        first = [0, *accumulate(self.rows[:-1])]
        taken = self.columns or tuple(range(sum(self.slots)))
        run = range(taken[0], taken[0] + len(taken))
        facts = {
            "_starts": [f for f, n in zip(first, self.slots, strict=True) for _ in range(n)],
            "_taken": taken,
            "_columns": slice(run.start, run.stop) if taken == tuple(run) else list(taken),
        }
        for name, value in facts.items():  # made here: torch.compile cannot enter the lock of a cached property
            object.__setattr__(self, name, value)

    def fields(self) -> dict[str, Expr]:
        """The width, the number of features and, where the block takes all columns, their number."""
        symbols = {**super().fields(), "F": as_expr(len(self.rows))}
        return symbols if self.columns else {**symbols, "S": as_expr(sum(self.slots))}

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        last = inputs[0][1].constant
        if self.columns and last is not None and max(self.columns) >= last:
            raise SpaceError(f"Tables: there is no column {max(self.columns)} among {last}")
        return {"table": Param.of(sum(self.rows), self.width, init=self.init, table=True)}

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        rows, starts = _LAST.of(inputs[0], (self.rows, self.slots, self._taken), self._rows)
        if starts is None:
            return p.lookup("table", rows)
        return p.lookup("table", rows, starts.flatten()).unflatten(0, starts.shape)

    def _rows(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The rows that are looked up and, where features have several slots, where each bag of them starts, [B, F]."""
        ids = ids[:, self._columns]
        rows = ids + ids.new_tensor(self._starts)
        if max(self.slots) == 1:
            return rows, None
        firsts = [0, *accumulate(self.slots[:-1])]
        kept = (ids >= 0).flatten()
        before = kept.cumsum(0) - kept.long()  # kept slots before each one: where a bag that begins there starts
        return rows.flatten()[kept], before.view(ids.shape)[:, firsts]

    def flops(self, *inputs: TensorType) -> Expr:
        return as_expr(0)


class _Last(threading.local):
    """What was made of the last batch of ids: towers and wide parts read the same features from tables of their own."""

    def __init__(self) -> None:
        self._ids: Callable[[], torch.Tensor | None] = lambda: None
        self._version = -1
        self._found: dict[Hashable, tuple[torch.Tensor, torch.Tensor | None]] = {}

    def of(
        self,
        ids: torch.Tensor,
        key: Hashable,
        make: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What `make` makes of the ids, made once for each key while they are the same unchanged tensor."""
        # Whether they were changed is not known then; and torch.compile cannot ask for the former.
        if torch.compiler.is_compiling() or ids.is_inference():
            return make(ids)
        if self._ids() is not ids or self._version != ids._version:
            self._ids, self._version, self._found = weakref.ref(ids), ids._version, {}
        kept = (key, torch.is_inference_mode_enabled())  # what was made in that mode cannot be trained through
        if kept not in self._found:
            self._found[kept] = make(ids)
        return self._found[kept]


_LAST = _Last()


def columns_of(slots: Sequence[int], features: Sequence[int]) -> tuple[int, ...]:
    """The columns of some features among those of all.

    Args:
        slots: Slots of every feature.
        features: Positions of the wanted ones.

    >>> columns_of([1, 3, 1], [1, 2])
    (1, 2, 3, 4)
    """
    first = [0, *accumulate(slots)]
    return tuple(c for f in features for c in range(first[f], first[f + 1]))
