"""The shared weights of a differentiable search, trained on sampled architectures beside the scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from rankitect.graph import Architecture
    from rankitect.models.supernet import Supernet

__all__ = ["CoTraining"]

WARMUP = 4


class CoTraining:
    """Trains a supernet for the architectures that the scores sample.

    Args:
        supernet: Trained in place.
        task: Offers `train_loss(model, step) -> (loss, tokens)`.
        lr: Peak learning rate of AdamW.
        steps: Length of the schedule.
    """

    def __init__(self, supernet: Supernet, task: Any, lr: float, steps: int) -> None:
        from rankitect.training.optimizer import GuardedOptimizer, OptimizerConfig

        config = OptimizerConfig(lr=lr, warmup=min(WARMUP, steps), final_lr=0.1, weight_decay=0.0)
        self.supernet, self._task = supernet, task
        self._optimizer = GuardedOptimizer(supernet.weights.named_parameters(), config, steps)

    def step(self, architecture: Architecture, step: int) -> tuple[float, int]:
        """One step on one architecture; the loss before it, and the tokens used."""
        loss, tokens = self._task.train_loss(self.supernet.activate(architecture), step)
        return self._optimizer.step(loss, step).loss, tokens

    def save(self, path: Path, final: bool) -> None:
        """Write the weights and, unless this is the end, the optimiser's state."""
        from rankitect.training.checkpoint import save_state

        tensors: dict[str, torch.Tensor] = {f"weight/{name}": w for name, w in self.supernet.weights.named_parameters()}
        if not final:
            tensors.update({f"state/{name}": t for name, t in self._optimizer.state().items()})
        save_state(path, tensors, {"halvings": self._optimizer.halvings})

    def load(self, path: Path) -> None:
        """Go on from a file that `save` wrote.

        Raises:
            TrainingError: The file is damaged, or of another model.
        """
        import torch

        from rankitect.training.checkpoint import load_state

        tensors, about = load_state(path)
        with torch.no_grad():
            for name, weight in self.supernet.weights.named_parameters():
                weight.copy_(tensors[f"weight/{name}"])
        state = {name.removeprefix("state/"): t for name, t in tensors.items() if name.startswith("state/")}
        self._optimizer.load_state(state, int(about["halvings"]))
