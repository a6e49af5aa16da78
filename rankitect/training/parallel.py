"""Training of one model by several processes side by side: each takes a part of every batch, gradients are summed.

Every process runs the same program with the same seeds, so that all draw the same architectures and hold the same
weights; only the rows of a training batch differ. What comes out is what one process would train on the whole batch, up
to the order of sums. Gradients are summed explicitly (torch.distributed, gloo), in one message a step: torch's own
wrapper keeps buckets for a fixed graph, and a supernet has another graph every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Group", "backend", "join", "leave", "one_part", "peers", "share_statistics"]


@dataclass(frozen=True)
class Group:
    """The processes that train together.

    Attributes:
        rank: Of this one.
        world: How many.
        part: Which part of its rows this process computes now (`one_part`).
        parts: Of how many, one after the other, at most.
        asked: The numbers of parts that `shard` has divided a process's rows into.
    """

    rank: int = 0
    world: int = 1
    part: int = 0
    parts: int = 1
    asked: set[int] = field(default_factory=set, compare=False, repr=False)

    def parts_of(self, rows: int) -> int:
        """In how many parts each process computes its share of so many rows: no more than every process has rows
        for, so that all compute equally many and none is empty."""
        return max(1, min(self.parts, rows // self.world if rows >= self.world else rows))

    def shard(self, rows: int) -> slice:
        """This process's share of so many rows, and of that the part that it computes now. Where there are fewer rows
        than processes, each has all of them as its share."""
        parts = self.parts_of(rows)
        self.asked.add(parts)
        if self.world == parts == 1:
            return slice(None)
        if rows < self.world:
            return slice(self.part, None, parts)
        return slice(self.rank * parts + self.part, None, self.world * parts)

    def total(self, number: float) -> float:
        """The sum of a number over all processes."""
        return number if self.world == 1 else self.totals(number)[0]

    def totals(self, *numbers: float) -> list[float]:
        """The sums of some numbers over all processes."""
        import torch
        import torch.distributed as dist

        sums = torch.tensor(numbers, dtype=torch.float64)
        if self.world > 1:
            dist.all_reduce(sums)
        return [float(x) for x in sums]

    def mean(self, value: float, size: float) -> tuple[float, float]:
        """The mean of the values of all processes by their sizes, and this one's share of the size."""
        if self.world == 1:
            return value, 1.0
        total, whole = self.totals(value * size, size)
        return total / max(whole, 1e-12), size / max(whole, 1e-12)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes, in one message."""
        if self.world == 1 or not tensors:
            return
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over all processes, in one message."""
        if self.world > 1:
            self.sum_(tensors)
            for tensor in tensors:
                tensor /= self.world

    def rows(self, grad: Tensor) -> Tensor:
        """The sum of sparse gradients [rows, width] over all processes."""
        if self.world == 1:
            return grad
        import torch
        import torch.distributed as dist

        grad = grad.coalesce()
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        dist.all_gather(counts, torch.tensor([grad.indices().shape[1]]))
        longest = max(int(count) for count in counts)
        indices = grad.indices().new_zeros(longest)
        values = grad.values().new_zeros(longest, grad.shape[1])
        indices[: grad.indices().shape[1]], values[: grad.values().shape[0]] = grad.indices()[0], grad.values()
        all_indices = [torch.empty_like(indices) for _ in range(self.world)]
        all_values = [torch.empty_like(values) for _ in range(self.world)]
        dist.all_gather(all_indices, indices)
        dist.all_gather(all_values, values)
        kept = [slice(0, int(count)) for count in counts]
        gradient = torch.sparse_coo_tensor(
            torch.cat([i[k] for i, k in zip(all_indices, kept, strict=True)])[None],
            torch.cat([v[k] for v, k in zip(all_values, kept, strict=True)]),
            grad.shape,
        )
        return gradient.coalesce()

    def longest(self, count: int) -> int:
        """The largest of the counts of all processes."""
        import torch
        import torch.distributed as dist

        longest = torch.tensor(count)
        if self.world > 1:
            dist.all_reduce(longest, dist.ReduceOp.MAX)
        return int(longest)

    def block(self, rows: int, rank: int | None = None) -> slice:
        """A process's rows (this one's by default) of a table that is divided: blocks of one size, but for the last."""
        size, rank = -(-rows // self.world), self.rank if rank is None else rank
        return slice(rank * size, min((rank + 1) * size, rows))

    def whole(self, block: Tensor, rows: int) -> Tensor:
        """A divided table [rows, ...] from the blocks of all processes."""
        import torch.distributed as dist

        whole = block.new_empty(rows, *block.shape[1:])
        whole[self.block(rows)] = block
        for rank in range(self.world):  # gathering them at once would take the memory twice
            dist.broadcast(whole[self.block(rows, rank)], rank)
        return whole

    def agree(self, *numbers: float) -> list[float]:
        """What the first process says, everywhere."""
        return self.totals(*(n if self.rank == 0 else 0.0 for n in numbers))


_GROUP = Group()


def peers() -> Group:
    """The processes that this one trains with; itself alone, unless it joined others."""
    return _GROUP


@contextmanager
def one_part(part: int, parts: int) -> Iterator[Group]:
    """Inside, `shard` gives a part of this process's rows, of at most so many that are computed one after the other.

    Args:
        part: Its number, from 0.
        parts: How many, where there are rows for so many (`Group.parts_of`).

    Yields:
        The processes, which know afterwards in how many parts the rows were divided; in none where nobody asked.
    """
    global _GROUP
    whole, _GROUP = _GROUP, replace(_GROUP, part=part, parts=parts, asked=set())
    try:
        yield _GROUP
    finally:
        _GROUP = whole


def backend(device: str) -> str:
    """Who carries messages: gloo those of the CPU, NCCL those of CUDA devices.

    Args:
        device: The kind that is trained on.
    """
    return "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"


def share_statistics(model: nn.Module) -> None:
    """Give a model the mean of the running statistics (its buffers) that the processes have after a step, each of its
    own part of the batch."""
    if _GROUP.world > 1:
        _GROUP.mean_([buffer for buffer in model.buffers() if buffer.is_floating_point()])


def leave() -> None:
    """Be alone again."""
    global _GROUP
    _GROUP = Group()


def join() -> Group:
    """Join the processes of torch.distributed's default group."""
    import torch.distributed as dist

    global _GROUP
    _GROUP = Group(dist.get_rank(), dist.get_world_size())
    return _GROUP
