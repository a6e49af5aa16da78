"""An evaluator's view of an architecture after its last layer was fitted to it (NASRec, arXiv 2207.07187, section 4.2).

Inherited weights were trained for many architectures at once; a few steps on the last layer alone let each show more of
what it can do, and cost no more than the forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from rankitect.contracts import Measurement, MetricSpec, SharesWeights
from rankitect.methods.calibrated import EXAMPLES, calibrated

if TYPE_CHECKING:
    from torch import nn

    from rankitect.contracts import Evaluator, Spent, TrialContext
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.models.supernet import Supernet

__all__ = ["FinalLayerTuned", "final_parameters"]


def final_parameters(supernet: Supernet) -> dict[str, nn.Parameter]:
    """The weights of the last node with weights before the output, by name."""
    graph = supernet.space.graph
    waiting, seen = [graph.outputs[0].source], set()
    while waiting:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        node = graph.node(path)
        if node.params:
            owner = supernet.weights.owner(node.weights)
            return {name: owner.get_parameter(name) for name in node.params}
        waiting += [edge.source for edge in node.inputs]
    return {}


@contextmanager
def _only(supernet: Supernet, chosen: dict[str, nn.Parameter]) -> Iterator[None]:
    """Only these weights are trained; afterwards all are as they were."""
    import torch

    before = {name: weight.detach().clone() for name, weight in chosen.items()}
    supernet.requires_grad_(False)
    for weight in chosen.values():
        weight.requires_grad_(True)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in chosen.items():
                weight.copy_(before[name])
        supernet.requires_grad_(True)


class FinalLayerTuned:
    """Another evaluator's measurement, taken while the last layer of the inherited weights is fitted to the candidate.

    Args:
        inner: Measures with the task's inherited weights.
        space: The space.
        task: Gives the weights and the loss.
        steps: Steps of the last layer.
        lr: Their learning rate.
    """

    def __init__(self, inner: Evaluator, space: SearchSpace, task: SharesWeights, steps: int, lr: float) -> None:
        self._inner, self._space, self._task, self._steps, self._lr = inner, space, task, steps, lr

    @property
    def name(self) -> str:
        """The inner evaluator's, with what was done."""
        return f"{self._inner.name}, last layer fitted"

    @property
    def metrics(self) -> list[MetricSpec]:
        """The inner evaluator's."""
        return self._inner.metrics

    def measure(self, architecture: Architecture, context: TrialContext) -> Measurement:
        """Fit, measure, put back."""
        from rankitect.training.optimizer import GuardedOptimizer, OptimizerConfig
        from rankitect.training.parallel import peers
        from rankitect.training.placement import placement

        supernet: Supernet = self._task.inherited  # the search has trained it
        chosen = final_parameters(supernet)
        used = 0
        with _only(supernet, chosen):
            optimizer = GuardedOptimizer(chosen, OptimizerConfig(lr=self._lr, weight_decay=0.0), self._steps)
            model = supernet.activate(architecture).eval()  # statistics are not trained here: they have been
            before = calibrated(model, self._task, self._task.unit, EXAMPLES, context.check)
            for step in range(self._steps):
                context.check()
                with placement().computing():
                    loss, tokens = self._task.train_loss(model, step)
                optimizer.step(loss, step, tokens)
                used += int(peers().total(tokens))
                context.spent = before + self._spent(supernet, architecture, used)
            measured = self._inner.measure(architecture, context)
        return replace(measured, spent=measured.spent + before + self._spent(supernet, architecture, used))

    def _spent(self, supernet: Supernet, architecture: Architecture, amount: int) -> Spent:
        """Charged as training of the whole model, although the backward pass ends at the last layer: an upper bound."""
        from rankitect.training.spending import training_spent

        return training_spent(self._task, self._task.unit, supernet.space, architecture, amount)
