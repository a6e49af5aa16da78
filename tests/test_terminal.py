"""The edges of every command: what it prints, what it says of mistakes, and its exit codes."""

from __future__ import annotations

import errno
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from rankitect.__main__ import COMMANDS
from rankitect.errors import ConfigError, DiskError, RankitectError
from rankitect.terminal import Parser, answered, say


def test_a_message_is_short_whatever_it_quotes_and_holds_nothing_that_a_terminal_obeys() -> None:
    error = str(ConfigError(f"'{'x' * 10_000}\x1b[2J\u202e' is wrong. Do this instead."))
    assert len(error) == 500
    assert error.startswith("'xxx")
    assert error.endswith(r"\x1b[2J\u202e' is wrong. Do this instead.")
    assert str(ConfigError("two\nlines")) == "two\nlines"


def test_what_is_printed_holds_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[31mb\rc\x9bd\n\ud800é漢")
    assert capsys.readouterr().out == "a\\x1b[31mb\\rc\\x9bd\n\\ud800é漢\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("no such thing"), 2, "Error: no such thing\n"),
        (DiskError("it is full"), 3, "Error: it is full\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            3,
            "Error: /x/y cannot be read or written: No space",
        ),
        (OSError(errno.ENAMETOOLONG, "File name too long", "y" * 9999), 2, "y cannot be read or written: File name"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "/x"), 2, "Too many levels"),
        (KeyboardInterrupt(), 130, "Stopped."),
    ],
)
def test_every_command_ends_with_the_code_of_what_went_wrong(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def act() -> int:
        raise error

    assert answered(act) == code
    assert said in capsys.readouterr().err


def test_an_error_that_wraps_a_full_disk_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    def act() -> int:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RankitectError("cannot be written") from error

    assert answered(act) == 3


@pytest.mark.parametrize("path", ["a\x00b", "\ud800"])
def test_a_name_that_no_file_can_have_is_a_mistake_and_a_defect_keeps_its_traceback(path: str) -> None:
    assert answered(lambda: len(Path(path).read_text())) == 2
    with pytest.raises(ValueError, match="invalid literal"):
        answered(lambda: int("x"))


def test_a_parser_quotes_in_few_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        Parser(prog="it").parse_args(["x" * 10_000 + "\x1b"])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert len(said) < 500
    assert said.endswith("\\x1b. it --help says what is allowed.\n")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    code = f"{sys.executable} -m rankitect --help | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("rankitect ")


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_ends_through_the_one_place_that_knows_the_codes(module: str) -> None:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    assert "(ended(main))" in source
    assert any(name in source for name in ("answered(", "run_command(")) or module == "rankitect.doctor"
    assert " print(" not in source
