"""Quality looked up in a table, and what is wrong with a table."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from rankitect.contracts import MetricSpec, Spent, TrialContext
from rankitect.errors import ConfigError
from rankitect.evaluators.tabular import Column, Tabular, read_table
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
        (f"0,{RESNET},9_4", "line 2: '9_4' is no number"),
        (f"0,{RESNET},٩٤", "line 2: '٩٤' is no number"),
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


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(f"{HEADER},cifar10_test_acc\n0,{RESNET},1,2\n")
    with pytest.raises(ConfigError, match="has several columns 'cifar10_test_acc'"):
        Tabular(Tabular.Config(table=str(tmp_path / "table.csv")), None, SPACE)


def test_a_quoted_cell_keeps_its_line_ends(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes('k,v\r\n"a\r\nb",1\r\n"a\nb",2\nab,3\na\u2028b,4\n'.encode())
    table = read_table(tmp_path / "table.csv", "k", {"v": Column(column="v")})
    assert table == {"a\r\nb": (1,), "a\nb": (2,), "ab": (3,), "a\u2028b": (4,)}


def test_a_search_goes_by_one_column_and_a_report_by_another(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(f"arch_str,valid,test\n{RESNET},91,93\n")
    columns = {"validation_accuracy": {"column": "valid", "held_out": "accuracy"}, "accuracy": {"column": "test"}}
    evaluator = Tabular(
        Tabular.Config.model_validate({"table": str(tmp_path / "table.csv"), "columns": columns}), None, SPACE
    )
    assert evaluator.metrics[:2] == [
        MetricSpec("validation_accuracy", "percent", "max", "quality", held_out="accuracy"),
        MetricSpec("accuracy", "percent", "max", "quality"),
    ]
    assert evaluator.values_of(SPACE.points["resnet"]) == {"validation_accuracy": 91, "accuracy": 93}
    for changed, said in (
        ({"held_out": "top1"}, "top1 is no other metric of the table; allowed: accuracy"),
        ({"held_out": "validation_accuracy"}, "is no other metric"),
        ({"unit": "share"}, "must have the same unit and direction"),
    ):
        wrong = {**columns, "validation_accuracy": {**columns["validation_accuracy"], **changed}}
        with pytest.raises(ValidationError, match=said):
            Tabular.Config.model_validate({"table": "x", "columns": wrong})
