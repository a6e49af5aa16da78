"""The benchmarks run: on tiny sizes, each prints its table. What they say there means nothing and is not looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.processes import run

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = (
    "cost_readings",
    "supernet_overhead",
    "extraction",
    "dnas_step",
    "importance",
    "preprocessing",
    "graph_overhead",
    "embedding_backends",
    "attention_patterns",
    "accelerator",
    "backbone_plan",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_prints_its_table(name: str, tmp_path: Path) -> None:
    script = str(ROOT / "benchmarks" / f"{name}.py")
    done = run([script, "--quick", "--threads", "1"], tmp_path, {**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) >= 4
    assert len({row.count("|") for row in rows}) == 1, "every row has as many cells as the header"
    assert "torch" in done.stdout.splitlines()[-1], "the machine is described under the table"
