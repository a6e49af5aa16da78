"""Which format a place holds, known by the names of its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from rankitect.data.images.cifar import CifarImages, cifar_members, refuse_pickles
from rankitect.data.images.class_folders import FolderImages, image_members
from rankitect.data.images.decode import ENDINGS, named
from rankitect.data.images.embedded import fashion_mnist
from rankitect.data.images.generated import GeneratedImages
from rankitect.data.images.idx import IdxImages, idx_members
from rankitect.data.images.members import ARCHIVES, Member, Members
from rankitect.data.images.parquet import ParquetImages
from rankitect.data.images.raw import ImageSource, RawImage
from rankitect.data.images.settings import FASHION_MNIST, GENERATED, ImageSettings
from rankitect.data.storage import DataFile
from rankitect.errors import DataError

__all__ = ["WithTest", "open_source"]

_PARQUET = (".parquet", ".pq")
_KINDS = "IDX files, CIFAR's binary files, Parquet files, and image files"


def open_source(settings: ImageSettings, stack: ExitStack) -> ImageSource:
    """The source of images that settings name.

    Args:
        settings: What to read.
        stack: Closes archives, once everything is read.

    Raises:
        DataError: There is nothing, or nothing that can be read.
        AssetError: An embedded set has to be fetched and cannot be.
    """
    if settings.data == GENERATED:
        return GeneratedImages(settings.generated)
    if settings.data == FASHION_MNIST:
        return fashion_mnist()
    source = _at(settings.data, "task.data", settings, stack)
    if settings.test is None:
        return source
    return WithTest(source, _at(settings.test, "task.test", settings, stack))


def _at(path: str, key: str, settings: ImageSettings, stack: ExitStack) -> ImageSource:
    """The source of images at a place."""
    members = stack.enter_context(Members(path, key))
    name = PurePosixPath(path.rstrip("/")).name or "images"
    every = list(members)
    parquet = [member for member in every if member.base.lower().endswith(_PARQUET)]
    kinds = {
        "IDX files": idx_members(every),
        "CIFAR's binary files": cifar_members(every),
        "Parquet files": parquet,
        "image files": image_members(every),
    }
    there = [kind for kind, those in kinds.items() if those]
    if len(there) > 1:
        raise DataError(f"{key}={named(path)} holds {' and '.join(there)}: name the files of one kind with a glob.")
    if not there:
        refuse_pickles(every)
        raise DataError(f"{key}={named(path)} holds no images: {_KINDS} ({', '.join(ENDINGS)}) are read, and archives "
                        f"({', '.join(ARCHIVES)}) of these. {_listing(every)}")  # fmt: skip
    if there == ["IDX files"]:
        return IdxImages(name, members.files, kinds["IDX files"])
    if there == ["CIFAR's binary files"]:
        return CifarImages(name, members.files, every)
    if parquet:
        return ParquetImages(name, _plain(parquet), settings.image_column, settings.label_column)
    return FolderImages(name, members.files, every, members.folders)


def _plain(members: Sequence[Member]) -> list[DataFile]:
    """Parquet files, which are read in pieces, so that they lie in no archive."""
    for member in members:
        if member.file is None:
            raise DataError(f"{named(member.name)} lies in an archive: unpack it, as Parquet files are packed already.")
    return [member.file for member in members if member.file is not None]


def _listing(members: Sequence[Member], most: int = 3) -> str:
    names = ", ".join(named(member.name) for member in members[:most])
    return f"It holds {names}{f' and {len(members) - most:,} more' if len(members) > most else ''}."


@dataclass(frozen=True)
class WithTest:
    """Images with a test split that lies elsewhere.

    Attributes:
        source: The others.
        test: Those of the test split.
    """

    source: ImageSource
    test: ImageSource

    @property
    def name(self) -> str:
        """That of the others."""
        return self.source.name

    @property
    def files(self) -> Sequence[DataFile]:
        """Of both."""
        return [*self.source.files, *self.test.files]

    @property
    def class_names(self) -> Mapping[str | int, str]:
        """Of both, where they agree."""
        return {**self.test.class_names, **self.source.class_names}

    def images(self) -> Iterator[RawImage]:
        """The others, then those of the test split."""
        for image in self.source.images():
            if image.split == "test":
                raise DataError(
                    f"{named(image.place)} is of the test split of task.data, and task.test names another one: leave "
                    "task.test out, or name the training images alone."
                )
            yield image
        for image in self.test.images():
            yield replace(image, split="test")
