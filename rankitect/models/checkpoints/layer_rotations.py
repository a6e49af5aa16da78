"""How the layers of a model are turned by positions, where config.json says it by layer (`huggingface_layers`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

from rankitect.errors import AssetError, shown
from rankitect.models.checkpoints.rotary import read_rotation
from rankitect.models.families import LLAMA, DecoderBlocks
from rankitect.models.families.blocks import Rotation
from rankitect.models.families.values import ROPE_BASE

__all__ = ["BY_LAYER", "DECILM", "OWN", "ROTARY", "ROTATIONS", "LayerRotations", "StatedLayer", "turned"]

OWN, DECILM = BY_LAYER = ("rankitect", "nemotron-nas")
"""Values of `model_type` of models that state heads and widths by layer."""
ROTARY, ROTATIONS = "rotary", "rotations"
"""The keys of what the folder's own code turns heads by, and of what that was made from."""


@dataclass(frozen=True)
class StatedLayer:
    """One layer as config.json has it."""

    kv_heads: int
    group: int
    ffn: int
    window: int | None
    rotary: int | None


@dataclass(frozen=True)
class LayerRotations:
    """How the layers of a model are turned by positions.

    Attributes:
        stated: All ways, in the order of the file.
        main: That of layers which are not turned by the local one.
        local: The number of the local one among `stated`; None where there is none.
    """

    stated: tuple[Rotation, ...]
    main: Rotation
    local: int | None = None

    @classmethod
    def read(cls, raw: Mapping[str, Any], context: int, layers: Sequence[StatedLayer], where: str) -> LayerRotations:
        """Those of config.json.

        Raises:
            AssetError: They are not stated, or not understood.
        """
        given = raw.get(ROTATIONS)
        stated = None if given is None else tuple(_rotation(one, where) for one in _listed(given, where))
        if raw["model_type"] == DECILM:
            main, _ = read_rotation(raw, LLAMA.huggingface, context, where)
            if stated is not None and any(one != main for one in stated):
                raise AssetError(f"{where}: {ROTATIONS} is {shown(given)}, and contradicts the keys of RoPE.")
            return cls((main,), main)
        attending = [layer for layer in layers if layer.kv_heads]
        if stated is None or len(stated) > 2 or any((layer.rotary or 0) >= max(1, len(stated)) for layer in attending):
            raise AssetError(
                f"{where}: {ROTATIONS} is {shown(given)}; it must list the ways in which layers are turned, two at "
                "most. A folder that was written by an earlier version does not; load the candidate that it is of."
            )
        if not stated:
            if any(layer.rotary is not None for layer in attending):
                raise AssetError(f"{where}: {ROTATIONS} is empty, but layers are turned.")
            return cls((), Rotation(10_000.0))
        unscaled = [number for number, one in enumerate(stated) if not one.scaling]
        if len(stated) == 1 or stated[0] == stated[1]:
            return cls(stated, stated[0])
        if not unscaled:
            raise AssetError(f"{where}: {ROTATIONS} has two scaled ways of turning; one at most is supported.")
        # layers with a window are usually those that are turned by the local base
        windowed = [n for n in unscaled if all(layer.window for layer in attending if layer.rotary == n)]
        local = (windowed or unscaled)[-1]
        return cls(stated, stated[1 - local], local)

    def fields(self, layers: Sequence[StatedLayer]) -> dict[str, Any]:
        """The fields of blocks that say which layers see which window, and how they are turned."""
        attends = any(layer.kv_heads for layer in layers)
        windows = tuple(layer.window for layer in layers)
        rotary = tuple(layer.rotary is not None or (attends and not layer.kv_heads) for layer in layers)
        local = tuple(self.local is not None and layer.rotary == self.local for layer in layers)
        usual = all(local[i] == (layer.window is not None) for i, layer in enumerate(layers) if layer.kv_heads)
        return {
            "windows": windows if any(windows) else (),
            "rotary": () if all(rotary) else rotary,
            "local": () if self.local is None or usual else local,
            "rope_scaling": self.main.scaling,
            "local_rope_base": None if self.local is None else self.stated[self.local].base,
        }

    def check_turns(self, raw: Mapping[str, Any], half: int, where: str) -> None:
        """Check that the frequencies which the folder's own code computes with are those of the rotations.

        Raises:
            AssetError: They are not.
        """
        given = raw.get(ROTARY)
        if given is None and raw["model_type"] == DECILM:
            return
        expected = [turned(rotation, half) for rotation in self.stated]
        nothing = raw["model_type"] == DECILM and given == []
        if not nothing and not _near(given, expected):
            raise AssetError(f"{where}: {ROTARY} is {shown(given)}, which is not what {ROTATIONS} means.")


def _listed(given: Any, where: str) -> list[Any]:
    if not isinstance(given, list):
        raise AssetError(f"{where}: {ROTATIONS} is {shown(given)}; it must be a list.")
    return given[:3]


def _rotation(given: Any, where: str) -> Rotation:
    if not isinstance(given, dict) or given.keys() != {"base", "scaling"} or not isinstance(given["scaling"], list):
        raise AssetError(f"{where}: {ROTATIONS} has {shown(given)}; it must be a base and a scaling.")
    ROPE_BASE.check(given["base"], f"{where}: base of {ROTATIONS}")
    blocks = DecoderBlocks(rope_scaling=tuple(given["scaling"]))
    return Rotation(float(given["base"]), blocks.rope_scaling)


def _near(given: Any, expected: Any) -> bool:
    """Whether plain data says the same, numbers but for their last digits."""
    if isinstance(expected, dict):
        return (
            isinstance(given, dict)
            and given.keys() == expected.keys()
            and all(_near(given[key], value) for key, value in expected.items())
        )
    if isinstance(expected, list):
        return isinstance(given, list) and len(given) == len(expected) and all(map(_near, given, expected))
    plain = isinstance(given, int | float) and not isinstance(given, bool)
    return plain and isclose(given, expected, rel_tol=1e-6)


def turned(rotation: Rotation, half: int) -> dict[str, Any]:
    """An entry of `rotary`: frequencies, or what they depend on where the length of the text is part of it.

    Args:
        rotation: How heads are turned.
        half: Of the size of a head.
    """
    from rankitect.blocks.rotary import SCALINGS

    kind, *numbers = rotation.scaling or ("linear", 1.0)
    if kind == "dynamic":
        return {"base": rotation.base, "factor": numbers[0], "original": numbers[1]}
    frequencies, scale = SCALINGS[str(kind)](half, rotation.base, 0, *numbers)
    return {"frequencies": frequencies.tolist(), "scale": float(scale)}
