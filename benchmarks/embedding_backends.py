"""Embedding tables: lookup and update under each backend and optimizer, with ids as skewed as a click log's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from common import arguments, in_turns, ratio, seconds, table


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=11, batch=4096, rows=2_600_000, width=16, skew=1.1)
    from rankitect.models.supernet import build
    from rankitect.training.embeddings import TableConfig, TableStorage, torchrec_installed

    batch, rows = (128, 2600) if options.quick else (options.batch, options.rows)
    space, features = one_table(rows, options.width), 26
    ids = zipf(batch, features, rows // features, options.skew)
    results = []
    for rule in ("sgd", "adagrad", "rowwise_adagrad", "adam"):
        jobs: dict[str, Callable[[], object]] = {}
        for backend in ("torch", "torchrec"):
            if backend == "torchrec" and (rule == "adam" or not torchrec_installed()):
                continue
            model = build(space, space.architecture({}))
            TableStorage(model, TableConfig(backend, rule, lr=1e-3))  # type: ignore[arg-type]
            jobs[backend] = step(model, ids)
        times = in_turns(jobs, options.rounds, warm_up=2)
        both = ratio(times, "torch", "torchrec")[1] if len(jobs) == 2 else "-"
        fused = seconds(times["torchrec"]) if "torchrec" in times else "-"
        results.append((rule, seconds(times["torch"]), fused, both))
    model = build(space, space.architecture({}))
    TableStorage(model, TableConfig("auto", "sgd"))
    times = in_turns({"lookup": lookup(model, ids)}, options.rounds, warm_up=2)
    results.append(("lookup only", seconds(times["lookup"]), "-", "-"))
    unique = torch.unique(ids + torch.arange(features) * (rows // features)).numel()
    table(
        f"Embedding tables, {rows:,} rows of {options.width}, {batch} examples of {features} features",
        ("optimizer", "torch", "torchrec", "torch / torchrec"),
        results,
        f"Lookup, backward and update. {unique:,} of the batch's {ids.numel():,} rows differ.",
    )


def one_table(rows: int, width: int) -> Any:
    """A space of nothing but 26 features' tables."""
    from rankitect.blocks import Flatten, Tables
    from rankitect.graph import B, Graph, SearchSpace

    g = Graph("tables")
    ids = g.input("ids", B, 26, dtype="int")
    g.out = Flatten()(Tables((rows // 26,) * 26, (1,) * 26, width)(ids, name="tables"))
    return SearchSpace(g)


def zipf(batch: int, features: int, rows: int, skew: float) -> torch.Tensor:
    """Ids [batch, features] with chances that fall as rank ** -skew."""
    chances = torch.arange(1, rows + 1, dtype=torch.float64) ** -skew
    edges = (chances / chances.sum()).cumsum(0)
    drawn = torch.rand(batch, features, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return torch.searchsorted(edges, drawn).clamp_max(rows - 1)


def step(model: Any, ids: torch.Tensor) -> Callable[[], object]:
    """Lookup, gradient, update."""
    upstream = torch.randn(model(ids).shape)

    def job() -> object:
        model(ids).backward(upstream)
        return None

    return job


def lookup(model: Any, ids: torch.Tensor) -> Callable[[], object]:
    """Vectors, without gradients."""

    def job() -> object:
        with torch.inference_mode():
            return model(ids)

    return job


if __name__ == "__main__":
    main()
