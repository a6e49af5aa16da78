"""The kill drill: end a run with SIGKILL at random moments, repeat its command, and compare with an undisturbed run.

    python benchmarks/resume.py --kills 3 --seed 0

Prints a table of the kills and exits with 1 if a finished trial was lost or repeated, or if the results differ.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Moment = Callable[[Path], bool]


@dataclass(frozen=True)
class Kill:
    """One kill: when it came, and what the store held before and after.

    Attributes:
        moment: What the run was doing.
        landed: Whether it came in time; False if the run had ended before.
        kept: Finished trials in the store after it.
    """

    moment: str
    landed: bool
    kept: int


def preparing(folder: Path) -> bool:
    """The controller works: baselines are measured, and no proposal is recorded."""
    trials = finished(folder)
    return bool(trials) and all(baseline for *_, baseline in trials) and not proposed(folder)


def healing(folder: Path) -> bool:
    """A proposed candidate is being trained or measured."""
    return any(state == "RUNNING" and baseline is None for *_, state, baseline in rows(folder))


def writing(folder: Path) -> bool:
    """The last trial is done, and the candidates' folders are being built."""
    return (folder / ".candidates.new").exists()


MOMENTS: dict[str, Moment] = {"prepare": preparing, "healing": healing, "writing": writing}


def rows(folder: Path) -> list[tuple[int, str, str, str, str | None]]:
    """Number, architecture, evaluator, state and baseline of every trial in a run folder's store."""
    import sqlite3

    path = folder / "study.db"
    if not path.exists():
        return []
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1) as store:
            found = store.execute("SELECT number, architecture, evaluator, state, baseline FROM trials ORDER BY number")
            return list(found)
    except sqlite3.Error:  # the store is being made, or was cut short
        return []


def finished(folder: Path) -> list[tuple[int, str, str, str | None]]:
    """Number, architecture, evaluator and baseline of every finished trial."""
    return [(n, a, e, b) for n, a, e, state, b in rows(folder) if state in ("DONE", "FAILED")]


def proposed(folder: Path) -> bool:
    """Whether the controller has proposed something."""
    return any(baseline is None for *_, baseline in rows(folder))


def results(folder: Path) -> dict[str, Any]:
    """What a run found, from summary.json, without what is about clocks and places."""
    data = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {
        "pareto": data["pareto"],
        "baselines": data["baselines"],
        "spent": {k: v for k, v in data["ledger"].items() if k.startswith(("train_", "eval_"))},
        "trials": data["ledger"]["trials"],
    }


def command(folder: Path, overrides: list[str]) -> list[str]:
    """The command line of the run."""
    return [sys.executable, "-m", "rankitect.search", *overrides, f"output_dir={folder}"]


def kill_at(folder: Path, overrides: list[str], moment: str, delay: float) -> Kill:
    """Start or resume the run and kill it some time after a moment has come.

    Args:
        folder: The run folder.
        overrides: Of the command.
        moment: A key of `MOMENTS`.
        delay: Seconds from the moment to the kill.
    """
    process = subprocess.Popen(command(folder, overrides), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not MOMENTS[moment](folder):
            time.sleep(0.002)
        time.sleep(delay)
        landed = process.poll() is None
    finally:
        process.kill()
        process.wait()
    return Kill(moment, landed, len(finished(folder)))


def drill(work: Path, overrides: list[str], kills: int, seed: int) -> tuple[list[Kill], list[str]]:
    """Run undisturbed, run with kills, compare.

    Returns:
        The kills, and what went wrong (empty where all is well).
    """
    draw = random.Random(seed)
    subprocess.run(command(work / "whole", overrides), check=True, stdout=subprocess.DEVNULL)
    killed: list[Kill] = []
    wrong: list[str] = []
    before: list[tuple[int, str, str, str | None]] = []
    names = list(MOMENTS)
    for i in range(kills):
        moment = names[i % len(names)]
        found = kill_at(work / "run", overrides, moment, draw.uniform(0, 0.02 if moment == "writing" else 0.3))
        after = finished(work / "run")
        if after[: len(before)] != before:
            wrong.append(f"kill {i + 1}: finished trials were lost or changed")
        killed.append(found)
        before = after
    subprocess.run(command(work / "run", overrides), check=True, stdout=subprocess.DEVNULL)
    after = finished(work / "run")
    if after[: len(before)] != before:
        wrong.append("the last resumption lost or changed finished trials")
    if after != finished(work / "whole"):
        wrong.append("the killed run has other trials than the undisturbed one")
    if results(work / "run") != results(work / "whole"):
        wrong.append("the killed run has other results than the undisturbed one")
    return killed, wrong


def main(arguments: list[str] | None = None) -> int:
    """Print the drill's table; returns 1 if anything was lost, repeated or changed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=3, help="how many, going through the moments in turn")
    parser.add_argument("--seed", type=int, default=0, help="of the moments within the moments")
    parser.add_argument("overrides", nargs="*", default=["space=mobile_llm", "controller=dnas", "preset=smoke"])
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        killed, wrong = drill(Path(work), options.overrides, options.kills, options.seed)
    print("| kill | while | came in time | finished trials kept |\n| --- | --- | --- | --- |")
    for number, kill in enumerate(killed, 1):
        print(f"| {number} | {kill.moment} | {'yes' if kill.landed else 'no'} | {kill.kept} |")
    print("\n" + ("\n".join(wrong) or "Nothing was lost or repeated; the results equal those of the undisturbed run."))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
