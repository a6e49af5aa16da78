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
    "convolution_overhead",
    "embedding_backends",
    "attention_patterns",
    "accelerator",
    "backbone_plan",
    "memory",
    "nb201",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_prints_its_table(name: str, tmp_path: Path) -> None:
    script = str(ROOT / "benchmarks" / f"{name}.py")
    done = run([script, "--quick", "--threads", "1"], tmp_path, {**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    parts = [[line for line in part.splitlines() if line.startswith("|")] for part in done.stdout.split("\n\n")]
    tables = [part for part in parts if part]
    assert sum(map(len, tables)) >= 4
    for rows in tables:
        assert len({row.count("|") for row in rows}) == 1, "every row has as many cells as the header"
    under = done.stdout.rpartition("|\n")[2]
    assert "torch" in under, "the machine is described under the table"
