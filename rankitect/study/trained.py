"""summary.json of a training without a search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.contracts import Measurement, MetricSpec, Spent
from rankitect.data.files import write_whole
from rankitect.documents import parse_json, read_json
from rankitect.errors import RankitectError
from rankitect.study.summary import MetricSummary, summarised
from rankitect.study.versions import versions

__all__ = ["TrainedSummary", "read_trained"]

FILE = "summary.json"


class TrainedSummary(BaseModel):
    """What one training gave.

    Attributes:
        schema_: Version of the file, `schema` in it.
        kind: Tells the file from a search's.
        space: Name of the space.
        task: Name of the task.
        recipe: The recipe's stages in order.
        model: What was asked for.
        fingerprint: Of the architecture.
        architecture: Its canonical JSON, as an object.
        seed: Of everything random.
        metrics: What was measured after the last stage.
        artifacts: Files by a short name, as paths relative to the run folder.
        spent: What the training and the measurement cost.
        computed: The part of it that was really computed; the rest was stored by earlier runs.
        versions: Of what has an influence on results.
        reproduce: The command.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, frozen=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    kind: Literal["training"] = "training"
    space: str
    task: str
    recipe: list[str]
    model: str
    fingerprint: str
    architecture: dict[str, Any]
    seed: int
    metrics: dict[str, MetricSummary]
    artifacts: dict[str, str]
    spent: Spent
    computed: Spent
    versions: dict[str, str]
    reproduce: str

    @classmethod
    def of(
        cls, measurement: Measurement, promised: Sequence[MetricSpec], architecture: Any, **about: Any
    ) -> TrainedSummary:
        """The summary of a finished training.

        Args:
            measurement: What the evaluator measured, with what it cost.
            promised: What the evaluator says of its metrics.
            architecture: Of the model.
            **about: The other fields.
        """
        metrics = summarised(measurement.metrics, promised)
        return cls(
            fingerprint=architecture.fingerprint,
            architecture=parse_json(architecture.to_json(), dict[str, Any]),
            metrics=metrics,
            artifacts=dict(measurement.artifacts),
            spent=measurement.spent,
            computed=measurement.computed,
            versions=versions(),
            **about,
        )

    def write(self, folder: Path) -> None:
        """Write summary.json, whole or not at all."""
        write_whole(folder / FILE, self.model_dump_json(indent=2, by_alias=True, exclude_none=True) + "\n")


def read_trained(folder: Path) -> TrainedSummary | None:
    """The summary of a finished training; None where it has not come so far, or the file is another's."""
    try:
        return read_json(folder / FILE, TrainedSummary)
    except RankitectError:
        return None
