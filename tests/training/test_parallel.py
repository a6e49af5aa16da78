"""Training by processes side by side gives what one process gives on whole batches."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from torch import nn

from rankitect.models.plan import ParameterHolder
from rankitect.training.embeddings import TableConfig, TableStorage
from rankitect.training.loop import TrainConfig, train
from rankitect.training.optimizer import OptimizerConfig
from rankitect.training.parallel import Group, join, peers

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


def side_by_side(place: Path, how: str | None, interrupted: bool = False) -> list[dict[str, torch.Tensor]]:
    """What each of the processes has in the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
