"""A recipe's run: each output is computed once and shared, a killed stage goes on, and foreign states are refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rankitect.blocks import Linear
from rankitect.contracts import JSON, Spent, StopRequested
from rankitect.contracts.stage import StageContext
from rankitect.errors import ConfigError, TrainingError
from rankitect.graph import B, Graph, SearchSpace
from rankitect.recipes import Recipe, StageStore
from rankitect.training.loop import TrainConfig, train
from rankitect.training.settings import OptimizerConfig


@dataclass(frozen=True)
class Arch:
    """As much of an architecture as a recipe looks at."""

    fingerprint: str = "a" * 64


@dataclass
class Pull:
    """A real stage of a few steps: pulls a linear model toward a constant; counts the steps it computes."""

    toward: float
    steps: int = 6
    computed: list[int] = field(default_factory=list)
    kill_at: int | None = None
    data: str = "d"

    def check(self) -> None:
        pass

    def provenance(self) -> Mapping[str, JSON]:
        return {"toward": self.toward, "steps": self.steps, "data": self.data}

    def shortened(self, tokens: int) -> Pull:
        return replace(self, steps=tokens)

    def run(self, model: nn.Module, context: StageContext) -> nn.Module:
        def loss(module: nn.Module, batch: torch.Tensor) -> torch.Tensor:
            return (module(batch) - self.toward).square().mean()

        def batch_at(step: int) -> torch.Tensor:
            if step == self.kill_at:
                raise KeyboardInterrupt
            self.computed.append(step)
            return torch.randn(4, 3)

        def progress(done: int, total: int, report: Any) -> None:
            context.spent = Spent(train_tokens=done)
            context.progress(done, total, "")

        config = TrainConfig(self.steps, OptimizerConfig(lr=0.1), seed=context.seed, checkpoint_every=1)
        train(
            model, loss, batch_at, config, checkpoint=context.checkpoint, should_stop=context.should_stop,
            progress=progress, keep_finished=False, provenance=self.provenance(),
        )  # fmt: skip
        context.check()
        return model


class Save(Pull):
    """Ends a recipe: leaves a file, and no model."""

    ends_recipe = True

    def run(self, model: nn.Module, context: StageContext) -> nn.Module:
        if context.folder is not None:
            (context.folder / "out.txt").write_text("here")
            context.artifacts["out"] = "out.txt"
        return model


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def other_space() -> SearchSpace:
    graph = Graph("other")
    graph.out = Linear(1)(graph.input("x", B, 3), name="linear")
    return SearchSpace(graph)


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "stages", limit=2**20)


def run(stages: Mapping[str, Any], store: StageStore, **keys: Any) -> Any:
    return Recipe(stages, store).run(model(), keys.pop("architecture", Arch()), **{"seed": 3, **keys})


def states(store: StageStore) -> list[Path]:
    return sorted(store.root.rglob("*.state.safetensors"))


def test_a_shared_beginning_is_computed_once_and_charged_to_everyone(store: StageStore) -> None:
    first, second, other = Pull(1.0), Pull(2.0), Pull(-2.0)
    one = run({"heal": first, "b": second}, store)
    assert (len(first.computed), len(second.computed), one.reused) == (6, 6, Spent())
    assert replace(one.spent, seconds=0.0) == Spent(train_tokens=12)
    variant = run({"begin": first, "c": other}, store)
    assert (len(first.computed), len(other.computed)) == (6, 6), "the beginning is not computed again"
    assert replace(variant.spent, seconds=0.0) == Spent(train_tokens=12), "and charged all the same"
    assert replace(variant.reused, seconds=0.0) == Spent(train_tokens=6)
    assert [(s.name, s.reused) for s in variant.stages] == [("begin", True), ("c", False)]
    alone = run({"begin": Pull(1.0), "c": Pull(-2.0)}, StageStore(store.root / "other", 2**20))
    assert torch.equal(weights(variant.model), weights(alone.model)), "reuse changes no bit"
    again = run({"heal": first, "b": second}, store)
    assert torch.equal(weights(again.model), weights(one.model))
    assert replace(again.reused, seconds=0.0) == replace(again.spent, seconds=0.0)


@pytest.mark.parametrize(
    ("stage", "keys"),
    [
        (Pull(1.5), {}),
        (Pull(1.0, data="e"), {}),
        (Pull(1.0), {"seed": 4}),
        (Pull(1.0), {"architecture": Arch("b" * 64)}),
        (Pull(1.0), {"space": other_space()}),
    ],
)
def test_what_differs_in_settings_data_seed_architecture_or_space_is_not_shared(
    store: StageStore, stage: Pull, keys: dict[str, Any]
) -> None:
    run({"a": Pull(1.0)}, store)
    assert run({"a": stage}, store, **keys).reused == Spent()
    assert len(stage.computed) == 6


def test_outputs_of_a_processor_with_other_instructions_are_not_shared(
    store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run({"a": Pull(1.0)}, store)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    assert run({"a": Pull(1.0)}, store).reused == Spent()


def test_other_inherited_weights_are_not_shared(store: StageStore) -> None:
    run({"a": Pull(1.0)}, store)
    stage, adopted = Pull(1.0), model()
    with torch.no_grad():
        adopted.bias += 1e-6
    assert Recipe({"a": stage}, store).run(adopted, Arch(), seed=3).reused == Spent()


@pytest.mark.parametrize("killed", [1, 3, 5])
def test_a_killed_recipe_goes_on_where_it_was(store: StageStore, killed: int) -> None:
    whole = run({"a": Pull(1.0), "b": Pull(2.0)}, StageStore(store.root / "whole", 2**20))
    first, second = Pull(1.0), Pull(2.0, kill_at=killed)
    with pytest.raises(KeyboardInterrupt):
        run({"a": first, "b": second}, store)
    second.kill_at = None
    resumed = run({"a": first, "b": second}, store)
    assert first.computed == second.computed == list(range(6)), "no step is computed twice"
    assert torch.equal(weights(resumed.model), weights(whole.model))
    assert replace(resumed.spent, seconds=0.0) == replace(whole.spent, seconds=0.0)
    assert states(store) == [], "a finished stage leaves no state"


def test_a_stop_is_kept_and_gone_on_from(store: StageStore) -> None:
    stage, polls = Pull(1.0), iter(range(100))
    with pytest.raises(StopRequested):
        run({"a": stage}, store, should_stop=lambda: next(polls) >= 3)
    assert len(states(store)) == 1
    run({"a": stage}, store)
    assert stage.computed == list(range(6))


def test_a_state_of_other_data_or_settings_is_refused_by_name(store: StageStore, tmp_path: Path) -> None:
    place = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        run({"heal": Pull(1.0, kill_at=4)}, store, checkpoints=place)
    for other, text in (
        (Pull(1.0, data="e"), 'recipe.heal: .* data "d" and not "e"'),
        (Pull(1.5), r"recipe.heal: .* toward 1.0 and not 1.5"),
        (Pull(1.0, steps=7), "recipe.heal: .* steps 6 and not 7"),
    ):
        with pytest.raises(TrainingError, match=text):
            run({"heal": other}, store, checkpoints=place)
    assert run({"heal": Pull(1.0)}, store, checkpoints=place).spent.train_tokens == 6
    assert list(place.iterdir()) == []


def test_a_state_that_another_recipe_left_under_the_same_name_is_not_gone_on_from(
    store: StageStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        run({"a": Pull(2.0), "heal": Pull(1.0, kill_at=4)}, store, checkpoints=place)
    again = Pull(1.0, kill_at=5)
    with pytest.raises(KeyboardInterrupt):  # the same settings and shapes, and another model to begin with
        run({"a": Pull(-2.0), "heal": again}, store, checkpoints=place)
    assert again.computed == list(range(5))
    assert "the stage begins again" in caplog.text
    again.kill_at = None
    result = run({"a": Pull(-2.0), "heal": again}, store, checkpoints=place)
    assert again.computed == list(range(6)), "its own state is gone on from"
    alone = run({"a": Pull(-2.0), "heal": Pull(1.0)}, StageStore(tmp_path / "other", 2**20))
    assert torch.equal(weights(result.model), weights(alone.model))
    assert list(place.iterdir()) == []


def test_a_state_is_gone_on_from_with_another_number_of_threads_and_one_of_an_earlier_version_as_well(
    store: StageStore, tmp_path: Path
) -> None:
    place, stage, threads = tmp_path / "state", Pull(1.0, kill_at=3), torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        run({"heal": stage}, store, checkpoints=place)
    stage.kill_at = 5
    try:
        torch.set_num_threads(threads + 1)
        with pytest.raises(KeyboardInterrupt):
            run({"heal": stage}, store, checkpoints=place)
    finally:
        torch.set_num_threads(threads)
    (place / "heal.origin").unlink()  # earlier versions wrote none
    stage.kill_at = None
    run({"heal": stage}, store, checkpoints=place)
    assert stage.computed == list(range(6))


def test_a_damaged_entry_is_computed_again_with_a_sentence(store: StageStore, caplog: pytest.LogCaptureFixture) -> None:
    stage = Pull(1.0)
    before = weights(run({"a": stage}, store).model)
    (entry,) = store.root.rglob("*.safetensors")
    entry.write_bytes(entry.read_bytes()[:-4])
    assert torch.equal(weights(run({"a": stage}, store).model), before)
    assert len(stage.computed) == 12
    assert "stored output of a stage cannot be used and is computed again" in caplog.text
    assert run({"a": stage}, store).reused.train_tokens == 6, "the entry is mended"


def test_a_damaged_state_in_the_store_begins_the_stage_again(
    store: StageStore, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run({"a": Pull(1.0, kill_at=4)}, store)
    states(store)[0].write_bytes(b"short")
    stage = Pull(1.0)
    run({"a": stage}, store)
    assert stage.computed == list(range(6))
    assert "A stage begins again" in caplog.text


def test_a_store_that_cannot_be_written_costs_only_the_reuse(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    stage = Pull(1.0)
    result = run({"a": stage}, StageStore(tmp_path / "file", 2**20))
    assert (len(stage.computed), result.spent.train_tokens) == (6, 6)
    assert "is not kept for reuse" in caplog.text


def test_the_store_stays_within_its_limit_and_drops_what_was_used_least_recently(tmp_path: Path) -> None:
    entry = StageStore(tmp_path / "one", 2**20)
    run({"a": Pull(0.0)}, entry)
    size = sum(path.stat().st_size for path in entry.root.rglob("*.safetensors"))
    store = StageStore(tmp_path / "stages", int(2.5 * size))
    for age, toward in ((30, 1.0), (20, 2.0)):
        known = set(store.root.rglob("*.safetensors"))
        run({"a": Pull(toward)}, store)
        (new,) = set(store.root.rglob("*.safetensors")) - known
        os.utime(new, (new.stat().st_mtime - age,) * 2)
    assert run({"a": Pull(1.0)}, store).reused.train_tokens == 6, "reading counts as use"
    run({"a": Pull(3.0)}, store)
    assert sum(path.stat().st_size for path in store.root.rglob("*.safetensors")) <= store.limit
    assert run({"a": Pull(1.0)}, store).reused.train_tokens == 6
    assert run({"a": Pull(2.0)}, store).reused == Spent()


def test_nothing_is_kept_where_the_limit_is_0_or_keeping_is_not_wanted(tmp_path: Path, store: StageStore) -> None:
    nothing = StageStore(tmp_path / "none", 0)
    for _ in range(2):
        assert run({"a": Pull(1.0)}, nothing).reused == Spent()
    assert not nothing.root.exists()
    run({"a": Pull(1.0)}, store, keep=False)
    assert list(store.root.rglob("*.safetensors")) == []


def test_a_limit_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKITECT_STAGES_GIB", "many")
    with pytest.raises(ConfigError, match="RANKITECT_STAGES_GIB is 'many': it must be a number of gibibytes"):
        StageStore()


def test_a_stage_that_ends_the_recipe_leaves_files_every_time(store: StageStore, tmp_path: Path) -> None:
    stages = {"a": Pull(1.0), "export": Save(0.0)}
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        result = run(stages, store, folder=folder)
        assert dict(result.artifacts) == {"out": "out.txt"}
        assert (folder / "out.txt").exists()
    assert result.reused.train_tokens == 6


def test_spending_is_told_while_stages_run(store: StageStore) -> None:
    told: list[int] = []
    run({"a": Pull(1.0, steps=2), "b": Pull(2.0, steps=2)}, store, spend=lambda spent: told.append(spent.train_tokens))
    assert told == [1, 2, 2, 3, 4, 4]


def test_a_short_version_is_the_first_stage_alone() -> None:
    short = Recipe({"a": Pull(1.0), "b": Pull(2.0)}).shortened(2)
    assert list(short.stages) == ["a"]
    assert short.stages["a"].provenance()["steps"] == 2
    with pytest.raises(ConfigError, match="The recipe is empty"):
        Recipe({}).shortened(2)


def test_an_empty_recipe_gives_the_model_back(store: StageStore) -> None:
    one = model()
    result = Recipe({}, store).run(one, Arch(), seed=0)
    assert result.model is one
    assert result.spent == Spent()
