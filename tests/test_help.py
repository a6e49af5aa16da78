from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rankitect.__main__ import COMMANDS
from rankitect.__main__ import main as list_commands
from rankitect.config.compose import configs_folder, groups
from rankitect.config.help import help_text
from rankitect.config.resolve import resolve
from rankitect.config.schema import RunnerConfig
from rankitect.search import main

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "numpy", "networkx", "scipy", "pandas", "hydra")


def test_every_option_of_every_group_is_listed_with_what_it_is() -> None:
    lines = help_text().splitlines()
    for group, options in groups([configs_folder()]).items():
        if not group.startswith("preset_"):
            start = next(i for i, line in enumerate(lines) if line.startswith(f"  {group}="))
            for option in options:
                line = next(line for line in lines[start:] if line.split()[:1] == [option])
                assert len(line.split()) > 2, f"configs/{group}/{option}.yaml begins with no comment"


def test_every_key_of_the_core_is_listed_with_its_meaning_and_default() -> None:
    text = " ".join(help_text().split())
    for name, field in RunnerConfig.model_fields.items():
        assert f"runner.{name} {field.description}" in text
    assert "runner.attempts how often a trial may end with its process [5]" in text
    assert "report.gates.<name>.metric" in text


def test_the_keys_of_chosen_plug_ins_are_listed_too() -> None:
    text = help_text(["space=ranking_blocks", "controller=evolution"])
    assert "controller.tournament" in text
    assert "task.batch" in text


@pytest.mark.parametrize("space", ["mobile_llm", "ranking_blocks"])
def test_the_costs_that_constraints_may_name_are_listed_and_documented(space: str) -> None:
    text = help_text([f"space={space}"])
    costs = resolve([f"space={space}"]).plugins["task"].target.bounded_costs
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    table = page.partition("## Costs that constraints may name")[2].partition("\n## ")[0]
    for name, about in costs.items():
        assert about.split()[0] in next(line for line in text.splitlines() if line.split()[:1] == [name])
        assert f"`{name}`" in table


def test_plain_help_imports_nothing_heavy() -> None:
    code = (
        "import json, sys\nfrom rankitect.search import main\nmain(['--help'])\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "key=value" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_help_for_an_option_that_there_is_not_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["space=mobile_lm", "--help"]) == 2
    assert "Did you mean 'mobile_llm'?" in capsys.readouterr().err


def test_python_m_rankitect_lists_every_command_in_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    package = ROOT / "rankitect"
    runnable = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in package.rglob("*.py")
        if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    internal = {"rankitect.__main__", "rankitect.deploy.worker"}
    assert set(COMMANDS) == runnable - internal
    assert list_commands() in (0, 2)
    lines = capsys.readouterr().out.splitlines()
    for command, what in COMMANDS.items():
        assert any(line.split() == ["python", "-m", command, *what.split()] for line in lines)
