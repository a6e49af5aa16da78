"""Decoding a source once into an entry of the cache: pixels and labels in files that are mapped into memory."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.entries import hash_kept, manifest_of, write_manifest
from rankitect.data.images.decode import CorruptImage, Form, decoded, named
from rankitect.data.images.raw import ImageSource, RawImage
from rankitect.data.images.settings import SPLITS, ImageSettings
from rankitect.data.pool import in_order, worker_count
from rankitect.errors import DataError, safe

__all__ = ["StoredImages", "make_entry", "open_entry"]

_PIXELS, _LABELS = "pixels.u8", "labels.npy"
_TOGETHER, _MOST_TOGETHER = 64, 1 << 26
"""Images that a thread decodes at a time; and bytes that they may have, encoded and decoded."""
_OF_DISK = 0.9
"""Share of the free disk that decoded images may take."""
_MOST_CORRUPT = 0.1
"""Share of images that may be skipped; of more, something else is wrong."""
_NAMED = 3
"""Corrupt images that are named."""
_MOST_CLASSES = 100_000
_UNPLACED = 255
"""The split of an image that its source puts in none."""

_Tried = tuple[RawImage, NDArray[np.uint8] | DataError]
"""An image with its pixels, or with what is wrong with it."""


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images of an entry, not divided yet.

    Attributes:
        pixels: [N, C, H, W], mapped and read-only.
        labels: Numbers of classes, [N].
        given: For each image the number of the split that its source puts it in, in `SPLITS`; -1 for none, [N].
        keys: A hash of the pixels of each image; equal for equal images, [N].
        classes: Names by number.
        facts: What is to be known of the reading: how many were skipped, and the first of them.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    given: NDArray[np.int64]
    keys: NDArray[np.uint64]
    classes: tuple[str, ...]
    facts: dict[str, Any]


@dataclass
class _Columns:
    """What is known of each image beside its pixels, as reading goes on."""

    labels: list[str | int] = field(default_factory=list)
    given: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    shape: tuple[int, ...] = ()


def make_entry(
    folder: Path, source: ImageSource, settings: ImageSettings, described: dict[str, Any], say: Callable[[int], None]
) -> None:
    """Decode all images into an entry.

    Args:
        folder: The entry, an empty folder.
        source: The images.
        settings: What they are brought to, and what becomes of corrupt ones.
        described: All that decides the entry, for its manifest.
        say: Told how many more images are done, now and then.

    Raises:
        DataError: An image cannot be used, there are less than two classes, or the images would fill the disk.
        OSError: The disk is full or cannot be written.
    """
    columns = _Columns()
    try:
        _fill(folder / _PIXELS, source, settings, columns, say)
        _judge(columns, source.name)
        names, numbers = _classes(columns.labels, source)
    except BaseException:
        (folder / _PIXELS).unlink(missing_ok=True)  # it may be as large as the disk allows
        raise
    table = np.empty((3, len(numbers)), np.uint64)
    table[0], table[1], table[2] = numbers, columns.given, np.asarray(columns.keys, np.uint64)
    np.save(folder / _LABELS, table)
    files = [folder / _PIXELS, folder / _LABELS]
    about = {
        "described": described,
        "shape": list(columns.shape),
        "classes": names,
        "facts": {"images": len(numbers), "corrupt": len(columns.corrupt), "corrupt_first": columns.corrupt[:_NAMED]},
    }
    write_manifest(folder, files, [hash_kept(file) for file in files], about)


def open_entry(folder: Path) -> StoredImages:
    """The images of a complete entry."""
    manifest = manifest_of(folder)
    table = np.load(folder / _LABELS)
    shape = (table.shape[1], *manifest["shape"])
    given = np.where(table[1] == _UNPLACED, -1, table[1].astype(np.int64))
    pixels = np.memmap(folder / _PIXELS, np.uint8, "r", shape=shape)
    return StoredImages(
        pixels, table[0].astype(np.int64), given, table[2], tuple(manifest["classes"]), manifest["facts"]
    )


def _fill(
    path: Path, source: ImageSource, settings: ImageSettings, columns: _Columns, say: Callable[[int], None]
) -> None:
    """Write the pixels of all images, and note the rest.

    Raises:
        DataError: An image cannot be used, or they would fill the disk.
    """
    most, written = int(_OF_DISK * shutil.disk_usage(path.parent).free), 0
    with path.open("wb") as file, warnings.catch_warnings():
        # Of odd metadata, and of claimed sizes, which are refused. Here, as filters are those of all threads.
        warnings.simplefilter("ignore")
        for image, pixels in _decoded(source, settings):
            if isinstance(pixels, DataError):
                _skip(image, pixels, settings, columns)
                continue
            columns.shape = pixels.shape
            written += pixels.nbytes
            if written > most:
                raise DataError(
                    f"{named(source.name)}: {len(columns.labels) + 1:,} decoded images of "
                    f"{' x '.join(map(str, pixels.shape))} bytes and those that follow would fill the disk: give "
                    "task.resize, or set RANKITECT_CACHE to a folder with more room."
                )
            data = pixels.tobytes()
            file.write(data)
            columns.labels.append(image.label)
            columns.given.append(_UNPLACED if image.split is None else SPLITS.index(image.split))
            columns.keys.append(int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little"))
            if len(columns.labels) % _TOGETHER == 0:
                say(_TOGETHER)


def _decoded(source: ImageSource, settings: ImageSettings) -> Iterator[_Tried]:
    """Every image with its pixels, or with what is wrong with it. Threads decode; the source is read by this one."""
    form, raw = Form(settings.resize, settings.channels, settings.convert), iter(source.images())
    for first in raw:
        pixels = _tried(first, form)
        yield first, pixels
        if not isinstance(pixels, DataError):
            break
    else:
        return
    shape, place, together = pixels.shape, first.place, max(1, min(_TOGETHER, _MOST_TOGETHER // pixels.nbytes))

    def decode(images: list[RawImage]) -> list[_Tried]:
        return [(image, _alike(image, _tried(image, form), shape, place)) for image in images]

    chunks = _chunks(raw, together)
    for part in in_order((lambda chunk=chunk: decode(chunk) for chunk in chunks), worker_count(None)):  # type: ignore[misc]
        yield from part


def _chunks(raw: Iterator[RawImage], most: int) -> Iterator[list[RawImage]]:
    """Images that one thread decodes, at most so many."""
    chunk: list[RawImage] = []
    size = 0
    for image in raw:
        chunk.append(image)
        size += len(image.content) if isinstance(image.content, bytes) else image.content.nbytes
        if len(chunk) == most or size >= _MOST_TOGETHER:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _tried(image: RawImage, form: Form) -> NDArray[np.uint8] | DataError:
    try:
        return decoded(image.content, image.place, form)
    except DataError as error:
        return error


def _skip(image: RawImage, error: DataError, settings: ImageSettings, columns: _Columns) -> None:
    """Leave a corrupt image out, or refuse it.

    Raises:
        DataError: It is refused, or something else is wrong with it.
    """
    if not isinstance(error, CorruptImage):
        raise error
    if settings.corrupt == "refuse":
        raise DataError(f"{error} task.corrupt=skip leaves such images out and counts them.") from error
    columns.corrupt.append(named(image.place))


def _alike(
    image: RawImage, pixels: NDArray[np.uint8] | DataError, shape: tuple[int, ...], first: str
) -> NDArray[np.uint8] | DataError:
    """An image, or an error in place of one that has another size or number of channels than the first."""
    if isinstance(pixels, DataError) or pixels.shape == shape:
        return pixels
    if pixels.shape[0] != shape[0]:
        kinds = {1: "grey", 3: "in colour"}
        return DataError(
            f"{named(image.place)} is {kinds[pixels.shape[0]]}, and {named(first)} {kinds[shape[0]]}: "
            "give task.channels=1 or 3 with task.convert=true to bring all images to one kind."
        )
    (height, width), (first_height, first_width) = pixels.shape[1:], shape[1:]
    size = min(height, width, first_height, first_width)
    return DataError(
        f"The images have several sizes: {named(image.place)} is {height} x {width}, and {named(first)} "
        f"{first_height} x {first_width}. Give task.resize, such as task.resize={max(size, 4)}."
    )


def _judge(columns: _Columns, name: str) -> None:
    """Refuse a set without images, or with too many corrupt ones."""
    whole, corrupt = len(columns.labels), len(columns.corrupt)
    if not whole or corrupt > _MOST_CORRUPT * (whole + corrupt):
        first = f", {columns.corrupt[0]} the first of them" if corrupt else ""
        raise DataError(
            f"{named(name)}: {corrupt:,} of {whole + corrupt:,} images cannot be decoded{first}. Are these images?"
            if corrupt
            else f"{named(name)} has no images."
        )


def _classes(labels: list[str | int], source: ImageSource) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the classes in their order, and the number of each label.

    Raises:
        DataError: There are less than two classes, or two that look alike, or labels of two kinds.
    """
    values, called = set(labels), named(source.name)
    if len({type(value) for value in values}) > 1:
        raise DataError(f"{called}: some classes are numbered, and others have names.")
    if not 2 <= len(values) <= _MOST_CLASSES:
        raise DataError(
            f"{called} has {len(values):,} class{'' if len(values) == 1 else 'es'}: images are told apart by 2 to "
            f"{_MOST_CLASSES:,} classes."
        )
    order = {value: number for number, value in enumerate(sorted(values, key=lambda v: (str(type(v)), v)))}
    known = source.class_names
    names = [known.get(value, str(value)) for value in order]
    odd = next((name for name in names if len(name) > 200 or safe(name) != name or not name.strip()), None)
    if odd is not None or len(set(names)) < len(names):
        wrong = named(repr(odd)) if odd is not None else "one that two classes have"
        raise DataError(f"{called}: a class needs a name of its own, of at most 200 printable characters, not {wrong}.")
    return names, np.asarray([order[label] for label in labels], np.int64)
