"""Numbers keep their differences: they are shifted and scaled before they become float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankitect.data.ranking.encoding import _joined, _moments
from rankitect.errors import DataError
from tests.data.ranking.written import ROWS, START, joined, read, read_typed, rows, text

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


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (["0"] * ROWS, "Split train: .*all are 0"),
        (["1"] * 54 + ["0"] * 6, "Split test: .*all are 0"),
        (["1"] * 5 + ["1e38"] + ["1"] * 54, r"Split train: .*their sum is 1\.0e\+38"),
        (["1e30"] * ROWS, "which sums in float32 do not hold"),
    ],
)
def test_weights_that_no_mean_can_be_taken_by_are_refused(weights: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        read(tmp_path, text(rows(x=weights)), table={"label": "y", "categorical": ["u"], "weight": "x"})


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


@pytest.mark.parametrize("value", [1e11, 1e20, -3.4e38])
@pytest.mark.parametrize("places", [[9], [58, 3, 30]])
@pytest.mark.parametrize("others", ["count", "flag", "rare", "small"])
def test_a_large_number_does_not_make_the_others_one(
    value: float, places: list[int], others: str, tmp_path: Path
) -> None:
    usual = {
        "count": [float(i) for i in range(ROWS)],
        "flag": [float(i % 2) for i in range(ROWS)],
        "rare": [float(i % 20 == 7) for i in range(ROWS)],
        "small": [1e-9 * (i % 7) for i in range(ROWS)],
    }[others]
    given = [value if i in places else number for i, number in enumerate(usual)]
    kept = [number for i, number in enumerate(usual) if i not in places]
    content = text(rows(x=[repr(number) for number in given]))
    data = read(tmp_path, content, table=TABLE, bad_rows="skip", bad_share=0.2)
    numbers = joined(data, "numeric")[:, 0]
    if len(numbers) == ROWS:  # then all of them stay apart
        together = dict(zip(given, numbers.tolist(), strict=True))
        assert len(set(together.values())) == len(together)
        return
    assert data.facts["bad_rows"] == {"x: too far from the mean": len(places)}
    train = np.array(kept[: data.split("train").rows])
    assert numbers == pytest.approx((np.array(kept) - train.mean()) / train.std(), rel=1e-4, abs=1e-4)
    first = min(places) + 2
    with pytest.raises(DataError, match=rf"row {first}, column 'x': found a number so far from the others"):
        read(tmp_path, content, table=TABLE)


def test_numbers_spread_over_many_sizes_are_read(tmp_path: Path) -> None:
    values = np.exp(np.random.default_rng(1).normal(0, 4, ROWS))
    numbers = joined(read(tmp_path, text(rows(x=[repr(float(v)) for v in values])), table=TABLE), "numeric")
    assert len(set(numbers[:, 0].tolist())) == ROWS


@pytest.mark.parametrize("transform", ["none", "standard", "log"])
@pytest.mark.parametrize("start", [2**64 - ROWS, 2**60, 1_700_000_000_000_000])
def test_whole_numbers_keep_their_differences_or_are_refused(transform: str, start: int, tmp_path: Path) -> None:
    step = 10**6 if start == 1_700_000_000_000_000 else 1
    values = [start + step * i for i in range(ROWS)]
    table = {**TABLE, "numeric": [{"name": "x", "transform": transform}]}
    content = text(rows(x=[str(value) for value in values]))
    typed = {"x": pa.array(values, pa.uint64())}
    if step > 1 and transform != "none":
        for data in (read(tmp_path, content, table=table), read_typed(tmp_path, typed, table=table)):
            assert len(set(joined(data, "numeric")[:, 0].tolist())) == ROWS
        return
    for more in ({}, {"bad_rows": "skip", "bad_share": 0.5}):
        with pytest.raises(DataError, match=r"'x': .*(float32 does not hold|double precision does not hold)"):
            read(tmp_path, content, table=table, **more)
        with pytest.raises(DataError, match=r"'x': .*(float32 does not hold|double precision does not hold)"):
            read_typed(tmp_path, typed, table=table, **more)


def test_a_table_that_is_mended_is_in_order(tmp_path: Path) -> None:
    content = text(rows(x={20: "1e30"}, t={20: str(START - 100)}))
    how = {"bad_rows": "skip", "bad_share": 0.1, "table": {**TABLE, "timestamp": "t"}, "out_of_order": "error"}
    with pytest.raises(DataError, match="row 22, column 't': earlier than the row before it"):
        read(tmp_path, content, **{**how, "table": {"label": "y", "categorical": ["u"], "timestamp": "t"}})
    data = read(tmp_path, content, **how)
    assert data.facts["bad_rows"] == {"x: too far from the mean": 1}
    other = text(rows(x={20: "1e30"}, t={30: str(START)}))
    with pytest.raises(DataError, match="row 32, column 't': earlier than the row before it"):
        read(tmp_path, other, **how)


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
