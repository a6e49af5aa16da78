"""Everything follows the placement: each task trains and measures on a device that holds shapes and no numbers, under a
watch that fails on an implicit copy between devices and on a tensor that is made on the CPU by accident."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankitect.config.parts import Parts
from rankitect.config.schema import PlacementConfig
from rankitect.contracts import Spent, TrialContext
from rankitect.errors import ConfigError, SpaceError, TrainingError
from rankitect.methods.shared_weights import CoTraining
from rankitect.metrics.losses import cross_entropy
from rankitect.models.backbone import largest
from rankitect.models.importance import gather
from rankitect.models.supernet import Supernet, build
from rankitect.search_spaces.mobile_llm import mobile_llm
from rankitect.study.folder import config_hash
from rankitect.training.footprint import kept_activations
from rankitect.training.loop import TrainConfig, train
from rankitect.training.optimizer import OptimizerConfig
from rankitect.training.placement import Placement, choose, placement, using
from tests.tasks.language.tiny import own_cache, parts_of
from tests.tasks.ranking.tiny import ranking_parts
from tests.training.elsewhere import META, elsewhere


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_cache(tmp_path_factory.mktemp("cache")):
        yield


@dataclass
class Session:
    """What a controller needs of a study to prepare itself."""

    state_dir: Path
    parts: Parts
    trials: list[Any] = field(default_factory=list)
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("test"))

    @property
    def space(self) -> Any:
        return self.parts.space

    @property
    def task(self) -> Any:
        return self.parts.task

    seed: int = 0

    def charge(self, key: str, spent: Spent) -> None:
        pass

    def progress(self, done: int, total: int, note: str = "") -> None:
        pass

    def scalar(self, name: str, value: float, step: int) -> None:
        pass

    def spent(self) -> Spent:
        return Spent()

    def remaining(self) -> float:
        return 1.0

    def should_stop(self) -> bool:
        return False

    def check(self) -> None:
        pass


def prepared_and_measured(parts: Parts, folder: Path) -> dict[str, set[str]]:
    """Have the controller train what it trains, and all evaluators measure what it proposes first; their metrics."""
    assert parts.controller is not None
    for name in ("state", "trial"):
        (folder / name).mkdir()
    parts.controller.prepare(Session(folder / "state", parts))
    architecture = parts.controller.ask(1)[0].architecture
    return {
        key: set(evaluator.measure(architecture, TrialContext(folder, folder / "trial", 0)).metrics)
        for key, evaluator in parts.evaluators.items()
    }


def devices(model: torch.nn.Module) -> set[torch.device]:
    return {p.device for p in model.parameters()}


@pytest.mark.parametrize(
    "overrides",
    [
        ["controller=dnas", "controller.steps=2"],
        ["controller=one_shot", "controller.steps=2", "controller.sampling=sandwich", "evaluator.proxy.score=nwot"],
        ["task=scratch", "controller=one_shot", "controller.steps=1", "evaluator.proxy.score=snip"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_a_language_search_runs_where_it_is_placed(overrides: list[str], tmp_path: Path) -> None:
    questions = tmp_path / "asked.jsonl"
    questions.write_text('{"query": "one and two:", "choices": ["three", "four", "ten"], "gold": 0}\n' * 3)
    asked = ["measures.asked.measure=choice_questions", f"measures.asked.path={questions}"]
    with elsewhere() as watched:
        parts = parts_of(tmp_path, *overrides, *asked)
        measured = prepared_and_measured(parts, tmp_path)
    assert measured["final"] >= {"perplexity", "bits_per_byte", "asked_acc"}
    assert devices(parts.task.inherited) == {META}
    assert watched.read["aten._local_scalar_dense.default"]
    assert watched.brought


@pytest.mark.parametrize(
    "overrides",
    [
        ["controller=one_shot", "controller.steps=2", "task.tables.optimizer=rowwise_adagrad"],
        ["controller=reinforce", "controller.steps=1", "task.tables.optimizer=dense"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_a_ranking_search_runs_where_it_is_placed(overrides: list[str], tmp_path: Path) -> None:
    with elsewhere() as watched:
        parts = ranking_parts(tmp_path, *overrides)
        measured = prepared_and_measured(parts, tmp_path)
    assert measured["final"] >= {"normalized_entropy", "auc"}
    assert devices(parts.task.inherited) == {META}
    assert watched.read["aten._local_scalar_dense.default"]
    assert watched.brought


def test_the_watch_sees_an_implicit_copy_and_an_accident() -> None:
    with elsewhere(), pytest.raises(AssertionError, match="implicit copy"):
        torch.ones(3, device=META) + torch.from_numpy(np.ones(3))
    with elsewhere(), pytest.raises(AssertionError, match="by accident"):
        torch.zeros(3)


# --- what is decided --------------------------------------------------------------------------------------------------
CPU = torch.device("cpu")


@pytest.fixture
def _as_before() -> Iterator[None]:
    """`choose` decides for the whole process."""
    with using(Placement(CPU)):
        yield


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"device": "cuda"}, "placement.device=cuda is not there.*Devices of this machine: cpu"),
        ({"device": "cuda:7"}, "placement.device=cuda:7 is not there"),
        ({"precision": "tf32"}, "placement.precision=tf32 is one of CUDA devices.*Allowed here: float32, bf16"),
    ],
)
def test_what_is_not_there_is_refused(given: dict[str, Any], said: str) -> None:
    if given.get("device") and torch.cuda.is_available():
        pytest.skip("there is such a device")
    with pytest.raises(ConfigError, match=said):
        choose(PlacementConfig(**given), lambda text: None)
    assert placement() == Placement(CPU)


@pytest.mark.usefixtures("_as_before")
def test_auto_takes_what_is_there() -> None:
    chosen = choose(PlacementConfig(device="auto"), lambda text: None)
    assert chosen.device.type == ("cuda" if torch.cuda.is_available() else "mps" if torch.mps.is_available() else "cpu")
    assert placement() is chosen


def test_the_device_is_no_part_of_what_is_searched_and_the_precision_is() -> None:
    usual = {"seed": 1, "placement": {"device": "cpu", "precision": "float32", "checkpointing": False}}
    before = {"seed": 1}  # a run folder from before there was a placement
    elsewhere_ = {"seed": 1, "placement": {"device": "cuda", "precision": "float32", "checkpointing": True}}
    coarse = {"seed": 1, "placement": {"device": "cpu", "precision": "bf16", "checkpointing": False}}
    assert config_hash(usual) == config_hash(before) == config_hash(elsewhere_) != config_hash(coarse)


# --- what is traded ---------------------------------------------------------------------------------------------------
SPACE = mobile_llm(
    vocab=64, layers=3, widths=(32,), kv_heads=(1, 2), group=(1, 2), ffn=(32, 48), head=8, window=8, context=24
)
IDS = torch.randint(0, 64, (2, 25), generator=torch.Generator().manual_seed(5))


def gradients(chosen: Placement, seed: int) -> dict[str, torch.Tensor]:
    """The loss and the gradients of a model, and of the same model as a part of a supernet."""
    architecture, found = SPACE.sample(np.random.default_rng(seed)), {}
    with using(chosen):
        supernet = chosen.place(Supernet(SPACE, seed=1))
        for kind, model in (("alone", build(SPACE, architecture, 0)), ("shared", supernet.activate(architecture))):
            owner: torch.nn.Module = chosen.place(model) if kind == "alone" else supernet
            with chosen.computing():
                loss = cross_entropy(model(IDS[:, :-1]), IDS[:, 1:])
            loss.backward()
            found[f"{kind} loss"] = loss.detach()
            found |= {f"{kind} {n}": p.grad for n, p in owner.named_parameters() if p.grad is not None}
    return found


@pytest.mark.parametrize("seed", range(3))
def test_activations_that_are_computed_again_change_no_gradient(seed: int) -> None:
    kept, again = (gradients(Placement(CPU, checkpointing=each), seed) for each in (False, True))
    assert kept.keys() == again.keys()
    for name, gradient in kept.items():
        assert torch.equal(gradient, again[name]), name


def test_fewer_activations_are_kept() -> None:
    architecture = largest(SPACE)
    held = {}
    for checkpointing in (False, True):
        sizes: list[int] = []
        model = Placement(CPU, checkpointing=checkpointing).place(build(SPACE, architecture))
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

        def keep(x: torch.Tensor, sizes: list[int] = sizes, weights: set[int] = weights) -> torch.Tensor:
            if x.untyped_storage().data_ptr() not in weights:
                sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            model(IDS[:, :-1])
        held[checkpointing] = sum(sizes)
    assert held[True] < held[False] / 3


def test_products_in_bfloat16_leave_weights_and_losses_in_float32() -> None:
    fine, coarse = (gradients(Placement(CPU, precision), 0) for precision in ("float32", "bf16"))
    for name, gradient in coarse.items():
        assert gradient.dtype == torch.float32
        assert not torch.equal(gradient, fine[name]) or not gradient.any()
        assert (gradient - fine[name]).norm() <= 0.1 * fine[name].norm() + 1e-6, name


def test_what_was_trained_in_another_precision_is_not_taken_for_this_one(tmp_path: Path) -> None:
    stage: Any = parts_of(tmp_path, "controller=random").stages["heal"]
    usual = stage.provenance()
    with using(Placement(CPU, "bf16")):
        assert stage.provenance() == {**usual, "precision": "bf16"}
    with using(Placement(META)):
        assert stage.provenance() == usual


def test_statistics_are_float32_whatever_the_model_computes_in() -> None:
    space = SPACE
    found = {}
    for precision in ("float32", "bf16"):
        with using(Placement(CPU, precision)) as chosen, chosen.computing():
            found[precision] = gather(Supernet(space, seed=1), largest(space), [IDS], cross_entropy)
    fine, coarse = found["float32"], found["bf16"]
    for sums in ("gram", "slopes", "fisher", "taylor"):
        for key, value in vars(coarse)[sums].items():
            assert value.dtype == torch.float32
            exact = vars(fine)[sums][key]
            assert (value - exact).norm() <= 0.15 * exact.norm() + 1e-9, (sums, key)


def test_a_model_and_batches_of_ones_own_follow_the_placement() -> None:
    model = torch.nn.Linear(4, 1)
    with elsewhere():
        result = train(
            model,
            lambda model, batch: model(batch["x"]).square().mean(),
            lambda step: {"x": torch.from_numpy(np.ones((3, 4), np.float32))},
            TrainConfig(steps=2, optimizer=OptimizerConfig(lr=0.1)),
            size=lambda batch: len(batch["x"]),
        )
    assert result.steps == 2
    assert devices(model) == {META}


def test_a_batch_in_parts_teaches_what_it_teaches_in_one(tmp_path: Path) -> None:
    """A supernet's sandwich, and a model alone."""
    trained = {}
    for parts in (1, 2):
        with using(Placement(CPU, accumulate=parts)):
            found = ranking_parts(tmp_path, "task.tables.optimizer=dense", "controller=random", "task.batch=256")
            task: Any = found.task
            supernet = Supernet(found.graph_space, seed=1)
            weights = CoTraining(supernet, task, 1e-2, 4)
            architectures = found.graph_space.sample_many(2, np.random.default_rng(0))
            losses = [weights.step_together(architectures, step, distil=0.5) for step in range(2)]
            alone, result = task.trained(architectures[0], TrialContext(tmp_path, tmp_path, 0))
        trained[parts] = (losses, result.steps, [p.detach() for m in (supernet, alone) for p in m.parameters()])
    assert trained[1][1] == trained[2][1]
    for (one, spent), (other, also) in zip(trained[1][0], trained[2][0], strict=True):
        assert one == pytest.approx(other, rel=1e-5)
        assert spent == also
    for p, q in zip(trained[1][2], trained[2][2], strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=2e-4)


def test_tables_that_take_their_step_in_each_backward_pass_are_not_computed_in_parts(tmp_path: Path) -> None:
    parts = ranking_parts(tmp_path, "controller=random")
    task: Any = parts.task
    architecture = parts.graph_space.sample(np.random.default_rng(0))
    with using(Placement(CPU, accumulate=2)), pytest.raises(TrainingError, match=r"task\.tables\.optimizer=dense"):
        task.trained(architecture, TrialContext(tmp_path, tmp_path, 0))


# --- what it will take ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("recompute", [False, True])
def test_activations_are_known_before_there_are_any(recompute: bool) -> None:
    architecture = largest(SPACE)
    model, sizes = build(SPACE, architecture), {}
    model.recompute = recompute
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(x: torch.Tensor) -> torch.Tensor:
        if (storage := x.untyped_storage()).data_ptr() not in weights | {IDS.untyped_storage().data_ptr()}:
            sizes[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        logits = model(IDS[:, :-1])
    foretold, outputs = kept_activations(SPACE, architecture, [(2, 24)], recompute=recompute)
    assert outputs == logits.numel() * 4
    assert sum(sizes.values()) <= 1.02 * foretold
    assert foretold <= 1.6 * sum(sizes.values())  # attention without a kernel of its own keeps its matrix


def test_a_backbone_that_is_too_large_is_refused_before_it_is_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKITECT_MEMORY_GIB", "0.002")
    with pytest.raises(
        SpaceError, match=r"Training the largest model on cpu \(.* tokens at a time\) needs .*MiB"
    ) as error:
        parts_of(tmp_path, "controller=dnas")
    assert "placement.checkpointing=true" in str(error.value)
    assert not (tmp_path / "statistics").exists()
