"""Train one supernet whose weights all architectures share, rank architectures by it, and extract the best one."""

import torch
from torch.nn import functional as F

from rankitect.blocks import Linear
from rankitect.graph import B, Graph, SearchSpace
from rankitect.models.supernet import Supernet


def regressor() -> SearchSpace:
    """An MLP for 8 numbers: one to three layers, each of one of three widths."""
    g = Graph("regressor")
    x = g.input("x", B, 8)
    width, depth = g.choice("width", [64, 32, 16]), g.choice("depth", [3, 2, 1])
    x = g.repeat("layers", depth, lambda i, x: x + Linear(width, "relu")(x, name="linear"), Linear(width)(x, name="in"))
    g.out = Linear(1)(x, name="out")
    return SearchSpace(g)


def data(examples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers [B, 8] and the target [B, 1], which depends on products of them."""
    x = torch.randn(examples, 8, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, :1] * x[:, 1:2]).tanh() + x[:, 2:3].sin()


def main() -> None:
    """Train, rank, extract, and check that the extracted model is the same function."""
    space = regressor()
    supernet = Supernet(space)
    optimizer = torch.optim.Adam(supernet.parameters(), lr=3e-3)
    for step, architecture in enumerate(space.sample_many(400, rng=0)):  # another architecture in every step
        x, y = data(128, seed=step)
        optimizer.zero_grad()
        F.mse_loss(supernet.activate(architecture)(x), y).backward()
        optimizer.step()

    x, y = data(2000, seed=10**6)
    scores = {}
    with torch.no_grad():
        for architecture in set(space.sample_many(50, rng=1)):
            scores[architecture] = float(F.mse_loss(supernet.activate(architecture)(x), y))
    for architecture, error in sorted(scores.items(), key=lambda item: item[1])[:3]:
        print(f"error {error:.3f}, {space.cost(architecture, 'params'):.0f} parameters, {dict(architecture.choices)}")

    best = min(scores, key=scores.__getitem__)
    alone = supernet.extract(best)  # a plain nn.Module with its own weights
    assert torch.equal(alone(x), supernet.activate(best)(x))
    print(f"the extracted model has {sum(p.numel() for p in alone.parameters())} parameters and gives equal outputs")


if __name__ == "__main__":
    main()
