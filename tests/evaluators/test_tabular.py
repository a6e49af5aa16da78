"""Quality looked up in a table, and what is wrong with a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankitect.contracts import Spent, TrialContext
from rankitect.errors import ConfigError
from rankitect.evaluators.tabular import Tabular
from rankitect.search_spaces.nb201 import RESNET, architecture_of, nb201

SPACE = nb201((3, 8, 8), 3, channels=4, cells=1)
HEADER = "index,arch_str,cifar10_test_acc"


def written(folder: Path, *lines: str) -> str:
    path = folder / "table.csv"
    path.write_text("\n".join((HEADER, *lines)) + "\n", encoding="utf-8")
    return str(path)


def test_an_architecture_has_what_the_table_says_of_its_spelling(tmp_path: Path) -> None:
    unread = RESNET.replace("nor_conv_3x3~2", "none~2")  # nothing reads node 2, whatever goes into it
    table = written(tmp_path, f"0,{RESNET},94.37", f"1,{SPACE.spelled(architecture_of(SPACE, unread))},90.5")
    evaluator = Tabular(Tabular.Config(table=table), None, SPACE)
    measured = evaluator.measure(SPACE.points["resnet"], TrialContext(tmp_path, tmp_path, 0))
    assert measured.metrics["accuracy"].value == 94.37
    assert measured.metrics["flops"].value == SPACE.cost(SPACE.points["resnet"], "flops")
    assert measured.spent == Spent()
    assert set(measured.metrics) == {spec.name for spec in evaluator.metrics}
    assert evaluator.values_of(architecture_of(SPACE, unread)) == {"accuracy": 90.5}
    with pytest.raises(ConfigError, match=r"has no row with arch_str=\|none~0"):
        evaluator.values_of(architecture_of(SPACE, "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"0,{RESNET},many", "line 2: 'many' is no number"),
        (f"0,{RESNET},nan", "line 2: 'nan' is no number"),
        (f"0,{RESNET}", "line 2: 2 values, not 3"),
        (f'0,"{RESNET},1', "line 2: unexpected end of data"),
        (f"0,{RESNET},1\n0,{RESNET},2", "line 3: .* stands there twice"),
    ],
)
def test_a_damaged_table_is_told_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Tabular(Tabular.Config(table=written(tmp_path, line)), None, SPACE)
    assert len(str(caught.value)) <= 500


def test_a_missing_column_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no column 'arch'; its columns: index, arch_str, cifar10_test_acc"):
        Tabular(Tabular.Config(table=written(tmp_path, "0,a,1"), key="arch"), None, SPACE)
    with pytest.raises(ConfigError, match=r"nothing\.csv"):
        Tabular(Tabular.Config(table=str(tmp_path / "nothing.csv")), None, SPACE)
