"""The package under its one name: imports, metadata, pins, the import rules, and the wheel."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rankitect

ROOT = Path(__file__).parents[1]
PLUGIN_ROOMS = ("search_spaces", "controllers", "evaluators", "configs")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


def pins(*names: str) -> dict[str, Requirement]:
    """The requirements in files of requirements/, by canonical name."""
    lines = [line for name in names for line in (ROOT / "requirements" / f"{name}.txt").read_text("utf-8").splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def version_of(requirement: Requirement) -> str:
    return str(requirement.specifier).removeprefix("==")


@pytest.mark.parametrize("room", ["search_spaces", "controllers", "evaluators"])
def test_plugin_rooms_are_imported_under_the_one_name(room: str) -> None:
    module = importlib.import_module(f"rankitect.{room}")
    assert module.__name__ == f"rankitect.{room}"
    assert module.__file__ is not None
    assert Path(module.__file__).resolve().parent == ROOT / room


@pytest.mark.parametrize("room", PLUGIN_ROOMS)
def test_links_are_relative_so_that_a_checkout_can_be_moved(room: str) -> None:
    assert (ROOT / "rankitect" / room).readlink() == Path("..") / room


@pytest.mark.parametrize(
    "statements",
    [
        "import rankitect",
        "import rankitect.search",
        "from rankitect import search; import rankitect",
        "import rankitect as r; r.search",
    ],
)
def test_search_can_be_called_however_it_was_imported(statements: str) -> None:
    code = f"{statements}\nimport sys, rankitect\nassert callable(rankitect.search)\n"
    code += "assert rankitect.search is sys.modules['rankitect.search']\n"
    code += "from rankitect.search import search\nassert rankitect.search.search is search"
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_nothing_else() -> None:
    done = run(
        sys.executable,
        "-c",
        "import sys, rankitect; print([m for m in sys.modules if m.startswith(('rankitect.', 'torch'))])",
    )
    assert done.stdout.strip() == "[]"


def test_unknown_attribute_is_named() -> None:
    with pytest.raises(AttributeError, match="module 'rankitect' has no attribute 'serach'"):
        rankitect.serach  # noqa: B018


def test_the_package_lists_its_commands_and_each_exists() -> None:
    done = run(sys.executable, "-m", "rankitect")
    modules = re.findall(r"python -m (\S+)", done.stdout)
    assert done.returncode == 0
    assert "rankitect.search" in modules
    for module in modules:
        assert importlib.util.find_spec(module) is not None, module


def test_an_unknown_command_is_refused() -> None:
    done = run(sys.executable, "-m", "rankitect", "serach")
    assert done.returncode == 2
    assert "'serach' is no command here" in done.stderr


def test_every_dependency_is_pinned_to_a_version_that_the_package_allows() -> None:
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    groups = {
        ("torch", "runtime"): project["dependencies"],
        ("runtime", "nodeps-cpu"): extras["ranking"],
        ("nodeps-cuda",): extras["cuda"],
        ("test",): extras["test"],
        ("bayesian",): extras["bayesian"],
        ("deploy",): extras["deploy"],
        ("ray",): extras["ray"],
        ("lm-eval",): extras["lm-eval"],
        ("llama",): extras["llama"],
        ("docs",): extras["docs"],
    }
    for files, requirements in groups.items():
        pinned = pins(*files)
        for requirement in map(Requirement, requirements):
            pin = pinned.get(canonicalize_name(requirement.name))
            assert pin is not None, f"{requirement.name} has no pin in requirements/{', '.join(files)}"
            assert requirement.specifier.contains(version_of(pin)), f"{pin} is outside {requirement}"


def test_pins_are_exact_and_agree_with_the_constraints() -> None:
    constraints = pins("constraints")
    for file in sorted((ROOT / "requirements").glob("*.txt")):
        for name, pin in pins(file.stem).items():
            assert re.fullmatch(r"==[^,*]+", str(pin.specifier)), f"{file.name}: {pin} is not one version"
            if not file.name.startswith("nodeps"):
                assert version_of(pin) == version_of(constraints[name]), (
                    f"{file.name} and constraints.txt differ on {name}"
                )


def test_the_core_never_names_a_plugin_room() -> None:
    """What the import rules cannot see: a room named in a string and imported at run time."""
    wanted = re.compile(r"rankitect\.(search_spaces|controllers|evaluators)\b")
    joins = {"__init__.py", "__main__.py", "search.py", "doctor.py"}
    for file in files_under(ROOT / "rankitect", through_links=False):
        if file.suffix != ".py" or (file.parent == ROOT / "rankitect" and file.name in joins):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module"
            ):
                assert not any(wanted.search(ast.unparse(argument)) for argument in node.args), f"{file}:{node.lineno}"


def copy_sources(target: Path) -> Path:
    """The files that make the wheel, away from the checkout, which a build would litter with build/ and *.egg-info."""
    for name in ("rankitect", *PLUGIN_ROOMS):
        shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    return target


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    sources = copy_sources(folder / "sources")
    done = run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        folder / "dist",
        sources,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.mark.slow
def test_wheel_claims_one_name_and_holds_every_source(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"rankitect", f"rankitect-{rankitect.__version__}.dist-info"}
    packed = {name for name in names if name.startswith("rankitect/")}
    sources = {path.relative_to(ROOT).as_posix() for path in files_under(ROOT / "rankitect")}
    assert packed == sources


def files_under(folder: Path, through_links: bool = True) -> list[Path]:
    """Sources and data below a folder, without what Python leaves behind."""
    kept = (".py", ".yaml", ".j2", ".css", ".svg", ".js", ".json", ".txt", "py.typed")
    walked = os.walk(folder, followlinks=through_links)
    files = [Path(where) / name for where, _, names in walked if "__pycache__" not in where for name in names]
    return [file for file in files if file.name.endswith(kept)]


@pytest.mark.slow
def test_wheel_works_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    environment, empty = tmp_path / "env", tmp_path / "empty"
    empty.mkdir()
    assert run(sys.executable, "-m", "venv", "--without-pip", environment).returncode == 0
    python = environment / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    install = ("--no-deps", "--no-index", "--target", site)
    done = run(sys.executable, "-m", "pip", "install", *install, wheel)
    assert done.returncode == 0, done.stderr
    # The clean environment sees the packages of this one, after its own and without this checkout's editable install.
    dependencies = Path(pytest.__file__).parents[1]
    code = (
        f"import sys; sys.path.append({str(dependencies)!r})\n"
        "import pathlib, rankitect\n"
        "from rankitect import search_spaces, controllers, evaluators, errors\n"
        "print(pathlib.Path(rankitect.__file__).parent, pathlib.Path(controllers.__file__).parent)\n"
        "import importlib.metadata as m; print(m.version('rankitect'))\n"
        f"import importlib.util as u; print([n for n in {PLUGIN_ROOMS} if u.find_spec(n)])"
    )
    done = run(python, "-P", "-c", code, cwd=empty, PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    where, version, claimed = done.stdout.splitlines()
    assert where == f"{site}/rankitect {site}/rankitect/controllers"
    assert version == rankitect.__version__
    assert claimed == "[]"


@pytest.mark.slow
def test_import_rules_hold() -> None:
    done = run(sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache")
    assert done.returncode == 0, done.stdout
