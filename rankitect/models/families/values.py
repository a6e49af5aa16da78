"""What a value of a checkpoint's configuration must be before it is believed: its type, its range, its meaning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rankitect.errors import AssetError, shown

__all__ = ["LIMITS", "NORM_EPS", "ROPE_BASE", "Flag", "Number", "among", "same"]


@dataclass(frozen=True)
class Number:
    """A number of a configuration.

    Attributes:
        low: The smallest value.
        high: The largest value.
        whole: Whether it must be an integer.
    """

    low: float
    high: float
    whole: bool = True

    def check(self, value: object, what: str) -> None:
        """Check a value. Booleans and text are no numbers; neither infinity nor NaN lies in any range.

        Args:
            value: From a file.
            what: Whose value it is, for the message: a file and a key.

        Raises:
            AssetError: It is no such number.
        """
        kinds = int if self.whole else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool) or not self.low <= value <= self.high:
            kind = "an integer" if self.whole else "a number"
            raise AssetError(f"{what} is {shown(value)}; it must be {kind} from {self.low:,} to {self.high:,}.")


@dataclass(frozen=True)
class Flag:
    """A boolean of a configuration."""

    def check(self, value: object, what: str) -> None:
        """Check a value: only true and false are allowed. Arguments and errors as of `Number.check`."""
        if not isinstance(value, bool):
            raise AssetError(f"{what} is {shown(value)}; it must be true or false.")


_SIZE = Number(1, 2**31 - 1)
ROPE_BASE = Number(1.0, 1e12, whole=False)
NORM_EPS = Number(1e-12, 0.1, whole=False)

LIMITS: dict[str, Number | Flag] = {
    "vocab": _SIZE,
    "d_model": _SIZE,
    "n_layers": _SIZE,
    "n_heads": _SIZE,
    "n_kv_heads": _SIZE,
    "head_dim": _SIZE,
    "ffn": _SIZE,
    "context": _SIZE,
    "rope_base": ROPE_BASE,
    "norm_eps": NORM_EPS,
    "tied_embeddings": Flag(),
}
"""What each number of a `DecoderConfig` may be, wherever it comes from."""


def same(value: object, other: object) -> bool:
    """Whether two values of a configuration are one. Python takes `True` for 1 and 0 for `False`; files do not.

    >>> same(1.0, 1), same(True, 1), same(None, None), same("silu", "silu")
    (True, False, True, True)
    """
    return isinstance(value, bool) == isinstance(other, bool) and value == other


def among(value: object, allowed: Iterable[object]) -> bool:
    """Whether a value is one of those that are allowed."""
    return any(same(value, other) for other in allowed)
