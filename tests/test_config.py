from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from rankitect.command_line import as_overrides
from rankitect.config import resolve
from rankitect.config.compose import configs_folder, groups
from rankitect.config.plugins import config_model, load_target
from rankitect.config.resolve import _known_keys
from rankitect.config.schema import SearchConfig
from rankitect.errors import ConfigError

CONFIGS = Path(__file__).parent / "study" / "configs"
TOY = ["space=grid", "task=none", "controller=climber", "evaluator=quadratic", "allowed_packages=[rankitect,tests]"]


def message(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        resolve([*TOY, *overrides], CONFIGS)
    return str(error.value)


def test_the_resolved_configuration_has_every_default() -> None:
    resolved = resolve(TOY, CONFIGS)
    assert resolved.data["controller"] == {
        "name": "climber",
        "target": "tests.study.toys.ClimberPlugin",
        "total": 12,
        "chunk_seconds": 0.0,
    }
    assert resolved.data["task"]["examples"] == 10  # a plain function's parameter
    assert set(resolved.data) == set(SearchConfig.model_fields)


def test_the_command_line_wins_over_a_preset_and_a_preset_over_a_group() -> None:
    resolved = resolve([*TOY, "preset=small"], CONFIGS)
    assert resolved.data["space"]["size"] == 4
    assert resolved.data["controller"]["total"] == 3
    assert resolved.data["preset"] == "small"
    assert resolve([*TOY, "preset=small", "space.size=5"], CONFIGS).data["space"]["size"] == 5
    assert resolve([*TOY, "preset=small", "preset=null"], CONFIGS).data == resolve(TOY, CONFIGS).data


def test_a_key_that_only_the_plugin_knows_can_be_set() -> None:
    assert resolve([*TOY, "controller.chunk_seconds=0.5"], CONFIGS).data["controller"]["chunk_seconds"] == 0.5


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("space=gird", "Unknown space 'gird'. Did you mean 'grid'? Allowed: grid, mobile_llm, "),
        ("controller=zzz", "Unknown controller 'zzz'. Allowed: bayesian, climber, "),
        (
            "budget.token=3",
            "Unknown key 'budget.token' on the command line. Did you mean 'budget.tokens' (configs/config.yaml:",
        ),
        ("trials=3", "Unknown key 'trials' on the command line. Did you mean 'budget.trials' (configs/config.yaml:"),
        ("space.sise=3", "Unknown key 'space.sise' on the command line. Did you mean 'space.size' ("),
        ("controller.chunk_second=3", "Did you mean 'controller.chunk_seconds' ("),
        ("budget.minutes=fast", "'budget.minutes' on the command line is 'fast': should be a valid number"),
        ("budget.minutes=.inf", "'budget.minutes' on the command line is"),
        ("budget.minutes=-1", "'budget.minutes' on the command line is -1: should be greater than 0."),
        ("budget=null", "'budget' on the command line is null: should be a section, written {key: value}."),
        ("constraints=3", "'constraints' on the command line is 3: should be a section, written {key: value}."),
        (
            "constraints.params=3",
            "'constraints.params' on the command line is 3: a range is written [low, high], in shares, or low..high, "
            "in the unit of the cost.",
        ),
        ("choices.lr=3", "'choices.lr' on the command line is 3: write a list of values, or {low: 1e-4,"),
        ("evaluator.objectives=3", "'evaluator.objectives' on the command line is 3: should be a list, written [a,b]."),
        ("budget.trials=2.5", "'budget.trials' on the command line is 2.5: should be a valid integer"),
        ("resume=perhaps", "'resume' on the command line is 'perhaps': should be 'auto' or 'force'."),
        ("space.size=1", "'space.size' on the command line is 1: should be greater than or equal to 2."),
        ("constraints.block_flops=[1,0.4]", "a range needs 0 <= low < high, not [1, 0.4]."),
        ("evaluator.objectives=[]", "'evaluator.objectives' on the command line is []"),
        ("budget", "'budget' is not understood. Write key=value"),
        ("seed=[1,", "The configuration cannot be composed from"),
        ("hydra.run.dir=x", "keys of Hydra itself are not used here"),
        ("space.target=os.system", "'os.system' is not in an allowed package (rankitect, tests)."),
        ("space.target=rankitect.search_spaces.nope.Space", "there is no module 'rankitect.search_spaces.nope'"),
        ("space.target=tests.study.toys.Grit", "module tests.study.toys has no 'Grit'. Plug-ins in it:"),
        ("space.target=tests.study.toys.hashlib", "is not a class or function of an allowed package"),
        ("space.target=tests.study.toys.__name__", "is not a dotted path"),
        ("space=null", "Unknown space 'null'"),
    ],
)
def test_a_mistake_is_explained(override: str, text: str) -> None:
    assert text in message(override)


def test_all_mistakes_are_listed_at_once() -> None:
    lines = message("runner.workers=0", "budget.minutes=0", "sed=3").splitlines()
    assert len(lines) == 3


def test_a_mistake_in_a_file_is_found_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "controller").mkdir()
    (tmp_path / "controller" / "mine.yaml").write_text("target: tests.study.toys.ClimberPlugin\n\ntotall: 3\n")
    overrides = ["controller=mine", "space.target=tests.study.toys.Grid", "allowed_packages=[rankitect,tests]"]
    with pytest.raises(ConfigError) as error:
        resolve(overrides, tmp_path)
    assert f"Unknown key 'controller.totall' in {tmp_path}/controller/mine.yaml:3." in str(error.value)


def test_a_missing_folder_of_configurations_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        resolve(TOY, tmp_path / "none")


def test_a_program_that_uses_hydra_itself_is_not_disturbed() -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        resolve(TOY, CONFIGS)
        assert compose("space/grid").space.size == 8


def test_validation_imports_no_heavy_package() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nimport rankitect.search\nfrom rankitect.config import resolve\n"
        f"resolve({TOY!r}, Path({str(CONFIGS)!r}))\n"
        "heavy = {'torch', 'transformers', 'pandas', 'matplotlib', 'tokenizers', 'gguf', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CONFIGS.parents[2])


def test_every_shipped_key_is_one_that_the_models_know() -> None:
    """Of the core's sections; the plug-ins' sections are checked by their own models."""
    import yaml

    data = yaml.safe_load((configs_folder() / "config.yaml").read_text())
    del data["defaults"]
    assert set(data) <= set(SearchConfig.model_fields)
    for section in ("budget", "runner", "report"):
        model = SearchConfig.model_fields[section].annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        assert data[section] == model().model_dump(mode="json"), section


def test_the_groups_are_those_of_the_documentation() -> None:
    assert {"space", "task", "controller", "evaluator", "preset"} <= set(groups([configs_folder()]))


def test_a_config_class_is_closed_even_if_its_author_forgot() -> None:
    class Open:
        class Config(BaseModel):
            size: int = 1

    with pytest.raises(ValueError, match="Extra inputs"):
        config_model(Open).model_validate({"sise": 2})


def test_a_function_is_a_plugin_with_its_parameters() -> None:
    model = config_model(load_target("tests.study.toys.no_task", ["tests"], "task.target"))
    assert model.model_validate({}).model_dump() == {"examples": 10}
    with pytest.raises(ValueError, match="valid integer"):
        model.model_validate({"examples": "many"})


keys = st.text("abcxyz_", min_size=1, max_size=6)
words = st.text(max_size=8) | st.text("\\'\" a", max_size=4) | st.sampled_from(["null", "true", "nan", "a,b", "1"])
plain = st.none() | st.booleans() | st.integers(-100, 100) | words


@given(st.dictionaries(keys, plain | st.lists(plain, max_size=3) | st.floats(-1e6, 1e6), max_size=3))
def test_python_values_survive_the_override_grammar(values: dict[str, object]) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    overrides = as_overrides({"section": values})
    parsed = parser.parse_overrides(overrides)
    assert {p.key_or_group: p.value() for p in parsed} == {f"section.{key}": value for key, value in values.items()}


PUBLIC_KEYS = """
allowed_packages budget.minutes budget.tokens budget.trials choices confirm.candidates confirm.seeds constraints
controller.name controller.target device.name device.target evaluator.final.name evaluator.final.target
evaluator.objectives evaluator.proxy.name evaluator.proxy.target evaluator.screen.name evaluator.screen.target
measures output_dir placement.accumulate placement.checkpointing placement.compile placement.device placement.precision
placement.shard preset recipe report.baseline report.experiment.allocation
report.experiment.alpha report.experiment.effects report.experiment.metric report.experiment.power
report.experiment.rate report.experiment.unit report.experiment.units_a_day report.experiment.variance report.gates
report.keep_all report.page report.registry report.slices report.tensorboard resume
runner.address runner.ahead runner.attempts runner.baselines runner.batch runner.cpus
runner.duplicates runner.failures runner.gpus runner.kind runner.progress runner.threads runner.together
runner.trial_gib runner.trial_minutes runner.workers seed
space.name space.target task.name task.target
"""


def test_the_public_keys_are_a_promise() -> None:
    """A key that goes or is renamed breaks somebody's command: change this list only with a note in the CHANGELOG."""
    known = _known_keys(SearchConfig)
    leaves = [key for key in known if not any(other.startswith(f"{key}.") for other in known)]
    assert sorted(leaves) == PUBLIC_KEYS.split()


def test_constraints_can_be_left_out_as_a_whole(tmp_path: Path) -> None:
    overrides = ["space.target=tests.study.toys.Grid", "allowed_packages=[rankitect,tests]", "constraints=null"]
    assert resolve(overrides, tmp_path).config.constraints == {}
