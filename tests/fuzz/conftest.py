"""How many cases each fuzzer tries, and the table of what became of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz.harness import TOTAL, Fuzz, Outcome, tried_of


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Share the cases that are asked for among the readers that run."""
    readers = [item for item in items if isinstance(item, pytest.Function) and issubclass(item.cls or object, Fuzz)]
    if total := int(os.environ.get(TOTAL, 0)):
        shares = sum(item.cls.share for item in readers)
        for item in readers:
            item.fuzz_cases = max(1, round(total * item.cls.share / shares))  # type: ignore[attr-defined]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, and write it to the file that FUZZ_TABLE names."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    rows = [row for report in reports if report.when == "call" and (row := tried_of(report.user_properties))]
    if not rows or TOTAL not in os.environ:
        return
    rows.sort(key=lambda row: row["reader"])
    counted = ["cases", *(outcome.value for outcome in Outcome)]
    total = {"reader": "all", **{key: sum(row[key] for row in rows) for key in [*counted, "seconds"]}}
    total["longest"] = max(row["longest"] for row in rows)
    lines = [f"| reader | {' | '.join(counted)} | longest, s | ms a case |", "|---|" + "---:|" * (len(counted) + 2)]
    for row in [*rows, total]:
        each = 1000 * row["seconds"] / max(1, row["cases"])
        counts = " | ".join(f"{row[key]:,}" for key in counted)
        lines.append(f"| {row['reader']} | {counts} | {row['longest']:.1f} | {each:.1f} |")
    terminalreporter.write_line("")
    for line in lines:
        terminalreporter.write_line(line)
    if table := os.environ.get("FUZZ_TABLE"):
        Path(table).parent.mkdir(parents=True, exist_ok=True)
        Path(table).write_text("\n".join(lines) + "\n", encoding="utf-8")
