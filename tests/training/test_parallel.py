"""Training by processes side by side gives what one process gives on whole batches."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rankitect.models.plan import Owner
from rankitect.training.embeddings import TableConfig, TableStorage
from rankitect.training.loop import TrainConfig, train
from rankitect.training.optimizer import OptimizerConfig
from rankitect.training.parallel import Group, join, peers

WORLD = 2


def batch_at(step: int) -> torch.Tensor:
    """[5, 4]: an odd number of rows."""
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(step))


def trained(rule: str | None) -> dict[str, torch.Tensor]:
    """A small model after some steps: a table under a rule, or none; the batch is cut for this process."""
    torch.manual_seed(0)
    model = Tabled() if rule else nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    tables = TableStorage(model, TableConfig("torch", rule, lr=0.1)) if isinstance(model, Tabled) else None  # type: ignore[arg-type]
    result = train(
        model,
        lambda model, x: (model(x) - x.sum(1, keepdim=True)).square().mean(),
        lambda step: batch_at(step)[peers().mine(5)],
        TrainConfig(steps=6, optimizer=OptimizerConfig(lr=0.05, clip=0.5)),
        size=len,
        tables=tables,
    )
    assert result.tokens == 30  # rows of all processes
    return {**{n: p.detach().clone() for n, p in model.named_parameters()}, "losses": torch.tensor(result.losses)}


class Tabled(Owner):
    """Looks rows up by the sign pattern of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(4, 4))
        self.out = nn.Linear(4, 1)

    def lookup_tables(self) -> dict[str, tuple[Owner, str]]:
        return {"table": (self, "table")}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
        return self.out(self.stores["table"](rows, None) + x)


def process(rank: int, port: int, place: str, rule: str | None) -> None:
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    join()
    torch.save(trained(rule), Path(place) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("rule", [None, "sgd", "rowwise_adagrad", "adam"])
def test_processes_side_by_side_train_what_one_would(rule: str | None, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    expected = trained(rule)
    torch.multiprocessing.spawn(process, (port, str(tmp_path), rule), nprocs=WORLD)  # type: ignore[no-untyped-call]
    for rank in range(WORLD):
        found: dict[str, Any] = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_every_row_is_somebodys() -> None:
    rows = list(range(7))
    parts = [rows[Group(rank, 3).mine(7)] for rank in range(3)]
    assert sorted(row for part in parts for row in part) == rows
    assert rows[:2][Group(2, 3).mine(2)] == [0, 1]  # too few for everyone: all take all


def test_alone_nothing_is_exchanged() -> None:
    group = Group()
    gradient = torch.ones(3)
    group.sum_([gradient])
    assert gradient.tolist() == [1.0, 1.0, 1.0]
    assert group.mean(2.5, 7) == (2.5, 1.0)
    assert group.total(4) == 4
