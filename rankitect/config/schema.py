"""What a configuration may say. Every key of the core is here; a plug-in's keys are in its own `Config`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from rankitect.config.choices import ChoiceConfig
from rankitect.config.quantities import Bounds
from rankitect.config.trust import ByHand
from rankitect.production.settings import ExperimentConfig, GateConfig

__all__ = [
    "BudgetConfig",
    "EvaluatorsConfig",
    "MeasureConfig",
    "PlacementConfig",
    "PluginConfig",
    "ReportConfig",
    "RunnerConfig",
    "SearchConfig",
    "StageConfig",
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class PluginConfig(BaseModel):
    """A section that a plug-in class reads: its name, the dotted path of the class, and the class's own keys."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(
        default="", pattern=r"^([A-Za-z0-9][\w-]*)?$", description="name for reports; the file's name by default"
    )
    target: str = Field(description="dotted path of a class or function")


class EvaluatorsConfig(_Strict):
    """What is measured, and which of it the search is for."""

    objectives: list[str] = Field(min_length=1, description="metrics of the final evaluator for the Pareto front")
    final: PluginConfig = Field(description="evaluator whose results are reported")
    screen: PluginConfig | None = Field(default=None, description="cheaper evaluator that a controller may ask for")
    proxy: PluginConfig | None = Field(default=None, description="score without training, to search or compare with")


class StageConfig(BaseModel):
    """A stage of a recipe: a file of configs/stage by name, and that stage's own keys."""

    model_config = ConfigDict(extra="allow", frozen=True)

    stage: str = Field(min_length=1, description="the kind of stage: a file of configs/stage")


class MeasureConfig(BaseModel):
    """A measure: a file of configs/measure by name, or a class or function by its dotted path; and its own keys."""

    model_config = ConfigDict(extra="allow", frozen=True)

    measure: str | None = Field(
        default=None, min_length=1, description="the kind of measure: a file of configs/measure"
    )
    target: str | None = Field(
        default=None, min_length=1, description="in its place, dotted path of a class or function of your own"
    )


class BudgetConfig(_Strict):
    """Limits of the search; null is no limit."""

    minutes: float | None = Field(default=None, gt=0, description="wall-clock minutes over all sessions")
    tokens: int | None = Field(default=None, gt=0, le=10**18, description="train plus eval tokens of the search")
    trials: int | None = Field(default=None, gt=0, le=10**12, description="measured trials")


class ConfirmConfig(_Strict):
    """What the search found, and the baselines, measured again with other seeds; on top of the budget."""

    seeds: int = Field(
        default=1, ge=1, le=10_000, description="measurements of each; 1: none more than the search makes"
    )
    candidates: int = Field(
        default=6, ge=0, le=10_000, description="candidates of the front that are measured again, at most"
    )


class RunnerConfig(_Strict):
    """How and where trials are run."""

    kind: Literal["local", "ray"] = Field(default="local", description="processes of this machine, or a Ray cluster")
    workers: int = Field(default=1, ge=1, le=4096, description="trials measured at a time")
    ahead: int | None = Field(
        default=None,
        ge=0,
        le=4096,
        description="batches asked for before the results of the oldest are told; null: workers - 1. Results depend on "
        "it, and not on the number of workers",
    )
    trial_minutes: float | None = Field(default=None, gt=0, description="a trial that takes longer fails")
    trial_gib: float | None = Field(default=None, gt=0, description="memory that a trial's process may take")
    address: Annotated[str | None, ByHand()] = Field(
        default=None,
        min_length=1,
        description="of a running Ray cluster (host:port), not from a file; null: one is started here",
    )
    cpus: float = Field(default=1.0, gt=0, description="processors that a trial declares to Ray")
    gpus: float | None = Field(
        default=None, ge=0, le=1024, description="GPUs that a trial declares to Ray; null: 1 where models are on CUDA"
    )
    together: int = Field(
        default=1,
        ge=1,
        le=4096,
        description="processes that train one model side by side, each on a part of every batch (Ray Train); needs "
        "runner=ray",
    )
    batch: int = Field(default=1, ge=1, le=100_000, description="proposals that a controller is asked for at a time")
    attempts: int = Field(default=5, ge=1, le=1000, description="how often a trial may end with its process")
    failures: int = Field(default=20, ge=1, le=10**9, description="failed trials in a row that end the run")
    duplicates: int = Field(default=200, ge=1, le=10**9, description="duplicates in a row that end the run")
    baselines: bool = Field(default=True, description="measure the task's baselines first")
    threads: int | None = Field(default=None, ge=1, le=1024, description="torch threads; null leaves the default")
    progress: bool = Field(default=True, description="show progress")

    @field_validator("together")
    @classmethod
    def _on_ray(cls, value: int, info: ValidationInfo) -> int:
        if value > 1 and info.data.get("kind") == "local":
            raise ValueError("training by several processes side by side needs runner=ray")
        return value


class PlacementConfig(_Strict):
    """Where models are trained and measured, in what precision, and what is traded for memory."""

    device: str = Field(
        default="cpu",
        pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$",
        description="cpu, cuda, cuda:1, mps, or auto: the best that is there",
    )
    precision: Literal["float32", "bf16", "tf32"] = Field(
        default="float32",
        description="of matrix products; weights, their optimiser and losses are float32 in any case",
    )
    checkpointing: bool = Field(
        default=False,
        description="compute a layer's activations again in the backward pass instead of keeping them",
    )
    accumulate: int = Field(
        default=1, ge=1, le=65536, description="parts of a training batch that are computed one after the other"
    )
    compile: bool = Field(default=False, description="torch.compile of models that are trained alone")
    shard: bool = Field(
        default=False,
        description="divide weights, gradients and optimiser of a language model that is trained alone among the "
        "processes that train it (FSDP2)",
    )


class ReportConfig(_Strict):
    """What is written for people, and what a candidate must show against production: written down before the search."""

    page: bool = Field(default=True, description="write report/index.html")
    tensorboard: bool = Field(default=True, description="write TensorBoard scalars")
    keep_all: bool = Field(default=False, description="keep the artifacts of dominated trials")
    baseline: str | None = Field(
        default=None,
        min_length=1,
        description="name of the production model; null: the newest registered one, the logged scores of production, "
        "the backbone, or the best baseline by validation",
    )
    registry: str | None = Field(
        default="baselines", min_length=1, description="folder of registered production models (rankitect.baseline)"
    )
    gates: dict[str, GateConfig | None] = Field(
        default_factory=dict, description="conditions of an A/B test, by a name of yours; null takes one away"
    )
    slices: list[str] | None = Field(
        default=None, description="categorical features, and user, to divide the test rows by; null: all"
    )
    experiment: ExperimentConfig = Field(default=ExperimentConfig(), description="the A/B test that is planned")


class SearchConfig(_Strict):
    """A whole search."""

    space: PluginConfig = Field(description="what is searched")
    task: PluginConfig = Field(description="what the models are for: data, loss and quality")
    controller: PluginConfig = Field(description="the search method")
    evaluator: EvaluatorsConfig = Field(description="what is measured, and which of it the search is for")
    device: PluginConfig | None = Field(default=None, description="where latency is measured; null: nowhere")
    constraints: dict[str, Bounds] = Field(
        default_factory=dict,
        description="allowed range of a cost by its name, [low, high] relative to the backbone, or to a ranking task's "
        "production model, or amounts low..high in its unit; null takes one away, or all",
    )
    choices: dict[str, ChoiceConfig] = Field(
        default_factory=dict, description="choices that shape no graph, by name; settings are bound to them"
    )
    recipe: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]*$")], StageConfig] = Field(
        default_factory=dict, description="stages of training after a model is made, in order, by names of yours"
    )
    measures: dict[Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")], MeasureConfig] = Field(
        default_factory=dict,
        description="what models are asked beside the task's quality, by names that their metrics then begin with",
    )
    budget: BudgetConfig = BudgetConfig()
    confirm: ConfirmConfig = ConfirmConfig()
    runner: RunnerConfig = Field(default=RunnerConfig(), description="how and where trials are measured")
    placement: PlacementConfig = Field(
        default=PlacementConfig(), description="device and precision of training and measuring"
    )
    report: ReportConfig = Field(default=ReportConfig(), description="what is written, and what a candidate must show")
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of everything random")
    output_dir: str | None = Field(
        default=None, min_length=1, description="run folder; null: runs/<space>-<controller>-<hash>"
    )
    resume: Literal["auto", "force"] = Field(
        default="auto", description="force: go on in a folder of another configuration"
    )
    preset: str | None = Field(default=None, description="many keys set together")
    allowed_packages: Annotated[list[str], ByHand()] = Field(
        default_factory=lambda: ["rankitect"],
        description="packages that a target may come from; not from a file, as their code is run",
    )

    @field_validator("constraints", mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return {} if value is None else value
        return {name: bounds for name, bounds in value.items() if bounds is not None}
