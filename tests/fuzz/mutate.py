"""Damage to inputs: what a truncated download, a careless editor or a hostile author leaves behind."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

__all__ = ["bytes_", "json_text", "name", "number", "odd", "repeated", "text", "tree"]

_HUGE = 5_000
"""Digits of a huge integer: more than Python reads without being told to (PEP 686's limit is 4,300)."""
_CONTROLS = "\x00\x07\x08\x1b[31m\r\n\t\x7f\x9b\u202e\ufeff\ud800"
_BYTES = (b"\x00", b"\xff", b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\x80", b"\xc3", b"\xed\xa0\x80", b"\r", b"\n",
          b'"', b"'", b"\\", b"{", b"}", b"[", b"]", b",", b":", b"-", b"\x1b[2J")  # fmt: skip


def repeated(random: Random, change: Callable[[Random, Any], Any], value: Any, most: int = 4) -> Any:
    """Apply a change none to several times; one input in ten or so stays whole."""
    for _ in range(random.choice([0, *range(1, most + 1), *range(1, most + 1)])):
        value = change(random, value)
    return value


def bytes_(random: Random, data: bytes, most: int = 4) -> bytes:
    """Flip bits, cut, repeat, insert, swap or overwrite pieces of a file."""
    return repeated(random, _damaged, data, most)


def _damaged(random: Random, data: bytes) -> bytes:
    at, to = sorted((random.randint(0, len(data)), random.randint(0, len(data))))
    short = min(to, at + random.choice([1, 2, 4, 8, 64]))
    kind = random.randrange(9)
    if kind == 0 and at < len(data):  # a bit
        return data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]
    if kind == 1:  # cut the end, as an interrupted copy does
        return data[:at]
    if kind == 2:  # leave a piece out
        return data[:at] + data[short:]
    if kind == 3:  # a piece twice
        return data[:to] + data[at:to] + data[to:]
    if kind == 4:  # noise
        return data[:at] + random.randbytes(short - at) + data[short:]
    if kind == 5:  # zeros, as a hole in a file has
        return data[:at] + bytes(short - at) + data[short:]
    if kind == 6:  # two halves swapped
        return data[at:] + data[:at]
    if kind == 7:  # a number of eight bytes that is huge or negative
        huge = random.choice([2**63 - 1, 2**64 - 1, 2**63, 2**31, 2**32 - 1, 0]).to_bytes(8, "little")
        return data[:at] + huge + data[at + 8 :]
    return data[:at] + random.choice(_BYTES) * random.choice([1, 1, 3]) + data[at:]


def text(random: Random, value: str, most: int = 4) -> str:
    """Cut, repeat, swap and insert characters."""

    def damaged(random: Random, value: str) -> str:
        at, to = sorted((random.randint(0, len(value)), random.randint(0, len(value))))
        return random.choice([
            lambda: value[:at],
            lambda: value[:at] + value[to:],
            lambda: value[:to] + value[at:to] + value[to:],
            lambda: value[:at] + random.choice(_CONTROLS) + value[at:],
            lambda: value[:at] + random.choice("\"'\\{}[]()<>,:;=&|!?*#%@$~ é漢🙂") + value[at:],
            lambda: value[:at] + random.choice(["../", "/", "${oc.env:HOME}", "%s", "${x}", "1e999"]) + value[at:],
            lambda: value.swapcase(),
            lambda: value[:at] + "A" * random.choice([300, 5_000]) + value[at:],
        ])()  # fmt: skip

    return repeated(random, damaged, value, most)


def name(random: Random) -> str:
    """A name that nobody expects."""
    return random.choice([
        "", " ", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "a\x00b", "\x1b[31mred", "a\nb", "é" * 10, "x" * 300,
        "x" * 5_000, "null", "nan", "1", "__class__", "${oc.env:HOME}", "\ud800", "-", "~", "a=b", "con", "漢字",
    ])  # fmt: skip


def number(random: Random) -> int | float:
    """A number that nobody expects."""
    return random.choice([
        0, -1, 1, 2, -2, 3, 7, 0.0, -0.0, 0.5, 1.5, 1e-320, 1e39, -1e39, float("nan"), float("inf"), -float("inf"),
        2**31, 2**32 - 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 10**100,
    ])  # fmt: skip


def odd(random: Random, depth: int = 2) -> Any:
    """Any value that JSON can hold."""
    kind = random.randrange(9 if depth else 6)
    if kind < 3:
        return number(random)
    if kind < 5:
        return name(random)
    if kind == 5:
        return random.choice([None, True, False])
    if kind == 6:
        return [odd(random, depth - 1) for _ in range(random.choice([0, 1, 2, 40]))]
    if kind == 7:
        return {name(random): odd(random, depth - 1) for _ in range(random.choice([0, 1, 2]))}
    nested: Any = []
    for _ in range(random.choice([20, 200])):
        nested = [nested] if random.random() < 0.5 else {"a": nested}
    return nested


def tree(random: Random, value: Any, most: int = 3) -> Any:
    """Change plain data: drop, double or rename keys, swap fields, put wrong types and impossible numbers in places."""
    value = copy.deepcopy(value)
    return repeated(random, _changed, value, most)


def _changed(random: Random, value: Any) -> Any:
    places = list(_places(value))
    if not places or random.random() < 0.03:
        return odd(random)
    parent, key = random.choice(places)
    others = [(p, k) for p, k in places if p is parent and k != key]
    kind = random.randrange(8)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[name(random)] = parent.pop(key)
    elif kind == 2 and others:
        _, other = random.choice(others)
        parent[key], parent[other] = parent[other], parent[key]
    elif kind == 3 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif kind == 4 and isinstance(parent[key], int | float):
        parent[key] = random.choice(
            [-parent[key], parent[key] + 1, parent[key] * 1000, str(parent[key]), [parent[key]]]
        )
    elif kind == 5:
        parent[key] = random.choice([None, [], {}, "", 0, True, [parent[key]], {"x": parent[key]}, str(parent[key])])
    elif kind == 6 and isinstance(parent[key], str):
        parent[key] = text(random, parent[key], 1)
    else:
        parent[key] = odd(random)
    return value


def _places(value: Any) -> Sequence[tuple[Any, Any]]:
    """Every place in plain data, as its container and its key."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in inner for place in [(value, key), *_places(item)]]


def json_text(random: Random, value: Any) -> bytes:
    """A JSON file with such data, which may itself be damaged: cut, nested without end, in another encoding …"""
    value = tree(random, value)
    whole = json.dumps(value, ensure_ascii=random.random() < 0.5, indent=random.choice([None, 1])).encode(
        "utf-8", "surrogatepass"
    )
    kind = random.randrange(16)
    if kind < 8:
        return whole
    if kind < 11:
        return bytes_(random, whole, 2)
    if kind == 11:  # a key twice
        return whole.replace(b"{", b'{"x": 1, "x": 2, ', 1) if b"{" in whole else whole
    if kind == 12:  # a number with more digits than any has
        digits = b"9" * _HUGE
        return random.choice([digits, b"[" + digits + b"]", whole.replace(b"1", digits, 1)])
    if kind == 13:
        encoding = random.choice(["utf-16", "utf-32", "latin-1", "utf-8-sig"])
        return whole.decode("utf-8", "replace").encode(encoding, "replace")
    if kind == 14:
        return random.choice([b"[", b'{"a":', b"[[", b'[{"a":']) * random.choice([500, 100_000])
    return random.choice([b"", b" ", b"null", b"[]", b"0", b'""', b"NaN", b"-Infinity", b"{}", b"\x00", whole * 2])
