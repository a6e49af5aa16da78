"""A trained model of convolutions as a runtime wants it: norms of channels become part of the convolutions before them.

In evaluation, batch normalisation multiplies each channel and adds to it. A convolution before it can do both with its
own weights, so that a program holds neither statistics nor a second pass over the image. What stands behind no such
convolution becomes a product and a sum. Kernels that a space stores by their taps are put into rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch

from rankitect.blocks import Activation, BatchNorm, Conv2d, Depthwise
from rankitect.blocks.convolution import kernel_of
from rankitect.graph import Block, Edge, Elementwise, Params
from rankitect.models.plan import Plan, Step
from rankitect.models.supernet import Standalone
from rankitect.models.weights import SlicedParams, weight_of

__all__ = ["folded"]

Tensors = dict[tuple[str, str], torch.Tensor]


@torch.no_grad()
def folded(model: Standalone) -> Standalone:
    """A model without batch normalisation that gives what the model gives in evaluation.

    Args:
        model: Left as it is. Weights that several of its steps share stay shared, and their norms stay norms.

    Returns:
        The model, in evaluation, with weights of its own where they changed. It has the architecture's plan in other
        blocks: it is for export, and is no candidate.
    """
    return _Folding(model).done()


class _Affine(Elementwise):
    """Each channel times a factor, plus a shift: [B, C, ...] -> [B, C, ...]."""

    ports: ClassVar[str] = "B C ... -> B C ..."

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        shape = (-1, *(1,) * (inputs[0].dim() - 2))
        return inputs[0] * p.factor.view(shape) + p.shift.view(shape)


class _Folding:
    """The steps of a plan, one after the other, with the tensors that they will have."""

    def __init__(self, model: Standalone) -> None:
        self._model, self._plan = model, model.plan
        self._owners = Counter(step.weights for step in self._plan.steps if step.shapes)
        used = [e.source for step in self._plan.steps for e in step.edges] + [e.source for e in self._plan.outputs]
        self._uses = Counter(used)
        self._steps: dict[str, Step] = {}
        self._tensors: Tensors = {}
        self._written: set[str] = set()  # convolutions with a bias and weights of their own
        self._renamed: dict[str, str] = {}  # of a norm that became part of the step before it

    def done(self) -> Standalone:
        """The whole model."""
        for step in self._plan.steps:
            step = replace(step, edges=tuple(self._source(edge) for edge in step.edges))
            alone = self._owners[step.weights] == 1
            if isinstance(step.block, Conv2d | Depthwise) and alone:
                self._convolution(step)
            elif isinstance(step.block, BatchNorm) and alone:
                self._norm(step, step.block)
            else:
                self._keep(step)
        outputs = tuple(self._source(edge) for edge in self._plan.outputs)
        plan = Plan(self._plan.inputs, tuple(self._steps.values()), outputs, self._plan.architecture)
        return Standalone(plan, self._tensors).eval()

    def _source(self, edge: Edge) -> Edge:
        return replace(edge, source=self._renamed.get(edge.source, edge.source))

    def _keep(self, step: Step) -> None:
        self._steps[step.path] = step
        for name in step.shapes:
            self._tensors[step.weights, name] = weight_of(self._model.owner(step.weights), name).detach()

    def _put(self, step: Step, block: Block, tensors: Mapping[str, torch.Tensor]) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self._steps[step.path] = replace(step, block=block, shapes=shapes, untrained=())
        self._tensors |= {(step.weights, name): tensor for name, tensor in tensors.items()}

    def _convolution(self, step: Step) -> None:
        """A convolution with its kernel in rows and a bias."""
        block, held = step.block, SlicedParams(step, self._model.owner(step.weights))
        assert isinstance(block, Conv2d | Depthwise)
        kernel = kernel_of(held).detach()
        group = 1 if isinstance(block, Depthwise) else block.group
        has_bias = isinstance(block, Conv2d) and block.bias
        bias = held.bias.detach() if has_bias else kernel.new_zeros(len(kernel))
        rows = Conv2d(len(kernel), kernel.shape[-1], block.stride, True, group, block.dilation)
        self._put(step, rows, {"weight": kernel, "bias": bias})
        self._written.add(step.path)

    def _norm(self, step: Step, block: BatchNorm) -> None:
        """A norm as a factor and a shift of each channel, and then its activation."""
        held = SlicedParams(step, self._model.owner(step.weights))
        factor = held.weight * torch.rsqrt(held.variance + block.eps)
        shift = held.bias - held.mean * factor
        source = step.edges[0].source
        if source in self._written and self._uses[source] == 1:
            before = self._steps[source]
            kernel, bias = (self._tensors[before.weights, name] for name in ("weight", "bias"))
            tensors = {"weight": kernel * factor[:, None, None, None], "bias": bias * factor + shift}
            self._put(before, before.block, tensors)
        else:
            own = replace(step, path=f"{step.path}.channels", weights=f"{step.weights}.channels")
            self._put(own, _Affine(), {"factor": factor, "shift": shift})
            source = own.path
        if block.act == "none":
            self._renamed[step.path] = source
            self._uses[source] = self._uses[step.path]
        else:
            edges = (replace(step.edges[0], source=source, index=0),)
            plain = replace(step, block=Activation(block.act), edges=edges, shapes={}, untrained=())
            self._steps[step.path] = plain
