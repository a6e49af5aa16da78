"""What is installed, what is missing, and what to do about it: `python -m rankitect.doctor`.

Nothing heavy is imported into this process. Packages that bring compiled code are tried in a process of their own,
where a crash of the interpreter is a finding like any other.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rankitect import __version__
from rankitect.documents import parse_json
from rankitect.errors import ConfigError
from rankitect.machine import usable_cores
from rankitect.terminal import Parser, ended, say

__all__ = [
    "Check",
    "check_accelerators",
    "check_assets",
    "check_disk",
    "check_links",
    "check_loads",
    "check_threads",
    "check_versions",
    "diagnose",
    "main",
]

Status = Literal["ok", "warn", "fail"]

GIB = 2**30
DISK_NEEDED_GIB = 4  # the main job: downloads, token cache, checkpoints and candidates of a model of 135M parameters
DISK_WISHED_GIB = 12  # several runs
MEMORY_WISHED_GIB = 6  # the supernet, its gradients and two AdamW moments, the teacher, and a batch of logits
LOAD_TIMEOUT_SECONDS = 300.0

_INSTALL = "install the pinned set: `make venv`, or `pip install rankitect` in an environment of your own"
_RANKING = "only ranking spaces use it: `make venv`, or `pip install --no-deps fbgemm-gpu-cpu==1.8.0 torchrec==1.8.0`"
#: Distribution name, version known to work, whether the main job needs it, and what to do where it is missing.
PACKAGES: tuple[tuple[str, str, bool, str], ...] = (
    ("torch", "2.13", True, _INSTALL),
    ("gguf", "0", True, _INSTALL),
    ("hydra-core", "1.3", True, _INSTALL),
    ("jinja2", "3", True, _INSTALL),
    ("matplotlib", "3", True, _INSTALL),
    ("networkx", "3", True, _INSTALL),
    ("numpy", "2", True, _INSTALL),
    ("pandas", "", True, _INSTALL),
    ("pyarrow", "", True, _INSTALL),
    ("pydantic", "2", True, _INSTALL),
    ("rich", "", True, _INSTALL),
    ("safetensors", "0", True, _INSTALL),
    ("scipy", "1", True, _INSTALL),
    ("tensorboard", "2", True, _INSTALL),
    ("tokenizers", "0", True, _INSTALL),
    ("fbgemm-gpu-cpu", "1.8", False, _RANKING),
    ("torchrec", "1.8", False, _RANKING),
    ("executorch", "1.4", False, "only export uses it: `make venv EXTRAS=deploy`, or `pip install rankitect[deploy]`"),
    ("torchao", "0.18", False, "only export uses it: `make venv EXTRAS=deploy`, or `pip install rankitect[deploy]`"),
    ("ray", "2", False, "only the Ray runner uses it: `make venv EXTRAS=ray`, or `pip install rankitect[ray]`"),
    ("botorch", "0.18", False, "only controller=bayesian uses it: `make venv EXTRAS=bayesian`"),
    ("lm-eval", "0.4", False, "only the tasks of lm-eval use it: `make venv EXTRAS=lm-eval`"),
    ("llama-cpp-python", "0.3", False, "only GGUF files in few bits use it: `make venv EXTRAS=llama`"),
    ("transformers", "", False, "only who loads a candidate's `hf` folder with it uses it: `pip install transformers`"),
    ("optuna", "", False, "only `rankitect.export to=optuna` uses it: `pip install optuna`"),
)

#: Compiled packages in the order in which the platform loads them: import name, and code that pulls in its binaries.
LOADS: tuple[tuple[str, str], ...] = (
    ("torch", "import torch; torch.ones(2) @ torch.ones(2)"),
    ("fbgemm_gpu", "import torch, fbgemm_gpu"),
    ("torchrec", "import torch, torchrec"),
    ("executorch", "import torch, executorch.exir, executorch.runtime"),
)


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: What was looked at.
        status: `ok`; `warn`, where something is missing that the main job can do without; `fail`, where it cannot run.
        found: What was found, in a sentence or a version.
        remedy: What to do about it; empty where there is nothing to do.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""


def check_versions() -> list[Check]:
    """Compare Python and the installed packages with the versions known to work together."""
    python = platform.python_version()
    old = sys.version_info < (3, 11)
    checks = [Check("python", "fail" if old else "ok", python, "use Python 3.11 or newer" if old else "")]
    for name, wanted, needed, remedy in PACKAGES:
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name == "fbgemm-gpu-cpu" and importlib.util.find_spec("fbgemm_gpu") is not None:
                installed = _version_of("fbgemm-gpu")  # the CUDA build fills the same folder
            else:
                checks.append(Check(name, "fail" if needed else "warn", "not installed", remedy))
                continue
        fits = not wanted or installed == wanted or installed.startswith(f"{wanted}.")
        advice = (
            ""
            if fits
            else f"Rankitect is tested with {name} {wanted}; if something breaks, {remedy.split(': ', 1)[-1]}"
        )
        checks.append(Check(name, "ok" if fits else "warn", installed, advice))
    return checks


def _version_of(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def check_loads(names: Sequence[str] | None = None, timeout: float = LOAD_TIMEOUT_SECONDS) -> list[Check]:
    """Load the compiled packages: all of them in one process, and where that fails each in its own to find the culprit.

    Args:
        names: Import names out of `LOADS`; all that are installed where left out.
        timeout: Seconds that one process may take.

    Returns:
        One check for the packages together, and where that failed one for each package as well.
    """
    there = [
        (n, code) for n, code in LOADS if (names is None or n in names) and importlib.util.find_spec(n) is not None
    ]
    if not there:
        return [Check("load together", "fail", "none of the compiled packages is installed", _INSTALL)]
    title = " + ".join(n for n, _ in there)
    problem = _run("\n".join(code for _, code in there), timeout)
    if not problem:
        return [Check(f"load {title} together", "ok", "all in one process")]
    checks = []
    for name, code in there:
        alone = _run(code, timeout)
        # Only torch is needed by the main job; the others cost what is built on them.
        status: Status = "ok" if not alone else "fail" if name == "torch" else "warn"
        checks.append(Check(f"load {name}", status, alone or "loads alone", _load_remedy(name) if alone else ""))
    culprits = [c.name.removeprefix("load ") for c in checks if c.status != "ok"]
    remedy = (
        f"repair {', '.join(culprits)}"
        if culprits
        else "they clash: install the versions pinned in requirements/ with `make venv`"
    )
    # A clash is no obstacle for the main job, which loads torch and none of the others.
    worst: Status = "fail" if "torch" in culprits else "warn"
    return [*checks, Check(f"load {title} together", worst, problem, remedy)]


def _load_remedy(name: str) -> str:
    if name == "torch":
        return "install torch 2.13 for this machine, alone and first: `pip install --force-reinstall torch==2.13.0`"
    version = {"fbgemm_gpu": "fbgemm-gpu-cpu==1.8.0", "torchrec": "torchrec==1.8.0", "executorch": "executorch==1.4.1"}[
        name
    ]
    return f"its binaries must match torch 2.13: `pip install --no-deps --force-reinstall {version}`"


def _run(code: str, timeout: float) -> str:
    """Run Python code in a fresh process; return the last line of what went wrong, or nothing."""
    done = _python(code, timeout)
    return done if isinstance(done, str) else ""


def _python(code: str, timeout: float) -> subprocess.CompletedProcess[str] | str:
    """Run Python code in a fresh process; what it did, or the last line of what went wrong."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:.0f} s"
    if done.returncode == 0:
        return done
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if done.returncode < 0:
        last = lines[-1] if lines else "(none)"
        return f"the process was killed by {signal.Signals(-done.returncode).name}; its last line: {last}"
    return lines[-1] if lines else f"exit code {done.returncode}"


def check_disk(folder: Path) -> Check:
    """Look at the free space, in GiB, where run folders are written.

    Args:
        folder: A folder; where it does not exist yet, its nearest parent that does is asked.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free / GIB
    space = f"{free:.1f} GiB free at {folder}"
    if not os.access(folder, os.W_OK):
        return Check(
            "disk",
            "fail",
            f"{folder} is not writable",
            "start from a folder you may write to, or give output_dir=FOLDER",
        )
    if free < DISK_NEEDED_GIB:
        return Check(
            "disk",
            "fail",
            space,
            f"the main job needs {DISK_NEEDED_GIB} GiB: free some, or give output_dir=FOLDER elsewhere",
        )
    if free < DISK_WISHED_GIB:
        return Check("disk", "warn", space, f"enough for one run; {DISK_WISHED_GIB} GiB leave room for several")
    return Check("disk", "ok", space)


def check_memory() -> Check | None:
    """Look at the memory, in GiB, that a new process could have; None where the system does not tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        free = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("MemAvailable:")) * 1024 / GIB
    except (OSError, StopIteration, ValueError):
        return None
    if free < MEMORY_WISHED_GIB:
        remedy = f"the main job wants {MEMORY_WISHED_GIB} GiB: close other programs, or try preset=smoke"
        return Check("memory", "warn", f"{free:.1f} GiB available", remedy)
    return Check("memory", "ok", f"{free:.1f} GiB available")


def check_threads() -> Check:
    """Compare the processors this process may use with OMP_NUM_THREADS and with the present load."""
    cores = usable_cores()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    using = f"{cores} processors" + (f", OMP_NUM_THREADS={asked}" if asked else "")
    if asked and not (asked.isdecimal() and 1 <= int(asked) <= cores):
        return Check(
            "threads",
            "warn",
            using,
            f"unset OMP_NUM_THREADS, or set it to 1 up to {cores}: more threads than processors are slow",
        )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > cores:
        remedy = "training is slower and measured latencies are not to be trusted until other programs end"
        return Check("threads", "warn", f"{using}, {load:.1f} programs already running", remedy)
    return Check("threads", "ok", using)


def check_accelerators(timeout: float = LOAD_TIMEOUT_SECONDS) -> list[Check]:
    """Look for what models can be trained on beside the CPU (`placement.device`), in a process of its own.

    Args:
        timeout: Seconds that it may take.
    """
    code = (
        "import json, sys; from rankitect.training.placement import accelerators; "
        "sys.stdout.write(json.dumps(accelerators()))"
    )
    done = _python(code, timeout)
    if isinstance(done, str):
        return [Check("accelerators", "warn", done, "the main job runs on the CPU; repair torch to use another device")]
    try:
        there = parse_json(done.stdout, dict[str, str], "what torch says")
    except ConfigError:
        return [Check("accelerators", "warn", "torch does not say which there are")]
    if there:
        return [Check(f"accelerator {name}", "ok", about, f"placement.device={name}") for name, about in there.items()]
    if shutil.which("nvidia-smi") is not None:
        remedy = "install torch's CUDA build: `make venv EXTRAS=cuda`; models are trained on the CPU without it"
        return [Check("accelerators", "warn", "there is a driver for NVIDIA devices, and torch can use none", remedy)]
    return [Check("accelerators", "ok", "none: models are trained on the CPU")]


def check_links() -> list[Check]:
    """Look for the plug-in rooms: symbolic links in a checkout, which git on Windows may write as text files."""
    here = Path(__file__).parent
    broken = [room for room in ("search_spaces", "controllers", "evaluators", "configs") if not (here / room).is_dir()]
    if not broken:
        return [Check("plug-in rooms", "ok", "search_spaces, controllers, evaluators, configs")]
    remedy = "install the wheel, or check out again: `git config core.symlinks true && git checkout -- rankitect`"
    return [Check("plug-in rooms", "fail", f"rankitect/{room} is not a folder", remedy) for room in broken]


def check_assets() -> list[Check]:
    """Look at the models and texts of the main job, without fetching anything. Hashing a large file takes a moment."""
    try:
        from rankitect.data.assets import asset_status
    except ImportError as error:
        return [Check("assets", "fail", f"rankitect.data.assets does not load: {error}", _INSTALL)]
    checks = []
    for asset in asset_status():
        if asset.present:
            checks.append(Check(f"asset {asset.name}", "ok", str(asset.path)))
        else:
            # An absent asset is fetched by the first run that needs it; a damaged file (it has a path) stops that run.
            status: Status = "warn" if asset.path is None else "fail"
            checks.append(Check(f"asset {asset.name}", status, asset.problem, asset.remedy))
    return checks


def diagnose(folder: Path, load: bool = True) -> list[Check]:
    """Look at everything.

    Args:
        folder: Where run folders will be written.
        load: Whether to load the compiled packages, which takes some ten seconds.
    """
    memory = check_memory()
    return [
        *check_versions(),
        *check_links(),
        *([*check_loads(), *check_accelerators()] if load else []),
        check_disk(folder),
        *([memory] if memory else []),
        check_threads(),
        *check_assets(),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Print every check, and for each problem what to do.

    Args:
        argv: The command line after the program's name; that of this process where left out.

    Returns:
        0 if the main job can run, 1 if not.
    """
    parser = Parser(
        prog="python -m rankitect.doctor", description="What is installed, what is missing, what to do about it."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument(
        "--no-load", action="store_true", help="do not load the compiled packages (about ten seconds less)"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path.cwd(), help="where run folders will be written (default: here)"
    )
    given = parser.parse_args(argv)
    checks = diagnose(given.folder.absolute(), load=not given.no_load)
    can_run = all(check.status != "fail" for check in checks)
    if given.json:
        body = {
            "schema": 1,
            "rankitect": __version__,
            "platform": platform.platform(),
            "can_run": can_run,
            "checks": [asdict(c) for c in checks],
        }
        say(json.dumps(body, indent=2))
        return 0 if can_run else 1
    say(f"Rankitect {__version__}, {platform.platform()}\n")
    width = max(len(check.name) for check in checks)
    for check in checks:
        say(f"{check.status:<4}  {check.name:<{width}}  {check.found}")
        if check.remedy:
            say(f"      {'':<{width}}  -> {check.remedy}")
    failed, warned = (sum(check.status == status for check in checks) for status in ("fail", "warn"))
    verdict = "The main job can run" if can_run else "The main job cannot run"
    say(f"\n{verdict}: {failed} problem(s), {warned} warning(s).")
    return 0 if can_run else 1


if __name__ == "__main__":
    sys.exit(ended(main))
