"""A preset makes a task of one's own small too, whatever it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankitect.config.compose import compose, configs_folder

SHOP = """# @package _global_
task:
  name: shop
  target: rankitect.tasks.ranking.task.Ranking
  data: {format: csv, path: shop.csv, table: {label: y, numeric: [x]}}
"""
BOOK = """# @package _global_
defaults:
  - override /recipe: long
task: {name: book, target: rankitect.tasks.language.task.Language, backbone: none, text: book.txt}
"""
LONG = "pretrain: {stage: train, tokens: 100000000}\n"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    for name, text in {"task/shop": SHOP, "task/book": BOOK, "recipe/long": LONG}.items():
        file = tmp_path / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_a_log_of_ones_own_keeps_its_data_and_is_small(mine: Path) -> None:
    task = compose(["space=ranking_blocks", "task=shop", "preset=smoke"], mine).data["task"]
    assert task["data"] == {
        "format": "csv", "path": "shop.csv", "table": {"label": "y", "numeric": ["x"]}, "limit": 20000
    }  # fmt: skip
    assert (task["epochs"], task["batch"]) == (1, 256)
    given = compose(["space=ranking_blocks", "task=shop", "preset=smoke", "task.epochs=3"], mine).data["task"]
    assert given["epochs"] == 3, "the command line has the last word"
    assert "limit" not in compose(["space=ranking_blocks", "task=shop"], mine).data["task"]["data"]


def test_text_and_recipe_of_ones_own_are_small(mine: Path) -> None:
    data = compose(["space=mobile_llm", "task=book", "preset=smoke"], mine).data
    assert data["task"]["backbone"] == "none", "from scratch it stays"
    assert data["task"]["shape"]["layers"] == 2
    assert data["task"]["text_limit"] == 1_000_000
    assert data["recipe"]["pretrain"]["tokens"] == 2048


def test_logs_that_are_known_by_name_are_small_on_the_file_that_is_given() -> None:
    data = compose(["space=ranking_blocks", "task=avazu", "task.data.path=train.csv", "preset=smoke"]).data["task"]
    assert data["data"] == {"format": "avazu", "path": "train.csv", "limit": 20000}


def test_every_preset_names_what_it_is_for() -> None:
    own = {"smoke_ranking", "smoke_movielens", "smoke_analytic", "smoke_host", "smoke_latency", "smoke_vision"}
    for file in configs_folder().glob("preset_*/*.yaml"):
        assert file.stem in own or "# @when " in file.read_text(encoding="utf-8"), file
