"""Blocks of users are tried when their space is first shared or relaxed."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F

from rankitect.blocks import Embed, Linear
from rankitect.errors import SpaceError
from rankitect.graph import B, Block, Elementwise, Expr, Graph, Param, Params, SearchSpace, T, TensorType
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
            "rooted": lambda: torch.sqrt(x),
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


class Wide(Elementwise):
    """A block that needs inputs of a length: it joins tokens that lie close to each other."""

    ports: ClassVar[str] = "B T D -> B T D"
    how: str = "convolution"

    def run(self, p: Params, *inputs: torch.Tensor) -> torch.Tensor:
        (x,) = inputs
        if self.how == "convolution":  # nine tokens without padding, and zeros for the ends
            return F.pad(x.unfold(1, 9, 1).mean(-1), (0, 0, 4, 4))
        if self.how == "pool":
            return F.avg_pool1d(x.transpose(1, 2), 8).repeat_interleave(8, -1).transpose(1, 2)
        pooled = x.unfold(1, 8, 8).mean(-1).repeat_interleave(8, 1)
        return pooled / pooled.pow(2).mean(-1, keepdim=True).sqrt()  # a norm that ignores which channels are kept


def tokens(make: Any, length: int | None, ids: bool = False) -> SearchSpace:
    g = Graph("own")
    width = g.choice("width", [8, 4, 6])
    x = Embed(10, width)(g.input("ids", B, T, dtype="int")) if ids else Linear(width)(g.input("x", B, T, 5))
    g.out = Linear(1)(make(x), name="logit")
    return SearchSpace(g, defaults=None if length is None else {"T": length})


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("how", ["convolution", "pool"])
def test_a_block_that_needs_longer_inputs_is_tried_on_those_of_its_space(
    how: str, ids: bool, caplog: pytest.LogCaptureFixture
) -> None:
    own = tokens(lambda x: Wide(how)(x, name="node"), 16, ids)
    supernet = Supernet(own)
    relaxed = RelaxedSupernet(supernet)
    assert not caplog.records
    x = torch.randint(0, 10, (3, 16)) if ids else torch.randn(3, 16, 5)
    for architecture in own.sample_many(3, 0):
        torch.testing.assert_close(relaxed(one_hot(own, architecture), x), supernet.extract(architecture)(x))


@pytest.mark.parametrize("ids", [False, True])
def test_a_fault_that_only_longer_inputs_show_is_found(ids: bool) -> None:
    supernet = Supernet(tokens(lambda x: Wide("norm")(x, name="node"), 16, ids))
    with pytest.raises(SpaceError, match=r"at node \(Wide\), where {'width': [46]}"):
        RelaxedSupernet(supernet)


@pytest.mark.parametrize("ids", [False, True])
def test_a_block_that_no_made_up_input_fits_is_left_untried_with_one_warning(
    ids: bool, caplog: pytest.LogCaptureFixture
) -> None:
    supernet = Supernet(tokens(lambda x: Wide("pool")(x, name="node"), None, ids))
    RelaxedSupernet(supernet)
    (record,) = caplog.records
    assert record.message.startswith("at node (Wide): `run` failed on random inputs")
    assert record.message.endswith("It may be right for other inputs: it is not checked.")


def test_numbers_that_are_none_are_no_crash() -> None:
    RelaxedSupernet(Supernet(space(lambda g, h, width: Odd("rooted")(h, name="node"))))


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
