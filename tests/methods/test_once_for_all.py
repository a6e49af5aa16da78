"""Once-for-all training: schedules, weights of losses, the guard, and going on after a stop."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankitect.contracts import StopRequested
from rankitect.errors import ConfigError, TrainingError
from rankitect.methods.bounded_space import BoundedSpace
from rankitect.methods.once_for_all.guard import SpikeGuard
from rankitect.methods.once_for_all.opening import Opening, roles
from rankitect.methods.once_for_all.schedule import Schedule
from rankitect.methods.once_for_all.settings import OnceForAllConfig
from rankitect.methods.once_for_all.training import OnceForAllTraining, scheduled
from rankitect.methods.shared_weights import USUAL_FALL, CoTraining, usual_optimizer
from rankitect.methods.supernet_search import STATE, Draws
from rankitect.methods.teaching import Lesson, likeness
from rankitect.training.optimizer import OptimizerConfig, learning_rate
from tests.controllers import planted
from tests.controllers.planted import SPACE, Regression

SGD = {"weight_lr": 1e-3, "optimizer": {"kind": "sgd", "warmup": 2}}
OPS = [path for path in SPACE.choices if path.endswith("op")]
SMALL: dict[str, Any] = {
    "steps": 24, "weight_lr": 0.02, "delay": 0.5, "ramp": 0.25, "checkpoint_every": 1, "nets": 3,
}  # fmt: skip


def session(folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    study = planted.session(folder)
    study.scalars = {}
    study.scalar = lambda name, value, step: study.scalars.setdefault(name, {}).__setitem__(step, value)
    study.logger = logging.getLogger("rankitect.tests")
    return study


class Narrow(Regression):
    """Within constraints that the largest network of the space breaks."""

    def limits(self) -> dict[str, tuple[float, float]]:
        return {"flops": (0.0, 0.6 * SPACE.cost(self.reference, "flops"))}


def training(task: Regression, folder: Path, **keys: Any) -> OnceForAllTraining:
    folder.mkdir(exist_ok=True)
    config = OnceForAllConfig(**{**SMALL, **keys})
    return OnceForAllTraining(config, planted.bounded(task), task, task.supernet(SPACE), 0, folder)


def weights_of(training: OnceForAllTraining) -> dict[str, torch.Tensor]:
    return {n: w.detach().clone() for n, w in training.weights.supernet.weights.named_parameters()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())


# --- the weight of a loss ---------------------------------------------------------------------------------------------
@given(
    steps=st.integers(20, 400),
    delay=st.floats(0, 0.9),
    ramp=st.floats(0.05, 0.1),
    weight=st.floats(0.1, 2),
    shape=st.sampled_from(["linear", "cosine"]),
)
def test_the_effective_rate_of_the_others_rises_linearly(
    steps: int, delay: float, ramp: float, weight: float, shape: Any
) -> None:
    optimizer = OptimizerConfig(lr=0.3, schedule=shape, final_lr=0.05)
    schedule = Schedule("deps", steps, optimizer, delay=delay, ramp=ramp, weight=weight)
    begin, end = round(delay * steps), round(delay * steps) + round(ramp * steps)
    assert (schedule.switch, schedule.ramped) == (begin, end)
    target = weight * learning_rate(optimizer, end, steps)
    for step in range(steps):
        assert schedule.lr(step) == learning_rate(optimizer, step, steps)
        effective = schedule.weight(step) * schedule.lr(step)
        if step < begin:
            assert effective == 0
        elif step < end:
            assert effective == pytest.approx(target * (step - begin + 1) / (end - begin))
        else:
            assert schedule.weight(step) == weight


def test_other_schedules_let_the_others_in_at_once() -> None:
    optimizer = OptimizerConfig(lr=1.0, schedule="cosine", final_lr=0.01, warmup=2)
    sandwich = Schedule("sandwich", 40, optimizer, delay=0.5)
    assert [sandwich.weight(step) for step in (0, 39)] == [1.0, 1.0]
    late = Schedule("late", 40, optimizer, delay=0.5, restart=0.3)
    assert [late.weight(step) for step in (19, 20)] == [0.0, 1.0]
    assert late.lr(19) < 0.02, "the largest is trained to the end of its own schedule"
    assert max(late.lr(step) for step in range(20, 40)) == pytest.approx(0.3)
    progressive = Schedule("progressive", 40, optimizer, delay=0.4, restart=0.3, phases=3)
    assert [s.opened for s in progressive.segments] == [0, 1, 2, 3]
    assert [s.end for s in progressive.segments] == [16, 24, 32, 40]
    assert progressive.segment(30).opened == 2


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"delay": 0.9, "ramp": 0.2}, "controller.delay=0.9 and controller.ramp=0.2 are shares of all steps"),
        ({"delay": 0.5, "ramp": 0.5, "optimizer": {"final_lr": 0}}, "come in at the rate of the last step, and that"),
    ],
)
def test_a_ramp_over_which_nobody_comes_in_is_refused(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        scheduled(OnceForAllConfig(**{**SMALL, **keys}), Regression())
    fine = [{"delay": 1.0}, {"delay": 0.7, "ramp": 0.3}, {**keys, "schedule": "sandwich"}, {**keys, "schedule": "late"}]
    for each in fine:
        schedule, _ = scheduled(OnceForAllConfig(**{**SMALL, **each}), Regression())
        assert schedule.ramped <= schedule.steps


def test_shares_that_are_rounded_on_their_own_do_not_end_after_the_training() -> None:
    schedule = Schedule("deps", 3, OptimizerConfig(lr=1.0, final_lr=0.1), delay=0.5, ramp=0.5)
    assert (schedule.switch, schedule.ramped) == (2, 3)
    assert schedule.weight(2) * schedule.lr(2) == pytest.approx(0.1)


def test_what_is_left_open_of_an_optimiser_is_the_usual_one() -> None:
    usual = usual_optimizer(Regression(), 0.1, 40, "sgd")
    _, ours = scheduled(OnceForAllConfig(steps=40, weight_lr=0.1, optimizer={"kind": "sgd"}), Regression())  # type: ignore[arg-type]
    assert ours == usual.model_copy(update={"schedule": "cosine", "final_lr": 0.01})
    keys = {"kind": "sgd", "momentum": 0.5, "clip": 2.0, "warmup": 30, **USUAL_FALL}
    _, ours = scheduled(OnceForAllConfig(steps=40, weight_lr=0.1, optimizer=keys), Regression())  # type: ignore[arg-type]
    assert ours == usual.model_copy(update={"momentum": 0.5, "clip": 2.0, "warmup": 20})


def test_without_a_weight_the_largest_is_trained_alone_to_the_bit(tmp_path: Path) -> None:
    ours = training(Regression(), tmp_path / "ours", weight=0.0, **SGD)
    ours.run(session(tmp_path / "ours"))
    task = Regression()
    supernet = task.supernet(SPACE)
    optimizer = ours.weights.optimizer.config
    assert (optimizer.kind, optimizer.momentum, optimizer.nesterov, optimizer.clip) == ("sgd", 0.9, True, None)
    alone = CoTraining(supernet, task, 1e-3, 24, optimizer=optimizer, rate=ours.schedule.lr)
    largest = Draws(planted.bounded(task), 0).largest
    for step in range(24):
        alone.step(largest, step)
    assert_equal(weights_of(ours), {n: w.detach() for n, w in supernet.weights.named_parameters()})


def test_a_weighted_loss_scales_the_update_of_plain_sgd() -> None:
    task, optimizer = (
        Regression(),
        OptimizerConfig(kind="sgd", lr=0.1, clip=None, weight_decay=0.0, schedule="constant"),
    )
    largest, other = Draws(planted.bounded(task), 0).largest, SPACE.sample(5)

    def moved(lesson: Lesson) -> dict[str, torch.Tensor]:
        weights = CoTraining(task.supernet(SPACE), task, 0.1, 4, optimizer=optimizer)
        before = {n: w.detach().clone() for n, w in weights.supernet.weights.named_parameters()}
        weights.step_together(lesson, 0)
        return {n: w.detach() - before[n] for n, w in weights.supernet.weights.named_parameters()}

    both = moved(Lesson([largest, other], [1.0, 0.25]))
    one, two = moved(Lesson([largest], [1.0])), moved(Lesson([other], [1.0]))
    for name, change in both.items():
        torch.testing.assert_close(change, one[name] + 0.25 * two[name], atol=1e-6, rtol=1e-5)


def test_a_temperature_softens_both_and_keeps_the_size_of_gradients() -> None:
    logits, teacher = torch.randn(6, 5, requires_grad=True), torch.randn(6, 5)
    value = likeness(logits, teacher, 3.0)
    soft = -(teacher / 3).softmax(-1) * (logits / 3).log_softmax(-1)
    torch.testing.assert_close(value, 9 * soft.sum(-1).mean())
    value.backward()
    torch.testing.assert_close(logits.grad, 3 * ((logits / 3).softmax(-1) - (teacher / 3).softmax(-1)).detach() / 6)


@pytest.mark.parametrize("kind", [Regression, Narrow])
def test_units_are_in_the_order_of_their_importance_when_the_others_come_in(
    kind: type[Regression], tmp_path: Path
) -> None:
    task = kind()
    ours = training(task, tmp_path, **SGD)
    largest, begin, losses = Draws(planted.bounded(task), 0).largest, ours._begin, []

    def loss() -> float:
        with torch.no_grad():
            return task.quality(ours.weights.supernet.activate(largest))

    def looked(step: int) -> None:
        before, weights = loss(), weights_of(ours)
        begin(step)
        moved = any(not torch.equal(w, weights[name]) for name, w in weights_of(ours).items())
        losses.append((step, before, loss(), moved))

    ours._begin = looked  # type: ignore[method-assign]
    ours.run(session(tmp_path))
    assert [step for step, _, _, moved in losses if moved] == [ours.schedule.switch] == [12]
    assert all(after == pytest.approx(before, rel=1e-5) for _, before, after, _ in losses)
    fresh = training(kind(), tmp_path / "fresh")
    fresh._sort()
    used = [path for path in OPS if largest[path] != "none"]
    readers = {f"{path}.{largest[path]}.down": largest[path.replace("op", "width")] for path in used}
    assert readers
    for owner, width in readers.items():
        reader = fresh.weights.supernet.weights.owner(owner).get_parameter("weight")
        importance = reader.detach()[:, :width].abs().sum(0)
        assert torch.equal(importance, importance.sort(descending=True).values), "of what the largest network has"
    assert (kind is Regression) == all(width == 8 for width in readers.values())


# --- whose turn it is -------------------------------------------------------------------------------------------------
def test_the_others_learn_from_the_largest_alone(tmp_path: Path) -> None:
    ours = training(Regression(), tmp_path, nets=4)
    assert ours.lesson(11).architectures == ours.lesson(0).architectures
    lesson = ours.lesson(20)
    draws = Draws(planted.bounded(Regression()), 0)
    assert list(lesson.architectures[:2]) == [draws.largest, draws.smallest]
    assert len(lesson.architectures) == 4
    assert (lesson.weights, lesson.distil) == ([1.0] * 4, 1.0)
    assert 0 < ours.lesson(12).weights[1] < ours.lesson(13).weights[1] < 1  # type: ignore[index]


def test_choices_are_opened_in_phases_from_the_largest_value_down() -> None:
    largest = Draws(BoundedSpace(SPACE, {}), 0).largest
    assert roles(SPACE) == [["op"], ["width"]]
    opening = Opening(BoundedSpace(SPACE, {}), largest, [["width"], ["op"]])
    assert opening.count == 4
    drawn = SPACE.sample_many(200, 1)

    def open_values(opened: int, word: str) -> list[set[Any]]:
        """By choice, the values that there are."""
        within = [opening.within(a, opened) for a in drawn]
        paths = [path for path in SPACE.choices if path.endswith(word)]
        return [{a[path] for a in within if path in a.choices} for path in paths]

    assert {opening.within(a, 0) for a in drawn} == {largest}
    assert open_values(1, "width") == [{8, 6}] * 5
    assert open_values(2, "width") == [{8, 6, 4, 2}] * 5
    assert [len(values) for values in open_values(2, "op")] == [1] * 5
    assert [len(values) for values in open_values(3, "op")] == [2] * 5
    assert [opening.within(a, 4) for a in drawn] == drawn


def test_a_phase_of_a_choice_that_there_is_not_is_refused() -> None:
    largest = Draws(BoundedSpace(SPACE, {}), 0).largest
    with pytest.raises(ConfigError, match=r"'wdth'.*Did you mean 'width'"):
        Opening(BoundedSpace(SPACE, {}), largest, [["wdth"]])


# --- a stop, and a collapse -------------------------------------------------------------------------------------------
class Sabotaged(Regression):
    """Weights are spoilt in the middle, as often as it is told."""

    def __init__(self, at: int, times: int, by: float = 1.6) -> None:
        super().__init__()
        self.at, self.times, self.by = at, times, by

    def train_loss(self, model: Any, step: int) -> tuple[Any, int]:
        if step == self.at and self.times and self.steps[-1:] != [step]:
            self.times -= 1
            with torch.no_grad():
                for weight in model._supernet[0].weights.parameters():
                    weight.mul_(self.by)
        return super().train_loss(model, step)


@pytest.mark.parametrize("keys", [SGD, {"schedule": "progressive"}, {"steps": 120, "delay": 0.1}])
def test_a_training_that_was_killed_goes_on_to_the_same_weights(keys: dict[str, Any], tmp_path: Path) -> None:
    whole = training(Regression(), tmp_path / "whole", **keys)
    study = session(tmp_path / "whole")
    whole.run(study)
    for at in (7, 16):
        folder = tmp_path / f"cut{at}"
        cut, stopped = training(Regression(), folder, **keys), session(folder)

        def check(cut: OnceForAllTraining = cut, at: int = at) -> None:
            if cut.state.step >= at:
                raise StopRequested

        stopped.check = check
        stopped.should_stop = lambda cut=cut, at=at: cut.state.step >= at
        with pytest.raises(StopRequested):
            cut.run(stopped)
        again = training(Regression(), folder, **keys)
        assert again.state.step == at
        goes_on = session(folder)
        again.run(goes_on)
        assert_equal(weights_of(whole), weights_of(again))
        assert goes_on.charged == study.charged


def test_a_collapse_is_noticed_and_noise_is_not() -> None:
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(600, generator=draw).mul(0.05)
    falling = [2.0 * math.exp(-step / 100) + 0.5 + float(noise[step]) for step in range(600)]
    guard = SpikeGuard(0.5, 10)
    assert not any(guard.collapsed(loss) for loss in falling)
    assert not guard.collapsed(math.nan)
    after = [guard.collapsed(2.3) for _ in range(20)]
    assert any(after)
    assert SpikeGuard.from_info(guard.to_info()) == guard
    fresh = SpikeGuard.from_info(SpikeGuard(0.5, 10).to_info())
    assert math.isnan(fresh.first)
    guard.restart()
    assert not any(guard.collapsed(2.3) for _ in range(50)), "another level is the lowest now"


def test_a_collapse_sends_training_back_at_half_the_rate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = {"steps": 160, "delay": 0.1, "spike": 0.3}
    ours = training(Sabotaged(90, 1), tmp_path / "one", **keys)
    study = session(tmp_path / "one")
    with caplog.at_level("WARNING"):
        ours.run(study)
    assert "goes back to step" in caplog.text
    assert (ours.setbacks, ours.weights.optimizer.halvings) == (1, 1)
    assert study.scalars["supernet/loss"][160] < 0.5 * study.scalars["supernet/loss"][1]
    assert not list((tmp_path / "one").glob("point-*")), "nothing to go back to is left behind"
    left = training(Sabotaged(90, 1), tmp_path / "never", **{**keys, "spike": None})
    left.run(session(tmp_path / "never"))
    assert left.setbacks == 0
    whole = weights_of(ours)
    # Killed right after it went back, it ends in the same weights.
    cut, stopped = training(Sabotaged(90, 1), tmp_path / "cut", **keys), session(tmp_path / "cut")

    def check() -> None:
        if cut.setbacks:
            raise StopRequested

    stopped.check = check
    with pytest.raises(StopRequested):
        cut.run(stopped)
    again = training(Sabotaged(90, 0), tmp_path / "cut", **keys)
    assert again.setbacks == 1
    again.run(session(tmp_path / "cut"))
    assert_equal(whole, weights_of(again))


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_what_an_optimiser_remembers_of_a_collapse_is_forgotten(kind: Any, tmp_path: Path) -> None:
    keys = {"steps": 120, "delay": 0.5, "optimizer": {"kind": kind}, "weight_lr": 1e-3}
    ours = training(Regression(), tmp_path, **keys)
    start = ours.weights.optimizer.state()
    ours._begin(0)  # the first point to go back to: nothing has been learnt, and there are no moments of AdamW yet
    other = training(Regression(), tmp_path / "other", **keys)
    for step in range(4):
        ours.weights.step(SPACE.sample(step), step)
    assert any(bool(moment.any()) for moment in ours.weights.optimizer.state().values())
    assert ours._back(session(tmp_path), 5, "a collapse")
    after = ours.weights.optimizer.state()
    assert after.keys() == start.keys()
    assert not any(bool(moment.any()) for moment in after.values())
    assert_equal(weights_of(ours), weights_of(other))
    ours.weights.optimizer.halvings = 0
    for step in range(3):  # and it goes on as one that never collapsed
        assert ours.weights.step(SPACE.sample(9), step)[0] == other.weights.step(SPACE.sample(9), step)[0]
    assert_equal(weights_of(ours), weights_of(other))


def test_training_goes_back_so_often_and_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours = training(Sabotaged(60, 9), tmp_path, steps=120, delay=0.1, setbacks=1, spike=0.3)
    with caplog.at_level("WARNING"):
        ours.run(session(tmp_path))
    assert ours.setbacks == 1
    assert "it goes on" in " ".join(caplog.text.split())


def test_what_is_never_finite_ends_in_an_error(tmp_path: Path) -> None:
    ours = training(Sabotaged(60, 99, math.nan), tmp_path, steps=120, delay=0.1, setbacks=0)
    with pytest.raises(TrainingError, match="not finite"):
        ours.run(session(tmp_path))


def test_the_share_of_the_others_is_told_as_it_grows(tmp_path: Path) -> None:
    study = session(tmp_path)
    training(Regression(), tmp_path, **SGD).run(study)
    shares = study.scalars["supernet/share_of_subnets"]
    assert set(shares) == set(range(13, 25))
    assert 0 < shares[13] < shares[18] < 1
    assert (tmp_path / STATE).exists()
