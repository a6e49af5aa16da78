"""What every command does at its edges: printing, complaining, and exit codes.

Exit codes: 0 all is well; 1 something failed that is not the user's doing, or a check did not pass; 2 what the user
gave is wrong; 3 the disk cannot be written; 130 the user stopped it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn, TextIO

from rankitect.errors import DiskError, RankitectError, safe, short
from rankitect.machine import is_disk_full

__all__ = ["Parser", "answered", "complain", "ended", "say"]

_STOPPED = 130


class Parser(argparse.ArgumentParser):
    """A parser of a command line, whose complaints quote what was given in short and without control characters."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with exit code 2."""
        self.exit(2, f"Error: {short(safe(message), 300)}. {self.prog} --help says what is allowed.\n")


def say(text: object, file: TextIO | None = None) -> None:
    """Print a line at once, also into a pipe; of what comes from files nothing is left that a terminal obeys.

    Where nobody reads any more, as behind `| head`, the command goes on in silence.
    """
    stream = file or sys.stdout
    try:
        print(safe(str(text)), file=stream, flush=True)
    except BrokenPipeError:
        _silence(stream)


def complain(text: object) -> None:
    """Say on standard error what is wrong."""
    say(f"Error: {text}", sys.stderr)


def answered(act: Callable[[], int]) -> int:
    """The exit code of what a command does; what is wrong with its input is said in one sentence.

    Args:
        act: Does it, and gives the code where it ends well.
    """
    try:
        return act()
    except RankitectError as error:
        complain(error)
        return 3 if isinstance(error, DiskError) or is_disk_full(error) else 2
    except OSError as error:
        what = short(str(error.filename), 150) if error.filename is not None else "A file"
        complain(f"{what} cannot be read or written: {error.strerror or error}.")
        return 3 if is_disk_full(error) else 2
    except (UnicodeEncodeError, ValueError) as error:
        if not isinstance(error, UnicodeEncodeError) and "null byte" not in str(error):
            raise
        complain(f"What was given is the name of no file: {error}.")
        return 2
    except KeyboardInterrupt:
        say("\nStopped. To go on, repeat the command.", sys.stderr)
        return _STOPPED


def ended(main: Callable[[], int]) -> int:
    """The exit code of a command that is run as a program. A reader who has seen enough, as `head`, is no error."""
    try:
        code = main()
    except SystemExit as leaving:  # argparse, after --help or a mistake
        code = leaving.code if isinstance(leaving.code, int) else 1
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as error:  # what was printed leads to a full disk
        _silence(sys.stdout)
        return 3 if is_disk_full(error) else code or 1
    return code


def _silence(stream: TextIO) -> None:
    """Let a stream that nobody reads lead to nowhere, so that Python says nothing when it closes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
