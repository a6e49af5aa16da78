"""How this process uses the machine: threads and memory. Imports nothing heavy, so it can run before torch."""

from __future__ import annotations

import ctypes
import os
import sys

from rankitect.machine import usable_cores

__all__ = ["configure_host", "give_back_memory"]

_KEPT = {-3: 32 << 20, -1: 512 << 20, -2: 64 << 20}
"""glibc's M_MMAP_THRESHOLD (32 MB is its largest), M_TRIM_THRESHOLD and M_TOP_PAD (malloc.h), bytes."""


def configure_host(threads: int | None = None) -> int:
    """Sets the number of threads, asks torch for huge memory pages, and the C library to keep freed memory at hand.
    Call it before anything computes.

    Torch gives every large tensor back to the system and asks again for the next one. With 4 kB pages most of the time
    of an operation over the logits (100 MB) is then spent in page faults: 224 ms against 69 ms with huge pages, for
    one fill, multiply and add on one core. Torch reads the switch once, when it first allocates. The activations of a
    ranker (1 MB) are below what gets huge pages, and come from memory that was not given back: on MovieLens DCN-V2
    trained 19% faster, DLRM 13%, DeepFM 1% (medians of two runs of benchmarks/ranking_throughput.py).

    Args:
        threads: threads of torch's operations. None takes $OMP_NUM_THREADS, or all processors this process may use.

    Returns:
        The number of threads.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    _keep_freed_memory()
    if threads is None:
        given = os.environ.get("OMP_NUM_THREADS", "")
        threads = int(given) if given.isdecimal() and int(given) > 0 else usable_cores()
    if threads < 1:
        raise ValueError(f"threads must be at least 1, found {threads}")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return threads


def give_back_memory() -> None:
    """Give freed memory back to the system, where the C library is glibc: when a phase ends whose tensors no later one
    has the like of. Gigabytes may lie between others that are still in use, and would stay with the process."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    trim(0)


def _keep_freed_memory() -> None:
    """Up to half a gigabyte, where the C library is glibc; others have no such switch."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for parameter, value in _KEPT.items():
        mallopt(parameter, value)
