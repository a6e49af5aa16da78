"""Every family, from a trained model through a search to three runtimes: do they write the same text?

For a tiny trained model of each family (`_family_backbones`) this runs the search as its user would, and takes the
candidate of the best quality to `transformers`, to llama.cpp and to ExecuTorch. Each of them encodes the same prompt
with its own tokenizer and goes on greedily. Where llama.cpp has no model of such a candidate, the table says why, and
a second search is kept to what it has. Finished searches stay in the folder: the command goes on where it stopped.
It needs transformers, the extra `deploy` and llama-cpp-python (the extra `llama`):

    python benchmarks/families_everywhere.py
    python benchmarks/families_everywhere.py --families "Gemma 3,OLMo 2" --folder runs/some-families
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _family_backbones import MODELS, text, train
from common import ROOT, Results, arguments, table

if TYPE_CHECKING:
    import torch

    from rankitect.models.candidate import LanguageCandidate

TOKENS, PROMPT = 24, "The following is a list of the"
HEAD = (
    "family",
    "space",
    "layers",
    "transformers",
    "texts equal",
    "largest difference of logits",
    "least lead",
    "notes",
)


@dataclass(frozen=True)
class Answer:
    """What a runtime makes of the prompt.

    Attributes:
        text: What it goes on with.
        logits: Of the prompt and the candidate's answer, [T, V], or of its last tokens.
    """

    text: str
    logits: torch.Tensor


def main() -> None:
    """Run what is missing, then print the table; exit with 1 where texts differ or a family has none in llama.cpp."""
    options = arguments(__doc__ or "", rounds=1, folder="runs/families-everywhere", families=",".join(MODELS))
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = Results(folder / "results.jsonl")
    names = options.families.split(",")
    for name in names:
        for keys in ((), MODELS[name].kept):
            if keys is None:
                continue
            row = results.find(model=name, keys=list(keys), quick=options.quick)
            if row is None:
                row = {"model": name, "keys": list(keys), "quick": options.quick}
                row |= searched(name, folder, keys, options.quick)
                results.add(row)
                print(json.dumps(row), flush=True)
            if row["impossible"] is None:
                break
    rows = [row for row in results.rows if row["model"] in names and row["quick"] == options.quick]
    table(
        f"One search of each: {TOKENS} greedy tokens in transformers, llama.cpp and ExecuTorch",
        HEAD,
        [cells(row) for row in rows],
        f"Texts go on from {PROMPT!r}. Differences are of transformers / llama.cpp / ExecuTorch from the candidate, in "
        "float32, along prompt and answer; the least lead is that of the likeliest token over the second.",
        timed=False,
    )
    sys.exit(any(row["texts"].count(row["texts"][0]) < len(row["texts"]) for row in rows))


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table."""
    same = [one == row["texts"][0] for one in row["texts"]]
    equal = "/".join("yes" if one else "NO" for one in same)
    away = " / ".join("–" if one is None else f"{one:.0e}" for one in row["away"])
    space = " ".join(row["keys"]) or "the whole space"
    notes = row["impossible"] or row["gguf"]
    return (row["model"], space, row["shape"], row["class"], equal, away, f"{row['lead']:.2g}", notes)


def searched(name: str, folder: Path, keys: tuple[str, ...], quick: bool) -> dict[str, Any]:
    """Train the backbone where it is missing, search, and compare the best candidate."""
    slug = "".join(c for c in name.lower() if c.isalnum())
    corpus, backbone = folder / "text.txt", folder / slug
    corpus.write_text(text(), encoding="utf-8")
    if not (backbone / "tokenizer_config.json").exists():
        shutil.rmtree(backbone, ignore_errors=True)
        train(MODELS[name], backbone, text(), 40 if quick else 200)
    run = folder / f"{slug}-{'kept' if keys else 'whole'}"
    command = [
        sys.executable, "-m", "rankitect.search", "space=mobile_llm", "controller=dnas", "preset=smoke",
        f"task.backbone={backbone}", f"task.text={corpus}", "task.context=64", "task.uniform=[]", "space.window=16",
        "controller.targets=[0.75]", f"controller.steps={4 if quick else 8}", f"output_dir={run}", *keys,
        f"recipe.heal.tokens={512 if quick else 8192}", "recipe.heal.batch=8", "recipe.heal.context=64",
        "recipe.heal.lr=1e-3", "report.page=false", "report.tensorboard=false",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return compared(run)


def compared(run: Path) -> dict[str, Any]:
    """The best candidate of a run in the three runtimes."""
    from rankitect.models.candidate import load_language_model
    from rankitect.models.gguf_layout import gguf_layout
    from rankitect.study.summary import read_summary

    best = read_summary(run).pareto[0]
    folder = run / best.folder
    candidate = load_language_model(folder)
    ids, lead = greedy(candidate)
    own = candidate.model(ids)[0].detach()
    card = json.loads((folder / "candidate.json").read_text())
    answers: list[Answer | None] = [in_transformers(folder / "hf", ids)]
    layout, impossible = gguf_layout(candidate.space, candidate.architecture, candidate.config), None
    if layout.reason is not None:
        impossible = f"not in llama.cpp: {layout.reason}"
        answers.append(None)
    else:
        answers.append(in_llama_cpp(run, best.rank, ids))
    answers.append(in_executorch(run, best.rank, ids))
    texts = [answer.text for answer in answers if answer is not None]
    return {
        "impossible": impossible,
        "gguf": layout.architecture,
        "class": card["huggingface"]["class"],
        "shape": shape(layout),
        "texts": [candidate.generate(PROMPT, TOKENS), *texts],
        "away": [None if a is None else float((a.logits - own[-len(a.logits) :]).abs().max()) for a in answers],
        "lead": lead,
    }


def shape(layout: Any) -> str:
    """The layers of a candidate in a few words."""
    row = layout.row
    return f"{len(row.layers)}, {'by layer' if row.difference else 'alike'}"


def greedy(candidate: LanguageCandidate) -> tuple[torch.Tensor, float]:
    """The prompt and the candidate's answer, ids [1, T]; and the least lead of a token over the second."""
    import torch

    first = candidate.usage.first_token(candidate.tokenizer)
    ids = candidate.encode(PROMPT)
    ids = ids if first is None else torch.cat([ids.new_tensor([[first]]), ids], dim=1)
    leads = []
    with torch.no_grad():
        for _ in range(TOKENS):
            best = candidate.model(ids)[0, -1].topk(2)
            leads.append(float(best.values[0] - best.values[1]))
            ids = torch.cat([ids, best.indices[:1][None]], dim=1)
    return ids, min(leads)


def in_transformers(folder: Path, ids: torch.Tensor) -> Answer:
    """The answer of `AutoModelForCausalLM`, with the code of the folder where it has some."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, dtype=torch.float32
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    asked = tokenizer(PROMPT, return_tensors="pt")
    with torch.no_grad():
        told = model.generate(**asked, max_new_tokens=TOKENS, do_sample=False)[0]
        logits = model(ids).logits[0]
    before = tokenizer.decode(asked["input_ids"][0], skip_special_tokens=True)
    return Answer(tokenizer.decode(told, skip_special_tokens=True)[len(before) :], logits)


def exported(run: Path, rank: int, place: Path, form: str, *keys: str) -> None:
    """Write a candidate as the command does."""
    from rankitect.export import main as export

    with contextlib.redirect_stdout(io.StringIO()):
        code = export([f"run={run}", f"candidate={rank}", f"to={form}", f"out={place}", *keys])
    assert code == 0, f"rankitect.export ended with {code}"


def in_llama_cpp(run: Path, rank: int, ids: torch.Tensor) -> Answer:
    """The answer of llama-cpp-python to the file that `rankitect.export` writes."""
    import llama_cpp
    import numpy as np
    import torch

    path = run / "candidate.gguf"
    path.unlink(missing_ok=True)
    exported(run, rank, path, "gguf", "precision=float32")
    kept = llama_cpp.GGML_TYPE_F32
    model = llama_cpp.Llama(
        str(path), n_ctx=128, n_batch=128, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False, type_k=kept,
        type_v=kept,
    )  # fmt: skip
    told = model.create_completion(PROMPT, max_tokens=TOKENS, temperature=0.0)["choices"][0]["text"]
    model.reset()
    model.eval(ids[0].tolist())
    return Answer(told, torch.from_numpy(np.array(model.scores[: ids.shape[1]])))


def in_executorch(run: Path, rank: int, ids: torch.Tensor) -> Answer:
    """The answer of `rankitect.run_pte` to the program that `rankitect.export` writes."""
    import torch

    from rankitect.deploy.artifact import load

    program, prompt = run / "program", ids.shape[1] - TOKENS
    shutil.rmtree(program, ignore_errors=True)
    exported(run, rank, program, "executorch", f"prompt={prompt}", "capacity=96")
    command = [sys.executable, "-m", "rankitect.run_pte", str(program), "--prompt", PROMPT, "--tokens", str(TOKENS)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    generator = load(program).generator
    rows = [generator.start(ids[0, :prompt].tolist())]
    rows += [generator.step(int(token)) for token in ids[0, prompt:]]
    return Answer(told[len(PROMPT) : -1], torch.stack([row.flatten() for row in rows]))


if __name__ == "__main__":
    main()
