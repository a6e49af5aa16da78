"""The saved state of a controller is used with the settings that it belongs to, or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rankitect.data.files import write_whole
from rankitect.errors import RunFolderError
from rankitect.study.folder import RunFolder
from rankitect.study.states import SETTINGS, settle

CONFIG = {"seed": 0, "controller": {"steps": 8, "points": 3}, "evaluator": {"windows": 4}, "budget": {"trials": 5}}


class Searching:
    """A controller whose state depends on its steps, not on its points."""

    independent = frozenset({"points"})


def changed(section: str, **values: Any) -> dict[str, Any]:
    return {**CONFIG, section: {**CONFIG[section], **values}}  # type: ignore[dict-item]


def state_after(path: Path, config: dict[str, Any], *, force: bool = False, controller: Any = Searching) -> list[str]:
    """The files that the controller would find."""
    with RunFolder(path, config, force=force) as folder:
        folder.accept()
        settle(folder, controller())
        return sorted(p.name for p in folder.state_dir.iterdir() if p.name != SETTINGS)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    assert state_after(tmp_path / "run", CONFIG) == []
    write_whole(tmp_path / "run" / "study.db", "begun")
    write_whole(tmp_path / "run" / "state" / "own.safetensors", "a state")
    assert state_after(tmp_path / "run", CONFIG) == ["own.safetensors"]
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (changed("controller", points=4), True), (changed("evaluator", windows=8), True),
        (changed("budget", trials=50), True), (changed("controller", steps=9), False), ({**CONFIG, "seed": 1}, False),
        ({**CONFIG, "space": {"widths": [1, 2]}}, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("earlier_version", [False, True])
def test_a_forced_change_keeps_a_state_where_it_does_not_matter(
    saved: Path, config: dict[str, Any], kept: bool, earlier_version: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if earlier_version:
        (saved / "state" / SETTINGS).unlink()
    with caplog.at_level("INFO", logger="rankitect"):
        assert state_after(saved, config, force=True) == (["own.safetensors"] if kept else [])
    assert [r.getMessage().split(": ")[0] for r in caplog.records] == [
        f"The saved state of the controller {'is kept' if kept else 'was deleted, and its preparation begins anew'}"
    ]


def test_a_controller_that_does_not_say_so_depends_on_all_its_keys(saved: Path) -> None:
    assert state_after(saved, changed("controller", points=4), force=True, controller=object) == []


def test_a_state_from_another_folder_is_refused_by_what_differs(saved: Path, tmp_path: Path) -> None:
    state_after(tmp_path / "other", changed("controller", steps=9))
    write_whole(tmp_path / "other" / "study.db", "begun")
    shutil.copytree(saved / "state", tmp_path / "other" / "state", dirs_exist_ok=True)
    with pytest.raises(RunFolderError, match=r"belongs to other settings \(controller.steps: 8 -> 9\)"):
        state_after(tmp_path / "other", changed("controller", steps=9))
    assert state_after(tmp_path / "other", changed("controller", steps=9), force=True) == []


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"seed": [1]})])
def test_a_damaged_note_is_refused_and_forced(saved: Path, content: str) -> None:
    (saved / "state" / SETTINGS).write_text(content)
    with pytest.raises(RunFolderError, match="resume=force"):
        state_after(saved, CONFIG)
    assert state_after(saved, CONFIG, force=True) == []
