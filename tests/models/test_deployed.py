"""The calls of a deployed program give what the model gives, and its parts add up to it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankitect.deploy.generate import Generator, Layout
from rankitect.errors import DataError, SpaceError
from rankitect.models.deployed import DeployedCall, segments
from tests.deploy.tiny import ids, model

PATTERNS = st.lists(st.sampled_from(["full", "swa", "skip"]), min_size=1, max_size=4).map(tuple)


def generator(made, prompt, capacity):
    tokens = torch.zeros(1, prompt, dtype=torch.int64)
    prefill = DeployedCall(made.plan, made, capacity, False, (tokens,))
    decode = DeployedCall(made.plan, made, capacity, True, (tokens[:, :1],))
    return Generator(Layout.of(prefill, decode), lambda x: prefill(*x), lambda x: decode(*x))


@given(PATTERNS, st.integers(2, 9), st.integers(2, 30), st.integers(1, 24))
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_prefill_and_decode_give_what_the_model_gives(patterns, window, prompt, length):
    made, tokens = model(patterns, window), ids(length + 4)
    runs = generator(made, prompt, 40)
    found = [runs.start(tokens[0, :length].tolist())]
    found += [runs.step(int(token)) for token in tokens[0, length:]]
    wanted = made(tokens)[0, length - 1 :]
    assert torch.allclose(torch.stack(found), wanted, atol=1e-4)


@torch.no_grad()
def test_a_long_prompt_is_attended_in_chunks(monkeypatch):
    monkeypatch.setattr("rankitect.blocks.attention.QUERIES", 8)
    made, tokens = model(("full", "swa"), window=12), ids(45)
    call = DeployedCall(made.plan, made, 64, False, (tokens,))
    assert torch.allclose(call(*call.example())[0], made(tokens)[:, -1:], atol=1e-4)


def test_a_skipped_layer_keeps_nothing_and_a_window_caps_what_is_kept():
    def kept(patterns):
        made = model(patterns, window=6)
        call = DeployedCall(made.plan, made, 32, True, (ids(1),))
        return sum(x.numel() for x in call.example()[2 + len(call.masks) :])

    assert kept(("full",)) == 2 * 2 * 16 * 31  # keys and values, 2 heads of 16, all tokens before
    assert kept(("swa",)) == 2 * 2 * 16 * 5
    assert kept(("full", "skip", "skip")) == kept(("full",))
    assert kept(("skip",)) == 0


@torch.no_grad()
def test_segments_in_turn_are_the_model():
    made, tokens = model(("full", "swa", "skip")), ids(10)
    *layers, rest = segments(made.plan)
    assert [s.name for s in layers] == ["layers.0", "layers.1", "layers.2"]
    x = torch.nn.functional.embedding(tokens, made.owner("embed").get_parameter("weight"))
    for layer in layers:
        call = DeployedCall(layer.plan, made, 32, False, (x, tokens)[: len(layer.plan.inputs)])
        x = call(*call.example())[0]
    steps = {s.path for s in rest.plan.steps}
    assert {"embed", "norm", "head"} <= steps
    assert not any(path.startswith("layers") for path in steps)
    normed = torch.nn.functional.rms_norm(x[:, -1:], (64,), made.owner("norm").get_parameter("weight"), 1e-5)
    wanted = torch.nn.functional.linear(normed, made.owner("embed").get_parameter("weight"))
    assert torch.allclose(made(tokens)[:, -1:], wanted, atol=1e-4)


def test_generation_says_what_does_not_fit():
    made = model(("full",))
    runs = generator(made, 4, 8)
    with pytest.raises(DataError, match="no tokens"):
        runs.start([])
    with pytest.raises(DataError, match="prompt has 8 tokens"):
        runs.start([1] * 8)
    with torch.no_grad():
        assert len(runs.greedy([1, 2, 3], 100)) == 6  # 3 tokens, 5 more in the cache, and one that is not read
        with pytest.raises(DataError, match="full"):
            runs.step(1)
    with pytest.raises(SpaceError, match="at least 2"):
        DeployedCall(made.plan, made, 1, True, (ids(1),))
