"""Tiny trained models of every family, as folders of `transformers`: true configurations of small sizes, and tokenizers
of the families' own kinds, both trained on a part of pydoc's topics, so that margins decide on greedy text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["MODELS", "FamilyModel", "text", "train"]

CONTEXT = 128
"""The longest sequence of the models."""
SIZES = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": CONTEXT, "pad_token_id": None,
}  # fmt: skip
PIECES, BEGIN, END = ("<unk>", "<s>", "</s>"), "<s>", "</s>"
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


NO_WINDOWS = ("space.patterns=[full,skip]",)
ALIKE = ("space.patterns=[full]", "space.alike=true")
AS_DEEP = (*ALIKE, "space.depth=false")


@dataclass(frozen=True)
class FamilyModel:
    """One model.

    Attributes:
        kind: `model_type` of `transformers`.
        tokenizer: "pieces" (SentencePiece's BPE), "pieces, no prefix" (Gemma's), or how a byte-level one cuts text.
        stated: What its configuration states beside `SIZES`.
        begins: Whether texts begin with a token of their own.
        kept: What keeps a search to candidates that llama.cpp has: one setting of `space.*` after the other; None where
            it has none at all.
    """

    kind: str
    tokenizer: str
    stated: Mapping[str, Any] = field(default_factory=dict)
    begins: bool = False
    kept: tuple[str, ...] | None = NO_WINDOWS


MODELS = {
    "Llama 2": FamilyModel("llama", "pieces", {"num_key_value_heads": 4}, True),
    "Llama 3": FamilyModel("llama", "llama-bpe", {"tie_word_embeddings": True, "rope_parameters": LLAMA3}, True),
    "TinyLlama": FamilyModel("llama", "pieces", {"rms_norm_eps": 1e-5}, True),
    "MobileLLM": FamilyModel("mobilellm", "pieces", {"tie_word_embeddings": True, "num_key_value_heads": 2}, True),
    "SmolLM2": FamilyModel("llama", "smollm", {"tie_word_embeddings": True, "rope_parameters": {"rope_theta": 1e5}}),
    "SmolLM3": FamilyModel("smollm3", "llama-bpe", {"rope_parameters": {"rope_theta": 5e6}}, kept=AS_DEEP),
    "Mistral": FamilyModel(
        "mistral", "pieces", {"sliding_window": None, "head_dim": 32, "rope_parameters": {"rope_theta": 1e6}}, True
    ),
    "Mistral with a window": FamilyModel("mistral", "pieces", {"sliding_window": 24}, True, None),
    "Qwen2": FamilyModel("qwen2", "qwen2", {"tie_word_embeddings": True, "rope_parameters": {"rope_theta": 1e6}}),
    "Qwen3": FamilyModel(
        "qwen3",
        "qwen2",
        {"tie_word_embeddings": True, "head_dim": 32, "rope_parameters": {"rope_theta": 1e6}},
        kept=ALIKE,
    ),
    "Gemma 3": FamilyModel(
        "gemma3_text",
        "pieces, no prefix",
        {
            "num_hidden_layers": 7, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 24,
            "num_key_value_heads": 1,
        },
        True,
        ALIKE,
    ),
    "OLMo 2": FamilyModel(
        "olmo2", "dbrx", {"num_key_value_heads": 4, "rope_parameters": {"rope_theta": 5e5}}, kept=ALIKE
    ),
    "Phi-3 with a window": FamilyModel(
        "phi3",
        "pieces",
        {"num_key_value_heads": 4, "sliding_window": 23, "original_max_position_embeddings": CONTEXT},
        kept=None,
    ),
    "Phi-4": FamilyModel(
        "phi3",
        "dbrx",
        {
            "sliding_window": None, "rope_parameters": {"rope_theta": 2.5e5},
            "original_max_position_embeddings": CONTEXT,
        },
    ),
}  # fmt: skip
"""By what they are models of. Phi-4 is a Phi-3 without a window."""


def text(characters: int = 120_000) -> str:
    """The beginning of pydoc's topics, which Python itself brings."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))[:characters]


def train(model: FamilyModel, folder: Path, corpus: str, steps: int) -> None:
    """Train a tokenizer and a model, and write both as a folder.

    Args:
        model: Which.
        folder: Created.
        corpus: What both are trained on.
        steps: Batches of 8 windows.
    """
    import transformers

    tokenizer = _tokenizer(model, corpus.splitlines(keepends=True))
    ids = {role: tokenizer.token_to_id(token) for role, token in (("bos", BEGIN), ("eos", END))}
    kind = "llama" if model.kind == "mobilellm" else model.kind
    stated = {**SIZES, **json.loads(json.dumps(dict(model.stated))), "vocab_size": tokenizer.get_vocab_size()}
    config = transformers.AutoConfig.for_model(
        kind, **stated, bos_token_id=ids["bos"], eos_token_id=ids["eos"], initializer_range=0.05
    )
    network = _fitted(config, tokenizer.encode(corpus, add_special_tokens=False).ids, ids["bos"], steps)
    network.save_pretrained(folder)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BEGIN, "eos_token": END}
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if model.kind == "mobilellm":
        _as_mobilellm(folder)


def _as_mobilellm(folder: Path) -> None:
    """Say of a Llama's folder what MobileLLM's own folders say."""
    path = folder / "config.json"
    keys = json.loads(path.read_text())
    keys |= {
        "model_type": "mobilellm", "architectures": ["MobileLLMForCausalLM"], "share_embedding": True,
        "layer_sharing": False, "tie_word_embeddings": False,
        "auto_map": {
            "AutoConfig": "configuration_mobilellm.MobileLLMConfig",
            "AutoModelForCausalLM": "modeling_mobilellm.MobileLLMForCausalLM",
        },
    }  # fmt: skip
    path.write_text(json.dumps(keys))


def _fitted(config: Any, ids: Sequence[int], begin: int, steps: int, batch: int = 8, window: int = 64) -> Any:
    """A model of a configuration, trained on tokens: each window begins with the begin token or where text does."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().train()
    tokens, draws = torch.tensor(ids), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=max(steps, 2), pct_start=0.1)
    for _ in range(steps):
        starts = torch.randint(len(tokens) - window, (batch,), generator=draws)
        rows = torch.stack([tokens[start : start + window] for start in starts])
        rows[: batch // 2, 0] = begin
        loss = model(input_ids=rows, labels=rows).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def _tokenizer(model: FamilyModel, lines: Sequence[str]) -> Tokenizer:
    """A tokenizer of a family's kind, trained on lines of text."""
    from tokenizers import processors

    tokenizer = _pieces(lines, "no prefix" not in model.tokenizer) if "pieces" in model.tokenizer else None
    tokenizer = tokenizer or _byte_level(model.tokenizer, lines)
    if model.begins:
        begin = (BEGIN, tokenizer.token_to_id(BEGIN))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[begin]
        )
    return tokenizer


def _pieces(lines: Sequence[str], prefix: bool, size: int = 640) -> Tokenizer:
    """SentencePiece's BPE with bytes for what it has no piece for, as tokenizer.json of Llama 2 and Gemma have it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    learned = Tokenizer(models.BPE(unk_token=PIECES[0]))
    learned.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always" if prefix else "never")
    learned.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=size - 259, show_progress=False))
    state = json.loads(learned.to_str())["model"]
    singles = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = [*PIECES, *singles, *sorted(state["vocab"], key=state["vocab"].get)]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    merges = [tuple(merge) for merge in state["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token=PIECES[0], byte_fallback=True, fuse_unk=True))
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    tokenizer.add_special_tokens(list(PIECES))
    return tokenizer


def _byte_level(pre: str, lines: Sequence[str], size: int = 512) -> Tokenizer:
    """Byte-level BPE that cuts text as a family does."""
    from tokenizers import Tokenizer, decoders, models, trainers

    from rankitect.data.pre_tokenizers import PRE_TOKENIZERS, spelled

    cut = PRE_TOKENIZERS[pre]
    tokenizer = Tokenizer(models.BPE(ignore_merges=cut.whole))
    tokenizer.pre_tokenizer, tokenizer.decoder = cut.build(), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=list(spelled().values()), special_tokens=[BEGIN, END], show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer
