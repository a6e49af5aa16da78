"""Tensors of files in which some layers compute nothing, under the numbers that their layers have without those."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rankitect.errors import AssetError, shown

__all__ = ["renumbered"]

_LAYER = re.compile(r"(?:.*\.)?(?:layers|blk)\.(\d{1,9})\.", re.DOTALL)


def renumbered(names: Iterable[str], numbers: Sequence[int], where: str) -> dict[str, str]:
    """The new name of each tensor.

    Args:
        names: Of all tensors.
        numbers: Of the layers that compute something, in order.
        where: The file, for errors.

    Raises:
        AssetError: A tensor is of a layer that computes nothing, or that is not there.
    """
    places = {str(number): str(place) for place, number in enumerate(numbers)}
    renamed: dict[str, str] = {}
    for name in names:
        match = _LAYER.match(name)
        if match is not None and match[1] not in places:
            raise AssetError(
                f"{where}: the tensor {shown(name)} is of a layer that computes nothing, or that is not there."
            )
        renamed[name] = name if match is None else name[: match.start(1)] + places[match[1]] + name[match.end(1) :]
    return renamed
