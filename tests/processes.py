"""Python in processes of their own that have the heavy packages already: forks of a server that imported them once.

A new interpreter takes seconds to import torch, and there are many such tests. What a process changes (its folder,
environment, modules, exit code) is its own here as well; tests of how a command starts use `subprocess`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HEAVY = ["torch", "torch._dynamo", "torchrec", "scipy.stats", "pandas", "pyarrow.parquet", "pyarrow.dataset"]
"""What is imported once; third parties alone, which no test changes."""

_SERVER = multiprocessing.get_context("forkserver")


def run(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """What `python arguments` would give, where the arguments are a script or -m and a module, and what these take.

    Args:
        arguments: Of the interpreter.
        cwd: Where it starts.
        env: Its environment; what torch reads when it is imported has no effect.
        timeout: Seconds after which it is killed.
    """
    _SERVER.set_forkserver_preload(HEAVY)
    with tempfile.TemporaryDirectory(prefix="rankitect-") as folder:
        told = [Path(folder) / name for name in ("out", "err")]
        child = _SERVER.Process(target=_be, args=(list(arguments), cwd, dict(env or os.environ), *told))
        child.start()
        child.join(timeout)
        if child.is_alive():
            child.kill()
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        assert child.exitcode is not None
        out, err = (path.read_text() if path.exists() else "" for path in told)
        return subprocess.CompletedProcess(list(arguments), child.exitcode, out, err)


def _be(arguments: list[str], cwd: Path, env: dict[str, str], out: Path, err: Path) -> None:
    """Become the interpreter that was asked for."""
    with contextlib.ExitStack() as stack:
        for number, path in ((1, out), (2, err)):
            os.dup2(stack.enter_context(path.open("w")).fileno(), number)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in env
    sys.path[:0] = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    if arguments[0] == "-m":
        sys.path.insert(0, str(cwd))
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str((cwd / arguments[0]).parent))
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
