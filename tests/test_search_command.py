"""The command as a user meets it: its exit codes, what it prints, and that no kind of end loses a finished trial."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import rankitect
from rankitect.errors import RunFolderError
from rankitect.study.store import Store
from tests.processes import run
from tests.study.toys import Point

ROOT = Path(__file__).parents[1]
CONFIGS = Path(__file__).parent / "study" / "configs"
TOY = ["space=grid", "task=none", "controller=climber", "evaluator=quadratic", "allowed_packages=[rankitect,tests]"]
LIGHT = ["report.page=false", "report.tensorboard=false"]
COMMAND = [sys.executable, "-m", "rankitect.search", "--config-dir", str(CONFIGS), *TOY, *LIGHT]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def command(*overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run([*COMMAND[1:], *overrides], cwd, ENVIRONMENT)


def start(*overrides: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *overrides], cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(folder: Path, finished: int, process: subprocess.Popen[str] | None = None) -> None:
    """Wait until log.txt tells of so many finished trials, or the process has ended."""
    log = folder / "log.txt"
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_text().count(" done: ") < finished:
        if process is not None and process.poll() is not None:
            return
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)


def result(folder: Path) -> dict[str, Any]:
    """The summary without what is about the clock and the place."""
    data = json.loads((folder / "summary.json").read_text())
    del data["ledger"]["minutes"], data["ledger"]["seconds"], data["reproduce"]
    del data["files"], data["checksum"]  # of times as well
    for stage in data["ledger"]["stages"].values():
        del stage["seconds"]
    return data


def finished(folder: Path) -> list[tuple[int, str, int | None]]:
    with Store(folder / "study.db", Point.from_json, readonly=True) as store:
        return [(t.number, t.architecture.fingerprint, t.duplicate_of) for t in store.trials if t.finished]


def test_a_run_and_its_repetition(tmp_path: Path) -> None:
    first = command(cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    found = re.search(
        r"Configuration hash: ([0-9a-f]{64})\nRun folder: (\S+)\nTo resume: python -m rankitect.search", first.stdout
    )
    assert found is not None
    assert found[2] == f"runs/grid-climber-{found[1][:8]}"
    assert first.stdout.startswith("space: {name: grid")
    assert "The search has finished." in first.stdout
    before = result(tmp_path / found[2])
    again = command(cwd=tmp_path)
    assert again.returncode == 0
    assert "Resuming" in again.stdout
    assert result(tmp_path / found[2]) == before
    assert not (tmp_path / "outputs").exists()  # Hydra's own folder


def test_the_report_page_is_written(tmp_path: Path) -> None:
    done = command("report.page=true", "output_dir=run", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "run" / "report" / "index.html").stat().st_size > 0
    assert "Report: " in done.stdout


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("space=nowhere", "Unknown space 'nowhere'. Allowed: grid, mobile_llm, "),
        ("controller=gird", "Unknown controller 'gird'"),
        ("space.sise=2", "Did you mean 'space.size'"),
        ("seed=x", "'seed' on the command line is 'x'"),
        ("confirm.candidates=0", "wants its candidates confirmed"),  # a space's own check
        ("constraints.block_flops=[0.95,1.0]", "constraints (block_flops) needs a task that knows the bounds"),
        ("evaluator.objectives=[speed]", "which the final evaluator does not measure. It measures: loss, cost."),
        (
            "report.gates.quality.metric=speed",
            "report.gates.quality.metric is 'speed', which is not measured. Allowed: ",
        ),
        ("report.baseline=nope", "report.baseline is 'nope', and there is no such model: "),
        ("output_dir=notes", "is not a run folder"),
        ("output_dir=/proc/run", "cannot be written"),
    ],
)
def test_bad_input_ends_with_2_and_a_sentence(tmp_path: Path, override: str, text: str) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("mine")
    done = command(override, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert text in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_folder_of_another_configuration_is_refused_unless_forced(tmp_path: Path) -> None:
    assert command("output_dir=run", cwd=tmp_path).returncode == 0
    refused = command("output_dir=run", "controller.total=20", cwd=tmp_path)
    assert refused.returncode == 2
    assert "controller.total: 12 -> 20" in refused.stderr
    forced = command("output_dir=run", "controller.total=20", "resume=force", cwd=tmp_path)
    assert forced.returncode == 0
    assert len(finished(tmp_path / "run")) == 21


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    holder = start("output_dir=run", "controller.chunk_seconds=60", cwd=tmp_path)
    try:
        wait_for(tmp_path / "run", 1)
        refused = command("output_dir=run", "controller.chunk_seconds=60", cwd=tmp_path)
        assert refused.returncode == 2
        assert f"in use by process {holder.pid}" in refused.stderr
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_tidy_and_resumed(tmp_path: Path, number: signal.Signals) -> None:
    slow = ["output_dir=run", "evaluator.final.seconds=0.3"]
    process = start(*slow, cwd=tmp_path)
    wait_for(tmp_path / "run", 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopping at the next safe point" in err
    assert "To go on: python -m rankitect.search" in out
    assert "Traceback" not in err
    before = finished(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["ledger"]["ended"] == "interrupted"
    assert command(*slow, cwd=tmp_path).returncode == 0
    assert command("output_dir=whole", "evaluator.final.seconds=0.3", cwd=tmp_path).returncode == 0
    assert finished(tmp_path / "run")[: len(before)] == before
    assert result(tmp_path / "run") == result(tmp_path / "whole")


def test_a_second_stop_is_immediate(tmp_path: Path) -> None:
    process = start("output_dir=run", "controller.chunk_seconds=30", cwd=tmp_path)  # a step without a safe point
    wait_for(tmp_path / "run", 1)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "Stopping" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130


@pytest.mark.slow
def test_killing_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    slow = ["evaluator.final.seconds=0.08", "controller.chunk_seconds=0.1", "controller.total=16"]
    assert command("output_dir=whole", *slow, cwd=tmp_path).returncode == 0
    folder = tmp_path / "run"
    for after in (0, 1, 4, 6):
        process = start("output_dir=run", *slow, cwd=tmp_path)
        while not (folder / "study.db").exists():
            time.sleep(0.01)
        if after:
            wait_for(folder, after, process)
        time.sleep(0.03 * after)  # some way into the next trial
        before = finished(folder) if after else []
        process.kill()
        process.communicate()
        kept = finished(folder) if after else []  # before the first trial there may be nothing to read yet
        assert kept[: len(before)] == before
    assert command("output_dir=run", *slow, cwd=tmp_path).returncode == 0
    assert result(folder) == result(tmp_path / "whole")
    assert finished(folder) == finished(tmp_path / "whole")
    measured = [found for found in finished(folder) if found[2] is None]
    assert len({fingerprint for _, fingerprint, _ in measured}) == len(measured)


@pytest.mark.slow
def test_a_candidate_that_kills_the_process_is_given_up(tmp_path: Path) -> None:
    deadly = ["output_dir=run", "evaluator.final.misbehave={6: kill}", "runner.attempts=2"]
    assert [command(*deadly, cwd=tmp_path).returncode for _ in range(3)] == [-9, -9, 0]
    with Store(tmp_path / "run" / "study.db", Point.from_json, readonly=True) as store:
        assert any("ended 2 times" in (trial.cause or "") for trial in store.trials)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a small disk of its own")
def test_a_full_disk_says_what_was_kept_and_how_to_go_on(tmp_path: Path) -> None:
    run = " ".join(f"'{word}'" for word in [*COMMAND, "output_dir=disk/run", "controller.total=400", "space.size=200"])
    script = (
        "mkdir disk && mount -t tmpfs -o size=300k tmpfs disk || exit 77\n"
        f"{run}; echo first=$?\nmount -o remount,size=50m disk\n{run}; echo second=$?\ncp -r disk/run kept"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no small disk can be mounted here")
    assert "first=3" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    found = re.search(r"No space is left on the disk of disk/run .* Kept: (\d+) finished trials", done.stderr)
    assert found is not None, done.stderr
    assert int(found[1]) > 0
    assert "then go on with: python -m rankitect.search" in done.stderr
    assert "Traceback" not in done.stderr
    assert "second=0" in done.stdout
    assert command("output_dir=whole", "controller.total=400", "space.size=200", cwd=tmp_path).returncode == 0
    assert result(tmp_path / "kept") == result(tmp_path / "whole")


def test_a_run_in_which_everything_fails_ends_with_1(tmp_path: Path) -> None:
    trouble = "{" + ",".join(f"{x}: raise" for x in range(8)) + "}"
    done = command(f"evaluator.final.misbehave={trouble}", "runner.failures=3", "output_dir=run", cwd=tmp_path)
    assert done.returncode == 1
    assert "too many trials in a row failed" in done.stdout
    assert "RuntimeError: the model exploded" in done.stderr
    assert "in measure" in (tmp_path / "run" / "log.txt").read_text()


def test_python_does_the_same_as_the_command(tmp_path: Path) -> None:
    assert command("output_dir=one", "seed=3", cwd=tmp_path).returncode == 0
    done = rankitect.search(
        TOY,
        config_dir=CONFIGS,
        quiet=True,
        output_dir=tmp_path / "two",
        seed=3,
        report={"page": False, "tensorboard": False},
    )
    assert done.ended == "finished"
    assert done.folder == tmp_path / "two"
    assert done.summary.seed == 3
    assert result(tmp_path / "two") == result(tmp_path / "one")
    with pytest.raises(RunFolderError, match="another configuration"):
        rankitect.search(TOY, config_dir=CONFIGS, quiet=True, output_dir=tmp_path / "two", seed=4)
