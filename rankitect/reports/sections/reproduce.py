"""How to repeat the run, and with what it was made."""

from __future__ import annotations

from rankitect.reports.cards import Cell, Status, Table
from rankitect.reports.material import Material
from rankitect.reports.section import Facts, Section


class ReproduceSection(Section):
    """The command, the configuration, the versions, and one hash over all that decides the report."""

    id, short, order = "reproduce", "Repeat", 210

    def facts(self, material: Material) -> Facts:
        """Gather what the run records about how it was made."""
        summary, config, made_of = material.run.summary, material.run.config, material.reproduction
        about = [
            ("Space", summary.space),
            ("Task", summary.task),
            ("Controller", summary.controller),
            ("Seed", str(summary.seed)),
            ("Hash of architecture, code, configuration, data, seeds, versions, files", str(made_of["hash"])),
            *([("config.yaml (SHA-256)", str(made_of["config"])[:16])] if config else []),
        ]
        tables = [_table(("What", "Value"), about)]
        if summary.versions:
            tables.append(_table(("Package", "Version"), sorted(summary.versions.items()), "Versions"))
        recorded = {"the command": summary.reproduce, "versions": summary.versions, "config.yaml": config}
        missing = [name for name, there in recorded.items() if not there]
        code = [(title, text) for title, text in (("Command", summary.reproduce), ("config.yaml", config)) if text]
        words = {"command": summary.reproduce, "unrecorded": missing}
        return Facts(Status.WARN if missing else Status.PASS, words, tuple(tables), code=tuple(code))


def _table(columns: tuple[str, str], rows: list[tuple[str, str]], caption: str = "") -> Table:
    return Table(columns, tuple((Cell(k), Cell(v)) for k, v in rows), caption=caption, sortable=False)


SECTION = ReproduceSection()
