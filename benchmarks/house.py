"""Figures of the code itself: sizes, circles, repeated names, comments. Nothing is imported; the source is read.

    python benchmarks/house.py                          of this checkout
    python benchmarks/house.py /path/to/another         of another one
    python benchmarks/house.py out=house.json           also as JSON
    python benchmarks/house.py against=house.json       beside earlier figures

Lines are lines of a file as an editor shows them. Functions and classes count from their first line (decorators left
out) to their last. A circle is a group of modules that import each other, imports inside functions and those for type
checkers included.
"""

from __future__ import annotations

import ast
import io
import json
import statistics
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._code import PACKAGE, Module, circles, edges, read_modules

__all__ = ["figures", "main"]

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_DIRECTIVES = ("# noqa", "# type:", "# fmt:", "# pragma")


def figures(root: Path) -> dict[str, Any]:
    """The figures of a checkout, by what they are of, in words."""
    modules = read_modules(root)
    files = sorted((module.lines, module.name) for module in modules.values())
    functions = sorted(_sizes(modules, _Function))
    classes = sorted(_sizes(modules, ast.ClassDef))
    names = Counter(node.name for module in modules.values() for node in module.tree.body if _is_public_class(node))
    total = sum(lines for lines, _ in files)
    documented = [text for text in map(ast.get_docstring, _public(modules)) if text]
    raising = [node for node in _public(modules) if isinstance(node, _Function) and _raises(node)]
    said = sum("Raises:" in (ast.get_docstring(node) or "") for node in raising)
    readme = root / "README.md"
    return {
        "files": len(files),
        "lines": total,
        "median lines of a file": int(statistics.median(lines for lines, _ in files)),
        "largest file": _shown(files[-1]),
        "files over 400 lines": sum(lines > 400 for lines, _ in files),
        "functions": len(functions),
        "median lines of a function": int(statistics.median(lines for lines, _ in functions)),
        "longest function": _shown(functions[-1]),
        "largest class": _shown(classes[-1]),
        "classes over 200 lines": sum(lines > 200 for lines, _ in classes),
        "most parameters of a function": _shown(max(_parameters(modules))),
        "public class names defined twice": sorted(name for name, count in names.items() if count > 1),
        "circles that run": circles(edges(modules, typing=False)),
        "circles, type checking included": circles(edges(modules)),
        "lines of reports": sum(m.lines for m in modules.values() if m.name.startswith(f"{PACKAGE}.reports")),
        "lines of the README": len(readme.read_text(encoding="utf-8").splitlines()),
        "comment lines per 1,000 lines": round(1000 * sum(map(_comments, modules.values())) / total, 1),
        "public functions and classes with a docstring, %": _percent(len(documented), len(list(_public(modules)))),
        "docstrings with Raises, %": _percent(sum("Raises:" in text for text in documented), len(documented)),
        "of public functions with a raise statement, docstrings with Raises, %": _percent(said, len(raising)),
    }


def _sizes(modules: Mapping[str, Module], kind: Any) -> Iterator[tuple[int, str]]:
    """Lines and name of every function or class."""
    for module in modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, kind):
                yield node.end_lineno - node.lineno + 1, f"{module.name}.{node.name}"  # type: ignore[attr-defined]


def _parameters(modules: Mapping[str, Module]) -> Iterator[tuple[int, str]]:
    for module in modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, _Function):
                arguments = node.args
                count = len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs])
                yield count, f"{module.name}.{node.name}"


def _is_public_class(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef) and not node.name.startswith("_")


def _public(modules: Mapping[str, Module]) -> Iterator[_Function | ast.ClassDef]:
    """Public functions and classes, and public methods of public classes."""
    for module in modules.values():
        for node in module.tree.body:
            if not isinstance(node, _Function | ast.ClassDef) or node.name.startswith("_"):
                continue
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (m for m in node.body if isinstance(m, _Function) and not m.name.startswith("_"))


def _raises(node: ast.AST) -> bool:
    """Whether a function raises something new itself."""
    return any(isinstance(inner, ast.Raise) and inner.exc is not None for inner in ast.walk(node))


def _comments(module: Module) -> int:
    """Lines with a comment for readers: tools' directives are not counted."""
    tokens = tokenize.generate_tokens(io.StringIO(module.text).readline)
    return sum(t.type == tokenize.COMMENT and not t.string.startswith(_DIRECTIVES) for t in tokens)


def _percent(part: int, whole: int) -> int:
    return round(100 * part / whole) if whole else 100


def _shown(size_and_name: tuple[int, str]) -> str:
    return f"{size_and_name[0]} ({size_and_name[1]})"


def _words(value: Any) -> str:
    if isinstance(value, list):
        items = [" - ".join(item) if isinstance(item, list) else str(item) for item in value]
        return f"{len(items)}: {'; '.join(items)}" if items else "0"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main(arguments: list[str]) -> None:
    """Print the figures of a checkout, beside earlier ones where asked for."""
    options = dict(word.split("=", 1) for word in arguments if "=" in word)
    folders = [word for word in arguments if "=" not in word]
    now = figures(Path(folders[0]) if folders else Path(__file__).resolve().parent.parent)
    if "out" in options:
        Path(options["out"]).write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    before = json.loads(Path(options["against"]).read_text(encoding="utf-8")) if "against" in options else None
    print("| figure | before | now |\n| --- | --- | --- |" if before else "| figure | |\n| --- | --- |")
    for name, value in now.items():
        cells = [_words(before.get(name, "")), _words(value)] if before else [_words(value)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
