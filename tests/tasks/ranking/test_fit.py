"""Training of rankers: early stopping, online training, interruptions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from rankitect.data.ranking.batches import RankingBatches
from rankitect.errors import TrainingError
from rankitect.metrics.ranking import ranking_loss, ranking_quality
from rankitect.models.weights import ParameterHolder, looked_up
from rankitect.tasks.ranking.fit import FitConfig, fit, refit
from rankitect.training.embeddings import TableConfig
from rankitect.training.optimizer import OptimizerConfig
from tests.metrics.tiny_ranking import Factorized, table

FAST = OptimizerConfig(lr=0.05, schedule="constant", weight_decay=0.0)


def trained(config, seed=0, **more):
    model, data = Factorized(seed), RankingBatches(table(3000))
    return model, data, fit(model, data, config, **more)


def test_early_stopping_ends_with_the_best_weights():
    config = FitConfig(epochs=40, batch=100, evaluate_every=1, patience=2, optimizer=FAST)
    model, data, result = trained(config)
    assert result.finished
    assert result.steps < 40 * 24
    assert result.steps == result.best_step + 2 * 24
    assert result.examples == result.steps * 100
    assert result.evaluated == 300 * len(result.entropies)
    found = ranking_quality(model, data, "validation").normalized_entropy
    assert found == result.entropies[result.best_step] == min(result.entropies.values())
    assert found < 0.9
    assert not model.training


def test_a_refit_learns_from_every_row_of_both_splits():
    data = RankingBatches(table(3000, weighted=True))
    train, validation = data.table.split("train"), data.table.split("validation")
    whole = data.with_validation().table.split("train")
    assert whole.rows == train.rows + validation.rows == 2700
    for seed in (None, 3):
        seen = [whole.batch(step, 400, seed) for step in range(whole.steps(400))]
        ids = torch.cat([b.ids for b in seen])
        expected = np.concatenate([train.ids, validation.ids])
        order = np.arange(2700) if seed is None else np.random.default_rng([seed, 0]).permutation(2700)
        assert (ids.numpy() == expected[order]).all()
        labels = np.concatenate([train.labels, validation.labels])[order]
        assert (torch.cat([b.label for b in seen]).numpy() == labels).all()
        weights = np.concatenate([train.weights, validation.weights])[order]
        assert (torch.cat([b.weight for b in seen]).numpy() == weights).all()
    model, config = Factorized(0), FitConfig(batch=100, optimizer=FAST)
    assert refit(model, data, config, 2.0) == (5400, True)
    assert ranking_quality(model, data, "test").normalized_entropy < 0.95
    assert refit(Factorized(0), data, config, 2.0, should_stop=lambda: True) == (0, False)


@pytest.mark.parametrize("tables", [None, TableConfig()])
def test_a_refit_that_was_stopped_goes_on_and_ends_as_an_undisturbed_one(tmp_path, tables):
    data, file = RankingBatches(table(3000)), tmp_path / "refit.safetensors"
    config = FitConfig(batch=100, optimizer=FAST, tables=tables)
    undisturbed, resumed, polls, looks = Factorized(0), Factorized(0), iter(range(100)), []
    refit(undisturbed, data, config, 2.0)
    assert refit(Factorized(0), data, config, 2.0, should_stop=lambda: next(polls) >= 20, checkpoint=file)[1] is False
    done = refit(resumed, data, config, 2.0, progress=lambda step, *_: looks.append(step), checkpoint=file)
    assert (done, looks[0]) == ((5400, True), 21)
    assert all(torch.equal(a, b) for a, b in zip(undisturbed.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["adamw", "adagrad", "sgd"])
def test_every_optimizer_learns(kind):
    lr = {"adamw": 0.05, "adagrad": 0.2, "sgd": 5.0}[kind]
    optimizer = OptimizerConfig(kind=kind, lr=lr, schedule="constant", weight_decay=1e-4, clip=10.0)
    _, _, result = trained(FitConfig(epochs=4, batch=100, evaluate_every=1, optimizer=optimizer))
    assert min(result.entropies.values()) < 0.96


def test_one_pass_is_validated_before_it_learns():
    model, data = Factorized(), RankingBatches(table(3000, weighted=True))
    config = FitConfig(batch=100, one_pass=True, optimizer=FAST)
    with torch.no_grad():
        first = ranking_loss(model, data.batch_at("train", 0, batch=100, seed=None))
    losses = []
    result = fit(model, data, config, progress=lambda done, total, note: losses.append(note))
    progressive = result.progressive
    assert result.steps == result.best_step == 24
    assert result.examples == progressive.whole.rows == 2400
    assert losses[0].startswith(f"loss {float(first):.4f}")  # the rows' own order
    assert sum(part.rows for part in progressive.parts) == 2400
    assert progressive.whole.loss == pytest.approx(sum(part.loss for part in progressive.parts))
    assert progressive.parts[-1].normalized_entropy < progressive.parts[0].normalized_entropy
    with pytest.raises(TrainingError, match="keeps no checkpoint"):
        fit(model, data, config, checkpoint=data.table.folder / "none")


@pytest.mark.parametrize("stop_after", [7, 30, 60])
def test_an_interrupted_training_ends_as_an_undisturbed_one(tmp_path, stop_after):
    config = FitConfig(epochs=6, batch=100, evaluate_every=0.5, patience=2, optimizer=FAST)
    whole, _, expected = trained(config)
    model, data, steps = Factorized(), RankingBatches(table(3000)), []
    file = tmp_path / "state.safetensors"
    part = fit(model, data, config, checkpoint=file, progress=lambda done, total, note: steps.append(done),
               should_stop=lambda: len(steps) >= stop_after)  # fmt: skip
    assert part.finished == (expected.steps <= stop_after)
    model = Factorized(5)  # another process
    result = fit(model, RankingBatches(table(3000)), config, checkpoint=file)
    assert (result.steps, result.best_step, result.entropies) == (
        expected.steps, expected.best_step, expected.entropies)  # fmt: skip
    assert result.evaluated == expected.evaluated
    for a, b in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


class WithTable(Factorized):
    """Its users are a table that a storage can hold."""

    def __init__(self, seed=0):
        super().__init__(seed, width=4)
        self.users = ParameterHolder()
        self.users.register_parameter("table", self.user)
        del self.user

    def lookup_tables(self):
        return {"users.table": (self.users, "table")}

    def forward(self, numeric, ids):
        user = looked_up(self.users, "table", ids[:, 0])
        return (user * self.item[ids[:, 1]]).sum(1, keepdim=True) + numeric @ self.linear.T + self.bias


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_tables_on_their_storage_learn_as_dense_ones_and_resume(tmp_path, backend, schedule):
    """Adagrad of the touched rows is Adagrad of all rows, at the same rates, through an interruption."""
    optimizer = OptimizerConfig(kind="adagrad", lr=0.1, schedule=schedule, weight_decay=0.0, clip=None, eps=1e-6)
    config = FitConfig(epochs=2, batch=100, evaluate_every=0.5, optimizer=optimizer)
    held = replace(config, tables=TableConfig(backend, "adagrad", lr=0.1, eps=1e-6))
    models, entropies = [], []
    for each in (config, held):
        models.append(WithTable())
        entropies.append(fit(models[-1], RankingBatches(table(3000)), each).entropies)
    assert entropies[0] == pytest.approx(entropies[1], rel=1e-4)
    torch.testing.assert_close(models[0].users.table, models[1].users.table, rtol=1e-3, atol=1e-4)
    assert not models[1].users.stores  # given back
    file, steps = tmp_path / "state.safetensors", []
    fit(WithTable(), RankingBatches(table(3000)), held, checkpoint=file, should_stop=lambda: len(steps) >= 17,
        progress=lambda done, total, note: steps.append(done))  # fmt: skip
    again = WithTable(5)
    assert fit(again, RankingBatches(table(3000)), held, checkpoint=file).entropies == entropies[1]
    torch.testing.assert_close(again.users.table, models[1].users.table, rtol=0, atol=0)


def test_equal_seeds_give_equal_models_and_others_do_not():
    config = FitConfig(epochs=1, batch=64, optimizer=FAST)
    other = FitConfig(epochs=1, batch=64, optimizer=FAST, seed=1)
    one, two, three = (trained(c)[0].user.detach().numpy() for c in (config, config, other))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, three)


def test_wrong_settings_are_refused():
    for keys in ({"epochs": 0}, {"batch": 0}, {"evaluate_every": 0.0}, {"patience": 0}):
        with pytest.raises(TrainingError, match=next(iter(keys))):
            FitConfig(**keys)
    with pytest.raises(ValidationError, match="Input should be 'adamw', 'adagrad' or 'sgd'"):
        OptimizerConfig(kind="adam")
