"""What fewer bits cost: divergences from the backbone, and searches that begin with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

import rankitect
from rankitect.controllers.bayesian_prior import expected_rise, suggestions
from rankitect.methods.bounded_space import BoundedSpace
from rankitect.models.backbone import Backbone, largest
from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig, random_checkpoint
from rankitect.models.families import axes
from rankitect.search_spaces.mobile_llm import from_backbone
from rankitect.search_spaces.mobile_llm_bits import Bits
from rankitect.tasks.language.bits_prior import bit_choices, divergences
from rankitect.tasks.language.uniform import in_bits, uniform_baselines

CONFIG = DecoderConfig(vocab=256, d_model=32, n_layers=3, n_heads=2, n_kv_heads=1, head_dim=16, ffn=64)
SPACE = from_backbone(CONFIG, context=16, bits=Bits((32, 8, 4), (8, 4), (8, 4)), pruned=False)
WHOLE = largest(SPACE)


def checkpoint(config: DecoderConfig, size: float) -> DecoderCheckpoint:
    """Random weights, larger than they would begin, so that rounding is felt."""
    made = random_checkpoint(config, 0)
    for weight in made.tensors.values():
        weight.mul_(size if weight.ndim > 1 else 1.0)
    return made


def backbone() -> Backbone:
    return Backbone(checkpoint(CONFIG, 3.0), SPACE)


@torch.no_grad()
def test_a_divergence_is_that_of_the_whole_model_with_one_choice_changed() -> None:
    space = from_backbone(CONFIG, context=16, bits=Bits((32, 8, 4), (8, 4), (32, 8, 4)), pruned=False)
    whole, made = largest(space), Backbone(checkpoint(CONFIG, 3.0), space)  # whose activations are floats
    ids = torch.randint(0, 256, (2, 16), generator=torch.Generator().manual_seed(0))
    moved = divergences(made.supernet, whole, ids, bit_choices(space))
    assert set(moved) == {p for p, c in space.choices.items() if axes.is_bits(p) and len(c.values) > 1}
    own = made.supernet.activate(whole)(ids).log_softmax(-1)
    for path, values in moved.items():
        for value, found in zip(space.choices[path].values, values, strict=True):
            other = made.supernet.activate(space.architecture({**whole.choices, path: value}))(ids).log_softmax(-1)
            wanted = float((own.exp() * (own - other)).sum(-1).mean())
            np.testing.assert_allclose(found, max(0.0, wanted), rtol=1e-3, atol=1e-6)
    assert all(v[-1] > v[0] == 0.0 for v in moved.values()), "4 bits move the distributions"


@torch.no_grad()
def test_divergences_add_up_though_activations_are_rounded() -> None:
    """A change anywhere turns the rounding of all activations behind it, which must not count as its own."""
    config = replace(CONFIG, n_layers=8)
    space = from_backbone(config, context=16, bits=Bits((8, 7), (8,), (8,)), pruned=False)
    made = Backbone(checkpoint(config, 1.5), space)
    ids = torch.randint(0, 256, (8, 16), generator=torch.Generator().manual_seed(0))
    moved = divergences(made.supernet, largest(space), ids, bit_choices(space))
    few = space.architecture({**largest(space).choices, **dict.fromkeys(moved, 7)})
    own, other = (made.supernet.activate(a)(ids).log_softmax(-1) for a in (largest(space), few))
    together = float((own.exp() * (own - other)).sum(-1).mean())
    assert 0.5 * together < sum(values[-1] for values in moved.values()) < 1.2 * together


def test_a_prior_suggests_bits_within_the_bounds_from_few_bytes_to_many() -> None:
    rng = np.random.default_rng(0)
    prior = {p: torch.tensor([0.0, *np.sort(rng.random(len(SPACE.choices[p].values) - 1))]) for p in bit_choices(SPACE)}
    few = SPACE.cost(in_bits(SPACE, WHOLE, 4), "program_bytes")
    bounded = BoundedSpace(SPACE, {"program_bytes": (0.0, 2 * few)})
    suggested = suggestions(bounded, prior, "program_bytes", WHOLE, 0)
    sizes = [SPACE.cost(a, "program_bytes") for a in suggested]
    rises = expected_rise(SPACE, prior)(suggested)
    assert sizes[0] == few < sizes[-1] <= 2 * few
    assert sizes == sorted(sizes)
    assert (np.diff(rises) <= 1e-9).all(), "more bytes are never expected to be worse"


def test_uniform_bits_are_baselines_and_a_space_of_bits_alone_has_no_pruned_ones() -> None:
    found = dict(uniform_baselines(SPACE, WHOLE, None, {f"layers.{i}": 1.0 for i in range(3)}, 16))
    assert set(found) == {"uniform 8 bits", "uniform 4 bits"}
    assert {v for p, v in found["uniform 4 bits"].choices.items() if axes.is_bits(p)} == {4}
    opened = from_backbone(CONFIG, context=16, ffn_step=32, bits=Bits((8, 4), group=16), patterns=("full",))
    named = dict(uniform_baselines(opened, largest(opened), [0.9], {f"layers.{i}": 1.0 for i in range(3)}, 16))
    assert set(named) == {
        f"uniform{kind}{bits}" for kind in ("", " width 90%", " depth 90%") for bits in ("", " 8 bits", " 4 bits")
    } - {"uniform"}


def test_bayesian_search_of_bits_keeps_to_a_bound_on_bytes_and_is_charged_for_the_prior(tmp_path) -> None:
    keys = ["space=mobile_llm_bits", "controller=bayesian", "preset=smoke", "recipe=none", "device=analytic"]
    bound = "constraints={program_bytes: ..0.11e6}"
    result = rankitect.search([*keys, bound, f"output_dir={tmp_path / 'run'}", "task.uniform=[]"])
    best = result.summary.pareto
    assert best
    assert all(c.metrics["program_bytes"].value <= 0.11e6 for c in best)
    stages = result.summary.ledger.stages
    assert stages["prepare"].eval_tokens > 0
    page = result.report.read_text(encoding="utf-8")
    assert "Bits by layer" in page
