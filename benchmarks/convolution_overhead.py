"""What the graph costs where channels are open: a step of a network of the supernet `ofa_resnet` against the same
slices of the same weights, written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from common import arguments, in_turns, ratio, seconds, table, verdict

MOST = 1.10
"""The largest ratio allowed."""
SHAPE = (3, 32, 32)


class ByHand:
    """The slices of an architecture of basic blocks, as one would write them without a graph."""

    def __init__(self, supernet: Any, architecture: Any) -> None:
        self.owner, self.sizes = supernet.weights.owner, architecture.choices

    def conv_norm(self, x: torch.Tensor, path: str, width: int, stride: int = 1) -> torch.Tensor:
        """A convolution, then the norm of its channels by the batch, which moves the shared statistics."""
        conv, norm = self.owner(path), self.owner(f"{path}_norm")
        x = F.conv2d(x, conv.weight[:width, : x.shape[1]], None, stride, conv.weight.shape[-1] // 2)
        mean, variance = norm.mean[:width], norm.variance[:width]
        return F.batch_norm(x, mean, variance, norm.weight[:width], norm.bias[:width], True, 0.1, 1e-5)

    def block(self, x: torch.Tensor, path: str, width: int, stride: int = 1) -> torch.Tensor:
        """Two convolutions of 3x3 beside the input, or beside a convolution of its means."""
        inner = max(4, (width * self.sizes[f"{path}.expand"] + 200) // 400 * 4)
        h = F.relu(self.conv_norm(x, f"{path}.conv1", inner, stride))
        h = self.conv_norm(h, f"{path}.conv2", width)
        if path.endswith("first"):
            pooled = F.avg_pool2d(x, stride, stride) if stride > 1 else x
            x = self.conv_norm(pooled, f"{path}.shortcut", width)
        return F.relu(h + x)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B, 10]."""
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(self.conv_norm(x, "stem.conv", self.sizes["stem.width"]))
        for stage in range(3):
            path = f"stages.{stage}"
            width = self.sizes[f"{path}.width"]
            x = self.block(x, f"{path}.first", width, 1 if stage == 0 else 2)
            for i in range(self.sizes[f"{path}.depth"]):
                x = self.block(x, f"{path}.blocks.{i}", width)
        last = self.owner("classifier")
        pooled = x.mean((2, 3))
        return F.linear(pooled, last.weight[:, : pooled.shape[1]], last.bias)


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", rounds=15, batch=64)

    from rankitect.models.supernet import Supernet
    from rankitect.search_spaces.ofa_resnet import ofa_resnet

    space = ofa_resnet(SHAPE, 10)
    supernet = Supernet(space, 0)
    draw = torch.Generator().manual_seed(0)
    batch = 4 if options.quick else options.batch
    images = torch.randn(batch, *SHAPE, generator=draw)
    labels = torch.randint(10, (batch,), generator=draw)
    results = []
    for name in ("largest", "smallest"):
        architecture = space.points[name]
        models = {"graph": supernet.activate(architecture), "hand": ByHand(supernet, architecture)}
        torch.testing.assert_close(models["graph"](images), models["hand"](images), rtol=1e-4, atol=1e-4)
        jobs = {which: job(supernet, model, images, labels) for which, model in models.items()}
        times = in_turns(jobs, options.rounds, warm_up=2)
        value, text = ratio(times, "graph", "hand")
        results.append((name, seconds(times["graph"]), seconds(times["hand"]), text, verdict(value, at_most=MOST)))
    table(
        f"Forward and backward of networks of the supernet, {images.shape[0]} images of 32 x 32",
        ("network", "graph", "by hand", "ratio", "target"),
        results,
        "By hand: the same slices of the same weights, channels last, statistics moved.",
    )


def job(supernet: Any, model: Callable[[torch.Tensor], torch.Tensor], images: Any, labels: Any) -> Callable[[], object]:
    """Loss and gradients."""

    def run() -> object:
        supernet.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()
        return None

    return run


if __name__ == "__main__":
    main()
