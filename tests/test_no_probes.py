"""Nobody finds out by trial what a task, a space, a controller, a device or a runner has: capabilities are asked for by
name (`rankitect.contracts.offers` and `require`)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("rankitect", "controllers", "evaluators", "search_spaces")
PROBES = ("hasattr", "getattr", "getattr_static")
PARTS = (
    "task",
    "controller",
    "device",
    "runner",
    "space",
    "evaluator",
    "session",
    "hook",
    "plugin",
    "target",
    "method",
)
"""Words of a variable's or attribute's name that make it one of a study's parts."""

ALLOWED = {
    ("rankitect/contracts/capability.py", "part"): "the one place that looks",
    ("rankitect/config/parts.py", "plugin.config"): "the keys of a plain function are the fields of its config",
    ("rankitect/config/plugins.py", "plugin"): "whether a plug-in class declares its keys",
}


def probes(path: Path) -> list[tuple[str, int]]:
    """The subjects of all probes of a file, with their lines."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = [(node, node.func.id if isinstance(node.func, ast.Name) else _attribute(node.func)) for node in calls]
    return [(ast.unparse(node.args[0]), node.lineno) for node, name in names if name in PROBES and node.args]


def _attribute(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else ""


def about_a_part(subject: str) -> bool:
    """Whether the last name of an expression is that of a part: `parts.task`, `self._task`, `controller`."""
    words = subject.rpartition(".")[2].lower().strip("_").split("_")
    return subject.partition(".")[0] in PARTS or any(word in PARTS for word in words)


def files() -> list[Path]:
    """The package without the links to the plug-ins, which have folders of their own."""
    linked = {link.name for link in (ROOT / "rankitect").iterdir() if link.is_symlink()}
    found = [path for place in PLACES for path in sorted((ROOT / place).rglob("*.py"))]
    return [p for p in found if not (p.is_relative_to(ROOT / "rankitect") and p.relative_to(ROOT).parts[1] in linked)]


def test_no_part_is_probed() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {subject}"
        for path in files()
        for subject, line in probes(path)
        if about_a_part(subject) and (path.relative_to(ROOT).as_posix(), subject) not in ALLOWED
    ]
    assert not wrong, "ask with rankitect.contracts.offers or require"


def test_every_exception_is_still_needed() -> None:
    there = {(path.relative_to(ROOT).as_posix(), subject) for path in files() for subject, _ in probes(path)}
    assert set(ALLOWED) <= there


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("hasattr(self._task, 'limits')", True),
        ("getattr(parts.task, 'record', None)", True),
        ("getattr(plugins['controller'].target, 'trains', False)", True),
        ("inspect.getattr_static(device, 'export')", True),
        ("hasattr(os, 'sched_getaffinity')", False),
        ("getattr(block, field.name)", False),
    ],
)
def test_it_knows_a_probe_when_it_sees_one(code: str, wrong: bool, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(code)
    ((subject, _),) = probes(tmp_path / "code.py")
    assert about_a_part(subject) == wrong
