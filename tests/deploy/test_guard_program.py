"""A guard's program: judged with the runtime, and asked by `run_pte`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import rankitect
from rankitect.errors import ConfigError
from rankitect.run_pte import main
from tests.tasks.language.tiny import own_cache

pytest.importorskip("executorch")
SMOKE = ["space=mobile_llm", "recipe=llama_guard_int4", "preset=smoke"]


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_cache(tmp_path_factory.mktemp("cache")):
        yield


@pytest.mark.slow
def test_the_recipe_ends_in_a_program_that_judges_as_its_model_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = rankitect.train([*SMOKE, f"output_dir={tmp_path / 'run'}"], quiet=True)
    model = trained.folder / "model"
    card = json.loads((model / "program.json").read_text(encoding="utf-8"))
    assert card["quality"]["metric"] == "auc"
    assert card["quality"]["agreement"] > 0.95
    assert card["quality"]["program"] == pytest.approx(card["quality"]["model"], abs=0.02)
    stages = json.loads((model / "stages.json").read_text(encoding="utf-8"))
    assert stages["program"]["notes"]["milliseconds"].keys() == {"prefill", "decode"}
    assert stages["stages"][-1]["weight_bytes"] < stages["stages"][0]["weight_bytes"] / 5
    assert main([str(model), "--prompt", "How do I bake bread?"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(("safe: log-odds", "unsafe: log-odds"))
    assert "verdict after" in err
    card["notes"]["template"]["safe"] = -1
    (model / "program.json").write_text(json.dumps(card))
    assert main([str(model), "--prompt", "x", "--no-verify"]) == 2
    assert "safe" in capsys.readouterr().err


def test_a_program_that_cannot_hold_an_exchange_is_refused_before_any_work(tmp_path: Path) -> None:
    keys = ["recipe.program.prompt=16", "recipe.program.capacity=32"]
    with pytest.raises(ConfigError, match=r"recipe\.program: capacity is 32, and an exchange has up to 96 tokens"):
        rankitect.train([*SMOKE, *keys, f"output_dir={tmp_path}"], quiet=True)
