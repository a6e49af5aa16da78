"""Fuzzer of tokenizer.json: a real tokenizer, damaged; confirmed by byte-pair encoding written down here."""

from __future__ import annotations

import base64
import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from rankitect.data.tokenizer import Tokenizer, load_tokenizer
from rankitect.models.checkpoints.gguf_metadata import Metadata
from rankitect.models.checkpoints.gguf_tokenizer import read_tokenizer
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz

TEXTS = ["the tea in the tin", "a net, ten ants", "", "tt", "né 漢 the", "the" * 40]
NORMALIZERS = [
    None,
    {"type": "Lowercase"},
    {"type": "Sequence", "normalizers": []},
    {"type": "Replace", "pattern": {"String": "t"}, "content": ""},
    {"type": "Precompiled", "precompiled_charsmap": ""},
    {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"\x08\0\0\0" + b"\xff" * 8 + b"x\0").decode()},
]


@cache
def trained() -> dict[str, Any]:
    """A small tokenizer.json as the library writes it: characters and merges of them."""
    from tokenizers import AddedToken, models, trainers
    from tokenizers import Tokenizer as Backend

    backend = Backend(models.BPE(unk_token="?"))
    trainer = trainers.BpeTrainer(vocab_size=40, special_tokens=["?"], show_progress=False)
    backend.train_from_iterator(["the tea in the tin, a net, ten ants, then the ant"] * 4, trainer)
    backend.add_special_tokens([AddedToken("<|end|>", normalized=False)])
    return dict(json.loads(backend.to_str()))


class TestTokenizerJson(Fuzz):
    """Tokenizers of Hugging Face folders."""

    cases = 300

    def make(self, random: Random) -> bytes:
        whole = trained()
        if random.random() < 0.25:
            whole = {**whole, "normalizer": random.choice(NORMALIZERS)}
        if random.random() < 0.2:
            kinds = [{"type": "WordLevel", "vocab": {"the": 0, "tea": 1}, "unk_token": "?"}]
            kinds += [{"type": "Unigram", "vocab": [["t", -1.0], ["he", -2.0]], "unk_id": unk} for unk in (None, 0, 9)]
            whole = {**whole, "model": random.choice(kinds)}
        return mutate.json_text(random, whole)

    def read(self, data: bytes, folder: Path) -> tuple[Tokenizer, list[list[int]]]:
        (folder / "tokenizer.json").write_bytes(data)
        tokenizer = load_tokenizer(folder)
        return tokenizer, [ids.tolist() for ids in tokenizer.encode_batch(TEXTS)]

    def confirm(self, data: bytes, value: tuple[Tokenizer, list[list[int]]]) -> None:
        tokenizer, encoded = value
        stated = json.loads(data.decode("utf-8-sig"))
        model, added = stated["model"], {t["content"]: t["id"] for t in stated.get("added_tokens") or []}
        vocab = model["vocab"]
        vocab = vocab if isinstance(vocab, dict) else {token: i for i, (token, _) in enumerate(vocab)}
        known = {**vocab, **added}
        assert tokenizer.vocab_size == max(known.values()) + 1
        assert all(0 <= i < tokenizer.vocab_size and i in known.values() for ids in encoded for i in ids)
        original = {**trained(), "model": {**trained()["model"], "vocab": vocab, "merges": model.get("merges")}}
        plain = {**original, "added_tokens": stated.get("added_tokens")}
        if all(stated.get(key) == part for key, part in plain.items() if key not in ("truncation", "padding")):
            merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
            expected = [reference(text, vocab, merges) for text in TEXTS]
            assert encoded == expected


SCORES = {"<unk>": 0.0, "<s>": 0.0, "\u2581": -9.0, "a": -10.0, "b": -11.0, "c": -12.0, "ab": -1.0, "abc": -2.0,
          "\u2581ab": -3.0, "bc": -4.0, "<tab>": 0.0}  # fmt: skip
"""A small vocabulary of SentencePiece."""


class TestTokenizerTables(Fuzz):
    """Tokenizers of GGUF files, whose keys are damaged."""

    cases = 200

    def make(self, random: Random) -> dict[str, Any]:
        keys = {
            "model": random.choice(["llama", "llama", "t5"]),
            "tokens": list(SCORES),
            "scores": list(SCORES.values()),
            "token_type": [2, 3, *[1] * 8, 4],
            "add_space_prefix": random.random() < 0.5,
            "bos_token_id": 1,
        }
        if random.random() < 0.3:
            keys = {**keys, "model": "gpt2", "pre": random.choice(["gpt-2", "llama-bpe"]), "merges": ["a b", "ab c"]}
        damaged: Any = mutate.tree(random, keys) if random.random() < 0.8 else keys
        return damaged if isinstance(damaged, dict) else {}

    def read(self, data: dict[str, Any], folder: Path) -> tuple[Tokenizer, list[list[int]]]:
        keys = {f"tokenizer.ggml.{name}": value for name, value in data.items()}
        tokenizer = read_tokenizer(Metadata(folder / "f.gguf", keys), 100)
        return tokenizer, [ids.tolist() for ids in tokenizer.encode_batch(SPELLED)]

    def confirm(self, data: dict[str, Any], value: tuple[Tokenizer, list[list[int]]]) -> None:
        tokenizer, encoded = value
        assert tokenizer.vocab_size <= len(data["tokens"])
        assert all(0 <= i < len(data["tokens"]) for ids in encoded for i in ids)
        if data["model"] == "llama" and data.get("tokens") == list(SCORES) and data.get("token_type", [1])[-1] == 4:
            prefix = "\u2581" if data.get("add_space_prefix", True) else ""
            expected = [best_first(prefix + text.replace(" ", "\u2581"), data) for text in SPELLED]
            assert encoded == expected


SPELLED = ["ab c abcab", "bca", "<s>", "cab cab"]


def best_first(text: str, keys: dict[str, Any]) -> list[int]:
    """SentencePiece merges those neighbours first that make the best token; of equals the leftmost."""
    normal = {token: i for i, token in enumerate(keys["tokens"]) if keys["token_type"][i] in (1, 4)}
    unknown = next((i for i, kind in enumerate(keys["token_type"]) if kind == 2), None)
    parts = list(text)
    while True:
        ways = [(-keys["scores"][normal[a + b]], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in normal]
        if not ways:
            ids = [normal.get(part, unknown) for part in parts]
            one_unknown = [i for n, i in enumerate(ids) if i != unknown or n == 0 or ids[n - 1] != unknown]
            return [i for i in one_unknown if i is not None]
        at = min(ways)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def reference(text: str, vocab: dict[str, int], merges: list[tuple[str, ...]]) -> list[int]:
    """Byte-pair encoding: the earliest merge of all that apply, the leftmost first, until none applies."""
    rank = {pair: number for number, pair in enumerate(merges)}
    parts = [char if char in vocab else None for char in text]
    while True:
        pairs = [(rank.get((a, b), len(rank)), i) for i, (a, b) in enumerate(pairwise(parts))]
        best, at = min(pairs, default=(len(rank), 0))
        if best == len(rank):
            return [vocab["?"] if part is None else vocab[part] for part in parts]
        parts[at : at + 2] = [f"{parts[at]}{parts[at + 1]}"]
