"""Images come out of every format pixel by pixel; what cannot be trusted is refused by name."""

from __future__ import annotations

import io
import re
import threading
import tracemalloc
import warnings
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rankitect.data.images.dataset import ImageData
from rankitect.data.images.prepare import open_images
from rankitect.data.images.settings import ImageSettings
from rankitect.data.images.sources import open_source
from rankitect.data.images.store import make_entry
from rankitect.errors import DataError
from tests.data.images.files import as_deb, as_idx, as_png, as_tar, as_zip, pictures, write_folders, write_idx

CLASSES = ("cat", "dog", "owl")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKITECT_CACHE", str(tmp_path / "cache"))


def opened(path: Path | str, **settings: object) -> ImageData:
    return open_images(ImageSettings.model_validate({"data": str(path), **settings}), progress=lambda line: None)


def by_class(data: ImageData) -> dict[str, set[bytes]]:
    """The pixels of all images, by the name of their class."""
    stored = data.stored
    return {
        name: {image.tobytes() for image in stored.pixels[stored.labels == number]}
        for number, name in enumerate(data.classes)
    }


def expected(images: np.ndarray, classes: tuple[str, ...] = CLASSES) -> dict[str, set[bytes]]:
    """The same of images that belong to the classes in turn."""
    planes = images.transpose(0, 3, 1, 2) if images.ndim == 4 else images[:, None]
    return {name: {p.tobytes() for p in planes[number :: len(classes)]} for number, name in enumerate(classes)}


def folders(images: np.ndarray, begin: str = "") -> dict[str, bytes]:
    return {f"{begin}{CLASSES[n % 3]}/{n}.png": as_png(image) for n, image in enumerate(images)}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("place", ["folder", "zip", "wrapped zip", "tar", "deb"])
def test_a_folder_for_each_class_wherever_it_lies(tmp_path: Path, place: str, channels: int) -> None:
    images = pictures(18, channels=channels)
    files = folders(images, "set/" if place in ("wrapped zip", "tar") else "")
    path = tmp_path / f"set.{'deb' if place == 'deb' else 'tar.gz' if place == 'tar' else 'zip'}"
    if place == "folder":
        path = write_folders(tmp_path / "set", files)
    else:
        path.write_bytes({"tar": as_tar, "deb": as_deb}.get(place, as_zip)(files))
    data = opened(path)
    assert data.classes == CLASSES
    assert data.shape == (channels, 6, 5)
    assert by_class(data) == expected(images)
    assert data.fingerprint == opened(path).fingerprint


def test_splits_that_folders_name_are_taken_as_they_are(tmp_path: Path) -> None:
    train, test = pictures(15, seed=1), pictures(9, seed=2)
    (tmp_path / "all.zip").write_bytes(as_zip({**folders(train, "train/"), **folders(test, "test/")}))
    data = opened(tmp_path / "all.zip")
    assert {image.tobytes() for image in data.stored.pixels[data.splits["test"]]} == set().union(
        *expected(test).values()
    )
    assert len(data.splits["train"]) + len(data.splits["validation"]) == 15
    (tmp_path / "a.zip").write_bytes(as_zip(folders(train, "train/")))
    (tmp_path / "b.zip").write_bytes(as_zip(folders(test, "whatever/")))
    apart = opened(tmp_path / "a.zip", test=str(tmp_path / "b.zip"))
    assert apart.fingerprint == data.fingerprint, "the same images and splits, in other files"
    assert opened(tmp_path / "[ab].zip").splits["test"].size == 3, "other folders are classes: test/, whatever/"


def test_the_same_files_with_another_of_them_for_the_test_are_another_set(tmp_path: Path) -> None:
    parts = [pictures(12, seed=seed) for seed in range(3)]
    for name, images in zip("abc", parts, strict=True):
        (tmp_path / f"{name}.zip").write_bytes(as_zip(folders(images)))
    for data, test, tested in (("[ab]", "c", parts[2:]), ("a", "[bc]", parts[1:])):
        read = opened(tmp_path / f"{data}.zip", test=str(tmp_path / f"{test}.zip"))
        wanted = {image.tobytes() for part in tested for image in part.transpose(0, 3, 1, 2)}
        assert {image.tobytes() for image in read.stored.pixels[read.splits["test"]]} == wanted


def test_a_folder_named_as_a_split_is_one_only_below_the_path(tmp_path: Path) -> None:
    write_folders(tmp_path / "set", folders(pictures(18), "test/"))
    with pytest.raises(DataError, match="The class cat has 0 different images, and 2 are needed"):
        opened(tmp_path / "set")
    assert len(opened(tmp_path / "set" / "test").splits["train"]) > 0


def test_idx_files_with_a_test_split(tmp_path: Path) -> None:
    images, labels = pictures(30, channels=1), np.arange(30, dtype=np.uint8) % 3
    for packed in (True, False):
        root = tmp_path / str(packed)
        write_idx(root, "train", images[:21], labels[:21], packed)
        write_idx(root, "t10k", images[21:], labels[21:], packed)
        data = opened(root)
        assert by_class(data) == expected(images, ("0", "1", "2"))
        assert len(data.splits["test"]) == 9


def test_cifars_binary_files(tmp_path: Path) -> None:
    images = pictures(40, (32, 32))
    records = [bytes([n % 10]) + image.transpose(2, 0, 1).tobytes() for n, image in enumerate(images)]
    names = "".join(f"kind{n}\n" for n in range(10)).encode()
    files = {"x/data_batch_1.bin": b"".join(records[:30]), "x/test_batch.bin": b"".join(records[30:])}
    (tmp_path / "c.tar.gz").write_bytes(as_tar({**files, "x/batches.meta.txt": names}))
    data = opened(tmp_path / "c.tar.gz")
    assert by_class(data) == expected(images, tuple(f"kind{n}" for n in range(10)))
    assert len(data.splits["test"]) == 10
    hundred = [bytes([n % 3, n % 4]) + image.transpose(2, 0, 1).tobytes() for n, image in enumerate(images)]
    write_folders(tmp_path / "h", {"train.bin": b"".join(hundred[:32]), "test.bin": b"".join(hundred[32:])})
    assert by_class(opened(tmp_path / "h")) == expected(images, ("0", "1", "2", "3"))


@pytest.mark.parametrize("nested", [True, False])
def test_parquet_with_image_bytes(tmp_path: Path, nested: bool) -> None:
    images = pictures(18)
    encoded = [as_png(image) for image in images]
    column = [{"bytes": data, "path": None} for data in encoded] if nested else encoded
    schema = b'{"info": {"features": {"label": {"names": ["cat", "dog", "owl"], "_type": "ClassLabel"}}}}'
    for begin, rows in (("train", slice(0, 12)), ("test", slice(12, 18))):
        table = pa.table({"image" if nested else "picture": column[rows], "label": [n % 3 for n in range(18)][rows]})
        file = tmp_path / "p" / f"{begin}-00000-of-00001.parquet"
        file.parent.mkdir(exist_ok=True)
        pq.write_table(table.replace_schema_metadata({"huggingface": schema}), file)
    data = opened(tmp_path / "p", **({} if nested else {"image_column": "picture"}))
    assert by_class(data) == expected(images)
    assert len(data.splits["test"]) == 6


def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    images = [*pictures(9), *pictures(9, (8, 7), seed=1)]
    write_folders(tmp_path / "s", {f"{CLASSES[n % 3]}/{n:02}.png": as_png(image) for n, image in enumerate(images)})
    with pytest.raises(
        DataError, match=r"several sizes: cat/09\.png is 8 x 7, and cat/00\.png 6 x 5\. Give task\.resize"
    ):
        opened(tmp_path / "s")
    assert opened(tmp_path / "s", resize=4).shape == (3, 4, 4)


@pytest.mark.parametrize("grey_first", [True, False])
def test_grey_images_among_colour_are_refused_or_converted(tmp_path: Path, grey_first: bool) -> None:
    grey, colour = pictures(9, channels=1), pictures(9)
    parts = (grey, colour) if grey_first else (colour, grey)
    images = [image for part in parts for image in part]
    write_folders(tmp_path / "s", {f"{CLASSES[n % 3]}/{n:02}.png": as_png(image) for n, image in enumerate(images)})
    with pytest.raises(DataError, match=r"cat/09\.png is .*task\.channels=1 or 3 with task\.convert=true"):
        opened(tmp_path / "s")
    with pytest.raises(DataError, match=r"is grey, and task\.channels=3 expects colour images\. task\.convert=true"):
        opened(tmp_path / "s", channels=3)
    data = opened(tmp_path / "s", channels=3, convert=True)
    assert by_class(data)["cat"] >= {np.repeat(grey[0][None], 3, 0).tobytes()}
    assert opened(tmp_path / "s", channels=1, convert=True).shape == (1, 6, 5)


def test_a_corrupt_image_is_refused_by_name_or_skipped_and_counted(tmp_path: Path) -> None:
    files = folders(pictures(30))
    files["dog/4.png"] = files["dog/4.png"][:50]
    write_folders(tmp_path / "s", files)
    with pytest.raises(DataError, match=r"dog/4\.png cannot be decoded as an image .*task\.corrupt=skip"):
        opened(tmp_path / "s")
    lines: list[str] = []
    data = open_images(ImageSettings(data=str(tmp_path / "s"), corrupt="skip"), progress=lines.append)
    assert data.facts["corrupt"] == 1
    assert len(data.stored.labels) == 29
    assert lines == ["s: 1 images cannot be decoded and are left out, such as dog/4.png."]
    for n in range(8):
        files[f"{CLASSES[n % 3]}/{n}.png"] = b"no image"
    write_folders(tmp_path / "t", files)
    with pytest.raises(DataError, match=r"t: 8 of 30 images cannot be decoded, .* the first of them\. Are these"):
        opened(tmp_path / "t", corrupt="skip")


def test_an_empty_folder_of_a_class_is_refused(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "s", folders(pictures(18)))
    (root / "bat").mkdir()
    with pytest.raises(DataError, match="The folder bat has no image"):
        opened(root)
    (root / "bat" / "notes.txt").write_text("none yet")
    with pytest.raises(DataError, match="The folder bat has no image"):
        opened(root)
    packed = {**folders(pictures(18)), "bat/": b""}
    (tmp_path / "s.zip").write_bytes(as_zip(packed))
    with pytest.raises(DataError, match="The folder bat has no image"):
        opened(tmp_path / "s.zip")


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG with a header of another size."""
    import zlib

    data = bytearray(as_png(pictures(1)[0]))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def deep(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint16) * 256).save(file, "PNG")
    return file.getvalue()


IDX = as_idx(pictures(6, channels=1))
LABELS = as_idx(np.arange(6, dtype=np.uint8) % 3)
FEWER = LABELS[:7] + b"\x05" + LABELS[8:-1]
FLOATS = as_idx(pictures(6, channels=1), 13)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a/1.png": png_that_claims(60_000, 60_000)}, "a/1.png claims to have more than 50,000,000 pixels"),
        ({"a/1.png": png_that_claims(9_000, 9_000)}, "a/1.png claims to have more than 50,000,000 pixels"),
        ({"a/1.png": deep(pictures(1, channels=1)[0])}, "a/1.png has values of more than 8 bits"),
        ({"1.png": as_png(pictures(1)[0])}, "1.png lies in no folder of a class"),
        ({"a/1.png": as_png(pictures(1)[0])}, "has 1 class: images are told apart by 2"),
        ({"a/1.png": as_png(pictures(1)[0]), "b/1.png": as_png(pictures(1)[0])}, "the class a has 1 different image"),
        ({"a/1.txt": b"x"}, "holds no images"),
        ({"train-images-idx3-ubyte": IDX}, "has no file of labels beside it"),
        ({"train-images-idx3-ubyte": IDX[:-1], "train-labels-idx1-ubyte": LABELS}, "is truncated: its header says 6 x"),
        ({"train-images-idx3-ubyte": IDX + b"x", "train-labels-idx1-ubyte": LABELS}, "is damaged: its header says 6 x"),
        ({"train-images-idx3-ubyte": IDX, "train-labels-idx1-ubyte": FEWER}, "has 6 images, and"),
        ({"train-images-idx3-ubyte": b"\x1f\x8bx", "train-labels-idx1-ubyte": LABELS}, "cannot be unpacked"),
        ({"train-images-idx3-ubyte": FLOATS, "train-labels-idx1-ubyte": LABELS}, "holds floats"),
        ({"data_batch_1.bin": bytes(3072)}, "are no multiple of 3,073"),
        ({"data_batch_1.bin": bytes([10]) + bytes(3072)}, "has label 10, of 10 classes"),
        ({"data_batch_1": b"\x80\x02}q"}, "a pickle, which could run any program: take the binary version"),
        ({"a.zip": b"PK\x03\x04"}, "a.zip cannot be read as an archive"),
        ({"a.tar.gz": as_tar({"a/1.png": bytes(9)})[:60]}, "a.tar.gz cannot be read as an archive"),
        ({"a.tar": as_tar({"a/1.png": bytes(9), "b/1.png": bytes(9)}, "w")[:1024]}, "it is damaged, or ends too early"),
        ({"a.tar": as_tar({"a/1.png": bytes(9)}, "w")[:600]}, "a.tar cannot be read as an archive"),
        ({"a.deb": as_deb({"x": b"y"})[:300]}, "a.deb is truncated"),
        ({"a.deb": b"!<arch>\nx"}, "a.deb is no Debian package"),
        ({"p.parquet": b"PAR1"}, "p.parquet cannot be read as Parquet"),
        ({"p.parquet": b"PAR1", "a/1.png": b""}, "holds Parquet files and image files"),
    ],
)  # fmt: skip
def test_what_is_no_set_of_images_is_refused_by_name(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    root = write_folders(tmp_path / "set", files)
    with pytest.raises(DataError, match=re.compile(re.escape(message), re.IGNORECASE)):
        opened(root)


def test_an_encoded_image_that_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankitect.data.images.decode.MOST_BYTES", 1000)
    files = folders(pictures(18))
    write_folders(tmp_path / "set", {**files, "dog/big.png": bytes(1001)})
    with pytest.raises(DataError, match=r"dog/big\.png has 1,001 bytes, and an image at most 1,000"):
        opened(tmp_path / "set", corrupt="skip")
    cells = [*files.values(), bytes(1001)]
    pq.write_table(pa.table({"image": cells, "label": [n % 2 for n in range(19)]}), tmp_path / "p.parquet")
    with pytest.raises(DataError, match=r"p\.parquet, row 18 has 1,001 bytes"):
        opened(tmp_path / "p.parquet", corrupt="skip")


def test_a_cell_that_a_dictionary_repeats_is_read_a_few_times_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankitect.data.images.parquet._MOST_READ", 4000)
    images, read = pictures(12), list[int]()
    cells = [as_png(image) for image in images]
    pq.write_table(pa.table({"image": cells * 4, "label": [n % 3 for n in range(48)]}), tmp_path / "p.parquet")
    whole = pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *a, **k: (read.append(a[1]), whole(*a, **k))[1])
    assert by_class(opened(tmp_path / "p.parquet")) == expected(images, ("0", "1", "2"))
    assert all(rows * sum(map(len, cells)) <= 4000 or rows == 1 for rows in read)


def test_decoded_images_that_would_fill_the_disk_are_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_folders(tmp_path / "set", folders(pictures(18)))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match=r"set: 11 decoded images of 3 x 6 x 5 bytes .* would fill the disk"):
        opened(root)
    assert not list((tmp_path / "cache" / "images").glob("*/pixels.u8"))


def test_large_images_are_decoded_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = 700
    monkeypatch.setattr("rankitect.data.images.store._MOST_TOGETHER", 1 << 20, raising=False)
    monkeypatch.setattr("rankitect.data.images.store.worker_count", lambda given: 2)
    images = np.zeros((40, side, side), np.uint8)
    images[:, 0, 0] = np.arange(40)
    root = write_folders(tmp_path / "set", folders(images))
    (tmp_path / "entry").mkdir()
    with ExitStack() as stack:
        settings = ImageSettings(data=str(root))
        source = open_source(settings, stack)
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        make_entry(tmp_path / "entry", source, settings, {}, lambda count: None)
        peak = tracemalloc.get_traced_memory()[1]
    assert peak < 40 * side * side / 2, "bytes of decoded images that wait to be written"


def test_filters_of_warnings_are_changed_by_one_thread_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()

    class Noted(warnings.catch_warnings):  # type: ignore[type-arg]
        def __enter__(self) -> None:
            threads.add(threading.current_thread())
            super().__enter__()

    monkeypatch.setattr(warnings, "catch_warnings", Noted)
    opened(write_folders(tmp_path / "set", folders(pictures(90))))
    assert threads <= {threading.main_thread()}


def test_a_pixel_that_was_damaged_is_not_read(tmp_path: Path) -> None:
    file, image = io.BytesIO(), pictures(1)[0]
    Image.fromarray(image).save(file, "PNG", compress_level=0)
    plain = file.getvalue()
    at = plain.index(image[0].tobytes())
    files = {**folders(pictures(18)), "cat/0.png": plain}
    assert len(opened(write_folders(tmp_path / "whole", files)).stored.labels) == 18
    files["cat/0.png"] = plain[:at] + bytes([plain[at] ^ 1]) + plain[at + 1 :]
    with pytest.raises(DataError, match=r"cat/0\.png cannot be decoded .*its pixels do not have their checksum"):
        opened(write_folders(tmp_path / "damaged", files))


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_an_archive_whose_checksum_is_wrong_is_not_read(tmp_path: Path, kind: str) -> None:
    packed = as_tar(folders(pictures(18)), f"w:{kind}")
    at = len(packed) - {"gz": 8, "bz2": 4, "xz": 20}[kind]
    (tmp_path / f"set.tar.{kind}").write_bytes(packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :])
    with pytest.raises(DataError, match=rf"set\.tar\.{kind} cannot be read as an archive"):
        opened(tmp_path / f"set.tar.{kind}")


def test_an_image_that_is_too_thin_to_be_resized_is_named(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "set", {"a/1.png": as_png(pictures(1, (1, 9000))[0])})
    with pytest.raises(DataError, match=r"a/1\.png is too thin for task\.resize=100: it has 9,000 x 1 pixels"):
        opened(root, resize=100)


def test_a_zip_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    data = bytearray(as_zip({"a/1.png": bytes(1000)}))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (2**32 - 2).to_bytes(4, "little")  # what the directory claims
    (tmp_path / "a.zip").write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"a\.zip cannot be read as an archive .*claims to hold 4,294,967,294 bytes"):
        opened(tmp_path / "a.zip")


def test_what_is_kept_is_used_again_and_made_again_where_it_is_damaged(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "set", folders(pictures(18)))
    first = opened(root)
    (pixels,) = (tmp_path / "cache" / "images").glob("*/pixels.u8")
    before = pixels.stat().st_mtime_ns
    assert opened(root).fingerprint == first.fingerprint
    assert pixels.stat().st_mtime_ns == before
    pixels.write_bytes(pixels.read_bytes()[:-1])
    assert opened(root).fingerprint == first.fingerprint
    (root / "cat" / "0.png").rename(root / "dog" / "99.png")
    assert opened(root).fingerprint != first.fingerprint, "an image that moves to another class"
