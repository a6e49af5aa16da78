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
    Specialised,
    Specialises,
    TrainsAsConfigured,
    TrainsInPrepare,
    WrapsEvaluators,
    replay,
)
from rankitect.contracts.device import (
    Device,
    ExportsClassifiers,
    ExportsPrograms,
    ExportsRankers,
    Latencies,
    TimesPrograms,
)
from rankitect.contracts.evaluator import (
    Evaluator,
    Exporter,
    FollowsRecipe,
    StopRequested,
    TakesCandidates,
    TrainsForSteps,
    TrialContext,
)
from rankitect.contracts.inputs import Calibrates, HasImages
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
from rankitect.contracts.weights import TakesWeights

__all__ = [
    "JSON",
    "ArchitectureLike",
    "AsksAhead",
    "Baseline",
    "BoundsCosts",
    "Calibrates",
    "Controller",
    "Device",
    "Direction",
    "Estimates",
    "Evaluator",
    "ExpectsTrials",
    "Exporter",
    "ExportsClassifiers",
    "ExportsPrograms",
    "ExportsRankers",
    "FollowsRecipe",
    "FromConfig",
    "HasImages",
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
    "Specialised",
    "Specialises",
    "Spent",
    "StopRequested",
    "TakesCandidates",
    "TakesWeights",
    "Task",
    "TellsCosts",
    "TimesPrograms",
    "TrainsAsConfigured",
    "TrainsForSteps",
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
