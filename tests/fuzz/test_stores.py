"""Studies' files, training states and whole run folders that somebody or something has damaged."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from rankitect.study.schema import COLUMNS
from rankitect.study.store import Store
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz, run_main
from tests.study.toys import Point


@cache
def whole() -> Path:
    """A run folder, with a report: trials that are done, failed and repeated, a baseline, and candidates."""
    from rankitect.contracts import Baseline
    from rankitect.report import main as report
    from tests.study.test_study import run
    from tests.study.toys import Quadratic, RandomPoints

    place = Path(tempfile.mkdtemp(prefix="rankitect-fuzz-")) / "run"
    baselines = [Baseline("production", Point({"x": 7, "y": 2}))]
    run(place, RandomPoints(total=8, size=4), Quadratic(misbehave={2: "raise"}), baselines)
    run_main(report, [f"run={place}", "--quiet"])
    return place


def rows(file: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What SQLite itself says is in the tables."""
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return {t: sorted(connection.execute(f"SELECT {', '.join(c)} FROM {t}"), key=repr) for t, c in COLUMNS.items()}
    finally:
        connection.close()


@cache
def undamaged() -> dict[str, list[tuple[Any, ...]]]:
    return rows(whole() / "study.db")


class _Stored(Fuzz):
    """Reads a study's file."""

    def read(self, data: Any, folder: Path) -> Any:
        shutil.copy(whole() / "study.db", folder / "study.db")
        self.damage(data, folder / "study.db")
        with Store(folder / "study.db", Point.from_json, readonly=True) as store:
            spent = store.charges.totals()
            return store.trials, {stage: each.to_dict() for stage, each in spent.items()}, store.charges.worked()

    def damage(self, data: Any, file: Path) -> None:
        raise NotImplementedError

    def confirm(self, data: Any, value: Any) -> None:
        trials, spent, worked = value
        tables = undamaged()
        expected = {row[0]: dict(zip(COLUMNS["trials"], row, strict=True)) for row in tables["trials"]}
        assert [trial.number for trial in trials] == sorted(expected)
        for trial in trials:
            row = expected[trial.number]
            for name in ("batch", "baseline", "evaluator", "seed", "state", "attempts", "duplicate_of", "cause"):
                assert trial.__dict__[name] == row[name], (trial.number, name)
            assert trial.architecture.fingerprint == row["fingerprint"]
            assert trial.architecture.to_json() == row["architecture"]
            assert trial.tags == json.loads(row["tags"])
            stored = json.loads(row["measurement"]) if row["measurement"] else None
            assert (trial.measurement and trial.measurement.to_dict()) == stored
        for stage in {row[1] for row in tables["charges"]}:
            for place, name in enumerate(COLUMNS["charges"][2:], 2):
                total = math.fsum(row[place] for row in tables["charges"] if row[1] == stage)
                assert math.isclose(spent[stage][name], total), (stage, name)
        assert math.isclose(worked, math.fsum(row[-1] for row in tables["sessions"]))


class TestStoreBytes(_Stored):
    """A study's file, byte by byte."""

    def make(self, random: Random) -> bytes:
        data = (whole() / "study.db").read_bytes()
        if random.random() < 0.6:  # one bit, as memory and disks do it
            at = random.randrange(len(data))
            return data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]
        return mutate.bytes_(random, data)

    def damage(self, data: bytes, file: Path) -> None:
        file.write_bytes(data)


class TestStoreEdits(_Stored):
    """A study's file, edited with SQL."""

    cases = 150

    def make(self, random: Random) -> list[tuple[str, list[Any]]]:
        return [self._edit(random) for _ in range(random.choice([1, 1, 2]))]

    def _edit(self, random: Random) -> tuple[str, list[Any]]:
        table = random.choice(list(COLUMNS))
        column, key = random.choice([*COLUMNS[table], "checksum"]), COLUMNS[table][0]
        some = random.choice([row[0] for row in undamaged()[table]])
        kind = random.randrange(10)
        if kind == 0:
            return f"DELETE FROM {table} WHERE {key} = ?", [some]
        if kind == 1:
            return f"DELETE FROM {table}", []
        if kind == 2:
            return f"UPDATE {table} SET {column} = NULL WHERE {key} = ?", [some]
        if kind == 3:
            other = random.choice([row[0] for row in undamaged()[table]])
            return f"UPDATE {table} SET {column} = (SELECT {column} FROM {table} WHERE {key} = ?) WHERE {key} = ?", [
                other, some,
            ]  # fmt: skip
        if kind == 4:
            return "UPDATE meta SET value = ? WHERE key = (SELECT key FROM meta ORDER BY random() LIMIT 1)", [
                str(random.randrange(20))
            ]
        value: Any = random.choice([mutate.name(random), mutate.number(random)])
        if kind < 8:  # a small change of what is there
            place = COLUMNS[table].index(column) if column in COLUMNS[table] else 0
            there = next(row[place] for row in undamaged()[table] if row[0] == some)
            value = mutate.text(random, there) if isinstance(there, str) else (there or 0) + random.choice([0, 1, -1])
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            value = float(value)
        if isinstance(value, str):
            value = value.encode("utf-8", "replace").decode()
        return f"UPDATE {table} SET {column} = ? WHERE {key} = ?", [value, some]

    def damage(self, data: list[tuple[str, list[Any]]], file: Path) -> None:
        connection = sqlite3.connect(file)
        for statement, values in data:
            try:
                connection.execute(statement, values)
            except sqlite3.IntegrityError:  # the table itself does not take it
                connection.rollback()
        connection.commit()
        connection.close()


class TestStates(Fuzz):
    """The saved state of a training."""

    @staticmethod
    @cache
    def state() -> bytes:
        import torch

        from rankitect.training.checkpoint import save_state

        path = whole().parent / "state.safetensors"
        generator = torch.Generator().manual_seed(0)
        tensors = {"model/w": torch.randn(7, 3, generator=generator), "optimizer/step": torch.tensor(3)}
        save_state(path, tensors, {"identity": {"lr": 0.1}, "run": {"step": 3, "losses": [0.5, 0.25]}})
        return path.read_bytes()

    def make(self, random: Random) -> bytes:
        data = self.state()
        if random.random() < 0.5:
            at = random.randrange(len(data))
            return data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]
        return mutate.bytes_(random, data)

    def read(self, data: bytes, folder: Path) -> Any:
        from rankitect.training.checkpoint import load_state

        (folder / "state.safetensors").write_bytes(data)
        tensors, info = load_state(folder / "state.safetensors")
        return {name: tensor.tolist() for name, tensor in tensors.items()}, info

    def confirm(self, data: bytes, value: Any) -> None:
        import numpy as np

        tensors, info = value
        raw = self.state()
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + size])
        for name, about in header.items():
            if name != "__metadata__":
                begin, end = about["data_offsets"]
                kind = {"F32": "<f4", "I64": "<i8"}[about["dtype"]]
                there = np.frombuffer(raw[8 + size + begin : 8 + size + end], kind).reshape(about["shape"])
                assert tensors.pop(name) == there.tolist()
        assert not tensors
        assert info == json.loads(header["__metadata__"]["rankitect"])


# --- whole folders ---------------------------------------------------------------------------------------------------
Damage = Callable[[Random, Path], None]


def flipped(random: Random, path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(mutate.bytes_(random, data, 2) if data else b"x")


def gone(random: Random, path: Path) -> None:
    path.unlink()


def emptied(random: Random, path: Path) -> None:
    path.write_bytes(b"")


def a_link(random: Random, path: Path) -> None:
    path.unlink()
    path.symlink_to(random.choice(["/etc/hostname", "/dev/zero", "../outside", path.name, "config.yaml"]))


def a_pipe(random: Random, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_folder(random: Random, path: Path) -> None:
    path.unlink()
    path.mkdir()


def edited(random: Random, path: Path) -> None:
    """JSON that is still JSON."""
    if path.suffix == ".json":
        value = mutate.tree(random, json.loads(path.read_text()))
        path.write_text(json.dumps(value, ensure_ascii=True))
    else:
        text = mutate.text(random, path.read_text(errors="replace"))
        path.write_text(text, errors="replace")


DAMAGES: list[Damage] = [flipped, flipped, edited, edited, gone, emptied, a_link, a_pipe, a_folder]


class _Folders(Fuzz):
    """A run folder, each of its files damaged, through one command."""

    cases = 30
    share = 0.4

    def make(self, random: Random) -> tuple[str, int, int]:
        files = sorted(p.relative_to(whole()).as_posix() for p in whole().rglob("*") if p.is_file())
        important = [f for f in files if "/" not in f or f.endswith("report.json")]
        name = random.choice(important if random.random() < 0.7 else files)
        return name, random.randrange(len(DAMAGES)), random.randrange(2**30)

    def read(self, data: tuple[str, int, int], folder: Path) -> Any:
        name, damage, seed = data
        run = shutil.copytree(whole(), folder / "run")
        DAMAGES[damage](Random(seed), run / name)
        return self.command(run)

    def command(self, run: Path) -> Any:
        raise NotImplementedError


def _numbers(report: Path) -> Any:
    """The cards of a report without what is about the place of the folder, or quotes files that no number is from."""
    data = json.loads((report / "report.json").read_text())
    return [card for card in data["cards"] if card["id"] not in ("reproduce", "picture", "model", "candidates")]


class TestFoldersReported(_Folders):
    """A run folder, through report."""

    def command(self, run: Path) -> Any:
        from rankitect.report import main

        run_main(main, [f"run={run}", "--quiet"])
        return _numbers(run / "report")

    def confirm(self, data: Any, value: Any) -> None:
        if data[0] == "trials.csv" and not value_of_trials(data):
            return  # a table that is gone is no error: the report says what it cannot tell
        assert value == _numbers(whole() / "report")


def value_of_trials(data: tuple[str, int, int]) -> bool:
    """Whether the table of trials is still a file."""
    return DAMAGES[data[1]] not in (gone, a_folder)


class TestFoldersVerified(_Folders):
    """A run folder, through verify."""

    def command(self, run: Path) -> Any:
        from rankitect.verify import main

        codes: list[int] = []

        def noted(arguments: Any) -> int:
            codes.append(main(arguments))
            return 0 if codes[-1] == 1 else codes[-1]  # 1: something differs, and it says what

        return run_main(noted, [str(run)]), codes[0], run

    def confirm(self, data: Any, value: Any) -> None:
        said, code, run = value
        assert ("FAIL" in said) == (code == 1)
        if code == 1:  # no false alarm
            assert not (run / data[0]).is_file() or (run / data[0]).read_bytes() != (whole() / data[0]).read_bytes()
            return
        assert _numbers(run / "report") == _numbers(whole() / "report")
        made, read = (json.loads((f / "report" / "report.json").read_text())["reproduction"] for f in (whole(), run))
        assert read == made
        assert hashlib.sha256((run / "config.yaml").read_bytes()).hexdigest() == made["config"]
        for file, digest in made["files"].items():
            assert hashlib.sha256((run / file).read_bytes()).hexdigest() == digest, file


class TestFoldersExported(_Folders):
    """A run folder, through export."""

    def command(self, run: Path) -> Any:
        from rankitect.export import main

        run_main(main, [f"run={run}", "to=csv"])
        return (run / "trials.flat.csv").read_text()

    def confirm(self, data: Any, value: Any) -> None:
        import csv
        import io

        mine = list(csv.DictReader(io.StringIO(value)))
        with (whole() / "trials.csv").open(newline="") as file:
            there = list(csv.DictReader(file))
        assert len(mine) == len(there)
        for one, other in zip(mine, there, strict=True):
            for name in ("number", "state", "fingerprint", "seed"):
                assert one[name] == other[name]
            for name in ("loss", "cost"):
                assert (one[name] and float(one[name])) == (other[name] and float(other[name]))
            choices = json.loads(other["architecture"])["choices"]
            assert {name: int(one[f"choice.{name}"]) for name in choices} == choices


class TestFoldersResumed(_Folders):
    """A run folder, through a resumed search."""

    def command(self, run: Path) -> Any:
        from tests.study.test_study import run as search
        from tests.study.toys import Quadratic, RandomPoints

        search(run, RandomPoints(total=8, size=4), Quadratic(misbehave={2: "raise"}))
        return rows(run / "study.db")["trials"], json.loads((run / "summary.json").read_text())["pareto"]

    def confirm(self, data: Any, value: Any) -> None:
        trials, front = value
        assert trials == undamaged()["trials"]
        metrics = [c["metrics"] for c in json.loads((whole() / "summary.json").read_text())["pareto"]]
        assert [c["metrics"] for c in front] == metrics
