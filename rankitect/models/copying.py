"""Copies of many tensors at once, fast: new memory is asked for once, in large pages, and filled by plain threads.

Half a gigabyte in two hundred pieces is slow by the piece: the system hands out memory in 4 KiB pages, a fault each,
and torch's own threads meet after every piece, which on a busy machine takes longer than the copying.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

__all__ = ["Piece", "copied"]

Key = TypeVar("Key")
Piece = tuple[torch.Tensor, torch.Tensor | None]
"""A tensor, of any strides, and what to add to it."""

_ALIGN = 64  # bytes, a cache line
_THREADED = 1 << 22  # bytes below which threads cost more than they save


def copied(pieces: Mapping[Key, Callable[[], Piece]], shapes: Mapping[Key, tuple[int, ...]]) -> dict[Key, torch.Tensor]:
    """New contiguous tensors, each the sum of its piece.

    Those in float32 on the CPU lie in one block of memory, each with a storage of its own; the block is freed with the
    last of them.

    Args:
        pieces: By key, a function that gives the piece (called in a thread).
        shapes: Their shapes.
    """
    starts, end = {}, 0
    for key, shape in shapes.items():
        starts[key] = end
        end += -(-math.prod(shape) * 4 // _ALIGN) * _ALIGN
    block = np.empty(end + _ALIGN, dtype=np.uint8)  # NumPy asks for large pages, torch does not
    first = -block.ctypes.data % _ALIGN
    arrays = {
        key: block[first + at : first + at + math.prod(shapes[key]) * 4].view(np.float32).reshape(shapes[key])
        for key, at in starts.items()
    }

    others: dict[Key, torch.Tensor] = {}

    def fill(key: Key) -> None:
        part, change = pieces[key]()
        if part.dtype != torch.float32 or part.device.type != "cpu":
            others[key] = (part if change is None else part + change).clone(memory_format=torch.contiguous_format)
        elif change is None:
            np.copyto(arrays[key], part.numpy())
        else:
            np.add(part.numpy(), change.numpy(), out=arrays[key])

    workers = torch.get_num_threads() if end >= _THREADED else 1
    if workers == 1:
        for key in arrays:
            fill(key)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(fill, arrays))
    return {key: others[key] if key in others else torch.from_numpy(array) for key, array in arrays.items()}
