"""The column that is predicted: 0 and 1, words that mean these, ratings from a threshold on, or probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.columns import Problems, as_numbers, as_values
from rankitect.data.ranking.schema import Label

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["as_labels"]

_TRUE = (b"true", b"True", b"TRUE")
_FALSE = (b"false", b"False", b"FALSE")
_WANTED = "0 or 1 (for other values set table.label: positive and negative, at_least, or soft)"


def as_labels(values: pa.Array, label: Label, problems: Problems) -> NDArray[Any]:
    """The labels of rows, [rows]: 0 and 1 as uint8, or with `label.soft` probabilities as float32.

    Args:
        values: Text as binary, or a typed column.
        label: How they are read.
        problems: Takes the rows without a label, or with one that is not allowed.
    """
    if label.positive is not None:
        return _words(values, label, problems)
    if label.at_least is not None:
        return (as_numbers(values, label.name, problems, missing=False) >= label.at_least).astype(np.uint8)
    # What is no number at all is refused below, with what would be allowed instead.
    numbers = as_numbers(_without_words(values), label.name, Problems(problems.rows))
    problems.mark(np.asarray(values.is_null()), label.name, values, "missing", "a number")
    if label.soft:
        wrong = ~((numbers >= 0) & (numbers <= 1))
        problems.mark(wrong, label.name, values, "label not from 0 to 1", "a number from 0 to 1")
        return np.where(wrong, 0, numbers).astype(np.float32)
    wrong = (numbers != 0) & (numbers != 1)
    problems.mark(wrong, label.name, values, "label not 0 or 1", _WANTED)
    return (numbers == 1).astype(np.uint8)


def _words(values: pa.Array, label: Label, problems: Problems) -> NDArray[np.uint8]:
    assert label.positive is not None
    assert label.negative is not None
    texts = as_values(values)
    positive = _among(texts, [word.encode() for word in label.positive])
    if label.negative == "others":
        allowed = np.asarray(texts.is_valid())
        wanted = "a value"
    else:
        allowed = positive | _among(texts, [word.encode() for word in label.negative])
        wanted = f"one of {', '.join((*label.positive, *label.negative))[:200]}"
    problems.mark(~allowed, label.name, values, "label not among positive and negative", wanted)
    return positive.astype(np.uint8)


def _without_words(values: pa.Array) -> pa.Array:
    """Text in which the spellings of true and false are 1 and 0, as a column of truth values is read."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_binary(values.type) or pa.types.is_string(values.type)):
        return values
    texts = as_values(values)
    for words, number in ((_TRUE, b"1"), (_FALSE, b"0")):
        mask = _among(texts, words)
        if mask.any():
            texts = pc.if_else(pa.array(mask), pa.scalar(number, pa.binary()), texts)
    return texts


def _among(texts: pa.Array, words: tuple[bytes, ...] | list[bytes]) -> NDArray[np.bool_]:
    import pyarrow as pa
    import pyarrow.compute as pc

    return np.asarray(pc.is_in(texts, value_set=pa.array(words, pa.binary())), dtype=np.bool_)
