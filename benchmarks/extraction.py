"""How long it takes to take a pruned model out of the 135M backbone, and whether it is the same to the bit."""

from __future__ import annotations

import torch
from common import arguments, in_turns, random_backbone, seconds, table, verdict
from supernet_overhead import half_size

TARGET = 0.3
"""Seconds."""


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=15)
    import numpy as np

    from rankitect.graph import Architecture
    from rankitect.models.backbone import Backbone
    from rankitect.search_spaces.mobile_llm import from_backbone

    checkpoint = random_backbone(options.quick)
    space = from_backbone(checkpoint.config)
    plain = Backbone(checkpoint, space)
    fitted = Backbone(checkpoint, space, gram=some_moments(plain))
    narrow, mixed = half_size(plain)
    models: dict[str, Architecture] = {
        "the whole backbone": plain.largest,
        "narrow half": narrow,
        "mixed half": mixed,
        "drawn at random": space.sample(np.random.default_rng(0)),
    }
    ids = torch.randint(0, checkpoint.config.vocab, (1, 32))
    rows = []
    for name, architecture in models.items():
        for kind, backbone in {"weights": plain, "weights and refits": fitted}.items():
            first = in_turns({"first": lambda b=backbone, a=architecture: b.inherit(a)}, rounds=1, warm_up=0)["first"][
                0
            ]
            times = in_turns({"extract": lambda b=backbone, a=architecture: b.inherit(a)}, options.rounds)["extract"]
            alone = backbone.inherit(architecture)
            with torch.inference_mode():
                equal = torch.equal(alone(ids), backbone.supernet.activate(architecture)(ids))
            size = sum(p.numel() for p in alone.parameters())
            median = float(np.median(times))
            goal = verdict(median, at_most=TARGET)
            same = "yes" if equal else "NO"
            rows.append((name, kind, f"{size / 1e6:.1f} M", seconds(times), f"{first:.3g} s", goal, same))
            del alone
    table(
        "Extraction",
        ("model", "what is copied", "parameters", "time", "first time", "target, s", "equal to the bit"),
        rows,
        "The first time, the plan of the architecture is made and refits that no earlier model needed are solved.",
    )


def some_moments(backbone: object) -> dict[tuple[str, str], torch.Tensor]:
    """Second moments of the right shapes; times do not depend on their values."""
    found = {}
    for owner, module in backbone.supernet.weights.named_modules():  # type: ignore[attr-defined]
        for name in ("o", "down"):
            if name in module._parameters:
                n = module._parameters[name][0].numel()
                factor = torch.randn(n, 64) / 8
                found[owner, name] = factor @ factor.T + torch.eye(n)
    return found


if __name__ == "__main__":
    main()
