"""Tokenizers behind one interface: text to ids and back, a size, a fingerprint, files that `transformers` reads."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.chat import PLAIN, ChatFormat, TemplateChat
from rankitect.data.chat_templates import DEFAULT, chat_templates
from rankitect.data.files import write_atomically
from rankitect.data.guard import guarded
from rankitect.data.members import listing, member
from rankitect.data.pre_tokenizers import COMPOSED, PRE_TOKENIZERS, spelled
from rankitect.data.special_tokens import special_ids
from rankitect.documents import parse_json, read_json, read_text
from rankitect.errors import AssetError, DataError, shown

if TYPE_CHECKING:
    import tokenizers

__all__ = ["BPETokenizer", "ByteTokenizer", "Tokenizer", "byte_level_bpe", "load_tokenizer"]

_TOKENIZER, _SETTINGS, _SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
_MOST_IDS = 2**31
"""Token ids are kept as int32."""


class Tokenizer(ABC):
    """Text to token ids and back.

    Special tokens are never read out of text nor added to it: a text that happens to contain ``<|endoftext|>`` is plain
    characters. Their ids are in `special_ids` for whoever joins documents.
    """

    special_ids: Mapping[str, int]
    """Token id by role; keys are some of "bos", "eos", "unk", "pad"."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """One more than the largest token id."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of all that decides how text becomes ids. Token caches are keyed by it."""

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token ids of each text, int32 arrays of shape (tokens,).

        Raises:
            DataError: A text has characters that no encoding can hold (lone surrogates).
        """

    @abstractmethod
    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        """The text of token ids; bytes that are no valid UTF-8 become U+FFFD."""

    def decode_after(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """The text that token ids add to that of the ids before them.

        SentencePiece drops the space at the beginning of a text, which in the middle of one belongs to it.
        """
        start, whole = self.decode(before), self.decode([*before, *ids])
        # a character whose bytes are divided between the two is none of the text before, where it is shown as U+FFFD
        return whole[len(start) :] if whole.startswith(start) else self.decode(ids)

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json`` into an existing folder, each atomically."""

    def encode(self, text: str) -> NDArray[np.int32]:
        """Token ids of a text, int32 array of shape (tokens,).

        Raises:
            DataError: The text has characters that no encoding can hold (lone surrogates).
        """
        return self.encode_batch([text])[0]

    def encode_markup(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """As `encode_batch`, of texts that a chat template has written: special tokens in them stand for themselves.

        Raises:
            DataError: A text has characters that no encoding can hold.
        """
        return self.encode_batch(texts)

    @property
    def begin_id(self) -> int | None:
        """The first token (bos), where the tokenizer's file puts it before every text; `encode` never does."""
        return None

    @property
    def chat(self) -> ChatFormat:
        """How a conversation becomes text: by the model's template, or plainly where it has none."""
        return PLAIN


class ByteTokenizer(Tokenizer):
    """Every UTF-8 byte is a token, ids 0 to 255. Needs no files; used by tiny models.

    >>> ByteTokenizer().encode("hé").tolist()
    [104, 195, 169]
    """

    def __init__(self) -> None:
        self.special_ids: Mapping[str, int] = {}

    @property
    def vocab_size(self) -> int:
        """256."""
        return 256

    @property
    def fingerprint(self) -> str:
        """SHA-256 of a fixed text: there is nothing to configure."""
        return hashlib.sha256(b"rankitect byte tokenizer 1").hexdigest()

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The UTF-8 bytes of each text, int32 arrays of shape (bytes,).

        Raises:
            DataError: A text has lone surrogates.
        """
        return [np.frombuffer(_utf8(text), dtype=np.uint8).astype(np.int32) for text in texts]

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        """The text of byte values; ids above 255 (a model's unused vocabulary rows) become U+FFFD."""
        # 0xFF never occurs in UTF-8, so it decodes to the replacement character
        return bytes(i if 0 <= i < 256 else 0xFF for i in (int(i) for i in ids)).decode("utf-8", errors="replace")

    def save(self, folder: Path) -> None:
        """Write the files of the byte-level BPE without merges that gives the same ids."""
        _bytes_as_bpe().save(folder)


class BPETokenizer(Tokenizer):
    """A `tokenizers.Tokenizer` (the library of Hugging Face's tokenizer.json files) behind the interface."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special_ids: Mapping[str, int] | None = None,
        chat_template: str | None = None,
        source: str = "the tokenizer",
    ) -> None:
        """Wrap a backend.

        Args:
            backend: The tokenizer; it is set to read special tokens in text as plain text, never to truncate or pad.
            special_ids: Token id by role, see `Tokenizer.special_ids`.
            chat_template: A Jinja template, kept only to be saved again.
            source: The file that it comes from, for errors.
        """
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._chat_template, self._source = chat_template, source
        self.special_ids: Mapping[str, int] = dict(special_ids or {})

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest token id, added tokens included."""
        return 1 + max(self._backend.get_vocab(with_added_tokens=True).values())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical tokenizer.json."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token ids of each text, int32 arrays of shape (tokens,), without added special tokens.

        Raises:
            DataError: A text has lone surrogates.
            AssetError: The tokenizer cannot encode a text: it has no token for a character, or a table of it is broken.
        """
        return self._encoded(self._backend, texts)

    def _encoded(self, backend: tokenizers.Tokenizer, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        with guarded(f"{self._source} cannot encode a text"):
            try:
                encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
            except (TypeError, UnicodeError):
                for text in texts:
                    _utf8(text)  # says which character is at fault
                raise
        return [np.asarray(encoding.ids, dtype=np.int32) for encoding in encodings]

    def encode_markup(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """See `Tokenizer.encode_markup`. No begin token is added: a template writes it where it belongs."""
        return self._encoded(self._reading_markup, texts)

    @cached_property
    def _reading_markup(self) -> tokenizers.Tokenizer:
        from tokenizers import Tokenizer as Backend

        backend = Backend.from_str(self._backend.to_str())
        backend.encode_special_tokens = False
        return backend

    @cached_property
    def begin_id(self) -> int | None:
        """See `Tokenizer.begin_id`."""
        with guarded(f"{self._source} cannot encode a text"):
            added = self._backend.encode("", add_special_tokens=True).ids
        return added[0] if added and added[0] == self.special_ids.get("bos") else None

    @cached_property
    def chat(self) -> ChatFormat:
        """See `Tokenizer.chat`."""
        if not self._chat_template:
            return PLAIN
        tokens = {f"{role}_token": self._backend.id_to_token(number) or "" for role, number in self.special_ids.items()}
        added = self._backend.get_added_tokens_decoder().values()
        return TemplateChat(self._chat_template, tokens, frozenset(str(t.content) for t in added if t.special))

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        """The text of token ids, special tokens included."""
        with guarded(f"{self._source} cannot decode tokens"):
            return str(self._backend.decode([int(i) for i in ids], skip_special_tokens=False))

    def to_json(self) -> str:
        """The tokenizer.json text, keys sorted."""
        return json.dumps(json.loads(self._backend.to_str()), sort_keys=True, ensure_ascii=False)

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json`` as `transformers.AutoTokenizer` reads them."""
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        for role, token_id in self.special_ids.items():
            config[f"{role}_token"] = self._backend.id_to_token(token_id)
        if self._chat_template:
            config["chat_template"] = self._chat_template
        _write_text(folder / _TOKENIZER, json.dumps(json.loads(self._backend.to_str()), indent=1, ensure_ascii=False))
        _write_text(folder / _SETTINGS, json.dumps(config, indent=2, ensure_ascii=False))


def byte_level_bpe(
    tokens: Sequence[str],
    merges: Sequence[str],
    *,
    pre: str,
    source: str,
    control_ids: Sequence[int] = (),
    added_ids: Sequence[int] = (),
    special_ids: Mapping[str, int] | None = None,
    chat_template: str | None = None,
) -> BPETokenizer:
    """A byte-level BPE tokenizer from its tables, as GGUF files carry them.

    Args:
        tokens: Token texts in the byte-level alphabet; the index is the id.
        merges: Merges in order of priority, each ``"left right"``.
        pre: How text is cut before merging: a key of `pre_tokenizers.PRE_TOKENIZERS`.
        source: The file, for errors.
        control_ids: Ids of special tokens.
        added_ids: Ids of tokens that text is searched for before it is cut.
        special_ids: Token id by role, see `Tokenizer.special_ids`.
        chat_template: Kept to be saved again.

    Raises:
        AssetError: `pre` is not supported or the tables contradict each other.
    """
    from tokenizers import AddedToken, decoders, models, normalizers
    from tokenizers import Tokenizer as Backend

    if pre not in PRE_TOKENIZERS:
        raise AssetError(
            f"{source}: pre-tokenizer {shown(pre)} is not supported. Supported: {', '.join(PRE_TOKENIZERS)}."
        )
    cut = PRE_TOKENIZERS[pre]
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise AssetError(f"{source}: the token table names {len(tokens) - len(vocab)} tokens twice.")
    pairs = [tuple(merge.split(" ")) for merge in merges]
    bad = next(
        (pair for pair in pairs if len(pair) != 2 or any(part not in vocab for part in (*pair, "".join(pair)))), None
    )
    if bad is not None:
        raise AssetError(f"{source}: the merge {shown(' '.join(bad))} is not made of two tokens of the token table.")
    wrong = [i for i in (*control_ids, *added_ids, *(special_ids or {}).values()) if not 0 <= i < len(tokens)]
    if wrong:
        raise AssetError(f"{source}: special token id {wrong[0]} is outside the token table of {len(tokens)} tokens.")
    with guarded(f"{source}: its tables make no tokenizer"):
        merged = [(pair[0], pair[1]) for pair in pairs]
        backend = Backend(models.BPE(vocab=vocab, merges=merged, ignore_merges=cut.whole))
    backend.pre_tokenizer = cut.build()
    if pre in COMPOSED:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(tokens[i], special=True, normalized=False) for i in control_ids])
    backend.add_tokens([AddedToken(tokens[i], special=False, normalized=False) for i in added_ids])
    return BPETokenizer(backend, special_ids, chat_template, source)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder (``tokenizer.json``, and ``tokenizer_config.json`` if there is one).

    Raises:
        AssetError: There is no tokenizer.json, a file cannot be read, or token ids are not what a file says.
    """
    from tokenizers import Tokenizer as Backend

    file = member(folder, _TOKENIZER)
    if file is None:
        raise AssetError(
            f"{folder} has no {_TOKENIZER}. Save the tokenizer in this format (transformers: "
            f"AutoTokenizer.from_pretrained(...).save_pretrained(folder)). {listing(folder)}"
        )
    text = read_text(file, AssetError)
    stated = parse_json(text, dict[str, Any], file, AssetError)
    with guarded(f"{file} cannot be read as a tokenizer. Copy it again from where it came"):
        backend = Backend.from_str(text)
    _check_ids(backend, stated, file)
    config = member(folder, _SETTINGS)
    settings = {} if config is None else read_json(config, dict[str, Any], AssetError)
    if _is_byte_tokenizer(backend):
        return ByteTokenizer()
    template = chat_templates(settings, folder).get(DEFAULT)
    older = member(folder, _SPECIAL)  # where old versions of transformers named special tokens
    named = settings if older is None else {**read_json(older, dict[str, Any], AssetError), **settings}
    return BPETokenizer(backend, special_ids(backend, named, folder / _SETTINGS), template, str(file))


def _check_ids(backend: tokenizers.Tokenizer, stated: Mapping[str, Any], file: Path) -> None:
    """Check that every token has an id of its own, and added tokens those that their file gives them.

    The library numbers added tokens anew, whatever the file says; a model was trained with what the file says.

    Raises:
        AssetError: There are no tokens, or an id is wrong; or the tokenizer cannot even be asked.
    """
    with guarded(f"{file} cannot be read as a tokenizer. Copy it again from where it came"):
        vocab = backend.get_vocab(with_added_tokens=True)
        added = [(token["content"], token["id"]) for token in stated.get("added_tokens") or []]
    if not vocab:
        raise AssetError(f"{file} has no tokens.")
    largest = max(vocab.values())
    if largest >= _MOST_IDS:
        raise AssetError(f"{file} has a token of id {largest}; ids must be below {_MOST_IDS}.")
    if len(set(vocab.values())) < len(vocab):
        raise AssetError(f"{file} gives {len(vocab) - len(set(vocab.values()))} ids to more than one token each.")
    for token, token_id in added:
        if vocab.get(token) != token_id:
            raise AssetError(
                f"{file} says that {shown(token)} has id {shown(token_id)}, which is not the next one; the library "
                f"would give it {vocab.get(token)}."
            )


def _is_byte_tokenizer(backend: tokenizers.Tokenizer) -> bool:
    """True for what `ByteTokenizer.save` wrote, so that a saved one comes back as itself, fingerprint included."""
    if backend.get_vocab_size(with_added_tokens=True) != 256:
        return False
    return BPETokenizer(backend).to_json() == _bytes_as_bpe().to_json()


def _bytes_as_bpe() -> BPETokenizer:
    """The byte-level BPE without merges that gives the same ids as `ByteTokenizer`."""
    alphabet = spelled()
    return byte_level_bpe([alphabet[byte] for byte in range(256)], [], pre="gpt-2", source="byte tokenizer")


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"Text has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}, which UTF-8 "
            "cannot hold. Read the file as UTF-8 with errors='replace', or remove the character."
        ) from error


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda part: part.write_text(text + "\n", encoding="utf-8"))
