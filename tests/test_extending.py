"""The page on extending: each addition is one file, works in an empty folder, and touches nothing else."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.processes import run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
ROWS = re.findall(r"^\| \[(.*?)\]\(#(.*?)\) \| .*? \| (\d)", PAGE, re.MULTILINE)
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
NAME = re.compile(r"(?:# (\S+\.(?:py|yaml))|{# (\S+\.j2) #})\n")


def split(section: str) -> tuple[dict[str, str], list[str]]:
    """The files that a section has one write, by name, and the scripts that use them."""
    texts = [text for _, text in BLOCK.findall(section)]
    files = {name[1] or name[2]: text for text in texts if (name := NAME.match(text))}
    return files, [text for text in texts if not NAME.match(text)]


def test_the_table_lists_every_section() -> None:
    assert [name.capitalize() for name, _, _ in ROWS] == list(SECTIONS)
    assert [anchor for _, anchor, _ in ROWS] == [title.lower().replace(" ", "-") for title in SECTIONS]
    assert all(int(lines) <= 1 for _, _, lines in ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("title", SECTIONS)
def test_an_addition_is_one_file_and_works(title: str, tmp_path: Path) -> None:
    files, scripts = split(SECTIONS[title])
    configured = [name for name in files if name.endswith(".yaml")]
    assert len({Path(name).stem for name in files if name not in configured}) == 1, "a file, a card with its template"
    lines = [line for name in configured for line in files[name].splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 1, "at most one line of configuration"
    assert len(scripts) == 1, "one script that uses it"
    for name, text in {**files, "use_it.py": scripts[0]}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = run(["use_it.py"], tmp_path, {**os.environ, **quiet})
    assert done.returncode == 0, done.stderr
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*(Path(name).parts[0] for name in files), "use_it.py", "runs"}, "nothing else but run folders"
