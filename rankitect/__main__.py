"""`python -m rankitect`: the commands there are."""

from __future__ import annotations

import sys

from rankitect import __version__
from rankitect.terminal import complain, ended, say

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "rankitect.search": "search a space and write candidates and a report: space=mobile_llm controller=dnas",
    "rankitect.train": "train one model by a recipe, without a search: model=architecture.json recipe=heal",
    "rankitect.measure": "measure architectures of your own side by side: a.json b.json space=mobile_llm",
    "rankitect.compare": "compare methods: the same search for every controller and seed, one table and plots",
    "rankitect.data.assets": "fetch and verify the pinned models; a search does so by itself when it needs one",
    "rankitect.baseline": "add, list or retire the production models that searches compare with",
    "rankitect.report": "write the report of a run again: a candidate against production",
    "rankitect.verify": "check that a report still says what its run folder says",
    "rankitect.pick": "another cut of what a search measured, without searching again: prefill_ms=300 bytes=60e6",
    "rankitect.export": "a study for other tools: an Optuna storage, Parquet, CSV",
    "rankitect.run_pte": "generate text with a program that a search exported",
    "rankitect.data.ranking.synthetic": "write a generated click log in the format of Criteo or Avazu",
    "rankitect.doctor": "what is installed, what is missing, what to do about it",
}


def main() -> int:
    """Print the commands.

    Returns:
        0, or 2 where something was asked for that is not a command of this module.
    """
    say(f"rankitect {__version__}\n")
    width = max(map(len, COMMANDS))
    for module, what in COMMANDS.items():
        say(f"  python -m {module:<{width}}  {what}")
    say("\nEach of them says more with --help.")
    unknown = [word for word in sys.argv[1:] if word not in ("-h", "--help", "--version")]
    if not unknown:
        return 0
    complain(f"{unknown[0][:60]!r} is no command here: run one of the lines above.")
    return 2


if __name__ == "__main__":
    sys.exit(ended(main))
