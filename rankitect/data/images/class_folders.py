"""Image files in a folder for each class, below folders for the splits or not; in a folder or an archive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from rankitect.data.images.decode import ENDINGS, check_bytes, named
from rankitect.data.images.members import Member
from rankitect.data.images.raw import RawImage
from rankitect.data.storage import DataFile
from rankitect.errors import DataError

__all__ = ["FolderImages", "image_members"]

_SPLITS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


def image_members(members: Sequence[Member]) -> list[Member]:
    """Those that are image files, by name."""
    return [member for member in members if member.base.lower().endswith(ENDINGS)]


@dataclass(frozen=True)
class FolderImages:
    """Images in folders by class; see `rankitect.data.images.raw.ImageSource`.

    Attributes:
        name: For reports.
        files: The files themselves.
        members: All members, image files or not.
        empty: Folders without any file.

    Raises:
        DataError: An image lies in no class's folder, or a class has no image.
    """

    name: str
    files: Sequence[DataFile]
    members: Sequence[Member]
    empty: Sequence[str] = ()
    class_names: Mapping[str | int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        placed = self._placed()
        filled = {(split, label) for _, split, label in placed}
        for folder in [*self.empty, *self._folders_without_images()]:
            split, label = _place(PurePosixPath(folder, "x").parts[self._outer() :], self._split_first())
            if label and (split, label) not in filled:
                raise DataError(
                    f"The folder {named(folder)} has no image ({', '.join(ENDINGS)}), and a folder is a class: remove "
                    "it, or give it images."
                )

    def images(self) -> Iterator[RawImage]:
        """The images, in the order of the files."""
        for member, split, label in self._placed():
            check_bytes(member.size, member.name)
            yield RawImage(member.name, label, split, member.read())

    def _placed(self) -> list[tuple[Member, str | None, str]]:
        """Every image with its split and its class."""
        outer, split_first = self._outer(), self._split_first()
        placed = []
        for member in image_members(self.members):
            split, label = _place(PurePosixPath(member.name).parts[outer:], split_first)
            if not label:
                raise DataError(
                    f"{named(member.name)} lies in no folder of a class: images are sorted into a folder for each "
                    "class, such as cat/1.png, or train/cat/1.png and test/cat/2.png."
                )
            placed.append((member, split, label))
        return placed

    def _folders(self) -> list[tuple[str, ...]]:
        """For each image the folders that it lies in."""
        return [PurePosixPath(member.name).parts[:-1] for member in image_members(self.members)]

    def _outer(self) -> int:
        """How many folders lie around all classes and splits: an archive often holds one folder with everything."""
        folders, outer = self._folders(), 0
        while (
            all(len(parts) > outer + 1 for parts in folders)
            and len({parts[outer] for parts in folders}) == 1
            and folders[0][outer].lower() not in _SPLITS
        ):
            outer += 1
        return outer

    def _split_first(self) -> bool:
        """Whether the first folders are those of splits."""
        outer = self._outer()
        firsts = {parts[outer].lower() if len(parts) > outer else "" for parts in self._folders()}
        return firsts <= set(_SPLITS) and all(len(parts) > outer + 1 for parts in self._folders())

    def _folders_without_images(self) -> list[str]:
        """Folders that hold files, but no image in them or below."""
        filled = {"/".join(parts[:end]) for parts in self._folders() for end in range(len(parts) + 1)}
        all_folders = {str(PurePosixPath(member.name).parent) for member in self.members}
        return sorted(folder for folder in all_folders - {"."} if folder not in filled)


def _place(parts: Sequence[str], split_first: bool) -> tuple[str | None, str]:
    """Split and class by the path of a file; "" where it lies in no class's folder."""
    split = _SPLITS.get(parts[0].lower()) if split_first and len(parts) > 1 else None
    classes = parts[1:-1] if split_first else parts[:-1]
    return split, classes[0] if classes else ""
