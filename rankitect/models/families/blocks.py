"""The fields of blocks in which decoders differ from a plain Llama, whatever their family: `DecoderConfig.blocks`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from rankitect.errors import AssetError, shown
from rankitect.models.families.values import ROPE_BASE, Flag, Number

__all__ = ["PLAIN", "SCALINGS", "SCALING_NUMBERS", "DecoderBlocks", "Rotation"]

SCALINGS: Mapping[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "dynamic": ("factor", "original"),
    "llama3": ("factor", "low", "high", "original"),
    "yarn": ("factor", "original", "fast", "slow", "attention", "truncate"),
}
"""The kinds of scaled RoPE, each with its numbers in the order in which the block `Rope` takes them."""

SCALING_NUMBERS: Mapping[str, Number | Flag] = {
    "factor": Number(1, 1e6, whole=False),
    "original": Number(1, 2**31 - 1),
    "low": Number(1e-3, 1e6, whole=False),
    "high": Number(1e-3, 1e6, whole=False),
    "fast": Number(1e-3, 1e6, whole=False),
    "slow": Number(1e-3, 1e6, whole=False),
    "attention": Number(1e-3, 1e3, whole=False),
    "truncate": Flag(),
}
"""What each number of a scaling may be."""
_WINDOW = Number(1, 2**31 - 1)
_SCALE = Number(1e-6, 1e6, whole=False)
_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "bias": (False, True),
    "qk_norm": ("none", "head", "all"),
    "norm_offset": (0.0, 1.0),
    "norms": ("pre", "post", "both"),
    "act": ("silu", "gelu_tanh"),
}


@dataclass(frozen=True)
class Rotation:
    """How RoPE turns the heads of a layer.

    Attributes:
        base: RoPE's base (theta).
        scaling: A kind of `SCALINGS` and its numbers; empty for none.
    """

    base: float
    scaling: tuple[str | float, ...] = ()


@dataclass(frozen=True)
class DecoderBlocks:
    """What the blocks of a decoder compute, where this is not what those of a plain Llama do.

    Attributes:
        bias: Whether queries, keys and values have one.
        qk_norm: Which RMS norm queries and keys go through: "none", that of each "head", or one over "all" heads.
        score_scale: Of the products of queries and keys; None for 1 / sqrt(head).
        norm_offset: Added to the weights of norms, 0 or 1.
        norms: Where norms stand: before each part of a layer ("pre"), behind it ("post"), or "both".
        act: Activation of the feed-forward's gate: "silu" or "gelu_tanh".
        embed_scale: Rows of the embedding are multiplied by this.
        rope_scaling: A kind of `SCALINGS` and its numbers; empty for none.
        local_rope_base: RoPE's base in layers with a window, where it is not scaled; None where it is as in the others.
        windows: For each layer how many tokens back it sees, None for all. Empty: no layer has a window.
        rotary: For each layer whether its heads are turned by their positions. Empty: all are.
        local: For each layer whether it is turned by the local base. Empty: those with a window are.
    """

    bias: bool = False
    qk_norm: str = "none"
    score_scale: float | None = None
    norm_offset: float = 0.0
    norms: str = "pre"
    act: str = "silu"
    embed_scale: float = 1.0
    rope_scaling: tuple[str | float, ...] = ()
    local_rope_base: float | None = None
    windows: tuple[int | None, ...] = ()
    rotary: tuple[bool, ...] = ()
    local: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        """Check that the fields have a meaning.

        Raises:
            AssetError: One has none; the sentence names it.
        """
        for name, allowed in _CHOICES.items():
            value = vars(self)[name]
            if not any(type(value) is type(one) and value == one for one in allowed):
                raise AssetError(f"model config: {name} is {shown(value)}; allowed: {', '.join(map(repr, allowed))}.")
        _SCALE.check(self.embed_scale, "model config: embed_scale")
        if self.score_scale is not None:
            _SCALE.check(self.score_scale, "model config: score_scale")
        if self.local_rope_base is not None:
            ROPE_BASE.check(self.local_rope_base, "model config: local_rope_base")
        _check_scaling(self.rope_scaling)
        for window in _tuple(self.windows, "windows"):
            if window is not None:
                _WINDOW.check(window, "model config: a window")
        for name in ("rotary", "local"):
            for turned in _tuple(vars(self)[name], name):
                Flag().check(turned, f"model config: {name} of a layer")
        if any(self.local) and self.local_rope_base is None:
            raise AssetError("model config: local is stated of layers, but local_rope_base is not.")

    def window(self, layer: int) -> int | None:
        """How many tokens back a layer sees; None for all."""
        return self.windows[layer] if self.windows else None

    def rotation(self, layer: int, base: float) -> Rotation | None:
        """How RoPE turns the heads of a layer; None where it does not.

        Args:
            layer: Its number.
            base: RoPE's base in layers that see everything.
        """
        if self.rotary and not self.rotary[layer]:
            return None
        local = self.local[layer] if self.local else self.window(layer) is not None
        if self.local_rope_base is not None and local:
            return Rotation(self.local_rope_base)
        return Rotation(base, self.rope_scaling)

    def check_layers(self, layers: int) -> None:
        """Check that what is stated by layer is stated for all of them.

        Raises:
            AssetError: It is not.
        """
        for name, stated in (("windows", self.windows), ("rotary", self.rotary), ("local", self.local)):
            if stated and len(stated) != layers:
                raise AssetError(f"model config: {name} is stated for {len(stated)} layers, the model has {layers}.")

    def to_json(self) -> dict[str, Any]:
        """Plain data: the fields that differ from a plain decoder's."""
        plain = vars(PLAIN)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value != plain[name]
        }

    @classmethod
    def from_json(cls, data: object) -> DecoderBlocks:
        """Read what `to_json` wrote.

        Raises:
            AssetError: It is no mapping, a field is unknown, or a value has no meaning.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(data, Mapping) or not data.keys() <= known:
            raise AssetError(f"model config: blocks is {shown(data)}; it must be a mapping of {', '.join(known)}.")
        values: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in data.items()}
        return cls(**values)


def _tuple(value: object, name: str) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise AssetError(f"model config: {name} is {shown(value)}; it must be a list with a value for each layer.")
    return value


def _check_scaling(scaling: object) -> None:
    """Check that a scaling is one of `SCALINGS` with its numbers.

    Raises:
        AssetError: It is not.
    """
    if scaling == ():
        return
    kind, numbers = (scaling[0], scaling[1:]) if isinstance(scaling, tuple) else (None, ())
    if not isinstance(kind, str) or kind not in SCALINGS or len(numbers) != len(SCALINGS[kind]):
        known = "; ".join(f"{kind}: {', '.join(takes)}" for kind, takes in SCALINGS.items())
        raise AssetError(
            f"model config: rope_scaling is {shown(scaling)}; it must be a kind with its numbers: {known}."
        )
    named = dict(zip(SCALINGS[kind], numbers, strict=True))
    for name, number in named.items():
        SCALING_NUMBERS[name].check(number, f"model config: {name} of the scaling {kind!r}")
    if kind == "llama3" and not named["low"] < named["high"]:
        raise AssetError(
            f"model config: the scaling 'llama3' needs low < high; they are {named['low']}, {named['high']}."
        )


PLAIN = DecoderBlocks()
"""The blocks of a plain Llama."""
