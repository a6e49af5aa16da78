"""Blocks of users are tried when their space is first shared or relaxed."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F

from rankitect.blocks import Linear
from rankitect.errors import SpaceError
from rankitect.graph import B, Block, Elementwise, Expr, Graph, Param, Params, SearchSpace, TensorType
from rankitect.models import identities
from rankitect.models.relaxed import RelaxedSupernet, one_hot
from rankitect.models.supernet import Supernet
from rankitect.space.expr import ExprLike


class Experts(Block):
    """A mixture of experts: a softmax over scores, of as many experts as the architecture has."""

    ports: ClassVar[str] = "B D -> B width"
    width: ExprLike
    experts: ExprLike
    masked: bool = True

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        return {
            "scores": Param.of(self.experts, inputs[0][1]),
            "values": Param.of(self.experts, self.width, inputs[0][1]),
            "out": Param.of(self.width, self.width, self.experts, inputs=(-1, -2)),
        }

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        scores = p.linear(inputs[0], "scores")
        mask = p.mask("experts") if self.masked else None
        if mask is not None:
            scores = scores + mask.clamp_min(1e-30).log()
        share = scores.softmax(-1)
        hidden = torch.einsum("bd,ewd->bwe", inputs[0], p.values) * share[:, None]
        return p.read(hidden, "out", ("width", "experts"))

    def flops(self, *inputs: TensorType) -> Expr:
        rows = inputs[0].numel * self.experts
        return 2 * rows + 2 * rows * self.width + 2 * inputs[0][0] * self.width * self.width * self.experts


class Odd(Elementwise):
    """An element-wise block that may be anything else."""

    ports: ClassVar[str] = "B D -> B D"
    how: str = "right"

    def run(self, p: Params, *inputs: torch.Tensor) -> Any:
        (x,) = inputs
        return {
            "right": lambda: torch.relu(x),
            "normed": lambda: x / x.pow(2).mean(-1, keepdim=True).sqrt(),
            "centred": lambda: torch.relu(x - x.mean(-1, keepdim=True)),
            "counted": lambda: x / x.shape[-1],
            "sized": lambda: x / p.size("D"),
            "sigmoid": lambda: torch.sigmoid(x),
            "ranked": lambda: F.softmax(x, -1),
            "random": lambda: torch.dropout(x, 0.5, True),
            "wider": lambda: torch.cat([x, x], -1),
            "whole": lambda: x.long(),
            "pair": lambda: (x, x),
            "none": lambda: None,
            "broken": lambda: x[:, 99],
        }[self.how]()


def space(make: Any, values: Any = (8, 4, 6)) -> SearchSpace:
    g = Graph("own")
    x, width = g.input("x", B, 5), g.choice("width", list(values))
    g.out = Linear(1)(make(g, Linear(width)(x, name="first"), width), name="logit")
    return SearchSpace(g)


def experts(masked: bool) -> SearchSpace:
    return space(lambda g, h, width: Experts(width, g.choice("experts", [8, 4, 2]), masked)(h, name="experts"))


def test_a_softmax_over_an_open_axis_is_found_when_the_space_is_first_relaxed() -> None:
    supernet = Supernet(experts(masked=False))
    with pytest.raises(
        SpaceError, match=r"at experts \(Experts\), where .*'experts': [248].*`p.mask\(name\)`"
    ) as refused:
        RelaxedSupernet(supernet)
    assert len(str(refused.value)) <= 500


def test_a_softmax_that_asks_for_the_mask_passes_and_equals_each_architecture() -> None:
    own = experts(masked=True)
    supernet, x = Supernet(own), torch.randn(3, 5)
    relaxed = RelaxedSupernet(supernet)
    for architecture in own.sample_many(6, 0):
        torch.testing.assert_close(relaxed(one_hot(own, architecture), x), supernet.extract(architecture)(x))


@pytest.mark.parametrize("how", ["normed", "centred", "counted", "ranked"])
def test_any_reduction_over_an_open_axis_is_found(how: str) -> None:
    supernet = Supernet(space(lambda g, h, width: Odd(how)(h, name="node")))
    with pytest.raises(SpaceError, match=r"at node \(Odd\), where {'width': [46]}"):
        RelaxedSupernet(supernet)


def test_zeros_that_do_not_stay_zeros_are_found() -> None:
    supernet = Supernet(space(lambda g, h, width: Odd("sigmoid")(h, name="node")))
    with pytest.raises(SpaceError, match="says `passes_masks`, but does not keep zeros"):
        RelaxedSupernet(supernet)


@pytest.mark.parametrize("how", ["right", "sized"])
def test_right_blocks_pass(how: str) -> None:
    RelaxedSupernet(Supernet(space(lambda g, h, width: Odd(how)(h, name="node"))))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("random", "must be a pure function"),
        ("wider", "gave torch.float32 of shape"),
        ("whole", "gave torch.int64 of shape"),
        ("pair", "must give 1 tensors"),
        ("none", "must give 1 tensors"),
        ("broken", "`run` failed on random inputs"),
    ],
)
def test_what_run_gives_must_be_what_the_ports_line_says(how: str, message: str) -> None:
    with pytest.raises(SpaceError, match=rf"at node \(Odd\).*{message}"):
        Supernet(space(lambda g, h, width: Odd(how)(h, name="node")))


def test_a_space_is_tried_once_and_one_of_known_blocks_never(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    count = identities._run
    monkeypatch.setattr(identities, "_run", lambda *a: tried.append(a) or count(*a))  # counts, and runs as before
    known = space(lambda g, h, width: Linear(width)(h, name="node"))
    RelaxedSupernet(Supernet(known))
    assert not tried
    own = experts(masked=True)
    RelaxedSupernet(Supernet(own))
    often = len(tried)
    assert 0 < often <= 24
    RelaxedSupernet(Supernet(own))
    assert len(tried) == often


def test_the_trial_leaves_random_numbers_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    RelaxedSupernet(Supernet(experts(masked=True)))
    assert torch.equal(torch.rand(1), wanted)
