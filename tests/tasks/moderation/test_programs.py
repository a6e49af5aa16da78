"""Programs of guards are guards: those that a device writes, that a recipe has left, and of finished runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rankitect.config.parts import Parts, build
from rankitect.config.training import resolve_training
from rankitect.contracts import Measurement, Spent, Trial
from rankitect.deploy.candidate_program import ProgramSettings
from rankitect.deploy.devices import AnalyticDevice
from rankitect.deploy.formats import export_candidate
from rankitect.deploy.guards import GuardNotes
from rankitect.errors import AssetError, ConfigError, DataError, DeployError
from rankitect.models.candidate import load_language_model
from rankitect.run_pte import main as run_program
from rankitect.tasks.moderation.after import judge_of_run
from rankitect.tasks.moderation.task import Moderation
from tests.tasks.language.tiny import parts_of

SMOKE = ["task=moderation", "preset=smoke", "device=analytic", "device.context=128"]
CANDIDATE = "trials/0"


class Exporting(AnalyticDevice):
    """A device that tells what it was asked for."""

    asked: Mapping[str, Any] | None = None
    timed: Mapping[str, Any] | None = None

    def export(self, folder: Path, model: Any, tokenizer: Any, predicted: Any, text: Any, **known: Any) -> Any:
        self.asked = known
        return {}

    def time_program(self, folder: Path, predicted: Mapping[str, Any]) -> dict[str, str]:
        self.timed = predicted
        return {"latency": "latency.json"}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    folder = tmp_path_factory.mktemp("guard")
    parts = build(resolve_training(SMOKE, None).resolved, folder, lambda text: None, measuring=True)
    task = parts.task
    assert isinstance(task, Moderation)
    model = task.initial(task.reference, 0)
    notes = task.candidate_notes(task.quality(model, "test"))
    task.save_candidate(folder / CANDIDATE, task.reference, model, notes=notes)
    task.record(parts)
    config = {"target": "rankitect.tasks.moderation.task.Moderation", **task.config.model_dump(mode="json")}
    (folder / "config.yaml").write_text(json.dumps({"seed": parts.config.seed, "task": config}))
    return parts


def written(parts: Parts, folder: Path, **artifacts: str) -> tuple[dict[str, str], Exporting]:
    """What a device leaves of the candidate."""
    task = parts.task
    assert isinstance(task, Moderation)
    parts.device = device = Exporting(AnalyticDevice.Config(prompt=16, context=128, measurements=6))
    kept = {"card": f"{CANDIDATE}/candidate.json", **{k: f"{CANDIDATE}/{v}" for k, v in artifacts.items()}}
    trial = Trial(1, 1, 1, task.reference, "final", 0, {}, "DONE", Measurement({}, Spent(), kept))
    return task.exporter(parts)(trial, folder), device


def test_a_device_is_told_how_guards_are_judged(parts: Parts, tmp_path: Path) -> None:
    _, device = written(parts, tmp_path)
    assert device.asked is not None
    assert set(device.asked) == {"judge"}
    assert device.timed is None


def test_a_program_that_a_recipe_has_left_is_timed_and_not_written_again(parts: Parts, tmp_path: Path) -> None:
    for name in ("model.pte", "program.json"):
        (parts.folder / CANDIDATE / name).write_text(name)
    left = {"program": "model.pte", "program_card": "program.json", "program_tokenizer": "tokenizer.json"}
    files, device = written(parts, tmp_path, **left)
    assert device.asked is None
    assert set(device.timed or ()) == {"prefill_ms", "decode_ms"}
    assert files.items() >= {**left, "latency": "latency.json"}.items()
    assert (tmp_path / "model.pte").read_text() == "model.pte"


def test_a_device_whose_programs_cannot_hold_an_exchange_is_refused(parts: Parts) -> None:
    assert isinstance(parts.task, Moderation)
    parts.device = Exporting(AnalyticDevice.Config(prompt=16, context=32))
    with pytest.raises(ConfigError, match=r"device\.context is 32, and an exchange has up to 96 tokens: at least 97"):
        parts.task.check(parts)


def test_bits_that_a_device_lacks_after_the_recipe_are_refused_before_it(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    with pytest.raises(DeployError, match="weights of 3 bits are not among those"):
        parts_of(tmp_path, "recipe=qat_8da4w", "recipe.quantize.bits=3", "device=host")


def test_a_candidate_has_its_template_and_threshold(parts: Parts) -> None:
    assert isinstance(parts.task, Moderation)
    card = load_language_model(parts.folder / CANDIDATE).card
    known = GuardNotes.of_candidate(card, "candidate.json")
    assert known is not None
    assert known[0].template == parts.task.exchanges.template
    assert GuardNotes.of_candidate({"notes": {}}, "candidate.json") is None
    for damaged in (3, {"template": {}}, {**card["notes"]["guard"], "verdicts": {"metrics": {}}}):
        with pytest.raises(AssetError, match=r"candidate\.json"):
            GuardNotes.of_candidate({"notes": {"guard": damaged}}, "candidate.json")


def test_a_run_judges_by_its_exchanges_or_says_why_it_cannot(parts: Parts, tmp_path: Path) -> None:
    candidate, run = load_language_model(parts.folder / CANDIDATE), parts.folder
    assert judge_of_run(run, candidate, 128) is not None
    with pytest.raises(ConfigError, match="capacity is 64, and an exchange has up to 96"):
        judge_of_run(run, candidate, 64)
    assert judge_of_run(tmp_path, candidate, 128) is None
    config = json.loads((run / "config.yaml").read_text())
    (tmp_path / "data.json").write_text((run / "data.json").read_text())
    for keys, why in (
        ({"split_seed": 5}, "no longer the exchanges"),
        ({"data": "s3://bucket/x.csv"}, "no file of this machine"),
        ({"data": str(tmp_path / "gone.csv")}, "are not here"),
    ):
        (tmp_path / "config.yaml").write_text(json.dumps({**config, "task": {**config["task"], **keys}}))
        with pytest.raises(DataError, match=why):
            judge_of_run(tmp_path, candidate, 128)


@pytest.mark.slow
def test_a_candidate_of_a_finished_run_becomes_a_program_that_judges(
    parts: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("executorch")
    place, _ = export_candidate(
        parts.folder / CANDIDATE,
        "executorch",
        tmp_path / "program",
        program=ProgramSettings(prompt=96, capacity=104),
        run=parts.folder,
        judging=judge_of_run,
    )
    card = json.loads((place / "program.json").read_text())
    assert (card["quality"]["metric"], card["notes"]["unmeasured"]) == ("auc", None)
    assert run_program([str(place), "--prompt", "How do I bake bread?", "--response", "With flour."]) == 0
    assert capsys.readouterr().out.startswith(("safe: log-odds", "unsafe: log-odds"))


def test_a_run_records_a_recipe_that_prunes_the_vocabulary(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    keys = ["task=moderation", "space=mobile_llm", "recipe=llama_guard_int4", "preset=smoke"]
    parts = build(resolve_training(keys, None).resolved, tmp_path, lambda text: None, measuring=True)
    assert isinstance(parts.task, Moderation)
    parts.task.record(parts)
    recipe = json.loads((tmp_path / "data.json").read_text())["recipe"]
    assert recipe.startswith("verdicts (512 tokens), prune")
    assert ", head, quantize, " in recipe
