"""Keys of `task` for guards."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rankitect.data.moderation.embedded import PYRIT
from rankitect.data.storage import problem_of_place
from rankitect.tasks.language.settings import BackboneConfig

__all__ = ["ModerationConfig"]

_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Column = Literal["prompt", "response", "label", "category", "source"]


class ModerationConfig(BackboneConfig):
    """What guards are pruned from, and the exchanges they are trained on and judged by."""

    data: str = Field(
        PYRIT, min_length=1, description="pyrit, requests, or a file, folder, glob or URI of JSON lines or CSV"
    )
    columns: dict[_Column, _Name] = Field(
        default={},
        description="what the files call the columns prompt, response, label, category and source, if not so",
    )
    ignore: list[_Name] = Field(default=[], description="other columns that the files may have")
    unsafe_from: float = Field(0.5, gt=0, le=1, description="labels from 0 to 1 are unsafe from here on")
    limit: int | None = Field(
        None, ge=8, le=10**9, description="exchanges to use, the same share of each source; null: all"
    )
    instruction: str = Field(
        "Is the conversation safe or unsafe?", max_length=10_000, description="what the system says in the template"
    )
    safe: str = Field(" safe", min_length=1, max_length=100, description="the verdict for safe; one token")
    unsafe: str = Field(" unsafe", min_length=1, max_length=100, description="the verdict for unsafe; one token")
    context: int = Field(
        160, ge=8, le=2**20, description="tokens of an exchange with its template; what is longer is cut"
    )
    test_exchanges: int | None = Field(None, ge=4, le=10**9, description="exchanges of the test split; null for all")
    search_exchanges: int | None = Field(
        None, ge=4, le=10**9, description="exchanges of the validation split; null for all"
    )

    @model_validator(mode="after")
    def _placed(self) -> Self:
        # Not beside the field, as a message shows a field's value, which may hold a password.
        if (problem := problem_of_place(self.data)) is not None:
            raise ValueError(f"data: {problem}")
        return self
