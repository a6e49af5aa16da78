"""Reading GGUF, llama.cpp's file format: a table of typed keys, a table of tensors, then the tensors' bytes.

The tables are read here and not by the `gguf` package's reader, which takes seconds for a vocabulary of 49,152 tokens
and does not say what is wrong with a damaged file. The package knows the quantizations and turns them into float32.
Every length in the file is checked against the bytes that are left before it is used.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.guard import guarded
from rankitect.errors import AssetError, shown

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

__all__ = ["GGUFFile", "TensorEntry", "is_gguf"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEY_BYTES, _TENSOR_BYTES = 13, 32
"""The fewest bytes of a key with its value, and of a line of the tensor table."""
_VALUES_AT_ONCE = 1 << 20  # dequantization makes several temporary copies of what it is given


@dataclass(frozen=True)
class TensorEntry:
    """One line of a file's tensor table.

    Attributes:
        name: The tensor's name.
        shape: Its shape, the slowest dimension first as in torch (the file lists it the other way round).
        kind: How its values are stored.
        start: Where its bytes begin, counted from the beginning of the file.
        n_bytes: How many there are.
    """

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    n_bytes: int


_Header = tuple[str, tuple[int, ...], int, int]
"""A line of the tensor table: name, shape, kind, and the offset from where the data begin."""


def _aligned(place: int, alignment: int) -> int:
    return -(-place // alignment) * alignment


class _DamagedError(Exception):
    """The tables contradict themselves or the file's length; the message says how."""


def is_gguf(path: Path) -> bool:
    """Whether a regular file begins as GGUF does, whatever its name; False for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


class GGUFFile:
    """A GGUF file's metadata and tensors.

    Attributes:
        path: The file.
        metadata: Values by key: int, float, bool, str, or a list of one of them.
        tensors: The tensor table by name, in the file's order.
    """

    def __init__(self, path: Path) -> None:
        """Read the tables of a file; its tensors are read by `values`.

        Args:
            path: The file.

        Raises:
            AssetError: The file cannot be read, is no GGUF, is of an unsupported version, is truncated or damaged.
        """
        self.path = path
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, TensorEntry] = {}
        try:
            with path.open("rb") as file:
                magic = file.read(4)
                if magic != _MAGIC:
                    raise AssetError(f"{path} is not a GGUF file: it begins with {magic!r} instead of {_MAGIC!r}.")
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise AssetError(f"{path} cannot be read ({error.strerror or error}).") from error
        try:
            self._read_tables(_Cursor(self._bytes, len(_MAGIC)))
        except _DamagedError as error:
            raise AssetError(f"{path} is truncated or damaged: {error}. Get the file again.") from error

    def values(self, entry: TensorEntry) -> NDArray[np.float32]:
        """A tensor's values as float32, in `entry.shape`.

        Raises:
            AssetError: Its quantization cannot be turned back into numbers.
        """
        import gguf

        rows = math.prod(entry.shape[:-1])
        stored = np.frombuffer(self._bytes, dtype=np.uint8, count=entry.n_bytes, offset=entry.start).reshape(rows, -1)
        values = np.empty((rows, entry.shape[-1]), dtype=np.float32)
        step = max(1, _VALUES_AT_ONCE // entry.shape[-1])
        refused = f"{self.path}: {entry.name} is stored as {entry.kind.name}, which cannot be read back"
        for first in range(0, rows, step):
            some = stored[first : first + step]
            # as one long row: a row holds whole blocks, and the package goes through rows in small groups.
            # What is not finite is reported by check_tensors.
            with guarded(refused), np.errstate(over="ignore", invalid="ignore"):
                row = gguf.dequantize(some.reshape(1, -1), entry.kind)
                values[first : first + step] = row.reshape(len(some), -1)
        return values.reshape(entry.shape)

    def _read_tables(self, cursor: _Cursor) -> None:
        version = cursor.scalar("I")
        if version not in _VERSIONS:
            order = " (or it was written for big-endian machines)" if version & 0xFFFF == 0 else ""
            raise AssetError(f"{self.path} is of GGUF version {version}{order}. Supported: 2 and 3, little-endian.")
        n_tensors, n_keys = cursor.scalar("Q"), cursor.scalar("Q")
        for _ in range(cursor.fitting(n_keys, _KEY_BYTES)):
            key = cursor.string()
            if key in self.metadata:
                raise _DamagedError(f"it has the key {shown(key)} twice")
            self.metadata[key] = cursor.value(cursor.scalar("I"))
        headers = [self._tensor_header(cursor) for _ in range(cursor.fitting(n_tensors, _TENSOR_BYTES))]
        alignment = self.metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise _DamagedError(f"its tensors are aligned to {shown(alignment)} bytes, which is no power of 2")
        self._place(headers, _aligned(cursor.place, alignment), alignment)

    def _place(self, headers: list[_Header], start: int, alignment: int) -> None:
        """Fill the tensor table, given where the data begin.

        Each tensor begins where the one before it ends, rounded up to the alignment, as llama.cpp asks for. So tensors
        do not overlap, and one whose size is not that of its shape and kind does not go unnoticed.
        """
        place = start
        for name, shape, kind, offset in headers:
            entry = self._entry(name, shape, kind, start + offset)
            if name in self.tensors:
                raise _DamagedError(f"it lists the tensor {shown(name)} twice")
            if entry.start != place:
                raise _DamagedError(
                    f"the tensor {shown(name)} begins at byte {entry.start:,}, where tensors that follow one another "
                    f"without gap or overlap put it at {place:,}"
                )
            end = entry.start + entry.n_bytes
            if end > len(self._bytes):
                raise _DamagedError(f"the tensor {shown(name)} ends at byte {end:,}, the file at {len(self._bytes):,}")
            self.tensors[name], place = entry, _aligned(end, alignment)
        if place < len(self._bytes):
            raise _DamagedError(f"its last tensor ends at byte {place:,}, the file at {len(self._bytes):,}")

    @staticmethod
    def _tensor_header(cursor: _Cursor) -> _Header:
        name = cursor.string()
        n_dims = cursor.scalar("I")
        if not 1 <= n_dims <= 4:
            raise _DamagedError(f"the tensor {shown(name)} has {n_dims} dimensions")
        fastest_first = [cursor.scalar("Q") for _ in range(n_dims)]
        return name, tuple(reversed(fastest_first)), cursor.scalar("I"), cursor.scalar("Q")

    def _entry(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> TensorEntry:
        import gguf

        try:
            storage = gguf.GGMLQuantizationType(kind)
            block, block_bytes = gguf.GGML_QUANT_SIZES[storage]
        except (ValueError, KeyError) as error:
            known = "F32, F16, BF16 and the quantizations of llama.cpp"
            raise AssetError(f"{self.path}: {shown(name)} is stored as unknown type {kind}. Known: {known}.") from error
        if min(shape) < 1 or shape[-1] % block:
            raise _DamagedError(f"the tensor {shown(name)} of shape {shape} is not made of blocks of {block} values")
        return TensorEntry(name, shape, storage, start, math.prod(shape) // block * block_bytes)


class _Cursor:
    """A place in the bytes that moves forward; what does not fit in the rest of the bytes is an error."""

    def __init__(self, data: mmap.mmap, place: int) -> None:
        self.data = data
        self.place = place

    def take(self, n_bytes: int) -> int:
        """Move over some bytes and return where they begin."""
        if n_bytes > len(self.data) - self.place:
            place = f"from byte {self.place:,} on, but the file ends at {len(self.data):,}"
            raise _DamagedError(f"its tables need {n_bytes:,} bytes {place}")
        self.place += n_bytes
        return self.place - n_bytes

    def fitting(self, count: int, least_bytes: int) -> int:
        """A count of things of at least so many bytes, if they can fit: nothing is allocated for a nonsense count."""
        if count * least_bytes > len(self.data) - self.place:
            raise _DamagedError(
                f"it announces {count:,} entries at byte {self.place:,}, but ends at {len(self.data):,}"
            )
        return count

    def scalar(self, code: str) -> Any:
        return struct.unpack_from(f"<{code}", self.data, self.take(struct.calcsize(f"<{code}")))[0]

    def string(self) -> str:
        length = self.scalar("Q")
        start = self.take(length)
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError as error:
            raise _DamagedError(f"the text at byte {start:,} is not UTF-8") from error

    def strings(self, count: int) -> list[str]:
        """As many texts, one after the other: a vocabulary, with its merges, has a hundred thousand."""
        data, place, end, texts = self.data, self.place, len(self.data), list[str]()
        length_at = struct.Struct("<Q").unpack_from
        while len(texts) < count and place + 8 <= end:
            start = place + 8
            place = start + length_at(data, place)[0]
            if place > end:
                break
            try:
                texts.append(data[start:place].decode("utf-8"))
            except UnicodeDecodeError:
                break
            self.place = place
        # The text that could not be read, if any, is read again by the call that says why.
        return texts + [self.string() for _ in range(count - len(texts))]

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise _DamagedError(f"unknown value type {kind} at byte {self.place:,}")
        item, count = self.scalar("I"), self.scalar("Q")
        if item == _STRING:
            return self.strings(self.fitting(count, 8))
        if item not in _SCALARS:
            raise _DamagedError(f"an array of values of type {item} at byte {self.place:,}")
        size = struct.calcsize(f"<{_SCALARS[item]}")
        start = self.take(self.fitting(count, size) * size)
        return list(struct.unpack_from(f"<{count}{_SCALARS[item]}", self.data, start))
