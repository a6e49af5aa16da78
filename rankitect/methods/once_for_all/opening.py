"""Progressive shrinking (Cai et al., arXiv 1908.09791): kinds of choices are opened one after another, and the values
of each from the largest down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rankitect.errors import ConfigError, SpaceError, closest
from rankitect.methods.bounded_space import within

if TYPE_CHECKING:
    from rankitect.graph import Architecture, Choice, SearchSpace
    from rankitect.methods.bounded_space import BoundedSpace

__all__ = ["Opening", "roles"]


def _word(path: str) -> str:
    """The last word of a choice's name."""
    return path.rpartition(".")[2]


def roles(space: SearchSpace) -> list[list[str]]:
    """The choices of a space, by the last words of their names, in the order of progressive shrinking: what is inside
    of blocks (kernels, heads, ranks), what decides which blocks there are (depth), and the widths between them."""
    gates = frozenset[str]().union(*(live.paths for live in space.live.nodes.values()))
    widths = frozenset[str]().union(*(d.paths for n in space.graph.nodes for o in n.outputs for d in o.dims))
    groups: list[list[str]] = [[], [], []]
    for path, choice in space.choices.items():
        if len(choice.values) > 1:
            groups[1 if path in gates else 2 if path in widths else 0].append(_word(path))
    taken: set[str] = set()
    out = []
    for group in groups:  # a word that several groups have belongs to the first
        words = [word for word in dict.fromkeys(group) if word not in taken]
        taken.update(words)
        out += [words] if words else []
    return out


def _ranked(choice: Choice, largest: Any) -> list[Any]:
    """The values of a choice: that of the largest architecture first, then downwards, or as they were declared."""
    values: list[Any] = list(choice.values)
    if choice.ordered:
        values.sort(key=float, reverse=True)
    return sorted(values, key=lambda value: value != largest)


class Opening:
    """Which values of which choices are open.

    Every kind of choice is opened in two phases where it has more than two values: first the larger half of them, then
    all.

    Args:
        bounded: The space within the constraints.
        largest: The architecture that is open from the start.
        phases: Kinds of choices by the last words of their names, in order; None: `roles`.

    Attributes:
        count: Phases.

    Raises:
        ConfigError: A word is no choice's.
    """

    def __init__(self, bounded: BoundedSpace, largest: Architecture, phases: Sequence[Sequence[str]] | None) -> None:
        space = bounded.graph_space
        self._space, self._limits, self._largest = space, bounded.limits, largest
        open_ = {p: c for p, c in space.choices.items() if len(c.values) > 1}
        words = {_word(path) for path in open_}
        for word in (word for group in phases or () for word in group):
            if word not in words:
                guess = closest(word, words)
                raise ConfigError(
                    f"controller.phases has {word[:60]!r}, and no choice of this space is called so."
                    f"{f' Did you mean {guess!r}?' if guess else ''} Allowed: {', '.join(sorted(words))[:200]}."
                )
        self._values = {p: _ranked(c, largest.get(p)) for p, c in open_.items()}
        self._levels: list[dict[str, int]] = []  # by phase, how many values of each choice are open
        now = dict.fromkeys(open_, 1)
        groups = [list(group) for group in (roles(space) if phases is None else phases)]
        left = words - {word for group in groups for word in group}
        for group in [*groups, sorted(left)] if left else groups:
            members = [path for path in open_ if _word(path) in group]
            halves = {p: -(-len(self._values[p]) // 2) for p in members}
            if any(half > 1 for half in halves.values()):
                self._levels.append(now := now | halves)
            self._levels.append(now := now | {p: len(self._values[p]) for p in members})
        self.count = len(self._levels)

    def within(self, architecture: Architecture, opened: int) -> Architecture:
        """An architecture brought into what is open: values that are not are replaced by such that are.

        Args:
            architecture: Any.
            opened: How many phases are open, from 0 to `count`.

        Returns:
            The largest where the rules of the space or the constraints forbid what is left.
        """
        if opened >= self.count:
            return architecture
        if not opened:
            return self._largest
        values = {path: choice.values[0] for path, choice in self._space.choices.items()}
        values |= dict(self._largest.choices) | dict(architecture.choices)
        for path, count in self._levels[opened - 1].items():
            ranked = self._values[path]
            values[path] = ranked[ranked.index(values[path]) % count]
        try:
            brought = self._space.architecture(values)
        except SpaceError:
            return self._largest
        return brought if within(self._space, brought, self._limits) else self._largest
