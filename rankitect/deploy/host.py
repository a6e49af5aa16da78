"""This machine's processor through ExecuTorch and XNNPACK, as a device."""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from collections.abc import Callable
from functools import cached_property
from importlib import metadata
from pathlib import Path

from rankitect.data.assets import cache_root
from rankitect.data.files import folder_lock, write_atomically
from rankitect.data.kept import keep_record, kept_record
from rankitect.deploy.lowering import lower
from rankitect.deploy.parts import Part, Workload, reference_part
from rankitect.deploy.timing import Meter, Reference, Timing, TimingSettings
from rankitect.errors import DeployError

__all__ = ["Host", "processor"]


def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


class Host:
    """Times parts and whole programs here. Results of parts are kept by device and runtime version.

    Args:
        settings: How to measure.
        cache: The folder in which results are kept; None for the usual place.
        should_stop: Polled while measuring; True ends it.
    """

    name = "host"
    estimate = False

    def __init__(
        self,
        settings: TimingSettings | None = None,
        cache: Path | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.settings = settings or TimingSettings()
        self._meter = Meter(self.settings, should_stop)
        identity = json.dumps(self.identity, sort_keys=True).encode()
        self._folder = (cache or cache_root() / "latency") / hashlib.sha256(identity).hexdigest()[:16]
        self.measured = 0

    @cached_property
    def identity(self) -> dict[str, str]:
        """What results depend on beside the part."""
        try:
            runtime = metadata.version("executorch")
        except metadata.PackageNotFoundError as error:
            raise DeployError(
                "device=host needs ExecuTorch: pip install 'rankitect[deploy]' (here: make venv EXTRAS=deploy)."
            ) from error
        return {
            "device": "host",
            "processor": processor(),
            "runtime": f"executorch {runtime}, XNNPACK",
            "threads": str(self.settings.threads),
        }

    def part(self, part: Part) -> Timing:
        """The time of a part, from an earlier measurement where there is one.

        A measurement that did not settle, or met a busy machine, is not kept for later.

        Raises:
            DeployError: The part cannot be exported or run.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{part.key[:32]}.json"
        if (known := _read(path)) is not None:
            return known
        with tempfile.TemporaryDirectory(prefix="rankitect-") as folder:
            program = Path(folder) / "part.pte"
            program.write_bytes(lower({"forward": part.program()}, check=False).buffer)
            size = program.stat().st_size
            timing = self._meter.time(program, self.reference(part.workload), copies=self.settings.copies(size))
        self.measured += 1
        if timing.trusted:
            keep_record(path, timing.to_json())
            keep_record(self._folder / "identity.json", self.identity)
        return timing

    def whole(self, path: Path, workload: Workload, method: str) -> Timing:
        """The time of a whole program's method."""
        return self._meter.time(path, self.reference(workload), method=method)

    def reference(self, workload: Workload) -> Reference:
        """The reference program of a workload, exported and calibrated at its first use."""
        part = reference_part(workload)
        self._folder.mkdir(parents=True, exist_ok=True)
        path, record = (self._folder / f"reference-{part.key[:16]}{end}" for end in (".pte", ".json"))
        with folder_lock(self._folder):
            if not path.exists():
                buffer = lower({"forward": part.program()}, check=False).buffer
                write_atomically(path, lambda p: p.write_bytes(buffer))
            copies = self.settings.copies(path.stat().st_size)
            known = _read(record)
            if known is None:
                known = self._meter.time(path, copies=copies)
                if known.trusted:
                    keep_record(record, known.to_json())
        return Reference(path, copies, known.p50 * copies)

    def close(self) -> None:
        """End the measuring process."""
        self._meter.close()


def _read(path: Path) -> Timing | None:
    """A measurement that was kept; None where there is none that can be trusted."""
    record = kept_record(path)
    try:
        return None if record is None else Timing(**record)
    except TypeError:  # of another version
        return None
