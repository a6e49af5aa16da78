"""How many architectures of `mobile_llm` a second have their parameters and FLOPs read, on one core."""

from __future__ import annotations

import numpy as np
from common import arguments, in_turns, seconds, smollm2, table, verdict

TARGET = 20_000
"""Architectures a second."""


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=20)
    from rankitect.graph import SearchSpace
    from rankitect.search_spaces.mobile_llm import from_backbone, mobile_llm
    from rankitect.space.sampling import sample_columns

    many = 2_000 if options.quick else 20_000
    config = smollm2(options.quick)
    spaces: dict[str, SearchSpace] = {
        "mobile_llm, from scratch": mobile_llm(),
        "mobile_llm, pruned backbone": from_backbone(config, widths=(config.d_model // 2,)),
    }
    rows = []
    for name, space in spaces.items():
        columns = sample_columns(space, space.distribution, many, np.random.default_rng(0))
        some = space.decode({path: column[: many // 20] for path, column in columns.items()})
        jobs = {
            "parameters": lambda s=space, c=columns: s.cost(c, "params"),
            "FLOPs": lambda s=space, c=columns: s.cost(c, "flops"),
            "block FLOPs": lambda s=space, c=columns: s.cost(c, "flops", scope="layers"),
            "parameters and FLOPs, from Architecture objects": lambda s=space, a=some: both(s, a),
            "parameters and FLOPs of one, from its object": lambda s=space, a=some[:1]: both(s, a),
        }
        for kind, times in in_turns(jobs, options.rounds).items():
            n = 1 if "of one" in kind else len(some) if "objects" in kind else many
            speed = n / float(np.median(times))
            goal = verdict(speed, at_least=TARGET) if n == many else ""
            rows.append((name, kind, n, seconds(times), f"{speed:,.0f}", goal))
    table(
        "Cost readings",
        ("space", "reading", "architectures", "time", "architectures/s", "target"),
        rows,
        "One core (NumPy look-ups run on one). No torch module is built.",
    )


def both(space: object, architectures: object) -> None:
    """Read two costs from one encoding."""
    columns = space.encode(architectures)  # type: ignore[attr-defined]
    for kind in ("params", "flops"):
        space.cost(columns, kind)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
