"""Training by processes side by side gives what one process gives on whole batches."""

from __future__ import annotations

import math
import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import nn

from rankitect.models.weights import ParameterHolder
from rankitect.training.embeddings import TableConfig, TableStorage
from rankitect.training.loop import TrainConfig, train
from rankitect.training.optimizer import OptimizerConfig, backpropagate
from rankitect.training.parallel import Group, join, peers
from rankitect.training.placement import Placement, using

WORLD, ROWS = 2, 1501


def batch_at(step: int) -> torch.Tensor:
    """[5, 4]: an odd number of rows."""
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(step))


def trained(how: str | None, checkpoint: Path | None = None, stop: int = 99) -> dict[str, torch.Tensor]:
    """A small model after some steps; the batch is cut for this process.

    Args:
        how: Backend and rule of its table; None: it has none.
        checkpoint: Of training, which goes on from there.
        stop: Steps after which it is interrupted.
    """
    torch.manual_seed(0)
    tables = None
    if how is None:
        model: nn.Module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    else:
        model, (backend, rule) = Tabled(), how.split()
        tables = TableStorage(model, TableConfig(backend, rule, lr=0.1))  # type: ignore[arg-type]
        assert tables.backends["table"] == backend
    steps = iter(range(stop))
    result = train(
        model,
        lambda model, x: (model(x) - x.sum(1, keepdim=True)).square().mean(),
        lambda step: batch_at(step)[peers().shard(5)],
        TrainConfig(steps=6, optimizer=OptimizerConfig(lr=0.05, clip=0.5)),
        size=len,
        tables=tables,
        checkpoint=checkpoint,
        should_stop=lambda: next(steps, None) is None,
    )
    assert result.tokens == 5 * min(6, stop)  # rows of all processes
    held = 0 if tables is None else len(dict(model.named_parameters())["table"])
    with torch.inference_mode():
        found = {"predictions": model(batch_at(9)).clone(), "losses": torch.tensor(result.losses)}
    if tables is not None:
        found |= {name: accumulators.clone() for name, accumulators in tables.state().items()}
        tables.release()
    found |= {name: p.detach().clone() for name, p in model.named_parameters()}
    return {**found, "held": torch.tensor(held)}


class Tabled(ParameterHolder):
    """Looks rows up by the sign pattern of its input, one in a bag and two in a bag; its columns are no multiple of
    four, nor its rows of two."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(ROWS, 6))
        self.out = nn.Linear(4, 1)

    def lookup_tables(self) -> dict[str, tuple[ParameterHolder, str]]:
        return {"table": (self, "table")}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = ((x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()) * (ROWS // 3)
        pairs = torch.stack([rows, (rows + 7) % ROWS], 1).flatten()
        one, two = self.stores["table"](rows, None), self.stores["table"](pairs, 2 * torch.arange(len(rows)))
        return self.out(one[:, :4] + two[:, 2:6] + x)


def process(rank: int, port: int, place: str, how: str | None, interrupted: bool) -> None:
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    join()
    checkpoint = Path(place) / f"{rank}.state" if interrupted else None
    if interrupted:
        trained(how, checkpoint, stop=3)
    torch.save(trained(how, checkpoint), Path(place) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def side_by_side(place: Path, how: str | None, interrupted: bool = False) -> list[dict[str, torch.Tensor]]:
    """What each of the processes has in the end."""
    port = free_port()
    torch.multiprocessing.spawn(process, (port, str(place), how, interrupted), nprocs=WORLD)  # type: ignore[no-untyped-call]
    return [torch.load(place / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def agree(found: list[dict[str, torch.Tensor]], expected: dict[str, torch.Tensor]) -> None:
    """Each process has what one alone has, but for the rows that it held meanwhile."""
    for one in found:
        assert one.keys() == expected.keys()
        for name in expected.keys() - {"held"}:
            torch.testing.assert_close(one[name], expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("how", [None, "torch sgd", "torch adagrad", "torch adam"])
def test_processes_side_by_side_train_what_one_would(how: str | None, tmp_path: Path) -> None:
    agree(side_by_side(tmp_path, how), trained(how))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["sgd", "adagrad"])
def test_divided_tables_are_trained_as_whole_ones(rule: str, tmp_path: Path) -> None:
    pytest.importorskip("torchrec")
    found = side_by_side(tmp_path, f"torchrec {rule}", interrupted=True)
    agree(found, trained(f"torchrec {rule}"))
    assert [int(one["held"]) for one in found] == [ROWS - ROWS // 2, ROWS // 2]
    # What they saved in the middle is no matter of how many they were: one process reads it.
    one = trained(f"torchrec {rule}", tmp_path / "1.state")
    torch.testing.assert_close(one["table"], found[0]["table"], rtol=1e-5, atol=1e-6)


def test_every_row_is_somebodys() -> None:
    rows = list(range(7))
    parts = [rows[Group(rank, 3).shard(7)] for rank in range(3)]
    assert sorted(row for part in parts for row in part) == rows
    assert rows[:2][Group(2, 3).shard(2)] == [0, 1]  # too few for everyone: all take all


@pytest.mark.parametrize("rows", [1, 2, 4, 7, 8, 24, 25])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_row_is_in_one_part_however_many_parts_are_asked_for(rows: int, world: int) -> None:
    numbers = list(range(rows))
    counts = {Group(rank, world, 0, 8).parts_of(rows) for rank in range(world)}
    assert len(counts) == 1  # every process goes backwards equally often
    (count,) = counts
    shares = [[numbers[Group(rank, world, part, 8).shard(rows)] for part in range(count)] for rank in range(world)]
    assert all(part for share in shares for part in share)
    together = [row for share in shares for part in share for row in part]
    assert sorted(together) == (numbers if rows >= world else sorted(numbers * world))
    assert max(len(part) for share in shares for part in share) <= -(-rows // count)


def test_more_parts_than_rows_train_what_one_part_does() -> None:
    found = {}
    for parts in (1, 3, 64):
        with using(Placement(torch.device("cpu"), accumulate=parts)):
            found[parts] = trained(None)  # which asserts that each of the five rows is counted once a step
    for parts in (3, 64):
        agree([found[parts]], found[1])


def test_a_batch_that_nobody_divides_is_computed_once() -> None:
    calls: list[int] = []
    weight = nn.Parameter(torch.ones(2))
    with using(Placement(torch.device("cpu"), accumulate=4)):

        def compute() -> tuple[torch.Tensor, float]:
            calls.append(1)
            return (weight * torch.tensor([1.0, 3.0])).sum(), 6.0

        assert backpropagate(compute, lambda: [] if weight.grad is None else [weight.grad]) == (4.0, 6.0)
    assert len(calls) == 1
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.tensor([1.0, 3.0]))


def divided_process(rank: int, port: int, place: str) -> None:
    """A model that is divided (FSDP2); one part of one process has a loss that is not finite in the second step."""
    torch.distributed.init_process_group(
        "gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD, timeout=timedelta(seconds=30)
    )
    join()
    torch.manual_seed(0)
    bad = iter([False, False, False, rank == 1])  # the parts of two steps, and then none
    with using(Placement(torch.device("cpu"), accumulate=2, shard=True)):
        result = train(
            nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)),
            lambda model, x: model(x).square().mean() * (math.nan if next(bad, False) else 1.0),
            lambda step: batch_at(step)[peers().shard(5)],
            TrainConfig(steps=4, optimizer=OptimizerConfig(lr=0.05)),
            size=len,
            divide=True,
        )
    Path(place, str(rank)).write_text(f"{result.steps} {result.skipped}")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_that_divide_a_model_skip_a_part_that_is_not_finite_in_one_of_them(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(divided_process, (free_port(), str(tmp_path)), nprocs=WORLD)  # type: ignore[no-untyped-call]
    assert [(tmp_path / str(rank)).read_text() for rank in range(WORLD)] == ["4 1", "4 1"]


def test_every_row_of_a_divided_table_is_in_one_block() -> None:
    rows = list(range(1501))
    for world in (2, 3, 7):
        assert [row for rank in range(world) for row in rows[Group(rank, world).block(1501)]] == rows


def test_alone_nothing_is_exchanged() -> None:
    group = Group()
    gradient = torch.ones(3)
    group.sum_([gradient])
    assert gradient.tolist() == [1.0, 1.0, 1.0]
    assert group.mean(2.5, 7) == (2.5, 1.0)
    assert group.total(4) == 4
