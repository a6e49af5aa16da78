"""What llama.cpp computes of a GGUF file; tests that use it are skipped where llama-cpp-python is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["greedy", "loaded", "logits_of"]


def loaded(path: Path, context: int = 64) -> Any:
    """The model of a file, on one thread, with its cache in float32."""
    import llama_cpp

    return llama_cpp.Llama(
        str(path), n_ctx=context, n_batch=context, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False,
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
    )  # fmt: skip


def logits_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Logits of all tokens: ids [B, T] -> [B, T, V]."""
    rows = []
    for row in ids.tolist():
        model.reset()
        model.eval(row)
        rows.append(torch.from_numpy(np.array(model.scores[: len(row)])))
    return torch.stack(rows)


def greedy(model: Any, ids: list[int], tokens: int, stop: tuple[int, ...]) -> list[int]:
    """The most probable next tokens, one by one with its cache, until a stop token."""
    model.reset()
    model.eval(ids)
    answer: list[int] = []
    while len(answer) < tokens:
        token = int(np.argmax(model.scores[model.n_tokens - 1]))
        if token in stop:
            break
        answer.append(token)
        model.eval([token])
    return answer
