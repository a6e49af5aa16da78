"""The bytes of text files, unpacked where they are packed; what is no text at all is named.

A file is known by its first bytes: names lie. gzip, bzip2, zstd and lz4 are unpacked by Arrow, xz and zip by the
standard library, as a stream, so that memory does not grow with the file.
"""

from __future__ import annotations

import lzma
import re
import zipfile
from pathlib import PurePosixPath
from typing import Any, Self

from rankitect.data.storage import DataFile, open_raw, size_of
from rankitect.errors import DataError, safe, short

__all__ = ["PACKED", "TextStream", "likely_encoding", "open_text_stream", "refuse_unless", "unpacked_name"]

_PACKS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
}
_ARROW = {"gzip": "gzip", "bzip2": "bz2", "zstd": "zstd", "lz4": "lz4"}
_SUFFIXES = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd", ".lz4": "lz4", ".xz": "xz", ".zip": "zip"}
PACKED = tuple(_SUFFIXES)
"""How the names of packed files end."""

_CONVERT = "convert it to UTF-8 (iconv -f {0} -t UTF-8)"
_FOREIGN = {
    b"\xff\xfe\x00\x00": ("UTF-32 text", _CONVERT.format("UTF-32")),
    b"\x00\x00\xfe\xff": ("UTF-32 text", _CONVERT.format("UTF-32")),
    b"\xff\xfe": ("UTF-16 text", _CONVERT.format("UTF-16")),
    b"\xfe\xff": ("UTF-16 text", _CONVERT.format("UTF-16")),
    b"PAR1": ("a Parquet file", "use the format parquet, or a name that ends with .parquet"),
    b"ARROW1": ("an Arrow (Feather) file", "save it as Parquet"),
    b"ORC": ("an ORC file", "save it as Parquet"),
    b"Obj\x01": ("an Avro file", "save it as Parquet"),
    b"\x89HDF": ("an HDF5 file", "save it as Parquet"),
    b"\x93NUMPY": ("a NumPy array", "save it as Parquet"),
    b"SQLite format 3": ("an SQLite database", "export the table as CSV"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it"),
    b"Rar!": ("a RAR archive", "unpack it"),
    b"\x1f\x9d": ("packed by compress (.Z)", "unpack it"),
    b"\xff\x06\x00\x00sNaPpY": ("packed by Snappy", "unpack it"),
    b"\xd0\xcf\x11\xe0": ("an old Excel or Office file", "save it as CSV"),
    b"%PDF": ("a PDF", "save its text or its table as a file of its own"),
    b"{\\rtf": ("an RTF document", "save it as plain text"),
    b"\x7fELF": ("a program", "give the data themselves"),
    b"\x89PNG": ("a picture (PNG)", "give the data themselves"),
    b"\xff\xd8\xff": ("a picture (JPEG)", "give the data themselves"),
    b"version https://git-lfs": ("a pointer of Git LFS and not the file itself", "fetch it with git lfs pull"),
}
_PAGES = (b"<!doctype html", b"<html")
_HEAD = 4096
_TAR = 257  # where a tar archive says that it is one
_FREE = 256 << 20
_RATIO = 400
"""Bytes that may come out of each byte, beyond the first `_FREE`: text of a log gives 3 to 30, and deflate cannot
give more than 1,032."""


def unpacked_name(name: str) -> str:
    """The name of what is packed in a file: `a.jsonl` for `a.jsonl.gz`."""
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in _SUFFIXES else name


class TextStream:
    """The text of a file as a stream of bytes, to be read once and closed; made by `open_text_stream`.

    Args:
        stream: What gives the bytes.
        file: The file.
        packed: Bytes that it has on disk, where it is packed.
        owned: What is closed with it.
    """

    def __init__(self, stream: Any, file: DataFile, packed: int | None, owned: tuple[Any, ...]) -> None:
        self._stream, self._file, self._owned = stream, file, owned
        self._most = None if packed is None else max(_FREE, _RATIO * packed)
        self._given = 0
        self._ahead = b""
        self._ahead = self.read(_HEAD)
        self._given = 0

    def read(self, size: int) -> bytes:
        """The next bytes, fewer than `size` at the end only.

        Raises:
            OSError: The file is damaged or ends too early.
            DataError: It unpacks into far more than any text does.
        """
        parts = [self._ahead[:size]] if self._ahead else []
        left, self._ahead = size - len(self._ahead), self._ahead[size:]
        try:
            while left > 0 and (part := self._stream.read(left)):
                parts.append(part)
                left -= len(part)
        except OSError:
            raise
        except Exception as error:  # each of the libraries has errors of its own
            raise OSError(" ".join(str(error).split()) or "it ends too early") from error
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._given += len(data)
        if self._most is not None and self._given > self._most:
            raise DataError(
                f"{_name(self._file)} unpacks into more than {self._given:,} bytes, over {_RATIO} times its size, as "
                "archives do that are made to fill a disk. If it is what you want, unpack it and give the text."
            )
        return data

    @property
    def packed(self) -> bool:
        """Whether more bytes come out than the file has."""
        return self._most is not None

    @property
    def head(self) -> bytes:
        """The first bytes, which are still to be read."""
        return self._ahead

    def close(self) -> None:
        """Close the file."""
        for stream in (self._stream, *self._owned):
            stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_text_stream(file: DataFile) -> TextStream:
    """Open a file of text, packed or not.

    Raises:
        DataError: It cannot be opened, is an archive of several files, or its beginning shows that it is no text in
            UTF-8; the message names what it is.
    """
    raw = open_raw(file)
    try:
        return _opened(raw, file)
    except OSError as error:
        raw.close()
        raise DataError(
            f"{_name(file)} cannot be unpacked ({short(safe(str(error)), 160)}): it may be truncated; fetch or "
            "pack it again."
        ) from error
    except BaseException:
        raw.close()
        raise


def likely_encoding(data: bytes) -> str:
    """What text that is not UTF-8 probably is, and what to do, for a message."""
    runs = re.findall(rb"[\x80-\xff]+", data)
    if 2 * sum(len(run) == 1 for run in runs) > sum(map(len, runs)):  # letters with accents among others without
        return f"it looks like Windows-1252 or Latin-1; {_CONVERT.format('WINDOWS-1252')}"
    return f"it looks like an encoding of another script (Shift-JIS, GBK, Windows-1251, …); {_CONVERT.format('NAME')}"


def refuse_unless(magic: bytes, name: str, raw: Any, file: DataFile) -> None:
    """Raise unless a file of a binary format begins as it does.

    Args:
        magic: How files of the format begin.
        name: The format.
        raw: The file as `open_raw` gives it; it is left at its beginning.
        file: The file, for messages.

    Raises:
        DataError: It begins differently; the message names what it is, where that is known.
    """
    head = raw.read(_HEAD)
    raw.seek(0)
    if head.startswith(magic):
        return
    if (packed := _pack_of(head)) is not None:
        raise DataError(f"{_name(file)} is packed by {packed}, which {name} does by itself: unpack it.")
    what, advice = _foreign(head)
    raise DataError(f"{_name(file)} is {what or f'no {name} file'}: {advice or 'check task.data.format'}.")


def _pack_of(head: bytes) -> str | None:
    return next((kind for magic, kind in _PACKS.items() if head.startswith(magic)), None)


def _opened(raw: Any, file: DataFile) -> TextStream:
    import pyarrow as pa

    head = raw.read(_HEAD)
    raw.seek(0)
    kind, named = _pack_of(head), _SUFFIXES.get(PurePosixPath(file.name).suffix.lower())
    if kind is None:
        if named is not None and head:
            raise DataError(f"{_name(file)} is named as packed by {named}, but is not: fetch it again, or rename it.")
        stream = TextStream(raw, file, None, ())
    elif kind in _ARROW:
        stream = TextStream(pa.CompressedInputStream(raw, _ARROW[kind]), file, size_of(file), (raw,))
    elif kind == "xz":
        stream = TextStream(_xz(raw), file, size_of(file), (raw,))
    else:
        member, archive = _only_member(raw, file)
        stream = TextStream(member, file, size_of(file), (archive, raw))
    _refuse_foreign(stream.head, file, kind)
    return stream


class _Seekable:
    """A file of Arrow for `zipfile`, which expects an `OSError` where a place before the beginning is asked for."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.read, self.tell, self.seekable = raw.read, raw.tell, raw.seekable

    def seek(self, place: int, whence: int = 0) -> int:
        try:
            return int(self._raw.seek(place, whence))
        except ValueError as error:
            raise OSError(str(error)) from error


def _xz(raw: Any) -> lzma.LZMAFile:
    return lzma.LZMAFile(raw)


def _only_member(raw: Any, file: DataFile) -> tuple[Any, zipfile.ZipFile]:
    """The one file in a zip archive. Nothing is ever written under a name that stands in it."""
    try:
        archive = zipfile.ZipFile(_Seekable(raw))
        members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
        if any(m.filename == "[Content_Types].xml" for m in members):
            raise DataError(f"{_name(file)} is an Excel or Office file: save it as CSV.")
        names = ", ".join(short(repr(m.filename), 40) for m in members[:4]) + (", …" if len(members) > 4 else "")
        if len(members) != 1:
            raise DataError(
                f"{_name(file)} is a zip archive of {len(members)} files ({names or 'it is empty'}), one is expected: "
                "unpack it and give the folder."
            )
        inside = PurePosixPath(members[0].filename.replace("\\", "/"))
        if inside.is_absolute() or ".." in inside.parts or ":" in inside.parts[0]:
            raise DataError(f"{_name(file)} is a zip archive whose file is named {names}, outside of its folder.")
        if members[0].flag_bits & 1:
            raise DataError(f"{_name(file)} is an encrypted zip archive: unpack it first.")
        return archive.open(members[0]), archive
    except DataError:
        raise
    except Exception as error:  # `zipfile` raises whatever comes of a damaged directory
        raise OSError(str(error)) from error


def _refuse_foreign(head: bytes, file: DataFile, packed: str | None) -> None:
    """Name what is no text in UTF-8 by its first bytes."""
    what, advice = _foreign(head)
    if not what and packed and (inner := _pack_of(head)):
        what, advice = f"packed twice, by {inner} and by {packed}", "unpack it once"
    if what:
        holds = "holds" if packed and "packed" not in what else "is"
        raise DataError(f"{_name(file)} {holds} {what}, not text in UTF-8: {advice}.")


def _foreign(head: bytes) -> tuple[str, str]:
    """What a file is that begins so, and what to do; empty where that is not known."""
    for magic, told in _FOREIGN.items():
        if head.startswith(magic):
            return told
    if head[_TAR : _TAR + 5] == b"ustar":
        return "a tar archive", "unpack it and give the folder"
    if head.lstrip().lower().startswith(_PAGES):
        return "a web page (HTML)", "fetch the file itself; this may be a page about it or a login"
    if len(head) > 3:
        # Text in UTF-16 without a mark: every other byte of Latin letters, digits and delimiters is zero.
        for start, name in ((1, "UTF-16LE"), (0, "UTF-16BE")):
            zeros = head[start::2].count(0)
            if zeros > 0.4 * len(head[start::2]) and not head[1 - start :: 2].count(0):
                return "UTF-16 text", _CONVERT.format(name)
    return "", ""


def _name(file: DataFile) -> str:
    return short(safe(str(file)), 160)
