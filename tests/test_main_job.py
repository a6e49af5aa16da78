"""The main job from end to end on its smallest preset, through the command itself."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rankitect
from benchmarks.resume import MOMENTS, drill, finished
from rankitect.data.assets import ASSETS
from rankitect.search import main
from tests.processes import run
from tests.tasks.language.tiny import own_cache

ROOT = Path(__file__).parents[1]
SMOKE = ["space=mobile_llm", "preset=smoke", "runner.threads=1"]
QUICK = ["controller.steps=2", "controller.targets=[0.75,0.6]"]


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_cache(tmp_path_factory.mktemp("cache")):
        yield


def start(*overrides: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), str(cwd)])
    return subprocess.Popen(
        [sys.executable, "-m", "rankitect.search", *SMOKE, *overrides],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def command(*overrides: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    if not options:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(cwd)])}
        return run(["-m", "rankitect.search", *SMOKE, *overrides], cwd, environment)
    process = start(*overrides, cwd=cwd, **options)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def found(folder: Path) -> dict[str, Any]:
    """What a run found, without clocks, places and what earlier runs had stored."""
    data = json.loads((folder / "summary.json").read_text())
    del data["reproduce"], data["ledger"]["minutes"], data["ledger"]["seconds"]
    del data["files"], data["checksum"]  # of times as well
    for key in ("reused", "computed"):
        data["ledger"].pop(key, None)
    for stage in data["ledger"]["stages"].values():
        del stage["seconds"]
    return dict(data)


@pytest.mark.parametrize("controller", ["dnas", "random"])
def test_a_smoke_run_leaves_a_whole_run_folder_and_repeating_it_changes_nothing(
    controller: str, tmp_path: Path
) -> None:
    done = command(f"controller={controller}", "output_dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run"
    for name in ("config.yaml", "study.db", "trials.csv", "summary.json", "log.txt", "report/index.html"):
        assert (folder / name).stat().st_size > 0, name
    summary = found(folder)
    assert [b["name"] for b in summary["baselines"]] == ["backbone", "uniform width 75%", "uniform width 60%"]
    assert summary["pareto"]
    for candidate in summary["pareto"]:
        assert 0.45 <= candidate["metrics"]["block_flops"]["value"] <= 1.0
        assert {"architecture", "weights", "graph"} <= set(candidate["artifacts"])
        assert all((folder / path).exists() for path in candidate["artifacts"].values())
    assert "<script src" not in (folder / "report/index.html").read_text(), "the page opens offline"
    before = finished(folder)
    again = command(f"controller={controller}", "output_dir=run", cwd=tmp_path)
    assert again.returncode == 0
    assert "Resuming: what is finished is not measured again." in again.stdout
    assert finished(folder) == before
    assert found(folder) == summary


def test_python_does_the_same_as_the_command(tmp_path: Path) -> None:
    assert command("controller=dnas", *QUICK, "output_dir=one", cwd=tmp_path).returncode == 0
    result = rankitect.search(
        [*SMOKE, "controller=dnas"],
        quiet=True,
        output_dir=tmp_path / "two",
        controller={"steps": 2, "targets": [0.75, 0.6]},
    )
    assert result.ended == "finished"
    assert found(tmp_path / "two") == found(tmp_path / "one")


def test_a_space_and_a_controller_of_a_users_own_package(tmp_path: Path) -> None:
    package = tmp_path / "my_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text(
        '''
from pydantic import BaseModel, ConfigDict

from rankitect.search_spaces.mobile_llm import from_backbone
from rankitect.contracts import Proposal


class Narrow:
    """Only feed-forward widths."""

    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid")
        step: int = 32

    @classmethod
    def from_config(cls, config, parts):
        made = parts.task.checkpoint.config
        return from_backbone(made, context=parts.task.context, ffn_step=config.step, patterns=("full",))


class First:
    """The first few architectures that come up."""

    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid")
        count: int = 2

    @classmethod
    def from_config(cls, config, parts):
        made = cls()
        made.left = parts.space.sample_many(config.count, parts.config.seed, **parts.task.limits())
        return made

    def prepare(self, session):
        pass

    def ask(self, n):
        asked, self.left = self.left[:n], self.left[n:]
        return [Proposal(a) for a in asked]

    def tell(self, trials):
        pass

    def recover(self, trials):
        done = {t.architecture.fingerprint for t in trials}
        self.left = [a for a in self.left if a.fingerprint not in done]
'''
    )
    (tmp_path / "configs" / "space").mkdir(parents=True)
    (tmp_path / "configs" / "controller").mkdir()
    (tmp_path / "configs" / "space" / "mine.yaml").write_text("name: mine\ntarget: my_pkg.parts.Narrow\n")
    (tmp_path / "configs" / "controller" / "first.yaml").write_text("name: first\ntarget: my_pkg.parts.First\n")
    mine = ["--config-dir", "configs", "space=mine", "controller=first"]
    refused = command(*mine, "output_dir=run", cwd=tmp_path)
    assert refused.returncode == 2
    assert "allowed_packages=[rankitect,my_pkg]" in refused.stderr
    done = command(
        *mine,
        "controller.count=3",
        "task.uniform=[0.75]",
        "allowed_packages=[rankitect,my_pkg]",
        "output_dir=run",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "The search has finished. 5 trials done, 0 failed" in done.stdout
    assert found(tmp_path / "run")["space"] == "mine"


def test_the_readmes_space_is_one() -> None:
    text = (ROOT / "README.md").read_text()
    (code,) = [block.split("```")[0] for block in text.split("```python\n") if "def llama" in block.split("```")[0]]
    names: dict[str, Any] = {}
    exec(code, names)  # the page's own text
    assert 30e6 <= names["space"].cost(names["small"], "params") <= 60e6


# --- data and folders
def test_a_short_text_is_enough_where_a_candidate_can_heal_on_it(tmp_path: Path) -> None:
    text = "".join(f"The {i}th of these sentences says that {i * i} is a square.\n\n" for i in range(60))
    (tmp_path / "short.txt").write_text(text)
    done = command("controller=random", "task.text=short.txt", "output_dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert " 0 failed" in done.stdout


def test_a_search_in_which_nothing_could_be_measured_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rankitect.evaluators.healed import Healed
    from rankitect.evaluators.inherited import Inherited

    def no_memory(*arguments: Any) -> None:
        raise MemoryError("no memory is left")

    for evaluator in (Healed, Inherited):
        monkeypatch.setattr(evaluator, "measure", no_memory)
    assert main([*SMOKE, "controller=random", f"output_dir={tmp_path / 'run'}"]) == 1
    assert "No trial could be measured" in capsys.readouterr().out


def test_a_folder_of_another_configuration_is_refused_with_the_difference(tmp_path: Path) -> None:
    assert command("controller=dnas", *QUICK, "output_dir=run", cwd=tmp_path).returncode == 0
    refused = command("controller=dnas", *QUICK, "output_dir=run", "recipe.heal.tokens=1024", "seed=1", cwd=tmp_path)
    assert refused.returncode == 2
    assert "recipe.heal.tokens: 512 -> 1024" in refused.stderr
    assert "seed: 0 -> 1" in refused.stderr
    assert "resume=force" in refused.stderr


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "cannot be fetched"), (1000, "truncated"), (-1, "sha256")],
    ids=["missing", "truncated", "wrong hash"],
)
def test_an_asset_that_cannot_be_had_or_trusted(size: int | None, text: str, tmp_path: Path) -> None:
    asset = ASSETS["smollm2-135m"]
    shadow = tmp_path / asset.module  # hides the installed package, so that the asset has to be fetched
    shadow.mkdir()
    (shadow / "__init__.py").write_text("")
    cached = tmp_path / "cache" / "assets" / f"{asset.name}-{asset.sha256[:8]}" / asset.filename
    if size is not None:
        cached.parent.mkdir(parents=True)
        with cached.open("wb") as file:
            file.truncate(asset.size if size < 0 else size)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "RANKITECT_CACHE": str(tmp_path / "cache"),
        "PIP_NO_INDEX": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "rankitect.search", "space=mobile_llm", "controller=dnas"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "smollm2-135m" in done.stderr
    assert text in done.stderr


# --- trouble during work
def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not condition():
        time.sleep(0.005)


@pytest.mark.parametrize("moment", ["prepare", "healing"])
def test_ctrl_c_is_tidy_and_resumed(moment: str, tmp_path: Path) -> None:
    longer = ["controller=dnas", "controller.steps=40", "controller.targets=[0.75,0.6]", "output_dir=run"]
    process = start(*longer, cwd=tmp_path)
    wait_until(lambda: MOMENTS[moment](tmp_path / "run"), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "To go on: python -m rankitect.search" in out
    assert "Traceback" not in err
    before = finished(tmp_path / "run")
    assert command(*longer, cwd=tmp_path).returncode == 0
    assert finished(tmp_path / "run")[: len(before)] == before


def test_a_full_disk_says_how_to_go_on(tmp_path: Path) -> None:
    def small_files_only() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    case = ["controller=dnas", *QUICK, "output_dir=run"]
    # First without limits: the tokenised text is then in the cache, whichever test ran before.
    assert command(*case[:-1], "output_dir=whole", cwd=tmp_path).returncode == 0
    done = command(*case, cwd=tmp_path, preexec_fn=small_files_only)
    assert done.returncode == 3, done.stderr[-2000:]
    assert "then go on with: python -m rankitect.search" in done.stderr
    assert "Traceback" not in done.stderr
    assert command(*case, cwd=tmp_path).returncode == 0
    assert found(tmp_path / "run")["pareto"] == found(tmp_path / "whole")["pareto"]


def test_a_loss_that_is_no_number_fails_the_trial_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a backbone whose distances overflow would: every healing sees a loss that is not a number."""
    from rankitect.training.distill import Distillation

    plain = Distillation.loss

    def loss(self: Any, model: Any, batch: Any) -> Any:
        value = plain(self, model, batch)
        return value * float("nan") if self.split == "train" else value

    monkeypatch.setattr(Distillation, "loss", loss)
    monkeypatch.setenv("RANKITECT_STAGES_GIB", "0")  # earlier tests have healed the same models
    result = rankitect.search(
        [*SMOKE, "controller=random", "controller.bands=1", "report.page=false"],
        quiet=True,
        output_dir=tmp_path / "run",
    )
    assert result.ended == "finished"
    assert result.summary.ledger.trials["failed"] == 3
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("TrainingError: recipe.heal: Training cannot go on: the loss is not finite") >= 3


@pytest.mark.slow
def test_killing_at_any_moment_loses_and_changes_nothing(tmp_path: Path) -> None:
    killed, wrong = drill(tmp_path, [*SMOKE, "controller=dnas"], kills=3, seed=0)  # one at each moment
    assert wrong == []
    assert any(kill.landed for kill in killed)
