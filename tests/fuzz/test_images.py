"""Sets of images in every format that is read, whole and damaged: files, archives around them, single images."""

from __future__ import annotations

import gzip
import io
import struct
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from rankitect.data.images.dataset import ImageData
from rankitect.data.images.decode import Form, decoded
from rankitect.data.images.encoder import ImageEncoder
from rankitect.data.images.idx import read_idx
from rankitect.data.images.prepare import open_images
from rankitect.data.images.settings import ImageSettings
from rankitect.documents import parse_json
from rankitect.errors import AssetError
from tests.data.images.files import as_deb, as_idx, as_png, as_tar, as_zip, pictures
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz


class Damaged(NamedTuple):
    """A file, and the settings that it is read with."""

    name: str
    content: bytes
    settings: dict[str, Any]


class TestIdx(Fuzz):
    """IDX files, packed or not."""

    cases = 300
    share = 2

    def make(self, random: Random) -> bytes:
        data = as_idx(pictures(4, (3, 2), channels=1))
        if random.random() < 0.3:
            return mutate.bytes_(random, gzip.compress(data))
        damaged = mutate.bytes_(random, data)
        return gzip.compress(damaged) if random.random() < 0.3 else damaged

    def read(self, data: bytes, folder: Path) -> NDArray[np.uint8]:
        return read_idx(data, "x-images-idx3-ubyte", 3)

    def confirm(self, data: bytes, value: NDArray[np.uint8]) -> None:
        plain = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        magic, *shape = struct.unpack(">4I", plain[:16])
        assert magic == 0x00000803
        assert value.shape == tuple(shape)
        assert value.tobytes() == plain[16:]


class TestEncodedImages(Fuzz):
    """Single encoded images."""

    cases = 300
    share = 3

    def make(self, random: Random) -> bytes:
        kind = random.choice(["PNG", "JPEG", "BMP", "WEBP", "PPM", "GIF", "TIFF"])
        return mutate.bytes_(random, as_png(pictures(1, (9, 7), random.choice([1, 3]))[0], kind), 2)

    def read(self, data: bytes, folder: Path) -> NDArray[np.uint8]:
        return decoded(data, "some.png", Form())

    def confirm(self, data: bytes, value: NDArray[np.uint8]) -> None:
        image = Image.open(io.BytesIO(data))
        assert image.format in ("PNG", "JPEG", "BMP", "WEBP", "PPM")
        assert value.dtype == np.uint8
        assert value.shape[0] in (1, 3)
        # Metadata may say that an image lies on its side.
        assert sorted(value.shape[1:]) == sorted(image.size)


@cache
def archives() -> dict[str, bytes]:
    """The same images in each kind of archive."""
    files = {f"{'ab'[n % 2]}/{n}.png": as_png(image) for n, image in enumerate(pictures(12, (3, 2)))}
    return {
        "set.zip": as_zip(files), "set.tar": as_tar(files, "w"), "set.tar.gz": as_tar(files),
        "set.tar.xz": as_tar(files, "w:xz"), "set.deb": as_deb(files), "gz.deb": as_deb(files, "w:gz"),
    }  # fmt: skip


class TestArchives(Fuzz):
    """Archives of folders of images."""

    cases = 150

    def make(self, random: Random) -> Damaged:
        name = random.choice(sorted(archives()))
        settings = random.choice([{}, {"corrupt": "skip"}, {"resize": 4}])
        return Damaged(name, mutate.bytes_(random, archives()[name], 2), settings)

    def read(self, data: Damaged, folder: Path) -> ImageData:
        (folder / data.name).write_bytes(data.content)
        settings = ImageSettings.model_validate({"data": str(folder / data.name), **data.settings})
        return open_images(settings, cache=folder / "cache", progress=lambda line: None)

    def confirm(self, data: Damaged, value: ImageData) -> None:
        # An image keeps a checksum of its own, so that one that is read is one of those that were packed.
        size = data.settings.get("resize")
        whole = {decoded(as_png(image), "x", Form(size)).tobytes() for image in pictures(12, (3, 2))}
        assert value.shape == (3, size or 3, size or 2)
        assert {image.tobytes() for image in value.stored.pixels} <= whole
        assert len(value.stored.labels) >= 6
        if data.name == "set.zip":
            with zipfile.ZipFile(io.BytesIO(data.content)) as archive:
                images = [name for name in archive.namelist() if name.endswith(".png")]
            assert len(images) == len(value.stored.labels) + value.facts["corrupt"]


class TestCifarFiles(Fuzz):
    """CIFAR's binary files."""

    cases = 60

    def make(self, random: Random) -> Damaged:
        records = b"".join(bytes([n % 2]) + bytes([n]) * 3072 for n in range(12))
        name = random.choice(["data_batch_1.bin", "train.bin"])
        return Damaged(name, mutate.bytes_(random, records, 2), {})

    def read(self, data: Damaged, folder: Path) -> ImageData:
        (folder / data.name).write_bytes(data.content)
        return open_images(
            ImageSettings(data=str(folder / data.name)), cache=folder / "cache", progress=lambda line: None
        )

    def confirm(self, data: Damaged, value: ImageData) -> None:
        begin = 1 if data.name.startswith("data") else 2
        records = np.frombuffer(data.content, np.uint8).reshape(-1, begin + 3072)
        assert np.array_equal(value.stored.pixels.reshape(len(records), -1), records[:, begin:])
        named = [int(value.classes[label]) for label in value.stored.labels]
        assert named == records[:, begin - 1].tolist()


class TestParquetImages(Fuzz):
    """Parquet files with encoded images."""

    cases = 60

    def make(self, random: Random) -> bytes:
        encoded = [as_png(image) for image in pictures(8, (3, 2))]
        labels: list[Any] = [n % 2 for n in range(8)]
        if random.random() < 0.4:
            labels[random.randrange(8)] = random.choice([None, -1, 2**40, 1])
        if random.random() < 0.3:
            encoded[random.randrange(8)] = mutate.bytes_(random, encoded[0])
        column: list[Any] = [{"bytes": data, "path": "x"} for data in encoded] if random.random() < 0.5 else encoded
        table = pa.table({"image": column, "label": pa.array(labels, pa.int64())})
        if random.random() < 0.5:
            about = mutate.json_text(random, {"info": {"features": {"label": {"names": ["a", "b"]}}}})
            table = table.replace_schema_metadata({"huggingface": about})
        file = io.BytesIO()
        pq.write_table(table, file)
        return mutate.bytes_(random, file.getvalue(), 1) if random.random() < 0.4 else file.getvalue()

    def read(self, data: bytes, folder: Path) -> ImageData:
        (folder / "set.parquet").write_bytes(data)
        settings = ImageSettings(data=str(folder / "set.parquet"))
        return open_images(settings, cache=folder / "cache", progress=lambda line: None)

    def confirm(self, data: bytes, value: ImageData) -> None:
        table = pq.read_table(io.BytesIO(data))
        labels = table["label"].to_pylist()
        assert len(labels) == len(value.stored.labels)
        order = {label: number for number, label in enumerate(sorted(set(labels)))}
        assert [order[label] for label in labels] == value.stored.labels.tolist()
        for cell, pixels in zip(table["image"].to_pylist(), value.stored.pixels, strict=True):
            encoded = cell["bytes"] if isinstance(cell, dict) else cell
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).transpose(2, 0, 1), pixels)


class TestEncoders(Fuzz):
    """images.json of a candidate: how images become inputs."""

    cases = 200

    def make(self, random: Random) -> bytes:
        known = {"shape": [3, 4, 4], "mean": [0.5, 0.4, 0.3], "deviation": [0.2, 0.2, 0.1]}
        return mutate.json_text(random, {**known, "resize": random.choice([None, 4]), "classes": ["a", "b"]})

    def read(self, data: bytes, folder: Path) -> ImageEncoder:
        return parse_json(data, ImageEncoder, "images.json", AssetError)

    def confirm(self, data: bytes, value: ImageEncoder) -> None:
        image = pictures(1, (4, 4))[0]
        if value.shape != (3, 4, 4):
            assert value.shape[0] in (1, 3)
            return
        expected = (image.transpose(2, 0, 1) / 255 - np.reshape(value.mean, (3, 1, 1))) / np.reshape(
            value.deviation, (3, 1, 1)
        )
        assert np.allclose(value.encode([image])[0], expected, rtol=1e-4, atol=1e-4)


def test_fuzzed_archives_are_the_ones_that_are_read_whole() -> None:
    with tempfile.TemporaryDirectory() as place:
        for name, content in archives().items():
            (Path(place) / name).write_bytes(content)
            data = open_images(
                ImageSettings(data=f"{place}/{name}"), cache=Path(place) / "cache", progress=lambda line: None
            )
            assert len(data.stored.labels) == 12
