"""What can be read from the package's source without importing it: its modules and who imports whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PACKAGE", "Module", "circles", "edges", "read_modules"]

PACKAGE = "rankitect"


@dataclass(frozen=True)
class Module:
    """One source file.

    Attributes:
        name: Dotted name; a package's is that of its `__init__`.
        path: The file.
        text: Its source.
        tree: Its syntax tree.
    """

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """Lines of source."""
        return len(self.text.splitlines())


def read_modules(root: Path) -> dict[str, Module]:
    """Every module of the package in a checkout, by its name. The plug-in rooms are links inside the package.

    Args:
        root: The checkout.
    """
    modules = {}
    for path in _sources(root / PACKAGE):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        modules[name] = Module(name, path, text, ast.parse(text))
    return dict(sorted(modules.items()))


def _sources(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():  # follows links, which rglob of Python 3.11 does not
            yield from _sources(entry)
        elif entry.suffix == ".py":
            yield entry


def edges(modules: Mapping[str, Module], *, typing: bool = True, strings: bool = False) -> dict[str, set[str]]:
    """Who imports whom, wherever the import statement stands: at the top, or inside a function.

    Args:
        modules: The modules.
        typing: Count imports under `if TYPE_CHECKING` as well, which never run.
        strings: Count a string constant that is a module's or a member's dotted name as an import of that module.
    """
    return {name: set(_imported(module, modules, typing, strings)) - {name} for name, module in modules.items()}


def _imported(module: Module, modules: Mapping[str, Module], typing: bool, strings: bool) -> Iterator[str]:
    stack: list[ast.AST] = [module.tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and not typing and _is_type_checking(node.test):
            stack.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _known(alias.name, modules)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                # `from package import submodule` imports the submodule; any other name comes from the package itself.
                submodule = f"{node.module}.{alias.name}"
                yield from _known(submodule if submodule in modules else node.module, modules)
        elif strings and isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _named(node.value, modules)
        stack.extend(ast.iter_child_nodes(node))


def _is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _known(name: str, modules: Mapping[str, Module]) -> Iterator[str]:
    if name in modules:
        yield name


def _named(text: str, modules: Mapping[str, Module]) -> Iterator[str]:
    """The module that a dotted name is of or in; the bare name of the package is that of its logger."""
    if text.startswith(f"{PACKAGE}.") and all(part.isidentifier() for part in text.split(".")):
        yield from _known(text if text in modules else text.rpartition(".")[0], modules)


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (strongly connected components of more than one; Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph.get(name, ())):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:  # the root of a component, which is what was pushed since
            position = stack.index(name)
            group = sorted(stack[position:])
            del stack[position:]
            if len(group) > 1:
                groups.append(group)

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return sorted(groups)
