"""What the parts of a search promise each other: protocols, and the plain records that cross them.

A plug-in needs only this room: a controller proposes architectures, the study has them measured by evaluators and
stores every result, and the controller is told. Here belong protocols and immutable records that survive JSON. Nothing
here computes anything, holds state, or imports a heavy package.
"""

from rankitect.contracts.controller import Controller, Session, replay
from rankitect.contracts.device import Device, ExportsPrograms, ExportsRankers, Latencies
from rankitect.contracts.evaluator import Evaluator, Exporter, StopRequested, TrialContext
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

__all__ = [
    "JSON",
    "ArchitectureLike",
    "Baseline",
    "Controller",
    "Device",
    "Direction",
    "Evaluator",
    "Exporter",
    "ExportsPrograms",
    "ExportsRankers",
    "Latencies",
    "Measurement",
    "Metric",
    "MetricSpec",
    "Proposal",
    "Role",
    "Session",
    "Spent",
    "StopRequested",
    "Trial",
    "TrialContext",
    "TrialState",
    "Unit",
    "replay",
]
