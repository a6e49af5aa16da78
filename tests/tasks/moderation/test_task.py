"""Guards in a study: the loss is of the verdict only, and so is the quality."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import rankitect
from rankitect.config.parts import Parts, build
from rankitect.config.training import resolve_training
from rankitect.errors import ConfigError
from rankitect.models.packed import next_logits
from rankitect.reports.material import material_of
from rankitect.reports.run import load_run
from rankitect.reports.sections.guard import SECTION
from rankitect.tasks.moderation.plain import plain_quality
from rankitect.tasks.moderation.task import Moderation
from rankitect.training.settings import DistilConfig, TextTraining

SMOKE = ["task=moderation", "preset=smoke"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    folder = tmp_path_factory.mktemp("guard")
    return build(resolve_training(SMOKE, None).resolved, folder, lambda text: None, measuring=True)


@pytest.fixture(scope="module")
def task(parts: Parts) -> Moderation:
    assert isinstance(parts.task, Moderation)
    return parts.task


def test_logits_after_sequences_that_are_packed_are_those_of_each_alone(task: Moderation) -> None:
    model = task.initial(task.reference, 0)
    sequences = task.exchanges.sequences["test"][:7]
    together = next_logits(model, sequences, torch.device("cpu"))
    for row, sequence in zip(together, sequences, strict=True):
        assert torch.allclose(row, model(torch.tensor([sequence]))[0, -1], atol=1e-5)
    plain = next_logits(lambda ids: model(ids), sequences, torch.device("cpu"))
    assert torch.allclose(together, plain, atol=1e-5)


def test_the_loss_is_that_of_the_verdict_among_all_tokens(task: Moderation) -> None:
    model = task.initial(task.reference, 0)
    objective = task.next_token(TextTraining(batch=3))
    batch = objective.batch_at(0)
    loss = objective.loss(model, batch)
    nats = []
    for sequence, unsafe in zip(batch.sequences, batch.unsafe.tolist(), strict=True):
        log_probs = model(torch.tensor([sequence]))[0, -1].log_softmax(-1)
        nats.append(-float(log_probs.detach()[ord("1" if unsafe else "0")]))
    assert float(loss.detach()) == pytest.approx(sum(nats) / 3, rel=1e-5)
    loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_model_that_is_its_own_teacher_has_nothing_to_learn(task: Moderation) -> None:
    model = task.initial(task.reference, 0)
    objective = task.distillation(DistilConfig(batch=4), teacher=model)
    assert float(objective.loss(model, objective.batch_at(1))) == pytest.approx(0.0, abs=1e-6)
    other = task.distillation(DistilConfig(batch=4))
    assert float(other.loss(model, other.batch_at(1))) == pytest.approx(0.0, abs=1e-6)  # the backbone is this model


def test_the_quality_of_a_guard_that_knows_the_answers_is_perfect(task: Moderation) -> None:
    class Oracle(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(*ids.shape, 256)
            for b, row in enumerate(ids.tolist()):
                for unsafe, sequences in known.items():
                    for sequence in sequences:
                        if tuple(row[: len(sequence)]) == sequence:
                            logits[b, len(sequence) - 1, ord("1" if unsafe else "0")] = 5.0
            return logits

    known: dict[bool, list[tuple[int, ...]]] = {True: [], False: []}
    for split in ("search", "test"):
        for sequence, unsafe in zip(
            task.exchanges.sequences[split], task.exchanges.unsafe(split).tolist(), strict=True
        ):
            known[unsafe].append(sequence)
    metrics = task.quality(Oracle(), "test").metrics
    assert metrics["auc"].value == metrics["f1"].value == 1.0
    assert metrics["false_positive_rate"].value == 0.0
    assert metrics["threshold"].value == pytest.approx(0.0)


def test_character_n_grams_are_a_baseline(task: Moderation) -> None:
    assert plain_quality(task.exchanges, "train").metrics["auc"].value > 0.95  # what it has learned from
    assert len(task.plain.scored) == len(task.exchanges.splits["test"])


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        (["task.unsafe=unsafe"], "splits it into 6"),
        (["task.backbone=none"], "task.backbone is none"),
        (["task.columns={text: x}"], "columns"),
        (["task.data='s3://user:secret@bucket/x.csv'"], "credentials"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_any_work(tmp_path: Path, keys: list[str], wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        rankitect.train([*SMOKE, *keys, f"output_dir={tmp_path / 'run'}"], quiet=True)
    assert not (tmp_path / "run" / "summary.json").exists()


def test_candidates_can_be_searched_by_the_auc_of_their_verdicts(tmp_path: Path) -> None:
    result = rankitect.search([*SMOKE, "budget.trials=3", "report.page=false", f"output_dir={tmp_path}"], quiet=True)
    best = result.summary.pareto[0]
    assert "auc" in best.metrics
    # The report tells what each stage of the recipe did to the best candidate.
    card = SECTION.card(material_of(load_run(tmp_path)))
    assert card is not None
    assert card.finding.startswith("AUC of candidate")
    assert [row[0].text for row in card.tables[0].rows] == [
        "as it begins", "verdicts", "TF-IDF and logistic regression",
    ]  # fmt: skip
    assert card.tables[0].rows[1][1].value == pytest.approx(best.metrics["auc"].value)
    # A card that was damaged costs the section, not the report.
    (tmp_path / best.folder / "stages.json").write_text('{"schema": 1, "stages": []}')
    damaged = SECTION.card(material_of(load_run(tmp_path)))
    assert damaged is not None
    assert damaged.idle
    assert "cannot be read" in damaged.finding
