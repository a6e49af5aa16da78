"""Rankitect: neural architecture search for ranking models and on-device language models.

`rankitect.search(["space=mobile_llm", "controller=dnas"])` does what the command
`python -m rankitect.search space=mobile_llm controller=dnas` does, and so do `rankitect.train(...)`,
`rankitect.measure(...)`, `rankitect.compare(...)` and `rankitect.pick(...)`. `rankitect.search` is a module as well
(`from rankitect.search import search` gives the same function), as the others are; docs/adr/0002 says how one name can
be both. `rankitect.load_candidate(folder)` opens what a search or a training leaves behind.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "compare", "load_candidate", "measure", "pick", "search", "train"]

_CALLABLE = ("compare", "measure", "pick", "search", "train")
"""Submodules that can be called, as the function of the same name in them."""
_FUNCTIONS = {"load_candidate": "rankitect.models.candidate"}
"""Functions by the module that they are in."""


class _CallableModule(ModuleType):
    """A module that can be called: a call is passed to its function of the same name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return vars(self)[self.__name__.rpartition(".")[2]](*args, **kwargs)


class _Package(ModuleType):
    """The package `rankitect`: makes some of its submodules callable at the moment the import system binds it.

    The import system sets a submodule as an attribute of its package, whichever import statement brought it in. Acting
    there, rather than in `__getattr__` alone, makes `rankitect.search(...)` work after `import rankitect.search` too.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name in _CALLABLE and type(value) is ModuleType:
            value.__class__ = _CallableModule
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Import a callable submodule when it is first asked for, so that `import rankitect` costs nothing."""
    if name in _CALLABLE:
        # By name: an import statement would make every room depend on the search, in the eyes of the import rules.
        return importlib.import_module(f"rankitect.{name}")
    if name in _FUNCTIONS:
        return vars(importlib.import_module(_FUNCTIONS[name]))[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
