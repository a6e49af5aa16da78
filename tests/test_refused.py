"""A command that is refused leaves the folder as it was, byte for byte; a full disk ends every command with 3."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rankitect.contracts import Baseline, Measurement, Metric, MetricSpec, Proposal, Spent, replay
from rankitect.data.files import write_whole
from rankitect.errors import BaselineError, RunFolderError, TrainingError
from rankitect.search import main
from rankitect.space.choice_space import ChoiceSpace
from rankitect.space.declaring import Choices
from rankitect.study.folder import RunFolder
from rankitect.study.outputs import Labels, OutputOptions, ProductionModels
from rankitect.study.plan import StudyPlan, Subject
from rankitect.study.snapshot import KEPT
from rankitect.study.study import Study
from rankitect.study.summary import read_summary

CONFIGS = Path(__file__).parent / "study" / "configs"
COMMAND = [
    "--config-dir", str(CONFIGS), "space=grid", "task=none", "controller=climber", "evaluator=quadratic",
    "allowed_packages=[rankitect,tests]", "report.page=false", "report.tensorboard=false", "runner.progress=false",
]  # fmt: skip


def everything(place: Path) -> dict[str, bytes]:
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in sorted(place.rglob("*")) if p.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert main([*COMMAND, f"output_dir={tmp_path / 'run'}", "controller.total=3"]) == 0
    return tmp_path / "run"


REFUSED = [
    ["controller.total=4"],  # another configuration
    ["controller.total=3", "space.size=1"],  # a value that the schema does not take
    ["controller.total=4", "confirm.candidates=0", "resume=force"],  # what only the made space knows
    ["controller.total=3", "confirm.candidates=0", "resume=force"],
    ["controller.total=3", "evaluator.objectives=[speed]", "resume=force"],  # what only the made evaluator knows
]


@pytest.mark.parametrize("more", REFUSED, ids=" ".join)
def test_a_refused_command_leaves_the_folder_as_it_was(
    folder: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(folder)
    assert main([*COMMAND, f"output_dir={folder}", *more]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: ")
    assert len(said) <= 507
    assert everything(folder) == before
    assert main([*COMMAND, f"output_dir={folder}", "controller.total=3"]) == 0


@pytest.mark.parametrize("more", REFUSED[1:], ids=" ".join)
def test_a_refused_command_makes_no_folder(tmp_path: Path, more: list[str]) -> None:
    assert main([*COMMAND, f"output_dir={tmp_path / 'a' / 'run'}", *more]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_is_refused_and_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((folder / "study.db").read_bytes())
    place = data.index(b'"metrics"')
    data[place + 2] ^= 1
    (folder / "study.db").write_bytes(data)
    before = everything(folder)
    for force in ((), ("resume=force", "controller.total=5")):
        assert main([*COMMAND, f"output_dir={folder}", "controller.total=3", *force]) == 2
        assert "is not a readable study" in capsys.readouterr().err
        assert everything(folder) == before


class Listed:
    """Proposes architectures of a list."""

    def __init__(self, architectures: list[Any]) -> None:
        self._left = list(architectures)

    def prepare(self, session: Any) -> None:
        pass

    def ask(self, n: int) -> list[Proposal]:
        asked, self._left = self._left[:n], self._left[n:]
        return [Proposal(a) for a in asked]

    def tell(self, trials: list[Any]) -> None:
        pass

    def recover(self, trials: list[Any]) -> None:
        replay(self, trials)


class Width:
    """The width itself."""

    name = "width"
    metrics = [MetricSpec("width", "", "max", "quality")]  # noqa: RUF012

    def measure(self, architecture: Any, context: Any) -> Measurement:
        if architecture["width"] == 9:
            raise ValueError("too wide")
        return Measurement({"width": Metric(float(architecture["width"]), "")})


def widths(of: list[int]) -> list[Any]:
    declared = Choices("widths")
    declared.choice("width", of)
    space = ChoiceSpace(declared)
    return [space.architecture({"width": width}) for width in of]


def study(
    path: Path, of: list[int], config: dict[str, Any], *, force: bool = False, controller: Any = None,
    baselines: Sequence[Baseline] = (), live: Sequence[Baseline] = (),
) -> None:  # fmt: skip
    from rankitect.space.architecture import Architecture

    declared = Choices("widths")
    declared.choice("width", of)
    with RunFolder(path, config, force=force) as folder:
        folder.open_log(logging.getLogger("rankitect"))
        subject = Subject({"final": Width()}, Architecture.from_json, ChoiceSpace(declared))
        registry = ProductionModels(lambda: live)
        options = OutputOptions(Labels("widths", "none", "listed", ""), registry=registry, tensorboard=False)
        Study(folder, subject, StudyPlan(["width"]), options).run(controller or Listed(widths(of)), baselines)


def test_a_changed_space_says_how_many_trials_do_not_fit(tmp_path: Path) -> None:
    study(tmp_path / "run", [1, 2, 3, 4], {"space": 1})
    before = everything(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"2 of 4 trials in .*run do not fit this space \(trial 3"):
        study(tmp_path / "run", [1, 2, 7], {"space": 2}, force=True)
    assert everything(tmp_path / "run") == before
    study(tmp_path / "run", [1, 2, 3, 4], {"space": 1})
    study(tmp_path / "run", [1, 2, 3, 4, 5], {"space": 3}, force=True)


class Failing(Listed):
    """Cannot go on, before or after some work."""

    def __init__(self, architectures: list[Any], works: bool) -> None:
        super().__init__(architectures)
        self.works = works

    def prepare(self, session: Any) -> None:
        if self.works:
            session.charge("some", Spent(train_examples=7))
        for file in session.state_dir.iterdir():
            write_whole(file, "changed")
        raise TrainingError("what is saved does not fit")


@pytest.mark.parametrize("why", ["baseline", "state"])
def test_a_forced_command_that_is_refused_late_leaves_the_folder_as_it_was(tmp_path: Path, why: str) -> None:
    study(tmp_path / "run", [1, 2, 3, 4], {"controller": {"x": 1}})
    (tmp_path / "run" / "state" / "own").write_text("a state")
    before = everything(tmp_path / "run")
    live = Baseline("live v1", widths([9])[0], {"version": 1, "added": "2026-01-01", "live": True})
    baselines = [Baseline("known", widths([5])[0])]
    raises = {"baseline": BaselineError, "state": TrainingError}
    for _ in range(2):
        with pytest.raises(raises[why]):
            study(
                tmp_path / "run", [1, 2, 3, 4, 6], {"controller": {"x": 2}}, force=True, baselines=baselines,
                live=[live] if why == "baseline" else [],
                controller=Failing(widths([1]), works=False) if why == "state" else None,
            )  # fmt: skip
        assert everything(tmp_path / "run") == before
    study(tmp_path / "run", [1, 2, 3, 4], {"controller": {"x": 1}})


def test_a_forced_command_that_has_begun_keeps_its_work(tmp_path: Path) -> None:
    study(tmp_path / "run", [1, 2, 3, 4], {"x": 1})
    failing = Failing(widths([1]), works=True)
    with pytest.raises(TrainingError):
        study(tmp_path / "run", [1, 2, 3, 4], {"x": 2}, force=True, controller=failing)
    study(tmp_path / "run", [1, 2, 3, 4], {"x": 2})
    assert read_summary(tmp_path / "run").ledger.stages["prepare"].train_examples == 7
    assert not (tmp_path / "run" / KEPT).exists()


def full(*arguments: Any, **options: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["rankitect.study.folder.write_whole", "rankitect.study.database._create"])
def test_a_disk_that_is_full_at_the_start_leaves_nothing(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(where, full)
    assert main([*COMMAND, f"output_dir={tmp_path / 'run'}"]) == 3
    assert "No space" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == 0] == []


def test_a_full_disk_ends_every_command_with_3(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from rankitect.baseline import main as baseline
    from rankitect.export import main as export
    from rankitect.report import main as report

    (tmp_path / "a.json").write_text((next((folder / "candidates").iterdir()) / "architecture.json").read_text())
    monkeypatch.setattr("os.fsync", full)
    before = everything(tmp_path)
    assert export([f"run={folder}", "to=csv"]) == 3
    assert export([f"run={folder}", "to=parquet"]) == 3
    assert report([f"run={folder}"]) == 3
    assert main([*COMMAND, f"output_dir={folder}", "controller.total=3"]) == 3
    registry = f"registry={tmp_path / 'registry'}"
    assert baseline(["add", "it", f"run={folder}", registry]) == 3
    left = everything(tmp_path)
    assert {name for name in left if not left[name]} <= {name for name in before if not before[name]} | {
        "registry/.lock"
    }
