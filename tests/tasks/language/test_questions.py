"""Questions as a language model is asked them: answers are judged as by hand, and what cannot be asked is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rankitect.data.tokenizer import BPETokenizer, ByteTokenizer
from rankitect.errors import ConfigError, DataError
from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig, random_checkpoint
from rankitect.models.checkpoints.usage import Usage
from rankitect.tasks.language.questions import Asked, QuestionSettings, ask
from tests.models.test_backbone import BACKBONES, SPACE

CHOICES = [
    {"query": f"{n} and {n % 7}:", "choices": [f"a{n}", "bbbb", f"c{n % 3} é"], "gold": n % 3} for n in range(12)
]
OPEN = [{"query": "ab", "answer": ["zz", "cdc"]}, {"context": "abc", "continuation": "dcd"}]


def backbone(context: int = 64, **usage: object) -> DecoderCheckpoint:
    config = DecoderConfig(
        vocab=256, d_model=8, n_layers=1, n_heads=1, n_kv_heads=1, head_dim=8, ffn=8, context=context
    )
    return replace(random_checkpoint(config, 0), tokenizer=ByteTokenizer(), usage=Usage(**usage))


def asked(
    folder: Path, lines: list[dict], checkpoint: DecoderCheckpoint | None = None, **keys: object
) -> dict[str, Asked]:
    path = folder / "asked.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return ask(QuestionSettings(path=str(path), **keys), checkpoint or backbone(), "measures.asked.path")


class Alternating(nn.Module):
    """After a comes b, then c and d in turns; a line ends after eight bytes."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        following = {"a": "b", "b": "c", "c": "d", "d": "c"}
        rows = [[ord(following.get(chr(i), "a")) if n < 7 else 10 for n, i in enumerate(row)] for row in ids.tolist()]
        return nn.functional.one_hot(torch.tensor(rows), 256).float() * 9


def test_choices_are_judged_as_each_alone_would_be(tmp_path):
    model = BACKBONES["plain"].supernet.activate(SPACE.sample(3))
    questions = asked(tmp_path, CHOICES)["test"]
    right, spent = questions.answered(model)
    best = []
    for line in CHOICES:
        nats = []
        for choice in line["choices"]:
            ids = torch.tensor([[*f"{line['query']} {choice}".encode()]])
            with torch.no_grad():
                scores = model(ids[:, :-1]).log_softmax(-1)[0]
            start = len(line["query"].encode())
            nats.append(float(scores[range(start - 1, ids.shape[1] - 1), ids[0, start:]].sum()))
        best.append([int(np.argmax(nats)), int(np.argmax(np.divide(nats, [len(c) for c in line["choices"]])))])
    gold = np.asarray([line["gold"] for line in CHOICES])
    assert questions.metrics == ("acc", "acc_norm", "acc_bytes")  # é has two bytes
    assert right["acc"].tolist() == (np.asarray(best)[:, 0] == gold).tolist()
    assert right["acc_norm"].tolist() == (np.asarray(best)[:, 1] == gold).tolist()
    assert 0 < spent.eval_tokens < sum(len(f"{c['query']} {x}".encode()) for c in CHOICES for x in c["choices"])


def test_open_answers_are_right_where_each_token_is_the_likeliest_or_where_they_are_generated(tmp_path):
    likeliest = asked(tmp_path, OPEN, delimiter="")["test"].answered(Alternating())[0]
    assert {name: values.tolist() for name, values in likeliest.items()} == {"acc": [True, True]}
    generated = asked(tmp_path, OPEN, answer="generated", tokens=12)["test"]
    right, spent = generated.answered(Alternating())
    assert right["exact_match"].tolist() == [False, False]  # "cdcdcd" up to the end of the line
    assert spent.generated_tokens == 7 + 6
    whole = [{"query": "ab", "answer": "CDCDCD"}]
    assert not asked(tmp_path, whole, answer="generated")["test"].answered(Alternating())[0]["exact_match"][0]
    for keys in ({"ignore_case": True}, {"ignore_case": True, "stop": ["\n", "zz"]}):
        assert asked(tmp_path, whole, answer="generated", **keys)["test"].answered(Alternating())[0]["exact_match"][0]
    ended = asked(
        tmp_path, [{"query": "ab", "answer": "c"}], backbone(generation={"eos_token_id": 100}), answer="generated"
    )
    assert ended["test"].answered(Alternating())[0]["exact_match"][0]  # byte 100 is d


def _with_template() -> BPETokenizer:
    """Bytes as a tokenizer.json has them, which puts <s> before every text, as Llama 3's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*alphabet, "<s>"])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>"])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    return BPETokenizer(backend, {"bos": 256})


def test_sequences_begin_with_the_first_token_where_the_model_was_trained_so(tmp_path):
    def first(checkpoint: DecoderCheckpoint, **keys: object) -> int:
        return asked(tmp_path, CHOICES, checkpoint, **keys)["test"].sequences[0][0].tokens[0]

    trained = backbone(settings={"add_bos_token": True})
    trained.tokenizer.special_ids = {"bos": 7}
    assert first(trained) == 7
    assert first(trained, begin=False) == ord("0")
    bpe = _with_template()
    by_template = replace(backbone(), tokenizer=bpe)
    assert first(by_template) == bpe.special_ids["bos"]
    assert first(replace(by_template, usage=Usage(settings={"add_bos_token": False}))) != bpe.special_ids["bos"]
    plain = backbone()
    assert first(plain) == ord("0")
    with pytest.raises(ConfigError, match=r"begin=true: the backbone's tokenizer has no first token"):
        first(plain, begin=True)
    plain.tokenizer.special_ids = {"bos": 7}
    assert first(plain, begin=True) == 7


def test_a_question_that_is_too_long_is_refused_with_its_place(tmp_path):
    long = [CHOICES[0], {**CHOICES[1], "query": "word " * 20}]
    with pytest.raises(DataError, match=r"asked\.jsonl, row 2 has 105 tokens, and the model was made for 64"):
        asked(tmp_path, long)
    with pytest.raises(DataError, match="row 1 has 66 tokens with the 64 of an answer"):
        asked(tmp_path, OPEN, answer="generated", tokens=64)


def test_a_search_has_questions_of_its_own(tmp_path):
    sides = asked(tmp_path, CHOICES, search=0.4)
    queries = [{q.query for q in sides[name].questions} for name in ("search", "test")]
    assert queries[0] & queries[1] == set()
    assert len(queries[0] | queries[1]) == 12
    with pytest.raises(DataError, match=r"measures\.asked\.path: the questions are too few to be divided"):
        asked(tmp_path, CHOICES[:1], search=0.4)


def test_questions_with_the_same_query_are_one_cluster(tmp_path):
    assert asked(tmp_path, CHOICES)["test"].clusters is None
    assert asked(tmp_path, [CHOICES[0], CHOICES[1], CHOICES[0]])["test"].clusters == (0, 1, 0)


def test_an_address_with_a_password_is_refused_without_repeating_it():
    with pytest.raises(ValueError, match="the URI holds credentials") as caught:
        QuestionSettings(path="s3://me:secret@bucket/a.jsonl")
    assert "secret" not in str(caught.value.errors()[0]["msg"])
