"""Several values a row: separators, and lists that are written as text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankitect.data.ranking.lists import _taken_apart
from rankitect.errors import DataError
from tests.data.ranking.written import ROWS, read, read_typed, rows, text, texts


def tags(folder: Path, values: list[str], **more: Any) -> list[list[str]]:
    """What is read from a TSV whose rows hold these values in turn: of the first of them."""
    table = {"label": "y", "multi_hot": [{"name": "u", **more}]}
    data = read(folder, text(rows(u=[values[i % len(values)] for i in range(ROWS)]), sep="\t"), "tsv", table=table)
    return texts(data)[: len(values)]


@pytest.mark.parametrize("separator", [None, "|", ",", ", ", ";"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('["x", "y"]', ["x", "y"]),
        ('["x","y"]', ["x", "y"]),
        ("['x', 'y']", ["x", "y"]),
        ("""["it's", 'x']""", ["it's", "x"]),
        (' [ "x" , "y" ] ', ["x", "y"]),
        ('["x"]', ["x"]),
        ("('x', 'y')", ["x", "y"]),
        ("{'x', 'y'}", ["x", "y"]),
        ("{x,y}", ["x", "y"]),
        ("[x, y]", ["x", "y"]),
        ("[1, 2.0, 3]", ["1", "2", "3"]),
        ('["a, b", "c|d", "e\\"f", "\\u00e9"]', ["a, b", "c|d", 'e"f', "é"]),
        ("['it\\'s']", ["it's"]),
        ('["x", null]', ["x"]),
        ("['x', None]", ["x"]),
        ("[true, False]", ["true", "false"]),
        ('["x", "", " y "]', ["x", "y"]),
        ("WrappedArray(x, y)", ["x", "y"]),
        ("List(x, y)", ["x", "y"]),
        ("frozenset({'x'})", ["x"]),
        ("set()", [""]),
        ("array(['x', 'y'], dtype=object)", ["x", "y"]),
        ("np.array([1, 2])", ["1", "2"]),
        ("Index(['x', 'y'], dtype='object', name='u')", ["x", "y"]),
        ("scala.collection.immutable.Set(1, 2)", ["1", "2"]),
        ("[]", [""]),
        ("[ ]", [""]),
    ],
)
def test_lists_as_text_are_lists(value: str, expected: list[str], separator: str | None, tmp_path: Path) -> None:
    assert tags(tmp_path, [value, '["x"]'], separator=separator)[0] == expected


@pytest.mark.parametrize(
    "value",
    [
        *('["x", "y"', '"x", "y"]', "['x' 'y']", "[1 2 3]", '[["x"], ["y"]]', '{"a": 1}', "[a b, c]", '["x" y]'),
        *("Strange(['x'])", "[[1], [2]]", "List(x, List(y))", "array([[1], [2]])", "List(x y)", "Bag({x, y})"),
        *('["x",, "y"]', "[,]", "[" * 3000, '["\\ud800"]', "['x", "x']"),
    ],
)
@pytest.mark.parametrize("separator", [None, ","])
def test_half_a_list_is_a_bad_row(value: str, separator: str | None, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 3, column 'u': found .*a list such as"):
        tags(tmp_path, ["x", value], separator=separator)


@pytest.mark.parametrize(
    ("value", "separator", "expected"),
    [
        ("x, y", ",", ["x", "y"]),
        (" x ;y; ", ";", ["x", "y"]),
        ("x | y", None, ["x", "y"]),
        ("(no genres listed)", None, ["(no genres listed)"]),
        ("Casino (1995)|b", None, ["Casino (1995)", "b"]),
        ("Love(Live)|f(x)", None, ["Love(Live)", "f(x)"]),
        ("Set(a)|Set(b)", None, ["Set(a)", "Set(b)"]),
        ("[OC]|[Serious]", None, ["[OC]", "[Serious]"]),
        ("x y", " ", ["x", "y"]),
        ("x, y", "|", ["x, y"]),
    ],
)
def test_values_between_separators_are_trimmed(
    value: str, separator: str | None, expected: list[str], tmp_path: Path
) -> None:
    assert tags(tmp_path, [value], separator=separator) == [expected]


def test_another_separator_than_the_default_is_named(tmp_path: Path) -> None:
    for other in (",", ";"):
        with pytest.raises(DataError, match=rf"no value holds the separator '\|', but 30 of 60 hold '{other}'"):
            tags(tmp_path, [f"x{other} y", "y"])


@pytest.mark.parametrize(
    ("other", "values"), [(",", "x,y"), (";", "x; y"), ("\t", "x\ty"), ("/", "x/y"), (" ", "x y z")]
)
@pytest.mark.parametrize("odd", [{5: "a|b"}, dict.fromkeys(range(15), "a|b")])
def test_a_few_values_with_the_default_separator_do_not_hide_another(
    other: str, values: str, odd: dict[int, str], tmp_path: Path
) -> None:
    table = {"label": "y", "multi_hot": ["u"]}
    content = text(rows(u=[f'"{odd.get(i, values)}"' for i in range(ROWS)]))
    told = re.escape(f"but {ROWS - len(odd)} of 60 hold {other!r}")
    with pytest.raises(DataError, match=told):
        read(tmp_path, content, table=table)
    table = {"label": "y", "multi_hot": [{"name": "u", "separator": "|"}]}
    assert texts(read(tmp_path, content, table=table))[ROWS - 1][0] == values


def test_blanks_in_some_words_are_no_separator(tmp_path: Path) -> None:
    assert tags(tmp_path, ["new york", "rome", "a/b", "paris|new york", "berlin"])[0] == ["new york"]


def test_lists_of_parquet_and_lists_as_text_are_the_same(tmp_path: Path) -> None:
    lists = [["x", "y"], [], None, ["a, b"], ["1", "2"]] * 12
    table = {"label": "y", "multi_hot": ["u"]}
    written = [json.dumps(value) for value in lists]
    as_text = read(tmp_path, text(rows(u=written), sep="\t"), "tsv", table=table)
    for kind in (
        pa.list_(pa.string()),
        pa.large_list(pa.large_string()),
        pa.list_(pa.dictionary(pa.int8(), pa.string())),
    ):
        typed = read_typed(tmp_path, {"u": pa.array(lists, kind)}, table=table)
        assert texts(typed) == texts(as_text)


TAGS = st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6), max_size=4)


@given(values=TAGS)
def test_what_json_and_python_write_is_read_back(values: list[str]) -> None:
    for written in (json.dumps(values), json.dumps(values, ensure_ascii=False), repr(values), repr(tuple(values))):
        assert _taken_apart(written.encode(), b"|") == [value.encode() for value in values], written
