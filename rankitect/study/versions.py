"""Which versions of what has an influence on results are at work."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

__all__ = ["versions"]

_PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "networkx",
    "pydantic",
    "hydra-core",
    "botorch",
    "executorch",
    "torchrec",
    "ray",
)


def versions() -> dict[str, str]:
    """Versions of what has an influence on results, without importing any of it."""
    import platform
    from importlib import metadata

    from rankitect import __version__

    known = {"rankitect": __version__, "python": platform.python_version(), **_commit()}
    for package in _PACKAGES:
        try:
            known[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return known


@cache
def _commit() -> dict[str, str]:
    """The commit of the code that runs, marked where files were changed; nothing where it is no checkout."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return {}
    try:
        told = [
            subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": told[0].stdout.strip() + ("+changes" if told[1].stdout.strip() else "")}
