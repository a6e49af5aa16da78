"""The ranking domain: what controllers and evaluators share, known rankers, constraints, files, paired comparisons."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankitect.config import resolve
from rankitect.errors import AssetError, ConfigError, DataError, RunFolderError, SpaceError
from rankitect.graph import Architecture
from rankitect.models.candidate import load_ranker, save_ranker
from rankitect.models.supernet import build
from rankitect.production.evidence import load_evidence, save_rows
from rankitect.tasks.costs import RANKING_COSTS
from rankitect.tasks.ranking.models import save_losses
from tests.tasks.language.tiny import own_cache
from tests.tasks.ranking.tiny import ranking_parts


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("ranking")
    with own_cache(folder / "cache"):
        yield ranking_parts(folder)


def test_a_ranking_space_brings_its_task_and_evaluators() -> None:
    plain = resolve(["space=ranking_blocks"])
    assert plain.plugins["task"].name == "movielens"
    assert plain.config.evaluator.objectives == ["validation_normalized_entropy", "flops"]
    assert plain.config.constraints == {"flops": (0.1, 1.0)}
    other = resolve(["space=ranking_engineered", "task=criteo", "task.data.path=train.txt"])
    assert other.plugins["task"].config.data.format == "criteo"
    assert other.config.evaluator == plain.config.evaluator
    assert resolve([]).config.constraints == {"block_flops": (0.45, 1.0)}
    with pytest.raises(ConfigError, match="format avazu needs a path"):
        resolve(["space=ranking_blocks", "task=avazu"])


def test_costs_of_every_known_ranker_are_those_of_its_model(parts: Any) -> None:
    task = parts.task
    for name, known in task.models.items():
        model = build(known.space, known.architecture)
        costs = {n: m.value for n, m in task.costs(known.architecture).items()}
        assert costs.keys() == RANKING_COSTS.keys() == {s.name for s in task.cost_specs}
        assert costs["params"] == sum(p.numel() for p in model.parameters()), name
        assert costs["table_bytes"] < 4 * costs["params"]
    sampled = parts.space.sample(0)
    assert task.costs(sampled)["flops"].value == parts.space.cost(sampled, "flops", B=1)
    with pytest.raises(SpaceError, match="not searched"):
        task.costs(Architecture("another", "1", {}))


def test_constraints_are_relative_to_the_reference_model(parts: Any) -> None:
    whole = parts.task.costs(parts.task.models["dlrm"].architecture)["flops"].value
    assert parts.task.limits() == {"flops": (pytest.approx(0.1 * whole), whole)}
    largest = parts.space.cost(parts.task.reference, "flops")
    assert largest >= max(parts.space.cost(parts.space.sample_many(100, 0), "flops"))
    assert [b.name for b in parts.task.baselines(parts)] == ["dlrm", "lr"]


def test_losses_are_of_the_rows_they_should_be(parts: Any) -> None:
    task, known = parts.task, parts.task.models["dlrm"]
    model = build(known.space, known.architecture)
    one, rows = task.train_loss(model, 1)
    assert rows == task.config.shared_batch
    assert torch.equal(one, task.train_loss(model, 1)[0])
    batch = task.data.batch_at("validation", 0, batch=task.config.shared_batch)
    assert torch.equal(task.search_loss(model, 0)[0], task.loss(model, batch))
    steps, lr, *_ = task.shared_training(False)
    assert (steps, lr) == (task.data.steps("train", task.config.shared_batch), task.config.shared_lr)
    assert task.train_loss(model, 1, batch=40)[1] == 40
    assert task.shared_training(True).batch == task.config.screened_batch


def test_candidates_inherit_what_a_search_has_trained(parts: Any) -> None:
    assert parts.task.inherited is None
    supernet = parts.task.supernet(parts.space)
    parts.task.adopt(supernet)
    assert parts.task.inherited is supernet
    parts.task.adopt(None)
    assert parts.task.inherited is None


def test_a_known_ranker_may_have_training_of_its_own(tmp_path: Path, parts: Any) -> None:
    own = ranking_parts(
        tmp_path, "task.models.dlrm.optimizer.lr=0.5", "task.models.dlrm.tables.optimizer=dense", "task.epochs=3"
    ).task
    tuned = own.fit_config(own.models["dlrm"].architecture, 1)
    other = own.fit_config(own.models["lr"].architecture, 1)
    assert (tuned.optimizer.lr, tuned.tables, tuned.epochs, tuned.seed) == (0.5, None, 3, 1)
    assert other.optimizer.lr == own.config.optimizer.lr
    assert other.tables.optimizer == own.config.tables.optimizer
    wrong = ranking_parts(tmp_path, "task.models.dlrm.optimizer.rate=0.5").task
    with pytest.raises(ConfigError, match=r"task.models.dlrm.optimizer.rate: Extra inputs"):
        wrong.fit_config(wrong.models["dlrm"].architecture, 0)


@pytest.mark.parametrize(
    ("override", "error", "text"),
    [
        ("task.reference=dlmr", ConfigError, "no model 'dlmr' in task.models: lr, "),
        ("task.models.dlrm.depth=3", ConfigError, "task.models.dlrm: .* does not take these sizes"),
        ("task.models.fancy={}", SpaceError, "unknown model 'fancy'"),
        (
            "constraints.flops=[900,950]",
            ConfigError,
            r"no architecture meets them \(flops 900 to 950, relative to dlrm\)",
        ),
        ("constraints.flop=[0,1]", ConfigError, "no cost 'flop'.*Did you mean 'flops'"),
    ],
)
def test_mistakes_are_told_before_work_starts(tmp_path: Path, override: str, error: Any, text: str) -> None:
    more = ["task.baselines=null"] if "fancy" in override else []
    with pytest.raises(error, match=text):
        ranking_parts(tmp_path, override, *more)


def test_a_split_of_one_class_is_told(parts: Any) -> None:
    split = parts.task.data.table.splits["test"]
    labels = split.labels
    split.labels = np.zeros_like(labels)
    try:
        with pytest.raises(DataError, match="test split has no clicks in 150 rows"):
            parts.task.check(parts)
    finally:
        split.labels = labels


def test_a_ranker_survives_its_folder(tmp_path: Path, parts: Any) -> None:
    known = parts.task.models["dlrm"]
    model = build(known.space, known.architecture, 3)
    written = save_ranker(tmp_path, known.space, known.architecture, model, parts.task.features)
    assert all((tmp_path / path).is_file() for path in written.values())
    read = load_ranker(tmp_path)
    batch = parts.task.data.batch_at("test", 0)
    assert torch.equal(read.model(*batch.inputs), model(*batch.inputs))
    assert read.features == parts.task.features
    (tmp_path / "candidate.json").unlink()  # as versions before cards left it
    old = load_ranker(tmp_path)
    assert torch.equal(old.model(*batch.inputs), model(*batch.inputs))
    with pytest.raises(AssetError, match="vocabularies and scaling in the cache"):
        old.score([])
    other = parts.task.models["lr"]
    (tmp_path / "architecture.json").write_text(other.architecture.to_json())
    (tmp_path / "space.json").write_text(other.space.to_json())
    with pytest.raises(AssetError, match=r"does not fit architecture\.json"):
        load_ranker(tmp_path)


def test_damaged_losses_are_measured_again_or_left_out(tmp_path: Path, parts: Any) -> None:
    task, known = parts.task, parts.task.models
    whole: dict[str, bytes] = {}
    for number, name in enumerate(["dlrm", "lr"]):
        folder = tmp_path / "trials" / f"{number:06d}-{known[name].architecture.fingerprint[:8]}"
        folder.mkdir(parents=True)
        model = build(known[name].space, known[name].architecture, 0)
        file = folder / save_losses(folder, task.quality(model, "test"))
        save_ranker(folder, known[name].space, known[name].architecture, model, parts.task.features)
        whole[name] = file.read_bytes()
        file.write_bytes(whole[name][:-4])
    (folder / "weights.safetensors").unlink()
    save_rows(tmp_path / "rows.safetensors", task.data.table.split("test").labels)
    models = [{"fingerprint": known[name].architecture.fingerprint} for name in whole]
    (tmp_path / "summary.json").write_text(json.dumps({"pareto": models, "baselines": []}))
    with pytest.raises(RunFolderError, match=r"000000-\w+/losses\.safetensors is damaged"):
        load_evidence(tmp_path)
    said: list[str] = []
    for _ in range(2):
        parts.task.exporter(dataclasses.replace(parts, folder=tmp_path, say=said.append))  # as a search begins
    assert len(said) == 2, "the second time there is nothing to mend"
    assert "measured again" in said[0]
    assert "go on without them" in said[1]
    assert next(tmp_path.glob("trials/000000-*/losses.safetensors")).read_bytes() == whole["dlrm"]
    found = load_evidence(tmp_path)
    assert found is not None
    assert set(found.losses) == {known["dlrm"].architecture.fingerprint}


def test_probabilities_as_labels_are_learnt_from_and_predictions_are_kept_for_them(tmp_path: Path) -> None:
    soft = np.random.default_rng(0).random(400).round(3)
    (tmp_path / "log.csv").write_text("y,x\n" + "".join(f"{value},{i % 7}\n" for i, value in enumerate(soft)))
    table = "task.data.table={label: {name: y, soft: true}, numeric: [x], categorical: [x]}"
    given = [f"task.data.path={tmp_path / 'log.csv'}", "task.data.format=csv", "task.data.split=file", table]
    with own_cache(tmp_path / "cache"):
        task = ranking_parts(tmp_path / "run", *given).task
    known = task.models["dlrm"]
    model = build(known.space, known.architecture, 0)
    test = task.quality(model, "test")
    batch = next(task.data.table.split("test").batches(1000))
    assert batch.label.numpy() == pytest.approx(soft[360:])
    p = torch.sigmoid(model(batch.numeric, batch.ids)).detach().numpy().reshape(-1)
    loss = -(soft[360:] * np.log(p) + (1 - soft[360:]) * np.log(1 - p)).mean()
    assert test.log_loss == pytest.approx(loss, rel=1e-5)
    folder = tmp_path / "trials" / f"000000-{known.architecture.fingerprint[:8]}"
    folder.mkdir(parents=True)
    save_losses(folder, test)
    save_rows(tmp_path / "rows.safetensors", task.data.table.split("test").labels)
    summary = {"pareto": [{"fingerprint": known.architecture.fingerprint}], "baselines": []}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    rows = load_evidence(tmp_path)
    assert rows is not None
    assert rows.predictions(known.architecture.fingerprint)[0] == pytest.approx(p, abs=1e-6)
