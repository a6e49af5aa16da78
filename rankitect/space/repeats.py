"""A repeated scope read back from choices: what each of its repeats has chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["AGAIN", "LAYERS", "RUNS", "longest_row", "repeats", "running"]

LAYERS = "layers"
"""The scope under which a space repeats the layers of a model (`Graph.repeat`)."""
RUNS = "runs"
"""The choice within a repeat of how often it runs; 0 drops it."""
AGAIN = "again"
"""What the scope of a second run within a repeat begins with; its number follows."""


def repeats(choices: Mapping[str, Any], scope: str = LAYERS) -> dict[int, dict[str, Any]]:
    """Choices by the number of the repeat and their name within it, in the order of the numbers.

    >>> repeats({"width": 8, "layers.1.ffn": 4, "layers.0.ffn": 2})
    {0: {'ffn': 2}, 1: {'ffn': 4}}
    """
    by_number: dict[int, dict[str, Any]] = {}
    for path, value in choices.items():
        head, _, rest = path.partition(".")
        number, _, name = rest.partition(".")
        if head == scope and name and number.isdigit():
            by_number.setdefault(int(number), {})[name] = value
    return dict(sorted(by_number.items()))


def running(choices: Mapping[str, Any], scope: str = LAYERS) -> dict[int, dict[str, Any]]:
    """The repeats that run."""
    return {number: own for number, own in repeats(choices, scope).items() if own.get(RUNS, 1)}


def longest_row(marks: Iterable[bool]) -> int:
    """How many marks follow each other, at most.

    >>> longest_row([True, False, True, True])
    2
    """
    longest = row = 0
    for mark in marks:
        row = row + 1 if mark else 0
        longest = max(longest, row)
    return longest
