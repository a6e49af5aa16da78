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
from rankitect.errors import ConfigError
from rankitect.study.folder import config_hash
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

    def remaining_trials(self) -> float:
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
@pytest.mark.parametrize(
    ("known", "warned"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, True),
        ({"avx2": True, "avx512_bf16": True}, False),
        ({"neon": True, "bf16": True}, False),
        ({}, True),
    ],
)
def test_bf16_is_warned_of_where_the_processor_has_no_instructions_for_it(
    known: dict[str, bool], warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    said: list[str] = []
    choose(PlacementConfig(device="cpu", precision="bf16"), said.append)
    assert any("bf16 is emulated on cpu" in text for text in said) is warned


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize(
    ("device", "local", "said"),
    [
        ("cuda:1", "2", "placement.device=cuda:1 is one device, and 4 processes train together"),
        ("mps", "2", "placement.device=mps is one device, and 4 processes.*Allowed with several processes: cpu, cuda"),
        ("cuda", "4", "this machine has 2 for 4 processes"),
        ("auto", "3", "this machine has 2 for 3 processes"),
    ],
)
def test_two_processes_never_share_a_device(
    device: str, local: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"cuda:0": "a GPU", "cuda:1": "another", "mps": "a third"}
    monkeypatch.setattr("rankitect.training.placement.accelerators", lambda: there)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigError, match=said):
        choose(PlacementConfig(device=device), lambda text: None, 4)
    assert placement() == Placement(CPU)


@pytest.mark.usefixtures("_as_before")
def test_several_processes_are_not_placed_on_the_one_device_that_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankitect.training.placement.accelerators", lambda: {"mps": "Apple GPU"})
    assert choose(PlacementConfig(device="auto"), lambda text: None, 2).device == CPU


def test_what_is_drawn_on_an_apple_device_leaves_its_random_state(monkeypatch: pytest.MonkeyPatch) -> None:
    state = [torch.arange(4)]
    monkeypatch.setattr("torch.mps.get_rng_state", lambda: state[0].clone())
    monkeypatch.setattr("torch.mps.set_rng_state", lambda given: state.__setitem__(0, given))
    before = torch.get_rng_state()
    with Placement(torch.device("mps")).own_random_numbers():
        state[0] = torch.zeros(4)  # as a draw would
        torch.rand(3)
    assert torch.equal(state[0], torch.arange(4))
    assert torch.equal(torch.get_rng_state(), before)


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
