"""What a phone app loads: one .pte file with the methods `prefill` and `decode`, its tokenizer, and how to call it."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from rankitect.contracts import JSON
from rankitect.data.files import file_sha256, write_whole
from rankitect.data.members import place_of
from rankitect.data.tokenizer import Tokenizer, load_tokenizer
from rankitect.deploy.generate import Generator, Layout, Method
from rankitect.deploy.lowering import lower, require_runtime, silenced, tolerance
from rankitect.deploy.precision import precision_of, quantized_share, require_lowerable
from rankitect.deploy.quality import ProgramQuality, language_quality, report_quality
from rankitect.documents import as_kind, read_json
from rankitect.errors import AssetError, DeployError, safe, short
from rankitect.models.checkpoints.usage import Usage
from rankitect.models.deployed import DeployedCall
from rankitect.models.supernet import Standalone, device_of

__all__ = ["CARD", "PROGRAM", "Deployed", "ProgramJudge", "export", "layout_of", "load", "runtime_version"]

M = TypeVar("M", bound=nn.Module)


class ProgramJudge(Protocol):
    """Compares a program with the model that it was made from."""

    def __call__(
        self, path: Path, generator: Generator, model: Standalone, floats: nn.Module | None
    ) -> tuple[ProgramQuality, Mapping[str, JSON]]:
        """The comparison, and plain data for the program's card.

        Args:
            path: The .pte file.
            generator: Runs it.
            model: The model.
            floats: It in floats, before it was quantized; None where it is so itself.
        """
        ...


SCHEMA = 1
CARD = "program.json"
PROGRAM = "model.pte"
PROBE = (11, 5, 7)
"""Token ids from which eager and exported model are compared."""
_AGAIN = "Copy it again."
_ANY_TOKEN = 2**31  # the card does not say how many tokens the model knows
CHECKED = 8
"""Tokens of that comparison."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Runtime(_Strict):
    version: str


class _Cache(_Strict):
    path: str
    shape: list[int]
    slots: int = Field(ge=0, le=7)
    window: int | None = Field(ge=1)


class _Layout(_Strict):
    prompt: int = Field(ge=1, le=2**24)
    capacity: int = Field(ge=2, le=2**24)
    masks: list[int | None]
    caches: list[_Cache]

    def to_layout(self) -> Layout:
        return Layout.from_json(self.model_dump())


class _Card(_Strict):
    """What a reader relies on in program.json."""

    layout: _Layout
    runtime: _Runtime
    sha256: str


@dataclass(frozen=True)
class Deployed:
    """A program that was loaded.

    Attributes:
        generator: Generates.
        tokenizer: Of the model.
        card: What program.json says.
        load_ms: Milliseconds to load the program and pack its weights.
        stop_ids: Tokens that end an answer.
        begin: The token that a prompt begins with, as the model was trained; or None.
    """

    generator: Generator
    tokenizer: Tokenizer
    card: Mapping[str, Any]
    load_ms: float
    stop_ids: frozenset[int]
    begin: int | None


def runtime_version() -> str:
    """Version of the installed ExecuTorch.

    Raises:
        DeployError: It is not installed.
    """
    require_runtime()
    return metadata.version("executorch")


def calls(model: Standalone, prompt: int, capacity: int) -> dict[str, DeployedCall]:
    """The two calls of a language model.

    Args:
        model: Token ids [1, T] to logits.
        prompt: Tokens of a prefill.
        capacity: Tokens of the longest sequence.
    """
    ids = torch.zeros(1, prompt, dtype=torch.int64)
    return {
        "prefill": DeployedCall(model.plan, model, capacity, False, (ids,)),
        "decode": DeployedCall(model.plan, model, capacity, True, (ids[:, :1],)),
    }


def export(
    folder: str | Path,
    model: Standalone,
    tokenizer: Tokenizer,
    *,
    prompt: int,
    capacity: int,
    text: torch.Tensor | None,
    floats: nn.Module | None = None,
    judge: ProgramJudge | None = None,
    notes: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Write a language model as a program. The card comes last: where it is, all is there.

    Outputs are compared with those of the lowered module, and so are the first greedy tokens. The perplexity of the
    program on `text`, as the runtime gives it, is compared with that of the model in floats; card and log say both.

    Args:
        folder: Created if it does not exist.
        model: What to export, on whatever device; it stays there.
        tokenizer: Of the model.
        prompt: Tokens of a prefill.
        capacity: Tokens of the longest sequence, prompt and answer together; more than `prompt`.
        text: Windows of real text that neither was trained on, token ids [W, T]; None where there is none: then the
            card has no quality, which the caller has to say.
        floats: The model in floats, before it was quantized. Where there is none, the quality says what the same
            weights give without rounding, and is compared with nothing.
        judge: Compares program and model in place of their perplexities.
        notes: Plain data for the card.

    Returns:
        Paths relative to the folder, by artifact: "program", "program_card", "tokenizer".

    Raises:
        DeployError: The model cannot be exported, the runtime lacks some of its bits, or the program does not give what
            the model gives.
        OSError: The disk is full or cannot be written.
    """
    if not 1 <= prompt < capacity:
        raise DeployError(f"capacity is {capacity}; it must be more than the prompt's {prompt} tokens.")
    folder = Path(folder)
    model, floats = _on_cpu(model), None if floats is None else _on_cpu(floats)
    require_lowerable(model.plan)
    precision = precision_of(model.plan)
    methods = calls(model, prompt, capacity)
    started = time.perf_counter()
    lowered = lower(methods)
    seconds = time.perf_counter() - started
    layout = Layout.of(methods["prefill"], methods["decode"])
    said: Mapping[str, JSON] = {}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    write_whole(folder / PROGRAM, lowered.buffer)
    try:
        _check_tokens(folder / PROGRAM, layout, methods)
        generator = _generator(folder / PROGRAM, layout)[0]
        quality = None
        if model.plan.is_float:
            whole = None
        else:
            whole = model.in_floats() if floats is None else floats
        if judge is not None:
            quality, said = judge(folder / PROGRAM, generator, model, whole)
        elif text is not None:
            quality = language_quality(generator, model, text, prompt=prompt, capacity=capacity, floats=whole)
        if quality is not None and floats is None:
            quality = quality.without_floats()
    except BaseException:
        (folder / PROGRAM).unlink()  # a program that was not checked to the end is none
        raise
    if quality is not None:
        report_quality(quality, PROGRAM, precision)
    if not (folder / "tokenizer.json").is_file():  # a candidate's folder has it, with more than the tokenizer knows
        tokenizer.save(folder)
    card = {
        "schema": SCHEMA,
        "kind": "rankitect program",
        "runtime": {"name": "executorch", "version": runtime_version(), "backend": "XNNPACK"},
        "precision": precision,
        "quantized_share": quantized_share(methods),
        "quality": None if quality is None else quality.to_json(),
        "layout": layout.to_json(),
        "delegated": {"operators": lowered.delegated, "share": lowered.share, "portable": lowered.portable},
        "checked": {"errors": lowered.errors, "greedy_tokens": CHECKED},
        "lowering_seconds": round(seconds, 1),
        "bytes": len(lowered.buffer),
        "sha256": file_sha256(folder / PROGRAM),
        "notes": {**dict(notes or {}), **said},
    }
    write_whole(folder / CARD, json.dumps(card, indent=2) + "\n")
    return {"program": PROGRAM, "program_card": CARD, "program_tokenizer": "tokenizer.json"}


def _on_cpu(model: M) -> M:
    """A model for the CPU, where programs are lowered and run: itself, or a copy."""
    return model if device_of(model).type == "cpu" else copy.deepcopy(model).cpu()


def _check_tokens(path: Path, layout: Layout, methods: Mapping[str, DeployedCall]) -> None:
    allowed = 2 * tolerance(methods)

    def run(name: str) -> Any:
        def call(inputs: Any) -> Any:
            with torch.no_grad():
                return methods[name](*inputs)

        return call

    prompt = list(PROBE)[: layout.prompt]
    wanted, program = Generator(layout, run("prefill"), run("decode")), _generator(path, layout)[0]
    one, other = wanted.start(prompt), program.start(prompt)
    for number in range(1, 1 + min(CHECKED, layout.capacity - len(prompt))):
        token, given = int(one.argmax()), int(other.argmax())
        # Scores that are equal but for rounding may be ranked either way: each may be off by the tolerance.
        lead = float((one.flatten()[token] - one.flatten()[given]) / one.abs().max().clamp_min(1e-12))
        if lead > allowed:
            raise DeployError(
                f"The program generates token {given} where the model generates {token}, number {number} after "
                f"{prompt}: its score is higher by {lead:.2g} of the largest."
            )
        if number < layout.capacity - len(prompt):
            one, other = wanted.step(token), program.step(token)


def _generator(path: Path, layout: Layout) -> tuple[Generator, float]:
    with silenced():
        from executorch.runtime import Runtime

        runtime = Runtime.get()
    started = time.perf_counter()
    try:
        with silenced():
            program = runtime.load_program(path)
            methods = {name: program.load_method(name) for name in ("prefill", "decode")}
    except (RuntimeError, KeyError) as error:
        raise DeployError(f"{path} cannot be loaded by ExecuTorch {runtime_version()}: {error}") from error
    elapsed = (time.perf_counter() - started) * 1e3
    return Generator(layout, *(_running(path, methods[name].execute) for name in ("prefill", "decode"))), elapsed


def _running(path: Path, execute: Method) -> Method:
    """A call of a program that ends in a documented error where the runtime refuses what it is given."""

    def run(inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        try:
            return execute(inputs)
        except RuntimeError as error:
            raise DeployError(
                f"{path} does not run on what it is given, such as tokens that it does not know: "
                f"{short(safe(str(error)), 200)}."
            ) from error

    return run


def _card_of(folder: Path) -> tuple[dict[str, Any], _Card]:
    """The card of a program as it is, and what is relied on of it.

    Raises:
        AssetError: There is none, or it is damaged or of another schema.
    """
    if not place_of(folder, CARD).is_file():
        raise AssetError(f"{folder} has no {CARD}: it is no exported program, or writing it was interrupted.")
    card = read_json(folder / CARD, dict[str, Any], AssetError, advice=_AGAIN)
    if card.get("schema") != SCHEMA:
        schema = short(safe(repr(card.get("schema"))), 40)
        raise AssetError(f"{folder / CARD} has schema {schema}; this version of Rankitect reads {SCHEMA}.")
    return card, as_kind(card, _Card, folder / CARD, AssetError, advice=_AGAIN)


def layout_of(folder: Path) -> Layout:
    """How an exported program is called, as its card says.

    Raises:
        AssetError: There is no card, or it is damaged or of another schema.
    """
    return _card_of(folder)[1].layout.to_layout()


def load(folder: str | Path, *, verify: bool = True) -> Deployed:
    """Load what `export` wrote.

    Args:
        folder: The program's folder.
        verify: Compare the file's SHA-256 with the card's.

    Raises:
        AssetError: A file is missing, altered or of another schema.
        DeployError: The program is from another runtime version, or cannot be loaded.
    """
    folder = Path(folder)
    card, checked = _card_of(folder)
    made_by, here = short(safe(checked.runtime.version), 40), runtime_version()
    if made_by != here:
        raise DeployError(
            f"{folder / PROGRAM} was exported for ExecuTorch {made_by}; this is {here}. Export the candidate again, or "
            f"install executorch=={made_by}."
        )
    if not place_of(folder, PROGRAM).is_file():
        raise AssetError(f"{folder} has no {PROGRAM}. Copy the whole folder again.")
    if verify and file_sha256(folder / PROGRAM) != checked.sha256:
        raise AssetError(f"{folder / PROGRAM} was altered or truncated: its SHA-256 is not the card's. Copy it again.")
    tokenizer = load_tokenizer(folder)
    usage = Usage.load(folder, tokenizer, _ANY_TOKEN)
    generator, elapsed = _generator(folder / PROGRAM, checked.layout.to_layout())
    stops = frozenset({*usage.stop_ids, *tokenizer.special_ids.values()})
    return Deployed(generator, tokenizer, card, elapsed, stops, usage.first_token(tokenizer))
