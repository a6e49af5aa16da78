"""IDX files, the format of MNIST and its relatives: a file of images and one of labels for each split, packed or not.

Format: two zero bytes, the type of a value (8: unsigned bytes), the number of dimensions, the dimensions as big-endian
32-bit numbers, the values (yann.lecun.com/exdb/mnist).
"""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rankitect.data.guard import guarded
from rankitect.data.images.decode import named
from rankitect.data.images.members import LARGEST, Member
from rankitect.data.images.raw import RawImage
from rankitect.data.storage import DataFile
from rankitect.errors import DataError

__all__ = ["IdxImages", "idx_members", "read_idx", "split_of"]

_NAME = re.compile(r"^(?P<stem>.*?)[-_.]?(?P<what>images|labels)[-.]idx[13][-.]ubyte(?:\.gz)?$", re.IGNORECASE)
_TYPES = {0x08: "unsigned bytes", 0x09: "signed bytes", 0x0B: "shorts", 0x0C: "ints", 0x0D: "floats", 0x0E: "doubles"}
_BYTES = 0x08
_SPLITS = {"validation": r"val(id(ation)?)?", "test": r"t10k|test(ing)?"}


def idx_members(members: Sequence[Member]) -> list[Member]:
    """Those that are IDX files of images or labels, by name."""
    return [member for member in members if _NAME.match(member.base)]


def split_of(stem: str) -> str:
    """The split that a file's name tells of: that of test or validation images, where one of its words says so."""
    for split, words in _SPLITS.items():
        if re.search(rf"(^|[^a-z])({words})([^a-z]|$)", stem.lower()):
            return split
    return "train"


@dataclass(frozen=True)
class IdxImages:
    """Images of IDX files; see `rankitect.data.images.raw.ImageSource`.

    Attributes:
        name: For reports.
        files: The files themselves.
        members: Those that are IDX files.
        class_names: What labels are called, where somebody knows.

    Raises:
        DataError: A split has images without labels, or two files of one kind.
    """

    name: str
    files: Sequence[DataFile]
    members: Sequence[Member]
    class_names: Mapping[str | int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pairs()

    def images(self) -> Iterator[RawImage]:
        """The images, split after split."""
        for split, pair in self._pairs().items():
            pixels = read_idx(pair["images"].read(), pair["images"].name, 3)
            labels = read_idx(pair["labels"].read(), pair["labels"].name, 1)
            if len(pixels) != len(labels):
                raise DataError(
                    f"{named(pair['images'].name)} has {len(pixels):,} images, and {named(pair['labels'].name)} "
                    f"{len(labels):,} labels."
                )
            for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
                yield RawImage(f"{pair['images'].name}, image {number}", int(label), split, image)

    def _pairs(self) -> dict[str, dict[str, Member]]:
        """For each split the files "images" and "labels"."""
        pairs: dict[str, dict[str, Member]] = {}
        for member in self.members:
            match = _NAME.match(member.base)
            assert match is not None, "`idx_members` has chosen them"
            split, what = split_of(match["stem"]), match["what"].lower()
            other = pairs.setdefault(split, {}).setdefault(what, member)
            if other is not member:
                raise DataError(
                    f"{named(other.name)} and {named(member.name)} are both {what} of the {split} split: name the "
                    "files of one set with a glob."
                )
        for split, pair in pairs.items():
            if len(pair) != 2:
                there = next(iter(pair.values()))
                lacking = "labels" if "images" in pair else "images"
                raise DataError(f"{named(there.name)} has no file of {lacking} beside it (of the {split} split).")
        return dict(sorted(pairs.items(), key=lambda item: ("train", "validation", "test").index(item[0])))


def read_idx(data: bytes, name: str, dimensions: int) -> NDArray[np.uint8]:
    """The values of an IDX file.

    Args:
        data: The file, packed by gzip or not.
        name: How messages call it.
        dimensions: How many it must have.

    Raises:
        DataError: It is no IDX file of unsigned bytes with so many dimensions, or has not just the values that its
            header says.
    """
    called = named(name)
    if data.startswith(b"\x1f\x8b"):
        with guarded(f"{called} cannot be unpacked", DataError), gzip.open(io.BytesIO(data)) as stream:
            data = stream.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise DataError(f"{called} unpacks into more than {LARGEST:,} bytes.")
    begin = 4 + 4 * dimensions
    if len(data) < begin or data[:2] != b"\0\0" or data[2] not in _TYPES:
        raise DataError(f"{called} is no IDX file, or is damaged: its header is not one.")
    if data[2] != _BYTES or data[3] != dimensions:
        raise DataError(
            f"{called} holds {_TYPES[data[2]]} of {data[3]} dimensions, and unsigned bytes of {dimensions} are wanted."
        )
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, begin, 4)]
    count = 1
    for size in shape:
        count *= size
    if len(data) - begin != count or not count:
        raise DataError(
            f"{called} is {'truncated' if len(data) - begin < count else 'damaged'}: its header says "
            f"{' x '.join(map(str, shape))} values, and it has {len(data) - begin:,}."
        )
    return np.frombuffer(data, np.uint8, count, begin).reshape(shape)
