"""How byte-level tokenizers cut text before they merge bytes, under the names that GGUF files give it.

llama.cpp names a way of cutting by a model that used it first (`tokenizer.ggml.pre`). Those here are of the families
that are supported. The patterns are those of the models' own tokenizer.json; llama.cpp spells some of them differently,
because its regular expressions know fewer constructs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import pre_tokenizers

__all__ = ["COMPOSED", "PRE_TOKENIZERS", "PreTokenizer", "name_of", "spelled"]

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_WORDS}|\p{{N}}|{_REST}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")


@dataclass(frozen=True)
class PreTokenizer:
    """One way of cutting text.

    Attributes:
        patterns: Text is cut around what each matches, one after the other.
        digits: Whether every digit is then set apart.
        gpt2: Whether what is left is then cut as GPT-2 does.
        whole: Whether a piece that is a token stays whole, whatever the merges say.
    """

    patterns: tuple[str, ...] = ()
    digits: bool = False
    gpt2: bool = False
    whole: bool = False

    def build(self) -> pre_tokenizers.PreTokenizer:
        """As the library runs it; bytes are spelled as printable characters at the end."""
        from tokenizers import Regex, pre_tokenizers

        cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in self.patterns]
        digits = [pre_tokenizers.Digits(individual_digits=True)] if self.digits else []
        last = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=self.gpt2)
        return pre_tokenizers.Sequence([*cuts, *digits, last])


_DIGITS_APART = PreTokenizer(digits=True, gpt2=True)

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "gpt-2": PreTokenizer(gpt2=True),
    "olmo": PreTokenizer(gpt2=True),
    "phi-2": PreTokenizer(gpt2=True),
    "smollm": _DIGITS_APART,
    "starcoder": _DIGITS_APART,
    "refact": _DIGITS_APART,
    "command-r": _DIGITS_APART,
    "llama-bpe": PreTokenizer((_LLAMA3,), whole=True),
    "llama3": PreTokenizer((_LLAMA3,), whole=True),
    "llama-v3": PreTokenizer((_LLAMA3,), whole=True),
    "falcon3": PreTokenizer((_LLAMA3,), whole=True),
    "dbrx": PreTokenizer((_LLAMA3,)),
    "smaug-bpe": PreTokenizer((_LLAMA3,)),
    "qwen2": PreTokenizer((_QWEN2,)),
    "deepseek-r1-qwen": PreTokenizer((_QWEN2,)),
    "stablelm2": PreTokenizer((_QWEN2,)),
    "tekken": PreTokenizer((_TEKKEN,), whole=True),
    "default": PreTokenizer(_DEFAULT),
}
"""The ways of cutting that are supported, by name; of several names of one, the first is written."""

COMPOSED = frozenset({"qwen2", "deepseek-r1-qwen", "stablelm2"})
"""Those whose models bring text into Unicode's composed form (NFC) first. GGUF files do not say it."""


def name_of(state: Mapping[str, Any]) -> str | None:
    """The name of the way in which a byte-level tokenizer cuts text; None where it has none here.

    Args:
        state: The content of its tokenizer.json.
    """
    cut = _cut(state.get("pre_tokenizer"), bool(state["model"].get("ignore_merges")))
    return next((name for name, one in PRE_TOKENIZERS.items() if one == cut), None)


def _cut(stated: Any, whole: bool) -> PreTokenizer | None:
    """What tokenizer.json describes; None where it is nothing that can be said by a `PreTokenizer`."""
    parts = stated.get("pretokenizers", [stated]) if isinstance(stated, dict) else []
    patterns: list[str] = []
    digits = False
    if not parts or parts[-1].get("type") != "ByteLevel" or parts[-1].get("add_prefix_space"):
        return None
    for part in parts[:-1]:
        if part.get("type") == "Digits" and part.get("individual_digits"):
            digits = True
        elif (
            part.get("type") == "Split" and part.get("behavior") == "Isolated" and not part.get("invert") and not digits
        ):
            patterns.append(part.get("pattern", {}).get("Regex", ""))
        else:
            return None
    return PreTokenizer(tuple(patterns), digits, bool(parts[-1].get("use_regex", True)), whole)


def spelled() -> dict[int, str]:
    """The printable character that stands for each byte in byte-level vocabularies (GPT-2's convention)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in sorted(printable)} | {byte: chr(256 + i) for i, byte in enumerate(others)}
