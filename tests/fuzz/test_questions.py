"""Question files, as JSON lines."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pydantic_core

from rankitect.data.questions import Question, read_questions
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz

CHOICES: dict[str, Any] = {"query": "Is ice cold?", "choices": ["yes", "no", "é"], "gold": 2, "source": {"a": [1]}}
OPEN: dict[str, Any] = {"context": "They sat down on the", "continuation": "bench", "id": 7}


class TestQuestions(Fuzz):
    """Questions with choices, and open ones."""

    cases = 200
    share = 2

    def make(self, random: Random) -> bytes:
        line = random.choice([CHOICES, OPEN])
        lines = [mutate.json_text(random, line) if random.random() < 0.5 else mutate.json_text(Random(0), line)]
        return mutate.bytes_(random, b"\n".join(lines * random.choice([1, 1, 2])), 2)

    def read(self, data: bytes, folder: Path) -> list[Question]:
        (folder / "asked.jsonl").write_bytes(data)
        return read_questions(str(folder / "asked.jsonl"), "path")

    def confirm(self, data: bytes, value: list[Question]) -> None:
        lines = [line for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
        assert len(lines) == len(value)
        for line, question in zip(lines, value, strict=True):
            asked = pydantic_core.from_json(line)
            if "choices" in asked:
                assert list(question.choices) == asked["choices"]
                assert question.answers == (asked["choices"][asked["gold"]],)
                assert question.query == asked["query"]
            else:
                answer = asked.get("answer", asked.get("continuation"))
                assert list(question.answers) == (answer if isinstance(answer, list) else [answer])
                assert question.query == (asked["query"] if "answer" in asked else asked["context"])
