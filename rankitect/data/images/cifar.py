"""CIFAR-10 and CIFAR-100 in their binary version: records of one or two labels and 3,072 bytes of pixels.

Format: cs.toronto.edu/~kriz/cifar.html. The Python version is pickles, which nothing here loads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rankitect.data.images.decode import named
from rankitect.data.images.members import Member
from rankitect.data.images.raw import RawImage
from rankitect.data.storage import DataFile
from rankitect.errors import DataError, safe, short

__all__ = ["CifarImages", "cifar_members", "refuse_pickles"]

_SIDE, _PIXELS = 32, 3 * 32 * 32
_BATCH = re.compile(r"^(data_batch_\d+|test_batch|train|test)\.bin$")
_PICKLED = re.compile(r"^(data_batch_\d+|test_batch)$")
_TEN, _HUNDRED = ("batches.meta.txt", 10), ("fine_label_names.txt", 100)
_LONGEST_LIST = 100_000


def cifar_members(members: Sequence[Member]) -> list[Member]:
    """Those that are CIFAR's binary files, by name."""
    return [member for member in members if _BATCH.match(member.base)]


def refuse_pickles(members: Sequence[Member]) -> None:
    """Refuse CIFAR's Python version.

    Raises:
        DataError: A member is of it.
    """
    for member in members:
        if _PICKLED.match(member.base):
            raise DataError(
                f"{named(member.name)} is of the Python version of CIFAR, a pickle, which could run any program: take "
                "the binary version (cifar-10-binary.tar.gz)."
            )


@dataclass(frozen=True)
class CifarImages:
    """Images of CIFAR's binary files; see `rankitect.data.images.raw.ImageSource`.

    Attributes:
        name: For reports.
        files: The files themselves.
        members: Batches, and beside them the list of names of the classes, where it is there.
    """

    name: str
    files: Sequence[DataFile]
    members: Sequence[Member]

    @property
    def class_names(self) -> Mapping[str | int, str]:
        """Names of the classes by number, where their list is there."""
        file, count = self._kind()
        lists = [member for member in self.members if member.base == file]
        if not lists or lists[0].size > _LONGEST_LIST:
            return {}
        text = lists[0].read().decode("utf-8", "replace")
        names = [short(safe(line.strip()), 60) for line in text.splitlines() if line.strip()]
        return dict(enumerate(names)) if len(set(names)) == len(names) == count else {}

    def images(self) -> Iterator[RawImage]:
        """The images, batch after batch."""
        classes = self._kind()[1]
        labels = 1 if classes == 10 else 2  # of two, the first is the superclass
        for member in cifar_members(self.members):
            data = member.read()
            record = labels + _PIXELS
            if not data or len(data) % record:
                raise DataError(
                    f"{named(member.name)} is truncated or damaged: {len(data):,} bytes are no multiple of {record:,}."
                )
            split = "test" if member.base.startswith("test") else "train"
            records = np.frombuffer(data, np.uint8).reshape(-1, record)
            for number, row in enumerate(records):
                label = int(row[labels - 1])
                place = f"{member.name}, image {number}"
                if label >= classes:
                    raise DataError(f"{named(place)} has label {label}, of {classes} classes from 0.")
                yield RawImage(place, label, split, row[labels:].reshape(3, _SIDE, _SIDE).transpose(1, 2, 0))

    def _kind(self) -> tuple[str, int]:
        """The file of names, and how many classes there are."""
        batches = [member.base for member in cifar_members(self.members)]
        ten = any("batch" in base for base in batches)
        if ten and any("batch" not in base for base in batches):
            raise DataError("There are files of CIFAR-10 and of CIFAR-100: name those of one of them with a glob.")
        return _TEN if ten else _HUNDRED
