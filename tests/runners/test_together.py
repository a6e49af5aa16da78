"""A whole search whose models are trained by two processes side by side on Ray Train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rankitect
from rankitect.errors import ConfigError

pytestmark = pytest.mark.slow
SEARCH = (
    "space=ranking_blocks", "controller=one_shot", "task=movielens", "preset=smoke",
    "space.towers=[1]", "controller.samples=1", "controller.finalists=1", "confirm.seeds=1", "runner.threads=1",
    "runner.baselines=false", "report.registry=null",
    "report.page=false", "report.tensorboard=false", "task.refit=false",
)  # fmt: skip


def found(path: Path, *more: str) -> Any:
    rankitect.search([*SEARCH, f"output_dir={path}", *more], quiet=True)
    summary = json.loads((path / "summary.json").read_text())
    stages = {k: v["train_examples"] for k, v in summary["ledger"]["stages"].items()}
    return [(p["fingerprint"], p["metrics"]["normalized_entropy"]["value"]) for p in summary["pareto"]], stages


# Ray Train takes twenty seconds to start, for the preparation and for the trial: one search has both. What tables of
# either backend learn in two processes is compared in tests/training/test_parallel.py.
def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    pytest.importorskip("torchrec")
    # More values of the features than fit into a table that is not worth dividing.
    values = ("task.data.synthetic.ids=1000", "task.data.min_count=1")
    how = ("task.tables.backend=torchrec", "task.tables.optimizer=adagrad", *values)
    one, charged = found(tmp_path / "one", *how)
    two, charged_together = found(tmp_path / "two", *how, "runner=ray", "runner.workers=1", "runner.together=2")
    assert [f for f, _ in one] == [f for f, _ in two]
    assert [x for _, x in one] == pytest.approx([x for _, x in two], abs=1e-4)
    assert charged == charged_together


def test_only_ray_trains_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runner\.together.*runner=ray"):
        found(tmp_path, "runner.together=2")


def test_progressive_validation_needs_all_rows_in_one_process(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match=r"task\.one_pass.*runner\.together=1"):
        found(tmp_path, "runner=ray", "runner.together=2", "task.one_pass=true")
