"""Configurations: the words of a command line, and the YAML files of a user."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml

from rankitect.config import Resolved, resolve
from rankitect.config.resolve import restored
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz

BASES = [
    [],
    ["space=mobile_llm", "controller=dnas", "budget.minutes=20"],
    ["preset=smoke", "seed=3"],
    ["space=ranking_blocks", "controller=evolution", "preset=smoke"],
    ["task=criteo", "space=ranking_engineered", "constraints.flops=[0.5,1.0]"],
    ["recipe=heal_export", "device=host"],
    ["space=mobile_llm", "recipe=spinquant"],
    ["space=mobile_llm_bits", "recipe=qat_8da4w"],
    ["recipe=llama_guard_int4", "preset=smoke"],
    ["space=settings", "task=ranking", "choices.lr=[0.001,0.01]", "task.optimizer.lr={choice: lr}"],
]
KEYS = {
    "seed": "5", "budget.minutes": "2.5", "budget.tokens": "1000", "runner.workers": "2", "runner.threads": "1",
    "constraints.flops": "[0.2,0.9]", "confirm.seeds": "3", "report.baseline": "dlrm", "output_dir": "runs/x",
    "recipe.heal.tokens": "4096", "evaluator.objectives": "[perplexity,flops]", "controller.samples": "4",
    "task.context": "64", "choices.a": "[1,2]", "report.gates.mine": "{metric: ne, side: at_most, bound: 1.0}",
    "allowed_packages": "[rankitect]", "resume": "force",
    "recipe.quantize.bits": "3", "recipe.quantize.damping": "0.1", "recipe.rotate.r4_block": "64",
    "recipe.rotate.act_bits": "16", "recipe.qat.range_lr": "0.01", "recipe.prune.ffn": "64", "recipe.head.keep": "[no]",
    "space.bits.layers": "[8,4]", "space.bits.group": "0", "task.columns": "{label: bad}", "task.unsafe_from": "0.7",
     "device.adb": "adb", "space.target": "os.system",
}  # fmt: skip


def words(random: Random) -> list[str]:
    given = list(random.choice(BASES))
    for _ in range(random.randrange(3)):
        key = random.choice(list(KEYS))
        value = random.choice([KEYS[key], KEYS[key], KEYS[key], json.dumps(mutate.odd(random)), mutate.name(random)])
        given.append(f"{random.choice(['', '', '', '++', '+', '~'])}{key}={value}")
    if given and random.random() < 0.25:
        place = random.randrange(len(given))
        given[place] = mutate.text(random, given[place], 2)
    return given


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield value


def confirm_resolved(resolved: Resolved, given: list[str]) -> None:
    """What is resolved survives JSON and YAML, and each key that was plainly given has its value."""
    assert all(map(math.isfinite, numbers(resolved.data)))
    again = yaml.safe_load(yaml.safe_dump(json.loads(json.dumps(resolved.data)), allow_unicode=True))
    assert restored(again).data == again == json.loads(json.dumps(resolved.data))
    last = {key: value for key, _, value in (word.lstrip("+").partition("=") for word in given)}
    for key in ("seed", "confirm.seeds", "runner.workers"):
        if key in last and last[key].isdecimal():
            section, _, name = key.rpartition(".")
            assert (resolved.data[section] if section else resolved.data)[name] == int(last[key])


class TestCommandLine(Fuzz):
    """The words of a search's command line."""

    cases = 20
    share = 0.5

    def make(self, random: Random) -> list[str]:
        return words(random)

    def read(self, data: list[str], folder: Path) -> Resolved:
        return resolve(data)

    def confirm(self, data: list[str], value: Resolved) -> None:
        confirm_resolved(value, data)
        assert value.data["allowed_packages"] == ["rankitect"] or any("allowed_packages=" in word for word in data)


FILES: dict[str, dict[str, Any]] = {
    "task/mine.yaml": {"name": "mine", "target": "rankitect.tasks.language.task.Language", "context": 64},
    "controller/mine.yaml": {"name": "mine", "target": "rankitect.controllers.random.Random", "samples": 3},
    "stage/mine.yaml": {"target": "rankitect.recipes.train.Train", "tokens": 1024},
    "preset/mine.yaml": {"seed": 4, "runner": {"workers": 2}, "allowed_packages": ["rankitect"]},
}


class TestConfigurationFiles(Fuzz):
    """The YAML files of a user's own configurations."""

    cases = 20
    share = 0.5

    def make(self, random: Random) -> dict[str, bytes]:
        files = {}
        for name, content in FILES.items():
            text = yaml.safe_dump(mutate.tree(random, content, 2) if random.random() < 0.4 else content)
            if name.startswith("preset"):
                text = "# @package _global_\n" + text
            if random.random() < 0.1:
                text = text + random.choice(
                    ["x: ${oc.env:HOME}\n", "y: ${seed}\n", "z: ${oc.decode:1}\n", "defaults: [a]\n"]
                )
            files[name] = (
                mutate.bytes_(random, text.encode("utf-8", "surrogatepass"), 1)
                if random.random() < 0.3
                else text.encode()
            )
        return files

    def read(self, data: dict[str, bytes], folder: Path) -> Resolved:
        for name, content in data.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        return resolve(["task=mine", "controller=mine", "preset=mine", "recipe.mine.stage=mine"], folder)

    def confirm(self, data: dict[str, bytes], value: Resolved) -> None:
        confirm_resolved(value, [])
        assert value.data["allowed_packages"] == ["rankitect"], "no file allows packages"
        assert value.data["seed"] == yaml.safe_load(data["preset/mine.yaml"]).get("seed", 0)
