"""log.txt of a run folder: written once the command is accepted, and then at once."""

from __future__ import annotations

import logging
import os
from io import TextIOWrapper
from pathlib import Path
from typing import IO, cast

from rankitect.data.files import open_plain

__all__ = ["FolderLog"]


class FolderLog:
    """What a logger says, kept until it is known where to write it.

    Args:
        logger: Its level and handlers are those of before again after `close`.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger, self._propagate = logger, logger.propagate
        self._handler: logging.Handler = _Held()
        logger.addHandler(self._handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False

    def write_to(self, path: Path) -> None:
        """Append to a file from now on, with what was said so far.

        Raises:
            OSError: It cannot be written, or is a link, a pipe or a device.
        """
        held, file = self._handler, _LogFile(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._replace(file)
        for record in held.records if isinstance(held, _Held) else ():
            file.handle(record)

    def hold(self) -> None:
        """Write nothing more."""
        self._replace(_Held())

    def close(self) -> None:
        """Close the file, and let the logger go back to what it did before."""
        self._logger.removeHandler(self._handler)
        self._logger.propagate = self._propagate
        self._handler.close()

    def _replace(self, handler: logging.Handler) -> None:
        self._logger.removeHandler(self._handler)
        self._handler.close()
        self._handler = handler
        self._logger.addHandler(handler)


class _Held(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class _LogFile(logging.FileHandler):
    """A log that a full disk silences, instead of printing a traceback for every line."""

    def _open(self) -> TextIOWrapper:
        descriptor = open_plain(Path(self.baseFilename), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        file: IO[str] = os.fdopen(descriptor, "a", encoding=self.encoding)
        return cast("TextIOWrapper", file)

    def handleError(self, record: logging.LogRecord) -> None:
        pass
