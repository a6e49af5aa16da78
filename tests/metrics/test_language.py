"""Batches that resume, perplexity that equals its definition, intervals that cover."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rankitect.data.text import Document
from rankitect.data.tokenizer import ByteTokenizer
from rankitect.data.windows import TextWindows
from rankitect.errors import DataError
from rankitect.metrics.language import next_token_loss, perplexity_interval, text_quality


class Texts:
    name = "texts"

    def __init__(self, count=30, words=40):
        self.documents = [Document(f"d{i}", " ".join(f"w{i}x{j}" for j in range(words))) for i in range(count)]

    def __iter__(self):
        return iter(self.documents)


class Uniform(nn.Module):
    """The same logit for every token."""

    def forward(self, ids):
        return torch.zeros(*ids.shape, 256)


class Bigram(nn.Module):
    """Logits from the last token alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(256, 256)

    def forward(self, ids):
        return self.table(ids)


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    return TextWindows.open(ByteTokenizer(), Texts(), context=16, cache=tmp_path_factory.mktemp("tokens"))


def test_batches_have_one_token_more_than_the_context(windows):
    batch = windows.batch_at("train", 0, batch=3)
    assert batch.shape == (3, 17)
    assert batch.dtype == torch.int64
    assert windows.batch_at("train", 0, batch=3, context=8).shape == (3, 9)


@given(start=st.integers(0, 400), batch=st.integers(1, 7))
def test_batches_from_a_step_are_the_ones_an_undisturbed_run_sees(windows, start, batch):
    resumed = windows.batches("train", batch=batch, start=start, steps=3)
    for step, ids in enumerate(resumed, start=start):
        assert torch.equal(ids, windows.batch_at("train", step, batch=batch))


def test_every_window_is_seen_once_an_epoch_and_orders_differ(windows):
    count = windows.text.split("train").windows(16)
    epochs = [windows.window_indices("train", epoch, batch=count) for epoch in range(2)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert list(epochs[0]) != list(epochs[1])
    assert list(epochs[0]) != list(windows.window_indices("train", 0, batch=count, seed=1))


def test_uniform_model_has_the_vocabulary_as_perplexity_and_a_byte_per_token(windows):
    quality = text_quality(Uniform(), windows, "test")
    assert quality.perplexity == pytest.approx(256)
    assert quality.bits_per_byte == pytest.approx(8)
    assert quality.tokens == quality.bytes == windows.text.split("test").windows(16) * 16


def test_quality_equals_the_mean_over_all_tokens_whatever_the_batch(windows):
    model = Bigram().train()
    quality = text_quality(model, windows, "search", batch=3)
    tokens = windows.text.split("search")
    ids = torch.from_numpy(tokens.read(np.arange(tokens.windows(16)), 16))
    want = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).item()
    assert quality.nats == pytest.approx(want, rel=1e-5)
    assert quality.perplexity == pytest.approx(math.exp(want), rel=1e-5)
    assert text_quality(model, windows, "search", batch=50).nats == pytest.approx(want, rel=1e-5)
    assert model.training
    assert next_token_loss(model, ids).item() == pytest.approx(want, rel=1e-5)
    few = text_quality(model, windows, "search", count=5)
    assert len(few.window_nats) == 5
    assert few.tokens == 80


def test_windows_are_attributed_to_their_documents(windows):
    quality, tokens = text_quality(Uniform(), windows, "test"), windows.text.split("test")
    first = np.arange(len(quality.window_nats)) * 16 + 1
    for position, document in zip(first, quality.window_documents, strict=True):
        assert tokens.token_offsets[document] <= position < tokens.token_offsets[document + 1]


def test_ratio_of_a_model_to_itself_is_one_and_other_windows_are_refused(windows):
    quality = text_quality(Bigram(), windows, "test")
    ratio, (low, high) = quality.ratio_to(quality)
    assert ratio == low == high == 1
    low, high = quality.interval()
    assert low < quality.perplexity < high
    with pytest.raises(DataError, match="measure both on the same windows"):
        quality.ratio_to(text_quality(Bigram(), windows, "search"))


def test_stop_callback_ends_quality_and_the_mode_is_kept(windows):
    model = Bigram().train()
    with pytest.raises(KeyboardInterrupt):
        text_quality(model, windows, check=lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert model.training


def test_short_text_is_refused_with_both_counts(windows, tmp_path):
    tokens = windows.text.split("calibration").tokens
    with pytest.raises(
        DataError, match=rf"calibration split has {tokens} tokens, but 900 x 16 \+ 1 = 14401 are needed"
    ):
        windows.batch_at("calibration", 0, batch=900)
    with pytest.raises(DataError, match="too short: its"):
        TextWindows.open(ByteTokenizer(), Texts(), context=100_000, cache=tmp_path)
    with pytest.raises(DataError, match="context must be at least 1"):
        TextWindows(windows.text, context=0)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    windows = [perplexity_interval(rng.normal(2.0, 0.5, 30)) for _ in range(400)]
    assert 0.92 < np.mean([low < math.exp(2.0) < high for low, high in windows]) < 0.98
    documents = np.repeat(np.arange(15), 6)
    grouped, naive = [], []
    for _ in range(400):
        nats = 2.0 + rng.normal(0, 0.4, 15)[documents] + rng.normal(0, 0.2, 90)
        grouped.append(perplexity_interval(nats, documents=documents))
        naive.append(perplexity_interval(nats))
    assert 0.91 < np.mean([low < math.exp(2.0) < high for low, high in grouped]) < 0.99
    assert np.mean([low < math.exp(2.0) < high for low, high in naive]) < 0.8


def test_paired_interval_is_narrower_than_the_models_own():
    rng = np.random.default_rng(0)
    hard = rng.normal(3, 1, 50)
    low, high = perplexity_interval(hard + 0.05 + rng.normal(0, 0.02, 50), hard)
    assert low < math.exp(0.05) < high
    assert high / low < 1.02
    assert perplexity_interval(np.array([1.0])) == (0.0, math.inf)
