"""Studies: trials, their store, resume, the ledger, and the contracts that plug-ins keep.

What a plug-in needs is here; the rest is in the modules (`study`, `store`, `summary` …).
"""

from rankitect.study.contracts import (
    Baseline,
    Controller,
    Evaluator,
    Exporter,
    Measurement,
    Metric,
    MetricSpec,
    Proposal,
    Session,
    Spent,
    StopRequested,
    Trial,
    TrialContext,
    replay,
)

__all__ = [
    "Baseline",
    "Controller",
    "Evaluator",
    "Exporter",
    "Measurement",
    "Metric",
    "MetricSpec",
    "Proposal",
    "Session",
    "Spent",
    "StopRequested",
    "Trial",
    "TrialContext",
    "replay",
]
