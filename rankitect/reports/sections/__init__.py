"""The sections of a report, one file and one template each.

To add one, write `sections/<id>.py` with a class derived from `rankitect.reports.section.Section` and an instance of it
called `SECTION`, and `sections/<id>.j2` with its sentences. Nothing else lists it: `sections` imports every module
of this folder and sorts what it finds by `order`. Charts belong in `rankitect.reports.figures`.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from rankitect.reports.section import Section

__all__ = ["sections"]


@cache
def sections() -> tuple[Section, ...]:
    """All sections, in the order of the page."""
    modules = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return tuple(sorted((module.SECTION for module in modules), key=lambda section: section.order))
