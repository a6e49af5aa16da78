"""What is traded for memory changes no result: activations that are computed again, batches in parts, coarser products.

And how much memory a training will take is known before there is any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankitect.contracts import TrialContext
from rankitect.controllers.dnas import STATE
from rankitect.data.continuations import Continuation
from rankitect.errors import SpaceError, TrainingError
from rankitect.methods.shared_weights import CoTraining
from rankitect.methods.teaching import Lesson
from rankitect.metrics.losses import cross_entropy
from rankitect.models.backbone import largest
from rankitect.models.importance import gather
from rankitect.models.packed import plain_likelihoods
from rankitect.models.relaxed import RelaxedSupernet
from rankitect.models.supernet import Supernet, build
from rankitect.search_spaces.mobile_llm import mobile_llm
from rankitect.training.checkpoint import load_state
from rankitect.training.footprint import kept_activations, relaxed_activations
from rankitect.training.loop import TrainConfig, train
from rankitect.training.optimizer import OptimizerConfig
from rankitect.training.placement import Placement, using
from tests.tasks.language.tiny import own_cache, parts_of
from tests.tasks.ranking.tiny import ranking_parts
from tests.training.elsewhere import META, elsewhere
from tests.training.test_placement import CPU, Session, devices


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_cache(tmp_path_factory.mktemp("cache")):
        yield


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


def mixed() -> dict[str, torch.Tensor]:
    """Weights of all choices, somewhere between their values."""
    generator = torch.Generator().manual_seed(3)
    chances = {p: torch.rand(len(c.values), generator=generator).softmax(0) for p, c in SPACE.choices.items()}
    return {path: chance.requires_grad_() for path, chance in chances.items()}


@pytest.mark.parametrize("frozen", [True, False])
def test_the_relaxed_supernet_computes_activations_again_too(frozen: bool) -> None:
    found, held = {}, {}
    for checkpointing in (False, True):
        supernet = Placement(CPU, checkpointing=checkpointing).place(Supernet(SPACE, seed=1))
        relaxed, weights, sizes = RelaxedSupernet(supernet), mixed(), dict[int, int]()
        relaxed.freeze(frozen)

        def keep(x: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = cross_entropy(relaxed(weights, IDS[:, :-1]), IDS[:, 1:])
        loss.backward()
        grads = {**weights, **dict(supernet.named_parameters())}
        found[checkpointing] = {name: x.grad for name, x in grads.items() if x.grad is not None}
        held[checkpointing] = sum(sizes.values())
    assert found[False].keys() == found[True].keys()
    assert "layers.2.attn" in found[True]
    for name, gradient in found[False].items():
        assert torch.equal(gradient, found[True][name]), name
    assert held[True] < held[False] / 2


def test_a_step_of_the_search_in_parts_teaches_what_it_teaches_in_one(tmp_path: Path) -> None:
    learned = {}
    for parts in (1, 2, 64):
        (tmp_path / str(parts)).mkdir()
        with using(Placement(CPU, accumulate=parts)):
            built = parts_of(tmp_path, "controller=dnas", "controller.steps=2", "controller.weight_lr=0")
            built.controller.prepare(Session(tmp_path / str(parts), built))
        learned[parts] = load_state(tmp_path / str(parts) / STATE)[0]
    for name, tensor in learned[1].items():
        for parts in (2, 64):
            torch.testing.assert_close(learned[parts][name], tensor, rtol=1e-3, atol=1e-6)


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
            losses = [weights.step_together(Lesson(architectures, distil=0.5), step) for step in range(2)]
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


class Uniform(torch.nn.Module):
    """Holds every token for equally likely, and notes how many rows it was given at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(ids))
        return torch.zeros(*ids.shape, 4, device=ids.device)


def test_an_accelerator_is_given_more_at_a_time_than_a_processor() -> None:
    asked = [Continuation((1,) * 65, 64)] * 100
    here, there = Uniform(), Uniform()
    assert plain_likelihoods(here, asked).nats == pytest.approx([-np.log(4)] * 100)
    with elsewhere():
        plain_likelihoods(there, asked, device=META)
    assert here.rows == [16] * 6 + [4]  # of 64 tokens each
    assert there.rows == [64, 36]


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


@pytest.mark.parametrize("recompute", [False, True])
def test_activations_of_the_relaxed_supernet_are_known_before_there_are_any(recompute: bool) -> None:
    supernet, sizes = Supernet(SPACE, seed=1), dict[int, int]()
    supernet.recompute = recompute
    relaxed = RelaxedSupernet(supernet)
    relaxed.freeze(True)
    weights = {p.untyped_storage().data_ptr() for p in supernet.parameters()}

    def keep(x: torch.Tensor) -> torch.Tensor:
        if (storage := x.untyped_storage()).data_ptr() not in weights | {IDS.untyped_storage().data_ptr()}:
            sizes[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        logits = relaxed(mixed(), IDS[:, :-1])
    foretold, outputs = relaxed_activations(SPACE, [(2, 24)], recompute=recompute)
    assert outputs == logits.numel() * 4
    assert sum(sizes.values()) <= 1.02 * foretold
    assert foretold <= 1.6 * sum(sizes.values())


def test_the_step_on_the_relaxed_supernet_must_fit_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as much as the training of the largest model needs, a search by activated architectures begins."""
    monkeypatch.setenv("RANKITECT_MEMORY_GIB", "0.002")
    needed = {}
    for controller in ("dnas", "one_shot"):
        with pytest.raises(SpaceError) as error:
            parts_of(tmp_path, f"controller={controller}", "task.refit=false")
        needed[controller] = str(error.value)
    assert needed["dnas"] == needed["one_shot"]
    (mib,) = re.findall(r"needs ([\d.]+) MiB", needed["one_shot"])
    monkeypatch.setenv("RANKITECT_MEMORY_GIB", str((float(mib) + 0.1) / 1024))
    parts_of(tmp_path, "controller=one_shot", "task.refit=false")
    with pytest.raises(SpaceError, match=r"Training the largest model|on the relaxed supernet"):
        parts_of(tmp_path, "controller=dnas")
