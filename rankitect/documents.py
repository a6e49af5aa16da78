"""The one reader of JSON and YAML, for files that anybody may have written.

Whatever is wrong ends in one sentence of a `RankitectError`: a file that is missing, a folder or a pipe, too large, in
another encoding or cut; brackets nested without end; numbers that no program can use; a key that is there twice; YAML
that builds objects or expands without bound; content of another form than the pydantic type that the caller names.

    config = read_json(folder / "config.json", dict[str, Any], AssetError)
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rankitect.errors import ConfigError, RankitectError, safe, short

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = [
    "AT_ONCE",
    "YAML_BYTES",
    "as_kind",
    "parse_json",
    "parse_yaml",
    "problem_of",
    "read_json",
    "read_text",
    "read_yaml",
]

T = TypeVar("T")

AT_ONCE = sum({getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY")})
"""Flags of `os.open`, as far as the system has them: bytes are read as they are, no other program gets the file, and a
pipe that nobody writes to is not waited for."""
JSON_BYTES = 2**28
"""What a JSON file may have, bytes; the largest in use are tokenizers of tens of MiB."""
YAML_BYTES = 2**18
"""What a YAML file may have, bytes. They are written by hand, and YAML is slow to read."""
_DEEPEST = 200
"""Brackets inside each other. Whatever walks the data afterwards, by recursion, has to stand it."""
_MOST_VALUES = 200_000
"""Values of a YAML file, where each alias stands for all that it names."""
_BITS = 333
"""Bits of a whole number: 100 digits."""
_OTHER_FORMATS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x1f\x8b": "gzip", b"PK\x03\x04": "a zip archive"}
_TAG = "tag:yaml.org,2002:"


class _Unfit(ValueError):
    """What is wrong with a file or text, as a sentence without its subject and full stop."""


def read_json(
    path: Path,
    kind: type[T] = object,  # type: ignore[assignment]
    error: type[RankitectError] = ConfigError,
    *,
    finite: bool = True,
    advice: str = "",
) -> T:
    """The content of a JSON file.

    Args:
        path: The file.
        kind: What it must hold: a pydantic model, or any type that pydantic checks; `object` for anything.
        error: What to raise.
        finite: Whether NaN, Infinity and numbers that are too large for a float are refused.
        advice: A sentence for the end of a message: what to do.

    Raises:
        RankitectError: Of the type `error`; names the file and what is wrong with it.
    """
    return _told(lambda: _fitted(_json(_text(path, JSON_BYTES), finite), kind), path, error, advice)


def read_yaml(
    path: Path,
    kind: type[T] = object,  # type: ignore[assignment]
    error: type[RankitectError] = ConfigError,
    *,
    advice: str = "",
) -> T:
    """The content of a YAML file: texts, numbers, lists and mappings; dates are read as text. Arguments and errors are
    those of `read_json`."""
    return _told(lambda: _fitted(_yaml(_text(path, YAML_BYTES)), kind), path, error, advice)


def read_text(
    path: Path, error: type[RankitectError] = ConfigError, *, most: int = JSON_BYTES, advice: str = ""
) -> str:
    """A whole text file in UTF-8.

    Args:
        path: The file.
        error: What to raise.
        most: Bytes that it may have.
        advice: What to do, for messages.

    Raises:
        RankitectError: Of the type `error`: it is missing, no regular file, too large, or in another encoding.
    """
    return _told(lambda: _text(path, most), path, error, advice)


def parse_json(
    text: str | bytes,
    kind: type[T] = object,  # type: ignore[assignment]
    called: object = "the text",
    error: type[RankitectError] = ConfigError,
    *,
    finite: bool = True,
    advice: str = "",
) -> T:
    """The value that a JSON text stands for.

    Args:
        text: The text; bytes in UTF-8.
        kind: What it must hold.
        called: What to call the text in messages.
        error: What to raise.
        finite: Whether numbers that are not finite are refused.
        advice: What to do, for messages.

    Raises:
        RankitectError: Of the type `error`.
    """
    return _told(lambda: _fitted(_json(_decoded(text), finite), kind), called, error, advice)


def parse_yaml(
    text: str | bytes,
    kind: type[T] = object,  # type: ignore[assignment]
    called: object = "the text",
    error: type[RankitectError] = ConfigError,
    *,
    advice: str = "",
) -> T:
    """The value that a YAML text stands for. Arguments and errors are those of `parse_json`."""
    return _told(lambda: _fitted(_yaml(_decoded(text)), kind), called, error, advice)


def as_kind(
    value: object, kind: type[T], called: object, error: type[RankitectError] = ConfigError, *, advice: str = ""
) -> T:
    """Plain data as a pydantic model, or as any type that pydantic checks.

    Args:
        value: The data.
        kind: The type.
        called: What to call the data in messages.
        error: What to raise.
        advice: What to do, for messages.

    Raises:
        RankitectError: Of the type `error`; names the first key that is wrong.
    """
    return _told(lambda: _fitted(value, kind), called, error, advice)


def problem_of(error: ValidationError) -> str:
    """The first thing that pydantic found wrong: where, what is wanted, and what is there."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(key) for key in first["loc"])
    there = "" if first["type"] == "missing" else f", not {_named(first['input'])}"
    wanted = first["msg"].removeprefix("Value error, ")
    return f"{short(safe(where), 80)}{': ' if where else ''}{short(wanted, 160)}{there}"


def _told(work: Callable[[], T], called: object, error: type[RankitectError], advice: str) -> T:
    """What some work gives; whatever it finds wrong becomes an error of the caller's type."""
    try:
        return work()
    except FileNotFoundError:
        why = "does not exist"
    except IsADirectoryError:
        why = "is a folder, not a file"
    except OSError as problem:
        why = f"cannot be read: {problem.strerror or problem}"
    except RecursionError:
        why = f"is nested more than {_DEEPEST} deep"
    except _Unfit as problem:
        why = str(problem)
    except ValueError as problem:  # a file name that no file can have
        why = f"cannot be read: {problem}"
    raise error(f"{short(str(called), 120)} {short(why, 250)}.{f' {advice}' if advice else ''}") from None


def _text(path: Path, most: int) -> str:
    with open(os.open(path, os.O_RDONLY | AT_ONCE), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise _Unfit("is no regular file")
        if facts.st_size > most:
            raise _Unfit(f"has {facts.st_size / 2**20:,.1f} MiB, of which at most {most / 2**20:,.4g} MiB are read")
        return _decoded(file.read(most))


def _decoded(data: str | bytes) -> str:
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    for start, name in _OTHER_FORMATS.items():
        if data.startswith(start):
            raise _Unfit(f"is {name}, and must be text in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise _Unfit(f"is no text in UTF-8: byte {problem.start:,} is 0x{data[problem.start]:02x}") from None


def _json(text: str, finite: bool) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as problem:
        raise _Unfit(f"is no JSON: {problem}") from None
    except _Unfit:
        raise
    except ValueError:  # of more digits than Python converts
        raise _Unfit("has a number that is too long") from None
    _check_shape(value, finite=finite, surrogates="\\ud" in text or "\\uD" in text)
    return value


def _yaml(text: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    try:
        value = yaml.load(text, _yaml_loader())  # a SafeLoader
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise _Unfit(f"is no YAML{where}: {problem.problem or problem.context}") from None
    except yaml.YAMLError as problem:  # characters that YAML forbids
        raise _Unfit(f"is no YAML: {' '.join(str(problem).split())}") from None
    except _Unfit:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # PyYAML trusts tags and escapes
        wrong = "a tag (!!) or an escape does not fit its value, or a number is too long"
        raise _Unfit(f"is no YAML that can be read: {wrong}") from None
    _check_shape(value, most=_MOST_VALUES, finite=True, surrogates=True)
    return value


def _fitted(value: Any, kind: Any) -> Any:
    if kind is object:
        return value
    if kind == dict[str, Any]:  # the commonest; large ones need not be copied
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise _Unfit(f"must hold a mapping of names to values, not {_named(value)}")
        return value
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as problem:
        raise _Unfit(f"is not of the form that is expected: {problem_of(problem)}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _Unfit(f"has the key {_twice(key for key, _ in pairs)} twice")
    return value


def _twice(keys: Iterable[Any]) -> str:
    seen: set[Any] = set()
    return next((short(repr(key), 60) for key in keys if key in seen or seen.add(key)), "")  # type: ignore[func-returns-value]


def _check_shape(value: Any, *, most: int | None = None, finite: bool, surrogates: bool) -> None:
    """Refuse data that are nested too deep or without end, that are too many, that hold half of a surrogate pair, or
    numbers that nothing can be computed with."""
    level, depth, count = [value], 0, 0
    while level:
        if depth > _DEEPEST:
            raise _Unfit(f"is nested more than {_DEEPEST} deep")
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                if surrogates and not item.isascii():
                    _check_text(item)
            elif isinstance(item, dict):
                below += item.values()
                if surrogates:
                    below += item
            elif isinstance(item, list):
                below += item
            elif isinstance(item, float):
                if finite and not math.isfinite(item):
                    raise _Unfit(f"has {item} where a finite number belongs")
            elif isinstance(item, int) and item.bit_length() > _BITS:
                raise _Unfit("has a whole number of more than 100 digits")
            if most is not None and count + len(below) > most:
                raise _Unfit(f"holds more than {most:,} values")
        count, level, depth = count + len(below), below, depth + 1


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Unfit("has a text with half of a surrogate pair in it") from None


@cache
def _yaml_loader() -> type:
    """A SafeLoader that builds what JSON has, and refuses a key that is there twice. As in configurations, 1e-4 is a
    number and a date is text."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [(tag, pattern) for tag, pattern in pairs if tag != f"{_TAG}timestamp"]
            for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    def size(node: Any, sizes: dict[int, int]) -> int:
        """Pairs of a mapping once those that it merges are in it, equal ones each time, as PyYAML keeps them."""
        if id(node) not in sizes:
            targets = [value for key, value in node.value if key.tag == f"{_TAG}merge"]
            merged = [m for t in targets for m in (t.value if isinstance(t, yaml.SequenceNode) else [t])]
            more = sum(size(m, sizes) for m in merged if isinstance(m, yaml.MappingNode))
            sizes[id(node)] = len(node.value) - len(targets) + more
        return sizes[id(node)]

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        if size(node, {}) > _MOST_VALUES:
            raise _Unfit(f"merges more than {_MOST_VALUES:,} values in line {node.start_mark.line + 1}")
        keys = [loader.construct_object(key, deep=True) for key, _ in node.value if key.tag != f"{_TAG}merge"]
        if not all(isinstance(key, str | int | float | bool) for key in keys):
            raise _Unfit(f"has a key in line {node.start_mark.line + 1} that is neither a text nor a number")
        if len(set(keys)) < len(keys):
            again = next(n for n, key in enumerate(keys) if key in keys[:n])
            line = [key for key, _ in node.value if key.tag != f"{_TAG}merge"][again].start_mark.line
            raise _Unfit(f"has the key {short(repr(keys[again]), 60)} twice, again in line {line + 1}")
        return dict(loader.construct_mapping(node, deep=True))

    Loader.add_constructor(f"{_TAG}map", mapping)
    for name in ("timestamp", "binary", "set", "omap", "pairs"):
        Loader.add_constructor(f"{_TAG}{name}", Loader.construct_undefined)
    exponent = re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    Loader.add_implicit_resolver(f"{_TAG}float", exponent, list("-+0123456789"))
    return Loader


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _named(value: Any) -> str:
    """A value for a message: its kind where it may be large."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else short(repr(value), 60)
