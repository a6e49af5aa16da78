"""The page on writing a space: its code runs, in order, in an empty folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "authoring.md"
BLOCK = re.compile(r"```(python|yaml)\n(.*?)```", re.DOTALL)


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    blocks = [m.group(2) for m in BLOCK.finditer(PAGE.read_text())]
    scripts = []
    for text in blocks:  # the first line of a file is its name
        name = re.match(r"# (\S+\.(?:py|yaml))\n", text)
        if name is None:
            scripts.append(text)
        else:
            (tmp_path / name[1]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name[1]).write_text(text)
    scope: dict[str, object] = {}
    try:
        for text in scripts:
            exec(compile(text, str(PAGE), "exec"), scope)
    finally:
        for name in ("my_ranker", "my_clicks", "my_search"):
            sys.modules.pop(name, None)
    shown = capsys.readouterr().out
    assert "choice 'width' cannot be 48; allowed: 32, 16" in shown
    entropy = float(shown.split("parameters, normalized entropy ")[1].split()[0])
    assert entropy < 0.97
    assert (tmp_path / "runs" / "first" / "summary.json").exists()
