"""The doctor finds what is broken and says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rankitect import doctor

ROOT = Path(__file__).parents[1]


def run_doctor(*args: str, path: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the doctor as a user does, with `path` before the installed packages."""
    places = [str(place) for place in (path, ROOT) if place]
    return subprocess.run(
        [sys.executable, "-m", "rankitect.doctor", *args],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env, "PYTHONPATH": os.pathsep.join(places)},
    )


def fake_package(folder: Path, name: str, code: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code, encoding="utf-8")
    return folder


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, contextlib\n"
        "from rankitect import doctor\n"
        "with contextlib.suppress(SystemExit): doctor.main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'pandas', 'hydra', 'rich', 'pydantic'}\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "--json" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_json_says_what_the_lines_say() -> None:
    done = run_doctor("--json", "--no-load")
    body = json.loads(done.stdout)
    assert body["schema"] == 1
    checks = {check["name"]: check for check in body["checks"]}
    assert {"python", "torch", "torchrec", "executorch", "plug-in rooms", "disk", "threads"} <= set(checks)
    optional = {"lm-eval", "llama-cpp-python", "transformers", "optuna", "botorch"}
    assert {checks[name]["status"] for name in optional} <= {"ok", "warn"}
    assert body["can_run"] == all(check["status"] != "fail" for check in checks.values())
    assert done.returncode == (0 if body["can_run"] else 1)
    assert all(check["remedy"] for check in checks.values() if check["status"] != "ok")


def test_every_problem_has_a_remedy_in_the_printed_report(tmp_path: Path) -> None:
    done = run_doctor("--no-load", "--folder", str(tmp_path / "not" / "there"), OMP_NUM_THREADS="100000")
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.split()[1:2] == ["threads"])
    assert lines[at].startswith("warn")
    assert "OMP_NUM_THREADS=100000" in lines[at]
    assert "-> unset OMP_NUM_THREADS" in lines[at + 1]
    assert any(f"free at {tmp_path}" in line for line in lines)


def test_a_package_that_fails_to_load_is_named_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(tmp_path, "torch", "")
    fake_package(tmp_path, "fbgemm_gpu", "raise OSError('undefined symbol: _ZN3c10')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "LOADS", (("torch", "import torch"), ("fbgemm_gpu", "import torch, fbgemm_gpu")))
    torch, fbgemm, together = doctor.check_loads(["torch", "fbgemm_gpu"])
    assert (torch.status, fbgemm.status, together.status) == ("ok", "warn", "warn")
    assert fbgemm.found == "OSError: undefined symbol: _ZN3c10"
    assert "fbgemm-gpu-cpu==1.8.0" in fbgemm.remedy
    assert together.remedy == "repair fbgemm_gpu"


def test_a_crash_of_the_interpreter_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_package(tmp_path, "torch", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "LOADS", (("torch", "import torch"),))
    alone, together = doctor.check_loads()
    assert alone.status == together.status == "fail"
    assert "killed by SIGSEGV" in alone.found
    assert "torch==2.13.0" in alone.remedy


def test_packages_that_load_alone_but_not_together_are_a_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_package(tmp_path, "torch", "")
    fake_package(
        tmp_path, "torchrec", "import sys\nassert 'fbgemm_gpu' not in sys.modules, 'two copies of one operator'"
    )
    fake_package(tmp_path, "fbgemm_gpu", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    loads = tuple((name, f"import {name}") for name in ("torch", "fbgemm_gpu", "torchrec"))
    monkeypatch.setattr(doctor, "LOADS", loads)
    *alone, together = doctor.check_loads()
    assert [check.status for check in alone] == ["ok", "ok", "ok"]
    assert together.found == "AssertionError: two copies of one operator"
    assert "they clash" in together.remedy


def test_a_process_that_does_not_answer_is_ended() -> None:
    check = doctor._run("import time; time.sleep(60)", timeout=0.2)
    assert check.startswith("no answer within")


def test_a_missing_needed_package_fails_and_a_missing_optional_one_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = (
        ("no-such-needed", "1", True, "install it"),
        ("no-such-optional", "1", False, "only X uses it: install it"),
    )
    monkeypatch.setattr(doctor, "PACKAGES", packages)
    _, needed, optional = doctor.check_versions()
    assert (needed.status, needed.found, needed.remedy) == ("fail", "not installed", "install it")
    assert (optional.status, optional.found) == ("warn", "not installed")


def test_another_version_than_tested_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", (("pytest", "1.2", True, "install the pinned set: `make venv`"),))
    check = doctor.check_versions()[1]
    assert check.status == "warn"
    assert "tested with pytest 1.2" in check.remedy


def test_too_little_disk_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "DISK_NEEDED_GIB", 10**9)
    check = doctor.check_disk(tmp_path)
    assert check.status == "fail"
    assert "output_dir" in check.remedy


@pytest.mark.slow
def test_the_pinned_packages_load_together() -> None:
    checks = doctor.check_loads()
    assert [check.status for check in checks] == ["ok"], checks
    assert "torch + fbgemm_gpu + torchrec" in checks[0].name


def test_accelerators_are_those_that_torch_can_use() -> None:
    from rankitect.training.placement import accelerators

    checks, there = doctor.check_accelerators(), accelerators()
    assert [check.name.removeprefix("accelerator ") for check in checks] == (list(there) or ["accelerators"])
    assert all(check.status == "ok" for check in checks) or not there
