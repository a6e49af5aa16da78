"""What the parts of a search promise each other: protocols, and the plain records that cross them.

A plug-in needs only this room: a controller proposes architectures, the study has them measured by evaluators and
stores every result, and the controller is told. Here belong protocols and immutable records that survive JSON. Nothing
here computes anything, holds state, or imports a heavy package.
"""

from rankitect.contracts.capability import offers
from rankitect.contracts.controller import (
    AsksAhead,
    Controller,
    ExpectsTrials,
    Session,
    TrainsAsConfigured,
    TrainsInPrepare,
    WrapsEvaluators,
    replay,
)
from rankitect.contracts.device import Device, ExportsPrograms, ExportsRankers, Latencies, TimesPrograms
from rankitect.contracts.evaluator import Evaluator, Exporter, StopRequested, TrialContext
from rankitect.contracts.plugin import Estimates, FromConfig, NamesCosts, NamesModels, Preloads, plugin
from rankitect.contracts.records import (
    JSON,
    ArchitectureLike,
    Baseline,
    Direction,
    Measurement,
    Metric,
    MetricSpec,
    Proposal,
    Role,
    Spent,
    Trial,
    TrialState,
    Unit,
)
from rankitect.contracts.requirement import LacksCapability, require
from rankitect.contracts.runner import Job, JobResult, PreparesElsewhere, Runner
from rankitect.contracts.task import (
    BoundsCosts,
    HasReference,
    InheritsWeights,
    Quality,
    SharedTraining,
    SharesWeights,
    Task,
    TellsCosts,
)

__all__ = [
    "JSON",
    "ArchitectureLike",
    "AsksAhead",
    "Baseline",
    "BoundsCosts",
    "Controller",
    "Device",
    "Direction",
    "Estimates",
    "Evaluator",
    "ExpectsTrials",
    "Exporter",
    "ExportsPrograms",
    "ExportsRankers",
    "FromConfig",
    "HasReference",
    "InheritsWeights",
    "Job",
    "JobResult",
    "LacksCapability",
    "Latencies",
    "Measurement",
    "Metric",
    "MetricSpec",
    "NamesCosts",
    "NamesModels",
    "Preloads",
    "PreparesElsewhere",
    "Proposal",
    "Quality",
    "Role",
    "Runner",
    "Session",
    "SharedTraining",
    "SharesWeights",
    "Spent",
    "StopRequested",
    "Task",
    "TellsCosts",
    "TimesPrograms",
    "TrainsAsConfigured",
    "TrainsInPrepare",
    "Trial",
    "TrialContext",
    "TrialState",
    "Unit",
    "WrapsEvaluators",
    "offers",
    "plugin",
    "replay",
    "require",
]
