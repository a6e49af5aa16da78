"""Where data lie: what a path may be, what is no data at all, and object stores of which little is read."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import fs

from rankitect.config import resolve
from rankitect.config.compose import quoted
from rankitect.data import streams
from rankitect.data.contents import content_hash
from rankitect.data.ranking import DataSettings, open_ranking
from rankitect.data.storage import problem_of_place
from rankitect.data.text import open_text
from rankitect.errors import ConfigError, DataError
from tests.data.ranking.own import ROWS, as_csv, as_parquet, assert_same, opened, put, zipped

CSV = as_csv()


def tarred(data: bytes, mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        info = tarfile.TarInfo("a.csv")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def encrypted() -> bytes:
    data = bytearray(zipped(("a.csv", CSV)))
    for at in (6, data.rindex(b"PK\x01\x02") + 8):  # the flag that says so, in both headers
        data[at] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (CSV.decode().encode("utf-16"), "is UTF-16 text, not text in UTF-8: convert it"),
        (CSV.decode().encode("utf-16-be"), r"is UTF-16 text.*iconv -f UTF-16BE -t UTF-8"),
        (CSV.decode().encode("utf-32"), "is UTF-32 text"),
        (gzip.compress(CSV.decode().encode("utf-16")), "holds UTF-16 text"),
        (as_parquet(), "is a Parquet file.*use the format parquet"),
        (zipped(("a.csv", CSV), ("b.csv", CSV)), r"a zip archive of 2 files \('a.csv', 'b.csv'\), one is expected"),
        (zipped(), r"a zip archive of 0 files \(it is empty\)"),
        (zipped(("../../a.csv", CSV)), r"whose file is named '\.\./\.\./a\.csv', outside of its folder"),
        (zipped(("/etc/a.csv", CSV)), "outside of its folder"),
        (zipped(("..\\a.csv", CSV)), "outside of its folder"),
        (zipped(("[Content_Types].xml", b"<x/>"), ("xl/a.xml", b"<x/>")), "is an Excel or Office file: save it as CSV"),
        (encrypted(), "is an encrypted zip archive"),
        (tarred(CSV, "w"), "is a tar archive.*unpack it"),
        (tarred(CSV, "w:gz"), "holds a tar archive"),
        (gzip.compress(gzip.compress(CSV)), "packed twice, by gzip and by gzip"),
        (zipped(("a.csv.gz", gzip.compress(CSV))), "packed twice, by gzip and by zip"),
        (b"7z\xbc\xaf\x27\x1c rest", "is a 7z archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html><body>Log in</body></html>", r"is a web page \(HTML\)"),
        (b"SQLite format 3\x00", "is an SQLite database"),
        (b"", "is empty, or its first row does not name the columns"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_named(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as error:
        opened(tmp_path / "cache", put(tmp_path / "log.csv", data))
    assert len(str(error.value)) <= 500


@pytest.mark.parametrize(
    ("header", "encoding", "likely"),
    [
        ("y,prénom,é", "latin-1", "looks like Windows-1252 or Latin-1; convert it to UTF-8"),
        ("y,名前,価格", "shift-jis", "another script"),
        ("y,имя,цена", "cp1251", "another script"),
    ],
)
def test_names_in_other_encodings(header: str, encoding: str, likely: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"row 1: the column names are not UTF-8; it .*{likely}"):
        opened(tmp_path / "cache", put(tmp_path / "log.csv", f"{header}\n1,2,3\n".encode(encoding)))
    with pytest.raises(DataError, match=rf"a\.txt, row 1, byte \d+: not UTF-8 text \(0x\w\w\); it .*{likely}"):
        list(open_text(put(tmp_path / "a.txt", header.encode(encoding))))


def test_one_file_in_a_zip_archive_with_what_a_mac_adds(tmp_path: Path) -> None:
    data = zipped(("log/a.csv", CSV), ("__MACOSX/log/._a.csv", b"\0\5"), ("log/", b""))
    assert_same(
        opened(tmp_path / "cache", put(tmp_path / "a.zip", data)),
        opened(tmp_path / "cache", put(tmp_path / "a.csv", CSV)),
    )


def test_a_name_that_says_packed_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"log\.csv\.gz is named as packed by gzip, but is not"):
        opened(tmp_path / "cache", put(tmp_path / "log.csv.gz", CSV))
    with pytest.raises(DataError, match=r"log\.parquet is packed by gzip, which Parquet does by itself"):
        opened(tmp_path / "cache", put(tmp_path / "log.parquet", gzip.compress(as_parquet())), "parquet")


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: zipped(("a.csv", data))])
def test_an_archive_that_unpacks_into_far_too_much_is_refused(
    pack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_FREE", 1 << 20)
    monkeypatch.setattr(streams, "_RATIO", 100)
    data = opened(tmp_path / "cache", put(tmp_path / "log.csv", pack(CSV * 1)))
    assert data.split("train").rows == 160
    bomb = put(tmp_path / "bomb.csv", pack(CSV + b"1,2,u,t,2024-05-31 17:00:00,1,d\n" * 1_000_000))
    with pytest.raises(DataError, match=r"bomb\.csv unpacks into more than .* bytes, over 100 times its size"):
        opened(tmp_path / "cache", bomb)


def test_a_damaged_archive_is_no_table(tmp_path: Path) -> None:
    data = bytearray(zipped(("a.csv", CSV * 50)))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(DataError, match=r"bad\.zip cannot be"):
        opened(tmp_path / "cache", put(tmp_path / "bad.zip", bytes(data)))
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as archive:
        archive.writestr("a.csv", CSV)
    wrong = stored.getvalue().replace(b"u3", b"u4", 1)  # the checksum finds what no reader of text could
    with pytest.raises(DataError, match="Bad CRC-32"):
        opened(tmp_path / "cache", put(tmp_path / "crc.zip", wrong))


def test_the_checksums_of_a_parquet_file_are_looked_at(tmp_path: Path) -> None:
    whole = as_parquet(compression="none", use_dictionary=False, write_page_checksum=True)
    assert opened(tmp_path / "cache", put(tmp_path / "a.parquet", whole), "parquet").split("train").rows == 160
    wrong = whole.replace(b"u3", b"u4", 1)
    assert wrong != whole
    with pytest.raises(DataError, match=r"b\.parquet cannot be read as Parquet: .*CRC"):
        opened(tmp_path / "cache", put(tmp_path / "b.parquet", wrong), "parquet")


@pytest.mark.parametrize("format", ["csv", "parquet", "movielens"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/tmp/" + "a" * 300, r"task\.data\.path is '/tmp/aaa.*File name too long"),
        ("~nobody-of-that-name/a.csv", r"task\.data\.path is '~nobody"),
    ],
)
def test_paths_that_cannot_be(format: str, path: str, message: str, tmp_path: Path) -> None:
    table = {} if format == "movielens" else {"table": {"label": "y", "numeric": ["x"]}}
    settings = DataSettings.model_validate({"format": format, "path": path, **table})
    with pytest.raises(DataError, match=message) as error:
        open_ranking(settings, cache=tmp_path / "cache")
    assert len(str(error.value)) <= 500


def test_places_that_hold_no_table(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"The folder .*empty has no file that ends with \.csv"):
        opened(cache, tmp_path / "empty")
    with pytest.raises(DataError, match=r"Nothing matches .*empty/\*\.csv"):
        opened(cache, tmp_path / "empty" / "*.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="neither a file nor a folder, but a device or a pipe"):
        opened(cache, tmp_path / "pipe.csv")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(DataError, match=r"circle': Too many levels of symbolic links"):
        opened(cache, tmp_path / "circle")
    (tmp_path / "round").mkdir()
    (tmp_path / "round" / "again").symlink_to(tmp_path / "round")
    put(tmp_path / "round" / "a.csv", CSV)
    assert opened(cache, f"{tmp_path}/round/**").name == "a"
    put(tmp_path / "a[1].csv", CSV)
    assert opened(cache, tmp_path / "a[1].csv").name == "a[1]"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/tmp/a\0b", "it has a character that cannot be printed"),
        ("s3://key:secret@bucket/log.csv", "path: the URI holds credentials"),
        ("s3://secret@bucket/log.csv", "path: the URI holds credentials"),
        ("s3://bucket/log.csv?region=x&secret_key=secret", "path: the URI holds credentials"),
        ("abfs://:secret@account/log.csv", "path: the URI holds credentials"),
        ("gs://bucket/log.csv?access_token=secret", "path: the URI holds credentials"),
    ],
)
def test_paths_that_are_refused_before_any_work(path: str, message: str) -> None:
    table = "task.data.table={label: y, numeric: [x]}"
    given = ["space=ranking_blocks", "task=ranking", "task.data.format=csv", table]
    with pytest.raises(ConfigError, match=message) as error:
        resolve([*given, f"task.data.path={quoted(path)}"])
    assert "secret" not in str(error.value).replace("secret_key", "")
    with pytest.raises(ConfigError, match=message.replace("path: ", "text: ", 1)):
        resolve(["space=mobile_llm", f"task.text={quoted(path)}"])


@pytest.mark.parametrize("uri", ["abfs://container@account.dfs.core.windows.net/a", "hdfs://user@host:9000/a", "a@b:c"])
def test_users_and_containers_are_no_passwords(uri: str) -> None:
    assert problem_of_place(uri) is None


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://example.org/log.csv", r"cannot be opened: Unrecognized filesystem type.*s3://"),
        ("file:///tmp/a b.csv", "cannot be opened: Cannot parse URI"),
    ],
)
def test_uris_that_cannot_be_opened(uri: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        opened(tmp_path / "cache", uri)


class Counting(fs.FileSystemHandler):
    """A store of other people's: what lies below a folder, and how many bytes of it were asked for."""

    def __init__(self, folder: Path) -> None:
        self.inner, self.read = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem()), 0

    def get_type_name(self) -> str:
        return "counting"

    def get_file_info(self, paths: list[str]) -> Any:
        return self.inner.get_file_info(paths)

    def get_file_info_selector(self, selector: Any) -> Any:
        return self.inner.get_file_info(selector)

    def open_input_file(self, path: str) -> Any:
        store = self

        class File(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                data = super().read(size)
                store.read += len(data)
                return data

        return pa.PythonFile(File(self.inner.open_input_file(path).read()), "r")

    def normalize_path(self, path: str) -> str:
        return path

    def _never(self, *_: Any) -> Any:
        raise NotImplementedError

    open_input_stream = open_output_stream = open_append_stream = copy_file = move = create_dir = delete_file = _never
    delete_dir = delete_dir_contents = delete_root_dir_contents = _never


def test_an_object_store_is_read_no_further_than_needed(tmp_path: Path) -> None:
    rows = [row | {"price": i} for i, row in enumerate(ROWS * 500)]
    file = put(tmp_path / "store" / "log" / "day=d0" / "a.parquet", as_parquet(rows=rows, row_group_size=10_000))
    handler = Counting(tmp_path / "store")
    data = opened(tmp_path / "cache", "log", "parquet", fs.PyFileSystem(handler), limit=1000)
    assert sum(split.rows for split in data.splits.values()) == 1000
    assert handler.read < 0.4 * file.stat().st_size
    before = handler.read
    opened(tmp_path / "cache", "log", "parquet", fs.PyFileSystem(handler), limit=1000)
    assert handler.read == before, "a table that is known by its path, size and time is not fetched again"


def test_a_table_in_a_store_is_read_as_one_on_the_disk(tmp_path: Path) -> None:
    put(tmp_path / "store" / "a.csv", gzip.compress(CSV))
    put(tmp_path / "store" / "b.csv", zipped(("a.csv", CSV)))
    plain = opened(tmp_path / "cache", put(tmp_path / "plain.csv", CSV))
    store = fs.PyFileSystem(Counting(tmp_path / "store"))
    for name in ("a.csv", "b.csv"):
        assert_same(opened(tmp_path / "cache", name, filesystem=store), plain)
    with pytest.raises(DataError, match=r"There is no file or folder c.csv"):
        opened(tmp_path / "cache", "c.csv", filesystem=store)
    broken = zipped(("a.csv", CSV)).replace(b"u3", b"u4")
    with pytest.raises(DataError, match=r"b.csv cannot be unpacked"):
        opened(tmp_path / "cache", str(put(tmp_path / "store" / "b.csv", broken[:-40]).name), filesystem=store)


def test_a_large_file_of_which_little_is_wanted_is_known_without_reading_it(tmp_path: Path) -> None:
    file = put(tmp_path / "log.csv", b"y,x\n1,2\n")
    known, whole = content_hash([file], tmp_path, 4), content_hash([file], tmp_path)
    assert content_hash([file], tmp_path, 100) == whole, "a small one is read"
    stat = file.stat()
    file.write_bytes(b"y,x\n1,3\n")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert content_hash([file], tmp_path) != whole
    assert content_hash([file], tmp_path, 4) != known
