"""Types of settings that many plug-ins have, with the bounds within which they mean something."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

__all__ = ["Size"]

Size = Annotated[int, Field(ge=1, le=2**16)]
"""A width, a depth or a number of heads, where a list of them is given."""
