from __future__ import annotations

from typing import Any, ClassVar, Protocol

from rankitect.contracts import AsksAhead, FromConfig, TrainsInPrepare, offers
from rankitect.contracts.capability import members_of, missing_members
from tests.study.toys import Climber, ClimberPlugin, Freely


class HasWeight(Protocol):
    @property
    def weight(self) -> float: ...


class HasWeightAndName(HasWeight, Protocol):
    name: str


class Heavy:
    """Counts how often its property is computed."""

    computed = 0

    @property
    def weight(self) -> float:
        Heavy.computed += 1
        return 1.0


def test_a_capability_is_found_without_computing_any_property() -> None:
    assert offers(Heavy(), HasWeight)
    assert Heavy.computed == 0


def test_the_members_of_inherited_protocols_count() -> None:
    assert members_of(HasWeightAndName) == ("name", "weight")
    assert missing_members(Heavy(), HasWeightAndName) == ["name"]


def test_attributes_of_the_object_itself_count() -> None:
    heavy = Heavy()
    heavy.name = "lead"  # type: ignore[attr-defined]
    assert offers(heavy, HasWeightAndName)


def test_classes_are_asked_like_objects() -> None:
    class Trains:
        trains: ClassVar[bool] = True

    assert offers(Trains, TrainsInPrepare)
    assert offers(ClimberPlugin, FromConfig)
    assert not offers(Climber, FromConfig)


def test_a_controller_that_can_be_asked_ahead_has_both_members() -> None:
    class OnlyWaits(Climber):
        def waits(self) -> bool:
            return False

    controllers: list[Any] = [Freely(), Climber(), OnlyWaits()]
    assert [offers(controller, AsksAhead) for controller in controllers] == [True, False, False]
    assert missing_members(controllers[2], AsksAhead) == ["reopen"]
