"""Devices as a configuration names them: `device=host`, `device=analytic`, `device=android`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rankitect.config.trust import ByHand
from rankitect.deploy.parts import Part, Workload
from rankitect.documents import read_json

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.data.tokenizer import Tokenizer
    from rankitect.deploy.android import Android
    from rankitect.deploy.artifact import ProgramJudge
    from rankitect.deploy.host import Host
    from rankitect.deploy.latency import Latency, Predicted
    from rankitect.deploy.layer_learning import PartTimer
    from rankitect.deploy.timing import Timing
    from rankitect.graph import SearchSpace
    from rankitect.models.supernet import Standalone

__all__ = ["AnalyticDevice", "AndroidDevice", "HostDevice"]


class _Config(BaseModel):
    """Keys of every device."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: int = Field(128, ge=2, le=2**20, description="tokens of the prefill that is timed and exported")
    context: int = Field(
        256, ge=3, le=2**20, description="tokens of the context whose last one is decoded, and of the program"
    )
    measurements: int = Field(48, ge=4, le=10_000, description="layers measured at most for each latency")
    error: float = Field(3.0, gt=0, description="cross-validated error, percent, at which measuring ends")

    @model_validator(mode="before")
    @classmethod
    def _no_precision(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "precision" in values:
            raise ValueError(
                "device.precision is no key: a program has the bits of its model. Quantize it by a stage `quantize` of "
                "the recipe, or search bits with space=mobile_llm_bits"
            )
        return values

    @model_validator(mode="after")
    def _room(self) -> _Config:
        if self.prompt >= self.context:
            raise ValueError(f"prompt is {self.prompt}; it must be less than context, {self.context}")
        return self


def _calls(prompt: int, context: int) -> dict[str, Workload]:
    """The calls that are timed, by the name of the metric, for a prompt and a context of so many tokens."""
    return {"prefill_ms": Workload("prefill", prompt), "decode_ms": Workload("decode", context)}


class _Base:
    """What all devices have in common: the workloads, and latencies learned from a timer of parts."""

    name = ""
    estimate = False

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def context(self) -> int:
        """Tokens of the longest sequence that is timed and exported."""
        return int(self.config.context)

    @property
    def workloads(self) -> dict[str, Workload]:
        """What is timed, by the name of the metric."""
        return _calls(self.config.prompt, self.config.context)

    @property
    def runner(self) -> PartTimer:
        """Times parts."""
        raise NotImplementedError

    def latency(self, space: SearchSpace, seed: int = 0, say: Callable[[str], None] = lambda text: None) -> Latency:
        """Latencies of a space's architectures on this device. Arguments as in `contracts.Device`.

        Raises:
            DeployError: The device runs programs, and the runtime lacks bits of the space.
        """
        from rankitect.deploy.latency import Latency
        from rankitect.deploy.precision import require_lowerable_space

        if not self.estimate:
            require_lowerable_space(space)
        return Latency(
            self.runner,
            space,
            self.workloads,
            measurements=self.config.measurements,
            target=self.config.error,
            seed=seed,
            say=say,
        )


class HostDevice(_Base):
    """This machine's processor through ExecuTorch and XNNPACK."""

    name = "host"

    class Config(_Config):
        """Keys of `device`."""

        threads: int = Field(1, ge=1, le=1024, description="threads of the runtime, each on a core of its own")
        seconds: float = Field(12.0, gt=0, description="of one measurement at most")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._host: Host | None = None

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> HostDevice:
        """Made from its section of the configuration.

        Raises:
            DeployError: ExecuTorch is not installed.
        """
        from rankitect.deploy.lowering import require_runtime

        require_runtime()
        return cls(config)

    @property
    def runner(self) -> Host:
        """What times parts and whole programs; started at its first use."""
        if self._host is None:
            from rankitect.deploy.host import Host
            from rankitect.deploy.timing import TimingSettings

            c = self.config
            self._host = Host(TimingSettings(threads=c.threads, seconds=c.seconds))
        return self._host

    def export(
        self,
        folder: Path,
        model: Standalone,
        tokenizer: Tokenizer,
        predicted: Mapping[str, Predicted],
        text: torch.Tensor,
        *,
        judge: ProgramJudge | None = None,
        floats: nn.Module | None = None,
    ) -> dict[str, str]:
        """Write a candidate's program, and its latency as a whole beside what was predicted.

        Args:
            folder: Gets model.pte, program.json, the tokenizer and latency.json.
            model: The candidate.
            tokenizer: Of the model.
            predicted: Latencies by workload.
            text: Windows of real text to compare program and model on, token ids [W, T].
            judge: Compares them otherwise.
            floats: The model before it was rounded, where that is known.

        Returns:
            Paths relative to the folder, by artifact.

        Raises:
            DeployError: The candidate cannot be exported or run.
        """
        from rankitect.deploy.artifact import export

        c = self.config
        sizes = {"prompt": c.prompt, "capacity": c.context}
        written = export(folder, model, tokenizer, **sizes, text=text, judge=judge, floats=floats)
        return {**written, **self.time_program(folder, predicted)}

    def time_program(self, folder: Path, predicted: Mapping[str, Predicted]) -> dict[str, str]:
        """Time a program's calls, of its own sizes; see `rankitect.contracts.TimesPrograms`.

        Raises:
            AssetError: The folder has no card, or a damaged one.
            DeployError: The program cannot be run.
        """
        from rankitect.deploy.artifact import CARD, PROGRAM, layout_of

        layout = layout_of(folder)
        measured = {}
        for name, workload in _calls(layout.prompt, layout.capacity).items():
            timing = self.runner.whole(folder / PROGRAM, workload, workload.mode)
            foretold = predicted[name] if workload == self.workloads[name] else None
            measured[name] = {
                "workload": str(workload),
                "predicted_ms": None if foretold is None else foretold.ms,
                "predicted_interval_ms": None if foretold is None else [foretold.low, foretold.high],
                **_recorded(timing),
            }
            if workload.mode == "decode":
                measured[name]["tokens_per_second"] = 1e3 / timing.p50
        return self._write(folder, measured, CARD)

    def export_ranker(
        self,
        folder: Path,
        model: Standalone,
        examples: Sequence[torch.Tensor],
        labels: torch.Tensor | None = None,
    ) -> dict[str, str]:
        """Write a ranker's dense part as a program, and its latency for each batch size.

        Args:
            folder: Gets ranker.pte, ranker.json and latency.json.
            model: The ranker.
            examples: The model's inputs for real rows, to compare program and model on.
            labels: 0 or 1 for each row.

        Returns:
            Paths relative to the folder, by artifact.

        Raises:
            DeployError: The ranker cannot be exported or run.
        """
        from rankitect.deploy.ranker import export_ranker

        return self._timed(folder, export_ranker(folder, model, examples, labels=labels))

    def export_classifier(
        self, folder: Path, model: Standalone, images: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, str]:
        """Write a classifier of images as a program, and its latency for each batch size.

        Args:
            folder: Gets classifier.pte, classifier.json and latency.json.
            model: The classifier.
            images: As the model gets them, to compare program and model on, [n, C, H, W].
            labels: The class of each, [n].

        Returns:
            Paths relative to the folder, by artifact.

        Raises:
            DeployError: The classifier cannot be exported or run.
        """
        from rankitect.deploy.images import export_classifier

        return self._timed(folder, export_classifier(folder, model, images, labels))

    def _timed(self, folder: Path, written: dict[str, str]) -> dict[str, str]:
        """The files of a program with a method for each batch size, and its latencies."""
        from rankitect.deploy.ranker import BATCHES

        reference = self.workloads["prefill_ms"]
        timings = {n: self.runner.whole(folder / written["program"], reference, f"batch_{n}") for n in BATCHES}
        measured = {f"batch_{n}_ms": _recorded(t) for n, t in timings.items()}
        return {**written, **self._write(folder, measured, written["program_card"])}

    def _write(self, folder: Path, latencies: Mapping[str, Any], card: str) -> dict[str, str]:
        from rankitect.data.files import write_whole

        facts = read_json(folder / card, dict[str, Any])
        about = {"delegated": facts["delegated"]["share"], "precision": facts["precision"], "quality": facts["quality"]}
        record = {"device": dict(self.runner.identity), **about, "latencies": latencies}
        write_whole(folder / "latency.json", json.dumps(record, indent=2) + "\n")
        return {"latency": "latency.json"}


def _recorded(timing: Timing) -> dict[str, Any]:
    return {"measured": timing.to_json(), "trusted": timing.trusted}


class AnalyticDevice(_Base):
    """A roofline (Williams et al., CACM 2009): the slower of arithmetic and memory, for each step.

    An estimate, and labelled so everywhere: it knows nothing of kernels, of threads or of what is dispatched.
    """

    name = "analytic"
    estimate = True

    class Config(_Config):
        """Keys of `device`; the defaults are round numbers of one core of a phone of 2024, not of a certain one."""

        peak_gflops: float = Field(40.0, gt=0, description="arithmetic of the threads in use, GFLOP/s")
        bandwidth_gbs: float = Field(15.0, gt=0, description="memory, GB/s")
        cache_mib: float = Field(4.0, ge=0, description="activations up to this size stay in the cache")
        step_us: float = Field(2.0, ge=0, description="microseconds to start one step")

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> AnalyticDevice:
        """Made from its section of the configuration."""
        return cls(config)

    @property
    def runner(self) -> AnalyticDevice:
        """The device itself: it computes times and needs no other process."""
        return self

    @property
    def identity(self) -> Mapping[str, str]:
        """What the estimates depend on, as text, for records."""
        return {"device": "analytic", **{k: str(v) for k, v in self.config.model_dump().items()}}

    def part(self, part: Part) -> Timing:
        """The time of a part by its arithmetic and its bytes."""
        from rankitect.deploy.timing import Timing

        c = self.config
        flops, moved, steps = part.work()
        kept = part.weight_bytes + (moved if moved > c.cache_mib * 2**20 else 0)
        ms = max(flops / (c.peak_gflops * 1e6), kept / (c.bandwidth_gbs * 1e6)) + steps * c.step_us / 1e3
        return Timing(ms, ms, ms, ms, ms, 0, 1.0, True, 1.0, 0.0, ms, 0)


class AndroidDevice(_Base):
    """A phone over adb, with ExecuTorch's own `executor_runner`."""

    name = "android"

    class Config(_Config):
        """Keys of `device`."""

        threads: int = Field(1, ge=1, le=1024, description="threads of the runtime")
        runs: int = Field(20, ge=3, le=10**6, description="runs of a program in one call of the runner")
        repeats: int = Field(5, ge=2, le=10_000, description="calls of the runner")
        serial: str | None = Field(
            None,
            pattern=r"^[\w.:\[][\w.:\]-]*$",
            description="which phone, as `adb devices` names it; null: the only one",
        )
        runner_path: Annotated[str, ByHand()] = Field(
            "/data/local/tmp/rankitect/executor_runner",
            pattern=r"^/[\w./-]+$",
            description="executor_runner on the phone, XNNPACK built in; not from a file",
        )
        adb: Annotated[str, ByHand()] = Field("adb", min_length=1, description="the adb command; not from a file")

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> AndroidDevice:
        """Made from its section of the configuration.

        Raises:
            DeployError: There is no adb, no phone, or no runner on it.
        """
        device = cls(config)
        device.runner.require()
        return device

    @property
    def runner(self) -> Android:
        """What times parts and whole programs; started at its first use."""
        from rankitect.deploy.android import Android

        c = self.config
        return Android(c.threads, c.runs, c.repeats, c.serial, c.runner_path, c.adb)
