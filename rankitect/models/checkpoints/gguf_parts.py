"""A GGUF model in several files, as llama.cpp's `gguf-split` makes them: `model-00001-of-00003.gguf` and so on.

The first part has the metadata. Each has some of the tensors, its own number and that of all parts.
"""

from __future__ import annotations

import re
from pathlib import Path

from rankitect.data.members import member
from rankitect.errors import AssetError, shown
from rankitect.models.checkpoints.gguf_file import GGUFFile, TensorEntry
from rankitect.models.checkpoints.gguf_metadata import Metadata

__all__ = ["open_parts", "tensors_of"]

_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE)
_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"


def open_parts(path: Path) -> list[GGUFFile]:
    """All files of a model, the one with the metadata first.

    Args:
        path: The file of a whole model, or any of its parts.

    Raises:
        AssetError: A file cannot be read, a part is missing, or the parts are not of one model.
    """
    given = GGUFFile(path)
    count = Metadata(path, given.metadata).get(_COUNT, int, 0)
    if count < 2:
        return [given]
    named = _NAME.fullmatch(path.name)
    if named is None or int(named["count"]) != count:
        raise AssetError(
            f"{path} is one of the {count} parts of a model; its name must end in -00001-of-{count:05}.gguf. "
            "Give the parts their names again."
        )
    names = [f"{named['stem']}-{number:05}-of-{count:05}{named['suffix']}" for number in range(1, count + 1)]
    paths = {name: member(path.parent, name) for name in names}
    missing = [name for name, part in paths.items() if part is None]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise AssetError(f"{path} is one of {count} parts; missing beside it: {', '.join(missing[:3])}{more}.")
    parts = [GGUFFile(part) for part in paths.values() if part is not None]
    for number, part in enumerate(parts):
        metadata = Metadata(part.path, part.metadata)
        own = metadata.get(_NUMBER, int), metadata.get(_COUNT, int)
        if own != (number, count):
            raise AssetError(f"{part.path} says that it is part {own[0] + 1} of {own[1]}, its name says {number + 1}.")
    held = sum(len(part.tensors) for part in parts)
    if Metadata(parts[0].path, parts[0].metadata).get(_TENSORS, int, held) != held:
        raise AssetError(f"{path}: {_TENSORS} is {parts[0].metadata[_TENSORS]}, the {count} parts hold {held} tensors.")
    return parts


def tensors_of(parts: list[GGUFFile]) -> dict[str, tuple[GGUFFile, TensorEntry]]:
    """The tensors of all parts by name, each with the file that holds it.

    Raises:
        AssetError: Two parts hold a tensor of one name.
    """
    tensors: dict[str, tuple[GGUFFile, TensorEntry]] = {}
    for part in parts:
        for name, entry in part.tensors.items():
            if name in tensors:
                raise AssetError(f"{part.path} and {tensors[name][0].path} both hold the tensor {shown(name)}.")
            tensors[name] = part, entry
    return tensors
