"""Architectures that differ in one respect, and cost the same."""

from __future__ import annotations

import pytest

from rankitect.models.backbone import largest
from rankitect.search_spaces.mobile_llm import mobile_llm
from rankitect.tasks.language.contrasts import contrasts, spread

LAYERS = 30
SPACE = mobile_llm(
    vocab=64, layers=LAYERS, widths=(16,), kv_heads=(2, 1), group=(1,), ffn=(64, 48, 32, 16), runs=(1, 0), head=4
)
INFLUENCE = {f"layers.{i}": float((7 * i) % LAYERS) for i in range(LAYERS)}


def latency(architecture) -> float:
    return SPACE.cost(architecture, "flops", T=16)


def made():
    return {c.question.split()[0]: c.sides for c in contrasts(SPACE, largest(SPACE), latency, INFLUENCE)}


def test_depth_and_width_are_held_against_each_other_at_equal_latency() -> None:
    shallow, deep = made()["Shallow"].values()
    whole = latency(largest(SPACE))
    assert latency(shallow) / whole == pytest.approx(0.75, abs=0.02)
    assert latency(deep) / whole == pytest.approx(0.75, abs=0.02)
    dropped = [i for i in range(LAYERS) if shallow[f"layers.{i}.runs"] == 0]
    assert sorted(INFLUENCE[f"layers.{i}"] for i in dropped) == list(range(len(dropped)))
    assert all(deep[f"layers.{i}.runs"] == 1 for i in range(LAYERS))


def test_skips_windows_and_widths() -> None:
    skip, window, narrow = made()["Skip"].values()
    at = [i for i in range(LAYERS) if skip[f"layers.{i}.attn"] == "skip"]
    assert len(at) == 6
    assert at == [i for i in range(LAYERS) if window[f"layers.{i}.attn"] == "swa"]
    assert latency(narrow) == pytest.approx(latency(skip), rel=0.02)


def test_as_many_skips_alone_and_together_cost_the_same() -> None:
    sides = list(made()["How"].values())
    assert len(sides) == 3
    assert len({latency(a) for a in sides}) == 1


@pytest.mark.parametrize("row", [1, 2, 3])
def test_rows_are_apart_and_around_the_middle(row: int) -> None:
    found = spread(LAYERS, 6, row)
    assert found == sorted(set(found))
    assert sum(found) / 6 == pytest.approx((LAYERS - 1) / 2, abs=0.5)
    starts = [i for i in found if i - 1 not in found]
    assert len(starts) == 6 // row


def test_a_space_without_the_choices_has_no_questions() -> None:
    plain = mobile_llm(
        vocab=64, layers=4, widths=(16,), kv_heads=(1,), group=(1,), ffn=(64, 32), runs=(1,), patterns=("full",), head=4
    )
    assert not contrasts(plain, largest(plain), lambda a: plain.cost(a, "flops", T=16), {})
