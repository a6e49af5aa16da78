"""Questions with choices or answers, from JSON lines: what a language model's accuracy is measured on.

A line is an object with `query`, `choices` (two or more texts) and `gold` (the number of the right one, from 0), or
with `query` and `answer` (a text, or a list of texts that are all right). Files that name the latter two `context` and
`continuation`, as those of LAMBADA do, are read as well. Other fields may hold anything, except for an `answer` beside
`choices` that names another one than `gold`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rankitect.data.storage import DataFile, list_files
from rankitect.data.text_files import utf8_lines
from rankitect.documents import parse_json
from rankitect.errors import DataError, closest, safe, short

__all__ = ["Question", "divided", "fingerprint", "read_questions"]

_ENDINGS = tuple(f"{name}{packed}" for name in (".jsonl", ".ndjson") for packed in ("", ".gz", ".zst", ".xz", ".bz2"))
_NAMES = ({"query": "query", "answer": "answer"}, {"query": "context", "answer": "continuation"})
"""How files call the text before an answer, and the answer."""
_log = logging.getLogger("rankitect")
_MOST_CHOICES = 1000
_LONGEST = 1_000_000
"""Characters of one text: no context holds as many."""


@dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        place: File and row, for messages.
        query: The text before the answer; empty where a whole text is chosen.
        choices: The texts to choose from; empty where the answer is open.
        gold: The number of the right one; -1 where the answer is open.
        answers: Texts that are right.
    """

    place: str
    query: str
    choices: tuple[str, ...]
    gold: int
    answers: tuple[str, ...]


def read_questions(path: str, key: str, limit: int | None = None, filesystem: Any = None) -> list[Question]:
    """The questions of a file, or of all files of a folder or glob.

    Args:
        path: Of JSON lines, packed or not; a file, folder, glob or URI.
        key: The key of the configuration that has the path, for messages.
        limit: How many to read, the first; None for all.
        filesystem: A `pyarrow.fs.FileSystem` in which the path lies; None for this machine or a URI.

    Raises:
        DataError: There is none, or one is unusable: names file, row and field.
    """
    files = [listed.file for listed in list_files(path, _ENDINGS, key, filesystem)]
    questions = list(islice((question for file in files for question in _questions(file)), limit))
    if not questions:
        raise DataError(f"{key}={short(safe(path), 120)} has no questions: a line is an object with {_wanted()}.")
    kinds = {bool(question.choices): question for question in questions}
    if len(kinds) > 1:
        raise DataError(
            f"{kinds[True].place} has choices and {kinds[False].place} has none: their accuracies are different "
            "things. Put the questions with an open answer into a file of their own."
        )
    _warn_of_contradictions(questions)
    return questions


def _warn_of_contradictions(questions: Sequence[Question]) -> None:
    """Say in the log where one question is asked twice, and another answer is right the second time."""
    first: dict[tuple[str, frozenset[str]], Question] = {}
    pairs = []
    for one in questions:
        other = first.setdefault((one.query, frozenset(one.choices)), one)
        if set(other.answers) != set(one.answers):
            pairs.append((other.place, one.place))
    if pairs:
        more = f" {len(pairs) - 1} more are like it." if len(pairs) > 1 else ""
        _log.warning("%s and %s ask the same, and say that another answer is right.%s", *pairs[0], more)


def fingerprint(questions: Sequence[Question]) -> str:
    """SHA-256 of what is asked and what is right."""
    digest = hashlib.sha256()
    for one in questions:
        digest.update(json.dumps([one.query, one.choices, one.gold, one.answers]).encode())
    return digest.hexdigest()


def divided(questions: Sequence[Question], share: float, seed: int) -> tuple[list[Question], list[Question]]:
    """Questions that a search may choose by, and those that are kept apart from it.

    Questions with the same query are on the same side, whatever else the file holds.

    Args:
        questions: All.
        share: Of the first part, from 0 to 1.
        seed: Of the division.
    """
    sides: tuple[list[Question], list[Question]] = ([], [])
    for one in questions:
        # A question without a query is known by its choices.
        text = one.query or "\0".join(sorted(one.choices))
        number = int.from_bytes(hashlib.sha256(f"{seed}\0{text}".encode()).digest()[:8])
        sides[number >= share * 2**64].append(one)
    return sides


def _questions(file: DataFile) -> Iterator[Question]:
    for row, line in utf8_lines(file):
        if not line.strip():
            continue
        place = f"{short(safe(str(file)), 120)}, row {row}"
        yield _question(parse_json(line, dict[str, Any], place, DataError, finite=False), place)


def _question(value: Mapping[str, Any], place: str) -> Question:
    """A question of a line.

    Raises:
        DataError: It is unusable.
    """
    if "choices" in value:
        query = _text(value, "query", place, empty=True)
        choices = _choices(value["choices"], place)
        gold = _gold(value, len(choices), place)
        _check_answer(value.get("answer"), choices, gold, place)
        return Question(place, query, choices, gold, (choices[gold],))
    for names in _NAMES:
        if names["answer"] in value:
            query = _text(value, names["query"], place, empty=False)
            return Question(place, query, (), -1, _answers(value[names["answer"]], names["answer"], place))
    fields = ", ".join(short(repr(str(name)), 30) for name in list(value)[:8]) or "none"
    raise DataError(f"{place} is no question: its fields are {fields}. It needs {_wanted()}.")


def _wanted() -> str:
    return "query, choices and gold, or query and answer"


def _text(value: Mapping[str, Any], name: str, place: str, *, empty: bool) -> str:
    if name not in value:
        guess = closest(name, [str(key) for key in value])
        raise DataError(f"{place} has no field '{name}'.{f' Did you mean {short(repr(guess), 40)}?' if guess else ''}")
    text = _checked(value[name], f"{place}, field '{name}'")
    if not empty and not text.strip():
        raise DataError(f"{place}, field '{name}' is empty: there is nothing to answer.")
    return text


def _choices(value: object, place: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise DataError(f"{place}, field 'choices' is {_kind(value)}: a list of texts is wanted.")
    if len(value) < 2:
        raise DataError(f"{place}, field 'choices' has {len(value)}: there must be at least two to choose from.")
    if len(value) > _MOST_CHOICES:
        raise DataError(f"{place}, field 'choices' has {len(value):,}, of which at most {_MOST_CHOICES:,} are read.")
    choices = tuple(_filled(one, f"{place}, choice {number}") for number, one in enumerate(value))
    again = next((number for number, one in enumerate(choices) if one in choices[:number]), None)
    if again is not None:
        raise DataError(
            f"{place}, choices {choices.index(choices[again])} and {again} are the same, "
            f"{short(repr(choices[again]), 80)}: no model can tell them apart."
        )
    return choices


def _check_answer(answer: object, choices: Sequence[str], gold: int, place: str) -> None:
    """Refuse an answer beside choices, in words or as a letter, that is another one than the right choice.

    Raises:
        DataError: It is.
    """
    letters = {chr(ord("A") + number): one for number, one in enumerate(choices[:26])}
    answers = [one.strip() for one in (answer if isinstance(answer, list) else [answer]) if isinstance(one, str)]
    named = [one if one in choices else letters.get(one) for one in answers]
    if any(named) and choices[gold] not in named:
        raise DataError(
            f"{place}, field 'answer' is {short(repr(answers[0]), 80)}, and by field 'gold' choice {gold} is right, "
            f"{short(repr(choices[gold]), 80)}."
        )


def _gold(value: Mapping[str, Any], choices: int, place: str) -> int:
    if "gold" not in value:
        raise DataError(f"{place} has no field 'gold': the number of the right choice, from 0.")
    gold = value["gold"]
    if not isinstance(gold, int) or isinstance(gold, bool):
        raise DataError(
            f"{place}, field 'gold' is {_kind(gold)}: the number of the right choice is wanted, 0 to {choices - 1}."
        )
    if not 0 <= gold < choices:
        raise DataError(
            f"{place}, field 'gold' is {gold}, and there are {choices} choices: allowed are 0 to {choices - 1}."
        )
    return gold


def _answers(value: object, name: str, place: str) -> tuple[str, ...]:
    answers = value if isinstance(value, list) else [value]
    if not answers:
        raise DataError(f"{place}, field '{name}' is an empty list: no answer could be right.")
    if len(answers) > _MOST_CHOICES:
        raise DataError(
            f"{place}, field '{name}' has {len(answers):,} texts, of which at most {_MOST_CHOICES:,} are read."
        )
    return tuple(_filled(one, f"{place}, field '{name}'") for one in answers)


def _filled(value: object, where: str) -> str:
    text = _checked(value, where)
    if not text.strip():
        raise DataError(f"{where} is empty.")
    return text


def _checked(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where} is {_kind(value)}: a text is wanted.")
    if len(value) > _LONGEST:
        raise DataError(f"{where} has {len(value):,} characters: no model reads more than {_LONGEST:,}.")
    return value


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return short(json.dumps(value), 40)
    return {"dict": "an object", "list": "a list", "str": "a text"}[type(value).__name__]
