"""Keys of config.json that say something of each layer: which see a window, and which are turned by positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankitect.errors import AssetError, shown
from rankitect.models.families.keys import FULL, LOCAL
from rankitect.models.families.values import Flag, Number, among

__all__ = ["RotaryKeys", "WindowKeys"]

_WINDOW, _TYPES = "sliding_window", "layer_types"
_SIZE = Number(1, 2**31 - 1)


def _everywhere(layer: int, number: int, rotary: bool) -> bool:
    return True


@dataclass(frozen=True)
class WindowKeys:
    """How config.json says which layers see a window, and how long it is (`sliding_window`).

    Attributes:
        default: The window where the key is absent; null is none.
        switch: A key that must be true for any layer to see the window; false where it is absent.
        by_layer: Whether `layer_types` may say it for each layer.
        rule: Where that is not said: from a layer's number, the value of `number` and whether the layer is turned by
            positions to whether it sees the window.
        number: The key of a number that the rule reads, its default, and what it may be.
    """

    default: int | None = None
    switch: str | None = None
    by_layer: bool = False
    rule: Callable[[int, int, bool], bool] = _everywhere
    number: tuple[str, int, Number] | None = None

    @property
    def keys(self) -> frozenset[str]:
        """All keys that are read."""
        more = [self.switch, _TYPES if self.by_layer else None, self.number[0] if self.number else None]
        return frozenset({_WINDOW, *(key for key in more if key is not None)})

    def read(self, raw: Mapping[str, Any], rotary: Sequence[bool], where: str) -> tuple[int | None, ...]:
        """For each layer the window that it sees, None for all; empty where no layer sees one.

        Args:
            raw: The content of config.json.
            rotary: For each layer whether it is turned by positions.
            where: The file, for errors.

        Raises:
            AssetError: A value has no meaning.
        """
        window = raw.get(_WINDOW, self.default)
        if window is not None:
            _SIZE.check(window, f"{where}: {_WINDOW}")
        given = window is not None
        if self.switch is not None and raw.get(self.switch) is not None:
            Flag().check(raw[self.switch], f"{where}: {self.switch}")
        if self.switch is not None:
            given = given and raw.get(self.switch) is True
        local = self._local(raw, rotary, where, given)
        if any(local) and not given:
            needs = f" and {self.switch}" if self.switch else ""
            raise AssetError(f"{where}: layers are of the type {LOCAL!r}, which needs {_WINDOW}{needs}.")
        return tuple(window if one else None for one in local) if any(local) else ()

    def _local(self, raw: Mapping[str, Any], rotary: Sequence[bool], where: str, given: bool) -> list[bool]:
        """For each layer whether it sees the window."""
        number = 0
        if self.number is not None:
            key, default, limit = self.number
            number = default if raw.get(key) is None else raw[key]
            limit.check(number, f"{where}: {key}")
        types = raw.get(_TYPES) if self.by_layer else None
        if types is None:
            return [given and self.rule(i, number, turned) for i, turned in enumerate(rotary)]
        if not isinstance(types, list) or len(types) != len(rotary):
            raise AssetError(f"{where}: {_TYPES} is {shown(types)}; it must be a list of {len(rotary)}, one a layer.")
        wrong = [one for one in types if not among(one, (LOCAL, FULL))]
        if wrong:
            raise AssetError(f"{where}: {_TYPES} has {shown(wrong[0])}. Supported: {LOCAL!r} or {FULL!r}.")
        return [one == LOCAL for one in types]

    def write(self, windows: Sequence[int | None]) -> dict[str, Any] | None:
        """The keys that say which layers see which window; None where they cannot say it.

        Args:
            windows: For each layer, None for all tokens.
        """
        sizes = {window for window in windows if window is not None}
        if len(sizes) > 1 or (not self.by_layer and len(set(windows)) > 1):
            return None
        written: dict[str, Any] = {_WINDOW: next(iter(sizes), self.default if self.by_layer else None)}
        if self.switch is not None:
            written[self.switch] = bool(sizes)
        if self.by_layer:
            written[_TYPES] = [FULL if window is None else LOCAL for window in windows]
        return written


@dataclass(frozen=True)
class RotaryKeys:
    """How config.json says which layers are turned by positions.

    Attributes:
        layers: The key of a list with 1 for such a layer and 0 for another.
        interval: The key of a number n: without the list, every n-th layer is not turned.
        default: That number where the key is absent.
    """

    layers: str
    interval: str
    default: int

    @property
    def keys(self) -> frozenset[str]:
        """All keys that are read."""
        return frozenset({self.layers, self.interval})

    def read(self, raw: Mapping[str, Any], layers: int, where: str) -> tuple[bool, ...]:
        """For each layer whether it is turned by positions; empty where all are.

        Args:
            raw: The content of config.json.
            layers: How many there are.
            where: The file, for errors.

        Raises:
            AssetError: A value has no meaning.
        """
        interval = self.default if raw.get(self.interval) is None else raw[self.interval]
        _SIZE.check(interval, f"{where}: {self.interval}")
        stated = raw.get(self.layers)
        if stated is None:
            turned = [bool((i + 1) % interval) for i in range(layers)]
        elif isinstance(stated, list) and len(stated) >= layers and all(among(one, (0, 1)) for one in stated):
            turned = [one == 1 for one in stated[:layers]]
        else:
            raise AssetError(f"{where}: {self.layers} is {shown(stated)}; it must be a list of 0 and 1, one a layer.")
        return () if all(turned) else tuple(turned)

    def write(self, rotary: Sequence[bool]) -> dict[str, Any]:
        """The keys that say which layers are turned."""
        return {self.layers: [int(turned) for turned in rotary], self.interval: self.default}
