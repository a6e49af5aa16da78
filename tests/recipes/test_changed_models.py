"""Stages that give a model of other blocks, or of another architecture: what follows a stage is of what it gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch import nn

import rankitect
from rankitect.blocks import Head, SwiGLU, TiedHead
from rankitect.contracts import JSON, Spent
from rankitect.contracts.stage import StageContext, StageMeasure
from rankitect.errors import ConfigError, SpaceError
from rankitect.graph import SearchSpace
from rankitect.models.candidate import load_candidate
from rankitect.models.plan import make_plan
from rankitect.models.supernet import Standalone, build
from rankitect.recipes import Recipe, StageStore
from rankitect.search_spaces.mobile_llm import mobile_llm

SPACE = mobile_llm(vocab=32, layers=2, widths=[16], kv_heads=[2, 1], group=[2], ffn=[24, 8], patterns=["full"], head=8)
ARCHITECTURE = SPACE.architecture({**SPACE.sample(0).choices, "layers.0.runs": 1, "layers.1.runs": 1})
IDS = torch.arange(12).view(1, 12) % 32


class Untie:
    """Gives the output a table of its own: a copy of the embedding's."""

    class Config(BaseModel):
        """No keys."""

    @classmethod
    def from_config(cls, config: Config, parts: Any) -> Untie:
        return cls()

    def check(self) -> None:
        pass

    def provenance(self) -> Mapping[str, JSON]:
        return {}

    def space_after(self, space: SearchSpace) -> SearchSpace:
        head = next((node for node in space.graph.nodes if isinstance(node.block, TiedHead)), None)
        if head is None:
            raise ConfigError(f"space {space.name!r} has no tied head")
        return space.with_blocks({head.path: Head(head.block.vocab)}, {head.path: head.path})  # type: ignore[attr-defined]

    def run(self, model: Standalone, context: StageContext) -> Standalone:
        assert context.space is not None
        context.space = self.space_after(context.space)
        plan = make_plan(context.space, context.architecture)
        known = dict(model.named_parameters())
        tensors = {key: known.get(".".join(key), known["embed.weight"]).detach().clone() for key in plan.shapes()}
        context.spent = Spent(eval_tokens=1)
        return Standalone(plan, tensors)


@dataclass
class Shorten(Untie):
    """Drops the second layer."""

    computed: int = 0

    def space_after(self, space: SearchSpace) -> SearchSpace:
        return space

    def run(self, model: Standalone, context: StageContext) -> Standalone:
        assert context.space is not None
        self.computed += 1
        context.architecture = context.space.architecture({**context.architecture.choices, "layers.1.runs": 0})
        plan = make_plan(context.space, context.architecture)
        known = dict(model.named_parameters())
        context.spent = Spent(eval_tokens=1)
        return Standalone(plan, {key: known[".".join(key)].detach().clone() for key in plan.shapes()})


class Push(Shorten):
    """Changes the weights in place."""

    def run(self, model: Standalone, context: StageContext) -> Standalone:
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.1
        context.spent = Spent(eval_tokens=1)
        return model


class Killed(Untie):
    """Is killed."""

    def space_after(self, space: SearchSpace) -> SearchSpace:
        return space

    def run(self, model: Standalone, context: StageContext) -> Standalone:
        raise KeyboardInterrupt


def run(stages: Mapping[str, Any], store: StageStore, **keys: Any) -> Any:
    model = build(SPACE, ARCHITECTURE, seed=1)
    return Recipe(stages, store).run(model, ARCHITECTURE, seed=0, space=SPACE, **keys)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model(IDS)
    return result


def test_what_a_stage_makes_goes_on_to_later_stages_and_into_the_result(tmp_path: Path) -> None:
    result = run({"untie": Untie(), "shorten": Shorten()}, StageStore(tmp_path, 2**24))
    assert result.space is not SPACE
    assert isinstance(result.space.graph.node("head").block, Head)
    assert result.architecture["layers.1.runs"] == 0
    assert result.model.plan.architecture == result.architecture
    assert {"head.weight", "embed.weight"} <= dict(result.model.named_parameters()).keys()
    short = SPACE.architecture({**ARCHITECTURE.choices, "layers.1.runs": 0})
    plain = build(SPACE, ARCHITECTURE, seed=1)
    known = dict(plain.named_parameters())
    wanted = Standalone(plan := make_plan(SPACE, short), {key: known[".".join(key)].detach() for key in plan.shapes()})
    assert torch.equal(logits(result.model), logits(wanted))
    assert result.space.cost(short, "params") == SPACE.cost(short, "params") + 32 * 16


def test_a_resumed_recipe_rebuilds_the_changed_model_from_the_store(tmp_path: Path) -> None:
    store, shorten = StageStore(tmp_path, 2**24), Shorten()
    with pytest.raises(KeyboardInterrupt):
        run({"untie": Untie(), "shorten": shorten, "last": Killed()}, store)
    again = run({"untie": Untie(), "shorten": shorten}, store)
    assert shorten.computed == 1
    assert [stage.reused for stage in again.stages] == [True, True]
    assert again.architecture["layers.1.runs"] == 0
    assert isinstance(again.space.graph.node("head").block, Head)
    assert again.space.to_json() == Untie().space_after(SPACE).to_json()
    fresh = run({"untie": Untie(), "shorten": Shorten()}, StageStore(tmp_path / "other", 2**24))
    assert torch.equal(logits(again.model), logits(fresh.model))
    assert replace(again.spent, seconds=0.0) == replace(fresh.spent, seconds=0.0)


def test_a_stored_recipe_that_is_asked_something_new_tells_what_it_began_with_as_well(tmp_path: Path) -> None:
    store = StageStore(tmp_path, 2**24)

    def asked(key: str) -> list[tuple[str, Any]]:
        def size(model: nn.Module, space: SearchSpace, architecture: Any) -> tuple[JSON, Spent]:
            answer = [float(logits(model).sum()), int(architecture["layers.1.runs"])]
            return answer, Spent(eval_tokens=1)

        stages = {"push": Push(), "shorten": Shorten()}
        answers: list[tuple[str, Any]] = run(stages, store, measure=StageMeasure(key, size)).answers(key)
        return answers

    first = asked("one")
    assert [(name, answer[1]) for name, answer in first] == [("", 1), ("push", 1), ("shorten", 0)]
    assert first[0] != ("", first[1][1])
    assert asked("two") == first


def test_a_damaged_pair_in_the_store_is_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, shorten = StageStore(tmp_path, 2**24), Shorten()
    run({"shorten": shorten}, store)
    (entry,) = tmp_path.rglob("*.safetensors")
    key = entry.stem
    tensors, info = store.load(key) or ({}, {})
    info["architecture"]["choices"]["layers.0.ffn"] = 7
    store.save(key, tensors, info)
    run({"shorten": shorten}, store)
    assert shorten.computed == 2
    assert "stored output of a stage cannot be used" in caplog.text


def test_other_blocks_keep_choices_and_fingerprints_and_derive_the_rest() -> None:
    path = "layers.0.mlp"
    block = SPACE.graph.node(path).block
    assert isinstance(block, SwiGLU)
    changed = SPACE.with_blocks({path: replace(block, act="gelu_tanh")})
    assert changed.graph.node(path).block.act == "gelu_tanh"  # type: ignore[attr-defined]
    assert SPACE.graph.node(path).block is block
    for seed in range(20):
        a = SPACE.sample(seed)
        assert changed.sample(seed).fingerprint == a.fingerprint
        assert changed.cost(a, "flops") == SPACE.cost(a, "flops")
    assert SearchSpace.from_json(changed.to_json()).to_json() == changed.to_json()
    assert SPACE.with_blocks({}).to_json() == SPACE.to_json()
    with pytest.raises(SpaceError, match=r"has no node 'layers.0.mpl'; did you mean"):
        SPACE.with_blocks({"layers.0.mpl": block})
    with pytest.raises(SpaceError, match="share the weights"):
        SPACE.with_blocks({path: SwiGLU(24)})


def test_a_training_saves_the_changed_model_and_its_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKITECT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "untie.yaml").write_text(f"target: {__name__}.Untie\n")
    keys: dict[str, Any] = {"allowed_packages": ["rankitect", __name__.partition(".")[0]], "config_dir": tmp_path}
    trained = rankitect.train(
        ["space=mobile_llm", "preset=smoke", "recipe=none", "+recipe.untie.stage=untie"],
        output_dir=str(tmp_path / "run"), quiet=True, **keys,
    )  # fmt: skip
    candidate = load_candidate(trained.folder / "model", allowed_packages=keys["allowed_packages"])
    assert isinstance(candidate.space.graph.node("head").block, Head)
    held = sum(p.numel() for p in candidate.model.parameters())
    assert trained.summary is not None
    assert trained.summary.metrics["params"].value == held
    assert json.loads((trained.folder / "model" / "candidate.json").read_text())["costs"]["params"]["value"] == held
    twice = ["+recipe.untie.stage=untie", "+recipe.again.stage=untie"]
    with pytest.raises(ConfigError, match=r"recipe.again: space 'mobile_llm' has no tied head"):
        rankitect.train(
            ["space=mobile_llm", "preset=smoke", "recipe=none", *twice],
            output_dir=str(tmp_path / "run2"), quiet=True, **keys,
        )  # fmt: skip
