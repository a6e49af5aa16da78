"""Tables under either backend learn the same, change only when they should, and stay the model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rankitect.blocks import FlatLinear, Tables
from rankitect.errors import SpaceError, TrainingError
from rankitect.graph import B, Graph, SearchSpace
from rankitect.models.memory import LIMIT_VARIABLE
from rankitect.models.supernet import Standalone, Supernet, build
from rankitect.training import embeddings
from rankitect.training.embeddings import TableConfig, TableStorage, table_memory

NAME = "tables.table"
fused = pytest.mark.skipif(not embeddings.torchrec_installed(), reason="torchrec is not installed")
BACKENDS = ["torch", pytest.param("torchrec", marks=fused)]
RULES = ["sgd", "adagrad", "rowwise_adagrad"]


def space(slots: tuple[int, ...] = (1, 3), width: Any = 4) -> SearchSpace:
    g = Graph("small")
    ids = g.input("ids", B, sum(slots), dtype="int")
    width = g.choice("width", width) if isinstance(width, list) else width
    g.out = FlatLinear(1)(Tables((20, 10), slots, width)(ids, name="tables"), name="head")
    return SearchSpace(g)


def model_of(made: SearchSpace) -> Standalone:
    return build(made, made.sample(0), seed=3)


def batch(step: int, slots: tuple[int, ...] = (1, 3)) -> torch.Tensor:
    draw = torch.Generator().manual_seed(step)
    first = torch.randint(20, (16, slots[0]), generator=draw)
    rest = torch.randint(10, (16, slots[1]), generator=draw)
    if slots[1] > 1:
        rest[torch.rand(rest.shape, generator=draw) < 0.4] = -1
    return torch.cat([first, rest], 1)


def reference(rule: str, model: Standalone, steps: int, lr: float, slots: tuple[int, ...]) -> torch.Tensor:
    """Dense gradients, and the rules as their papers write them."""
    table = model.get_parameter(NAME)
    rowwise = rule == "rowwise_adagrad"
    total = torch.zeros(len(table), 1 if rowwise else table.shape[1])
    for step in range(steps):
        model.zero_grad()
        model(batch(step, slots)).square().sum().backward()
        assert table.grad is not None
        grad = table.grad
        square = grad.square()
        total += square.mean(1, keepdim=True) if rowwise else square
        with torch.no_grad():
            table -= lr * (grad if rule == "sgd" else grad / (total.sqrt() + 1e-8))
    return table.detach()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("slots", [(1, 1), (1, 3)], ids=["single", "multi-hot"])
def test_backends_learn_what_dense_gradients_teach(backend: Any, rule: Any, slots: tuple[int, ...]) -> None:
    made = space(slots)
    expected = reference(rule, model_of(made), 4, 0.1, slots)
    model = model_of(made)
    storage = TableStorage(model, TableConfig(backend, rule, lr=0.1))
    assert storage.backends == {NAME: backend}
    for step in range(4):
        model(batch(step, slots)).square().sum().backward()
        assert model.get_parameter(NAME).grad is None
    torch.testing.assert_close(model.get_parameter(NAME).detach(), expected, rtol=1e-4, atol=1e-6)
    assert set(storage.dense_parameters()) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_frozen_lookups_pass_gradients_and_change_nothing(backend: Any) -> None:
    model = model_of(space())
    storage = TableStorage(model, TableConfig(backend, "sgd", lr=0.1))
    before = model.get_parameter(NAME).detach().clone()
    with storage.frozen():
        output = model(batch(0))
    output.square().sum().backward()
    assert model.get_parameter("head.weight").grad is not None
    model.requires_grad_(False)
    other = model(batch(0))
    assert not other.requires_grad
    assert torch.equal(other, output)
    model.requires_grad_(True)
    with torch.no_grad():
        assert torch.equal(model(batch(0)), output)
    assert torch.equal(model.get_parameter(NAME), before)
    trained = model(batch(0))
    torch.testing.assert_close(trained, output)
    trained.square().sum().backward()
    assert not torch.equal(model.get_parameter(NAME), before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rate_holds_from_when_it_is_set(backend: Any) -> None:
    moved = []
    for rate in (0.1, 0.2):
        model = model_of(space())
        storage = TableStorage(model, TableConfig(backend, "sgd", lr=0.1))
        storage.set_lr(rate)
        before = model.get_parameter(NAME).detach().clone()
        model(batch(0)).sum().backward()
        moved.append(model.get_parameter(NAME).detach() - before)
    torch.testing.assert_close(moved[1], 2 * moved[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_supernet_trains_its_tables_through_what_is_activated(backend: Any) -> None:
    made = space(width=[4, 8])
    supernet = Supernet(made, seed=2)
    TableStorage(supernet, TableConfig(backend, "adagrad", lr=0.1))
    table = supernet.get_parameter("weights.tables.table")
    before = table.detach().clone()
    narrow = made.architecture(width=4)
    supernet.activate(narrow)(batch(0)).square().sum().backward()
    assert torch.equal(table[:, 4:], before[:, 4:])
    assert not torch.equal(table[:, :4], before[:, :4])
    alone = supernet.extract(narrow)
    assert torch.equal(alone(batch(1)), supernet.activate(narrow)(batch(1)))
    assert not alone.lookup_tables()[NAME][0].stores


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_is_saved_and_rebuilt_as_plain_torch(backend: Any, tmp_path: Path) -> None:
    model = model_of(space())
    storage = TableStorage(model, TableConfig(backend, "sgd", lr=0.1))
    model(batch(0)).sum().backward()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "model.safetensors")
    plain = build(space(), space().sample(0), seed=9)
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert set(plain.state_dict()) == {NAME, "head.weight", "head.bias"}
    torch.testing.assert_close(plain(batch(1)), model(batch(1)))
    storage.release()
    model(batch(1)).sum().backward()
    assert model.get_parameter(NAME).grad is not None
    model.load_state_dict(plain.state_dict())


@fused
@pytest.mark.parametrize("rule", ["adagrad", "rowwise_adagrad"])
def test_training_goes_on_under_another_backend(rule: Any) -> None:
    made, found = space(), []
    for second in ("torchrec", "torch"):
        model = model_of(made)
        storage = TableStorage(model, TableConfig("torchrec", rule, lr=0.1))
        model(batch(0)).square().sum().backward()
        state = {k: v.clone() for k, v in storage.state().items()}
        assert list(state) == [f"sum/{NAME}"]
        storage.release()
        again = TableStorage(model, TableConfig(second, rule, lr=0.1))  # type: ignore[arg-type]
        again.load_state(state)
        model(batch(1)).square().sum().backward()
        found.append(model.get_parameter(NAME).detach())
        with pytest.raises(TrainingError, match="another model or optimizer"):
            again.load_state({})
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_adam_moves_the_rows_of_a_batch() -> None:
    model = model_of(space())
    storage = TableStorage(model, TableConfig("auto", "adam", lr=0.1))
    assert storage.backends == {NAME: "torch"}
    before = model.get_parameter(NAME).detach().clone()
    ids = torch.tensor([[3, 1, -1, -1]])
    model(ids).sum().backward()
    changed = (model.get_parameter(NAME) != before).any(1).nonzero().flatten()
    assert changed.tolist() == [3, 21]
    state = {k: v.clone() for k, v in storage.state().items()}
    storage.load_state(state)
    assert float(state[f"step/{NAME}"]) == 1


def test_without_torchrec_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "torchrec_installed", lambda: False)
    assert TableStorage(model_of(space()), TableConfig()).backends == {NAME: "torch"}
    with pytest.raises(TrainingError, match="needs torchrec and fbgemm, which are not installed"):
        TableStorage(model_of(space()), TableConfig("torchrec"))


@fused
@pytest.mark.parametrize("rule", ["sgd", "adagrad"])
@pytest.mark.parametrize("width", [1, 3, 6])
def test_tables_of_any_width_are_held_by_the_fused_kernel(rule: Any, width: int) -> None:
    slots, made = (1, 3), space(width=width)
    expected = reference(rule, model_of(made), 3, 0.1, slots)
    model = model_of(made)
    storage = TableStorage(model, TableConfig("torchrec", rule, lr=0.1))
    assert storage.backends == {NAME: "torchrec"}
    for step in range(2):
        model(batch(step, slots)).square().sum().backward()
    saved, state = model.state_dict(), {k: v.clone() for k, v in storage.state().items()}
    assert saved[NAME].shape == (30, width)
    assert all(v.shape == (30, width) for v in state.values())
    other = model_of(made)
    other.load_state_dict({k: v.clone() for k, v in saved.items()})
    again = TableStorage(other, TableConfig("torch", rule, lr=0.1))
    again.load_state(state)
    for each in (model, other):
        each(batch(2, slots)).square().sum().backward()
        torch.testing.assert_close(each.get_parameter(NAME).detach(), expected, rtol=1e-4, atol=1e-6)
    storage.release()
    assert model.get_parameter(NAME).is_contiguous()
    torch.testing.assert_close(model(batch(3)), other(batch(3)))


def test_row_wise_adagrad_keeps_tables_of_odd_width_with_torch() -> None:
    assert TableStorage(model_of(space(width=3)), TableConfig()).backends == {NAME: "torch"}


def test_what_does_not_fit_is_refused_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    g = Graph("large")
    ids = g.input("ids", B, 1, dtype="int")
    g.out = FlatLinear(1)(Tables((10**12,), (1,), 16)(ids, name="tables"))
    large = SearchSpace(g)
    with pytest.raises(SpaceError, match=r"needs 59,604\.6 GiB, but only .* available \(tables\.table 59,604\.6 GiB"):
        build(large, large.sample(0))
    assert table_memory(large, large.sample(0), TableConfig(optimizer="rowwise_adagrad")) == 10**12 * 68
    model = model_of(space())
    monkeypatch.setenv(LIMIT_VARIABLE, "0.0000001")
    with pytest.raises(SpaceError, match="Training the embedding tables needs"):
        TableStorage(model, TableConfig(optimizer="adagrad"))
    monkeypatch.setenv(LIMIT_VARIABLE, "many")
    with pytest.raises(SpaceError, match="must be a number of GiB, found 'many'"):
        model_of(space())


def test_mistakes_are_named() -> None:
    with pytest.raises(TrainingError, match="torchrec has no Adam on a CPU"):
        TableConfig("torchrec", "adam")
    with pytest.raises(TrainingError, match="optimizer must be one of sgd, adagrad"):
        TableConfig(optimizer="lion")  # type: ignore[arg-type]
    model = model_of(space())
    TableStorage(model, TableConfig("torch"))
    with pytest.raises(TrainingError, match=r"tables\.table is held already"):
        TableStorage(model, TableConfig("torch"))
