"""The stages `quantize` and `qat`: what follows them computes in few bits, and training wins back what that costs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from rankitect.contracts import JSON, Spent
from rankitect.contracts.evaluator import StopRequested
from rankitect.contracts.stage import StageContext
from rankitect.errors import ConfigError, RankitectError
from rankitect.models.candidate import load_candidate
from rankitect.models.supernet import Standalone, build
from rankitect.quantization.settings import QuantizeConfig
from rankitect.recipes import Recipe, StageStore
from rankitect.recipes.quantize import Quantize
from rankitect.search_spaces.mobile_llm import mobile_llm
from rankitect.search_spaces.mobile_llm_bits import Bits
from rankitect.train import train
from tests.tasks.language.tiny import own_cache, parts_of

SPACE = mobile_llm(vocab=32, layers=2, widths=[16], kv_heads=[2, 1], group=[2], ffn=[24, 8], patterns=["full"], head=8)
ARCHITECTURE = SPACE.architecture({**SPACE.sample(0).choices, "layers.0.runs": 1, "layers.1.runs": 1})
SMOKE = ["preset=smoke", "runner.threads=1", "runner.progress=false", "recipe=qat_8da4w"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path) -> Iterator[None]:
    with own_cache(tmp_path / "cache"):
        yield


@dataclass
class Shift:
    """Adds a number to every weight."""

    by: float
    computed: int = 0

    def check(self) -> None:
        pass

    def provenance(self) -> Mapping[str, JSON]:
        return {"by": self.by}

    def run(self, model: Standalone, context: StageContext) -> Standalone:
        self.computed += 1
        with torch.no_grad():
            for weight in model.parameters():
                weight += self.by
        context.spent = Spent(eval_tokens=1)
        return model


@dataclass
class Look(Shift):
    """Keeps the teacher that it is given."""

    teacher: str = "float"
    seen: Any = None

    @property
    def earlier(self) -> str:
        return self.teacher

    def provenance(self) -> Mapping[str, JSON]:
        return {"by": self.by, "teacher": self.teacher}

    def run(self, model: Standalone, context: StageContext) -> Standalone:
        self.seen = context.earlier
        return super().run(model, context)


@dataclass
class Free(Shift):
    """Costs nothing."""

    def run(self, model: Standalone, context: StageContext) -> Standalone:
        changed = super().run(model, context)
        context.spent = Spent()
        return changed


def rtn() -> Quantize:
    return Quantize(QuantizeConfig(method="rtn", bits=4, group=8, head_group=0), None)


def run(stages: Mapping[str, Any], store: StageStore) -> Any:
    model = build(SPACE, ARCHITECTURE, seed=1)
    return Recipe(stages, store).run(model, ARCHITECTURE, seed=0, space=SPACE)


def first(model: Any) -> float:
    return float(dict(model.named_parameters())["layers.0.mlp.up"].detach().flatten()[0])


@pytest.mark.parametrize("resumed", [False, True])
def test_a_stage_learns_from_the_model_before_it_was_quantized_or_after_any_stage(
    tmp_path: Path, resumed: bool
) -> None:
    store, start = StageStore(tmp_path, 2**24), first(build(SPACE, ARCHITECTURE, seed=1))
    before = {"a": Shift(1.0), "b": Shift(2.0), "quantize": rtn(), "c": Shift(4.0)}
    if resumed:
        run(before, store)
    for teacher, wanted, is_float in (("float", 3, True), ("a", 1, True), ("b", 3, True), ("c", 7, False)):
        look = Look(8.0, teacher=teacher)
        stages = {**before, "look": look, "later": Shift(0.5)}
        result = run(stages, store if resumed else StageStore(tmp_path / teacher, 2**24))
        assert first(look.seen) == pytest.approx(start + wanted)
        assert first(result.model) == pytest.approx(start + 15.5)
        assert look.seen.plan.is_float == is_float
        assert not result.model.plan.is_float
        assert not any(p.requires_grad for p in look.seen.parameters())
    if resumed:
        assert before["a"].computed == 1  # type: ignore[attr-defined]


def test_nothing_that_cost_something_is_computed_again_for_a_stage_that_learns_from_before(tmp_path: Path) -> None:
    store, start = StageStore(tmp_path, 2**24), first(build(SPACE, ARCHITECTURE, seed=1))
    for names in (["warm", "free", "heal"], ["warm", "free", "heal", "quantize", "train"]):
        parts = {"warm": Shift(1.0), "free": Free(2.0), "heal": Shift(4.0), "quantize": rtn(), "train": Shift(8.0)}
        before = {name: parts[name] for name in names}

        class Killed(Look):
            def run(self, model: Standalone, context: StageContext) -> Standalone:
                raise StopRequested

        with pytest.raises(StopRequested):
            run({**before, "look": Killed(16.0)}, store)
        assert parts["warm"].computed == (len(names) == 3)
        look = Look(16.0)
        assert first(run({**before, "look": look}, store).model) == pytest.approx(start + 23 + 8 * (len(names) == 5))
        assert first(look.seen) == pytest.approx(start + 7)
        assert all(stage.computed <= 1 for stage in before.values() if isinstance(stage, Shift))


def test_a_teacher_is_another_where_its_name_is_another_stages(tmp_path: Path) -> None:
    store, start = StageStore(tmp_path, 2**24), first(build(SPACE, ARCHITECTURE, seed=1))
    for names, wanted in ((("a", "b"), 1.0), (("b", "a"), 3.0)):
        look = Look(4.0, teacher="a")
        run({names[0]: Shift(1.0), names[1]: Shift(2.0), "look": look}, store)
        assert first(look.seen) == pytest.approx(start + wanted)


@pytest.mark.parametrize("resumed", [False, True])
def test_of_a_model_that_has_few_bits_from_the_beginning_the_float_model_is_the_trained_one(
    tmp_path: Path, resumed: bool
) -> None:
    space = SPACE.with_blocks(
        {node.path: node.block for node in rtn().space_after(SPACE).graph.nodes if node.path.endswith("mlp")}
    )
    start = first(build(space, ARCHITECTURE, seed=1))

    def given(stages: Mapping[str, Any], store: StageStore) -> Any:
        return Recipe(stages, store).run(build(space, ARCHITECTURE, seed=1), ARCHITECTURE, seed=0, space=space)

    cases: list[tuple[dict[str, Any], int]] = [
        ({}, 0),
        ({"heal": Shift(1.0)}, 1),
        ({"heal": Shift(1.0), "more": Shift(2.0)}, 3),
        ({"heal": Shift(1.0), "quantize": rtn(), "tune": Shift(2.0)}, 1),  # which quantizes the rest as well
        ({"heal": Shift(1.0), "first": Look(2.0), "tune": Shift(4.0)}, 1),  # which learns from it
    ]
    for number, (before, wanted) in enumerate(cases):
        store, look = StageStore(tmp_path / str(number), 2**24), Look(8.0)
        if resumed:
            given(before, store)
        result = given({**before, "look": look}, store)
        assert look.seen.plan.is_float
        assert not result.model.plan.is_float
        assert first(look.seen) == pytest.approx(start + wanted)
        assert not before or before["heal"].computed == 1


def test_where_bits_are_choices_the_rest_is_as_configured_and_what_decides_nothing_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def opened(**bits: Any) -> Any:
        shape: dict[str, Any] = {"widths": [16], "kv_heads": [1], "group": [2], "ffn": [24], "patterns": ["full"]}
        return mobile_llm(vocab=32, layers=2, head=8, bits=Bits((8, 4), (8, 4), (8, 4), group=8, **bits), **shape)

    def cached(space: Any) -> Any:
        return space.graph.node("layers.0.attn.full").block.cache_bits

    few = Quantize(QuantizeConfig(method="rtn", cache_bits=4, bits=3, group=8), None)
    space = few.space_after(opened())
    assert cached(space) == 4
    assert space.graph.node("layers.0.mlp").block == opened().graph.node("layers.0.mlp").block
    (told,) = caplog.messages
    assert "bits=3, group=8 decides nothing in space=mobile_llm" in told
    few.space_after(opened())
    assert len(caplog.messages) == 1, "told once"
    plain = Quantize(QuantizeConfig(method="rtn"), None)
    assert cached(plain.space_after(opened(cache=8))) == 8, "what the space states is not undone by a default"
    assert plain.space_after(opened()).to_json() == opened().to_json()
    assert len(caplog.messages) == 1


def test_a_teacher_that_is_no_earlier_stage_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"recipe.look: teacher=late is no stage before it; allowed: backbone, float, a"
    ):
        Recipe({"a": Shift(1.0), "look": Look(1.0, teacher="late"), "late": Shift(1.0)})


def test_a_recipe_heals_quantizes_and_trains_in_few_bits(tmp_path: Path) -> None:
    done = train(SMOKE, output_dir=tmp_path / "run", quiet=True)
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert found["recipe"] == ["heal", "quantize", "qat"]
    assert found["spent"]["train_tokens"] == 256
    assert found["spent"]["teacher_tokens"] == 256
    candidate = load_candidate(done.folder / "model")
    block = candidate.space.graph.node("layers.0.mlp").block
    assert (block.bits, block.act_bits, block.ranges) == (4, 8, "stored")  # type: ignore[attr-defined]
    assert any(name.endswith("_scale") for name, _ in candidate.model.named_parameters())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["recipe.quantize.group=48"], r"recipe.quantize: at .*the scale_group of the weight .* is 48"),
        (["recipe.quantize.bits=9"], r"recipe.quantize.bits"),
        (["recipe.quantize.calibration_tokens=64", "recipe.quantize.calibration_context=8"], "of rank 64 at most"),
        (["recipe.quantize.calibration_context=512"], "context is 512; a window is no more than .*tokens=256"),
        (["+recipe.heal2.stage=train"], r"recipe.heal2: the weights of embed have stored scales.* the stage qat"),
        (["+recipe.cut={stage: prune, ffn: 64}"], r"recipe.cut: the weights of .*mlp have stored scales.* before quan"),
        (["recipe.qat.teacher=nobody"], "recipe.qat: teacher=nobody is no stage before it; allowed: backbone, float,"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_any_work(tmp_path: Path, keys: list[str], message: str) -> None:
    with pytest.raises(RankitectError, match=message):
        train([*SMOKE, *keys], output_dir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


PROGRAM = ["recipe=quantize_8da4w", "+recipe.program={stage: export, prompt: 16, capacity: 32}"]


def test_a_choice_of_bits_that_no_recipe_can_run_with_is_refused_before_any_work(tmp_path: Path) -> None:
    chosen = [*PROGRAM, "recipe.quantize.bits={choice: bits}", "+choices.bits=[8,3]"]
    with pytest.raises(ConfigError, match=r"choices: with bits=3 the recipe cannot run: recipe.program: .*, weight '"):
        parts_of(tmp_path, *chosen)


def test_values_that_do_not_go_together_are_refused_for_the_architecture_that_has_both(tmp_path: Path) -> None:
    chosen = ["recipe.quantize.bits={choice: bits}", "recipe.quantize.act_bits={choice: act}"]
    values = ["recipe.quantize.head_act_bits=8", "+choices.bits=[4,32]", "+choices.act=[8,32]"]
    parts = parts_of(tmp_path, *PROGRAM, *chosen, *values)
    usual = parts.space.sample(0)
    for bits, act in ((4, 8), (32, 32)):
        stages = parts.stages_for(parts.space.architecture({**usual.choices, "bits": bits, "act": act}))
        assert stages["program"].earlier == "float"  # type: ignore[attr-defined]
    with pytest.raises(RankitectError, match=r"recipe.program: .*cannot be exported"):
        parts.stages_for(parts.space.architecture({**usual.choices, "bits": 32, "act": 8}))


def test_training_in_few_bits_without_a_quantized_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"recipe.qat: no weight of space 'mobile_llm' is of few bits here"):
        train([*SMOKE, "recipe=heal", "+recipe.qat.stage=qat"], output_dir=tmp_path / "run", quiet=True)
