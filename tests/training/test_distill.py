"""Healing: the kept teacher logits are right, used again, repaired; and a student comes nearer to its teacher."""

import copy

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from rankitect.data.text import Document
from rankitect.data.tokenizer import ByteTokenizer
from rankitect.data.windows import TextWindows
from rankitect.errors import DataError
from rankitect.metrics.language import text_quality
from rankitect.metrics.losses import kl_divergence
from rankitect.training.distill import Distillation, TeacherTargets, weights_fingerprint
from rankitect.training.settings import DistilConfig, TextTraining
from rankitect.training.text import NextToken, train_on_text


class Texts:
    name = "texts"

    def __iter__(self):
        return iter([Document(f"d{i}", " ".join(f"w{i}x{j}" for j in range(40))) for i in range(30)])


class Model(nn.Module):
    """Looks at the two last tokens; counts how many windows it has read."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.head = nn.Embedding(256, 32), nn.Linear(32, 256)
        self.windows = 0

    def forward(self, ids):
        self.windows += len(ids)
        x = self.embed(ids)
        return self.head(torch.tanh(x + 0.5 * x.roll(1, 1)))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return TextWindows.open(ByteTokenizer(), Texts(), context=16, cache=tmp_path_factory.mktemp("tokens"))


FEW = DistilConfig(tokens=40 * 4 * 16, batch=4, context=16, k=8, lr=0.02, warmup=0)


def heal(model, distillation, seed=0, **keys):
    return train_on_text(model, distillation, seed=seed, **keys)


def test_kept_targets_equal_the_teachers_softmax(task, tmp_path):
    teacher = Model()
    targets = TeacherTargets(teacher, task, context=16, k=8, cache=tmp_path)
    windows = np.array([5, 0, 9, 5])
    found = targets.at(windows)
    assert found.ids.shape == (4, 16, 8 + 64)
    ids = torch.from_numpy(task.text.split("train").read(windows, 16))
    probs = teacher(ids[:, :-1]).softmax(-1)
    want, _ = probs.topk(8)
    torch.testing.assert_close(found.probs[..., :8], want.detach(), rtol=5e-3, atol=1e-5)
    torch.testing.assert_close(probs.gather(-1, found.ids[..., :8]), want)
    torch.testing.assert_close(found.probs.sum(-1) + found.tail, torch.ones(4, 16))


def test_teacher_runs_once_for_a_window_across_steps_and_processes(task, tmp_path):
    teacher = Model()
    first = TeacherTargets(teacher, task, context=16, k=8, cache=tmp_path)
    one = first.at(np.array([1, 2, 3]))
    assert (first.computed, teacher.windows) == (3, 3)
    again = TeacherTargets(teacher, task, context=16, k=8, cache=tmp_path)
    other = again.at(np.array([3, 1, 4]))
    assert again.computed == 1
    assert torch.equal(one.probs[2], other.probs[0])
    assert torch.equal(one.ids[0], other.ids[1])


def test_another_teacher_context_or_k_has_its_own_files(task, tmp_path):
    made = [
        TeacherTargets(Model(0), task, context=16, k=8, cache=tmp_path),
        TeacherTargets(Model(1), task, context=16, k=8, cache=tmp_path),
        TeacherTargets(Model(0), task, context=8, k=8, cache=tmp_path),
        TeacherTargets(Model(0), task, context=16, k=4, cache=tmp_path),
        TeacherTargets(Model(0), task, context=16, k=8, temperature=2.0, cache=tmp_path),
        TeacherTargets(Model(0), task, context=16, k=8, samples=0, cache=tmp_path),
        TeacherTargets(Model(0), task, split="search", context=16, k=8, cache=tmp_path),
    ]
    assert len({targets.folder for targets in made}) == len(made)
    assert weights_fingerprint(Model(0)) == weights_fingerprint(Model(0)) != weights_fingerprint(Model(1))


def test_damaged_file_is_made_again_and_an_unwritable_folder_costs_no_run(task, tmp_path, caplog):
    targets = TeacherTargets(Model(), task, context=16, k=8, cache=tmp_path)
    want = targets.at(np.array([2]))
    (file,) = [path for path in targets.folder.rglob("*") if path.is_file()]
    file.write_bytes(file.read_bytes()[:90])
    assert torch.equal(targets.at(np.array([2])).probs, want.probs)
    assert targets.computed == 2
    (tmp_path / "file").write_text("in the way")
    blocked = TeacherTargets(Model(), task, context=16, k=8, cache=tmp_path / "file")
    assert torch.equal(blocked.at(np.array([2])).probs, want.probs)
    assert "not kept" in caplog.text


@pytest.mark.parametrize(
    "change",
    [{}, {"k": None}, {"samples": 0}, {"temperature": 2.0}, {"k": None, "temperature": 2.0}],
)
def test_healing_brings_a_student_nearer_to_its_teacher(task, tmp_path, change):
    teacher, student = Model(0), Model(1)
    config = DistilConfig(**{**FEW.model_dump(), **change})
    ids = task.batch_at("search", 0, batch=20)[:, :-1]
    with torch.no_grad():
        before = kl_divergence(student(ids), teacher(ids))
    result = heal(student, Distillation(teacher, task, config, cache=tmp_path))
    assert (result.steps, result.tokens) == (40, 40 * 64)
    assert result.losses[-1] < 0.6 * result.losses[0]
    with torch.no_grad():
        assert kl_divergence(student(ids), teacher(ids)) < 0.7 * before
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), Model(0).parameters(), strict=True))


def test_added_cross_entropy_pulls_toward_the_text(task, tmp_path):
    plain, pulled = Model(1), Model(1)
    for student, weight in ((plain, 0.0), (pulled, 1.0)):
        config = DistilConfig(**{**FEW.model_dump(), "ce_weight": weight})
        heal(student, Distillation(Model(0), task, config, cache=tmp_path))
    assert text_quality(pulled, task, "train").nats < 0.9 * text_quality(plain, task, "train").nats


def test_all_candidates_share_the_targets_and_healing_repeats_to_the_bit(task, tmp_path):
    distillation = Distillation(Model(0), task, FEW, cache=tmp_path)
    one, other = Model(1), Model(1)
    heal(one, distillation)
    computed = distillation.targets.computed
    heal(other, Distillation(Model(0), task, FEW, cache=tmp_path / "fresh"))
    heal(Model(2), distillation)
    assert distillation.targets.computed == computed
    third = Model(1)
    heal(third, distillation, seed=5)
    assert not torch.equal(one.head.weight, third.head.weight)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_interrupted_healing_goes_on(task, tmp_path):
    distillation = Distillation(Model(0), task, FEW, cache=tmp_path)
    whole, part = Model(1), Model(1)
    heal(whole, distillation)
    polls = iter(range(100))
    file = tmp_path / "heal.safetensors"
    assert not heal(part, distillation, checkpoint=file, should_stop=lambda: next(polls) == 7).finished
    resumed = copy.deepcopy(Model(1))
    heal(resumed, distillation, checkpoint=file)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_training_on_the_texts_own_tokens_learns_them_and_repeats_to_the_bit(task):
    config = TextTraining(tokens=60 * 4 * 16, batch=4, context=16, lr=0.02)
    one, other = Model(1), Model(1)
    before = text_quality(one, task, "train").nats
    result = train_on_text(one, NextToken(task, config), seed=3)
    train_on_text(other, NextToken(task, config), seed=3)
    assert (result.steps, result.tokens) == (60, 60 * 64)
    assert text_quality(one, task, "train").nats < 0.6 * before
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"k": 0}, "k\n  Input should be greater than or equal to 1"),
        ({"temperature": 0}, "temperature\n  Input should be greater than 0"),
        ({"ce_weight": -1}, "ce_weight\n  Input should be greater than or equal to 0"),
        ({"lr": 9}, "lr\n  Input should be less than or equal to 1"),
        ({"tokens": 0}, "tokens\n  Input should be greater than or equal to 1"),
    ],
)
def test_wrong_settings_are_refused(keys, text):
    with pytest.raises(ValidationError, match=text):
        DistilConfig(**keys)


def test_a_text_that_is_too_short_for_a_batch_is_refused(task, tmp_path):
    for make in (lambda c: Distillation(Model(), task, c, cache=tmp_path), lambda c: NextToken(task, c)):
        with pytest.raises(DataError, match=r"train split has \d+ tokens, but 4 x 9000 \+ 1 = 36001 are needed"):
            make(DistilConfig(context=9000))


def test_tokens_are_rounded_up_to_whole_batches():
    assert DistilConfig().steps == 20
    assert DistilConfig(tokens=513).steps == 2
