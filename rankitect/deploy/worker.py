"""The process that runs programs and takes the time: `python -m rankitect.deploy.worker`, driven by `timing.Meter`.

One JSON object a line comes in and one goes out. Nothing else happens in this process, so that what is measured is the
program and not its surroundings; a program that crashes takes only this process down.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

__all__ = ["main", "median_interval"]

WARMUP_SECONDS = 0.3
QUIET = 0.9
"""A round counts as undisturbed where the process had the processor for this share of the time, at least."""
FLOAT, LONG = 6, 4
"""ExecuTorch's numbers of data types."""


class Loaded:
    """Copies of a program with inputs, each with packed weights of its own.

    Layers of a model stream their weights from memory, one after another. A layer that is measured alone would find
    its own in the processor's cache; enough copies in turns do not.
    """

    def __init__(self, path: str, copies: int, method: str) -> None:
        from executorch.runtime import Runtime

        started = time.perf_counter()
        self._programs = [Runtime.get().load_program(path) for _ in range(copies)]
        self._methods = [program.load_method(method)._method for program in self._programs]
        self.load_ms = (time.perf_counter() - started) * 1e3 / copies
        self._inputs = [_inputs(run.method_meta()) for run in self._methods]  # the runtime holds no references
        for run, inputs in zip(self._methods, self._inputs, strict=True):
            run.set_inputs(inputs)
        started = time.perf_counter()
        self._methods[0].execute()
        self.first_ms = (time.perf_counter() - started) * 1e3

    def round(self) -> list[float]:
        """Milliseconds of each copy's run."""
        times = []
        for run in self._methods:
            started = time.perf_counter()
            run.execute()
            times.append((time.perf_counter() - started) * 1e3)
        return times


def _inputs(meta: Any) -> list[Any]:
    """Zeros for whole numbers (token 0, position 0) and small random numbers for the rest."""
    import torch

    generator = torch.Generator().manual_seed(0)
    inputs = []
    for i in range(meta.num_inputs()):
        info = meta.input_tensor_meta(i)
        if info.dtype() == LONG:
            inputs.append(torch.zeros(info.sizes(), dtype=torch.int64))
        else:
            inputs.append(torch.randn(info.sizes(), generator=generator))
    return inputs


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the median from order statistics, without a shape of the distribution; infinite for too few."""
    from math import comb

    ordered, n = sorted(values), len(values)
    below = 0.0
    for k in range(n // 2):
        below += comb(n, k) * 0.5**n
        if below > (1 - confidence) / 2:
            return (ordered[k - 1], ordered[n - k]) if k else (float("-inf"), float("inf"))
    middle = max(0, (n - 1) // 2)
    return ordered[middle], ordered[n - 1 - middle]


def _time(job: dict[str, Any]) -> dict[str, Any]:
    """Rounds of a program and, in turns, of the reference, until the ratio's median is known well enough."""
    from executorch.extension.pybindings import portable_lib

    threads = int(job["threads"])
    portable_lib._unsafe_reset_threadpool(threads)
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(os.getppid()))
        os.sched_setaffinity(0, set(allowed[-threads:]))
    program = Loaded(job["program"], int(job["copies"]), job["method"])
    reference = Loaded(job["reference"], int(job["reference_copies"]), "forward") if job.get("reference") else None
    until = time.perf_counter() + WARMUP_SECONDS
    while time.perf_counter() < until:
        program.round()
        if reference:
            reference.round()
    rounds: list[list[float]] = []
    references: list[float] = []
    shares: list[float] = []
    deadline = time.perf_counter() + float(job["seconds"])
    settled = False
    while not settled and time.perf_counter() < deadline:
        before, cpu = time.perf_counter(), time.process_time()
        rounds.append(program.round())
        references.append(sum(reference.round()) if reference else 1.0)
        shares.append((time.process_time() - cpu) / (time.perf_counter() - before))
        if len(rounds) >= int(job["rounds"]):
            ratios = [sum(r) / ref for r, ref in zip(rounds, references, strict=True)]
            low, high = median_interval(ratios)
            settled = high - low <= float(job["target"]) * sorted(ratios)[len(ratios) // 2]
    return {
        "rounds": rounds,
        "references": references,
        "quiet": sum(s >= QUIET for s in shares) / max(1, len(shares)),
        "settled": settled,
        "load_ms": program.load_ms,
        "first_ms": program.first_ms,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def main() -> int:
    """Answer jobs until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # ExecuTorch writes notes of its own to the standard output
    for line in sys.stdin:
        try:
            answer = _time(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
