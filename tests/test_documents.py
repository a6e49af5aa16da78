"""The one reader of JSON and YAML: what is refused, in which words, and that everything else is read as it stands."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import rankitect
from rankitect.documents import as_kind, parse_json, parse_yaml, read_json, read_text, read_yaml
from rankitect.errors import AssetError, ConfigError, safe, short

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(plain)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


in_yaml = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("ab 1:-#'\"é"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc", min_size=1), inner),
    max_leaves=8,
)


@given(in_yaml)
def test_yaml_is_read_as_it_was_written(value: Any) -> None:
    assert parse_yaml(yaml.safe_dump(value, allow_unicode=True)) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('["' * 100_000, "is no JSON"),
        ("[" * 100_000, "is nested more than 200 deep"),
        ("[" * 300 + "]" * 300, "is nested more than 200 deep"),
        ('{"a":' * 100_000, "is nested more than 200 deep"),
        ("9" * 5_000, "has a number that is too long"),
        ("9" * 101, "has a whole number of more than 100 digits"),
        ("[NaN]", "has nan where a finite number belongs"),
        ("[-Infinity]", "has -inf where a finite number belongs"),
        ("[1e999]", "has inf where a finite number belongs"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "has the key 'c' twice"),
        (r'["\ud800"]', "half of a surrogate pair"),
        (r'{"\udfff": 1}', "half of a surrogate pair"),
        ("[1]".encode("utf-16"), "is UTF-16, and must be text in UTF-8"),
        (b'["\xc3"]', "is no text in UTF-8: byte 2 is 0xc3"),
        (b"PK\x03\x04....", "is a zip archive"),
        (b"", "is no JSON"),
    ],
)
def test_json_that_no_program_can_use_is_refused_in_one_sentence(text: str | bytes, said: str) -> None:
    with pytest.raises(AssetError, match=r"^model\.json ") as error:
        parse_json(text, called="model.json", error=AssetError, advice="Copy it again.")
    assert said in str(error.value)
    assert str(error.value).endswith(". Copy it again.")
    assert len(str(error.value)) <= 500


_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)


_MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40))
_MERGES_INSIDE = (
    "a: "
    + "".join(f"{{<<: [&m{i} " for i in range(40))
    + "{x: 1}"
    + "".join(f", *m{i}]}}" for i in reversed(range(40)))
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_MERGES, "merges more than 200,000 values"),
        (_MERGES_INSIDE, "merges more than 200,000 values"),
        ("[" * 100_000, "is nested more than 200 deep"),
        ("- " * 20_000 + "x", "is nested more than 200 deep"),
        (_BOMB, "holds more than 200,000 values"),
        ("a: &a [1, *a]", "recursive"),
        ('x: !!python/object/apply:os.system ["true"]', "tag"),
        ("a: 1\nb: 2\na: 3", "has the key 'a' twice"),
        ("a: .inf", "has inf where a finite number belongs"),
        ("a: 1.0e+999", "finite number"),
        ("a: " + "9" * 5_000, "a number is too long"),
        ("? [a]\n: b", "has a key in line 1 that is neither a text nor a number"),
        ("a: !!bool 7", "a tag (!!) or an escape"),
        ('"\\UFFFFFFFF"', "a tag (!!) or an escape"),
        ('"\\ud800"', "half of a surrogate pair"),
        ("a: *nope", "undefined alias"),
        ("a: \x00", "unacceptable character"),
        ("a: 1\n b: 2", "is no YAML in line 2"),
    ],
)
def test_yaml_that_builds_or_grows_without_bound_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"^my\.yaml ") as error:
        parse_yaml(text, called="my.yaml")
    assert said in str(error.value)


def test_yaml_reads_numbers_and_dates_as_a_configuration_does() -> None:
    value = {"a": 1e-4, "b": -2e5, "c": "2024-01-01", "d": "e5", "e": 16, "f": True}
    assert parse_yaml("a: 1e-4\nb: -2E5\nc: 2024-01-01\nd: e5\ne: 0x10\nf: yes") == value
    assert parse_yaml("x: &x {a: 1}\ny: {<<: *x, b: 2}") == {"x": {"a": 1}, "y": {"a": 1, "b": 2}}


@pytest.mark.parametrize("name", ["folder", "missing", "pipe", "loop", "nul\x00", "x" * 300, "\ud800"])
def test_what_is_no_file_is_named_as_what_it_is_and_nothing_waits_for_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    said = {
        "folder": "is a folder", "missing": "does not exist", "pipe": "is no regular file", "loop": "symbolic links",
        "nul\x00": "null byte", "x" * 300: "name too long", "\ud800": "surrogates not allowed",
    }[name]  # fmt: skip
    for read in (read_json, read_yaml, read_text):
        with pytest.raises(ConfigError, match=said):
            read(tmp_path / name)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(2**30)  # a hole: takes no space
    with pytest.raises(ConfigError, match=r"MiB, of which at most 0\.25 MiB are read"):
        read_yaml(large)
    with pytest.raises(ConfigError, match="at most 256 MiB are read"):
        read_json(large)


class _Form(BaseModel):
    name: str
    sizes: list[int]


def test_content_of_another_form_is_told_by_its_first_wrong_key(tmp_path: Path) -> None:
    file = tmp_path / "form.json"
    file.write_text('{"name": "a", "sizes": [1, 2]}')
    assert read_json(file, _Form) == _Form(name="a", sizes=[1, 2])
    file.write_text('{"name": "a", "sizes": [1, "x"]}')
    with pytest.raises(ConfigError, match=r"sizes.1: Input should be a valid integer.*, not 'x'"):
        read_json(file, _Form)
    with pytest.raises(ConfigError, match="must hold a mapping of names to values, not a list"):
        as_kind([], dict[str, Any], "config.json")


@given(st.text(), st.integers(20, 60))
def test_a_text_for_a_message_is_short_and_holds_nothing_that_a_terminal_obeys(text: str, most: int) -> None:
    told = short(safe(text), most)
    assert len(told) <= most
    assert all(c.isprintable() or c == "\n" for c in told)
    if text.replace("\n", "").isprintable() and len(text) <= most:
        assert told == text


def test_a_file_is_read_where_the_system_knows_no_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}')
    for flag in ("O_NONBLOCK", "O_CLOEXEC", "O_NOFOLLOW"):
        monkeypatch.delattr(os, flag, raising=False)
    package = Path(rankitect.__path__[0])
    assert runpy.run_path(str(package / "documents.py"))["read_json"](tmp_path / "x.json") == {"a": 1}
    descriptor = runpy.run_path(str(package / "data" / "files.py"))["open_plain"](tmp_path / "x.json", os.O_RDONLY)
    assert os.read(descriptor, 9) == b'{"a": 1}'
    os.close(descriptor)
