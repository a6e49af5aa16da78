"""Labelled exchanges as JSON lines and CSV, the templates in programs' cards, and the cards of guards."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from random import Random
from typing import Any

import pydantic_core

from rankitect.data.moderation.exchanges import Exchange
from rankitect.data.moderation.reading import read_exchanges
from rankitect.data.moderation.template import GuardTemplate
from rankitect.deploy.guards import GuardNotes
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz

ROW: dict[str, Any] = {"prompt": "Is it, é?", "response": 'say "no"', "label": 1, "category": "a", "source": "s"}
TABLE = 'prompt,response,label\n"a, b","say ""no""\nnow",1\nc,,safe\n'
TEMPLATE: dict[str, Any] = {"before": [1, 2], "after": [3], "answer": [], "safe": 4, "unsafe": 5, "context": 64}


class TestLines(Fuzz):
    """JSON lines."""

    cases = 150
    share = 2

    def make(self, random: Random) -> bytes:
        line = mutate.json_text(random, ROW) if random.random() < 0.6 else json.dumps(ROW).encode()
        return mutate.bytes_(random, b"\n".join([line] * random.choice([1, 2])), 2)

    def read(self, data: bytes, folder: Path) -> list[Exchange]:
        (folder / "rows.jsonl").write_bytes(data)
        return read_exchanges(str(folder / "rows.jsonl"), "task.data")

    def confirm(self, data: bytes, value: list[Exchange]) -> None:
        lines = [line for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
        assert len(lines) == len(value)
        for line, exchange in zip(lines, value, strict=True):
            row = pydantic_core.from_json(line)
            assert exchange.prompt == (row["prompt"] or "")
            assert exchange.response == (row.get("response") or "")
            label = row["label"]
            known = {"unsafe": True, "safe": False, "true": True, "false": False}
            word = known.get(label.strip().lower()) if isinstance(label, str) else None
            assert exchange.unsafe == (float(label) >= 0.5 if word is None else word)


class TestTables(Fuzz):
    """CSV."""

    cases = 150

    def make(self, random: Random) -> bytes:
        return mutate.bytes_(random, mutate.text(random, TABLE).encode(errors="surrogatepass"), 2)

    def read(self, data: bytes, folder: Path) -> list[Exchange]:
        (folder / "rows.csv").write_bytes(data)
        return read_exchanges(str(folder / "rows.csv"), "task.data")

    def confirm(self, data: bytes, value: list[Exchange]) -> None:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        assert len(rows) == len(value) + 1
        place = rows[0].index("prompt")
        assert [row[place] for row in rows[1:]] == [exchange.prompt for exchange in value]


class TestTemplates(Fuzz):
    """A template in program.json."""

    cases = 100

    def make(self, random: Random) -> Any:
        return mutate.tree(random, TEMPLATE)

    def read(self, data: Any, folder: Path) -> GuardTemplate:
        return GuardTemplate.from_json(data, folder / "program.json")

    def confirm(self, data: Any, value: GuardTemplate) -> None:
        known = {key: data[key] for key in TEMPLATE}
        assert value.to_json() == known


class TestNotes(Fuzz):
    """What makes a candidate a guard, in candidate.json."""

    cases = 100

    def make(self, random: Random) -> Any:
        return mutate.tree(random, {"template": TEMPLATE, "verdicts": {"metrics": {"threshold": {"value": 0.5}}}})

    def read(self, data: Any, folder: Path) -> GuardNotes | None:
        known = GuardNotes.of_candidate({"notes": {"guard": data}}, folder / "candidate.json")
        return None if known is None else known[0]

    def confirm(self, data: Any, value: GuardNotes | None) -> None:
        if value is None:
            assert data is None
            return
        assert value.template.to_json() == {key: data["template"][key] for key in TEMPLATE}
        assert value.threshold == float(data["verdicts"]["metrics"]["threshold"]["value"])
