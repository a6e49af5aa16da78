"""Question files: what is read, and what is refused with the file, the row and the field."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from rankitect.data.continuations import Continuation, continuations
from rankitect.data.questions import Question, divided, fingerprint, read_questions
from rankitect.data.tokenizer import ByteTokenizer
from rankitect.errors import DataError

LINE = {"query": "Is ice cold?", "choices": ["yes", "no"], "gold": 0}


def written(folder: Path, *lines: object, name: str = "asked.jsonl") -> str:
    path = folder / name
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return str(path)


def test_questions_with_choices_are_read(tmp_path):
    path = written(tmp_path, {**LINE, "source": ["any"]}, "", {**LINE, "gold": 1})
    first, second = read_questions(path, "path")
    assert (first.query, first.choices, first.gold, first.answers) == ("Is ice cold?", ("yes", "no"), 0, ("yes",))
    assert second.answers == ("no",)
    assert second.place.endswith("asked.jsonl, row 3")


def test_open_questions_are_read_under_both_names_packed_or_not(tmp_path):
    lines = [
        {"query": "2 + 2 =", "answer": ["4", "four"]},
        {"context": "They sat down on the", "continuation": "bench"},
    ]
    path = tmp_path / "open.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    questions = read_questions(str(path), "path")
    assert [(q.query, q.choices, q.answers) for q in questions] == [
        ("2 + 2 =", (), ("4", "four")),
        ("They sat down on the", (), ("bench",)),
    ]


def test_a_folder_stands_for_its_files_and_a_limit_takes_the_first(tmp_path):
    written(tmp_path, LINE, LINE, name="a.jsonl")
    written(tmp_path, {**LINE, "gold": 1}, name="b.jsonl")
    assert [q.gold for q in read_questions(str(tmp_path), "path")] == [0, 0, 1]
    assert len(read_questions(str(tmp_path), "path", limit=2)) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({**LINE, "choices": ["yes"]}, "row 1, field 'choices' has 1: there must be at least two to choose from"),
        ({**LINE, "choices": []}, "field 'choices' has 0"),
        ({**LINE, "choices": "yes"}, "field 'choices' is a text: a list of texts is wanted"),
        ({**LINE, "choices": ["yes", 3]}, "choice 1 is 3: a text is wanted"),
        ({**LINE, "choices": ["yes", " "]}, "choice 1 is empty"),
        ({**LINE, "choices": ["yes", "no", "yes"]}, "row 1, choices 0 and 2 are the same, 'yes'"),
        ({**LINE, "answer": "no"}, "row 1, field 'answer' is 'no', and by field 'gold' choice 0 is right, 'yes'"),
        ({**LINE, "answer": "B"}, "row 1, field 'answer' is 'B', and by field 'gold' choice 0 is right, 'yes'"),
        ({**LINE, "gold": 2}, "field 'gold' is 2, and there are 2 choices: allowed are 0 to 1"),
        ({**LINE, "gold": -1}, "field 'gold' is -1"),
        ({**LINE, "gold": "A"}, "field 'gold' is a text: the number of the right choice is wanted, 0 to 1"),
        ({**LINE, "gold": True}, "field 'gold' is true"),
        ({**LINE, "gold": 1.0}, "field 'gold' is 1.0"),
        ({"query": "?", "choices": ["a", "b"]}, "has no field 'gold'"),
        ({"querry": "?", "choices": ["a", "b"], "gold": 0}, "has no field 'query'. Did you mean 'querry'?"),
        ({**LINE, "query": None}, "field 'query' is null: a text is wanted"),
        ({"query": "?", "answer": []}, "field 'answer' is an empty list"),
        ({"query": "?", "answer": ""}, "field 'answer' is empty"),
        ({"query": " ", "answer": "4"}, "field 'query' is empty: there is nothing to answer"),
        ({"text": "Once"}, "is no question: its fields are 'text'. It needs query, choices and gold, or query"),
        ('{"query": "a", "query": "b", "choices": ["a", "b"], "gold": 0}', "row 1 has the key 'query' twice"),
        ("[1]", "row 1 must hold a mapping of names to values, not a list"),
        ('{"query": "a"', "row 1 is no JSON"),
        ('{"query": "\\ud800", "choices": ["a", "b"], "gold": 0}', "half of a surrogate pair"),
        ("\udcff", "row 1, byte 1: not UTF-8 text"),
    ],
)  # fmt: skip
def test_a_bad_question_is_refused_with_its_place(tmp_path, line, message):
    with pytest.raises(DataError) as caught:
        read_questions(written(tmp_path, line), "measures.asked.path")
    assert message in str(caught.value)
    assert "asked.jsonl" in str(caught.value)


def test_an_empty_file_and_one_of_two_kinds_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"measures\.asked\.path=.* has no questions"):
        read_questions(written(tmp_path), "measures.asked.path")
    both = written(tmp_path, LINE, {"query": "2 + 2 =", "answer": "4"})
    with pytest.raises(DataError, match=r"row 1 has choices and .* row 2 has none"):
        read_questions(both, "path")


@pytest.mark.parametrize("answer", ["yes", "A", ["no", "yes"], "Because it is frozen.", 7, None])
def test_an_answer_beside_choices_may_say_the_same_or_something_else(tmp_path, answer):
    (question,) = read_questions(written(tmp_path, {**LINE, "answer": answer}), "path")
    assert question.answers == ("yes",)


def test_one_question_with_two_right_answers_is_told(tmp_path, caplog):
    turned = {**LINE, "choices": ["no", "yes"]}
    read_questions(written(tmp_path, LINE, LINE, {**turned, "gold": 1}), "path")
    assert not caplog.messages, "only the order of the choices differs"
    read_questions(written(tmp_path, LINE, {**LINE, "query": "?"}, turned), "path")
    assert re.fullmatch(r".*row 1 and .*row 3 ask the same, and say that another answer is right\.", caplog.messages[0])


def test_a_division_keeps_questions_with_the_same_query_together(tmp_path):
    asked = [Question("", f"question {n % 200}", ("a", "b"), n % 2, ("a",)) for n in range(400)]
    search, rest = divided(asked, 0.3, seed=1)
    assert len(search) + len(rest) == 400
    assert not {q.query for q in search} & {q.query for q in rest}
    assert 60 < len(search) < 180
    assert divided(asked, 0.3, seed=1)[0] == search != divided(asked, 0.3, seed=2)[0]
    assert divided(asked, 0.0, seed=1)[1] == asked


def test_a_fingerprint_is_of_what_is_asked_and_what_is_right():
    one = Question("a file, row 1", "?", ("a", "b"), 0, ("a",))
    assert fingerprint([one]) == fingerprint([Question("elsewhere", "?", ("a", "b"), 0, ("a",))])
    assert fingerprint([one]) != fingerprint([Question("", "?", ("a", "b"), 1, ("b",))])


class Pairs(ByteTokenizer):
    """Letters, of which "ab" is one token, as a tokenizer with merges has it."""

    def encode_batch(self, texts):
        import numpy as np

        return [np.asarray(list(text.replace("ab", "\0").encode()), np.int32) for text in texts]


def test_a_continuation_is_cut_after_as_many_tokens_as_the_text_before_it_has_alone():
    # "xa" + "b" is x, ab: of two tokens that "xa" has alone, one token would be left of nothing.
    assert continuations(Pairs(), [("xa", "bc")]) == [Continuation((120, 97, 99), 2)]
    assert continuations(Pairs(), [("xa", "b")]) == [Continuation((120, 0), 1)]


def test_blanks_before_a_continuation_belong_to_it_and_a_first_token_stands_first():
    (one,) = continuations(ByteTokenizer(), [("hi ", "you")], begin=7)
    assert one == Continuation((7, *b"hi you"), 3)


def test_an_empty_text_is_predicted_from_a_special_token_or_refused():
    tokenizer = ByteTokenizer()
    with pytest.raises(DataError, match="a query is empty, and the tokenizer has neither"):
        continuations(tokenizer, [("", "you")])
    tokenizer.special_ids = {"eos": 9}
    assert continuations(tokenizer, [("", "you")]) == [Continuation((9, *b"you"), 1)]
