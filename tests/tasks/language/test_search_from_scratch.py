"""Searches of language models that begin with random weights: what works, and what is refused before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rankitect
from rankitect.errors import ConfigError

SMOKE = ["task=scratch", "preset=smoke", "runner.threads=1", "report.page=false", "budget.trials=3"]


def search(folder: Path, *overrides: str) -> Any:
    return rankitect.search([*SMOKE, *overrides], output_dir=folder, quiet=True)


@pytest.mark.parametrize("overrides", [["controller=dnas"], ["evaluator.screen=null"]])
def test_methods_that_need_no_backbone_find_models(overrides: list[str], tmp_path: Path) -> None:
    assert search(tmp_path / "run", *overrides).summary.pareto


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["controller=random"], r"TrainsBriefly.*Take a controller that trains them .*, or evaluator.screen=null"),
        (["controller=staged"], r"HasPrior.*task=scratch has none: task.backbone is none. Controllers .* dnas"),
    ],
)
def test_methods_that_need_a_backbone_are_refused_by_name(overrides: list[str], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=text):
        search(tmp_path / "run", *overrides)
    assert not (tmp_path / "run" / "study.db").exists()
