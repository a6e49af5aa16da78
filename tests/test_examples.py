"""The examples: each runs in an empty folder and prints what it promises, and the page lists them all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.processes import run

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PROMISED = {
    "compose_a_space": "M parameters (80% of the space: ",
    "train_a_supernet": "gives equal outputs",
    "search_from_python": "ended: finished",
    "generate_from_candidate": "The statement",
    "predict_clicks": "predicted [0.",
    "search_your_own_space": "normalized entropy ",
    "compare_methods": "evolution",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMISED)
def test_an_example_runs_and_prints_what_it_promises(name: str, tmp_path: Path) -> None:
    done = run(
        [str(EXAMPLES / f"{name}.py")], tmp_path, {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert PROMISED[name] in done.stdout


def test_every_example_is_short_tested_and_on_the_page() -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert [script.stem for script in scripts] == sorted(PROMISED)
    for script in scripts:
        assert f"`{script.name}`" in page
        assert len(script.read_text(encoding="utf-8").splitlines()) < 60, script.name
