"""What the commands share: reading `key=value` words, listing the keys in `--help`, exit codes."""

from __future__ import annotations

import re
import shlex
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rankitect.errors import ConfigError, DiskError, RankitectError, closest, short
from rankitect.terminal import Parser, complain, say

__all__ = ["as_overrides", "command_line", "keys_help", "pairs", "run_command", "shown", "split_words"]

R = TypeVar("R")


def split_words(words: Sequence[str], keys: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """Separate the words of a command line into plain ones and `key=value` pairs.

    Args:
        words: The words, in order.
        keys: The keys that are allowed.

    Raises:
        ConfigError: A pair has a key that is not allowed or is there twice, or no value.
    """
    plain: list[str] = []
    by_key: dict[str, str] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            plain.append(word)
        elif key in by_key:
            raise ConfigError(f"{key}= is there twice, as {short(repr(by_key[key]), 60)} and {short(repr(value), 60)}.")
        elif key in keys and value:
            by_key[key] = value
        else:
            raise _refused(word, keys)
    return plain, by_key


def pairs(words: Sequence[str], keys: Collection[str]) -> dict[str, str]:
    """The same for a command that takes nothing but pairs.

    Raises:
        ConfigError: A word is no pair, or a pair has a key that is not allowed or is there twice, or no value.
    """
    plain, by_key = split_words(words, keys)
    if plain:
        raise _refused(plain[0], keys)
    return by_key


def _refused(word: str, keys: Collection[str]) -> ConfigError:
    key, separator, _ = word.partition("=")
    guess = closest(key, keys) if separator and key not in keys else None
    hint = f" Did you mean {guess}=?" if guess else ""
    return ConfigError(f"{short(repr(word), 80)} is none of {', '.join(f'{key}=…' for key in keys)}.{hint}")


def keys_help(keys: Mapping[str, str]) -> str:
    """The keys of a command with their meanings, one a line, for the end of its `--help`."""
    return "\n".join(["keys:", *(f"  {name}=…  {meaning}" for name, meaning in keys.items())])


# --- commands that compose a configuration and work in a run folder ---------------------------------------------------
def as_overrides(keys: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Python keyword arguments as the words of a command line; a mapping stands for a section."""
    out = []
    for key, value in keys.items():
        if isinstance(value, Mapping):
            out += as_overrides(value, f"{prefix}{key}.")
        else:
            out.append(f"{prefix}{key}={_literal(value)}")
    return out


def _literal(value: Any) -> str:
    """A Python value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_literal(item) for item in value)}]"
    from rankitect.config.compose import quoted

    text = str(value)
    if re.fullmatch(r"[A-Za-z][\w.-]*", text, re.ASCII) and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    return quoted(text)


def command_line(module: str, overrides: Sequence[str], config_dir: str | Path | None) -> str:
    """The command that repeats a run, and so resumes it."""
    folder = ["--config-dir", str(config_dir)] if config_dir else []
    return shlex.join(["python", "-m", module, *folder, *overrides])


def run_command(
    module: str,
    arguments: Sequence[str] | None,
    run: Callable[[Sequence[str], str | None], R],
    tell: Callable[[R, str], int],
    *,
    description: str,
    epilog: str,
    lost: str,
    keys_help: Callable[[Sequence[str], Path | None], str],
) -> int:
    """Run a command that works in a run folder, and turn what becomes of it into an exit code.

    Args:
        module: Of the command.
        arguments: The command line; None: `sys.argv`.
        run: Does the work, given overrides and the folder of the user's own configurations.
        tell: Says how it ended, given the result and the command; gives the exit code.
        description: For `--help`.
        epilog: For `--help`.
        lost: What to say after a failure that is not the user's doing.
        keys_help: Lists groups and keys for `--help`.

    Returns:
        What `tell` gives; 1: something failed that is not the user's doing; 2: the input is wrong; 3: the disk cannot
        be written; 130: the user stopped it.
    """
    parser = Parser(prog=f"python -m {module}", description=description, epilog=epilog, add_help=False)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="choose a group's option, or set a key")
    parser.add_argument("--config-dir", metavar="FOLDER", help="your own configurations, laid out like configs/")
    parser.add_argument("-h", "--help", action="store_true", help="show the groups and keys, then leave")
    options = parser.parse_intermixed_args(arguments)
    from rankitect.contracts import StopRequested
    from rankitect.study.files import disk_trouble
    from rankitect.study.stopping import INTERRUPTED

    command = command_line(module, options.overrides, options.config_dir)
    try:
        if options.help:
            folder = Path(options.config_dir) if options.config_dir else None
            say(f"{parser.format_help()}\n{keys_help(options.overrides, folder)}")
            return 0
        result = run(options.overrides, options.config_dir)
    except RankitectError as error:
        complain(error)
        return 3 if isinstance(error, DiskError) or disk_trouble(error) else 2
    except (KeyboardInterrupt, StopRequested):  # before or after the part that ends at a safe point
        say(f"\nStopped. To go on: {command}", sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if disk_trouble(error):
            complain(f"Results cannot be written ({error}). Mend that, then go on with: {command}")
            return 3
        traceback.print_exc()
        say(f"\n{lost} To go on: {command}", sys.stderr)
        return 1
    return tell(result, command)


def shown(data: Mapping[str, Any]) -> str:
    """A configuration for people, in YAML."""
    import yaml  # type: ignore[import-untyped]

    return str(yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, default_flow_style=None, width=120))
