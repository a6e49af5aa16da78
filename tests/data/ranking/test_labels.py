"""What a label may be: 0 and 1, words, ratings, probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from pydantic import ValidationError

from rankitect.data.ranking import DataSettings, open_ranking
from rankitect.data.ranking.columns import Problems
from rankitect.data.ranking.labels import as_labels
from rankitect.data.ranking.schema import Label, TableSchema
from rankitect.errors import DataError


def labels(values: list[Any], kind: Any = None, **label: Any) -> tuple[list[float], list[str]]:
    """The labels, and what is wrong with those that are none."""
    problems = Problems(len(values))
    column = pa.array([v.encode() if isinstance(v, str) else v for v in values], kind or pa.binary())
    read = as_labels(column, Label.model_validate({"name": "y", **label}), problems)
    return read.tolist(), [trouble[1] for _, trouble in sorted(problems.troubles.items())]


def test_truth_values_are_labels_however_they_are_written() -> None:
    for values in (["1", "0"], ["1.0", "0.0"], ["true", "false"], ["True", "False"], ["TRUE", "FALSE"]):
        assert labels(values) == ([1, 0], [])
    assert labels([True, False], pa.bool_()) == ([1, 0], [])
    assert labels([1.0, 0.0], pa.float64()) == ([1, 0], [])


def test_words_are_labels_where_the_schema_says_so() -> None:
    words = {"positive": ["click", "buy"], "negative": ["no_click"]}
    assert labels(["click", "no_click", "buy"], **words) == ([1, 0, 1], [])
    _, troubles = labels(["Click", None, "click"], **words)
    assert troubles == [
        "'Click', one of click, buy, no_click expected",
        "missing, one of click, buy, no_click expected",
    ]
    others = {"positive": ["click"], "negative": "others"}
    assert labels(["click", "view", ""], **others) == ([1, 0, 0], [])
    assert labels([None], **others)[1] == ["missing, a value expected"]
    assert labels([1, 2, 1], pa.int64(), positive=[1], negative=[2]) == ([1, 0, 1], [])
    _, troubles = labels(["yes"])
    assert troubles == [
        "'yes', 0 or 1 (for other values set table.label: positive and negative, at_least, or soft) expected"
    ]


def test_probabilities_are_labels_where_the_schema_says_so() -> None:
    read, troubles = labels(["0.25", "1", "0"], soft=True)
    assert (read, troubles) == ([0.25, 1, 0], [])
    _, troubles = labels(["1.5", "-0.1", "x", None, "nan"], soft=True)
    assert len(troubles) == 5


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("{name: y, positive: [yes], negative: [no]}", "write 'yes', 'no', .* in quotes: YAML reads them"),
        ("{name: y, positive: [a]}", "`positive` and `negative` go together"),
        ("{name: y, positive: [a, b], negative: [b]}", "'b' cannot be both"),
        ("{name: y, positive: [a], negative: [b], soft: true}", "give one of"),
        ("{name: y, at_least: 3, soft: true}", "give one of"),
        ("{name: y, positive: [], negative: [b]}", "at least 1 item"),
    ],
)
def test_labels_that_cannot_be_meant(label: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TableSchema.model_validate({"label": yaml.safe_load(label)})


def test_soft_labels_reach_the_batches_and_the_base_rate(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soft = rng.random(100).round(4) * 0.01
    (tmp_path / "log.csv").write_text("y,u\n" + "".join(f"{value:.6f},u{i % 7}\n" for i, value in enumerate(soft)))
    table = {"label": {"name": "y", "soft": True}, "categorical": ["u"]}
    given = {"format": "csv", "path": str(tmp_path / "log.csv"), "table": table, "split": "file"}
    data = open_ranking(DataSettings.model_validate(given), cache=tmp_path / "cache")
    assert np.allclose(data.split("train").labels, soft[:80], atol=1e-6)
    assert data.split("train").facts["base_rate"] == pytest.approx(soft[:80].mean(), abs=1e-6)
    (tmp_path / "log.csv").write_text("y,u\n" + "1,a\n" * 100)
    with pytest.raises(DataError, match=r"all 80 labels .* are 1"):
        open_ranking(DataSettings.model_validate(given), cache=tmp_path / "cache")
