"""The scores of DNAS: probabilities at an exact cost, discretisation, learning, checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from rankitect.contracts import Spent
from rankitect.controllers.dnas_scores import SHARP, Scores
from rankitect.errors import TrainingError
from rankitect.graph import Architecture
from rankitect.methods.cost_target import BISECTIONS
from rankitect.models.backbone import largest
from rankitect.models.checkpoints import DecoderConfig
from rankitect.search_spaces.mobile_llm import from_backbone

CONFIG = DecoderConfig(vocab=64, d_model=32, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=8, ffn=64)
SPACE = from_backbone(CONFIG, context=16, ffn_step=16, window=8)
WHOLE = largest(SPACE)
COST = "layers:flops"
seeds = st.integers(0, 2**32 - 1)


def random_scores(seed: int, spread: float = 0.05) -> Scores:
    """Scores as a search might leave them: what keeps more is better on the whole, with noise."""
    rng = np.random.default_rng(seed)
    rises = {}
    for path, choice in SPACE.choices.items():
        values = [v if isinstance(v, int) else {"full": 2, "swa": 1, "skip": 0}[str(v)] for v in choice.values]
        lost = np.array([1 - v / max(values) for v in values])
        rises[path] = torch.from_numpy(spread * rng.uniform(0.1, 1.0) * lost ** rng.uniform(0.7, 2.0))
    return Scores(SPACE, COST, WHOLE, rises)


def share(architecture: Architecture) -> float:
    return float(SPACE.cost(architecture, "flops", "layers") / SPACE.cost(WHOLE, "flops", "layers"))


def expected(chances: dict[str, torch.Tensor], draws: int = 4000) -> float:
    """The mean cost of architectures drawn from probabilities."""
    rng = np.random.default_rng(0)
    columns = {p: rng.choice(len(c), size=draws, p=c.numpy() / float(c.sum())) for p, c in chances.items()}
    costs = SPACE.cost(SPACE.canonical(columns), "flops", "layers")
    return float(np.mean(costs)) / SPACE.cost(WHOLE, "flops", "layers")


@pytest.mark.parametrize(
    ("target", "scale"),
    [
        (0.45, 0.02),
        (0.45, 0.005),
        (0.6, 0.005),
        (0.75, 0.002),
        (0.75, 0.02),
        (0.9, 0.005),
    ],
)
def test_the_expected_cost_is_the_target(target: float, scale: float) -> None:
    """Against a Monte Carlo mean over drawn architectures, which knows nothing of the expectation's formula."""
    chances = random_scores(1).chances(target, scale)
    for chance in chances.values():
        assert float(chance.sum()) == pytest.approx(1)
    assert expected(chances) == pytest.approx(target, abs=0.02)


@settings(max_examples=8, deadline=None)
@given(seeds, st.floats(0.6, 1.0), st.floats(0.4, 0.8))
def test_discretise_keeps_other_bounds_as_well(seed: int, target: float, kept: float) -> None:
    whole = {kind: float(SPACE.cost(WHOLE, kind)) for kind in ("cache_bytes", "params")}
    limits = {"cache_bytes": (0.0, kept * whole["cache_bytes"]), "params": (0.3 * whole["params"], whole["params"])}
    made = random_scores(seed).discretise(target, np.random.default_rng(0), limits=limits)
    assert share(made) <= target + 1e-9
    assert SPACE.cost(made, "cache_bytes") <= kept * whole["cache_bytes"]
    assert SPACE.cost(made, "params") >= 0.3 * whole["params"]
    drawn = SPACE.sample_many(64, 0, **limits, **{COST: (0, target * float(SPACE.cost(WHOLE, "flops", "layers")))})
    score = random_scores(seed).discretisation().score
    assert score(made) >= sorted(map(score, drawn))[-2], "hardly any of many draws is better"


@settings(max_examples=8)  # each solves for a price many times
@given(seeds, st.floats(0.4, 1.0))
def test_discretise_meets_the_target_and_wastes_little(seed: int, target: float) -> None:
    made = random_scores(seed).discretise(target, np.random.default_rng(0))
    assert SPACE.validate(made) == made
    assert share(made) <= target + 1e-9
    assert share(made) >= target - 1 / CONFIG.n_layers, "no more is left over than one layer costs"


def by_gradients(scores: Scores, target: float) -> tuple[Architecture, dict[str, torch.Tensor]]:
    """What `discretise` does up to its price, and the marginal costs that it leaves, by gradients alone."""
    costs = scores._target

    def at(mu: float, current: dict[str, torch.Tensor]) -> Architecture:
        for _ in range(3):
            costs.remember(current)
            picked = {p: int((s - mu * costs.marginal[p]).argmax()) for p, s in scores._scores.items()}
            current = {p: torch.eye(len(s), dtype=torch.float64)[picked[p]] for p, s in scores._scores.items()}
        return SPACE.architecture({p: c.values[picked[p]] for p, c in SPACE.choices.items()})

    low, high, start = -1e-3, 1.0, scores.chances(target, SHARP)
    while costs.of(at(high, start)) > target:
        high *= 4
    best = at(high, start)
    for _ in range(2 * BISECTIONS):
        middle = (low + high) / 2
        hardened = at(middle, start)
        if costs.of(hardened) <= target:
            best, high = hardened, middle
        else:
            low = middle
    return best, costs.marginal


@settings(max_examples=5)
@given(seeds, st.floats(0.4, 1.0))
def test_discretise_chooses_what_gradients_of_the_cost_choose(seed: int, target: float) -> None:
    scores, same = random_scores(seed), random_scores(seed)
    best, marginal = by_gradients(same, target)
    assert scores.discretise(target, np.random.default_rng(0)) == scores.discretisation().spend(best, target)
    assert all(torch.equal(costs, scores._target.marginal[p]) for p, costs in marginal.items()), "to the last digit"


@settings(max_examples=4)
@given(seeds)
def test_a_larger_target_never_gives_a_cheaper_architecture_of_better_score(seed: int) -> None:
    scores = random_scores(seed)
    small, large = (scores.discretise(t, np.random.default_rng(0)) for t in (0.5, 0.8))
    assert scores.discretisation().score(large) >= scores.discretisation().score(small) - 1e-3


def test_the_whole_is_found_when_everything_may_be_kept() -> None:
    assert share(random_scores(0, spread=1.0).discretise(1.0, np.random.default_rng(0))) > 0.9


def test_draws_are_distributions_and_a_function_of_the_generator() -> None:
    scores = random_scores(2)
    one, two, other = (scores.draw(0.6, 0.01, 0.5, np.random.default_rng(s)) for s in (0, 0, 1))
    assert all(torch.equal(one[p], two[p]) for p in one)
    assert any(not torch.equal(one[p], other[p]) for p in one)
    for path, weight in one.items():
        assert weight.shape == (len(SPACE.choices[path].values),)
        assert float(weight.detach().sum()) == pytest.approx(1, abs=1e-5)
        assert weight.requires_grad


def test_scores_move_toward_what_lowers_the_loss() -> None:
    scores = Scores(SPACE, COST, WHOLE)
    path = "layers.1.ffn"
    before = scores.chances(0.6, 0.05)[path]
    for step in range(20):
        weights = scores.draw(0.6, 0.05, 1.0, np.random.default_rng(step))
        (weights[path] * torch.linspace(0, 1, len(before))).sum().backward()
        scores.move(weights, 0.1)
    after = scores.chances(0.6, 0.05)[path]
    assert float(after[0]) > float(before[0])
    assert scores.step == 20


def test_a_gradient_that_is_no_number_changes_nothing() -> None:
    scores, same = random_scores(3), random_scores(3)
    weights = scores.draw(0.6, 0.01, 1.0, np.random.default_rng(0))
    for weight in weights.values():
        weight.grad = torch.full_like(weight, float("nan"))
    scores.move(weights, 0.5)
    assert all(torch.equal(s, same._scores[p]) for p, s in scores._scores.items())
    assert all(torch.isfinite(chance).all() for chance in scores.chances(0.6, 0.01).values())


@pytest.mark.parametrize("outlier", [0.0, -100.0, 100.0])
def test_multipliers_are_those_of_the_gradients_whatever_one_batch_says(outlier: float) -> None:
    scores = random_scores(5)
    path, truth = "layers.1.ffn", 1.7
    rises = scores._rises[path]
    for step in range(60):
        weights = scores.draw(0.6, 0.01, 1.0, np.random.default_rng(step))
        drawn = int(weights[path].argmax())
        times = outlier if step == 30 and outlier else truth
        weights[path].grad = (2 * times * (rises - rises[drawn])).float()
        scores.move({path: weights[path]}, 0.1)
    used = int(scores._evidence[path][1])
    unhurt = (20 + used * truth) / (20 + used)
    assert used > 20
    assert scores.multiplier(path) == pytest.approx(unhurt, rel=0.1 if outlier else 1e-5)


def test_a_checkpoint_gives_the_same_scores_again(tmp_path: Path) -> None:
    scores = random_scores(4)
    weights = scores.draw(0.6, 0.01, 1.0, np.random.default_rng(0))
    sum((w.square().sum() for w in weights.values()), torch.zeros(())).backward()
    scores.move(weights, 0.1)
    scores.spent = Spent(train_tokens=99, train_flops=7)
    scores.save(tmp_path / "state" / "dnas.safetensors")
    again = Scores.load(SPACE, COST, WHOLE, tmp_path / "state" / "dnas.safetensors", "tokens")
    assert again is not None
    assert (again.step, again.spent) == (1, scores.spent)
    one, two = (s.draw(0.7, 0.01, 1.0, np.random.default_rng(5)) for s in (scores, again))
    assert all(torch.equal(one[p], two[p]) for p in one)
    assert Scores.load(SPACE, COST, WHOLE, tmp_path / "nothing", "tokens") is None
    for damaged in (b"", (tmp_path / "state" / "dnas.safetensors").read_bytes()[:-9], save({"free|x": torch.ones(1)})):
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(TrainingError, match="damaged is not a training state of Rankitect, or is damaged"):
            Scores.load(SPACE, COST, WHOLE, tmp_path / "damaged", "tokens")
