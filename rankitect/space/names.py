"""Suggestions for misspelt names."""

from __future__ import annotations

from collections.abc import Iterable

from rankitect.errors import closest

__all__ = ["nearest"]


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause for an error: the nearest known name, or the first few."""
    names = list(known)
    close = closest(name, names)
    if close is not None:
        return f"; did you mean {close!r}?"
    return f"; known: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else ""
