"""A candidate of each task, in another folder and without any cache: loaded, used, compiled, moved to bfloat16."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import rankitect
from rankitect.errors import AssetError

SMALL: dict[str, Any] = {"report": {"page": False, "tensorboard": False}, "confirm": {"seeds": 1}, "quiet": True}
SCRIPT = """
import sys, torch
import rankitect

rows = [{"user": "u1", "price": 3.5, "time": "2024-03-01 17:00:00"}, {"user": "nobody", "price": None, "time": 1.7e9}]
candidate = rankitect.load_candidate("ranker")
clicks = candidate.score(rows[:1]), candidate.score(rows[1:])
inputs = candidate.encode(rows[:1])
print("ranker", clicks[0], torch.compile(candidate.model, backend="eager")(*inputs).sigmoid().item())
candidate.model.to(torch.bfloat16)
assert abs(candidate.score(rows[:1]) - clicks[0]).max() < 0.02
assert candidate.model.lookup_tables()

text = "A text that no model has seen."
candidate = rankitect.load_candidate("language")
(score,) = candidate.score([text])
ids = candidate.encode(text)
logits = torch.compile(candidate.model, backend="eager")(ids)
nats = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum").item()
print("language", score.nats, nats, len(candidate.generate(text, 3)))
candidate.model.to(torch.bfloat16)
assert abs(candidate.score(text)[0].perplexity / score.perplexity - 1) < 0.05

candidate = rankitect.load_candidate("own", allowed_packages=["rankitect", "my_task"])
points = torch.tensor([[0.1, 0.2]])
compiled = torch.compile(candidate.model, backend="eager")
print("own", candidate.score(points).argmax().item(), compiled(points).argmax().item())
candidate.model.to(torch.bfloat16)
assert candidate.score(points).dtype == torch.bfloat16
assert "rankitect.search" not in sys.modules
"""
OWN = '''
import torch
from rankitect.blocks import Linear
from rankitect.contracts import Metric, MetricSpec
from rankitect.graph import B, Graph, SearchSpace
from rankitect.tasks.base import TaskBase


class Signs(TaskBase):
    """Tells the sign of a sum."""

    @classmethod
    def from_config(cls, config, parts):
        return cls(parts)

    def batch_at(self, split, step):
        return torch.randn(32, 2, generator=torch.Generator().manual_seed(step + 1000 * len(split)))

    def loss(self, model, batch):
        return torch.nn.functional.cross_entropy(model(batch), (batch.sum(1) > 0).long())

    def quality_specs(self, split):
        return [MetricSpec(f"{split}_loss", "nat", "min", "quality")]

    def quality(self, model, split, *, sample=None, check=None):
        class Quality:
            amount = 32
            metrics = {f"{split}_loss": Metric(float(self.loss(model, self.batch_at(split, 0)).detach()), "nat", 32)}

        return Quality()


class Positive(Linear):
    """A block of one's own."""


def signs() -> SearchSpace:
    g = Graph("signs")
    x, width = g.input("points", B, 2), g.choice("width", [8, 4])
    g.out = Linear(2)(Positive(width, "relu")(x, name="hidden"), name="out")
    return SearchSpace(g)
'''


def candidate_of(place: Path, run: Path) -> None:
    """The best candidate of a run, copied; the run is deleted."""
    shutil.copytree(sorted((run / "candidates").iterdir())[0], place)
    shutil.rmtree(run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nothing but the three candidates, and the package of the user's own."""
    work, alone = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKITECT_CACHE", str(work / "cache"))
        patch.syspath_prepend(str(alone))
        (alone / "my_task.py").write_text(OWN)
        _ranker(work)
        candidate_of(alone / "ranker", work / "ranker")
        _language(work)
        candidate_of(alone / "language", work / "language")
        _own(work)
        candidate_of(alone / "own", work / "own")
    shutil.rmtree(work)
    return alone


def _ranker(work: Path) -> None:
    rng = np.random.default_rng(0)
    log = pd.DataFrame({"user": [f"u{i}" for i in rng.integers(0, 9, 400)], "price": rng.random(400) * 9})
    log["time"], log["click"] = 1_700_000_000 + np.arange(400) * 600, rng.integers(0, 2, 400)
    log.to_csv(work / "log.csv", index=False)
    table = {"label": "click", "numeric": ["price"], "categorical": ["user"], "timestamp": "time", "calendar": ["hour"]}
    rankitect.search(
        ["space=ranking_engineered", "controller=random", "task=ranking", "preset=smoke", "controller.samples=1"],
        task={"data": {"format": "csv", "path": str(work / "log.csv"), "table": table}, "baselines": []},
        output_dir=str(work / "ranker"),
        **SMALL,
    )


def _language(work: Path) -> None:
    rankitect.search(
        ["space=mobile_llm", "controller=random", "preset=smoke", "controller.samples=1", "runner.baselines=false"],
        output_dir=str(work / "language"),
        **SMALL,
    )


def _own(work: Path) -> None:
    rankitect.search(
        ["task=own", "controller=random", "evaluator=from_scratch"],
        task={"name": "signs", "target": "my_task.Signs"},
        space={"name": "signs", "target": "my_task.signs"},
        controller={"samples": 1},
        evaluator={"objectives": ["validation_loss", "flops"], "final": {"steps": 30}},
        allowed_packages=["rankitect", "my_task"],
        output_dir=str(work / "own"),
        **SMALL,
    )


def test_three_lines_load_and_use_a_candidate_of_each_task(folder: Path) -> None:
    environment = {**os.environ, "RANKITECT_CACHE": str(folder / "no" / "cache"), "HOME": str(folder / "nobody")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    scored, compiled = lines["ranker"].replace("[", "").replace("]", "").split()
    assert float(scored) == pytest.approx(float(compiled), abs=1e-5)
    nats, compiled, _ = lines["language"].split()
    assert float(nats) == pytest.approx(float(compiled), rel=1e-4)
    assert len(set(lines["own"].split())) == 1
    assert not (folder / "no").exists(), "nothing is cached"


def test_a_folder_that_is_no_candidate_says_what_it_is(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "candidates").mkdir(parents=True)
    with pytest.raises(AssetError, match="it is a run folder: give one of the folders in its candidates/"):
        rankitect.load_candidate(tmp_path / "run")
    with pytest.raises(AssetError, match="it is a Hugging Face folder"):
        rankitect.load_candidate(_with(tmp_path / "hf", "config.json"))
    with pytest.raises(AssetError, match="cannot be opened as a folder"):
        rankitect.load_candidate(tmp_path / ("x" * 300))
    with pytest.raises(AssetError, match="not from an allowed package"):
        rankitect.load_candidate(folder / "own")


def _with(place: Path, name: str) -> Path:
    place.mkdir()
    (place / name).write_text("{}")
    return place
