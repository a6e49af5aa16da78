from __future__ import annotations

import pytest

from rankitect.command_line import keys_help, pairs, split_words
from rankitect.errors import ConfigError, closest

KEYS = {"run": "a run folder", "candidate": "which of its candidates"}


def test_pairs_and_plain_words_are_told_apart_and_no_key_is_there_twice() -> None:
    assert split_words(["name", "run=b=c"], KEYS) == (["name"], {"run": "b=c"})
    with pytest.raises(ConfigError, match="run= is there twice, as 'a' and 'b=c'"):
        split_words(["name", "run=a", "run=b=c"], KEYS)


@pytest.mark.parametrize("word", ["runs=a", "run=", "name"])
def test_a_word_that_is_no_allowed_pair_is_refused_with_the_keys_there_are(word: str) -> None:
    with pytest.raises(ConfigError, match=f"'{word}' is none of run=…, candidate=…"):
        pairs([word], KEYS)


def test_a_misspelt_key_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean candidate=\?"):
        pairs(["candidat=2"], KEYS)


def test_help_lists_every_key_with_its_meaning() -> None:
    assert keys_help(KEYS).splitlines() == ["keys:", "  run=…  a run folder", "  candidate=…  which of its candidates"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("budget.minute", "budget.minutes"),
        ("task.minutes", "budget.minutes"),  # right name, wrong section
        ("runner.batch", "runner.batch"),
        ("colour", None),
    ],
)
def test_the_closest_of_known_dotted_names_is_found(name: str, meant: str | None) -> None:
    assert closest(name, ["budget.minutes", "runner.batch", "recipe.batch"]) == meant


def test_of_equal_names_the_one_in_the_same_section_is_meant() -> None:
    assert closest("runner.batches", ["recipe.batch", "runner.batch"]) == "runner.batch"
