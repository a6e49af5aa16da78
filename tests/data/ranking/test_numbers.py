"""Numbers keep their differences: they are shifted and scaled before they become float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankitect.data.ranking.encoding import _joined, _moments
from rankitect.errors import DataError
from tests.data.ranking.written import ROWS, joined, read, rows, text

TABLE = {"label": "y", "numeric": ["x"], "categorical": ["u"]}
SKIP = {"bad_rows": "skip", "bad_share": 0.1}


@pytest.mark.parametrize("start", [1_700_000_000_000_000, 0, -3e37])
@pytest.mark.parametrize("step", [1e6, 1e-9, 1e-30])
def test_small_steps_on_large_numbers_are_not_lost(start: float, step: float, tmp_path: Path) -> None:
    values = [start + step * i for i in range(ROWS)]
    if len(set(values)) < ROWS:
        pytest.skip("float64 itself does not hold these")
    read_back = joined(read(tmp_path, text(rows(x=[repr(v) for v in values])), table=TABLE), "numeric")[:, 0]
    train = np.array(values[:48])
    assert len(set(read_back.tolist())) == ROWS
    assert read_back == pytest.approx((np.array(values) - train.mean()) / train.std(), rel=1e-4, abs=1e-4)


def test_logarithms_are_standardised_in_full_precision(tmp_path: Path) -> None:
    table = {**TABLE, "numeric": [{"name": "x", "transform": "log"}]}
    content = text(rows(x=[str(1_700_000_000_000_000 + 1_000_000 * i) for i in range(ROWS)]))
    assert len(set(joined(read(tmp_path, content, table=table), "numeric")[:, 0].tolist())) == ROWS


@pytest.mark.parametrize("value", ["7", "0", "1e-300", "1700000000000001", "-0.1"])
def test_a_constant_becomes_nothing(value: str, tmp_path: Path) -> None:
    content = text(rows(x=[value] * 50 + ["8"] * 10))  # the training rows have one value
    numbers = joined(read(tmp_path, content, table=TABLE), "numeric")[:, 0]
    assert (numbers[:48] == 0).all()
    assert numbers[-1] == pytest.approx(8 - float(value))


@pytest.mark.parametrize("value", ["1e39", "-1e39", "3.5e38", "1e308", "1e400", "inf", "-inf", "Infinity"])
@pytest.mark.parametrize("role", ["numeric", "weight"])
def test_what_float32_does_not_hold_is_bad(value: str, role: str, tmp_path: Path) -> None:
    table = TABLE if role == "numeric" else {"label": "y", "categorical": ["u"], "weight": "x"}
    content = text(rows(x={9: value}))
    with pytest.raises(DataError, match=r"row 11, column 'x': found '.*a finite number that float32 holds"):
        read(tmp_path, content, table=table)
    data = read(tmp_path, content, table=table, **SKIP)
    kept = [float(i) for i in range(ROWS) if i != 9]
    numbers = joined(data, "numeric")[:, 0] if role == "numeric" else joined(data, "weights")
    train = np.array(kept[:47])
    expected = (np.array(kept) - train.mean()) / train.std() if role == "numeric" else kept
    assert numbers == pytest.approx(expected, rel=1e-5)


def test_a_weight_that_would_become_nothing_is_bad(tmp_path: Path) -> None:
    table = {"label": "y", "categorical": ["u"], "weight": "x"}
    with pytest.raises(DataError, match="row 2, column 'x': found '1e-60', a weight that float32 holds"):
        read(tmp_path, text(rows(x=["1e-60"] * ROWS)), table=table)
    with pytest.raises(DataError, match="a weight of at least 0"):
        read(tmp_path, text(rows(x={3: "-1e-60"})), table=table)
    assert joined(read(tmp_path, text(rows(x={3: "1e-44"})), table=table), "weights")[3] > 0


@pytest.mark.parametrize("word", ["NA", "N/A", "n/a", "#N/A", "<NA>", "None", "nan", "-NaN", "1.#QNAN", ""])
def test_missing_numbers_are_spelt_in_many_ways(word: str, tmp_path: Path) -> None:
    data = read(tmp_path, text(rows(x={3: word})), table=TABLE)
    train = np.array([float(i) for i in range(48) if i != 3])
    assert joined(data, "numeric")[3, 0] == 0  # the mean
    assert joined(data, "numeric")[4, 0] == pytest.approx((4 - train.mean()) / train.std())
    with pytest.raises(DataError, match=r"row 5, column 'x'.*a number expected"):
        read(tmp_path, text(rows(x={3: word})), table={"label": "y", "categorical": ["u"], "weight": "x"})


def test_the_country_na_stays_a_value(tmp_path: Path) -> None:
    data = read(tmp_path, text(rows(u=["NA", "DE"] * 30)), table={"label": "y", "categorical": ["u"]})
    assert sorted(data.values["u"]) == ["DE", "NA"]


NUMBERS = st.lists(st.none() | st.floats(-1e15, 1e15), min_size=1, max_size=30)


@given(values=NUMBERS, cut=st.integers(0, 30))
def test_moments_of_parts_are_those_of_the_whole(values: list[float | None], cut: int) -> None:
    whole = np.array([[np.nan if value is None else value for value in values]])
    count, mean, squares, least, largest = (
        part[0] for part in _joined(_moments(whole[:, :cut]), _moments(whole[:, cut:]))
    )
    known = whole[~np.isnan(whole)]
    assert count == len(known)
    if len(known):
        assert (least, largest) == (known.min(), known.max())
        assert mean == pytest.approx(known.mean(), rel=1e-9, abs=1e-6 * np.abs(known).max())
        assert squares == pytest.approx(((known - known.mean()) ** 2).sum(), rel=1e-6, abs=1e-9 * (known**2).max())
