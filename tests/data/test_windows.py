"""Windows of a text, and what they begin with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rankitect.data.text import TextSource, open_text
from rankitect.data.tokenizer import ByteTokenizer
from rankitect.data.windows import TextWindows
from rankitect.errors import DataError
from rankitect.metrics.language import text_quality
from rankitect.metrics.losses import cross_entropy
from rankitect.models.backbone import largest
from rankitect.models.checkpoints import DecoderConfig, random_checkpoint
from rankitect.models.pretrained import space_tensors
from rankitect.models.supernet import Supernet
from rankitect.search_spaces.mobile_llm import from_backbone

CONFIG = DecoderConfig(vocab=256, d_model=16, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8, ffn=32)


@pytest.fixture
def text(tmp_path: Path) -> TextSource:
    lines = "\n\n".join(f"{i} squared is {i * i}, and cubed {i**3}." for i in range(400))
    (tmp_path / "text.txt").write_text(lines)
    return open_text(str(tmp_path / "text.txt"))


def windows(text: TextSource, cache: Path, begin: int | None) -> TextWindows:
    return TextWindows.open(ByteTokenizer(), text, context=16, begin=begin, cache=cache)


def test_windows_begin_with_the_first_token_and_predict_the_same(text: TextSource, tmp_path: Path) -> None:
    plain, begun = (windows(text, tmp_path / "cache", begin) for begin in (None, 7))
    for split in ("train", "search", "test"):
        a, b = (w.batch_at(split, 0, batch=2) for w in (plain, begun))
        assert torch.equal(a[:, 1:], b[:, 1:]), "the same tokens are predicted"
        assert (b[:, 0] == 7).all()
        assert not (a[:, 0] == 7).any()
    assert plain.text.fingerprint != begun.text.fingerprint, "what is kept of one is not taken for the other"
    assert windows(text, tmp_path / "cache", 7).text.fingerprint == begun.text.fingerprint


def test_quality_is_that_of_windows_with_the_first_token(text: TextSource, tmp_path: Path) -> None:
    space = from_backbone(CONFIG, context=16)
    model = Supernet(space, tensors=space_tensors(random_checkpoint(CONFIG, 0))).extract(largest(space))
    begun = windows(text, tmp_path / "cache", 7)
    tokens = begun.text.split("test")
    ids = torch.from_numpy(np.asarray(tokens.ids[: tokens.windows(16) * 16 + 1]).astype(np.int64))
    rows = torch.stack([torch.cat([torch.tensor([7]), row]) for row in ids[1:].view(-1, 16)])
    with torch.no_grad():
        wanted = float(cross_entropy(model(rows[:, :-1]), rows[:, 1:]))
    assert text_quality(model, begun, "test").nats == pytest.approx(wanted, rel=1e-5)


def test_a_first_token_that_the_vocabulary_lacks_is_refused(text: TextSource, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not in the vocabulary of 256"):
        windows(text, tmp_path / "cache", 256)
