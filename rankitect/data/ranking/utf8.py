"""Text of a file that is not UTF-8: another encoding would be read as other values than a model is given later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.columns import value_at
from rankitect.data.ranking.sources import BadRow, Piece
from rankitect.errors import short

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["without_other_bytes"]


def without_other_bytes(piece: Piece) -> Piece:
    """A piece whose rows with bytes that are not UTF-8 are bad.

    Args:
        piece: Columns as binary. Those that are not read may hold what they like.
    """
    import pyarrow as pa

    bad: dict[int, BadRow] = {}
    for name, values in piece.columns.items():
        for row in np.flatnonzero(_other(values)).tolist():
            shown = short(repr(value_at(values, row)), 60)
            trouble = f"{shown}, text in UTF-8 expected (iconv converts a file from another encoding)"
            bad.setdefault(row, BadRow(int(piece.lines[row]), name, trouble, f"{name}: not UTF-8"))
    if not bad:
        return piece
    good = np.ones(len(piece.lines), dtype=np.bool_)
    good[list(bad)] = False
    columns = {name: values.filter(pa.array(good)) for name, values in piece.columns.items()}
    truth = None if piece.truth is None else piece.truth[good]
    return Piece(columns, piece.file, piece.lines[good], [*piece.bad, *bad.values()], truth)


def _other(values: pa.Array) -> NDArray[np.bool_]:
    """Which values are not UTF-8."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        pc.cast(values, pa.string())
        return np.zeros(len(values), dtype=np.bool_)
    except pa.ArrowInvalid:
        encoded = values.dictionary_encode()
        wrong = np.array([*map(_is_other, encoded.dictionary.to_pylist()), False])
        return wrong[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]


def _is_other(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False
