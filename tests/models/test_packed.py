"""Sequences that share their beginnings, packed into rows, have the likelihoods that each has alone."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rankitect.blocks import Embed, Head, Rope
from rankitect.data.continuations import Continuation
from rankitect.errors import DataError, SpaceError
from rankitect.graph import B, Block, Expr, Graph, Params, SearchSpace, T, TensorType, as_expr
from rankitect.models import packed
from rankitect.models.packed import Forest, likelihoods, pack, plain_likelihoods, turned_by_length
from rankitect.models.supernet import Supernet, build
from tests.models.test_backbone import BACKBONES, SPACE, architectures

tokens = st.lists(st.integers(0, 3), min_size=1, max_size=6)


@st.composite
def groups(draw: st.DrawFn) -> list[list[Continuation]]:
    """Questions whose queries and choices share beginnings, as few letters do."""
    asked = []
    for _ in range(draw(st.integers(1, 5))):
        query = draw(st.lists(st.integers(0, 3), min_size=1, max_size=9))
        choices = draw(st.lists(tokens, min_size=1, max_size=4))
        asked.append([Continuation((*query, *choice), len(query)) for choice in choices])
    return asked


def flat(asked: list[list[Continuation]]) -> list[Continuation]:
    return [one for group in asked for one in group]


@settings(max_examples=25)
@given(groups(), architectures, st.sampled_from(sorted(BACKBONES)), st.sampled_from([16, 40]))
def test_packed_likelihoods_are_those_of_each_sequence_alone(asked, architecture, which, row):
    model = BACKBONES[which].supernet.activate(architecture)
    together, alone = likelihoods(model, pack(asked, row)), plain_likelihoods(model, flat(asked))
    np.testing.assert_allclose(together.nats, alone.nats, atol=1e-4)
    assert (together.greedy == alone.greedy).all()


def test_every_token_of_a_shared_beginning_goes_forward_once():
    asked = [[Continuation((1, 2, 3, 4, one), 4) for one in (5, 6, 7)], [Continuation((1, 2, 3, 8, 9, 9), 4)]]
    forest = pack(asked)
    assert forest.tokens == 4 + 2  # 1 2 3 4, then 8 and the first 9: nothing is predicted from a last token
    assert [len(row.tokens) for row in forest.rows] == [6]


def test_a_group_that_is_longer_than_a_row_has_a_row_of_its_own():
    asked = [[Continuation(tuple(range(30)), 20)], [Continuation((1, 2), 1)]]
    forest = pack(asked, row=8)
    assert [len(row.tokens) for row in forest.rows] == [29, 1]
    model = BACKBONES["plain"].supernet.activate(SPACE.sample(0))
    np.testing.assert_allclose(likelihoods(model, forest).nats, plain_likelihoods(model, flat(asked)).nats, atol=1e-4)


def test_what_all_questions_begin_with_goes_forward_once_however_long_it_is():
    examples = tuple(range(40))
    asked = [[Continuation((*examples, 50 + n, one), 41) for one in (1, 2)] for n in range(5)]
    forest = pack(asked, row=8)
    assert forest.trunk == examples
    assert [len(row.tokens) for row in forest.rows] == [5]
    assert forest.tokens == 45
    (whole,) = pack(asked, row=8, trunk=False).rows
    assert len(whole.tokens) == 45


@settings(max_examples=15)
@given(groups(), architectures, st.sampled_from(sorted(BACKBONES)), st.sampled_from([8, 40]), st.integers(16, 30))
def test_what_is_computed_before_all_rows_changes_no_likelihood(asked, architecture, which, row, shared):
    model = BACKBONES[which].supernet.activate(architecture)
    before = tuple(3 * n % 11 for n in range(shared))
    asked = [[Continuation((*before, *one.tokens), shared + one.start) for one in group] for group in asked]
    forest = pack(asked, row)
    assert forest.trunk[:15] == before[:15]
    together, alone = likelihoods(model, forest), plain_likelihoods(model, flat(asked))
    np.testing.assert_allclose(together.nats, alone.nats, atol=1e-4)
    assert (together.greedy == alone.greedy).all()


def test_a_module_that_is_no_model_of_blocks_computes_each_sequence_alone():
    model = nn.Sequential(nn.Embedding(4, 8), nn.Linear(8, 4))
    asked = [[Continuation((0, 1, 2), 1), Continuation((0, 1, 3), 2)]]
    result = likelihoods(model, pack(asked))
    with torch.no_grad():
        scores = model(torch.tensor([[0, 1]])).log_softmax(-1)[0].double()
    np.testing.assert_allclose(result.nats, [scores[0, 1] + scores[1, 2], scores[1, 3]], atol=1e-5)


class Average(Block):
    """The mean of all tokens so far: a block of a user's that knows nothing of packing."""

    ports: ClassVar[str] = "B T D -> B T D"

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        return x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]

    def flops(self, *inputs: TensorType) -> Expr:
        return as_expr(0)


def test_a_block_that_knows_nothing_of_packing_is_measured_sequence_by_sequence():
    g = Graph("averages")
    g.out = Head(8)(Average()(Embed(8, 16)(g.input("ids", B, T, dtype="int"))))
    space = SearchSpace(g)
    model = build(space, space.sample(0))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(20)
    asked = [[Continuation((1, 2, 3, one, one), 3) for one in (4, 5, 6)], [Continuation((7, 1, 1), 1)]]
    result = likelihoods(model, pack(asked))
    np.testing.assert_allclose(result.nats, plain_likelihoods(model, flat(asked)).nats)
    assert result.forwarded == sum(len(one.tokens) - 1 for one in flat(asked))


def test_very_long_sequences_are_computed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "WIDEST", 5)
    model = BACKBONES["plain"].supernet.activate(SPACE.sample(0))
    asked = [[Continuation((1, 2, 3, 4, 5, 6, one), 6) for one in (1, 2)]]
    assert likelihoods(model, pack(asked)).forwarded == 12


def test_positions_that_depend_on_the_length_of_a_text_are_not_packed():
    g = Graph("turned")
    g.out = Rope(4, scaling=("dynamic", 2.0, 4.0))(g.input("ids", B, T, dtype="int"))
    space = SearchSpace(g)
    model = Supernet(space).activate(space.sample(0))
    forest = pack([[Continuation(tuple(range(7)), 2)]])
    assert turned_by_length(model)
    with pytest.raises(SpaceError, match="cannot be packed; there is one of 6"):
        packed._packed(model, forest, torch.device("cpu"))


def test_the_check_is_called_before_every_forward_and_the_mode_is_kept():
    model = BACKBONES["plain"].supernet.activate(SPACE.sample(0))
    model.train()
    calls: list[int] = []
    likelihoods(model, pack([[Continuation((1, 2), 1)]]), check=lambda: calls.append(1))
    assert calls == [1]
    assert model.training


def test_no_continuations_have_no_likelihoods():
    forest = pack([])
    assert isinstance(forest, Forest)
    model = BACKBONES["plain"].supernet.activate(SPACE.sample(0))
    assert likelihoods(model, forest).nats.shape == (0,)


@pytest.mark.parametrize("packs", [True, False])
def test_a_model_that_gives_no_numbers_holds_nothing_likely(packs: bool) -> None:
    model: nn.Module = nn.Sequential(nn.Embedding(4, 8), nn.Linear(8, 4))
    if packs:
        model = BACKBONES["plain"].inherit(SPACE.sample(0))
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(float("nan"))
    asked = [[Continuation((0, 1, 2), 1), Continuation((0, 1, 3), 2)]]
    with pytest.raises(DataError, match="no finite log-likelihood for 2 of 2 continuations"):
        likelihoods(model, pack(asked))
