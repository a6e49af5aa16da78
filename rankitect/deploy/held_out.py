"""Real text on which a candidate's program is compared with the candidate, after the search."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel, ConfigDict, Field

from rankitect.data.text import DEFAULT_TEXT, open_text
from rankitect.data.windows import HELD_OUT, TextWindows
from rankitect.documents import read_json, read_yaml
from rankitect.errors import ConfigError, DataError, RunFolderError, brief

if TYPE_CHECKING:
    from rankitect.data.text import TextSource
    from rankitect.models.candidate import LanguageCandidate

__all__ = ["open_given", "text_of_file", "text_of_run"]


class _Keys(BaseModel):
    """What a reader relies on of a file that has more."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Task(_Keys):
    text: str = ""
    field: str = "text"
    text_limit: int | None = Field(None, ge=1)
    context: int = Field(256, ge=1, le=2**20)
    split_seed: int = Field(0, ge=0, lt=2**32)
    begin: bool | None = None


class _Configuration(_Keys):
    task: _Task
    seed: int = 0


class _Facts(_Keys):
    fingerprint: str


def text_of_run(run: Path, candidate: LanguageCandidate) -> torch.Tensor:
    """Windows of the text that a run was judged by, [W, T] token ids: those on which a search compares its programs.

    Args:
        run: The run folder.
        candidate: One of its candidates.

    Raises:
        DataError: The text is not to be had here, or is no longer the one that the run was judged by; says why.
        RunFolderError: config.yaml or data.json is damaged.
    """
    if not (run / "data.json").is_file() or not (run / "config.yaml").is_file():
        raise DataError("the run folder does not say which text the run was judged by")
    config = read_yaml(run / "config.yaml", _Configuration, RunFolderError)
    task, tokenizer = config.task, candidate.tokenizer
    if not task.text:
        raise DataError("the run's task has no text of this kind")
    if "://" in task.text:  # a run folder may be somebody else's: what it names is not asked for over a network
        raise DataError(f"the run's text, {brief(task.text, 80)}, is no file of this machine")
    if not _is_there(task.text):
        raise DataError(f"the run's text, {brief(task.text, 80)}, is not here")
    begin = candidate.usage.first_token(tokenizer)
    if task.begin is not None:
        begin = tokenizer.special_ids.get("bos") if task.begin else None
    windows = TextWindows.open(
        tokenizer,
        task.text,
        context=task.context,
        seed=config.seed,
        split_seed=task.split_seed,
        field=task.field,
        limit=task.text_limit,
        begin=begin,
    )
    if windows.text.fingerprint != read_json(run / "data.json", _Facts, RunFolderError).fingerprint:
        raise DataError(f"{brief(task.text, 80)} is no longer the text that the run was judged by")
    return windows.held_out()


def _is_there(text: str) -> bool:
    """Whether a text can be here; of patterns and URIs only opening them tells."""
    return text == DEFAULT_TEXT or "://" in text or any(c in text for c in "*?[") or os.path.exists(text)


def open_given(text: str) -> TextSource:
    """The text that a user names with `text=`.

    Raises:
        ConfigError: There is none, or it is of a kind that cannot be read.
    """
    if not _is_there(text):
        raise ConfigError(f"text={brief(text)}: there is no such file or folder, and {DEFAULT_TEXT} is the only name.")
    try:
        return open_text(text)
    except DataError as error:
        raise ConfigError(f"text={brief(text, 80)}: {brief(error, 300)}") from error


def text_of_file(source: TextSource, candidate: LanguageCandidate, capacity: int) -> torch.Tensor:
    """The first windows of a text, [W, T] token ids, which begin as the candidate's prompts do.

    Args:
        source: The text.
        candidate: Its tokenizer encodes.
        capacity: Tokens of a window, where the text has as many.

    Raises:
        ConfigError: The text cannot be read, or has less than two tokens.
    """
    first = candidate.usage.first_token(candidate.tokenizer)
    width = capacity if first is None else capacity - 1
    ids: list[int] = []
    try:
        for document in source:
            ids += candidate.tokenizer.encode(document.text).tolist()
            if len(ids) >= HELD_OUT * width:
                break
    except DataError as error:
        raise ConfigError(f"text=: {brief(error, 400)}") from error
    width = min(width, len(ids))
    if width < 2:
        raise ConfigError(f"text={brief(source.name, 80)} has {len(ids)} tokens; two are the least to predict one.")
    count = min(HELD_OUT, len(ids) // width)
    windows = torch.tensor(ids[: count * width]).reshape(count, width)
    return windows if first is None else torch.cat([windows.new_full((count, 1), first), windows], dim=1)
