"""Settings that choices decide: from the configuration to the training of one architecture, and every mistake named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from rankitect.config.bindings import Bindings
from rankitect.config.parts import Parts, build
from rankitect.config.resolve import resolve, restored
from rankitect.errors import ConfigError

RANKER = ["space=ranking_blocks", "task=ranking", "preset=smoke", "controller=random", "space.blocks=1"]
LR = "choices.lr={low: 1e-4, high: 1e-2, values: 9, log: true}"


def parts(folder: Path, *more: str) -> Parts:
    return build(resolve([*RANKER, *more]), folder, lambda text: None)


def test_a_bound_setting_is_that_of_the_architecture(tmp_path: Path) -> None:
    made = parts(tmp_path, LR, "task.optimizer.lr={choice: lr}", "choices.batch=[64,128]", "task.batch={choice: batch}")
    for seed in range(3):
        architecture = made.space.sample(seed)
        config = made.task.fit_config(architecture, seed)
        assert config.optimizer.lr == architecture["lr"]
        assert config.batch == architecture["batch"]
        assert config.tables.lr == 0.02, "what no choice decides is as ever"


def test_a_model_of_another_space_keeps_the_default(tmp_path: Path) -> None:
    made = parts(tmp_path, LR, "task.optimizer.lr={choice: lr}")
    assert made.task.fit_config(made.task.models["dlrm"].architecture, 0).optimizer.lr == 1e-3


def test_known_architectures_get_the_value_nearest_to_the_default(tmp_path: Path) -> None:
    made = parts(
        tmp_path,
        LR,
        "task.optimizer.lr={choice: lr}",
        "choices.batch=[64,1500]",
        "task.batch={choice: batch}",
        "space.blocks=2",
    )
    point = made.space.points["deepfm"]
    assert (point["lr"], point["batch"]) == (1e-3, 1500), "the defaults are 0.001 and 1,024"
    assert made.space.base is not None
    assert made.space.base.points["deepfm"]["lr"] == 1e-3


def test_a_setting_without_effect_keeps_its_default(tmp_path: Path) -> None:
    made = parts(
        tmp_path,
        "choices.kind=[sgd,adamw]",
        "choices.decay={values: [0.0, 0.1], when: {kind: adamw}}",
        "task.optimizer.kind={choice: kind}",
        "task.optimizer.weight_decay={choice: decay}",
    )
    drawn = [made.space.sample(seed) for seed in range(20)]
    assert {a.get("decay") for a in drawn if a["kind"] == "sgd"} == {None}
    assert {a.get("decay") for a in drawn if a["kind"] == "adamw"} == {0.0, 0.1}
    for architecture in drawn:
        decay = made.task.fit_config(architecture, 0).optimizer.weight_decay
        assert decay == architecture.get("decay", 0.0)


def test_the_data_of_a_configuration_hold_what_was_written() -> None:
    resolved = resolve([*RANKER, LR, "task.optimizer.lr={choice: lr}"])
    assert resolved.data["task"]["optimizer"]["lr"] == {"choice": "lr"}
    again = restored(resolved.data)
    assert again.bindings == resolved.bindings == Bindings({"task": {"optimizer.lr": "lr"}})
    assert again.data == resolved.data


def test_parts_of_a_mixture_are_named_as_its_members_are() -> None:
    from rankitect.space.choice_space import ChoiceSpace
    from rankitect.space.declaring import Choices

    class Config(BaseModel):
        weights: dict[str, int] | list[int] = [1]

    declared = Choices("mixtures")
    declared.simplex("named", ["web", "code"], 3)
    declared.simplex("numbered", 2, 3)
    space = ChoiceSpace(declared)
    architecture = space.architecture(named=(2, 1), numbered=(0, 3))
    for path, value in (("named", {"web": 2, "code": 1}), ("numbered", [0, 3])):
        bindings = Bindings({"stage": {"weights": path}}).within(space, {"stage": Config()}, read=space.choices)
        assert bindings.applied("stage", Config(), architecture).weights == value


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            ["choices.lr=[0.1,0.2]"],
            "The choice 'lr' decides nothing: it shapes no graph, and no setting is bound to it, ",
        ),
        (["task.batch={choice: bat}"], "'task.batch' is to be decided by the choice 'bat', which is in no space. "),
        (
            ["task.data.path={choice: lr}", LR],
            "'task.data.path' on the command line cannot be decided by a choice: it is read once for all architectures."
            " Settings of 'task' that can: task.batch, task.epochs",
        ),
        (
            ["choices.batch=[0,5]", "task.batch={choice: batch}"],
            "'task.batch' is to be decided by the choice 'batch', whose value 0 is not allowed there: should be "
            "greater than or equal to 1.",
        ),
        (["task.bathc={choice: lr}", LR], "Unknown key 'task.bathc' on the command line. Did you mean 'task.batch'"),
        (["choices.lr={low: 1}"], "'choices.lr' on the command line: write a list of values, or {low: "),
        (["choices.lr={low: -1, high: 2, values: 3, log: true}"], "choices.lr: a logarithmic range needs low > 0"),
        (["choices.lr=[a,5]"], "choices.lr: choice 'lr' mixes numbers with other values: ['a', 5]"),
        (["choices.m={values: [1, 2], when: {x: 2}}"], "choices.m: `when` asks for 'x'; declared before it: nothing"),
        (
            ["choices.m={members: 3, total: 0}"],
            "choices.m: choice 'm': `total` must be a whole number from 1 to 1,000,000, not 0",
        ),
        (
            ["choices.embedding=[1,2]", "task.batch={choice: embedding}"],
            "choices: choice 'embedding' is declared twice: space 'ranking_blocks' has one of this name already",
        ),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, given: list[str], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parts(tmp_path, *given)
    assert str(caught.value).startswith(text), str(caught.value)
