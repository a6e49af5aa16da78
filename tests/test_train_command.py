"""`python -m rankitect.train`: one model from a backbone or from scratch, killed and resumed, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rankitect
from rankitect.errors import ConfigError, RunFolderError
from rankitect.report import main as report
from rankitect.train import main, train
from tests.processes import run
from tests.tasks.language.tiny import own_cache

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ["preset=smoke", "runner.threads=1", "runner.progress=false"]
SCRATCH = ["task=scratch", *SMOKE]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path) -> Iterator[None]:
    """Stored outputs of other tests would make these too quick to kill."""
    with own_cache(tmp_path / "cache"):
        yield


def summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text()))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "weights.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_pruned_backbone_is_healed_measured_and_saved_and_the_next_run_reads_what_was_computed(
    tmp_path: Path,
) -> None:
    from rankitect.models.candidate import load_candidate

    one = train([*SMOKE, "model=uniform width 75%"], output_dir=tmp_path / "one", quiet=True)
    found = summary(tmp_path / "one")
    assert (found["kind"], found["recipe"], found["model"]) == ("training", ["heal"], "uniform width 75%")
    assert found["spent"]["train_tokens"] == found["spent"]["teacher_tokens"] == 512
    assert found["spent"]["train_flops"] > 0
    assert found["computed"] == found["spent"]
    assert load_candidate(tmp_path / "one" / "model").architecture.fingerprint == found["fingerprint"]
    assert (tmp_path / "one" / "log.txt").exists()
    again = train([*SMOKE, f"model={one.folder}/model/architecture.json"], output_dir=tmp_path / "two", quiet=True)
    assert again.summary is not None
    assert again.summary.computed.train_tokens == 0, "the same beginning, whatever the model was called"
    assert again.summary.spent.train_tokens == 512
    assert equal(weights(tmp_path / "one"), weights(tmp_path / "two"))


def test_a_search_reads_what_a_training_computed_and_both_find_the_same(tmp_path: Path) -> None:
    trained = train([*SMOKE, "model=uniform width 75%"], output_dir=tmp_path / "train", quiet=True).summary
    searched = rankitect.search(
        [*SMOKE, "controller=random", "controller.samples=1", "report.page=false"],
        output_dir=tmp_path / "search",
        quiet=True,
    ).summary
    (uniform,) = [b for b in searched.baselines if b.name == "uniform width 75%"]
    assert trained is not None
    assert uniform.metrics["perplexity"] == trained.metrics["perplexity"]
    assert searched.ledger.reused["baselines"].train_tokens == 512
    assert searched.ledger.stages["baselines"].train_tokens == 2 * 512, "charged all the same"


def test_a_model_from_scratch_learns(tmp_path: Path) -> None:
    few, more = (
        train([*SCRATCH, f"recipe.pretrain.tokens={n}", "recipe.pretrain.lr=0.01"], output_dir=tmp_path / n, quiet=True)
        for n in ("128", "40960")
    )
    assert few.summary is not None
    assert more.summary is not None
    assert more.summary.metrics["perplexity"].value < 0.2 * few.summary.metrics["perplexity"].value
    assert more.summary.spent.teacher_tokens == 0


@pytest.mark.parametrize("tied", [True, False])
def test_mobilellm_125m_at_any_width_with_tied_or_untied_head(tmp_path: Path, tied: bool) -> None:
    shape = {"width": 16, "head": 4, "layers": 30, "heads": 9, "kv_heads": 3, "ffn": 1536, "vocab": 300, "tied": tied}
    trained = train(
        [*SCRATCH, "recipe.pretrain.tokens=64", "recipe.pretrain.batch=1", "space.ffn_step=1536"],
        model="mobilellm-125m",
        task={"shape": shape, "test_windows": 2},
        output_dir=tmp_path / "run",
        quiet=True,
    )
    assert trained.summary is not None
    layer = 16 * 4 * (9 + 3 + 3 + 9) + 3 * 16 * 1536 + 2 * 16
    assert trained.summary.metrics["params"].value == 300 * 16 * (1 if tied else 2) + 30 * layer + 16
    tables = [name for name in weights(tmp_path / "run") if name in ("embed.weight", "head.weight")]
    assert tables == (["embed.weight"] if tied else ["embed.weight", "head.weight"])


def test_a_killed_training_goes_on_and_ends_as_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rankitect.training import text

    steps: list[int] = []
    plain = text.NextToken.batch_at

    def killed_at_9(self: Any, step: int, seed: int | None = None) -> Any:
        steps.append(step)
        if step == 9 and len(steps) == 10:
            raise OSError(5, "as if the process ended here")
        return plain(self, step, seed)

    monkeypatch.setattr(text, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(text.NextToken, "batch_at", killed_at_9)
    with pytest.raises(OSError, match="as if the process ended here"):
        train(SCRATCH, output_dir=tmp_path / "run", quiet=True)
    kept = sorted(path.name for path in (tmp_path / "run" / "state").iterdir())
    assert kept == ["pretrain.origin", "pretrain.safetensors"]
    train(SCRATCH, output_dir=tmp_path / "run", quiet=True)
    assert steps == [*range(10), *range(9, 16)], "no finished step is repeated"
    assert list((tmp_path / "run" / "state").iterdir()) == []
    monkeypatch.undo()
    with own_cache(tmp_path / "other"):
        train(SCRATCH, output_dir=tmp_path / "whole", quiet=True)
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    one, other = summary(tmp_path / "run"), summary(tmp_path / "whole")
    assert one["metrics"] == other["metrics"]
    assert one["spent"]["train_tokens"] == other["spent"]["train_tokens"] == 2048


def test_a_state_of_other_settings_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rankitect.training import text

    plain = text.NextToken.batch_at

    def stopped_at_4(self: Any, step: int, seed: int | None = None) -> Any:
        if step == 4:
            raise OSError(5, "as if the process ended here")
        return plain(self, step, seed)

    monkeypatch.setattr(text, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(text.NextToken, "batch_at", stopped_at_4)
    with pytest.raises(OSError, match="as if"):
        train(SCRATCH, output_dir=tmp_path / "run", quiet=True)
    monkeypatch.setattr(text.NextToken, "batch_at", plain)
    changed = [*SCRATCH, f"output_dir={tmp_path / 'run'}", "recipe.pretrain.lr=0.5"]
    assert main(changed) == 2
    assert "recipe.pretrain.lr: 0.001 -> 0.5" in capsys.readouterr().err
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert main([*changed, "resume=force"]) == 2
    assert "was written by training with lr 0.001 and not 0.5: delete it" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
    state = tmp_path / "run" / "state" / "pretrain.safetensors"
    data = bytearray(state.read_bytes())
    data[-7] ^= 1  # a weight
    state.write_bytes(data)
    assert main([*SCRATCH, f"output_dir={tmp_path / 'run'}"]) == 2
    assert "is damaged: delete it, or go on with resume=force" in capsys.readouterr().err
    assert main([*SCRATCH, f"output_dir={tmp_path / 'run'}", "resume=force"]) == 0


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rankitect.train", *SCRATCH, "recipe.pretrain.tokens=2_000_000", "output_dir=run"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    while process.poll() is None and not (tmp_path / "run" / "model").exists():
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "The training was stopped. To go on: python -m rankitect.train task=scratch" in out
    assert "Traceback" not in err
    assert (tmp_path / "run" / "state" / "pretrain.safetensors").exists()


def test_repeating_a_finished_training_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*SCRATCH, f"output_dir={tmp_path / 'run'}"]
    assert main(command) == 0
    before = (tmp_path / "run" / "summary.json").read_bytes(), weights(tmp_path / "run")
    assert main(command) == 0
    assert "The model is trained: perplexity" in capsys.readouterr().out
    assert (tmp_path / "run" / "summary.json").read_bytes() == before[0]
    assert equal(weights(tmp_path / "run"), before[1])


@pytest.mark.slow
def test_a_recipe_that_ends_with_export_leaves_a_program_that_generates_as_the_model_does(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    from rankitect.deploy.artifact import load
    from rankitect.models.candidate import load_candidate

    done = train([*SMOKE, "recipe=heal_export", "model=uniform width 75%"], output_dir=tmp_path / "run", quiet=True)
    place = tmp_path / "run" / "model"
    assert done.summary.artifacts["program"] == "model/model.pte"
    assert done.summary.artifacts["weights"] == "model/weights.safetensors"
    prompt = list(b"def main")
    wanted, model = list(prompt), load_candidate(place).model
    with torch.no_grad():
        for _ in range(8):
            wanted.append(int(model(torch.tensor([wanted]))[0, -1].argmax()))
    assert load(place).generator.greedy(prompt, 8) == wanted[len(prompt) :]


@pytest.mark.slow
def test_a_recipe_that_ends_with_gguf_leaves_a_file_that_is_the_model(tmp_path: Path) -> None:
    from rankitect.models.candidate import load_candidate

    more = ["recipe.gguf.precision=float32", "model=uniform width 75%"]
    done = train([*SMOKE, "recipe=heal_gguf", *more], output_dir=tmp_path / "run", quiet=True)
    place = tmp_path / "run" / "model"
    assert done.summary.artifacts["gguf"] == "model/model.gguf"
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(load_candidate(place / "model.gguf").model(ids), load_candidate(place).model(ids))


def test_a_known_ranker_is_trained_as_the_task_says(tmp_path: Path) -> None:
    trained = rankitect.train(
        ["space=ranking_engineered", *SMOKE, "task.refit=false"], model="lr", output_dir=tmp_path / "run", quiet=True
    )
    assert trained.summary.recipe == []
    assert trained.summary.spent.train_examples > 0
    assert (tmp_path / "run" / trained.summary.artifacts["weights"]).exists()
    assert list((tmp_path / "run" / "state").iterdir()) == []


def test_a_search_leaves_the_folder_of_a_training_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    rankitect.train(["space=settings", *SMOKE], model="lr", output_dir=run, quiet=True)
    before = (run / "config.yaml").read_bytes(), (run / "summary.json").read_bytes()
    with pytest.raises(RunFolderError, match="belongs to another configuration"):
        rankitect.search(["space=settings", *SMOKE], output_dir=run, quiet=True)
    assert ((run / "config.yaml").read_bytes(), (run / "summary.json").read_bytes()) == before
    assert report([f"run={run}"]) == 2
    assert "summary.json is the summary of a training, not of a search" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ["controller=dnas"],
            "'controller' on the command line: rankitect.train trains one model and does not",
        ),
        (["budget.trials=3"], "'budget.trials' on the command line: rankitect.train trains one model"),
        (["evaluator.screen.tokens=3"], "'evaluator.screen.tokens' on the command line: rankitect.train"),
        (["model=mobilellm-125n"], "model=mobilellm-125n is neither a file nor a model that this space and task know."),
        (["model=backbon"], "Did you mean 'backbone'?"),
        (["model=none.json"], "model=none.json: there is no such file."),
        (["model=3"], "'model' is 3: it must be a file, or the name of a model."),
        (["recipe=pretrain", "heal.tokens=3"], "'heal.tokens' on the command line: it is 'recipe.heal.tokens' now."),
        (
            ["task=scratch", "recipe=heal"],
            "recipe.heal: this stage learns from the backbone, and task.backbone is",
        ),
        (["task=scratch", "task.shape.vocab=99"], "task.shape.vocab is 99; task.tokenizer=bytes has 256 tokens."),
        (["task=scratch", "task.shape.heads=5"], "heads is 5, which is no multiple of kv_heads"),
        (["task=scratch", "task.tokenizer=nowhere"], "task.tokenizer=nowhere: "),
        (
            ["space=ranking_engineered", "recipe=finetune"],
            "recipe.train: this stage trains on text, and task=movielens has none",
        ),
        (["evaluator.final.tokens=64", "recipe=none"], "The recipe is empty"),
        (
            ["recipe.heal.lr={choice: lr}"],
            "'recipe.heal.lr' is to be decided by the choice 'lr', which is in no space.",
        ),
    ],
)
def test_bad_input_is_told_in_a_sentence_before_any_work(
    overrides: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMOKE, *overrides]) == 2
    told = capsys.readouterr().err
    assert text in told
    assert "Traceback" not in told
    assert not list(tmp_path.glob("runs/*/model"))


def test_a_setting_of_a_stage_is_decided_by_a_choice_of_the_architecture(tmp_path: Path) -> None:
    given = [*SMOKE, "+choices.rate={low: 1.0e-4, high: 1.0e-2, values: 3, log: true}", "recipe.heal.lr={choice: rate}"]
    trained = train(given, output_dir=tmp_path / "usual", quiet=True).summary
    assert trained is not None
    choices = trained.architecture["choices"]
    models = {}
    for rate in (1e-4, 1e-2):
        path = tmp_path / f"{rate}.json"
        smaller = {**choices, "rate": rate, "layers.0.ffn": 64}
        path.write_text(json.dumps({**trained.architecture, "choices": smaller}))
        train([*given, f"model={path}"], output_dir=tmp_path / str(rate), quiet=True)
        models[rate] = weights(tmp_path / str(rate))
    assert not equal(models[1e-4], models[1e-2])


@pytest.mark.slow
def test_processes_of_torchrun_train_what_one_does(tmp_path: Path) -> None:
    """They are started as torchrun starts them, and divide weights, gradients and running means."""
    asked = [*SMOKE, "model=uniform width 75%"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def process(rank: int) -> subprocess.CompletedProcess[str]:
        said = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
        env = {**os.environ, **said, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        env["RANKITECT_CACHE"] = str(tmp_path / "shared")
        return run(["-m", "rankitect.train", *asked, "output_dir=together", "placement.shard=true"], tmp_path, env)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(process, range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "The model is trained" in first.stdout
    assert second.stdout == ""
    train(asked, output_dir=tmp_path / "alone", quiet=True)
    assert summary(tmp_path / "together")["spent"]["train_tokens"] == 512
    one, other = weights(tmp_path / "alone"), weights(tmp_path / "together")
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=1e-3, atol=2e-4)


def test_what_divides_a_model_among_processes_needs_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"placement\.shard=true divides .* and there is one"):
        train([*SMOKE, "placement.shard=true"], output_dir=tmp_path / "one", quiet=True)
    for name, value in {"TORCHELASTIC_RUN_ID": "test", "RANK": "0", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"runner=ray runner\.together=8"):
        rankitect.search(["preset=smoke"], output_dir=tmp_path / "search", quiet=True)
