"""Opening a set of images: read and decoded once, which the cache keeps, and divided into splits."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rankitect.data.assets import cache_root
from rankitect.data.contents import content_hash
from rankitect.data.entries import complete, forget
from rankitect.data.files import folder_lock
from rankitect.data.images.dataset import ImageData
from rankitect.data.images.division import divided, leaked
from rankitect.data.images.raw import ImageSource
from rankitect.data.images.settings import GENERATED, ImageSettings
from rankitect.data.images.sources import WithTest, open_source
from rankitect.data.images.store import make_entry, open_entry
from rankitect.data.pool import RowProgress
from rankitect.errors import DataError

__all__ = ["open_images"]

_LOG = logging.getLogger(__name__)
_FORMAT = 2  # part of every key: raise it when the meaning of an entry or the way it is made changes
_HASHED = 64
"""Files beyond which they count by name, size and time: folders of images have very many."""


def open_images(
    settings: ImageSettings | None = None,
    *,
    cache: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> ImageData:
    """Opens a set of images; the first time it is read and decoded, which the cache keeps.

    Args:
        settings: What to read and how; by default Fashion-MNIST.
        cache: Folder of the decoded images; by default `images` in `rankitect.data.assets.cache_root()`.
        progress: Receives a line of text every few seconds; by default lines go to this module's logger.

    Raises:
        DataError: If the images cannot be read or used, with the image's name where it is one.
        AssetError: If Fashion-MNIST has to be fetched and cannot be.
    """
    settings, say = settings or ImageSettings(), progress or _LOG.info
    root = cache or cache_root() / "images"
    try:
        with ExitStack() as stack:
            source = open_source(settings, stack)
            folder = root / _key(source, settings, root)[:32]
            if not complete(folder):
                folder.mkdir(parents=True, exist_ok=True)
                with folder_lock(folder):
                    if not complete(folder):  # another process may have made it while this one waited
                        forget(folder)  # of a damaged entry
                        lines = RowProgress(f"{source.name}: decoded", say, "images")
                        make_entry(folder, source, settings, _described(settings), lines.add)
                        lines.end()
            name = source.name
        return _opened(name, folder, settings, say)
    except OSError as error:
        raise DataError(
            f"The decoded images cannot be kept in {root} ({error.strerror or error}): free some space, or set "
            "RANKITECT_CACHE to a folder that can be written."
        ) from error


def _opened(name: str, folder: Path, settings: ImageSettings, say: Callable[[str], None]) -> ImageData:
    """The images of an entry, divided; what is odd about them is said."""
    stored = open_entry(folder)
    splits = divided(stored, settings.shares, settings.split_seed, settings.limit)
    facts = {**stored.facts, "leaked": leaked(stored, splits)}
    if facts["corrupt"]:
        first = ", ".join(facts["corrupt_first"])
        say(f"{name}: {facts['corrupt']:,} images cannot be decoded and are left out, such as {first}.")
    if facts["leaked"]:
        say(
            f"{name}: {facts['leaked']:,} of {len(splits['test']):,} test images are among the others as well, pixel "
            "for pixel; figures of the test split flatter."
        )
    return ImageData(name, stored, splits, facts)


def _described(settings: ImageSettings) -> dict[str, Any]:
    """What decides the decoded images, beside the files."""
    reading = {"resize", "channels", "convert", "corrupt", "image_column", "label_column"}
    own = {"generated"} if settings.data == GENERATED else set()
    return {"format": _FORMAT, **settings.model_dump(mode="json", include=reading | own)}


def _key(source: ImageSource, settings: ImageSettings, root: Path) -> str:
    """A hash of all that decides the decoded images."""
    sides = (source.source, source.test) if isinstance(source, WithTest) else (source,)
    about = {
        **_described(settings),
        # Where a path ends and what is found below it decides what the names of folders mean: "train" may be a split.
        "places": [_hash(settings.data), _hash(settings.test or "")],
        "sides": [_side(side, root) for side in sides],
    }
    return _hash(json.dumps(about, sort_keys=True))


def _side(source: ImageSource, root: Path) -> dict[str, str]:
    """What decides the images of a source."""
    files = source.files
    return {
        "source": type(source).__name__,
        "content": content_hash(files, root / "sources", None if len(files) <= _HASHED else -1),
        # In folders a file's class is in its path, and not in its content.
        "files": _hash("\n".join(map(str, files))),
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
