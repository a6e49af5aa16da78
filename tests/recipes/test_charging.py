"""What the stages that train on text charge: model and teacher as they are, on sequences as long as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rankitect.contracts import Spent
from rankitect.data.text import open_text
from rankitect.data.tokenizer import ByteTokenizer
from rankitect.data.windows import TextWindows
from rankitect.graph import Architecture, SearchSpace
from rankitect.models.supernet import build
from rankitect.quantization.settings import QuantizeConfig
from rankitect.recipes import Recipe, StageStore
from rankitect.recipes.distil import Distil
from rankitect.recipes.qat import Qat, QatConfig
from rankitect.recipes.quantize import Quantize
from rankitect.search_spaces.mobile_llm import mobile_llm
from rankitect.training.distill import Distillation
from rankitect.training.settings import DistilConfig
from tests.recipes.test_changed_models import Shorten
from tests.tasks.language.tiny import own_cache

SPACE = mobile_llm(vocab=256, layers=2, widths=[16], kv_heads=[1], group=[2], ffn=[24], patterns=["full"], head=8)
WHOLE = SPACE.architecture({**SPACE.sample(0).choices, "layers.0.runs": 1, "layers.1.runs": 1})
SHORT = SPACE.architecture({**WHOLE.choices, "layers.1.runs": 0})
STEP = {"tokens": 64, "batch": 2, "context": 16}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path) -> Iterator[None]:
    with own_cache(tmp_path / "cache"):
        yield


@dataclass
class Task:
    """A text of bytes, and a backbone of two layers."""

    data: TextWindows
    sequence: int | None = None
    """Tokens of a sequence, where the task counts them otherwise than the stage."""
    space: SearchSpace = field(default=SPACE)
    reference: Architecture = field(default=WHOLE)
    backbone_name: str = "two layers"
    backbone_fingerprint: str = "f"

    def next_token(self, config: Any, split: str = "train") -> Any:
        raise AssertionError("not asked for")

    def distillation(self, config: DistilConfig, split: str = "train", teacher: Any = None) -> Any:
        config = config.model_copy(update={"context": self.sequence or config.context})
        return Distillation(teacher or build(SPACE, WHOLE, seed=5), self.data, config, seed=0, split=split)


def task(folder: Path, sequence: int | None = None) -> Any:
    (folder / "text.txt").write_text("\n\n".join(f"{i} squared is {i * i}." for i in range(400)))
    source = open_text(str(folder / "text.txt"))
    return Task(TextWindows.open(ByteTokenizer(), source, context=16, cache=folder / "tokens"), sequence)


def forward(architecture: Architecture, tokens: int) -> float:
    return float(SPACE.cost(architecture, "flops", "", B=1, T=tokens, P=0))


def spent(stages: dict[str, Any], folder: Path) -> Spent:
    model = build(SPACE, WHOLE, seed=1)
    result = Recipe(stages, StageStore(folder, 2**24)).run(model, WHOLE, seed=0, space=SPACE)
    return result.stages[-1].spent


@pytest.mark.parametrize(("teacher", "whose"), [("shorten", SHORT), ("float", SHORT), ("backbone", WHOLE)])
def test_a_teacher_is_charged_as_the_model_that_it_is(tmp_path: Path, teacher: str, whose: Architecture) -> None:
    tiny, wanted = task(tmp_path), int(3 * forward(SHORT, 16) + forward(whose, 16)) * 64 // 16
    distil = Distil(DistilConfig(teacher=teacher, **STEP), tiny)
    charged = spent({"shorten": Shorten(), "distil": distil}, tmp_path / "a")
    assert (charged.train_tokens, charged.teacher_tokens, charged.train_flops) == (64, 64, wanted)
    quantize = Quantize(QuantizeConfig(method="rtn", group=8, head_group=0), None)
    qat = Qat(QatConfig(teacher=teacher, **STEP), tiny)
    charged = spent({"shorten": Shorten(), "quantize": quantize, "qat": qat}, tmp_path / "b")
    assert (charged.train_tokens, charged.teacher_tokens, charged.train_flops) == (64, 64, wanted)


def test_sequences_are_charged_as_long_as_the_task_has_them(tmp_path: Path) -> None:
    tiny = task(tmp_path, sequence=8)
    distil = Distil(DistilConfig(teacher="backbone", **STEP), tiny)
    charged = spent({"shorten": Shorten(), "distil": distil}, tmp_path / "a")
    amount = charged.train_tokens
    wanted = int(3 * forward(SHORT, 8) + forward(WHOLE, 8)) * amount // 8
    assert charged.train_flops == wanted
    assert distil.training_spent(SPACE, SHORT, amount).train_flops == wanted
