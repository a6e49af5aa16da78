"""Values as 64-bit keys: what a vocabulary holds and a hashed feature is hashed by.

The key of a value depends on its bytes only, so that a serving system can compute it (`docs/your_data.md`). Arrow has
no hash of a column, and pandas' one goes through Python objects; this one is a few vector operations a word.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Keys", "hash_values", "mix", "uniform"]

Keys = NDArray[np.uint64]
_LONG = 256  # bytes


def mix(keys: Keys) -> Keys:
    """Each key with its bits mixed, one to one.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
    """
    mixed = keys + np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def uniform(keys: Keys, seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each key, by chance but always the same for a seed."""
    chances = mix(keys ^ mix(np.array([seed], dtype=np.uint64))) >> np.uint64(11)
    return chances.astype(np.float64) * 2.0**-53


def hash_values(values: pa.Array) -> Keys:
    """The key of each value.

    The length in bytes, mixed; then for each eight bytes (little-endian, the last filled with zeros) exclusive or and
    mix. Of values longer than 256 bytes the key is BLAKE2b's digest of eight bytes instead, read as little-endian: each
    word is a round over all values.

    Args:
        values: A binary array (32-bit offsets) without nulls, [n].
    """
    n = len(values)
    _, offsets_buffer, data_buffer = values.buffers()
    if n == 0 or offsets_buffer is None:
        return np.zeros(n, dtype=np.uint64)
    offsets = np.frombuffer(offsets_buffer, dtype=np.int32)[values.offset : values.offset + n + 1]
    starts, lengths = offsets[:-1].astype(np.int64) - offsets[0], np.diff(offsets).astype(np.int64)
    size = int(offsets[-1] - offsets[0])
    data = np.zeros(size + 8, dtype=np.uint8)
    if size:
        data[:size] = np.frombuffer(data_buffer, dtype=np.uint8)[offsets[0] : offsets[-1]]
    words = np.ndarray(shape=(size + 1,), dtype="<u8", buffer=data.data, strides=(1,))  # the word from each byte on
    keys = mix(lengths.astype(np.uint64))
    rows: NDArray[np.int64] | slice = slice(None)
    short = lengths <= _LONG
    for word in range(-(-int(lengths.max(where=short, initial=0)) // 8)):
        if word:
            rows = np.flatnonzero(short & (lengths > 8 * word))
        left = lengths[rows] - 8 * word
        # An empty value has no word; all rows are read in the first round, so it is put back.
        read = cast("Keys", words[np.minimum(starts[rows] + 8 * word, size)])
        read = read & ~np.uint64(0) >> (np.uint64(64) - np.uint64(8) * np.clip(left, 1, 8).astype(np.uint64))
        mixed = mix(keys[rows] ^ read)
        keys[rows] = np.where(left > 0, mixed, keys[rows])
    for row in np.flatnonzero(~short).tolist():
        value = data[starts[row] : starts[row] + lengths[row]].tobytes()
        digest = hashlib.blake2b(value, digest_size=8).digest()
        keys[row] = int.from_bytes(digest, "little")
    return keys
