"""The loop: it learns, resumes to the bit, guards against what is not finite, and says what is wrong."""

import functools
import math
import os
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from rankitect.errors import TrainingError
from rankitect.training.checkpoint import load_state, save_state
from rankitect.training.loop import TrainConfig, train
from rankitect.training.optimizer import GuardedOptimizer, OptimizerConfig, learning_rate


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.Dropout(0.1), nn.Linear(16, 1))


def batch_at(step):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    return torch.cat([x, x.sum(1, keepdim=True)], 1).unsqueeze(0)


def loss_fn(model, batch):
    return (model(batch[0, :, :4]) - batch[0, :, 4:]).square().mean()


CONFIG = TrainConfig(steps=12, optimizer=OptimizerConfig(lr=0.02, warmup=2), checkpoint_every=3)


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_training_learns_and_reports():
    model, seen = network(), []
    config = TrainConfig(steps=150, optimizer=OptimizerConfig(lr=0.02))
    result = train(model, loss_fn, batch_at, config, progress=lambda *report: seen.append(report))
    assert sum(result.losses[-10:]) < 0.2 * sum(result.losses[:10])
    assert (result.steps, result.tokens, result.skipped, result.finished) == (150, 150, 0, True)
    assert [(done, steps) for done, steps, _ in seen[:2]] == [(1, 150), (2, 150)]
    assert [report.loss for *_, report in seen] == result.losses
    assert not model.training


def test_same_seed_same_weights_and_the_callers_random_state_is_kept():
    one, other, third = network(), network(), network()
    torch.manual_seed(11)
    want = torch.rand(3)
    torch.manual_seed(11)
    train(one, loss_fn, batch_at, CONFIG)
    assert torch.equal(torch.rand(3), want)
    train(other, loss_fn, batch_at, CONFIG)
    train(third, loss_fn, batch_at, TrainConfig(12, CONFIG.optimizer, seed=1))
    assert equal(one, other)
    assert not equal(one, third)  # dropout draws from the seed


@pytest.mark.parametrize("stop_at", [1, 3, 5, 11])
def test_stopped_and_resumed_equals_undisturbed(tmp_path, stop_at):
    undisturbed, resumed, file = network(), network(), tmp_path / "state.safetensors"
    whole = train(undisturbed, loss_fn, batch_at, CONFIG)
    polls = iter(range(100))
    part = train(resumed, loss_fn, batch_at, CONFIG, checkpoint=file, should_stop=lambda: next(polls) == stop_at)
    assert (part.steps, part.finished) == (stop_at, False)
    fresh = network()
    rest = train(fresh, loss_fn, batch_at, CONFIG, checkpoint=file)
    assert equal(fresh, undisturbed)
    assert rest.losses == whole.losses
    assert (rest.steps, rest.tokens, rest.finished) == (12, whole.tokens, True)
    assert rest.seconds > part.seconds


def test_killed_between_checkpoints_goes_back_to_the_last(tmp_path):
    undisturbed, file = network(), tmp_path / "state.safetensors"
    train(undisturbed, loss_fn, batch_at, CONFIG)

    def killed(step):
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(network(), loss_fn, batch_at, CONFIG, checkpoint=file, before_step=killed)
    assert load_state(file)[1]["run"]["step"] == 6
    fresh, steps = network(), []
    train(fresh, loss_fn, batch_at, CONFIG, checkpoint=file, before_step=steps.append)
    assert steps == list(range(6, 12))
    assert equal(fresh, undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_finished_training_is_not_repeated(tmp_path):
    file, steps = tmp_path / "state.safetensors", []
    train(network(), loss_fn, batch_at, CONFIG, checkpoint=file)
    assert train(network(), loss_fn, batch_at, CONFIG, checkpoint=file, before_step=steps.append).steps == 12
    assert steps == []


def test_foreign_or_damaged_checkpoint_is_refused(tmp_path):
    file = tmp_path / "state.safetensors"
    train(network(), loss_fn, batch_at, CONFIG, checkpoint=file)
    with pytest.raises(TrainingError, match=r"by training with steps 12 and not 13: delete it"):
        train(network(), loss_fn, batch_at, TrainConfig(13, CONFIG.optimizer), checkpoint=file)
    other_data = {"data": "b", "loss": "cross-entropy"}
    with pytest.raises(TrainingError, match='data null and not "b", loss null and not "cross-entropy"'):
        train(network(), loss_fn, batch_at, CONFIG, checkpoint=file, provenance=other_data)
    tensors, info = load_state(file)
    save_state(file, {name: tensor.new_zeros(7) for name, tensor in tensors.items()}, info | {"run": {}})
    with pytest.raises(TrainingError, match="is a damaged training state"):
        train(network(), loss_fn, batch_at, CONFIG, checkpoint=file)
    save_state(file, {name: tensor for name, tensor in tensors.items() if "optimizer" in name}, info)
    with pytest.raises(TrainingError, match="is a damaged training state"):
        train(network(), loss_fn, batch_at, CONFIG, checkpoint=file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(TrainingError, match="is damaged"):
        train(network(), loss_fn, batch_at, CONFIG, checkpoint=file)


def test_training_goes_on_with_the_same_data_and_loss_only(tmp_path):
    file = tmp_path / "state.safetensors"
    polls = iter(range(100))
    train(network(), loss_fn, batch_at, CONFIG, checkpoint=file, should_stop=lambda: next(polls) == 5)
    saved = file.read_bytes()
    with pytest.raises(TrainingError, match="training on other data: its batch of step 5 was another"):
        train(network(), loss_fn, lambda step: batch_at(step + 1), CONFIG, checkpoint=file)
    with pytest.raises(TrainingError, match=r"the loss .*loss_fn.* and not .*other_loss"):
        train(network(), other_loss, batch_at, CONFIG, checkpoint=file)
    assert file.read_bytes() == saved
    assert train(network(), loss_fn, batch_at, CONFIG, checkpoint=file).finished


def other_loss(model, batch):
    return 2 * loss_fn(model, batch)


def scaled_loss(model, batch, scale=1.0):
    return scale * loss_fn(model, batch)


def closed_loss(scale):
    def loss(model, batch):
        return scale * loss_fn(model, batch)

    return loss


def wrapped_loss(loss):
    return functools.wraps(loss)(lambda model, batch: loss(model, batch))


def default_loss(factor):
    def loss(model, batch, *, scale=factor):
        return scale * loss_fn(model, batch)

    return loss


@dataclass(frozen=True)
class Loss:
    scale: Any

    def __call__(self, model, batch):
        return torch.as_tensor(self.scale).sum() * loss_fn(model, batch)

    def method(self, model, batch):
        return self(model, batch)


@pytest.mark.parametrize(
    "make",
    [
        lambda scale: functools.partial(scaled_loss, scale=scale),
        lambda scale: functools.partial(functools.partial(scaled_loss), scale=scale),
        closed_loss, default_loss, Loss,
        lambda scale: Loss(scale).method,
        lambda scale: Loss((scale, 1)),
        lambda scale: Loss(torch.tensor([scale, 1.0])),
        lambda scale: closed_loss(Scale.ONE if scale == 1.0 else Scale.TWO),
        lambda scale: wrapped_loss(closed_loss(scale)),
        lambda scale: functools.partial(closed_loss(scale)),
    ],
)  # fmt: skip
def test_losses_of_one_name_are_told_apart_by_what_they_were_given(tmp_path, make):
    file, polls = tmp_path / "state.safetensors", iter(range(100))
    train(network(), make(1.0), batch_at, CONFIG, checkpoint=file, should_stop=lambda: next(polls) == 5)
    with pytest.raises(TrainingError, match=r"what the loss was given .* and not "):
        train(network(), make(2.0), batch_at, CONFIG, checkpoint=file)
    assert train(network(), make(1.0), batch_at, CONFIG, checkpoint=file).finished


class Scale(float, Enum):
    ONE, TWO = 1.0, 2.0


def test_two_functions_in_the_same_partial_are_two_losses(tmp_path):
    file, polls = tmp_path / "state.safetensors", iter(range(100))
    partial = functools.partial
    train(network(), partial(loss_fn), batch_at, CONFIG, checkpoint=file, should_stop=lambda: next(polls) == 5)
    with pytest.raises(TrainingError, match=r"what the loss was given .*loss_fn.* and not .*other_loss"):
        train(network(), partial(other_loss), batch_at, CONFIG, checkpoint=file)


def test_what_changes_while_a_loss_is_used_is_no_part_of_it(tmp_path):
    file, polls, seen = tmp_path / "state.safetensors", iter(range(100)), []

    def loss(model, batch):
        seen.append(len(seen))
        return loss_fn(model, batch)

    train(network(), loss, batch_at, CONFIG, checkpoint=file, should_stop=lambda: next(polls) == 5)
    assert train(network(), loss, batch_at, CONFIG, checkpoint=file).finished


def test_a_state_of_before_is_gone_on_with_whatever_its_loss_was_given(tmp_path):
    file, polls = tmp_path / "state.safetensors", iter(range(100))
    train(network(), closed_loss(1.0), batch_at, CONFIG, checkpoint=file, should_stop=lambda: next(polls) == 5)
    tensors, info = load_state(file)
    del info["identity"]["what the loss was given"]
    save_state(file, tensors, info)
    assert train(network(), closed_loss(1.0), batch_at, CONFIG, checkpoint=file).finished


def test_any_flipped_byte_of_a_state_is_noticed(tmp_path):
    file = tmp_path / "state.safetensors"
    save_state(file, {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}, {"step": 3, "loss": 0.25})
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(TrainingError, match=r"is damaged: delete it, or go on with resume=force"):
            load_state(file)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(TrainingError, match="it is no file"):
        load_state(file)


def test_a_checkpoint_that_cannot_be_written_costs_no_training(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    model, undisturbed = network(), network()
    train(undisturbed, loss_fn, batch_at, CONFIG)
    where = tmp_path / "file" / "state.safetensors"
    result = train(model, loss_fn, batch_at, CONFIG, checkpoint=where, keep_finished=False)
    assert result.finished
    assert equal(model, undisturbed)
    assert "training goes on without it" in caplog.text


def test_checkpoints_keep_their_distance_in_time_and_finished_training_may_keep_none(tmp_path):
    file = tmp_path / "state.safetensors"
    rarely = TrainConfig(steps=12, optimizer=CONFIG.optimizer, checkpoint_every=1, checkpoint_seconds=3600.0)
    train(network(), loss_fn, batch_at, rarely, checkpoint=file, keep_finished=False)
    assert not file.exists()
    stopped = train(network(), loss_fn, batch_at, rarely, checkpoint=file, should_stop=lambda: True)
    assert not stopped.finished
    assert file.exists()


def test_state_file_survives_a_failed_write(tmp_path):
    file = tmp_path / "state.safetensors"
    save_state(file, {"x": torch.ones(2)}, {"n": 1})
    with pytest.raises(TypeError):
        save_state(file, {"x": torch.zeros(2)}, {"n": object()})
    tensors, info = load_state(file)
    assert (tensors["x"].tolist(), info) == ([1, 1], {"n": 1})


def test_loss_that_is_not_finite_skips_the_step_and_halves_the_rate():
    model, rates = network(), []

    def sometimes(model, batch):
        return loss_fn(model, batch) * (math.nan if len(rates) in (2, 5) else 1.0)

    config = TrainConfig(steps=8, optimizer=OptimizerConfig(lr=0.01, schedule="constant", retries=2))
    result = train(model, sometimes, batch_at, config, progress=lambda done, steps, report: rates.append(report.lr))
    assert rates == pytest.approx([0.01] * 3 + [0.005] * 3 + [0.0025] * 2)
    assert result.skipped == 2
    assert [math.isnan(loss) for loss in result.losses] == [i in (2, 5) for i in range(8)]
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize(("factor", "what"), [(math.nan, "loss"), (math.inf, "loss")])
def test_loss_that_stays_not_finite_names_step_and_rate(factor, what):
    model = network()
    before = [parameter.clone() for parameter in model.parameters()]
    config = TrainConfig(steps=9, optimizer=OptimizerConfig(lr=0.016, schedule="constant", retries=3))
    message = rf"the {what} is not finite at step 4 \(learning rate 0.002, already halved 3 times\)"
    with pytest.raises(TrainingError, match=message):
        train(model, lambda model, batch: loss_fn(model, batch) * factor, batch_at, config)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_gradient_that_is_not_finite_is_caught():
    weight = nn.Parameter(torch.zeros(()))
    optimizer = GuardedOptimizer({"weight": weight}, OptimizerConfig(retries=0), 10)
    with pytest.raises(TrainingError, match="the gradient is not finite at step 1 "):
        optimizer.step(weight.sqrt(), 0)


def test_schedules_warm_up_and_fall_to_their_end():
    linear = OptimizerConfig(lr=1.0, warmup=4)
    assert [learning_rate(linear, step, 8) for step in range(8)] == [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]
    cosine = OptimizerConfig(lr=1.0, schedule="cosine", final_lr=0.1)
    assert learning_rate(cosine, 0, 10) == 1
    assert learning_rate(cosine, 5, 10) == pytest.approx(0.55)
    assert learning_rate(cosine, 10, 10) == pytest.approx(0.1)
    assert learning_rate(OptimizerConfig(lr=1.0, schedule="constant"), 9, 10) == 1


def test_gradient_is_clipped_and_vectors_do_not_decay():
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    settings = OptimizerConfig(lr=0.1, schedule="constant", weight_decay=0.5, betas=(0.0, 0.0), eps=1e-3, clip=1.0)
    optimizer = GuardedOptimizer({"matrix": matrix, "vector": vector}, settings, 10)
    report = optimizer.step(matrix.sum() * 0 + vector.sum() * 0, 0)
    assert report.grad_norm == 0
    assert torch.equal(vector.detach(), torch.ones(2))
    torch.testing.assert_close(matrix.detach(), torch.full((2, 2), 0.95))
    report = optimizer.step(1000 * vector.sum(), 1)
    assert report.grad_norm == pytest.approx(1000 * 2**0.5)
    clipped = 0.5**0.5
    torch.testing.assert_close(vector.detach(), torch.full((2,), 1 - 0.1 * clipped / (clipped + 1e-3)))


def test_parameter_without_gradient_keeps_its_value():
    model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    unused = model[1].weight.clone()
    train(model, lambda model, batch: model[0](batch).square().mean(), lambda step: torch.ones(1, 2), CONFIG)
    assert torch.equal(model[1].weight, unused)


def test_shared_parameters_are_saved_once(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(4, 4), nn.Linear(4, 4, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(self.embed(ids))

    file = tmp_path / "state.safetensors"
    model = Tied()
    config = TrainConfig(steps=2)
    train(model, lambda m, b: m(b[:, :-1]).square().mean(), lambda step: torch.ones(1, 3, dtype=torch.long), config,
          checkpoint=file)  # fmt: skip
    other = Tied()
    train(other, lambda m, b: m(b[:, :-1]).square().mean(), lambda step: None, config, checkpoint=file)
    assert torch.equal(model.embed.weight, other.head.weight)
    assert sorted(name for name in load_state(file)[0] if name.startswith("model/")) == ["model/embed.weight"]


def test_nothing_to_train_and_wrong_settings_are_refused():
    model = network().requires_grad_(False)
    with pytest.raises(TrainingError, match="nothing to train"):
        train(model, loss_fn, batch_at, CONFIG)
    with pytest.raises(ValidationError, match=r"lr\n  Input should be greater than 0 .*input_value=-1"):
        OptimizerConfig(lr=-1)
    with pytest.raises(ValidationError, match=r"schedule\n  Input should be 'linear', 'cosine' or 'constant'"):
        OptimizerConfig(schedule="step")
    with pytest.raises(TrainingError, match="steps must be at least 0"):
        TrainConfig(steps=-1)
