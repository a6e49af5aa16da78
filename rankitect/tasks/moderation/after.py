"""Programs of guards after their run: judged by the exchanges that the run was judged by."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from rankitect.data.moderation.embedded import EMBEDDED
from rankitect.documents import as_kind, read_json, read_yaml
from rankitect.errors import ConfigError, DataError, RunFolderError, brief
from rankitect.tasks.moderation.opening import open_exchanges
from rankitect.tasks.moderation.programs import check_capacity, judge_of
from rankitect.tasks.moderation.settings import ModerationConfig

if TYPE_CHECKING:
    from rankitect.deploy.artifact import ProgramJudge
    from rankitect.models.candidate import LanguageCandidate

__all__ = ["judge_of_run"]

_TARGET = "rankitect.tasks.moderation.task.Moderation"


class _Configuration(BaseModel):
    """What is relied on of config.yaml."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    task: dict[str, Any]
    seed: int = Field(0, ge=0, lt=2**63)


class _Facts(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    fingerprint: str


def judge_of_run(run: Path, candidate: LanguageCandidate, capacity: int) -> ProgramJudge | None:
    """Judges programs of a run's candidates as the run did; None where the run is of no guards.

    Args:
        run: The run folder.
        candidate: One of its candidates.
        capacity: Tokens that the program will hold.

    Raises:
        ConfigError: The program could not hold an exchange.
        DataError: The exchanges are not to be had here, or are no longer those of the run; says why.
        RunFolderError: config.yaml or data.json is damaged.
    """
    if not (run / "config.yaml").is_file():
        return None
    config = read_yaml(run / "config.yaml", _Configuration, RunFolderError)
    if config.task.get("target") != _TARGET:
        return None
    known = {name: value for name, value in config.task.items() if name in ModerationConfig.model_fields}
    settings = as_kind(known, ModerationConfig, run / "config.yaml", RunFolderError)
    shown = brief(settings.data, 80)
    if "://" in settings.data:  # a run folder may be somebody else's: what it names is not asked for over a network
        raise DataError(f"the run's exchanges, {shown}, are no file of this machine")
    if not (settings.data in EMBEDDED or any(c in settings.data for c in "*?[") or os.path.exists(settings.data)):
        raise DataError(f"the run's exchanges, {shown}, are not here")
    if not (run / "data.json").is_file():
        raise DataError("the run folder does not say which exchanges the run was judged by")
    try:
        data = open_exchanges(candidate, settings, config.seed)
    except ConfigError as error:
        raise DataError(f"the run's exchanges cannot be read: {error}") from error
    if data.fingerprint != read_json(run / "data.json", _Facts, RunFolderError).fingerprint:
        raise DataError(f"{shown} has no longer the exchanges that the run was judged by")
    check_capacity(data, capacity)
    return judge_of(data, settings.search_exchanges)
