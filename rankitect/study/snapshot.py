"""What a command writes into a run folder when it begins, as it was before: for a command that is refused after all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rankitect.data.files import write_whole

__all__ = ["Snapshot"]

_REPLACED = ("config.yaml", "config.previous.yaml")
_APPENDED = "log.txt"


@dataclass(frozen=True)
class Snapshot:
    """Contents of small files, and the length of the log.

    Attributes:
        folder: The run folder.
        contents: Of the files that are replaced, by name; None where there is no such file.
        length: Bytes of the log; None where there is none.
    """

    folder: Path
    contents: Mapping[str, bytes | None]
    length: int | None

    @classmethod
    def of(cls, folder: Path) -> Self:
        """As a folder is now."""
        files = {name: folder / name for name in _REPLACED}
        contents = {name: path.read_bytes() if path.exists() else None for name, path in files.items()}
        log = folder / _APPENDED
        return cls(folder, contents, log.stat().st_size if log.exists() else None)

    def restore(self) -> None:
        """Make it so again."""
        for name, content in self.contents.items():
            if content is None:
                (self.folder / name).unlink(missing_ok=True)
            else:
                write_whole(self.folder / name, content)
        with suppress(OSError):
            if self.length is None:
                (self.folder / _APPENDED).unlink(missing_ok=True)
            else:
                os.truncate(self.folder / _APPENDED, self.length)
