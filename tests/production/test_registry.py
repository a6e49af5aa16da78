"""Registered production models, also while a search runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import rankitect
from rankitect.baseline import main
from rankitect.errors import ConfigError, RunFolderError
from rankitect.production.registry import Registry

SMOKE = ["space=ranking_blocks", "controller=random", "preset=smoke", "runner.threads=1", "report.tensorboard=false"]
POINT = {"space": "grid", "version": "1", "choices": {"x": 1}}


class Legacy(nn.Module):
    """What somebody had in production before there were spaces."""

    def __init__(self, rows: tuple[int, ...], numeric: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, 2) for n in rows)
        self.out = nn.Linear(2 * len(rows) + numeric, 1)

    def forward(self, numeric: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        found = [table(ids[:, i].clamp(min=0)) for i, table in enumerate(self.tables)]
        return self.out(torch.cat([*found, numeric], 1))


def legacy(features):
    """The function that a registry names."""
    return Legacy(features.rows, len(features.numeric))


def test_versions_follow_each_other_and_the_newest_is_live(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    one, two = (registry.add("dlrm", "criteo", architecture=POINT, note=n) for n in ("first", "second"))
    other = registry.add("legacy", "criteo", module="my.legacy")
    registry.add("elsewhere", "movielens", architecture=POINT)
    assert [e.label for e in registry.live("criteo")] == ["dlrm v2", "legacy v1"]
    assert registry.retire("dlrm").label == "dlrm v2"
    assert registry.live("criteo") == [other]
    assert [e.note for e in registry.entries() if e.name == "dlrm"] == ["first", "second"]
    assert one.identity == two.identity == POINT
    assert other.identity["choices"]["module"] == "my.legacy"
    with pytest.raises(ConfigError, match="was retired"):
        registry.retire("dlrm")
    with pytest.raises(ConfigError, match=r"no baseline 'deepfm'.*dlrm, elsewhere, legacy"):
        registry.retire("deepfm")


@pytest.mark.parametrize("name", ["../x", "a b", "", ".hidden", "x/y"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name"):
        Registry(tmp_path).add(name, "criteo", module="my.legacy")


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.add("dlrm", "criteo", architecture=POINT)
    (tmp_path / "dlrm" / "v001.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"v001\.json is not a registered baseline"):
        registry.entries()


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"registry={tmp_path}"]
    assert main(["add", "x", "module=my.legacy", *given]) == 2
    assert main(["add", "x", "task=criteo", *given]) == 2
    assert main(["add", "x", f"run={tmp_path}", *given]) == 2
    assert main(["add", "x", "task=criteo", "module=a.b", "weights=nowhere", *given]) == 2
    assert main(["add", "task=criteo", "module=a.b", *given]) == 2
    assert main(["retire", "x", *given]) == 2
    said = capsys.readouterr().err
    for words in ("task= is missing", "not both", "no file", "Give one name", "There is no baseline 'x'"):
        assert words in said


@pytest.mark.slow
def test_a_search_compares_with_what_is_registered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = tmp_path / "registry"
    more = [f"report.registry={registry}", "allowed_packages=[rankitect,tests]", "confirm.seeds=1"]
    first = rankitect.search([*SMOKE, *more, f"output_dir={tmp_path}/first"], quiet=True)
    assert main(["add", "live", f"run={first.folder}", "candidate=1", f"registry={registry}"]) == 0
    weights = tmp_path / "w.safetensors"
    features = json.loads(next((first.folder / "candidates").glob("*/features.json")).read_text())
    model = Legacy(tuple(f["rows"] for f in features["categorical"]), len(features["numeric"]))
    save_file(model.state_dict(), weights)
    module = "tests.production.test_registry.legacy"
    task = first.summary.task
    assert main(["add", "kept", f"module={module}", f"weights={weights}", f"task={task}", f"registry={registry}"]) == 0
    assert main(["add", "again", f"module={module}", f"task={task}", f"registry={registry}"]) == 0
    Registry(registry).add("misfit", task, architecture=POINT)
    second = rankitect.search([*SMOKE, *more, f"output_dir={tmp_path}/second"], quiet=True)
    found = {b.name: b for b in second.summary.baselines}
    assert {"live v1", "kept v1", "again v1"} <= set(found)
    assert "misfit v1" not in found
    assert "misfit v1 does not fit" in (second.folder / "log.txt").read_text()
    params = sum(p.numel() for p in model.parameters())
    assert found["kept v1"].metrics["params"].value == found["again v1"].metrics["params"].value == params
    ours = next(p for p in first.summary.pareto if p.rank == 1)
    name = "normalized_entropy"
    assert found["live v1"].metrics[name].value == ours.metrics[name].value, "equal training gives the equal result"
    untrained, trained = (found[f"{n} v1"].metrics[name].value for n in ("kept", "again"))
    assert trained != untrained
    report = json.loads((second.folder / "report" / "report.json").read_text())
    launch = next(c for c in report["cards"] if c["id"] == "launch")
    assert "against again v1" in launch["finding"], "the newest is the reference"


@pytest.mark.slow
def test_a_baseline_that_is_added_while_a_search_runs_is_its_reference_from_then_on(tmp_path: Path) -> None:
    registry, path = tmp_path / "registry", tmp_path / "run"
    first = rankitect.search([*SMOKE, f"output_dir={tmp_path}/first", "report.registry=null"], quiet=True)
    given = [*SMOKE, f"report.registry={registry}", "confirm.seeds=1", "controller.samples=40", f"output_dir={path}"]
    process = subprocess.Popen([sys.executable, "-m", "rankitect.search", *given], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while "trial 5 done" not in (path / "log.txt").read_text() if (path / "log.txt").exists() else True:
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.02)
        assert main(["add", "live", f"run={first.folder}", f"registry={registry}", "note=since noon"]) == 0
        assert process.wait(timeout=300) == 0
    finally:
        process.kill()
    summary = json.loads((path / "summary.json").read_text())
    added = next(b for b in summary["baselines"] if b["name"] == "live v1")["registered"]
    assert added["after_trials"] > 0
    assert added["live"]
    report = json.loads((path / "report" / "report.json").read_text())
    launch = next(c for c in report["cards"] if c["id"] == "launch")
    assert "against live v1" in launch["finding"]
    (table,) = (t for t in launch["tables"] if t["caption"] == "Registered production models")
    assert table["rows"][0]["Note"] == "since noon"
