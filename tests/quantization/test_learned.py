"""Learned rotations stay orthogonal, make small what they are to make small, and round what the model will round."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rankitect.blocks import GQA, SwiGLU
from rankitect.models.plan import make_plan
from rankitect.models.supernet import Standalone, build
from rankitect.quantization.activations import Rows, gather
from rankitect.quantization.cayley import CayleySGD
from rankitect.quantization.end_to_end import learn_end_to_end, rounded_logits, rounded_loss
from rankitect.quantization.learned import learn_local, local_loss
from rankitect.quantization.rotations import Turning, draw, turning
from rankitect.search_spaces.mobile_llm import mobile_llm

SPACE = mobile_llm(vocab=60, layers=2, widths=[32], kv_heads=[2, 1], group=[2], ffn=[48, 24], head=8, patterns=["full"])
ARCHITECTURE = SPACE.architecture({path: choice.values[0] for path, choice in SPACE.choices.items()})
IDS = torch.randint(0, 60, (2, 13), generator=torch.Generator().manual_seed(0))


def ready() -> tuple[Turning, Standalone]:
    """A model with channels that stand out, ready to be turned, and itself unturned."""
    model, generator = build(SPACE, ARCHITECTURE, 0), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
        model.owner("embed").weight[:, :3] *= 20
    prepared = turning(SPACE, model, r3=True, r4=True)
    return prepared, prepared.model({}, model)


def test_descent_stays_among_orthogonal_matrices_and_finds_a_nearby_one() -> None:
    wanted, start = draw({"a": 12}, 1)["a"].float(), torch.eye(12)
    if torch.det(wanted) < 0:  # no path leads there among rotations
        wanted[0] *= -1
    descent = CayleySGD(start)
    for step in range(150):
        descent.step(-wanted, 0.2 * (1 - step / 150))
    rotation = descent.rotation
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(12), atol=1e-5, rtol=0)
    assert float((rotation - wanted).norm()) < 0.2


def test_the_gradient_of_the_local_objective_is_that_of_ranges() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = Rows(torch.randn(7, 3, 4, generator=generator), torch.rand(7, generator=generator))
    rotation = draw({"a": 4}, 0)["a"].float().requires_grad_()
    turned = (rows.vectors @ rotation).flatten(1)
    ranges = turned.amax(-1).clamp_min(0) - turned.amin(-1).clamp_max(0)
    (slope,) = torch.autograd.grad((rows.weights * ranges.square()).sum(), rotation)
    loss, own = local_loss(rows, rotation.detach())
    torch.testing.assert_close(own, slope)
    assert float(loss) == pytest.approx(float((rows.weights * ranges.detach().square()).sum()))


def test_rotations_that_are_learned_locally_have_smaller_ranges() -> None:
    prepared, model = ready()
    rows = gather(prepared, model, [IDS], act_bits=4, cache_bits=4, seed=0)
    assert rows.keys() == prepared.sizes.keys()
    attention = next(name for name in rows if name != "stream")
    assert sorted(part.vectors.shape[1:] for part in rows[attention]) == [(1, 8), (4, 8)], "values, and all heads of o"
    start = draw(prepared.sizes, 0)
    for name, parts in rows.items():
        learned = learn_local(parts, start[name], steps=60, seed=0)
        before, after = (sum(float(local_loss(p, r.float())[0]) for p in parts) for r in (start[name], learned))
        assert after < 0.95 * before
    assert gather(prepared, model, [IDS], act_bits=32, cache_bits=4, seed=0).keys() == rows.keys() - {"stream"}


@pytest.mark.parametrize("bits", [(4, 4), (8, 32), (32, 4)])
def test_what_is_learned_end_to_end_is_what_the_turned_model_computes(bits: tuple[int, int]) -> None:
    prepared, model = ready()
    rotations = draw(prepared.sizes, 0)
    turned = prepared.model(rotations, model)
    blocks = {
        node.path: replace(node.block, act_bits=bits[0], **({"cache_bits": bits[1]} if node.cache != 0 else {}))
        for node in prepared.space.graph.nodes
        if isinstance(node.block, GQA | SwiGLU)
    }
    plan = make_plan(prepared.space.with_blocks(blocks), ARCHITECTURE)
    known = dict(turned.named_parameters())
    rounded = Standalone(plan, {key: known[".".join(key)].detach() for key in plan.shapes()})
    with torch.inference_mode():
        own = rounded_logits(prepared, model, IDS, {name: r.float() for name, r in rotations.items()}, bits)
        torch.testing.assert_close(own, rounded(IDS), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(own, turned(IDS), atol=1e-3)


def test_rotations_that_are_learned_end_to_end_diverge_less() -> None:
    prepared, model = ready()
    start = draw(prepared.sizes, 0)
    learned = learn_end_to_end(prepared, model, [IDS], start, bits=(4, 4), steps=25, length=0.05)
    with torch.no_grad():
        target = model(IDS).log_softmax(-1)
        before, after = (
            float(rounded_loss(prepared, model, IDS, target, {n: r.float() for n, r in rotations.items()}, (4, 4)))
            for rotations in (start, learned)
        )
    assert after < before
    for rotation in learned.values():
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(len(rotation)).double(), atol=1e-4, rtol=0)
