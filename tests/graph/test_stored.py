"""Bytes of weights in a file: integers, scales, and weights that blocks share."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankitect.blocks import GQA, Embed, Linear, TiedHead
from rankitect.graph import B, Graph, SearchSpace, T
from rankitect.graph.stored import stored_bytes


@given(
    rows=st.integers(1, 50),
    inputs=st.integers(1, 200),
    bits=st.sampled_from([2, 3, 4, 5, 6, 7, 8, 16, 32]),
    group=st.sampled_from([0, 16, 32, 48]),
)
def test_a_matrix_takes_its_integers_and_its_scales(rows: int, inputs: int, bits: int, group: int) -> None:
    scales = 0 if bits > 8 else 2 * ceil(inputs / group) if group else 4
    assert stored_bytes(rows, inputs, bits, group) == rows * (ceil(inputs * bits / 8) + scales)


def decoder(embed: dict[str, int], head: dict[str, int], **cached: int) -> SearchSpace:
    """An embedding, a projection whose bits are a choice, and a head that is tied to the embedding."""
    g = Graph("stored")
    ids = g.input("ids", B, T, dtype="int")
    bits = g.choice("bits", [32, 8, 4])
    x = Linear(32, bits=bits, scale_group=32 * bits.eq(4))(Embed(100, 64, **embed)(ids, name="embed"), name="in")
    x = GQA(1, 1, 32, rotary=False, **cached)(x, name="attention")
    x = Linear(64, bits=8)(x, name="out")
    g.out = TiedHead(100, **head)(x, name="head", weights="embed")
    return SearchSpace(g, version="1", defaults={"B": 1, "T": 8, "P": 0})


PLAIN = {32: 32 * 64 * 4, 8: 32 * 64 + 32 * 4, 4: 32 * 64 // 2 + 32 * 2 * 2}
REST = 4 * (32 + 64) + 4 * 4 * 32 * 32 + 64 * 32 + 4 * 64  # biases, attention in floats, the second projection


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_the_bits_of_an_architecture_decide_its_bytes(bits: int) -> None:
    space = decoder({}, {})
    architecture = space.architecture({"bits": bits})
    assert space.cost(architecture, "weight_bytes") == PLAIN[bits] + REST + 4 * 6400
    assert space.cost(architecture, "program_bytes") == PLAIN[bits] + REST + 2 * 4 * 6400
    assert space.cost(architecture, "params") == space.cost(space.architecture({"bits": 32}), "params")


def test_a_shared_weight_is_stored_in_each_of_its_bits() -> None:
    rows, group = 6400 + 400, 3200 + 400
    for embed, head, stored, program in (
        ({"bits": 8}, {"bits": 8}, rows, 2 * rows),
        ({"bits": 8}, {"bits": 4, "scale_group": 32}, rows + group, rows + group),
        ({}, {"bits": 4, "scale_group": 32}, 4 * 6400 + group, 4 * 6400 + group),
    ):
        space = decoder(embed, head)
        architecture = space.architecture({"bits": 4})
        assert space.cost(architecture, "weight_bytes") == PLAIN[4] + REST + stored
        assert space.cost(architecture, "program_bytes") == PLAIN[4] + REST + program


@pytest.mark.parametrize(("bits", "size"), [(32, 4 * 32), (16, 2 * 32), (8, 32 + 4), (4, 16 + 4)])
def test_the_bits_of_a_cache_decide_its_bytes(bits: int, size: int) -> None:
    space = decoder({}, {}, cache_bits=bits)
    assert space.cost(space.sample(0), "cache_bytes") == 2 * 8 * size
