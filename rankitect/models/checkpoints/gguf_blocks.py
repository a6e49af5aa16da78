"""What the blocks of a model in a GGUF file compute, as far as its keys say so: windows, and how RoPE is scaled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rankitect.errors import AssetError, shown
from rankitect.models.checkpoints.gguf_metadata import Metadata, shortest
from rankitect.models.families import DecoderBlocks, Family
from rankitect.models.families.gguf_keys import WINDOW, WINDOW_PATTERN, windowed
from rankitect.models.families.values import ROPE_BASE, Number

__all__ = ["BlocksReader"]

_BASE = "rope.freq_base_swa"
_TYPE, _FACTOR, _ORIGINAL = "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"
_ATTENTION, _OLD_FACTOR = "rope.scaling.attn_factor", "rope.scale_linear"
_NONE, _LINEAR, _YARN = "none", "linear", "yarn"
_COUNT = Number(0, 2**31 - 1)
_FACTORS = Number(0, 1e6, whole=False)
_POSITIVE = Number(1e-3, 1e6, whole=False)


class BlocksReader:
    """Reads what the blocks of a model compute.

    Args:
        family: The model's family.
        metadata: What its file states.
        sizes: Its sizes, by name in `DecoderConfig`.

    Attributes:
        read_keys: The keys, without the architecture, that were read.
    """

    def __init__(self, family: Family, metadata: Metadata, sizes: Mapping[str, Any]) -> None:
        self._family, self._metadata, self._sizes = family, metadata, sizes
        self.read_keys: set[str] = set()

    def read(self) -> DecoderBlocks:
        """The blocks.

        Raises:
            AssetError: A key has a value that is not understood.
        """
        layout, layers = self._family.gguf, self._sizes["n_layers"]
        stated = dict(layout.blocks(self._sizes))
        if layout.unturned is not None:
            turned = tuple(bool((i + 1) % layout.unturned) for i in range(min(layers, _MOST)))
            stated["rotary"] = () if all(turned) else turned
        if layout.windows is not None:
            stated["windows"] = self._windows(layout.windows, min(layers, _MOST))
        if layout.local_base is not None:
            base = self._get(_BASE, layout.local_base)
            ROPE_BASE.check(base, self._named(_BASE))
            stated["local_rope_base"] = shortest(base)
        if self._family.scales_embedding:
            stated["embed_scale"] = self._sizes["d_model"] ** 0.5
        return replace(self._family.blocks, **stated, rope_scaling=self._scaling())

    def _get(self, key: str, default: Any) -> Any:
        """The value of a key under the architecture's name, of any type."""
        self.read_keys.add(key)
        return self._metadata.values.get(f"{self._family.gguf.architecture}.{key}", default)

    def _named(self, key: str) -> str:
        return f"{self._metadata.path}: {self._family.gguf.architecture}.{key}"

    def _windows(self, period: int, layers: int) -> tuple[int | None, ...]:
        """For each layer the window that it sees; empty where none sees one."""
        window, pattern = self._get(WINDOW, 0), self._get(WINDOW_PATTERN, period)
        _COUNT.check(window, self._named(WINDOW))
        if isinstance(pattern, list):
            if len(pattern) != layers or not all(isinstance(one, bool) for one in pattern):
                raise AssetError(
                    f"{self._named(WINDOW_PATTERN)} is {shown(pattern)}; it must be a number, or true or false for "
                    f"each of {layers} layers."
                )
            local = pattern
        else:
            _COUNT.check(pattern, self._named(WINDOW_PATTERN))
            local = windowed(pattern, layers)
        return tuple(window if one else None for one in local) if window and any(local) else ()

    def _scaling(self) -> tuple[str | float, ...]:
        """How RoPE is scaled; empty where it is not."""
        kind, factor = self._get(_TYPE, _LINEAR), self._get(_FACTOR, self._get(_OLD_FACTOR, 0.0))
        _FACTORS.check(factor, self._named(_FACTOR))
        if kind not in (_NONE, _LINEAR, _YARN):
            supported = f"{_NONE!r} or {_LINEAR!r} or {_YARN!r}"
            raise AssetError(f"{self._named(_TYPE)} is {shown(kind)}. Supported: {supported}.")
        if kind == _YARN:
            return self._yarn(factor)
        # llama.cpp takes a factor of 0 for none, and linear scaling by a factor of 1 is none
        return () if kind == _NONE or factor in (0, 1) else (_LINEAR, shortest(factor))

    def _yarn(self, factor: float) -> tuple[str | float, ...]:
        """YaRN as llama.cpp computes it: heads are scaled by the attention factor times 0.1 ln(factor) + 1."""
        original, attention = self._get(_ORIGINAL, self._sizes["context"]), self._get(_ATTENTION, 1.0)
        _COUNT.check(original, self._named(_ORIGINAL))
        _POSITIVE.check(attention, self._named(_ATTENTION))
        if factor < 1:
            raise AssetError(f"{self._named(_FACTOR)} is {shown(factor)}; YaRN needs a factor of at least 1.")
        factor = shortest(factor)
        return (_YARN, factor, original, 32.0, 1.0, shortest(attention) * (0.1 * math.log(factor) + 1.0), True)


_MOST = 100_000
"""Layers for which something is stated one by one; a model of more is refused before, by the number of its tensors."""
