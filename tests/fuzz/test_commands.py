"""The words of the commands that read files of others, and a run folder and report of others."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random

import pydantic_core

import rankitect.compare
import rankitect.data.assets
import rankitect.data.ranking.synthetic
import rankitect.export
import rankitect.report
import rankitect.run_pte
import rankitect.verify
from rankitect.reports import write_report
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz, run_main

OLD_RUN = Path(__file__).parents[1] / "old_runs" / "v1" / "mobile_llm"
Command = Callable[[Sequence[str]], int]
COMMANDS: dict[str, tuple[Command, list[str]]] = {
    "report": (rankitect.report.main, ["run=@/none", "candidate=1", "baseline=dlrm"]),
    "verify": (rankitect.verify.main, ["@/none"]),
    "export": (rankitect.export.main, ["run=@/none", "to=csv", "out=@/out.csv"]),
    "run_pte": (rankitect.run_pte.main, ["@/none", "--tokens", "4"]),
    "compare": (rankitect.compare.main, ["--controllers", "none", "--seeds", "0,1", "--output-dir", "@/compare"]),
    "assets": (rankitect.data.assets.main, ["--status", "none"]),
    "synthetic": (rankitect.data.ranking.synthetic.main, ["@/log.tsv", "--rows", "120", "--layout", "criteo"]),
}


class TestArguments(Fuzz):
    """The words of report, verify, export, run_pte, compare, assets and synthetic."""

    cases = 60
    share = 2

    def make(self, random: Random) -> tuple[str, list[str]]:
        name = random.choice(list(COMMANDS))
        given = list(COMMANDS[name][1])
        for _ in range(random.choice([0, 1, 1, 2])):
            place = random.randrange(len(given))
            key, separator, _ = given[place].rpartition("=")
            given[place] = (
                f"{key}{separator}{random.choice([mutate.name(random), str(mutate.number(random)), '@', '/dev/null'])}"
            )
        if random.random() < 0.2:
            given.insert(random.randrange(len(given) + 1), mutate.name(random))
        return name, given

    def read(self, data: tuple[str, list[str]], folder: Path) -> Path:
        command, given = COMMANDS[data[0]][0], data[1]
        if data[0] in ("compare", "assets"):  # nothing is searched or fetched
            given = [*given, "--controllers=none,random"] if data[0] == "compare" else [*given, "--status", "none"]
        with contextlib.chdir(folder):  # a word may be the name of a file that is written
            run_main(command, [word.replace("@", str(folder)) for word in given])
        return folder

    def confirm(self, data: tuple[str, list[str]], value: Path) -> None:
        assert data[0] == "synthetic", "the others have nothing to work on"
        rows = int(data[1][data[1].index("--rows") + 1])
        (log,) = [path for path in value.rglob("*") if path.is_file()] or [Path(data[1][0].replace("@", str(value)))]
        lines = log.read_text().splitlines()
        assert len(lines) in (rows, rows + 1), "with or without a header"


@cache
def reported_run() -> Path:
    """A run folder with its report."""
    folder = Path(tempfile.mkdtemp()) / "run"
    shutil.copytree(OLD_RUN, folder)
    write_report(folder)
    return folder


def numbers(table: Path) -> list[str]:
    """The numbers of the trials in a table."""
    with table.open(newline="") as file:
        return [row["number"] for row in csv.DictReader(file)]


FILES = ("summary.json", "trials.csv", "config.yaml", "examples.json", "report/report.json")


class TestRunsOfOthers(Fuzz):
    """A run folder of others, and its report: `verify` and `export`."""

    cases = 10
    share = 0.3

    def make(self, random: Random) -> tuple[str, bytes, str]:
        name = random.choice(FILES)
        content = (reported_run() / name).read_bytes()
        if name.endswith(".json") and random.random() < 0.7:
            changed = mutate.json_text(random, json.loads(content))
        else:
            changed = mutate.bytes_(random, content, 2)
        return name, changed, random.choice(["verify", "verify", "export"])

    def read(self, data: tuple[str, bytes, str], folder: Path) -> tuple[Path, int]:
        run, code = folder / "run", 0
        shutil.copytree(reported_run(), run)
        (run / data[0]).write_bytes(data[1])

        def verify(words: Sequence[str]) -> int:
            nonlocal code
            code = rankitect.verify.main(words)
            return code if code != 1 else 0  # 1: what was changed is told

        if data[2] == "verify":
            run_main(verify, [str(run)])
        else:
            run_main(rankitect.export.main, [f"run={run}", "to=csv", f"out={folder / 'out.csv'}"])
        return folder, code

    def confirm(self, data: tuple[str, bytes, str], value: tuple[Path, int]) -> None:
        folder, code = value
        if data[2] == "export":
            assert numbers(folder / "out.csv") == numbers(folder / "run" / "trials.csv")
        elif code == 0:
            report = pydantic_core.from_json((folder / "run" / "report" / "report.json").read_bytes())
            for file, sha256 in report["reproduction"]["files"].items():
                assert hashlib.sha256((folder / "run" / file).read_bytes()).hexdigest() == sha256, file
