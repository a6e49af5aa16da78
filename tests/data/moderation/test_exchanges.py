"""Exchanges: how they are divided, and what cannot be learned from is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankitect.data.moderation.embedded import REQUESTS, embedded_exchanges
from rankitect.data.moderation.exchanges import SHARES, Exchange, divided
from rankitect.data.moderation.reading import Reading, read_exchanges
from rankitect.errors import DataError


def exchange(prompt: str, unsafe: bool, source: str = "a") -> Exchange:
    return Exchange("row", prompt, "", unsafe, "", source)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(20, 60))
def test_exchanges_of_one_prompt_stay_together_and_shares_are_kept_in_every_source(seed: int, prompts: int) -> None:
    rows = [exchange(f"{s} {i % prompts}", i % 2 == 0, s) for s in "ab" for i in range(2 * prompts)]
    splits = divided(rows, seed)
    assert sorted(one.prompt for part in splits.values() for one in part) == sorted(one.prompt for one in rows)
    sides: dict[str, set[str]] = {}
    for name, part in splits.items():
        for one in part:
            sides.setdefault(one.prompt, set()).add(name)
    assert all(len(names) == 1 for names in sides.values())
    for source in "ab":
        for name, share in SHARES.items():
            count = sum(one.source == source for one in splits[name])
            assert abs(count - share * 2 * prompts) <= 2


def test_labels_of_one_class_are_refused() -> None:
    with pytest.raises(DataError, match=r"All 40 labels are safe: .* Add exchanges that are unsafe"):
        divided([exchange(str(i), False) for i in range(40)], 0)


def test_a_split_without_both_labels_is_refused() -> None:
    rows = [exchange(str(i), False) for i in range(40)] + [exchange("one prompt", True)] * 9
    with pytest.raises(DataError, match=r"split has \d+ unsafe and \d+ safe exchanges"):
        divided(rows, 0)


def test_own_requests_need_no_file_and_have_both_labels() -> None:
    counts = Counter(one.unsafe for one in embedded_exchanges(REQUESTS))
    assert min(counts.values()) > 100
    splits = divided(embedded_exchanges(REQUESTS), 0)
    tasks = [{one.group for one in part} for part in splits.values()]
    assert not tasks[0] & tasks[1]
    assert not tasks[0] & tasks[2]


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_json_lines_and_tables_give_the_same(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a, b", "response": 'say "no"\nnow', "label": 1, "category": "x", "source": "s"},
        {"prompt": "c", "label": False, "source": "s"},
    ]
    lines = written(tmp_path, "one.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    table = written(
        tmp_path,
        "one.csv",
        'prompt,response,label,category,source\n"a, b","say ""no""\nnow",unsafe,x,s\nc,,safe,,s\n',
    )
    as_lines, as_table = read_exchanges(lines, "task.data"), read_exchanges(table, "task.data")
    assert [(o.prompt, o.response, o.unsafe, o.category, o.source) for o in as_lines] == [
        (o.prompt, o.response, o.unsafe, o.category, o.source) for o in as_table
    ]
    assert as_lines[0].response == 'say "no"\nnow'
    assert as_lines[0].unsafe


def test_columns_may_be_called_otherwise_and_scores_are_cut(tmp_path: Path) -> None:
    table = written(tmp_path, "toxic.csv", "text,score,id\nfine,0.2,1\nbad,0.7,2\n")
    reading = Reading({"prompt": "text", "label": "score"}, ["id"], 0.6)
    assert [one.unsafe for one in read_exchanges(table, "task.data", reading)] == [False, True]
    assert read_exchanges(table, "task.data", reading)[0].source == "toxic"


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("a.jsonl", '{"prompt": "x", "label": 1, "lable": 0}\n', r"column 'lable' that is not known.*task\.ignore"),
        ("a.jsonl", '{"promt": "x", "label": 1}\n', r"no column 'prompt'.*Did you mean 'promt'"),
        ("a.csv", "prompt,label\nx,maybe\n", r"line 2, column 'label' is 'maybe'; allowed are 0, 1"),
        ("a.csv", "prompt,label\nx,3\n", "numbers from 0 to 1"),
        ("a.csv", "prompt,label\nx\n", "line 2 has 1 values, and 2 columns are named"),
        ("a.csv", "prompt,prompt,label\nx,y,1\n", "names column 'prompt' twice"),
        ("a.jsonl", '{"prompt": " ", "label": 1}\n', "nothing to judge"),
        ("a.jsonl", '{"prompt": 3, "label": 1}\n', "a text is wanted"),
        ("a.jsonl", "\n", "has no exchanges"),
        ("a.txt", "hello\n", "exchanges are read from"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path: Path, name: str, text: str, wanted: str) -> None:
    with pytest.raises(DataError, match=wanted):
        read_exchanges(written(tmp_path, name, text), "task.data")
