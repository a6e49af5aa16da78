"""Recipes in a configuration: defaults, order, old keys, and what every mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankitect.config import resolve
from rankitect.errors import ConfigError
from rankitect.recipes.distil import Distil
from rankitect.recipes.train import Train


def message(*overrides: str, folder: Path | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        resolve(overrides, folder)
    return str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's own folder of configurations."""
    for group in ("recipe", "stage", "preset"):
        (tmp_path / group).mkdir()
    return tmp_path


def test_language_models_are_healed_and_rankers_have_no_recipe() -> None:
    healed = resolve([]).data["recipe"]
    assert list(healed) == ["heal"]
    assert healed["heal"]["stage"] == "distil"
    settings = {key: value for key, value in healed["heal"].items() if key not in ("stage", "target")}
    assert settings == Distil.Config().model_dump(mode="json")
    assert resolve(["space=ranking_blocks"]).data["recipe"] == {}
    assert resolve(["recipe=none"]).data["recipe"] == {}


def test_healing_does_by_default_what_it_always_did() -> None:
    known = {"tokens": 10240, "batch": 4, "context": 128, "k": 64, "ce_weight": 0.0, "temperature": 1.0, "lr": 2e-4}
    known |= {"schedule": "linear", "warmup": 4, "final_lr": 0.0, "weight_decay": 0.01, "clip": 1.0, "samples": 64}
    settings = Distil.Config().model_dump()
    assert {key: settings[key] for key in known} == known
    assert settings["betas"] == (0.9, 0.95)


def test_stages_keep_their_order_and_can_be_added_changed_and_taken_away() -> None:
    resolved = resolve(
        ["recipe=heal_export", "recipe.heal.tokens=200_000", "recipe.export=null", "+recipe.last.stage=train"]
    )
    assert list(resolved.data["recipe"]) == ["heal", "last"]
    assert resolved.plugins["recipe.heal"].config == Distil.Config(tokens=200_000)
    assert resolved.plugins["recipe.last"].target is Train
    assert [section for section in resolved.plugins if section.startswith("recipe.")] == ["recipe.heal", "recipe.last"]


def test_a_users_folder_can_add_a_stage_and_a_recipe(folder: Path) -> None:
    (folder / "stage" / "brief.yaml").write_text("target: rankitect.recipes.train.Train\ntokens: 1024\nlr: 0.01\n")
    (folder / "recipe" / "mine.yaml").write_text("warm: {stage: brief, lr: 0.02}\nheal: {stage: distil}\n")
    plugins = resolve(["recipe=mine", "recipe.warm.batch=2"], folder).plugins
    assert plugins["recipe.warm"].config == Train.Config(tokens=1024, lr=0.02, batch=2)
    assert plugins["recipe.warm"].name == "brief"


@pytest.mark.parametrize("missing", ["quantize", "program"])
def test_a_users_recipe_of_some_stages_of_the_guards_gets_no_smoke_settings_of_others(
    folder: Path, missing: str
) -> None:
    stages = {"verdicts": "train", "prune": "prune", "distil": "distil", "quantize": "quantize", "qat": "qat"}
    stages["program"] = "export"
    del stages[missing]
    layers = {"prune": ", layers: 4"}
    lines = [f"{name}: {{stage: {stage}{layers.get(name, '')}}}\n" for name, stage in stages.items()]
    (folder / "recipe" / "mine.yaml").write_text("".join(lines))
    resolved = resolve(["recipe=mine", "preset=smoke"], folder)
    assert list(resolved.data["recipe"]) == list(stages)
    assert resolved.data["recipe"]["verdicts"]["tokens"] == 512


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["heal.tokens=512"], "Unknown key 'heal.tokens' on the command line: it is 'recipe.heal.tokens' now."),
        (["recipe=heel"], "Unknown recipe 'heel'. Did you mean 'heal'? Allowed: finetune, "),
        (
            ["recipe.heal.stage=distill"],
            "'recipe.heal.stage' on the command line is 'distill', which is no stage. Did you mean 'distil'? Stages: "
            "distil, export, gguf, ",
        ),
        (
            ["recipe.heel.tokens=5"],
            "'recipe.heel' on the command line does not say which stage it is. Did you mean 'recipe.heal'?",
        ),
        (["recipe.heal.stage=5"], "'recipe.heal.stage' on the command line is 5: should be a valid string."),
        (["recipe.heal.stage=null"], "'recipe.heal.stage' on the command line is null: should be a valid string."),
        (["recipe.more=3"], "'recipe.more' on the command line is 3, which does not say which stage it is."),
        (["recipe.more=3"], "A stage of its own needs recipe.more.stage=, one of distil, export, gguf, "),
        (
            ["recipe.heal.token=5"],
            "Unknown key 'recipe.heal.token' on the command line. Did you mean 'recipe.heal.tokens'",
        ),
        (["lr=3"], "Unknown key 'lr' on the command line. Did you mean 'recipe.heal.lr'"),
        (
            ["recipe.heal.tokens=0"],
            "'recipe.heal.tokens' on the command line is 0: should be greater than or equal to 1.",
        ),
        (["recipe.heal.stage=3"], "'recipe.heal.stage' on the command line is 3: should be a valid string."),
        (["recipe.heal.lr=9"], "'recipe.heal.lr' on the command line is 9: should be less than or equal to 1."),
        (["recipe.heal.lr=fast"], "'recipe.heal.lr' on the command line is 'fast': should be a valid number"),
        (["recipe.heal.lr=.inf"], "'recipe.heal.lr' on the command line is '.inf': should be a valid number"),
        (
            ["recipe.heal.target=a.b"],
            "'recipe.heal.target' on the command line: the class of a stage is named in its file",
        ),
        (
            ["recipe=heal_export", "recipe.more.stage=train"],
            "'recipe.more' comes after 'recipe.export', whose stage 'export' gives files and no model: that stage must "
            "be the last of its recipe.",
        ),
        (["recipe=heal_export", "recipe.export.capacity=5"], "capacity must be more than the prompt's 64 tokens."),
    ],
)
def test_a_mistake_in_a_recipe_is_explained(overrides: list[str], text: str) -> None:
    assert text in message(*overrides)


def test_all_mistakes_of_a_recipe_are_listed_at_once() -> None:
    lines = message("recipe.heal.tokens=0", "+recipe.more.stage=nope", "+recipe.last.stage=train", "recipe.last.lr=0")
    assert [line.split("'")[1] for line in lines.splitlines()] == [
        "recipe.heal.tokens", "recipe.more.stage", "recipe.last.lr",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("group", "content", "text"),
    [
        (
            "recipe",
            "a: {stage: train}\na: {stage: distil}\n",
            "recipe/mine.yaml has the key 'a' twice, again in line 2.",
        ),
        ("recipe", "a/b: {stage: train}\n", "'a/b'"),
        ("recipe", "# @package _global_\nheal: {tokens: 5}\n", "recipe/mine.yaml:2: it is 'recipe.heal.tokens' now."),
        ("preset", "# @package _global_\nheal:\n  lr: 5\n", "preset/mine.yaml:3: it is 'recipe.heal.lr' now."),
        ("recipe", "a: {stage: train\n", "recipe/mine.yaml is no YAML in line 2: "),
        ("recipe", "- train\n", "recipe/mine.yaml must hold a mapping of names to values, not a list"),
    ],
)
def test_a_mistake_in_a_users_file_names_file_and_line(folder: Path, group: str, content: str, text: str) -> None:
    (folder / group / "mine.yaml").write_text(content)
    assert text in message(f"{group}=mine", folder=folder)


def test_a_stage_file_without_a_class_is_refused(folder: Path) -> None:
    (folder / "stage" / "mine.yaml").write_text("tokens: 5\n")
    text = message("recipe.heal.stage=mine", folder=folder)
    assert "stage/mine.yaml must have a line target: package.module.Class, the class of the stage." in text
