"""A ranking search in its smallest form, for tests: the parts that the command would join, on a generated log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rankitect.config import resolve
from rankitect.config.parts import Parts, build

SMALL = [
    "space=ranking_engineered", "task=ranking", "preset=smoke", "runner.threads=1", "task.data.synthetic.rows=1500",
    "space.top=[16,8]", "space.bottom=[8]", "space.embedding=[8,4]", "space.width=[8]", "space.head=4",
    "task.models.dlrm.hidden=[32,16]", "task.models.dlrm.embedding=8", "task.models.dlrm.bottom=[8]",
]  # fmt: skip


def ranking_parts(folder: Path, *overrides: str, say: Callable[[str], None] = lambda text: None) -> Parts:
    """All parts of a smoke run with small models."""
    return build(resolve([*SMALL, *overrides]), folder, say)
