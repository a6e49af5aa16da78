"""Batches of a small table: batches, loss and quality against direct computations."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rankitect.data.ranking.batches import RankingBatches
from rankitect.errors import DataError, TrainingError
from rankitect.metrics.ranking import ranking_loss, ranking_quality
from rankitect.metrics.ranking_metrics import binary_entropy
from tests.metrics.tiny_ranking import Factorized, table


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(float(value)))

    def forward(self, numeric, ids):
        return self.value.expand(len(numeric), 1)


def test_every_row_once_an_epoch_in_any_order_of_asking():
    batches = RankingBatches(table(), batch=100, seed=3)
    assert batches.steps("train") == 10
    epoch = [batches.batch_at("train", step) for step in range(10)]
    assert [len(b) for b in epoch] == [100] * 9 + [60]
    assert sum(float(b.numeric[:, 0].double().sum()) for b in epoch) == pytest.approx(
        float(batches.table.split("train").numeric[:, 0].astype(float).sum())
    )
    again = batches.batch_at("train", 4)  # back
    torch.testing.assert_close(again.numeric, epoch[4].numeric)
    assert batches.batch_at("train", 4) is again  # a second model on the same batch
    second = batches.batch_at("train", 13)  # the next epoch has another order
    assert not torch.equal(second.numeric, epoch[3].numeric)
    other = RankingBatches(table(), batch=100, seed=3).batch_at("train", 13)
    torch.testing.assert_close(other.numeric, second.numeric)
    plain = batches.batch_at("train", 1, seed=None)
    np.testing.assert_array_equal(plain.label.numpy(), batches.table.split("train").labels[100:200])
    batches.close()


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_is_the_weighted_mean(weighted):
    batches = RankingBatches(table(weighted=weighted), batch=64)
    batch, model = batches.batch_at("train", 0), Factorized()
    each = F.binary_cross_entropy_with_logits(model(*batch.inputs)[:, 0], batch.label, reduction="none")
    expected = (each * batch.weight).sum() / batch.weight.sum() if weighted else each.mean()
    torch.testing.assert_close(ranking_loss(model, batch), expected)


def test_quality_of_the_base_rate_is_one():
    batches = RankingBatches(table())
    labels = batches.table.split("test").labels
    rate = float(labels.mean())
    model = Constant(np.log(rate / (1 - rate))).train()
    found = ranking_quality(model, batches, "test", batch=50)
    assert found.normalized_entropy == pytest.approx(1.0, abs=1e-6)
    assert found.log_loss == pytest.approx(binary_entropy(rate), abs=1e-6)
    assert found.auc == 0.5
    assert found.calibration == pytest.approx(1.0, abs=1e-6)
    assert found.rows == len(labels) == len(found.losses)
    assert model.training
    low, high = found.interval()
    assert low < 1 < high
    np.testing.assert_array_equal(found.groups, batches.table.split("test").groups)


@pytest.mark.parametrize("weighted", [False, True])
def test_quality_equals_a_direct_computation(weighted):
    batches = RankingBatches(table(weighted=weighted))
    split, model = batches.table.split("validation"), Factorized(1)
    found = ranking_quality(model, batches, "validation", batch=33)
    ids, numeric = torch.from_numpy(split.ids).long(), torch.from_numpy(split.numeric)
    with torch.no_grad():
        p = model(numeric, ids)[:, 0].double().sigmoid().numpy()
    losses = -np.where(split.labels == 1, np.log(p), np.log1p(-p))
    assert found.log_loss == pytest.approx(np.average(losses, weights=split.weights), rel=1e-6)
    rate = float(np.average(split.labels, weights=split.weights))
    assert found.normalized_entropy == pytest.approx(found.log_loss / binary_entropy(rate), rel=1e-6)
    np.testing.assert_allclose(found.losses, losses, rtol=1e-4)


def test_a_sample_of_batchesis_the_same_every_time():
    batches = RankingBatches(table(4000))
    one, two = (ranking_quality(Factorized(), batches, "test", rows=100, batch=64) for _ in range(2))
    assert 100 <= one.rows < 400
    np.testing.assert_array_equal(one.losses, two.losses)
    assert ranking_quality(Factorized(), batches, "test", rows=10**9).rows == 400


def test_differences_are_paired():
    batches = RankingBatches(table())
    good, bad = ranking_quality(Factorized(0), batches), ranking_quality(Constant(2.0), batches)
    found = good.minus(bad)
    assert found.value == pytest.approx(good.normalized_entropy - bad.normalized_entropy, abs=1e-6)
    assert found.interval()[1] < 0
    with pytest.raises(DataError, match="measure both on the same rows"):
        good.minus(ranking_quality(Constant(0), batches, "validation"))


def test_what_cannot_be_measured_is_told():
    data = table()
    data.splits["test"].labels[:] = 0
    batches = RankingBatches(data)
    with pytest.raises(DataError, match="clicks, test split has no clicks in 120 rows"):
        ranking_quality(Constant(0), batches)
    data.splits["validation"].labels[5] = 3
    with pytest.raises(DataError, match="label of row 5 is 3"):
        ranking_quality(Constant(0), batches, "validation")
    data.splits["validation"].labels[5] = 1
    with pytest.raises(TrainingError, match="row 0 is not finite"):
        ranking_quality(Constant(float("nan")), batches, "validation")
    with pytest.raises(TrainingError, match="one logit a row"):
        ranking_loss(lambda numeric, ids: numeric, batches.batch_at("train", 0))
    with pytest.raises(DataError, match="no split 'search'"):
        batches.steps("search")

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ranking_quality(Constant(0), batches, "test", check=stop)
