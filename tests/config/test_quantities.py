"""Ranges as configurations write them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from rankitect.config.quantities import Amounts, Bounds

BOUNDS: TypeAdapter[Any] = TypeAdapter(Bounds)
ends = st.floats(allow_nan=False, allow_infinity=False, width=64)


@given(low=ends | st.just(-math.inf), high=ends | st.just(math.inf))
def test_amounts_are_read_as_they_are_written(low: float, high: float) -> None:
    low, high = sorted((low, high))
    if low == -math.inf and high == math.inf:
        return
    amounts = Amounts(low, high)
    assert Amounts.parse(str(amounts)) == amounts
    assert BOUNDS.validate_python(BOUNDS.dump_python(amounts)) == amounts
    assert low in amounts
    assert high in amounts
    assert math.nextafter(high, math.inf) not in amounts or high == math.inf


def test_a_range_is_of_shares_and_text_of_amounts() -> None:
    assert BOUNDS.validate_python([0.5, 1]) == (0.5, 1.0)
    assert BOUNDS.validate_python("..60e6") == Amounts(high=6e7)
    assert BOUNDS.validate_python("1.5..2") == Amounts(1.5, 2.0)


@pytest.mark.parametrize("wrong", ["..", "5..2", "3", "a..b", "nan..", "1e999..", [1, 1], [-1, 2], [1], 3, True, {}])
def test_ranges_that_bound_nothing_are_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        BOUNDS.validate_python(wrong)
