"""Registered production models, also while a search runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import rankitect
from rankitect.baseline import main
from rankitect.contracts import Measurement, TrialContext
from rankitect.errors import BaselineError, ConfigError, RunFolderError
from rankitect.evaluators.ranking import Trained
from rankitect.graph import Architecture
from rankitect.production.registry import Registry
from rankitect.study.summary import CandidateSummary, Summary
from rankitect.tasks.registered import Registered
from tests.tasks.language.tiny import own_cache

SMOKE = ["space=ranking_blocks", "controller=random", "preset=smoke", "runner.threads=1", "report.tensorboard=false"]
SYNTHETIC = [
    "task.data.format=synthetic",
    "task.data.synthetic={rows: 4000, numeric: 3, categorical: 5, ids: 200}",
    "task.batch=256",
]
"""The data of a smoke run."""
LEGACY = ["task=movielens", "module=tests.production.test_registry.legacy", *SYNTHETIC]
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


def legacy(features) -> torch.nn.Module:
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


def test_links_in_a_registry_lead_nothing_that_is_written_elsewhere(tmp_path: Path) -> None:
    registry, secret, weights = Registry(tmp_path / "registry"), tmp_path / "secret", tmp_path / "w.safetensors"
    secret.write_text("kept")
    save_file({"a": torch.ones(2)}, weights)
    (tmp_path / "registry" / "own").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("v001.safetensors", "v001.space.json", ".v001.json.part"):
        (tmp_path / "registry" / "own" / name).symlink_to(secret)
    entry = registry.add("own", "criteo", module="my.legacy", weights=weights, space=weights)
    assert secret.read_text() == "kept"
    assert registry.path(entry, "v001.safetensors").read_bytes() == weights.read_bytes()
    assert not (registry.folder / "own" / "v001.space.json").is_symlink()
    (registry.folder / "far").symlink_to(tmp_path / "elsewhere")
    (registry.folder / "file").write_text("")
    for name in ("far", "file"):
        with pytest.raises(ConfigError, match=f"{name} is a link or a file"):
            registry.add(name, "criteo", module="my.legacy")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (registry.folder / "own").rename(tmp_path / "elsewhere" / "own")
    (registry.folder / "own").symlink_to(tmp_path / "elsewhere" / "own")
    before = (tmp_path / "elsewhere" / "own" / "v001.json").read_text()
    with pytest.raises(ConfigError, match="own is a link or a file"):
        registry.retire("own")
    assert (tmp_path / "elsewhere" / "own" / "v001.json").read_text() == before


def test_links_in_a_registry_lead_nothing_that_is_read_elsewhere(tmp_path: Path) -> None:
    registry, weights = Registry(tmp_path / "registry"), tmp_path / "w.safetensors"
    save_file({"a": torch.ones(2)}, weights)
    entry = registry.add("own", "criteo", module="my.legacy", weights=weights)
    kept = registry.path(entry, "v001.safetensors")
    kept.unlink()
    assert registry.path(entry, "v001.safetensors") == kept, "whoever reads it says that it is missing"
    kept.symlink_to(weights)
    with pytest.raises(BaselineError, match="is a link out of its folder"):
        registry.path(entry, "v001.safetensors")


def test_a_damaged_entry_is_named_and_only_that_model_is_left_out(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.add("dlrm", "criteo", architecture=POINT)
    registry.add("dlrm", "criteo", architecture=POINT)
    other = registry.add("legacy", "criteo", module="my.legacy")
    (tmp_path / "dlrm" / "v002.json").write_text("{")
    (tmp_path / "legacy" / "v009.json").write_text((tmp_path / "legacy" / "v001.json").read_text())
    entries, damaged = registry.read()
    assert [e.label for e in entries] == ["dlrm v1", "legacy v1"]
    assert "v002.json is not a registered baseline (" in damaged[0].reason
    assert "v009.json is not a registered baseline (it says that it is legacy v1)" in damaged[1].reason
    (tmp_path / "legacy" / "v009.json").unlink()
    assert registry.live("criteo") == [other], "version 1 of dlrm is not what is in production"
    with pytest.raises(RunFolderError, match=r"v002\.json"):
        registry.retire("dlrm")
    assert registry.add("dlrm", "criteo", architecture=POINT).label == "dlrm v3"
    assert (tmp_path / "dlrm" / "v002.json").read_text() == "{"


def test_a_bad_entry_stops_no_search_whether_retired_or_not(tmp_path: Path) -> None:
    registry, said = Registry(tmp_path), list[str]()
    registry.add("good", "criteo", architecture=POINT)
    registry.add("old", "criteo", architecture=POINT)
    registry.add("bad", "criteo", architecture=POINT)
    for name in ("old", "bad"):  # as versions before this one let in
        path = tmp_path / name / "v001.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "architecture": {"schema": 1}}))
    registry.retire("old")
    (tmp_path / "good" / "v000.json").write_text("[]")
    seen = Registered(str(tmp_path), "criteo", lambda entry, made: None, ["rankitect"], said.append)
    for _ in range(2):
        assert [(b.name, b.registered["live"]) for b in seen.baselines() if b.registered] == [("good v1", True)]
    assert len(said) == 3, "each is said once"
    for file in ("old/v001.json", "bad/v001.json", "good/v000.json"):
        assert any(str(tmp_path / file) in text for text in said), file


def test_registrations_beside_each_other_lose_none(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rankitect.production.registry import Registry\n"
        "for i in range(10): Registry(Path(sys.argv[1])).add('live', 'criteo', module='my.legacy', note=sys.argv[2])"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)]) for n in range(4)]
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    entries, damaged = Registry(tmp_path).read()
    assert not damaged
    assert sorted(e.version for e in entries) == list(range(1, 41))
    assert sorted(e.note for e in entries) == sorted(str(n) for n in range(4) for _ in range(10))


def front_of(folder: Path, *fingerprints: str) -> Path:
    """A run folder with a front of these fingerprints and nothing else."""
    folder.mkdir()
    front = [
        CandidateSummary(
            rank=rank, fingerprint=f, architecture=POINT | {"choices": {"x": rank}}, metrics={}, artifacts={}
        )
        for rank, f in enumerate(fingerprints, 1)
    ]
    about = {"space": "grid", "task": "criteo", "controller": "random", "seed": 0, "objectives": [], "baselines": []}
    summary = Summary(**about, pareto=front, ledger={}, versions={}, reproduce="")
    (folder / "summary.json").write_text(summary.to_json())
    return folder


@pytest.mark.parametrize(("wanted", "rank"), [("2", 2), ("1", 1), ("210000", 1), ("abcdef", 2), ("21000", None)])
def test_a_candidate_is_meant_by_its_rank_or_by_many_digits_of_its_fingerprint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wanted: str, rank: int | None
) -> None:
    run = front_of(tmp_path / "run", "21" + 62 * "0", "abcdef" + 58 * "0")
    code = main(["add", "live", f"run={run}", f"candidate={wanted}", f"registry={tmp_path / 'registry'}"])
    if rank is None:
        assert code == 2
        assert "1 (21000000), 2 (abcdef00)" in capsys.readouterr().err
        return
    assert code == 0
    (entry,) = Registry(tmp_path / "registry").entries()
    assert entry.architecture == POINT | {"choices": {"x": rank}}
    assert f"candidate {rank} ({'21000000' if rank == 1 else 'abcdef00'})" in capsys.readouterr().out


def test_what_cannot_be_a_baseline_is_refused_when_it_is_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, registry = front_of(tmp_path / "run", 64 * "a"), tmp_path / "registry"
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "summary.json").write_text((run / "summary.json").read_text()[:200])
    known, other, space = (tmp_path / name for name in ("known.json", "other.json", "space.json"))
    known.write_text(json.dumps(POINT | {"space": "ranking_blocks"}))
    other.write_text(json.dumps(POINT))
    space.write_text(json.dumps({"name": "grid", "version": "1"}))
    weights = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(3)}, weights)
    whole = weights.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[:-4])
    cases = {
        "nowhere does not exist": [f"run={tmp_path / 'nowhere'}"],
        "has no summary.json": [f"run={tmp_path}"],
        "half/summary.json is no JSON": [f"run={tmp_path / 'half'}"],
        "task= beside run=": [f"run={run}", "task=criteo"],
        "architecture= beside run=": [f"run={run}", f"architecture={known}"],
        "candidate= needs run=": ["candidate=1", "task=criteo", "module=a.b"],
        "There is no task 'citeo'": ["task=citeo", "module=a.b"],
        "summary.json: an architecture": ["task=criteo", f"architecture={run / 'summary.json'}"],
        "none of mobile_llm, mobile_llm_bits": ["task=criteo", f"architecture={other}"],
        "space.json is not the space 'ranking_blocks'": ["task=criteo", f"architecture={known}", f"space={space}"],
        "known.json describes no features": ["task=criteo", f"architecture={known}", f"features={known}"],
        "known.json is no whole safetensors": ["task=criteo", "module=a.b", f"weights={known}"],
        "cut.safetensors is no whole safetensors": ["task=criteo", "module=a.b", f"weights={cut}"],
        "needs a module=": ["task=criteo", f"architecture={known}", f"weights={weights}"],
    }
    for words, given in cases.items():
        assert main(["add", "x", *given, f"registry={registry}"]) == 2, words
        assert words in capsys.readouterr().err
    assert not Registry(registry).entries()
    for given in (
        [f"architecture={known}"],
        [f"architecture={other}", f"space={space}"],
    ):
        assert main(["add", "x", "task=criteo", *given, f"registry={registry}"]) == 0
    configs = Path(__file__).parents[1] / "study" / "configs"
    given = ["task=none", f"--config-dir={configs}", "allowed_packages=[rankitect,tests]"]
    assert main(["add", "x", *given, "module=a.b", f"registry={registry}"]) == 0
    assert [e.task for e in Registry(registry).entries()] == ["criteo", "criteo", "none"]


def wrong(features) -> torch.nn.Module:
    """A function that a registry must not name: what it makes takes one input."""
    return nn.Linear(3, 1)


def test_a_module_is_called_on_real_rows_when_it_is_added(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = f"registry={tmp_path / 'registry'}"
    with own_cache(tmp_path / "cache"):
        assert main(["add", "old", *LEGACY, registry]) == 0
        assert "tried on real rows" in capsys.readouterr().out
        (entry,) = Registry(tmp_path / "registry").entries()
        assert len((entry.features or {})["categorical"]) == 5, "an entry says what features it was made for"
        other = {"a": torch.zeros(3)}
        save_file(other, tmp_path / "w.safetensors")
        cases = {
            "cannot be called on 64 rows (TypeError": ["wrong"],
            "has no 'gone'": ["gone"],
            "holds no weights of tests.production.test_registry.legacy": [f"weights={tmp_path / 'w.safetensors'}"],
            "task.data.pth": ["task.data.pth=x"],
        }
        for words, given in cases.items():
            whole = [LEGACY[1].replace("legacy", given[0])] if "=" not in given[0] else [LEGACY[1], *given]
            assert main(["add", "bad", LEGACY[0], *whole, *SYNTHETIC, registry]) == 2, words
            assert words in capsys.readouterr().err
    assert main(["add", "bad", "task=movielens", "architecture=x.json", SYNTHETIC[0], registry]) == 2
    assert "says what data a module= is tried on" in capsys.readouterr().err
    assert [e.name for e in Registry(tmp_path / "registry").entries()] == ["old"]


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"registry={tmp_path / 'registry'}"]
    assert main(["add", "x", "module=my.legacy", *given]) == 2
    assert main(["add", "x", "task=criteo", *given]) == 2
    assert main(["add", "x", "task=criteo", "module=a.b", "weights=nowhere", *given]) == 2
    assert main(["add", "task=criteo", "module=a.b", *given]) == 2
    assert main(["retire", "x", *given]) == 2
    assert main(["add", "y", *LEGACY, *given]) == 0
    assert main(["add", "z", "task=criteo", "module=a.b", *given]) == 2
    assert main(["retire", "x", *given]) == 2
    said = capsys.readouterr().err
    for words in (
        "task= is missing",
        "not both",
        "no file",
        "Give one name",
        "no registry",
        "There is no baseline 'x'",
        "format criteo needs a path",
    ):
        assert words in said
    (tmp_path / "registry" / "y" / "v002.json").write_text("{")
    assert main(["list", *given]) == 0
    shown = capsys.readouterr()
    assert "y v1" in shown.out
    assert "v002.json is not a registered baseline" in shown.err


def test_a_broken_configuration_of_another_task_stops_no_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own" / "task").mkdir(parents=True)
    (tmp_path / "own" / "task" / "broken.yaml").write_text("a: [")
    where = [f"registry={tmp_path / 'registry'}", "--config-dir", str(tmp_path / "own")]
    assert main(["add", "y", *LEGACY, *where]) == 0
    assert main(["add", "z", "task=broken", *LEGACY[1:], *where]) == 2
    assert "broken.yaml" in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_compares_with_what_is_registered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = tmp_path / "registry"
    more = [f"report.registry={registry}", "allowed_packages=[rankitect,tests]", "confirm.seeds=1"]
    wide = "constraints.flops=[0.1,1000]"  # of the newest production model, which has hardly any
    first = rankitect.search([*SMOKE, *more, f"output_dir={tmp_path}/first"], quiet=True)
    assert main(["add", "live", f"run={first.folder}", "candidate=1", f"registry={registry}"]) == 0
    weights = tmp_path / "w.safetensors"
    features = json.loads(next((first.folder / "candidates").glob("*/features.json")).read_text())
    model = Legacy(tuple(f["rows"] for f in features["categorical"]), len(features["numeric"]))
    save_file(model.state_dict(), weights)
    module = "tests.production.test_registry.legacy"
    task = first.summary.task
    given = [f"module={module}", f"task={task}", f"registry={registry}", *SYNTHETIC]
    assert main(["add", "kept", f"weights={weights}", *given]) == 0
    assert main(["add", "again", *given]) == 0
    Registry(registry).add("misfit", task, architecture=POINT)
    second = rankitect.search([*SMOKE, *more, wide, f"output_dir={tmp_path}/second"], quiet=True)
    found = {b.name: b for b in second.summary.baselines}
    assert {"live v1", "kept v1", "again v1"} <= set(found)
    assert "misfit v1" not in found
    assert "misfit v1 does not fit" in (second.folder / "log.txt").read_text()
    assert "misfit v1 does not fit" in second.summary.left_out.pop("misfit v1")
    assert second.summary.left_out == {}
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
def test_a_baseline_that_is_added_while_a_search_runs_is_its_reference_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, path = tmp_path / "registry", tmp_path / "run"
    small = ["controller.samples=1", "controller.bands=1", "report.page=false", "report.registry=null"]
    first = rankitect.search([*SMOKE, *small, f"output_dir={tmp_path}/first"], quiet=True)
    plain, measured = Trained.measure, list[object]()

    def measure(self: Trained, architecture: Architecture, context: TrialContext) -> Measurement:
        measured.append(architecture)
        if len(measured) == 3:  # the first finalist, after two baselines
            assert main(["add", "live", f"run={first.folder}", f"registry={registry}", "note=since noon"]) == 0
        return plain(self, architecture, context)

    monkeypatch.setattr(Trained, "measure", measure)
    given = [*SMOKE, f"report.registry={registry}", "confirm.seeds=1", f"output_dir={path}"]
    assert rankitect.search(given, quiet=True).ended == "finished"
    summary = json.loads((path / "summary.json").read_text())
    added = next(b for b in summary["baselines"] if b["name"] == "live v1")["registered"]
    assert added["after_trials"] > 0
    assert added["live"]
    report = json.loads((path / "report" / "report.json").read_text())
    launch = next(c for c in report["cards"] if c["id"] == "launch")
    assert "against live v1" in launch["finding"]
    (table,) = (t for t in launch["tables"] if t["caption"] == "Registered production models")
    assert table["rows"][0]["Note"] == "since noon"


def test_a_file_is_no_registry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["list", f"registry={tmp_path / 'file'}"]) == 2
    assert f"registry={tmp_path / 'file'} is a file" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["../x", "x", "a..b", "a.b/c", "a.\x1b[31mb"])
def test_a_module_is_a_dotted_path_and_nothing_is_registered_otherwise(tmp_path: Path, module: str) -> None:
    with pytest.raises(ConfigError, match="The baseline x is not of the form that is expected: module"):
        Registry(tmp_path / "registry").add("x", "criteo", module=module)
    assert not (tmp_path / "registry").exists()


def test_what_others_wrote_into_a_registry_is_listed_safely_and_names_no_file_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = Registry(tmp_path).add("x", "criteo", module="a.b", note="red\x1b[31m\nsecond line")
    assert main(["list", f"registry={tmp_path}"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("red\\x1b[31m second line")
    path = Registry(tmp_path).file(entry)
    path.write_text(json.dumps({**json.loads(path.read_text()), "space": "../../secret.json"}))
    assert main(["list", f"registry={tmp_path}"]) == 0
    assert "v001.json is not a registered baseline" in capsys.readouterr().err
