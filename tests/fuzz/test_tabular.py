"""Tables of qualities that a search without training looks up: CSV files."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

from rankitect.evaluators.tabular import Column, read_table
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz

COLUMNS = {"accuracy": Column(column="acc"), "loss": Column(column="loss", direction="min")}
ODD = [
    "", " ", "nan", "-inf", "1e999", "1_0", "٣", "0x1", "1,5", "9 4", "94%", "\x1b[2J", "\ud800", "\x00", "+1", "1.",
]  # fmt: skip


def rows_of(text: str) -> list[list[str]]:
    """The cells of a CSV text, character by character, as RFC 4180 has them; a single LF or CR ends a row as well."""
    rows: list[list[str]] = []
    cells, cell, state = list[str](), "", "start"
    for at, c in enumerate(f"{text}\n"):
        if state == "quoted":
            cell, state = (cell, "quote") if c == '"' else (cell + c, state)
        elif c == '"' and state in ("start", "quote"):  # the first one opens; one behind another stands for itself
            cell, state = ("", "quoted") if state == "start" else (cell + c, "quoted")
        elif c == "," or c in "\r\n":
            if c == "," or cells or state != "start":
                cells.append(cell)
            if c != "," and cells:
                rows.append(cells)
            cells, cell, state = cells if c == "," else [], "", "start"
        else:
            assert state != "quote", f"character {at} stands behind a closed quote"
            cell, state = cell + c, "plain"
    assert not cells, "a quote is not closed"
    return rows


class TestTabular(Fuzz):
    """CSV tables of qualities."""

    cases = 300
    share = 2

    def make(self, random: Random) -> bytes:
        def quoted(cell: str) -> str:
            needed = any(c in cell for c in ',"\r\n')
            return '"' + cell.replace('"', '""') + '"' if needed or random.random() < 0.1 else cell

        header = random.sample(["arch", "acc", "loss", "index"], 4)
        if random.random() < 0.1:
            header[random.randrange(4)] = random.choice(["acc", "", "x" * 3000, "\x1b[2J"])
        rows = [header]
        for n in range(random.choice([1, 5, 5])):
            cells = [f"|a~{n}|", random.choice(['|b,"c"|', "|b\nc|", f"|b\u2028{n}|", f"|b~{n}|"]) + str(n)]
            values = {"arch": random.choice(cells), "acc": f"{90 + n}.25", "loss": f"{n}e-1", "index": str(n)}
            row = [values.get(name, "") for name in header]
            if random.random() < 0.1:
                row[random.randrange(4)] = random.choice(ODD)
            rows.append(row)
        end = random.choice(["\n", "\n", "\r\n", "\r"])
        text = end.join(",".join(map(quoted, row)) for row in rows) + random.choice(["", end, end * 2])
        content = text.encode("utf-8", "surrogatepass")
        return mutate.bytes_(random, content, 2) if random.random() < 0.6 else content

    def read(self, data: bytes, folder: Path) -> dict[str, tuple[float, ...]]:
        (folder / "table.csv").write_bytes(data)
        return read_table(folder / "table.csv", "arch", COLUMNS)

    def confirm(self, data: bytes, value: dict[str, tuple[float, ...]]) -> None:
        header, *rows = rows_of(data.decode("utf-8-sig"))
        assert all(header.count(name) == 1 for name in ("arch", "acc", "loss"))
        assert all(len(row) == len(header) for row in rows)
        places = [header.index(name) for name in ("arch", "acc", "loss")]
        cells = [[row[place] for place in places] for row in rows]
        assert all(re.fullmatch(r"\s*[-+]?[0-9.]+([eE][-+]?[0-9]+)?\s*", n) for _, *numbers in cells for n in numbers)
        assert value == {name: tuple(map(float, numbers)) for name, *numbers in cells}
        assert len(value) == len(rows)
