"""Configuration: from the words of a command line to checked settings, and from those to the parts of a search.

Here belong the keys of the core, with their types, ranges and meanings (`schema.py`), composing and checking
(`compose.py`, `resolve.py`), importing what a configuration names (`plugins.py`) and making it (`parts.py`). The keys
of a plug-in belong to the plug-in, in its own `Config`. Nothing here runs a search.

The way in is `resolve`.
"""

from rankitect.config.plugins import Plugin
from rankitect.config.resolve import Resolved, resolve

__all__ = ["Plugin", "Resolved", "resolve"]
