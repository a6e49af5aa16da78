"""Texts that are continued with a cache get the tokens that they get without one, and each token goes forward once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rankitect.graph import Architecture
from rankitect.models import greedy
from rankitect.models.cached import GrowingTexts, common_beginning
from rankitect.models.greedy import greedy_continuations
from tests.models.test_backbone import BACKBONES, SPACE, architectures

prompts_of_few_letters = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=1, max_size=6)


def recomputed(monkeypatch: pytest.MonkeyPatch, *given: Any, **more: Any) -> tuple[list[list[int]], int]:
    """The same without a cache."""
    with monkeypatch.context() as patched:
        patched.setattr(greedy, "packs_by_its_blocks", lambda model: False)
        return greedy_continuations(*given, **more)


@settings(max_examples=25)
@given(prompts_of_few_letters, architectures, st.sampled_from(sorted(BACKBONES)), st.integers(1, 20))
def test_a_cache_changes_no_token(prompts: list[list[int]], architecture: Architecture, which: str, most: int) -> None:
    """Of pruned models, some with windows, dropped layers and layers that run twice."""
    model = BACKBONES[which].supernet.activate(architecture)
    texts, _ = greedy_continuations(model, prompts, most, stop=(5,), ended=lambda tokens: tokens[-1] == 7)
    with pytest.MonkeyPatch.context() as patch:
        alone, _ = recomputed(patch, model, prompts, most, stop=(5,), ended=lambda tokens: tokens[-1] == 7)
    assert texts == alone


@pytest.mark.parametrize("most", [4, 16])
def test_prompts_are_read_in_parts_that_fit(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr("rankitect.models.cached.tokens_at_a_time", lambda device: most)
    model = BACKBONES["plain"].supernet.activate(SPACE.sample(3))
    start = list(range(9))
    prompts = [[*start, *range(20, 31)], [*start, 1, 2, 3], [*start, 1]]
    with torch.no_grad():
        scores = GrowingTexts(model, prompts, 1).read()
        for prompt, row in zip(prompts, scores, strict=True):
            torch.testing.assert_close(row, model(torch.tensor([prompt]))[0, -1], atol=1e-4, rtol=0)


def test_every_token_goes_forward_once_and_what_all_begin_with_in_one_row() -> None:
    model = BACKBONES["plain"].supernet.activate(SPACE.sample(0))
    prompts = [[1, 2, 3, 4], [1, 2, 3, 5, 6]]
    assert common_beginning(prompts) == 3
    texts, forwarded = greedy_continuations(model, prompts, 4)
    assert [len(text) for text in texts] == [4, 4]
    assert forwarded == 3 + 1 + 2 + 2 * 3  # nothing is predicted from a last token


def test_texts_that_have_ended_leave_the_cache() -> None:
    model = BACKBONES["plain"].supernet.activate(SPACE.sample(1))
    prompts = [[1, 2, 3], [4, 5], [6], [7]]
    whole, _ = greedy_continuations(model, prompts, 12)
    ends = iter(range(1, 100))
    lengths = {tuple(text[:1]): next(ends) for text in whole}
    cut, _ = greedy_continuations(model, prompts, 12, ended=lambda tokens: len(tokens) >= lengths[tuple(tokens[:1])])
    assert cut == [text[: lengths[tuple(text[:1])]] for text in whole]


def test_a_module_that_is_no_model_of_blocks_reads_each_text_again() -> None:
    model = nn.Sequential(nn.Embedding(4, 8), nn.Linear(8, 4))
    calls: list[int] = []
    texts, forwarded = greedy_continuations(model, [[0, 1], [2]], 3, check=lambda: calls.append(1))
    assert [len(text) for text in texts] == [3, 3]
    assert forwarded == sum(2 + n + 1 + n for n in range(3))
    assert len(calls) == 3
    assert model.training


def test_no_texts_are_continued_by_nothing() -> None:
    model = BACKBONES["plain"].supernet.activate(SPACE.sample(0))
    assert greedy_continuations(model, [], 5) == ([], 0)
