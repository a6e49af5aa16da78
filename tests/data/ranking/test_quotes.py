"""No quote swallows rows: each encloses its value, or its row is bad. Lines and rows add up."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankitect.data.ranking.lines import Dialect, count_rows, sort_out, without_ragged
from rankitect.errors import DataError
from tests.data.ranking.written import NAMES, ROWS, joined, read, rows, text, texts

SKIP = {"bad_rows": "skip", "bad_share": 0.2}


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ({5: '"red shoes', 25: '"red shoes'}, {"unclosed quote": 2}),
        ({5: 'red shoes"', 25: 'red shoes"'}, {"stray quote": 2}),
        ({5: '"red shoes', 25: 'blue shoes"'}, {"unclosed quote": 1, "stray quote": 1}),
        ({5: '5" nails', 25: '5" x 7" frame'}, {"stray quote": 2}),
        ({5: '"5" nails"', 25: '"a" "b"'}, {"stray quote": 2}),
        ({5: '"""a', 25: '""a'}, {"unclosed quote": 1, "stray quote": 1}),
        ({5: r'"a \"b\" c"', 25: r'"6\""'}, {"stray quote": 1, "unclosed quote": 1}),
        ({5: ' "a"', 25: '"a" '}, {"stray quote": 2}),
        ({5: '"a\nb"', 25: "a\rb"}, {"unclosed quote": 1, "stray quote": 1, "carriage return": 1}),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_quote_that_does_not_enclose_its_value_makes_its_row_bad(
    values: dict[int, str], kinds: dict[str, int], end: str, tmp_path: Path
) -> None:
    content = text(rows(u=values), end=end)
    with pytest.raises(DataError, match=r"log.csv, row 7: found a .*bad_rows=skip"):
        read(tmp_path, content)
    data = read(tmp_path, content, **SKIP)
    assert data.facts["bad_rows"] == kinds
    kept = [i for i in range(ROWS) if i not in values]
    assert joined(data, "labels").tolist() == [i % 2 for i in kept]
    assert texts(data) == [[f"u{i % 5}"] for i in kept]


def test_quotes_that_enclose_their_value_are_read(tmp_path: Path) -> None:
    values = {1: '"a, b"', 2: '"say ""hi"""', 3: '""', 4: '""""', 6: '""","""', 7: '"it\'s"', 8: '"ends with \\"'}
    data = read(tmp_path, text(rows(u=values)))
    told = ["a, b", 'say "hi"', "", '"', '","', "it's", "ends with \\"]
    assert [texts(data)[row] for row in values] == [[value] for value in told]
    assert data.facts["bad_rows"] == {}


def test_values_with_line_ends_are_read_where_the_schema_allows_them(tmp_path: Path) -> None:
    content = text(rows(u={5: '"a\nb"', 25: '"c\r\nd\n"', 26: '"e\rf"'}))
    data = read(tmp_path, content, newlines_in_values=True)
    assert joined(data, "labels").tolist() == [i % 2 for i in range(ROWS)]
    assert [texts(data)[row] for row in (5, 25, 26)] == [["a\nb"], ["c\r\nd\n"], ["e\rf"]]
    # There a stray quote leaves open which rows follow, so that it cannot be skipped.
    for values in ({5: '"red shoes', 25: '"red shoes'}, {5: '"red shoes'}, {5: 'a"b'}):
        with pytest.raises(DataError, match=r"row \d+: found a quote .*mend the file"):
            read(tmp_path, text(rows(u=values)), newlines_in_values=True, **SKIP)


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_quotes_mean_nothing_in_tsv_or_where_the_schema_says_so(kind: str, tmp_path: Path) -> None:
    values = {5: '"red shoes', 25: '"red shoes', 26: '"a"', 27: 'b"c"d'}
    more = {"quote": "none"} if kind == "csv" else {}
    data = read(tmp_path, text(rows(u=values), sep="," if kind == "csv" else "\t"), kind, **more)
    assert joined(data, "labels").tolist() == [i % 2 for i in range(ROWS)]
    assert [texts(data)[row] for row in values] == [[value] for value in values.values()]


def test_another_quote_can_be_chosen(tmp_path: Path) -> None:
    data = read(tmp_path, text(rows(u={1: "'a\tb'", 2: '"'}), sep="\t"), "tsv", quote="'")
    assert texts(data)[1:3] == [["a\tb"], ['"']]
    quoted = text([[f'"{value}"' for value in row] for row in rows()], [f'"{name}"' for name in NAMES], "\t")
    with pytest.raises(DataError, match=r"""row 2, column 'y': found '"0"', 0 or 1"""):
        read(tmp_path, quoted, "tsv")
    assert texts(read(tmp_path, quoted, "tsv", quote='"'))[1] == ["u1"]


@pytest.mark.parametrize("end", ["\n\n\n", "\r\n\r\n", "\n  \n \n", "\n \r\n", "\n\n "])
def test_blank_lines_are_no_rows(end: str, tmp_path: Path) -> None:
    table = text(rows()).rstrip("\n")
    data = read(tmp_path, table + end)
    assert joined(data, "labels").tolist() == [i % 2 for i in range(ROWS)]
    first, second = table.split("\n1,31,")
    data = read(tmp_path, first + "\n\n\n1,31," + second + end)
    assert joined(data, "labels").tolist() == [i % 2 for i in range(ROWS)]
    broken = first + "\n\n\n1,thirty-one," + second + end
    with pytest.raises(DataError, match="row 35, column 'x': found 'thirty-one'"):
        read(tmp_path, broken)


def test_line_ends_that_are_none_of_this_age(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 1: rows end with a carriage return alone.*Convert the file"):
        read(tmp_path, text(rows(), end="\r"))
    with pytest.raises(DataError, match="row 2: found a carriage return inside of a row"):
        read(tmp_path, text(rows(), end="\r\r\n"))


def test_a_ragged_row_may_hold_bytes_that_are_no_text(tmp_path: Path) -> None:
    content = text(rows(u={5: "\udcff,\udcfe"}))
    with pytest.raises(DataError, match=r"row 7: found 5 columns, 4 expected: '1,5,\\\\xff,\\\\xfe,1700000300'"):
        read(tmp_path, content)
    assert read(tmp_path, content, **SKIP).facts["bad_rows"] == {"column count": 1}


VALUE = st.text('a",\n\r \\', max_size=5)


def alone(line: str, delimiter: str) -> list[str] | None:
    """The values of one line as the standard library reads it, if its writer would have written it so."""
    try:
        values = next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return None
    return values if values and _may_be(values, line, delimiter) else None


def _may_be(values: list[str], line: str, delimiter: str) -> bool:
    """Whether a line is these values, each in quotes or not."""
    for value in values:
        written = [value] if '"' not in value and delimiter not in value else []
        written.append('"' + value.replace('"', '""') + '"')
        fits = [w for w in written if line.startswith(w) and line[len(w) : len(w) + 1] in ("", delimiter)]
        if not fits:
            return False
        line = line[len(max(fits, key=len)) + 1 :]
    return not line


@given(lines=st.lists(st.text('ab",\\ ', max_size=12), min_size=1, max_size=8), end=st.sampled_from(["\n", "\r\n"]))
def test_each_line_is_judged_by_itself(lines: list[str], end: str) -> None:
    block = "".join(line + end for line in lines).encode()
    rows = sort_out(block, 1, Dialect(), "log")
    judged = [alone(line, ",") for line in lines]
    blank = [not line.strip(" ") for line in lines]
    good = [i for i, values in enumerate(judged, 1) if values is not None and not blank[i - 1]]
    assert rows.lines.tolist() == good
    assert sorted(row.line for row in rows.bad) == [
        i for i, values in enumerate(judged, 1) if values is None and not blank[i - 1]
    ]
    assert rows.block.decode() == "".join(lines[i - 1] + end for i in good)
    assert count_rows(block, None) == len(lines)
    whole = without_ragged(rows, 2, Dialect())
    assert whole.lines.tolist() == [i for i in good if len(judged[i - 1] or []) == 2]
    assert len(whole.lines) + len(whole.bad) + sum(blank) == len(lines)


@given(table=st.lists(st.tuples(VALUE, VALUE), min_size=1, max_size=6))
def test_what_a_writer_of_csv_quotes_is_whole_again(table: list[tuple[str, str]]) -> None:
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(table)
    block = written.getvalue().encode()
    rows = sort_out(block, 1, Dialect(newlines=True), "log")
    assert (rows.block, rows.bad, len(rows.lines)) == (block, (), len(table))
    assert count_rows(block, b'"') == len(table)
