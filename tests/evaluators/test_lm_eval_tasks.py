"""Tasks of lm-eval, from local data: the same answers as to the same questions in a file of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from rankitect.errors import ConfigError, DataError
from rankitect.evaluators.lm_eval_tasks import LmEvalTasks
from rankitect.tasks.language.harness import HarnessModel
from rankitect.tasks.language.questions import AnswersText, QuestionSettings, ask
from tests.models.test_backbone import BACKBONES, SPACE
from tests.tasks.language.test_questions import Alternating, backbone

ROWS = [
    {"goal": f"goal {n}", "sol1": f"do {n} twice", "sol2": f"leave {n % 3}", "label": n % 2, "spare": None}
    for n in range(8)
]


class Parts:
    """What a measure needs of the parts of a search."""

    def __init__(self, context: int = 256) -> None:
        self.checkpoint = backbone(context)
        self.search_split = "search"

    def require(self, capability: type, section: str) -> Parts:
        assert capability.__name__ == AnswersText.__name__
        return self


def written(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def config(**keys: object) -> LmEvalTasks.Config:
    return LmEvalTasks.Config(**keys)


def test_a_task_by_its_name_gives_what_the_same_questions_give(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    measure = LmEvalTasks.from_config(config(task="piqa", data=written(tmp_path / "piqa.jsonl", ROWS)), Parts())
    assert [(s.name, s.unit, s.direction) for s in measure.specs("test")] == [
        ("acc", "share", "max"),
        ("acc_norm", "share", "max"),
    ]
    assert measure.specs("search") == []
    same = [
        {"query": f"Question: {r['goal']}\nAnswer:", "choices": [r["sol1"], r["sol2"]], "gold": r["label"]}
        for r in ROWS
    ]
    own = ask(QuestionSettings(path=written(tmp_path / "own.jsonl", same)), backbone(256))["test"]
    model = BACKBONES["plain"].supernet.activate(SPACE.sample(1))
    measured, (right, spent) = measure.measure(model, "test", lambda: None), own.answered(model)
    for name in ("acc", "acc_norm"):
        assert measured.answers[name].values == tuple(right[name].astype(float))
        assert measured.metrics[name].value == right[name].mean()
    assert measured.spent == spent


def test_a_task_with_examples_and_open_answers(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    rows = [{"text": f"a b {'c' * (n % 3 + 1)} d"} for n in range(4)]
    data = written(tmp_path / "lambada.jsonl", rows)
    open_ = LmEvalTasks.from_config(config(task="lambada_openai", data=data, limit=3), Parts())
    found = open_.measure(Alternating(), "test", lambda: None)
    assert found.metrics["acc"].n == 3
    assert {s.name: s.direction for s in open_.specs("test")} == {"perplexity": "min", "acc": "max"}
    folder = tmp_path / "piqa"
    folder.mkdir()
    written(folder / "validation.jsonl", ROWS[:3])
    written(folder / "train.jsonl", ROWS[3:])
    shown = LmEvalTasks.from_config(config(task="piqa", data=str(folder), shots=2), Parts(512))
    assert (
        shown.measure(BACKBONES["plain"].supernet.activate(SPACE.sample(1)), "test", lambda: None).metrics["acc"].n == 3
    )


def test_what_cannot_be_asked_is_refused_before_any_work(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    data = written(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(ConfigError, match=r"lm-eval has no task 'piqua'. Did you mean piqa\?"):
        LmEvalTasks.from_config(config(task="piqua", data=data), Parts())
    lacking = written(tmp_path / "b.jsonl", [{"goal": "a", "sol1": "b", "label": 0}])
    with pytest.raises(DataError, match=r"task piqa cannot read these rows .*their columns are goal, sol1, label"):
        LmEvalTasks.from_config(config(task="piqa", data=lacking), Parts())
    with pytest.raises(DataError, match=r"a prompt has \d+ tokens with its answer; the model was made for 16"):
        LmEvalTasks.from_config(config(task="piqa", data=data), Parts(16))
    with pytest.raises(DataError, match=r"shots=2: data must be a folder with validation\.jsonl and train"):
        LmEvalTasks.from_config(config(task="piqa", data=data, shots=2), Parts())
    with pytest.raises(DataError, match="has no rows"):
        LmEvalTasks.from_config(config(task="piqa", data=written(tmp_path / "c.jsonl", [])), Parts())


def test_without_the_package_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=r"lm-eval is not installed .*requirements/lm-eval\.txt"):
        LmEvalTasks.from_config(config(task="piqa", data=written(tmp_path / "a.jsonl", ROWS)), Parts())


def test_the_model_that_a_harness_asks_generates_up_to_a_text_that_ends_it() -> None:
    model = HarnessModel(backbone(64), None).asking(Alternating())
    request = SimpleNamespace(args=("ab", {"until": ["dc"], "max_gen_toks": 9}))
    assert model.generate_until([request]) == ["c"]
    assert model.spent.generated_tokens == 3
    rolling = model.loglikelihood([SimpleNamespace(args=("ab", "cd")), SimpleNamespace(args=("ab", "ce"))])
    assert [greedy for _, greedy in rolling] == [True, False]
    assert rolling[0][0] > rolling[1][0]
    with pytest.raises(DataError, match="answers are greedy"):
        model.generate_until([SimpleNamespace(args=("ab", {"do_sample": True, "temperature": 0.7}))])
