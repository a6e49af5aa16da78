"""Draws the rooms and who imports whom into docs/architecture.md, from the source.

    python docs/draw_imports.py             write the drawing anew
    python docs/draw_imports.py --check     exit code 1 where it is out of date

The order of the rooms is that of the import rule in pyproject.toml. Imports inside functions, imports for type checkers
and names of modules in strings all count. An arrow that follows from others (A to C, where A reaches C by way of B) is
left out of the drawing, but not out of the table below it. An import that points upward would be red and dotted.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._code import edges, read_modules

__all__ = ["BEGIN", "END", "drawing", "layers", "main", "room_imports"]

BEGIN, END = "<!-- imports: begin (python docs/draw_imports.py) -->", "<!-- imports: end -->"
ROOT = Path(__file__).resolve().parent.parent
_PAGE = ROOT / "docs" / "architecture.md"
_COMMANDS = "commands"


def layers(root: Path = ROOT) -> list[list[str]]:
    """The rooms of the import rule, from top to bottom; those of one line together."""
    rule = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][0]
    return [[room.strip().strip("()") for room in line.replace(":", "|").split("|")] for line in rule["layers"]]


def room_imports(root: Path = ROOT) -> dict[str, set[str]]:
    """The rooms that each room imports. The files that are commands count as one room."""
    order = layers(root)
    commands = {room for line in order if "search" in line or "compare" in line for room in line}
    modules = read_modules(root)

    def room(module: str) -> str:
        name = module.split(".")[1] if "." in module else ""
        return _COMMANDS if name in commands else name

    imports: dict[str, set[str]] = {}
    for module, imported in edges(modules, strings=True).items():
        if room(module):  # not the package's own __init__, which looks `search` up only when it is asked for
            imports.setdefault(room(module), set()).update(room(other) for other in imported if room(other))
    return {name: others - {name} for name, others in imports.items()}


def drawing(root: Path = ROOT) -> str:
    """The drawing and the table, as Markdown."""
    imports = room_imports(root)
    order = [[_COMMANDS], *(line for line in layers(root) if "search" not in line and "compare" not in line)]
    order = [[room for room in line if room in imports] for line in order]
    place = {room: position for position, line in enumerate(order) for room in line}
    down = {room: {o for o in others if place[o] > place[room]} for room, others in imports.items()}
    upward = [(room, o) for room, others in imports.items() for o in others if place[o] <= place[room]]
    lines = ["```mermaid", "flowchart TB"]
    for position, line in enumerate(order):
        boxes = "; ".join(f"r_{room}[{room}]" for room in line)  # "graph" alone would be a keyword of Mermaid
        lines.append(f"    subgraph row{position}[ ]\n        {boxes}\n    end" if len(line) > 1 else f"    {boxes}")
    arrows = [(room, other) for line in order for room in line for other in sorted(_direct(room, down))]
    lines += [f"    r_{room} --> r_{other}" for room, other in arrows]
    for number, (room, other) in enumerate(sorted(upward), len(arrows)):
        lines += [f"    r_{room} -. upward .-> r_{other}", f"    linkStyle {number} stroke:red"]
    lines += ["```", ""]
    lines += ["| room | imports |", "| --- | --- |"]
    for line in order:
        for room in line:
            others = sorted(imports[room], key=lambda other: (place[other], other))
            lines.append(f"| `{room}` | {', '.join(others) or 'nothing'} |")
    return "\n".join(lines)


def _direct(room: str, down: Mapping[str, set[str]]) -> set[str]:
    """The rooms that a room reaches in no other way than by importing them itself."""
    by_way = {end for other in down[room] for end in _reached(other, down)}
    return down[room] - by_way


def _reached(room: str, down: Mapping[str, set[str]]) -> set[str]:
    """All rooms below a room that it leads to."""
    return down[room] | {end for other in down[room] for end in _reached(other, down)}


def main(arguments: list[str]) -> int:
    """Write the drawing into the page, or check it."""
    text = _PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    fresh = f"{before}{BEGIN}\n{drawing()}\n{END}{after}"
    if "--check" in arguments:
        return int(fresh != text)
    _PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
