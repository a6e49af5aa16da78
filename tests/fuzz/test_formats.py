"""Damaged tables in the formats that are read row by row, damaged archives, damaged texts, and paths of any kind."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pyarrow as pa
from pyarrow import parquet

from rankitect.data.document import Document
from rankitect.data.ranking import DataSettings
from rankitect.data.ranking.readers import open_source
from rankitect.data.ranking.sources import Piece
from rankitect.data.storage import list_files
from rankitect.data.streams import open_text_stream
from rankitect.data.text import open_text
from rankitect.errors import DataError
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz

MISSING = ("", "null", "NULL", "nan", "NaN", "\\N")


def pieces(path: Path, data: bytes, **given: Any) -> list[Piece]:
    path.write_bytes(data)
    source = open_source(DataSettings.model_validate({"path": str(path), **given}))
    return [read() for read in source.pieces()]


def accounted(value: list[Piece], lines: list[bytes]) -> dict[int, dict[str, Any]]:
    """The rows by their line; every line with something in it is a row or a bad row, and none is both."""
    good = [int(line) for piece in value for line in piece.lines]
    bad = [row.line for piece in value for row in piece.bad]
    assert sorted([*good, *bad]) == [number for number, line in enumerate(lines, 1) if line.strip()]
    rows = []
    for piece in value:
        columns = {name: column.to_pylist() for name, column in piece.columns.items()}
        rows += [{name: values[i] for name, values in columns.items()} for i in range(len(piece.lines))]
    return dict(zip(good, rows, strict=True))


class TestJsonLinesTables(Fuzz):
    """Tables as JSON lines."""

    both = False  # bad rows are counted here, not refused

    def make(self, random: Random) -> bytes:
        lines = []
        for i in range(12):
            row: Any = {"y": i % 2, "x": i / 4, "u": f"u{i % 3}", "t": ["a", "b"][: i % 3]}
            lines.append(json.dumps(mutate.tree(random, row) if random.random() < 0.15 else row).encode())
        return mutate.bytes_(random, b"\n".join(lines) + b"\n", 2)

    def read(self, data: bytes, folder: Path) -> list[Piece]:
        table = {"label": "y", "numeric": ["x"], "categorical": ["u"], "multi_hot": ["t"]}
        return pieces(folder / "log.jsonl", data, format="jsonl", table=table)

    def confirm(self, data: bytes, value: list[Piece]) -> None:
        lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        rows = accounted(value, lines)
        for number, line in enumerate(lines, 1):
            row = _object(line)
            assert (row is not None) == (number in rows) or not line.strip()
            for name, read in rows.get(number, {}).items():
                assert row is not None
                assert _same(row.get(name), read), (name, row.get(name), read)


def _object(line: bytes) -> dict[str, Any] | None:
    """What a line holds, by Python's json; None if it is no row."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    try:
        row = json.loads(line, object_pairs_hook=once, parse_constant=lambda name: None if name == "NaN" else name)
        wanted = [row.get(name) for name in ("y", "x", "u")]
        listed = row.get("t")
        assert not any(
            isinstance(each, list | dict) for each in (*wanted, *(listed if isinstance(listed, list) else ()))
        )
        assert not isinstance(listed, dict)
        json.dumps([*wanted, listed], ensure_ascii=False).encode()
    except (ValueError, AssertionError, AttributeError, RecursionError):
        return None
    return dict(row)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _same(wanted: Any, read: Any) -> bool:
    """Whether a value is what stands in the file: text as it is, a number by its value."""
    if isinstance(wanted, list) and isinstance(read, bytes):  # among texts
        return [_text(each) for each in wanted if each is not None] == json.loads(read)
    if isinstance(wanted, list):
        return len(kept := [each for each in wanted if each is not None]) == len(read) and all(map(_same, kept, read))
    if read is None or wanted is None:
        return read is None and (wanted is None or wanted in MISSING)
    if isinstance(wanted, bool):
        return read in (wanted, str(wanted).lower().encode())
    if isinstance(wanted, str):
        return bool(wanted.encode() == read)
    return float(read) == wanted or str(wanted).encode() == read


class TestLibsvm(Fuzz):
    """Tables as libsvm."""

    both = False  # bad rows are counted here, not refused

    def make(self, random: Random) -> bytes:
        rows = [f"{i % 2} qid:{i // 4} 1:{i} 3:{i / 8:g} 12:1" for i in range(12)]
        text = mutate.text(random, "\n".join(rows), 2).encode("utf-8", "surrogatepass")
        return mutate.bytes_(random, text, 1)

    def read(self, data: bytes, folder: Path) -> list[Piece]:
        table = {"label": "label", "numeric": ["1", "3"], "group": "qid"}
        return pieces(folder / "log.svm", data, format="libsvm", table=table)

    def confirm(self, data: bytes, value: list[Piece]) -> None:
        lines = [line.split(b"#")[0] for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
        for number, row in accounted(value, lines).items():
            label, *words = lines[number - 1].split()
            pairs = [word.decode().split(":") for word in words]
            numbers = {int(name): float(text) for name, text in pairs if name != "qid"}
            assert len(numbers) + (row["qid"] is not None) == len(pairs)
            assert row["qid"] == next((str(int(text)).encode() for name, text in pairs if name == "qid"), None)
            assert row["label"] == label
            assert (row["1"], row["3"]) == (numbers.get(1, 0.0), numbers.get(3, 0.0))


class TestLibffm(Fuzz):
    """Tables as libffm."""

    both = False  # bad rows are counted here, not refused

    def make(self, random: Random) -> bytes:
        rows = [f"{i % 2} 0:{i % 5}:1 1:0:{i / 4:g} 2:{100 + i}:1 2:{200 + i}:1" for i in range(12)]
        text = mutate.text(random, "\n".join(rows), 2).encode("utf-8", "surrogatepass")
        return mutate.bytes_(random, text, 1)

    def read(self, data: bytes, folder: Path) -> list[Piece]:
        table = {"label": "label", "categorical": ["0"], "numeric": ["1"], "multi_hot": ["2"]}
        return pieces(folder / "log.ffm", data, format="libffm", table=table)

    def confirm(self, data: bytes, value: list[Piece]) -> None:
        lines = [line.split(b"#")[0] for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
        for number, row in accounted(value, lines).items():
            label, *words = lines[number - 1].split()
            triples = [(int(f), int(i), float(v)) for f, i, v in (word.decode().split(":") for word in words)]
            assert row["label"] == label
            assert row["0"] == next((str(i).encode() for f, i, v in triples if f == 0 and v), None)
            assert row["1"] == next((v for f, _, v in triples if f == 1), None)
            assert row["2"] == [str(i).encode() for f, i, v in triples if f == 2 and v]


def _zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.csv", data)
    return out.getvalue()


def _unzipped(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (member,) = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
        return archive.read(member)


class TestPackedFiles(Fuzz):
    """Packed files."""

    kinds: ClassVar[list[tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]]] = [
        (lambda data: gzip.compress(data, mtime=0), gzip.decompress),
        (bz2.compress, bz2.decompress),
        (lzma.compress, lzma.decompress),
        (_zipped, _unzipped),
        (bytes, bytes),
    ]

    def make(self, random: Random) -> tuple[bytes, int]:
        text = "\n".join(f"{i},{random.random()},é" for i in range(random.choice([0, 3, 300]))).encode(
            random.choice(["utf-8"] * 8 + ["utf-16", "utf-16-le", "utf-32", "latin-1"])
        )
        kind = random.randrange(len(self.kinds))
        packed = self.kinds[kind][0](text)
        if random.random() < 0.05:
            packed = self.kinds[random.randrange(len(self.kinds))][0](packed)
        return mutate.bytes_(random, packed, 2), kind

    def read(self, data: tuple[bytes, int], folder: Path) -> bytes:
        path = folder / "log.csv"
        path.write_bytes(data[0])
        with open_text_stream(path) as stream:
            try:
                return stream.read(1 << 30)
            except OSError as error:  # as every reader has it
                raise DataError("damaged") from error

    def confirm(self, data: tuple[bytes, int], value: bytes) -> None:
        packed = data[0]
        magic = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"PK\x03\x04")
        if not packed.startswith(magic):
            assert value == packed
        else:
            unpack = next(self.kinds[i][1] for i, start in enumerate(magic) if packed.startswith(start))
            assert value == unpack(packed)


class TestTexts(Fuzz):
    """Texts and chats."""

    def make(self, random: Random) -> tuple[bytes, str, str]:
        kind = random.choice(["a.txt", "a.jsonl", "chat.jsonl", "a.txt.gz", "a.jsonl.gz"])
        if kind.startswith("a.txt"):
            data = mutate.text(random, "A paragraph of text.\n\n" * 8, 2).encode("utf-8", "surrogatepass")
        else:
            chat = {"m": [{"role": "user", "content": "hi"}, {"from": "gpt", "value": "hello"}]}
            row: Any = chat if kind == "chat.jsonl" else {"m": "some text"}
            rows = [mutate.tree(random, row) if random.random() < 0.1 else row for _ in range(5)]
            data = "\n".join(map(json.dumps, rows)).encode()
        data = mutate.bytes_(random, data, 1)
        return (gzip.compress(data, mtime=0) if kind.endswith(".gz") else data), kind, "m"

    def read(self, data: tuple[bytes, str, str], folder: Path) -> list[Document]:
        (folder / data[1]).write_bytes(data[0])
        return list(open_text(folder / data[1], field=data[2]))

    def confirm(self, data: tuple[bytes, str, str], value: list[Document]) -> None:
        raw = gzip.decompress(data[0]) if data[1].endswith(".gz") else data[0]
        text = raw.decode("utf-8-sig")
        if data[1].startswith("a.txt"):
            lines = [line.removesuffix("\r") for line in text.split("\n")]
            ended = [*lines[:-1], text.split("\n")[-1]]  # a line that does not end keeps what it has
            assert "".join(d.text for d in value).rstrip() == "\n".join(ended).rstrip()
            return
        rows = [json.loads(line)["m"] for line in text.split("\n") if line.strip()]
        kept = [row for row in rows if not isinstance(row, str) or row.strip()]
        assert len(kept) == len(value)
        for row, document in zip(kept, value, strict=True):
            if isinstance(row, str):
                assert document.text == row
            else:
                said = [m.get("content", m.get("value")) if "role" in m else m["value"] for m in row]
                assert all(str(each) in document.text for each in said if isinstance(each, str))


class TestParquetTexts(Fuzz):
    """Texts and chats in Parquet files with checksums."""

    cases = 150
    chats: ClassVar[list[Any]] = [[{"role": "user", "content": f"hello {i}"}] for i in range(40)]
    texts: ClassVar[list[Any]] = [f"text number {i}" for i in range(40)]

    def make(self, random: Random) -> tuple[bytes, list[Any]]:
        values = random.choice([self.texts, self.texts, self.chats, list(range(40)), [*self.texts, None]])
        out = io.BytesIO()
        column = pa.array(values)
        if random.random() < 0.2 and values is self.texts:
            column = random.choice(
                [column.dictionary_encode(), column.cast(pa.large_string()), column.cast(pa.binary())]
            )
        parquet.write_table(pa.table({"text": column}), out, write_page_checksum=True, row_group_size=16)
        return mutate.bytes_(random, out.getvalue(), 1), values

    def read(self, data: tuple[bytes, list[Any]], folder: Path) -> list[Document]:
        (folder / "a.parquet").write_bytes(data[0])
        return list(open_text(folder / "a.parquet"))

    def confirm(self, data: tuple[bytes, list[Any]], value: list[Document]) -> None:
        """What is read is what was written: the checksums find all else."""
        wanted = [v if isinstance(v, str) else f"user: {v[0]['content']}\n" for v in data[1]]
        assert [document.text for document in value] == wanted


class TestPlaces(Fuzz):
    """Paths, globs and URIs of data."""

    def make(self, random: Random) -> str:
        base = random.choice(
            ["a.csv", "log", "log/*", "log/day=*", "**", "log/**/*.csv", "file://{}/a.csv", "{}/log", "x/.."]
        )
        if random.random() < 0.2:
            return mutate.name(random)
        return mutate.text(random, base, 2)

    def read(self, data: str, folder: Path) -> tuple[Path, list[str]]:
        for inside in ("a.csv", "log/day=1/b.csv", "log/day=2/c.csv", "log/.d.csv"):
            (folder / inside).parent.mkdir(parents=True, exist_ok=True)
            (folder / inside).write_text("y,x\n1,2\n")
        path = data.replace("{}", str(folder))
        if not path.startswith("file:") and path not in ("/etc/passwd", "~"):  # else all of this machine may match
            path = f"{folder}/{path}"
        return folder, [str(each.file) for each in list_files(path, (".csv",), "task.data.path")]

    def confirm(self, data: str, value: tuple[Path, list[str]]) -> None:
        files = value[1]
        assert files
        assert len(set(files)) == len(files)
        assert all(Path(file).is_file() for file in files)
