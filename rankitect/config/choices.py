"""The root section `choices`: choices that shape no graph, in plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rankitect.errors import ConfigError, SpaceError

if TYPE_CHECKING:
    from rankitect.space.choices import Choice
    from rankitect.space.declaring import Choices
    from rankitect.space.expr import Expr

__all__ = ["ChoiceConfig", "declared_choices"]

Plain: TypeAlias = bool | int | float | str

_FORMS = (
    "write a list of values, or {low: 1e-4, high: 1e-2, values: 9, log: true}, or {members: [a, b, c], total: 10} for "
    "parts that sum to a total"
)


class ChoiceConfig(BaseModel):
    """One choice: a list of values, a range of real numbers, or parts that sum to a total."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    values: list[Plain] | Annotated[int, Field(le=10_000)] | None = Field(
        None, description="the values; with low and high, how many there are"
    )
    low: float | None = Field(None, description="the least of a range of real numbers")
    high: float | None = Field(None, description="the largest of it")
    log: bool = Field(False, description="whether their logarithms are evenly spaced, not the numbers")
    members: list[str] | Annotated[int, Field(le=1000)] | None = Field(
        None, description="members that a total is shared out among, or how many"
    )
    total: int | None = Field(None, le=100_000, description="what their parts, whole numbers, sum to")
    least: int = Field(0, ge=0, le=100_000, description="parts that each has at least")
    when: dict[str, Plain | list[Plain]] = Field(
        default_factory=dict, description="values of earlier choices under which this one has an effect"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, data: Any) -> Any:
        """A list is short for its values."""
        if not isinstance(data, list | dict | cls):
            raise ValueError(_FORMS)
        return {"values": data} if isinstance(data, list) else data

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        forms = {
            "values": isinstance(self.values, list),
            "range": None not in (self.low, self.high) and isinstance(self.values, int),
            "parts": None not in (self.members, self.total),
        }
        ranged = self.low is not None or self.high is not None or self.log or isinstance(self.values, int)
        mixed = self.members is not None or self.total is not None or self.least > 0
        if sum(forms.values()) != 1 or (ranged and not forms["range"]) or (mixed and not forms["parts"]):
            raise ValueError(_FORMS)
        return self

    def declare(self, declared: Choices, path: str) -> None:
        """Declare this choice.

        Raises:
            SpaceError: Its values are unusable, or `when` asks for what is not declared before it.
        """
        from rankitect.space.scales import linear_range, log_range

        when = self._condition(declared.choices)
        if self.members is not None and self.total is not None:
            declared.simplex(path, self.members, self.total, self.least, when=when)
        elif isinstance(self.values, int):
            assert self.low is not None
            assert self.high is not None
            scale = (log_range if self.log else linear_range)(self.low, self.high, self.values)
            declared.choice(path, scale, when=when)
        else:
            declared.choice(path, self.values or [], when=when)

    def _condition(self, known: Mapping[str, Choice]) -> Expr | None:
        from rankitect.space.expr import all_of, any_of

        conditions = []
        for path, allowed in self.when.items():
            if path not in known:
                raise SpaceError(f"`when` asks for '{path}'; declared before it: {', '.join(known) or 'nothing'}")
            values = allowed if isinstance(allowed, list) else [allowed]
            conditions.append(any_of(known[path].is_(value) for value in values))
        return all_of(conditions) if conditions else None


def declared_choices(name: str, choices: Mapping[str, ChoiceConfig]) -> Choices:
    """The choices of a configuration, declared in its order.

    Args:
        name: Of the declaration.
        choices: By path.

    Raises:
        ConfigError: One is unusable: names it and says why.
    """
    from rankitect.space.declaring import Choices

    declared = Choices(name)
    for path, choice in choices.items():
        try:
            choice.declare(declared, path)
        except SpaceError as error:
            raise ConfigError(f"choices.{path}: {error}") from None
    return declared
