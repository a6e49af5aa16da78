"""How much memory there is, and a refusal before more than that is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rankitect.errors import SpaceError

__all__ = ["LIMIT_VARIABLE", "available_memory", "by_hand", "check_memory"]

LIMIT_VARIABLE = "RANKITECT_MEMORY_GIB"
"""Environment variable that sets the limit by hand, in GiB."""


def by_hand() -> int | None:
    """Bytes of the limit that is set by hand; None where there is none.

    Raises:
        SpaceError: It is no number.
    """
    given = os.environ.get(LIMIT_VARIABLE)
    if not given:
        return None
    try:
        return int(float(given) * 2**30)
    except ValueError:
        raise SpaceError(f"{LIMIT_VARIABLE} must be a number of GiB, found {given!r}.") from None


def available_memory() -> int | None:
    """Bytes that the process may still take; None where the system does not say.

    The limit set by hand, or else what the system calls available and, in a container, what its limit leaves.

    Raises:
        SpaceError: The limit set by hand is no number.
    """
    if (given := by_hand()) is not None:
        return given
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            limits.append(int(lines["MemAvailable"].split()[0]) * 1024)
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
        limits.append(int(text) - int(used.read_text()))
    return min(limits) if limits else None


REMEDY = "Use narrower embeddings, fewer rows (a higher minimum count, or hashing), or another machine"


def check_memory(parts: Mapping[str, int], what: str, limit: int | None = None, remedy: str = REMEDY) -> None:
    """Refuse what does not fit into memory, before it is allocated.

    Args:
        parts: Bytes by name.
        what: What is to be allocated, for the error.
        limit: Bytes that there are; None: those of this machine.
        remedy: What to do about it.

    Raises:
        SpaceError: The sum is more than there is: gives the estimate, the limit and the largest parts.
    """
    total, limit = sum(parts.values()), available_memory() if limit is None else limit
    if limit is None or total <= limit:
        return
    largest = sorted(parts.items(), key=lambda p: -p[1])[:3]
    listed = ", ".join(f"{name} {_gib(size)}" for name, size in largest)
    raise SpaceError(
        f"{what} needs {_gib(total)}, but only {_gib(max(limit, 0))} of memory are available ({listed}). {remedy}; "
        f"{LIMIT_VARIABLE} sets the limit by hand."
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
