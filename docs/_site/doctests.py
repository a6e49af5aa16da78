"""Doctests in docstrings are shown as code.

The Google style has them in a section `Examples:`. Here they stand in the running text, where Markdown would take their
prompts for quotation marks.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

# A prompt with all lines that follow it, up to an empty one: further prompts and what they print.
_DOCTEST = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?! *$).*)*", re.MULTILINE)


def fenced(text: str) -> str:
    """A docstring with its doctests as fenced blocks of code.

    A doctest behind a section (`Args:`) would be taken for a part of it, so the text of a section ends with it.
    """
    return _DOCTEST.sub(lambda m: f"{m['indent']}```python\n{m[0]}\n{m['indent']}```", text)


class Doctests(griffe.Extension):
    """Rewrites every docstring that has a doctest."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring and ">>> " in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)
