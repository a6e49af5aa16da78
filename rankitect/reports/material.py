"""What a report is made from: a run, its models against each other, and one candidate against production."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from rankitect.production.doubts import Doubt
from rankitect.production.evidence import Evidence
from rankitect.reports.cards import JSON
from rankitect.reports.case import Case, case_of
from rankitect.reports.common import Common, common_of
from rankitect.reports.comparison import Comparison, ModelPoint, compare, points_of
from rankitect.reports.doubts import doubts_of
from rankitect.reports.reproduction import reproduction_of
from rankitect.reports.roles import Roles, roles_of
from rankitect.reports.run import Run

__all__ = ["Material", "material_of"]


@dataclass(frozen=True)
class Material:
    """What the sections of a report are computed from.

    Attributes:
        run: The run.
        roles: What is quality and what is cost; None where the summary has no objectives.
        points: Baselines and candidates that have both.
        comparisons: Candidates against the baselines at equal cost.
        case: The production comparison, or why there is none.
        reproduction: What decides the report, as `reproduction_of` gives it.
    """

    run: Run
    roles: Roles | None
    points: list[ModelPoint]
    comparisons: list[Comparison]
    case: Case | str
    reproduction: Mapping[str, JSON]

    @property
    def evidence(self) -> Evidence | None:
        """The rows of the test data, where the run keeps them."""
        own = None if isinstance(self.case, str) else self.case.evidence
        return own or self.run.evidence

    @cached_property
    def doubts(self) -> list[Doubt]:
        """What is doubtful about the data, the severe first."""
        if isinstance(self.case, Case):
            return self.case.doubts
        return doubts_of(self.run, self.roles, self.evidence)

    @cached_property
    def common(self) -> Common:
        """The facts that several sections speak about."""
        return common_of(self.run, self.roles, self.points, self.comparisons, self.case, self.doubts)


def material_of(run: Run, baseline: str | None = None, candidate: str | None = None) -> Material:
    """Gather what a report is made from.

    Args:
        run: The run.
        baseline: Name of the production model; see `rankitect.reports.case.case_of`.
        candidate: Rank or fingerprint of the candidate.

    Raises:
        RunFolderError: There is no such baseline or candidate.
    """
    roles = roles_of(run)
    points = points_of(run, roles) if roles else []
    answers = run.answers.get(roles.quality.name) if roles else None
    comparisons = compare(points, roles, run.evidence, answers) if roles else []
    case = case_of(run, roles, comparisons, baseline, candidate)
    return Material(run, roles, points, comparisons, case, reproduction_of(run, case))
