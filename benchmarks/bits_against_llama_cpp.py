"""A backbone in few bits here and in llama.cpp: perplexity on the same windows, bytes, and speed on one thread.

Perplexity is that of llama.cpp itself, and of the model that our programs compute (a program's own is in its card). The
weights that are shipped lie on llama.cpp's Q4_1 grid, which flatters 4 bits in groups of 32; so all is measured again
after a rotation (R1 and R2, in floats the same model, and a plain Llama for llama.cpp), where no grid is left. Both
runtimes round activations to 8 bits while they run. It needs llama-cpp-python, and goes on where it stopped:

    pip install llama-cpp-python
    python benchmarks/bits_against_llama_cpp.py --text wikitext.txt --other shakespeare.txt --out runs/bits-llama-cpp
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Results, arguments, table

from rankitect.contracts.stage import Stage
from rankitect.data.text import DEFAULT_TEXT
from rankitect.data.windows import TextWindows
from rankitect.metrics.language import perplexity_interval, text_quality
from rankitect.models.backbone import largest
from rankitect.models.plan import make_plan
from rankitect.models.pretrained import space_tensors
from rankitect.models.supernet import Standalone
from rankitect.quantization.settings import QuantizeConfig
from rankitect.recipes import Recipe, RecipeResult, StageStore
from rankitect.recipes.quantize import Quantize
from rankitect.recipes.rotate import Rotate, RotateConfig
from rankitect.search_spaces.mobile_llm import from_backbone

CONTEXT = 256
PREFILL, DECODE = 512, 32
FLOATS = "floats"
OURS: dict[str, dict[str, Any]] = {
    "8da4w to nearest": {"method": "rtn"},
    "8da4w by GPTQ": {"method": "gptq"},
    "8 bits by row": {"method": "rtn", "bits": 8, "group": 0},
    "8da4w by GPTQ, table and head in 4 bits": {
        "method": "gptq", "embedding_bits": 4, "embedding_group": 32, "head_bits": 4, "head_group": 32
    },
}  # fmt: skip
"""Table and head are in 8 bits by row where nothing is said of them."""
THEIRS = ("q4_0", "q4_k_m", "q8_0", "float32")
ROTATED = ("float32", "q4_k_m", "q4_0", FLOATS, "8da4w to nearest", "8da4w by GPTQ")
"""What is measured after a rotation, too."""
BASES: dict[str, RotateConfig | None] = {
    "as shipped": None,
    "rotated": RotateConfig(kind="random", r3=False, r4=False, head="untied"),
}
TIMED = ("8 bits by row", "8da4w by GPTQ"), ("q4_0", "q4_k_m", "q8_0")


class Backbone:
    """The model, the texts, and what is made of it.

    Args:
        options: Of the command.
        results: Finished measurements.
    """

    def __init__(self, options: Any, results: Results) -> None:
        from rankitect.models.checkpoints import load_checkpoint

        self._results, self._windows, self.folder = results, options.windows, results.path.parent
        self.checkpoint = load_checkpoint(options.backbone)
        self._space = from_backbone(self.checkpoint.config, context=CONTEXT, patterns=["full"])
        self._whole = largest(self._space)
        given = {"own": options.text or DEFAULT_TEXT, "other": options.other}
        self.texts = {
            name: TextWindows.open(self.checkpoint.tokenizer, path, context=CONTEXT)
            for name, path in given.items()
            if path is not None
        }

    def made(self, basis: str, numerics: Mapping[str, Any] | None) -> RecipeResult:
        """The model in a basis, in floats or rounded."""
        tensors, plan = space_tensors(self.checkpoint), make_plan(self._space, self._whole)
        model = Standalone(plan, {key: tensors[key].clone() for key in plan.shapes()}).eval()
        stages: dict[str, Stage] = {}
        if (turn := BASES[basis]) is not None:
            stages["rotate"] = Rotate(turn, None)
        if numerics is not None:
            config = QuantizeConfig(**numerics)
            stages["quantize"] = Quantize(config, self.texts["own"] if config.needs_text else None)
        if not stages:
            return RecipeResult(model, architecture=self._whole, space=self._space)
        return Recipe(stages, StageStore(limit=0)).run(model, self._whole, seed=0, space=self._space, keep=False)

    def ours(self, basis: str, name: str) -> None:
        """Measure a model of ours; write its program where that is timed."""
        done: Any = self.made(basis, OURS.get(name))
        nats = {
            text: [float(x) for x in text_quality(done.model, windows, "test", count=self._windows).window_nats]
            for text, windows in self.texts.items()
        }
        size = done.space.cost(done.architecture, "program_bytes", "")
        row = {"runtime": "ours", "basis": basis, "name": name, "nats": nats, "bytes": size}
        if basis == "as shipped" and name in TIMED[0]:
            place = self.program(name)
            self._export(place, done.model)
            row["bytes"] = (place / "model.pte").stat().st_size
        self._results.add(row)

    def program(self, name: str) -> Path:
        """Where the program of a model is."""
        return self.folder / name.replace(" ", "-")

    def _export(self, place: Path, model: Standalone) -> None:
        from rankitect.deploy.artifact import export

        text, floats = self.texts["own"].held_out(), self.made("as shipped", None).model
        export(
            place, model, self.checkpoint.tokenizer, prompt=PREFILL, capacity=PREFILL + DECODE, text=text,
            floats=floats,
        )  # fmt: skip

    def file(self, basis: str, precision: Any) -> Path:
        """The model as llama.cpp's file, written once."""
        from rankitect.models.candidate.gguf import save_gguf

        path = self.folder / f"{basis.replace(' ', '-')}-{precision}.gguf"
        if not path.exists():
            done: Any = self.made(basis, None)
            save_gguf(
                path, done.space, done.architecture, done.model, self.checkpoint.tokenizer,
                config=self.checkpoint.config, usage=self.checkpoint.usage, precision=precision,
            )  # fmt: skip
        return path

    def theirs(self, basis: str, precision: str) -> None:
        """Measure llama.cpp."""
        import gguf
        from llama_cpp import Llama

        path = self.file(basis, precision)
        model = Llama(str(path), n_ctx=CONTEXT + 8, n_batch=CONTEXT, logits_all=True, **_one_thread())
        kinds: dict[str, float] = {}
        for tensor in gguf.GGUFReader(path).tensors:
            kinds[tensor.tensor_type.name] = kinds.get(tensor.tensor_type.name, 0.0) + float(tensor.n_elements)
        row = {"runtime": "llama.cpp", "basis": basis, "name": precision, "bytes": path.stat().st_size, "kinds": kinds}
        nats = {text: self._their_nats(model, windows) for text, windows in self.texts.items()}
        model.close()
        self._results.add({**row, "nats": nats})

    def _their_nats(self, model: Any, windows: TextWindows) -> list[float]:
        """Mean nats of the windows that `text_quality` takes."""
        tokens = windows.require("test")
        total = tokens.windows(CONTEXT)
        count = min(self._windows, total)
        result = []
        for ids in tokens.read(np.arange(count) * total // count, CONTEXT):
            model.reset()
            model.eval([int(token) for token in ids[:-1]])
            scores = torch.from_numpy(np.array(model.scores[: len(ids) - 1]))
            result.append(float(torch.nn.functional.cross_entropy(scores, torch.from_numpy(ids[1:]))))
        return result


def main() -> None:
    """Measure what is missing, and print the tables."""
    options = arguments(
        str(__doc__).splitlines()[0], 9, out="runs/bits-llama-cpp", text=None, other=None, backbone="smollm2-135m",
        windows=16, only="",
    )  # fmt: skip
    Path(options.out).mkdir(parents=True, exist_ok=True)
    results = Results(Path(options.out) / "results.jsonl")
    if options.only == "tables":
        return report(results)
    backbone = Backbone(options, results)
    for basis in BASES:
        for name in (FLOATS, *THEIRS, *OURS):
            runtime, run = ("llama.cpp", backbone.theirs) if name in THEIRS else ("ours", backbone.ours)
            wanted = basis == "as shipped" or name in ROTATED
            if wanted and results.find(runtime=runtime, basis=basis, name=name) is None:
                run(basis, name)
        if results.find(speed="ours", name=TIMED[0][0]) is None:
            time_both(backbone, results, options.rounds)
    return report(results)


def _one_thread() -> dict[str, Any]:
    return {"n_threads": 1, "n_threads_batch": 1, "verbose": False}


def time_both(backbone: Backbone, results: Results, rounds: int) -> None:
    """Processor time of a prefill and of a token after it, in turns."""
    from executorch.extension.pybindings import portable_lib
    from llama_cpp import Llama

    from rankitect.deploy.worker import Loaded

    portable_lib._unsafe_reset_threadpool(1)
    jobs: dict[tuple[str, str], Callable[[], tuple[float, float]]] = {}
    for name in TIMED[0]:
        path = str(backbone.program(name) / "model.pte")
        jobs["ours", name] = _our_job(Loaded(path, 1, "prefill"), Loaded(path, 1, "decode"))
    for name in TIMED[1]:
        size = {"n_ctx": PREFILL + DECODE, "n_batch": PREFILL, "n_ubatch": PREFILL}
        jobs["llama.cpp", name] = _their_job(Llama(str(backbone.file("as shipped", name)), **size, **_one_thread()))
    times: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in jobs}
    for turn in range(-1, rounds):
        for key in list(jobs) if turn % 2 else reversed(jobs):
            taken = jobs[key]()
            if turn >= 0:
                times[key].append(taken)
    for (runtime, name), each in times.items():
        prefill, decode = zip(*each, strict=True)
        results.add({"speed": runtime, "name": name, "prefill": prefill, "decode": decode})


def _our_job(prefill: Any, decode: Any) -> Callable[[], tuple[float, float]]:
    def job() -> tuple[float, float]:
        started = time.process_time()
        prefill.round()
        middle = time.process_time()
        for _ in range(DECODE):
            decode.round()
        return middle - started, (time.process_time() - middle) / DECODE

    return job


def _their_job(model: Any) -> Callable[[], tuple[float, float]]:
    def job() -> tuple[float, float]:
        model.reset()
        started = time.process_time()
        model.eval(list(range(100, 100 + PREFILL)))
        middle = time.process_time()
        for token in range(DECODE):
            model.eval([100 + token])
        return middle - started, (time.process_time() - middle) / DECODE

    return job


def report(results: Results) -> None:
    """Print the tables."""
    texts = list(results.rows[0]["nats"]) if results.rows else []
    rows = []
    for basis in BASES:
        plain = results.find(runtime="ours", basis=basis, name=FLOATS)
        for row in results.rows:
            if plain is None or row.get("basis") != basis:
                continue
            cells = [_ratio(row["nats"][text], plain["nats"][text]) for text in texts]
            kinds = row.get("kinds", {})
            share = ", ".join(
                f"{kind} {count / sum(kinds.values()):.0%}"
                for kind, count in sorted(kinds.items(), key=lambda kind: -kind[1])
                if count > 0.005 * sum(kinds.values())
            )
            rows.append((basis, row["runtime"], row["name"], f"{row['bytes'] / 1e6:.1f}", *cells, share))
    table(
        "Perplexity as a ratio to the model in floats",
        ("weights", "runtime", "bits", "MB", *(f"{text} text" for text in texts), "weights that are"),
        rows,
        "95% intervals over windows, paired. MB of a rotated model are with a head of its own.",
        timed=False,
    )
    rows = []
    first = results.find(speed="ours", name=TIMED[0][-1])
    for row in (r for r in results.rows if "speed" in r):
        assert first is not None
        cells = []
        for kind, tokens in (("prefill", PREFILL), ("decode", 1)):
            ratio = statistics.median(b / a for a, b in zip(row[kind], first[kind], strict=True))
            own = sorted(tokens / t for t in row[kind])
            cells += [f"{statistics.median(own):.0f} ({own[0]:.0f} to {own[-1]:.0f})", f"{ratio:.2f}"]
        rows.append((row["speed"], row["name"], *cells))
    table(
        f"Tokens a second on one thread: {PREFILL} at once, then {DECODE} one by one",
        ("runtime", "bits", "prefill", f"to {TIMED[0][-1]}", "decode", f"to {TIMED[0][-1]}"),
        rows,
        "Processor time; median (range) of rounds in turns; ratios within rounds.",
        timed=False,
    )


def _ratio(ours: list[float], theirs: list[float]) -> str:
    """The ratio of perplexities on the same windows."""
    one, other = np.asarray(ours), np.asarray(theirs)
    low, high = perplexity_interval(one, other)
    return f"{float(np.exp(one.mean() - other.mean())):.4f} ({low:.4f} to {high:.4f})"


if __name__ == "__main__":
    main()
