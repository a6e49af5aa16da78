"""JSON and YAML, as any file of the product holds them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pydantic_core
import yaml

from rankitect.documents import parse_json, read_yaml
from rankitect.errors import DataError
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz

DATA: dict[str, Any] = {
    "name": "a", "sizes": [1, 2, 3], "lr": 0.25, "on": True, "none": None, "nested": {"a": {"b": [{"c": "é"}]}},
}  # fmt: skip


class TestJson(Fuzz):
    """JSON."""

    cases = 600
    share = 4

    def make(self, random: Random) -> bytes:
        return mutate.json_text(random, DATA)

    def read(self, data: bytes, folder: Path) -> Any:
        return parse_json(data, called="a.json", error=DataError)

    def confirm(self, data: bytes, value: Any) -> None:
        assert value == pydantic_core.from_json(data.removeprefix(b"\xef\xbb\xbf"), allow_inf_nan=False)


class TestYaml(Fuzz):
    """YAML."""

    cases = 200
    share = 2

    def make(self, random: Random) -> bytes:
        text = random.choice([
            yaml.safe_dump(mutate.tree(random, DATA), allow_unicode=True),
            "a: &x [1, 2]\nb: *x\nc: {<<: {d: 1}, e: 2}\n",
            "a: !!str 1\nb: 0x10\nc: 0o7\nd: yes\ne: |\n  text\n  more\nf: >-\n  folded\n",
            "- " * random.choice([3, 50, 5_000]) + "x",
            "{a: " * random.choice([3, 50, 5_000]) + "x" + "}" * random.choice([0, 3, 50, 5_000]),
        ])  # fmt: skip
        return mutate.bytes_(random, text.encode("utf-8", "surrogatepass"), 2)

    def read(self, data: bytes, folder: Path) -> Any:
        (folder / "a.yaml").write_bytes(data)
        return read_yaml(folder / "a.yaml")

    def confirm(self, data: bytes, value: Any) -> None:
        # Where numbers with an exponent and dates are told apart, libyaml reads what this reader reads.
        assert _as_text(value) == _as_text(yaml.load(data.decode("utf-8-sig"), yaml.CSafeLoader))


def _as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    if isinstance(value, float) or value is None or isinstance(value, bool | int):
        return str(float(value)) if isinstance(value, float | int) else "null"
    text = str(value) or "null"  # libyaml reads the empty text of the tag `!` as text
    try:
        return str(float(text))
    except ValueError:
        return text
