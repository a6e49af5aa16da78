"""Proxies against values computed by hand, and SiGeo's terms against its formulas in numpy."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rankitect.contracts import TrialContext
from rankitect.errors import ConfigError, TrainingError
from rankitect.evaluators import proxy_scores as scores
from rankitect.evaluators.proxies import SCORES, Proxy
from tests.controllers.planted import SPACE, Regression


class Two(nn.Module):
    """out . relu(into x)"""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(2, 2, bias=False)
        self.out = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.into.weight.copy_(torch.tensor([[1.0, -2.0], [0.5, 1.0]]))
            self.out.weight.copy_(torch.tensor([[3.0, -1.0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.relu(self.into(x)))


def summed(x: list[list[float]]) -> Any:
    return lambda model: model(torch.tensor(x)).sum()


def test_gradients_norms_and_snip_by_hand() -> None:
    """x = (1, 0): hidden (1, .5), both on. d/d out = (1, .5); d/d into = rows 3 x and -1 x."""
    grads = scores.gather_gradients(Two(), [summed([[1.0, 0.0]])])
    assert grads.by_module["out"].tolist() == [[1.0, 0.5]]
    assert grads.by_module["into"].tolist() == [[3.0, 0.0, -1.0, 0.0]]
    assert grads.losses.tolist() == [2.5]
    assert scores.grad_norm(grads) == pytest.approx(math.sqrt(1.25) + math.sqrt(10))
    assert scores.snip(grads) == pytest.approx(3.0 + 0.5 + 3.0 + 0.5)


def test_two_batches_are_averaged_first() -> None:
    grads = scores.gather_gradients(Two(), [summed([[1.0, 0.0]]), summed([[0.0, 1.0]])])
    # the second: hidden (-2, 1), of which one is on: d/d out = (0, 1), d/d into = rows 0 and -1 x
    assert grads.by_module["out"].tolist() == [[1.0, 0.5], [0.0, 1.0]]
    assert grads.by_module["into"].tolist() == [[3.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, -1.0]]
    assert scores.snip(grads) == pytest.approx(0.5 * 3 + 0.75 + 1.5 + 0.25 + 0.5)


def test_zico_by_hand() -> None:
    """Of `out`, mean |g| is (.5, .75) and the deviation (.5, .25); of `into` (1.5, .5, .5) and the same, one is out."""
    grads = scores.gather_gradients(Two(), [summed([[1.0, 0.0]]), summed([[0.0, 1.0]])])
    assert scores.zico(grads) == pytest.approx(math.log(1 + 3) + math.log(1 + 1 + 1))


def test_sigeo_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    shapes, batches = {"a": 5, "b.c": 3}, 4
    g = {m: rng.normal(size=(batches, n)) for m, n in shapes.items()}
    theta = {m: rng.normal(size=n) for m, n in shapes.items()}
    losses = rng.uniform(size=batches)
    grads = scores.Gradients(
        {m: torch.tensor(x) for m, x in g.items()},
        {m: torch.tensor(x) for m, x in theta.items()},
        torch.tensor(losses),
    )
    zico = sum(np.log((np.abs(x).mean(0) / x.std(0)).sum()) for x in g.values())
    inner = sum(g[m] @ theta[m] for m in shapes)
    fisher_rao = np.log(np.sqrt(np.mean(inner**2)))
    assert scores.zico(grads) == pytest.approx(zico)
    assert scores.fisher_rao(grads) == pytest.approx(fisher_rao)
    assert scores.sigeo(grads) == pytest.approx(zico + 50 * fisher_rao - losses.mean())
    assert scores.sigeo(grads, (1.0, 0.0, 0.0)) == pytest.approx(zico)
    assert not math.isclose(fisher_rao, np.log(abs(sum(inner))), rel_tol=0.1), "not the square of a sum"


def test_synflow_by_hand() -> None:
    """|into| gives (3, 1.5) on ones, |out| gives 9 + 1.5: each of two layers carries the whole sum."""
    model = Two()
    before = {n: p.clone() for n, p in model.named_parameters()}
    found = scores.synflow(model, (torch.tensor([[7.0, -1.0]]),))
    assert found == pytest.approx(2 * (3 * 3.0 + 1 * 1.5))
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_synflow_leaves_norms_out_but_for_their_weight() -> None:
    class Normed(Two):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([2.0, -1.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(F.rms_norm(F.relu(self.into(x)), (2,), self.scale))

    found = scores.synflow(Normed(), (torch.ones(1, 2),))
    assert found == pytest.approx(3 * (3 * 2 * 3.0 + 1 * 1 * 1.5))


def test_nwot_by_hand() -> None:
    """Units on: (1, 1) for the first and (0, 1) for the second example: K = [[2, 1], [1, 2]]."""
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert scores.nwot(Two(), (x,)) == pytest.approx(math.log(3))
    with pytest.raises(TrainingError, match="this model has none"):
        scores.nwot(nn.Linear(2, 1), (x,))
    assert scores.nwot(nn.Linear(2, 1), (x,), jitter=1e-3) == pytest.approx(2 * math.log(1e-3))


def test_inputs_are_heard_without_a_forward_pass() -> None:
    x = torch.ones(3, 2)
    (heard,) = scores.capture_inputs(Two(), lambda model: model(x).no_such_thing)
    assert heard is x


@pytest.mark.parametrize("score", SCORES)
def test_every_score_measures_any_task(score: Any, tmp_path: Path) -> None:
    task = Regression()
    proxy = Proxy(Proxy.Config(score=score, batches=3), SPACE, task)
    context = TrialContext(tmp_path, tmp_path, 0)
    architecture = task.reference
    found = proxy.measure(architecture, context)
    assert {spec.name for spec in proxy.metrics} == set(found.metrics)
    assert math.isfinite(found.metrics[score].value)
    assert found.metrics["flops"].value == SPACE.cost(architecture, "flops")
    again = Proxy(Proxy.Config(score=score, batches=3), SPACE, task).measure(architecture, context)
    assert again == found
    if score in ("sigeo", "zico", "grad_norm", "snip"):
        assert found.spent.train_examples == 3 * 32
        task.adopt(task.supernet(SPACE))
        with torch.no_grad():
            for weight in task.adopted.parameters():
                weight.mul_(1.5)
        assert proxy.measure(architecture, context) != found, "of the weights that are inherited"


class WithDead(Two):
    """`Two` beside a layer that the output does not depend on, and one whose units are never on."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.off = nn.Linear(2, 2), nn.Linear(2, 1)
        with torch.no_grad():
            self.off.weight.zero_()
            self.off.bias.fill_(-1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + F.relu(self.off(x))


@pytest.mark.parametrize("score", ["zico", "grad_norm", "snip", "fisher_rao", "sigeo"])
def test_a_module_without_a_gradient_says_nothing(score: str) -> None:
    losses = [summed([[1.0, 0.0]]), summed([[0.0, 1.0]])]
    value = getattr(scores, score)
    alive = value(scores.gather_gradients(Two(), losses))
    assert value(scores.gather_gradients(WithDead(), losses)) == alive
    assert scores.gather_gradients(WithDead(), losses).by_module.keys() == {"into", "out"}


def test_a_module_whose_gradient_never_varies_is_no_part_of_zico() -> None:
    alike = summed([[1.0, 0.0]])
    grads = scores.gather_gradients(Two(), [alike, summed([[0.0, 1.0]])])
    steady = scores.Gradients({**grads.by_module, "bias": torch.ones(2, 1)}, grads.weights, grads.losses)
    assert scores.zico(steady) == scores.zico(grads)
    with pytest.raises(TrainingError, match="no gradient of this model varies"):
        scores.zico(scores.gather_gradients(Two(), [alike, alike]))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda model: model(torch.zeros(1, 2)).sum() * 0, "no weight of this model gets one"),
        (lambda model: torch.zeros(()), "no weight of this model gets one"),
        (lambda model: model(torch.tensor([[float("nan"), 0.0]])).sum(), "not finite"),
        (lambda model: model(torch.full((1, 2), 1e38)).sum() * 1e10, "not finite"),
    ],
)
def test_a_dead_model_and_one_that_is_not_finite_have_no_score(loss: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        scores.gather_gradients(Two(), [loss, loss])


def test_synflow_of_a_dead_or_a_boundless_model_is_refused() -> None:
    dead, endless = Two(), Two()
    with torch.no_grad():
        dead.out.weight.zero_()
        for weight in endless.parameters():
            weight.fill_(3e38)
    with pytest.raises(TrainingError, match="no weight of this model gets one"):
        scores.synflow(dead, (torch.ones(1, 2),))
    deep = nn.Sequential(*(endless for _ in range(1)), *(nn.Linear(1, 1) for _ in range(12)))
    with torch.no_grad():
        for weight in deep.parameters():
            weight.fill_(3e38)
    with pytest.raises(TrainingError, match="SynFlow of this model is inf"):
        scores.synflow(deep, (torch.ones(1, 2),))


def test_scores_that_compare_batches_need_two() -> None:
    parts: Any = SimpleNamespace(space=SPACE, task=Regression(), names={"space": "planted"})
    for score in ("zico", "sigeo"):
        with pytest.raises(ConfigError, match=r"evaluator.proxy.batches=1: .* needs 2 or more"):
            Proxy.from_config(Proxy.Config(score=score, batches=1), parts)  # type: ignore[arg-type]
    assert Proxy.from_config(Proxy.Config(score="snip", batches=1), parts)
