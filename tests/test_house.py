"""What the import rule cannot see: imports in strings, circles, and whether the drawing of the rooms is up to date."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from benchmarks._code import Module, circles, edges, read_modules
from benchmarks.house import figures

ROOT = Path(__file__).resolve().parent.parent
PLUGIN_ROOMS = ("rankitect.search_spaces", "rankitect.controllers", "rankitect.evaluators")


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    return read_modules(ROOT)


def test_no_core_room_names_a_plug_in_not_even_in_a_string(modules: dict[str, Module]) -> None:
    core = {name: module for name, module in modules.items() if not name.startswith(PLUGIN_ROOMS)}
    named = {
        f"{name} -> {other}"
        for name, others in edges(modules, strings=True).items()
        if name in core
        for other in others
        if other.startswith(PLUGIN_ROOMS)
    }
    assert named == set()


def test_no_modules_import_each_other_in_a_circle_not_even_inside_functions(modules: dict[str, Module]) -> None:
    assert circles(edges(modules, typing=False)) == []


def test_the_drawing_of_the_rooms_is_up_to_date_and_nothing_points_upward() -> None:
    draw = runpy.run_path(str(ROOT / "docs" / "draw_imports.py"))
    assert draw["main"](["--check"]) == 0, "run: python docs/draw_imports.py"
    assert "upward" not in draw["drawing"]()


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    package = tmp_path / "rankitect"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "__init__.py").write_text("from rankitect.inner.b import x\n")
    (package / "inner" / "b.py").write_text("def f():\n    import rankitect.c\n\nx = 1\n")
    (package / "c.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from rankitect import inner\n"
        "NAME = 'rankitect.d.thing'\n"
    )
    (package / "d.py").write_text("'''rankitect.c does something.'''\n")
    modules = read_modules(tmp_path)
    assert edges(modules, strings=True) == {
        "rankitect": set(), "rankitect.inner": {"rankitect.inner.b"}, "rankitect.inner.b": {"rankitect.c"},
        "rankitect.c": {"rankitect.inner", "rankitect.d"}, "rankitect.d": set(),
    }  # fmt: skip
    assert circles(edges(modules)) == [["rankitect.c", "rankitect.inner", "rankitect.inner.b"]]
    assert circles(edges(modules, typing=False)) == []


def test_the_figures_of_the_house_are_counted(tmp_path: Path) -> None:
    (tmp_path / "rankitect").mkdir()
    (tmp_path / "README.md").write_text("one\ntwo\n")
    (tmp_path / "rankitect" / "a.py").write_text(
        'class Twice:\n    """Doc."""\n\n    def f(self, x, *, y):\n        # why\n        raise ValueError  # noqa\n'
    )
    (tmp_path / "rankitect" / "b.py").write_text("class Twice:\n    pass\n")
    counted = figures(tmp_path)
    assert counted["files"] == 2
    assert counted["largest file"] == "6 (rankitect.a)"
    assert counted["longest function"] == "3 (rankitect.a.f)"
    assert counted["most parameters of a function"] == "3 (rankitect.a.f)"
    assert counted["public class names defined twice"] == ["Twice"]
    assert counted["comment lines per 1,000 lines"] == 125.0
    assert counted["lines of the README"] == 2


OWN_READERS = {
    "rankitect/documents.py": "the one reader",
    "rankitect/deploy/timing.py": "a pipe from a process of our own",
    "rankitect/deploy/worker.py": "a pipe from a process of our own",
    "rankitect/data/tokenizer.py": "what tokenizers has just written",
    "rankitect/data/text_files.py": "rows of JSON lines, with their numbers in the message",
    "rankitect/data/ranking/jsonl.py": "rows of JSON lines, with their numbers in the message",
    "rankitect/data/ranking/lists.py": "lists in the cells of a table",
    "rankitect/study/lock.py": "a note of our own, which may be half-written",
    "rankitect/study/store.py": "rows of the store",
}


def holding(pattern: str) -> set[str]:
    """The files of the package that hold a regular expression."""
    places = [
        path
        for room in ("rankitect", "controllers", "evaluators", "search_spaces")
        for path in (ROOT / room).rglob("*.py")
    ]
    return {p.relative_to(ROOT).as_posix() for p in places if re.search(pattern, p.read_text(encoding="utf-8"))}


def test_links_in_a_circle_end_no_path_in_a_traceback() -> None:
    resolves = r"\.resolve\((strict=\w+)?\)"  # raises RuntimeError for them; os.path.realpath does not
    assert holding(resolves) == {"rankitect/data/members.py"}, "which catches it"


def test_json_and_yaml_are_read_in_one_place() -> None:
    reads = (
        r"json\.loads?\((?!json\.dumps|self\.\w+\.to_json|\w+\.to_json)|yaml\.(safe_)?load|validate_json|literal_eval"
    )
    assert holding(reads) - OWN_READERS.keys() == set(), "use rankitect.documents"


def test_safetensors_files_are_opened_in_one_place() -> None:
    assert holding(r"safe_open\(|\bload_file\(") == {"rankitect/data/tensors.py", "rankitect/reports/sections/next.py"}
