"""What the graph costs: a DCN-V2 built from it against the same model written by hand on the same embedding table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from common import arguments, in_turns, ratio, seconds, table, verdict
from torch import nn

MOST = 1.03
"""The largest ratio allowed."""


class ByHand(nn.Module):
    """DCN-V2 in parallel, on the weights of the one built from the graph, and on the same holder of its table."""

    def __init__(self, built: Any, layers: int, cross: int) -> None:
        super().__init__()
        self.holder = built.owner("tables.group0.embedding")
        rows = torch.tensor(self.rows_of(built))
        self.register_buffer("starts", rows.cumsum(0) - rows)
        weights = dict(built.named_parameters())

        def linear(name: str, key: str = "weight") -> nn.Linear:
            weight = weights[f"{name}.{key}"]
            made = nn.Linear(weight.shape[1], weight.shape[0])
            made.weight, made.bias = (
                nn.Parameter(weight.detach().clone()),
                nn.Parameter(weights[f"{name}.bias"].detach()),
            )
            return made

        self.cross = nn.ModuleList(linear(f"cross.kind.full.stack.{i}.cross") for i in range(cross))
        self.deep = nn.ModuleList(linear(f"top.layer{i}") for i in range(layers))
        self.ends = nn.ModuleList([linear("top.logit", f"weight{layers - 1}"), linear("logit.cross")])

    @staticmethod
    def rows_of(built: Any) -> tuple[int, ...]:
        """Rows of each feature."""
        found: tuple[int, ...] = next(s.block.rows for s in built.plan.steps if s.tables)
        return found

    def lookup_tables(self) -> Mapping[str, tuple[Any, str]]:
        """The table, for whoever holds it in training."""
        return {"holder.table": (self.holder, "table")}

    def forward(self, numeric: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Logits [B, 1]."""
        rows, store = ids + self.starts, self.holder.stores.get("table")
        fields = store(rows, None) if store is not None else F.embedding(rows, self.holder.table)
        x0 = torch.cat([numeric, fields.flatten(1)], 1)
        x = h = x0
        for layer in self.cross:
            x = x0 * layer(x) + x
        for layer in self.deep:
            h = F.relu(layer(h))
        logits: torch.Tensor = self.ends[0](h) + self.ends[1](x)
        return logits


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=21, batch=4096, rows=100_000)
    from rankitect.data.ranking.features import CategoricalFeature, Features
    from rankitect.models.supernet import build
    from rankitect.search_spaces.ranking_points import baseline
    from rankitect.training.embeddings import TableConfig, TableStorage

    batch, rows = (256, 1000) if options.quick else (options.batch, options.rows)
    features = Features(tuple(f"I{i}" for i in range(13)), tuple(CategoricalFeature(f"C{i}", rows) for i in range(26)))
    hidden = (64, 32) if options.quick else (400, 400, 400)
    space, architecture = baseline("dcnv2", features, hidden=hidden, cross_layers=3)
    graph = build(space, architecture)
    hand = ByHand(graph, len(hidden), 3)
    numeric, ids = torch.randn(batch, 13), torch.randint(rows, (batch, 26))
    label = torch.randint(2, (batch, 1)).float()
    torch.testing.assert_close(graph(numeric, ids), hand(numeric, ids), rtol=1e-4, atol=1e-4)
    results = []
    for backend in ("none", "torch", "torchrec"):
        storage = None
        if backend != "none":
            storage = TableStorage(graph, TableConfig(backend, "sgd", lr=1e-6))  # type: ignore[arg-type]
        kinds: dict[str, Any] = {"training step": step} if backend != "none" else {"forward": forward, "step": step}
        for kind, job in kinds.items():
            jobs = {"graph": job(graph, numeric, ids, label), "hand": job(hand, numeric, ids, label)}
            times = in_turns(jobs, options.rounds, warm_up=3)
            value, text = ratio(times, "graph", "hand")
            goal = verdict(value, at_most=MOST)
            results.append((kind, backend, seconds(times["graph"]), seconds(times["hand"]), text, goal))
        if storage is not None:
            storage.release()
    table(
        f"DCN-V2 from the graph and by hand, batch {batch}, 26 tables of {rows:,} rows",
        ("job", "tables held by", "graph", "by hand", "ratio", "target"),
        results,
        "The training step is forward, backward with the tables' update, and fused SGD on the dense layers.",
    )


def forward(model: nn.Module, numeric: torch.Tensor, ids: torch.Tensor, label: torch.Tensor) -> Callable[[], object]:
    """Logits without gradients."""

    def job() -> object:
        with torch.inference_mode():
            return model(numeric, ids)

    return job


def step(model: nn.Module, numeric: torch.Tensor, ids: torch.Tensor, label: torch.Tensor) -> Callable[[], object]:
    """Loss, gradients and updates."""
    dense = [p for n, p in model.named_parameters() if not n.endswith(".table")]
    optimizer = torch.optim.SGD(dense, lr=1e-6, fused=True)

    def job() -> object:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(model(numeric, ids), label)
        loss.backward()
        optimizer.step()
        return loss

    return job


if __name__ == "__main__":
    main()
