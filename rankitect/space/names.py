"""Names and values in messages: which names are allowed, how a value is shown, what a misspelt name may mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rankitect.errors import SpaceError, closest, short

__all__ = ["MAX_NAME", "check_name", "nearest", "shown"]

MAX_NAME = 300
"""Letters of a name."""

MAX_LISTED = 200
"""Letters of a list of names in a message."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause for an error: the nearest known name, or the first few."""
    names = list(known)
    close = closest(name[:MAX_NAME], names)
    if close is not None:
        return f"; did you mean {close!r}?"
    listed = ", ".join(names[:8])
    more = len(names) > 8 or len(listed) > MAX_LISTED
    return f"; known: {listed[:MAX_LISTED]}{', ...' if more else ''}" if names else ""


def shown(value: Any, most: int = 80) -> str:
    """A value as a message shows it: shortened, and with control characters escaped.

    Args:
        value: Anything, from whatever source.
        most: Letters.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"a number of {value.bit_length():,} bits"  # Python refuses to write very long numbers
    # The beginning of a long text is enough; the whole of it would be written out for nothing.
    return short(repr(value[: 2 * most] if isinstance(value, str) else value), most)


def check_name(what: str, name: object) -> None:
    """Refuse a name that could not be shown or stored.

    Args:
        what: What has the name, for the message.
        name: Parts that are joined by dots.

    Raises:
        SpaceError: It is no text, too long, has an empty part, or holds control characters.
    """
    if not isinstance(name, str) or len(name) > MAX_NAME or not name.isprintable() or not all(name.split(".")):
        raise SpaceError(
            f"the name of {what} must be a text of 1 to {MAX_NAME} printable letters, with no empty part between its "
            f"dots, not {shown(name)}"
        )
