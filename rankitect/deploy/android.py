"""A phone over adb, running programs with ExecuTorch's own `executor_runner`.

Written against adb's command line and the runner's flags (`--model_path`, `--num_executions`, `--cpu_threads`) and its
last line, which says how often the model ran and how long that took. It was not verified on a phone.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from rankitect.deploy.artifact import runtime_version
from rankitect.deploy.lowering import lower
from rankitect.deploy.parts import Part
from rankitect.deploy.timing import Timing
from rankitect.errors import DeployError

__all__ = ["Android"]

_DONE = re.compile(r"Model executed successfully (\d+) time\(s\) in ([0-9.]+) ms")
_TIMEOUT = 600.0


class Android:
    """Times parts on a phone.

    Args:
        threads: Of the runtime.
        runs: Runs in one call of the runner.
        repeats: Calls of the runner; the spread is that of their means.
        serial: Which phone; None for the only one.
        runner_path: `executor_runner` on the phone.
        adb: The adb command.
    """

    name = "android"
    estimate = False

    def __init__(
        self,
        threads: int,
        runs: int,
        repeats: int,
        serial: str | None,
        runner_path: str,
        adb: str = "adb",
    ) -> None:
        self.threads, self.runs, self.repeats = threads, runs, repeats
        self._serial, self._runner, self._adb = serial, runner_path, adb

    def require(self) -> None:
        """Raise a `DeployError` that says what is missing: adb, a phone, or the runner on it."""
        lines = self._call("devices").splitlines()[1:]
        phones = {line.split()[0]: line.split()[1] for line in lines if len(line.split()) >= 2}
        ready = [name for name, state in phones.items() if state == "device"]
        if self._serial is not None and self._serial not in ready:
            state = phones.get(self._serial, "not attached")
            raise DeployError(f"device.serial={self._serial}: the phone is {state}. Attached: {_listed(phones)}.")
        if self._serial is None and len(ready) != 1:
            what = "no phone is attached" if not ready else f"{len(ready)} phones are attached: set device.serial"
            raise DeployError(
                f"device=android: {what} (adb says: {_listed(phones)}). Allow USB debugging on the phone."
            )
        answer = self._shell(f"test -x {self._runner} && echo yes || echo no").strip()
        if answer != "yes":
            raise DeployError(
                f"The phone has no executable {self._runner}. Build executor_runner of ExecuTorch {runtime_version()} "
                "with XNNPACK for arm64-v8a, and push it there (adb push, then chmod +x)."
            )

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """What times depend on beside the part."""
        return {
            "device": self._shell("getprop ro.product.model").strip() or "android",
            "build": self._shell("getprop ro.build.fingerprint").strip(),
            "runtime": f"executorch {runtime_version()}, XNNPACK",
            "threads": str(self.threads),
        }

    def part(self, part: Part) -> Timing:
        """The time of a part.

        Raises:
            DeployError: It cannot be exported, or the phone is gone or cannot run it.
        """
        with tempfile.TemporaryDirectory(prefix="rankitect-") as folder:
            path = Path(folder) / f"{part.key[:16]}.pte"
            path.write_bytes(lower({"forward": part.program()}, check=False).buffer)
            return self.time(path)

    def time(self, path: Path) -> Timing:
        """The time of a program's method `forward`."""
        there = f"{self._runner.rpartition('/')[0]}/{path.name}"
        self._call("push", str(path), there)
        try:
            command = f"{self._runner} --model_path={there} --cpu_threads={self.threads} --num_executions="
            self._ran(command + "3")  # loads the pages and wakes the cores
            means = [self._ran(command + str(self.runs)) for _ in range(self.repeats)]
        finally:
            self._shell(f"rm -f {there}")
        middle, spread = float(np.median(means)), float(np.std(means, ddof=1)) * 1.96 / len(means) ** 0.5
        return Timing(
            p50=middle,
            low=middle - spread,
            high=middle + spread,
            p90=float(np.quantile(means, 0.9)),
            p99=max(means),
            runs=self.runs * self.repeats,
            drift=1.0,
            settled=2 * spread <= 0.05 * middle,
            quiet=1.0,
            load_ms=float("nan"),
            first_ms=float("nan"),
            peak_bytes=0,
        )

    def _ran(self, command: str) -> float:
        """Mean milliseconds of a run."""
        said = self._shell(f"{command} 2>&1")
        match = _DONE.search(said)
        if match is None:
            last = [line.strip() for line in said.splitlines() if line.strip()][-1:]
            raise DeployError(f"The phone's runner did not finish: {''.join(last)[:300] or 'it said nothing'}")
        return float(match[2]) / int(match[1])

    def _shell(self, command: str) -> str:
        return self._call("shell", command)

    def _call(self, *arguments: str) -> str:
        where = [] if self._serial is None or arguments[0] == "devices" else ["-s", self._serial]
        try:
            done = subprocess.run(
                [self._adb, *where, *arguments], capture_output=True, text=True, timeout=_TIMEOUT, check=False
            )
        except FileNotFoundError as error:
            raise DeployError(
                f"device=android needs adb, and '{self._adb}' is not installed: install Android's platform tools."
            ) from error
        except (OSError, ValueError) as error:  # a folder, no program, a name that no file can have
            raise DeployError(f"device=android cannot run '{self._adb}' as adb: {error}.") from error
        except subprocess.TimeoutExpired as error:
            raise DeployError(f"The phone did not answer to `adb {arguments[0]}` within {_TIMEOUT:.0f} s.") from error
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise DeployError(f"`adb {arguments[0]}` failed: {said[-1][:300] if said else done.returncode}")
        return done.stdout


def _listed(phones: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({state})" for name, state in phones.items()) or "none"
