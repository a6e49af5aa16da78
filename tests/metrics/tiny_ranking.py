"""A table of clicks small enough for tests, held in memory: clicks depend on products of features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from rankitect.data.ranking.dataset import RankingData, RankingSplit
from rankitect.data.ranking.features import CategoricalFeature, Features

FEATURES = Features(
    ("price", "age"), (CategoricalFeature("user", 42), CategoricalFeature("item", 32), CategoricalFeature("tags", 8, 3))
)


def table(rows: int = 1200, seed: int = 0, *, weighted: bool = False, features: Features = FEATURES) -> RankingData:
    """80/10/10 in order; the user is the group."""
    world, rng = np.random.default_rng(0), np.random.default_rng(seed + 1)
    numeric = rng.normal(size=(rows, len(features.numeric))).astype(np.float32)
    user, item = rng.integers(2, 42, rows), rng.integers(2, 32, rows)
    tags = rng.integers(2, 8, (rows, 3))
    tags[:, 2] = -1
    tastes, kinds = world.normal(size=(42, 2)), world.normal(size=(32, 2))
    score = 1.5 * (tastes[user] * kinds[item]).sum(1) + numeric[:, 0] - 0.5
    label = (rng.random(rows) < 1 / (1 + np.exp(-score))).astype(np.float32)
    ids = np.concatenate([user[:, None], item[:, None], tags], axis=1).astype(np.int32)
    weight = rng.random(rows).astype(np.float32) + 0.5 if weighted else None
    ends = {"train": (0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}
    splits = {}
    for name, (low, high) in ends.items():
        part = slice(round(low * rows), round(high * rows))
        w = None if weight is None else weight[part]
        splits[name] = RankingSplit(name, numeric[part], ids[part], label[part], w, user[part].astype(np.int64))
    return RankingData("clicks", f"{rows}-{seed}-{weighted}", features, splits, {}, Path("."))


class Factorized(nn.Module):
    """A factorization machine on user and item with a linear part, enough for the clicks above."""

    def __init__(self, seed: int = 0, width: int = 2) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.user = nn.Parameter(0.3 * torch.randn(42, width, generator=g))
        self.item = nn.Parameter(0.3 * torch.randn(32, width, generator=g))
        self.linear = nn.Parameter(torch.zeros(1, 2))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, numeric: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        pair = (self.user[ids[:, 0]] * self.item[ids[:, 1]]).sum(1, keepdim=True)
        return pair + numeric @ self.linear.T + self.bias
