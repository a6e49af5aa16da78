"""The known layouts, on files made here, and generated data."""

from __future__ import annotations

import gzip
import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankitect.data.ranking import DataSettings, RankingData, open_ranking
from rankitect.data.ranking.keys import hash_values, mix
from rankitect.data.ranking.schema import SyntheticSettings
from rankitect.data.ranking.synthetic import SyntheticSource, main, write_criteo
from rankitect.data.ranking.vocabulary import KeyCounter, Vocabulary
from rankitect.errors import DataError

SMALL = SyntheticSettings(rows=3000, ids=200, seed=3)


def by_hand(value: bytes) -> int:
    """The key as the documentation has it, in plain Python."""
    bits = (1 << 64) - 1
    if len(value) > 256:
        return int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "little")

    def mixed(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) & bits
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & bits
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & bits
        return x ^ x >> 31

    key = mixed(len(value))
    for start in range(0, len(value), 8):
        key = mixed(key ^ int.from_bytes(value[start : start + 8].ljust(8, b"\0"), "little"))
    return key


@given(
    values=st.lists(st.binary(max_size=40) | st.binary(min_size=250, max_size=260), max_size=20),
    start=st.integers(0, 5),
)
def test_keys(values: list[bytes], start: int) -> None:
    found = hash_values(pa.array(values, pa.binary()).slice(start))
    assert found.tolist() == [by_hand(value) for value in values[start:]]


@given(values=st.lists(st.integers(0, 30), max_size=200), least=st.integers(1, 4), cuts=st.integers(1, 5))
def test_a_vocabulary_keeps_the_frequent(values: list[int], least: int, cuts: int) -> None:
    counter = KeyCounter("f", 1000)
    for part in np.array_split(np.array(values, dtype=np.int64), cuts):
        keys, counts = np.unique(part, return_counts=True)
        counter.add(mix(keys.astype(np.uint64)), counts)
    kept = counter.most_frequent(least)
    expected = [value for value in set(values) if values.count(value) >= least]
    assert sorted(kept.tolist()) == sorted(mix(np.array(expected, dtype=np.uint64)).tolist())
    vocabulary = Vocabulary(len(kept) + 2, kept)
    assert vocabulary.ids(kept).tolist() == list(range(2, len(kept) + 2))
    assert vocabulary.ids(mix(np.array([31, 32], dtype=np.uint64))).tolist() == [0, 0]


def test_criteo(tmp_path: Path) -> None:
    text = io.BytesIO()
    write_criteo(SMALL, text)
    (tmp_path / "day.tsv.gz").write_bytes(gzip.compress(text.getvalue()))
    settings = DataSettings(format="criteo", path=str(tmp_path / "day.tsv.gz"), min_count=1)
    data = open_ranking(settings, cache=tmp_path / "cache")
    assert data.features.numeric == tuple(f"I{i}" for i in range(1, 14))
    assert [feature.name for feature in data.features.categorical] == [f"C{i}" for i in range(1, 27)]
    rows = next(SyntheticSource(SMALL).rows())
    train = data.split("train")
    assert train.rows == 2400
    assert train.labels.tolist() == rows.labels[:2400].tolist()
    for column in range(26):  # the text has the same values, under other names
        pairs = set(zip(rows.ids[:2400, column].tolist(), train.ids[:, column].tolist(), strict=True))
        assert len(pairs) == len(set(rows.ids[:2400, column].tolist())) == data.features.rows[column] - 2
    logs = np.log1p(rows.numeric[:2400, 0])
    expected = np.nan_to_num((logs - np.nanmean(logs)) / np.nanstd(logs))
    assert train.numeric[:, 0] == pytest.approx(expected, abs=1e-4)
    line = text.getvalue().split(b"\n", 1)[0]
    (tmp_path / "bad.tsv").write_bytes(text.getvalue() + line.replace(b"\t", b"\tx", 1) + b"\n")
    with pytest.raises(DataError, match=r"bad.tsv, row 3001, column 'I1': found 'x"):
        open_ranking(DataSettings(format="criteo", path=str(tmp_path / "bad.tsv")), cache=tmp_path / "cache")


def test_avazu(tmp_path: Path) -> None:
    names = "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,"
    names += "device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
    rows = [f"1000{i},{i % 2},141021{i // 10:02d}," + ",".join(str(i % 3 + k) for k in range(21)) for i in range(200)]
    (tmp_path / "train.csv").write_text("\n".join([names, *rows]))
    settings = DataSettings(format="avazu", path=str(tmp_path / "train.csv"))
    data = open_ranking(settings, cache=tmp_path / "cache")
    assert data.facts["split"] == "time"
    assert data.features.numeric == ()
    assert len(data.features.categorical) == 23
    assert data.split("train").ids[:, -2].tolist() == [2 + i // 10 for i in range(160)]
    assert set(data.split("train").ids[:, -1].tolist()) == {3}  # 21 October 2014 was a Tuesday


def test_written_logs_are_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "avazu.csv"
    assert main([str(file), "--layout", "avazu", "--rows", "700", "--ids", "50"]) == 0
    data = open_ranking(DataSettings(format="avazu", path=str(file)), cache=tmp_path / "cache")
    assert sum(split.rows for split in data.splits.values()) == 700
    capsys.readouterr()
    missing = tmp_path / "none" / "log.tsv"
    assert main([str(missing)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"Error: {missing.parent}/")
    assert told.endswith(": No such file or directory.\n")
    assert main([str(file), "--rows", "3"]) == 2
    assert "rows: Input should be greater than or equal to 100, not 3" in capsys.readouterr().err


RATINGS = [
    (u, m, 1 + (u * m) % 5, 1_000_000_000 + 7919 * ((u * 31 + m) % 97)) for u in range(1, 7) for m in range(1, 11)
]


def layout(folder: Path, kind: str) -> Path:
    folder.mkdir()
    flags = "|".join(["0", "1", "0", "0", "0", "1", *["0"] * 13])
    files = {
        "inter": {
            "ml-100k.inter": "user\titem\trating\ttime\n" + "\n".join("\t".join(map(str, row)) for row in RATINGS),
            "ml-100k.user": "a\tb\tc\td\te\n" + "\n".join(f"{u}\t{20 + u}\tM\tjob\t123{u}5" for u in range(1, 7)),
            "ml-100k.item": "a\tb\tc\td\n" + "\n".join(f"{m}\tT\t{1980 + m}\tAction Comedy" for m in range(1, 11)),
        },
        "100k": {
            "u.data": "\n".join("\t".join(map(str, row)) for row in RATINGS),
            "u.user": "\n".join(f"{u}|{20 + u}|M|job|123{u}5" for u in range(1, 7)),
            "u.item": "\n".join(f"{m}|Amélie|01-Jan-{1980 + m}||http|{flags}" for m in range(1, 11)),
        },
        "1m": {
            "ratings.dat": "\n".join("::".join(map(str, row)) for row in RATINGS),
            "users.dat": "\n".join(f"{u}::M::{20 + u}::job::123{u}5" for u in range(1, 7)),
            "movies.dat": "\n".join(f"{m}::Amélie ({1980 + m})::Action|Comedy" for m in range(1, 11)),
        },
        "25m": {
            "ratings.csv": "userId,movieId,rating,timestamp\n" + "\n".join(",".join(map(str, r)) for r in RATINGS),
            "movies.csv": "movieId,title,genres\n"
            + "\n".join(f'{m},"Amélie, a ({1980 + m})",Action|Comedy' for m in range(1, 11)),
        },
    }[kind]
    for name, text in files.items():
        (folder / name).write_text(text, encoding="latin-1" if kind in ("100k", "1m") else "utf-8")
    return folder


def test_movielens_layouts_agree(tmp_path: Path) -> None:
    def data(kind: str) -> RankingData:
        settings = DataSettings(path=str(layout(tmp_path / kind, kind)))
        return open_ranking(settings, cache=tmp_path / "cache")

    packed = data("inter")
    assert packed.features.numeric == ("age", "year")
    names = "user item age gender occupation zip year genres hour weekday"
    assert [feature.name for feature in packed.features.categorical] == names.split()
    train, test = packed.split("train"), packed.split("test")
    assert (train.rows, packed.split("validation").rows, test.rows) == (48, 6, 6)
    ordered = sorted(enumerate(RATINGS), key=lambda row: (row[1][3], row[0]))
    ranks: dict[int, int] = {}
    labels = []
    for _, (user, _, rating, _) in ordered:
        ranks[user] = ranks.get(user, 0) + 1
        if ranks[user] <= 8:  # eight of each user's ten
            labels.append(float(rating >= 4))
    assert train.labels.tolist() == labels
    for kind in ("100k", "1m"):
        other = data(kind)
        assert other.features == packed.features
        assert all(np.array_equal(other.split(name).ids, packed.split(name).ids) for name in packed.splits)
    large = data("25m")
    kept = [i for i, name in enumerate(names.split()) if name not in ("age", "gender", "occupation", "zip")]
    assert [feature.name for feature in large.features.categorical] == [names.split()[i] for i in kept]
    assert np.array_equal(large.split("train").ids[:, 1], train.ids[:, 1])


def test_movielens_that_is_not_whole(tmp_path: Path) -> None:
    folder = layout(tmp_path / "ml", "1m")
    (folder / "movies.dat").unlink()
    with pytest.raises(DataError, match=r"no movies\.dat"):
        open_ranking(DataSettings(path=str(folder)), cache=tmp_path / "cache")


def test_a_quote_that_is_not_closed_swallows_no_movies(tmp_path: Path) -> None:
    folder = layout(tmp_path / "ml", "25m")
    movies = folder / "movies.csv"
    movies.write_text(movies.read_text().replace('"Am', "Am", 1))
    with pytest.raises(DataError, match=r"movies\.csv, row 2: found a quote that does not enclose its value"):
        open_ranking(DataSettings(path=str(folder)), cache=tmp_path / "cache")


def test_generated_data(tmp_path: Path) -> None:
    settings = DataSettings(format="synthetic", synthetic=SMALL.model_copy(update={"rows": 70_000, "categorical": 4}))
    data = open_ranking(settings, cache=tmp_path / "cache")
    assert open_ranking(settings, cache=tmp_path / "other").fingerprint == data.fingerprint
    train, test = data.split("train"), data.split("test")
    assert (train.rows, test.rows) == (56_000, 7_000)
    assert data.features.rows == (12, 29, 76, 202)  # from 10 to 200 values, and two rows
    assert abs(float(train.labels.mean()) - 0.25) < 0.03
    # Labels are drawn with the stated probabilities, so these have the stated, best normalised entropy.
    assert test.truth is not None
    assert float(test.labels.mean()) == pytest.approx(float(test.truth.mean()), abs=0.02)
    p, y = test.truth.astype(np.float64), test.labels.astype(np.float64)
    loss = -(y * np.log(p) + (1 - y) * np.log1p(-p)).mean()
    base = y.mean()
    ne = loss / -(base * np.log(base) + (1 - base) * np.log1p(-base))
    assert test.facts["bayes_ne"] == pytest.approx(ne, rel=1e-6)
    assert test.facts["bayes_ne"] == pytest.approx(test.facts["bayes_ne_expected"], abs=0.03)
    assert 0.3 < ne < 0.95
    counts = np.bincount(train.ids[:, 3])
    assert counts[2] > 10 * counts[100:].mean()  # few values are frequent, many rare


def test_generated_rows_do_not_depend_on_how_many_are_read() -> None:
    source = SyntheticSource(SMALL.model_copy(update={"rows": 70_000, "categorical": 3}))
    second = source.piece(1)
    assert np.array_equal(list(source.rows())[1].ids, second.ids)
    assert np.array_equal(list(source.rows())[1].labels, second.labels)


def test_the_teacher_drifts() -> None:
    """The same rows have other probabilities on a later day, unless the drift is nothing."""

    def change(drift: float) -> float:
        source = SyntheticSource(SMALL.model_copy(update={"drift": drift}))
        rows = source.piece(0)
        first, last = (source._logit(rows.numeric, rows.ids, np.full(3000, day)) for day in (0.0, 6.0))
        return float(np.abs(last - first).mean())

    assert change(0.0) == 0
    assert change(0.1) > 0.1
