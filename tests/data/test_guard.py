"""Whatever a third-party parser raises is one sentence, but for what asks the program to stop."""

from __future__ import annotations

import pytest

from rankitect.data.guard import guarded
from rankitect.errors import AssetError, DataError


class Panic(BaseException):
    """As Rust's PanicException is: no Exception."""


@pytest.mark.parametrize(
    "raised", [ValueError("bad\x1b[2J " * 500), Panic("index out of\nbounds"), MemoryError(), KeyError()]
)
def test_what_a_parser_raises_becomes_one_short_sentence(raised: BaseException) -> None:
    with (
        pytest.raises(DataError, match=r"^x\.bin cannot be read \(.+\)\.$") as caught,
        guarded("x.bin cannot be read", DataError),
    ):
        raise raised
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(3), AssetError("known")])
def test_what_is_meant_for_others_passes(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as caught, guarded("x.bin cannot be read"):
        raise raised
    assert caught.value is raised
