"""Models are asked between stages, each once; answers outlive a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rankitect
from rankitect.errors import ConfigError

SMOKE = ["space=mobile_llm", "recipe=llama_guard_int4", "preset=smoke", "~recipe.program"]


def card(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "model" / "stages.json").read_text(encoding="utf-8"))
    return read


def test_a_recipe_brings_its_task_and_its_guard_is_measured_after_every_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKITECT_CACHE", str(tmp_path / "cache"))
    first = rankitect.train([*SMOKE, f"output_dir={tmp_path / 'a'}"], quiet=True)
    assert first.summary is not None
    assert first.summary.task == "moderation"
    stages = card(tmp_path / "a")["stages"]
    assert [one["stage"] for one in stages] == ["", "verdicts", "prune", "distil", "head", "quantize", "qat"]
    metrics = stages[-1]["quality"]["metrics"]
    assert metrics["auc"]["value"] == pytest.approx(first.summary.metrics["auc"].value)
    before, after = (one["quality"]["metrics"]["auc"]["value"] for one in stages[3:5])
    assert before == pytest.approx(after), "a cut head gives the same verdicts"
    assert stages[2]["params"] < stages[1]["params"]
    # Another run reads the stages from the store, with their answers, and gives the same card.
    again = rankitect.train([*SMOKE, f"output_dir={tmp_path / 'b'}"], quiet=True)
    assert again.summary is not None
    assert again.summary.computed.train_tokens == 0
    assert again.summary.spent.data == first.summary.spent.data
    assert card(tmp_path / "b")["stages"] == stages
    # With other exchanges to judge by, stored models are asked again.
    other = rankitect.train([*SMOKE, "task.test_exchanges=30", f"output_dir={tmp_path / 'c'}"], quiet=True)
    assert other.summary is not None
    assert other.summary.computed.train_tokens == 0
    asked = card(tmp_path / "c")["stages"]
    assert [one["stage"] for one in asked] == ["", "verdicts", "prune", "distil", "head", "quantize", "qat"]
    assert all(one["quality"]["exchanges"] == 30 for one in asked)
    page = (tmp_path / "a" / "model" / "stages.md").read_text(encoding="utf-8")
    assert "| as it begins |" in page
    assert "TF-IDF" in page


def test_a_teacher_that_is_no_stage_before_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"recipe\.distil: teacher=qat is no stage before it; allowed: backbone, float"
    ):
        rankitect.train([*SMOKE, "recipe.distil.teacher=qat", f"output_dir={tmp_path}"], quiet=True)
