"""What a configuration may not do, wherever it comes from, and what it may not do where it comes from a file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
from annotated_types import Le, Lt
from pydantic import BaseModel

from rankitect.config import resolve
from rankitect.config.compose import configs_folder, groups
from rankitect.config.help import help_text
from rankitect.config.plugins import config_model, load_target
from rankitect.config.schema import PluginConfig, SearchConfig, StageConfig
from rankitect.contracts import plugin
from rankitect.contracts.plugin import is_declared
from rankitect.documents import read_yaml
from rankitect.errors import ConfigError


def refusal(*overrides: str, folder: Path | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        resolve(overrides, folder)
    assert len(str(error.value)) <= 500
    return str(error.value)


def written(folder: Path, **files: str) -> Path:
    """A folder of configurations; the name of a file is group_option."""
    for name, text in files.items():
        group, _, option = name.partition("_")
        (folder / group).mkdir(exist_ok=True)
        (folder / group / f"{option}.yaml").write_text(text)
    return folder


# What a target may be -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "target",
    [
        "rankitect.data.files.write_whole", "rankitect.data.files.write_atomically", "rankitect.report.main",
        "rankitect.study.folder.RunFolder", "rankitect.models.candidate.load_candidate", "rankitect.search.search",
        "rankitect.errors.ConfigError", "rankitect.deploy.android.Android", "rankitect.data.assets.fetch",
    ],
)  # fmt: skip
@pytest.mark.parametrize("section", ["space", "task", "controller", "evaluator.final", "device"])
def test_what_can_be_imported_is_not_therefore_a_plug_in(section: str, target: str) -> None:
    assert "does not declare itself a plug-in" in refusal(f"{section}.target={target}", f"{section}.name=x")


def test_a_plug_in_declares_itself_by_its_contract_or_by_a_mark() -> None:
    class Keyed:
        class Config(BaseModel):
            size: int = 1

    class Made:
        @classmethod
        def from_config(cls, config: Any, parts: Any) -> Made:
            return cls()

    def space() -> SearchSpace:  # type: ignore[name-defined]  # noqa: F821 - as text, as annotations are
        raise NotImplementedError

    def other(path: str) -> None:
        raise NotImplementedError

    makes = ("SearchSpace",)
    assert all(is_declared(target, makes) for target in (Keyed, Made, space))
    assert not is_declared(other, makes)
    assert not is_declared(space, ("Module",))
    assert not is_declared(print, makes)
    assert plugin(other) is other
    assert is_declared(other, makes)


def test_every_target_of_the_package_is_declared() -> None:
    for options in groups([configs_folder()]).values():
        for path in options.values():
            content = read_yaml(path) or {}
            for target in _targets(content):
                assert load_target(target, ["rankitect"], str(path))


def _targets(content: Any) -> list[str]:
    if not isinstance(content, dict):
        return []
    own = [content["target"]] if isinstance(content.get("target"), str) else []
    return own + [target for value in content.values() for target in _targets(value)]


def test_a_part_of_another_kind_is_refused_before_any_work(tmp_path: Path) -> None:
    from rankitect.search import search

    with pytest.raises(ConfigError, match=r"controller\.target: Settings makes no controller: it has no ask, prepare"):
        search(
            ["space=settings", "task=ranking", "preset=smoke", "~preset_controller",
             "controller.target=rankitect.search_spaces.settings.Settings"],
            output_dir=tmp_path / "run", quiet=True,
        )  # fmt: skip
    assert not (tmp_path / "run").exists(), "a refused command leaves no folder behind"


# What only the user may say -------------------------------------------------------------------------------------------
ROOT = "# @package _global_\n"
ADB = "target: rankitect.deploy.devices.AndroidDevice\n"


@pytest.mark.parametrize(
    ("files", "overrides", "key"),
    [
        ({"preset_mine": f"{ROOT}allowed_packages: [rankitect, os]\n"}, ["preset=mine"], "allowed_packages"),
        ({"device_mine": f"{ADB}adb: ./evil.sh\n"}, ["device=mine"], "device.adb"),
        ({"runner_mine": "kind: ray\naddress: ray://elsewhere:10001\n"}, ["runner=mine"], "runner.address"),
        ({"device_mine": f"{ADB}runner_path: /bin/sh\n"}, ["device=mine"], "device.runner_path"),
        ({"device_mine": f"{ADB}adb: ./evil.sh\n"}, ["device=mine", "++device={serial: abc}"], "device.adb"),
        ({"preset_mine": f"{ROOT}report: {{baseline: os}}\n"},
         ["preset=mine", "allowed_packages=[rankitect,'${report.baseline}']"], "allowed_packages"),
    ],
)  # fmt: skip
def test_no_file_allows_packages_or_names_programs(
    tmp_path: Path, files: dict[str, str], overrides: list[str], key: str
) -> None:
    said = refusal(*overrides, folder=written(tmp_path, **files))
    assert f"'{key}' is " in said
    assert "counts only on the command line" in said


def test_the_user_may_name_programs_and_packages_and_files_may_repeat_the_defaults(tmp_path: Path) -> None:
    folder = written(tmp_path, device_mine=f"{ADB}adb: adb\n")
    given = ["device.adb=/opt/adb", "device.serial=emulator-5554", "allowed_packages=[rankitect,mine]"]
    data = resolve(["device=mine", *given], folder).data
    assert (data["device"]["adb"], data["allowed_packages"]) == ("/opt/adb", ["rankitect", "mine"])


@pytest.mark.parametrize("value", ["-H", "a b", "$(id)", "x;y"])
def test_a_phone_is_named_by_no_option_of_adb(value: str) -> None:
    assert "'device.serial'" in refusal("device=android", f"device.serial='{value}'")


# What may be referred to ----------------------------------------------------------------------------------------------
RESOLVERS = [
    "${oc.env:SECRET}", "${oc.env:SECRET,x}", "${oc.decode:'1'}", "a ${oc.create:{a:1}} b", "${oc.env:${seed}}",
    "${hydra:runtime.cwd}", "\\${oc.env:SECRET}", "${oc.select:seed}",
]  # fmt: skip


@pytest.mark.parametrize("value", RESOLVERS)
def test_the_environment_and_other_resolvers_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setitem(os.environ, "SECRET", "hunter2")
    quoted = value.replace("\\", "\\\\")
    for said in (
        refusal(f'report.baseline="{value}"'),
        refusal("preset=mine", folder=written(tmp_path, preset_mine=f'{ROOT}report: {{baseline: "{quoted}"}}\n')),
        refusal("preset=mine", folder=written(tmp_path, preset_mine=f'defaults:\n  - "{quoted}"\n')),
        refusal(
            "preset=mine", folder=written(tmp_path, preset_mine="defaults: [more]\n", preset_more=f'a: "{quoted}"\n')
        ),
    ):
        assert "hunter2" not in said
        assert "only ${key}" in said or "cannot be composed" in said


BROKEN = {
    "no YAML": b"a: [b\n",
    "a key twice": b"a: 1\na: 2\n",
    "another encoding": "a: ü\n".encode("utf-16"),
    "no mapping": b"- a\n",
    "a resolver": b'a: "${oc.env:SECRET}"\n',
    "a tag": b"a: !!python/name:os.system\n",
    "a bomb": b"a: &a [1, 1]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (i + 1, i + 1, i, i) for i in range(97, 117)),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_file_counts_when_it_is_composed_and_not_before(tmp_path: Path, content: bytes) -> None:
    written(tmp_path, preset_mine=f"{ROOT}confirm:\n  seeds: 3\n", controller_mine="defaults: [broken]\n")
    for group in ("preset", "task", "controller"):
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / "broken.yaml").write_bytes(content)
    data = resolve(["preset=mine"], tmp_path).data
    assert data["confirm"]["seeds"] == 3
    assert {**data, "confirm": None, "preset": None} == {**resolve([]).data, "confirm": None}
    for choice in ("preset=broken", "task=broken", "controller=mine"):
        said = refusal(choice, folder=tmp_path)
        assert "broken.yaml" in said
        assert "SECRET" not in said or "only ${key}" in said


def test_files_that_lie_elsewhere_are_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "SECRET", "hunter2")
    own = tmp_path / "own"
    own.mkdir()
    (tmp_path / "far.yaml").write_text('defaults:\n  - "${oc.env:SECRET}"\n')
    said = refusal("preset=mine", folder=written(own, preset_mine="defaults: [../../far]\n"))
    assert "far.yaml" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("listed", "text"),
    [
        ("[../../../../etc/passwd]", r"Could not load 'space/\.\./\.\./\.\./\.\./etc/passwd'"),
        ("[nothere]", "Could not load 'space/nothere'"),
        ("[{space: nothere}]", "Could not find 'space/space/nothere'"),
        ("[{override /space: nothere}]", "Could not override"),
        ("['structured://x']", "Could not load 'space/structured://x'"),
        ('["a\\e[31mb"]', "Could not load"),
        ("['" + "a/" * 3000 + "']", "names cannot be read \\(File name too long\\)"),
        ("[mine]", "leads back to its own file"),
        ("[{'@x': y}]", "has an entry that names no file"),
        ("[5]", "Unsupported type in defaults : int"),
        ("[~]", "Unsupported type in defaults : NoneType"),
        ("{a: 1}", "defaults must be a list"),
        ("[{a: b, c: d}]", "Too many keys in default item"),
    ],
)  # fmt: skip
def test_a_list_of_defaults_that_leads_nowhere_is_said_in_a_sentence(tmp_path: Path, listed: str, text: str) -> None:
    said = refusal("space=mine", folder=written(tmp_path, space_mine=f"defaults: {listed}\n"))
    assert re.search(text, said)
    assert said.startswith("The configuration cannot be composed from space=mine: ")
    assert said.endswith(". A list of defaults names files of its own group, without .yaml, or {/group: option}.")
    assert said.isprintable()
    assert len(said) <= 500
    assert not re.search(r"searchpath|search path|provider=|site-packages|structured://\.", said)


def test_numbers_of_a_file_are_those_that_hydra_reads(tmp_path: Path) -> None:
    folder = written(tmp_path, preset_mine=f"{ROOT}# a comment: ü\nbudget:\n  minutes: 1e1\nseed: 0x10\n")
    data = resolve(["preset=mine"], folder).data
    assert (data["budget"]["minutes"], data["seed"]) == (10.0, 16)


def test_an_empty_file_and_one_of_comments_set_nothing(tmp_path: Path) -> None:
    for text in ("", "# nothing\n", "---\n"):
        data = resolve(["preset=mine"], written(tmp_path, preset_mine=text)).data
        assert {**data, "preset": None} == resolve([]).data


def test_help_lists_a_file_that_cannot_be_read_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    (written(tmp_path, task_good="# Good data.\n") / "task" / "bad.yaml").write_bytes(BROKEN["another encoding"])
    shown = help_text(extra_folder=tmp_path)
    assert "Good data" in shown
    assert "bad" in shown
    assert "UTF-16" in shown


def test_another_key_may_be_referred_to() -> None:
    assert resolve(["confirm.seeds=3", "runner.workers=${confirm.seeds}"]).data["runner"]["workers"] == 3


# What no setting can be -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ('task.text="a\\0b"', "it has a character that cannot be printed"),
        ('task.text="\x1b[31mred"', "it has a character that cannot be printed"),
        ('report.baseline="a\u2028b"', "it has a character that cannot be printed"),
        ('report.baseline="\u202etxt"', "it has a character that cannot be printed"),
        (f"output_dir={'x' * 300}", "it has more than 255 bytes without a slash"),
        (f"task.text='a/{'é' * 200}/b'", "it has more than 255 bytes without a slash"),
        ("runner.threads=100000000000", "should be less than or equal to 1024"),
        ("allowed_packages=null", "should be a list"),
        (f"seed={'9' * 5000}", "cannot be"),
        (f"seed={'9' * 40}", "should be a finite number of at most 10^18"),
        ("controller.samples=1e30", "finite number"),
        ("task.optimizer.lr=inf", "finite number"),
        ("task.optimizer.lr=nan", "finite number"),
        (f"{'k' * 5000}=1", "Unknown key"),
        (f"space={'s' * 5000}", "Unknown space"),
        (f"budget.minutes={'m' * 250}", "should be a valid number"),
        ("a" * 5000, "is not understood"),
    ],
)
def test_impossible_values_are_refused_in_few_words(override: str, said: str) -> None:
    override = override.replace("\\0", "\0")
    assert said in refusal("task=ranking", "space=ranking_blocks", override)


def _integers(model: type[BaseModel], prefix: str = "") -> list[tuple[str, list[Any]]]:
    """The whole numbers among the keys of a model, with what bounds them."""
    every = []
    for name, field in model.model_fields.items():
        every += _of(f"{prefix}{name}", field.annotation, list(field.metadata))
    return every


def _of(name: str, annotation: Any, marks: list[Any]) -> list[tuple[str, list[Any]]]:
    if annotation is int:
        return [(name, marks)]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [] if annotation in (PluginConfig, StageConfig) else _integers(annotation, f"{name}.")
    if get_origin(annotation) is Annotated:
        inner, *own = get_args(annotation)
        return _of(name, inner, [*marks, *(mark for m in own for mark in getattr(m, "metadata", [m]))])
    return [key for argument in get_args(annotation) for key in _of(name, argument, marks)]


def test_every_whole_number_of_a_configuration_has_an_upper_bound() -> None:
    """An absurd one would otherwise fill the memory or run without end."""
    keys = _integers(SearchConfig)
    for group, options in groups([configs_folder()]).items():
        for option, path in options.items():
            for target in _targets(read_yaml(path) or {}):
                model = config_model(load_target(target, ["rankitect"], str(path)))
                keys += _integers(model, f"{group}={option}: ")
    unbounded = sorted({name for name, marks in keys if not any(isinstance(mark, Le | Lt) for mark in marks)})
    assert len(keys) > 100
    assert unbounded == ["choices.values", "choices.when"], "a choice's value is bounded by the key that it decides"
