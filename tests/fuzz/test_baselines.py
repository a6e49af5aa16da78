"""The registry of baselines, as others may have left it."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pydantic_core

from rankitect.baseline import main
from rankitect.production.registry import Entry, Registry
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz, Refused, run_main

ENTRIES: list[dict[str, Any]] = [
    {
        "name": "live", "version": 1, "task": "criteo", "added": "2026-01-01T00:00:00+00:00", "note": "since May",
        "architecture": {"space": "grid", "version": "1", "choices": {"x": 3}},
    },
    {
        "name": "live", "version": 1, "task": "criteo", "added": "2026-01-01T00:00:00+00:00",
        "module": "my_models.make", "weights": "v001.safetensors", "weights_sha256": 64 * "a",
    },
]  # fmt: skip


class TestRegistry(Fuzz):
    """The registry of baselines, and `baseline list`."""

    cases = 150
    share = 2

    def make(self, random: Random) -> bytes:
        return mutate.json_text(random, random.choice(ENTRIES))

    def read(self, data: bytes, folder: Path) -> tuple[Entry, str]:
        (folder / "live").mkdir()
        (folder / "live" / "v001.json").write_bytes(data)
        listed = run_main(main, ["list", f"registry={folder}"])
        entries, damaged = Registry(folder).read()
        if damaged:
            raise Refused(damaged[0].reason)
        return entries[0], listed

    def confirm(self, data: bytes, value: tuple[Entry, str]) -> None:
        entry, listed = value
        written = pydantic_core.from_json(data.removeprefix(b"\xef\xbb\xbf"))
        assert entry.model_dump(exclude_unset=True) == written
        assert entry.name == "live"
        assert all(c.isprintable() or c == "\n" for c in listed)
        assert len(listed.splitlines()) == 2, "a note breaks no line"
        for file in (entry.space, entry.weights):
            assert file is None or Path(file).name == file, "no file outside of the registry is named"


class TestBaselineArguments(Fuzz):
    """The words of `baseline`."""

    cases = 60

    def make(self, random: Random) -> list[str]:
        given = ["add", "live", "task=criteo", "module=my_models.make"]
        keys = random.sample(["note", "task", "module", "weights", "features", "architecture", "run", "space"], 2)
        odd = [random.choice([mutate.name(random), "my_models.make", "criteo", ".", "/dev/null"]) for _ in keys]
        given += [f"{key}={value}" for key, value in zip(keys, odd, strict=True)]
        if random.random() < 0.3:
            given[1] = mutate.name(random)
        if random.random() < 0.3:
            given[0] = random.choice(["list", "retire", mutate.name(random)])
        return given

    def read(self, data: list[str], folder: Path) -> tuple[Path, str]:
        return folder, run_main(main, [*data, f"registry={folder / 'registry'}"])

    def confirm(self, data: list[str], value: tuple[Path, str]) -> None:
        folder, said = value
        files = list(folder.rglob("v001.json"))
        if data[0] == "add":
            assert [json.loads(file.read_text())["name"] for file in files] == [data[1]]
            assert json.loads(files[0].read_text())["module"].replace(".", "").isidentifier()
        assert all(c.isprintable() or c == "\n" for c in said)
