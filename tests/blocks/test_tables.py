"""The embedding tables of a ranker against lookups written out here."""

from __future__ import annotations

import pytest
import torch

from rankitect.blocks import FlatLinear, Tables
from rankitect.blocks.tables import columns_of
from rankitect.errors import SpaceError
from rankitect.graph import B, Graph, SearchSpace
from rankitect.models.supernet import Supernet
from tests.blocks.test_blocks import alone, weights

ROWS, SLOTS = (4, 6, 3), (1, 3, 1)


def lookup(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """One example, one feature, one slot at a time."""
    out = torch.zeros(len(ids), len(ROWS), table.shape[1])
    for b, row in enumerate(ids.tolist()):
        column = 0
        for f, slots in enumerate(SLOTS):
            for i in row[column : column + slots]:
                if i >= 0:
                    out[b, f] += table[sum(ROWS[:f]) + i]
            column += slots
    return out


def test_slots_are_summed_and_padding_is_left_out() -> None:
    model = alone(Tables(ROWS, SLOTS, 2), [(B, 5)], "int")
    ids = torch.tensor([[3, 5, 0, -1, 2], [0, -1, -1, -1, 0], [1, 2, 2, 2, 1]])
    torch.testing.assert_close(model(ids), lookup(weights(model)["table"], ids))
    assert model(ids)[1, 1].tolist() == [0, 0]


def test_single_slots_are_rows() -> None:
    model = alone(Tables((4, 6), (1, 1), 3), [(B, 2)], "int")
    ids = torch.tensor([[3, 5], [0, 0]])
    assert torch.equal(model(ids), weights(model)["table"][ids + torch.tensor([0, 4])])


@pytest.mark.parametrize("columns", [(2, 3), (3, 0)])
def test_a_table_takes_its_own_columns(columns: tuple[int, ...]) -> None:
    model = alone(Tables((5, 5), (1, 1), 2, columns), [(B, 4)], "int")
    ids = torch.tensor([[1, 9, 2, 3], [0, 9, 4, 1]])
    assert torch.equal(model(ids), weights(model)["table"][ids[:, list(columns)] + torch.tensor([0, 5])])
    assert columns_of((2, 1, 3), (0, 2)) == (0, 1, 3, 4, 5)


def test_a_narrower_embedding_is_the_start_of_each_row() -> None:
    g = Graph("widths")
    width = g.choice("width", [4, 2])
    g.out = FlatLinear(1)(Tables((5,), (1,), width)(g.input("ids", B, 1, dtype="int"), name="tables"), name="head")
    space = SearchSpace(g)
    supernet, narrow = Supernet(space), space.architecture(width=2)
    alone_ = supernet.extract(narrow)
    assert alone_.state_dict()["tables.table"].shape == (5, 2)
    assert torch.equal(alone_.state_dict()["tables.table"], supernet.weights.get_parameter("tables.table")[:, :2])
    assert [space.cost(narrow, kind) for kind in ("table_rows", "table_bytes", "flops")] == [5, 40, 4]


def test_a_wide_part_starts_at_zero() -> None:
    model = alone(Tables((5,), (1,), 1, init="zeros"), [(B, 1)], "int")
    assert not weights(model)["table"].any()


def test_mistakes_are_named() -> None:
    g = Graph("wrong")
    ids = g.input("ids", B, 3, dtype="int")
    with pytest.raises(SpaceError, match=r"axis S is 2 .* but 3 on input 0"):
        Tables((5, 5), (1, 1), 2)(ids)
    with pytest.raises(SpaceError, match="there is no column 3 among 3"):
        Tables((5, 5), (1, 1), 2, (0, 3))(ids)
    with pytest.raises(SpaceError, match="1 numbers of rows for 2 numbers of slots"):
        Tables((5,), (1, 1), 2)
    with pytest.raises(SpaceError, match="at least one row and one slot"):
        Tables((0,), (1,), 2)
    with pytest.raises(SpaceError, match="1 columns for 2 slots"):
        Tables((5,), (2,), 2, (0,))


def test_a_table_can_be_exported() -> None:
    model = alone(Tables((4, 6), (1, 1), 3), [(B, 2)], "int")
    ids = torch.tensor([[3, 5], [0, 0]])
    assert torch.equal(torch.export.export(model, (ids,)).module()(ids), model(ids))


def test_ids_that_were_changed_are_looked_up_anew() -> None:
    model = alone(Tables(ROWS, SLOTS, 2), [(B, 5)], "int")
    table = weights(model)["table"]
    ids = torch.tensor([[3, 5, 0, -1, 2], [0, -1, -1, -1, 0]])
    for change in ([0, 5, 0, -1, 2], [3, -1, -1, 2, 1]):
        before = model(ids)
        ids[0] = torch.tensor(change)
        assert not torch.equal(model(ids), before)
        torch.testing.assert_close(model(ids), lookup(table, ids))
    with torch.inference_mode():
        fresh = ids.clone()
        torch.testing.assert_close(model(fresh), lookup(table, fresh))
        fresh[0] = torch.tensor([1, 1, 1, 1, 1])
        torch.testing.assert_close(model(fresh), lookup(table, fresh))
