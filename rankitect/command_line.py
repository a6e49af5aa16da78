"""What the commands share: reading `key=value` words, and listing the keys in `--help`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rankitect.errors import ConfigError, closest

__all__ = ["keys_help", "pairs", "split_words"]


def split_words(words: Sequence[str], keys: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """Separate the words of a command line into plain ones and `key=value` pairs; of equal keys the last counts.

    Args:
        words: The words, in order.
        keys: The keys that are allowed.

    Raises:
        ConfigError: A pair has a key that is not allowed, or no value.
    """
    plain: list[str] = []
    by_key: dict[str, str] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            plain.append(word)
        elif key in keys and value:
            by_key[key] = value
        else:
            raise _refused(word, keys)
    return plain, by_key


def pairs(words: Sequence[str], keys: Collection[str]) -> dict[str, str]:
    """The same for a command that takes nothing but pairs.

    Raises:
        ConfigError: A word is no pair, or a pair has a key that is not allowed, or no value.
    """
    plain, by_key = split_words(words, keys)
    if plain:
        raise _refused(plain[0], keys)
    return by_key


def _refused(word: str, keys: Collection[str]) -> ConfigError:
    key, separator, _ = word.partition("=")
    guess = closest(key, keys) if separator and key not in keys else None
    hint = f" Did you mean {guess}=?" if guess else ""
    return ConfigError(f"'{word}' is none of {', '.join(f'{key}=…' for key in keys)}.{hint}")


def keys_help(keys: Mapping[str, str]) -> str:
    """The keys of a command with their meanings, one a line, for the end of its `--help`."""
    return "\n".join(["keys:", *(f"  {name}=…  {meaning}" for name, meaning in keys.items())])
