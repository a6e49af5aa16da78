"""What the site holds besides the pages in docs/: the front page, the pages of the root, and the reference.

Nothing is written into the source tree. MkDocs reads this file by its path (`hooks` in mkdocs.yml); nothing imports it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from flowcharts import with_drawings  # MkDocs finds the neighbours of a hook while it loads it
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
# Pages of the root, by their name in the site. Their links are relative to the root, those of a page to docs/.
ROOT_PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for page, source in ROOT_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=relative_to_docs(text)))
    modules = public_modules(ROOT / "rankitect")
    for module in modules:
        page = f"---\ntitle: {module}\n---\n\n::: {module}\n"
        files.append(File.generated(config, f"reference/{module}.md", content=page))
    files.append(File.generated(config, "reference/index.md", content=contents(modules)))
    return files


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Draw the flowcharts of a page."""
    return with_drawings(markdown)


def relative_to_docs(text: str) -> str:
    """Markdown of the root with its links as a page in docs/ has them."""
    text = re.sub(r"\]\(docs/", "](", text)
    for page, source in ROOT_PAGES.items():
        text = text.replace(f"]({source}", f"]({page}")
    return text


def public_modules(package: Path) -> list[str]:
    """Names of the modules of a package, plug-in rooms included, without those whose name begins with an underscore."""
    rooms = [package / room for room in ("search_spaces", "controllers", "evaluators")]  # links, not followed by rglob
    files = [*package.rglob("*.py"), *(file for room in rooms for file in room.glob("*.py"))]
    names = {".".join(file.relative_to(package.parent).with_suffix("").parts) for file in files}
    names = {name.removesuffix(".__init__") for name in names}
    return sorted(name for name in names if not any(part.startswith("_") for part in name.split(".")))


def contents(modules: list[str]) -> str:
    """The first page of the reference: every module under its room, with the first line of its docstring."""
    lines = ["# Reference", "", "Every public name, from the docstrings of the code.", ""]
    for module in modules:
        summary, depth = first_line(module), module.count(".")
        if depth <= 1:
            lines += ["", f"## [{module}]({module}.md)", "", summary, ""]
        else:
            lines.append(f"- [{module}]({module}.md): {summary}")
    return "\n".join(lines) + "\n"


def first_line(module: str) -> str:
    """The first line of a module's docstring, read without importing it."""
    path = ROOT.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n\n")[0].replace("\n", " ")
