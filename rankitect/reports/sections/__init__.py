"""The sections of a report, one file and one template each.

To add one, write `sections/<id>.py` with a class derived from `rankitect.reports.section.Section` and an instance of it
called `SECTION`, and `sections/<id>.j2` with its sentences. Nothing else lists it: `sections` imports every module
of this folder and sorts what it finds by `order`. A section of another package is given to `write_report`, or named on
the command line; a run folder never names one, so that opening somebody else's runs no code of theirs. Charts belong
in `rankitect.reports.figures`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from functools import cache
from importlib import import_module

from rankitect.config.plugins import load_target
from rankitect.errors import ConfigError
from rankitect.reports.section import Section

__all__ = ["named_sections", "sections"]


def sections(more: Sequence[Section] = ()) -> list[Section]:
    """All sections, in the order of the page.

    Args:
        more: Sections of other packages.

    Raises:
        ConfigError: Two have one id.
    """
    every = sorted([*_own(), *more], key=lambda section: section.order)
    ids = [section.id for section in every]
    if twice := sorted({id_ for id_ in ids if ids.count(id_) > 1}):
        raise ConfigError(f"Two sections of a report have the id '{twice[0]}'. There are: {', '.join(ids)}.")
    return every


@cache
def _own() -> tuple[Section, ...]:
    modules = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return tuple(module.SECTION for module in modules)


def named_sections(names: str) -> list[Section]:
    """The sections that a command line names.

    Args:
        names: Dotted paths of classes, with commas between; "" for none.

    Raises:
        ConfigError: One cannot be imported, or is no section.
    """
    chosen: list[Section] = []
    for name in filter(None, names.split(",")):
        section = load_target(name, [name.partition(".")[0]], "sections", ("Section",))()
        if not isinstance(section, Section):
            raise ConfigError(
                f"sections: '{name}' is no section: it must derive from rankitect.reports.section.Section."
            )
        chosen.append(section)
    return chosen
