"""Which tokens of a tokenizer have a role, as the files of a model name them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.data.guard import guarded
from rankitect.errors import AssetError, shown

if TYPE_CHECKING:
    import tokenizers

__all__ = ["SPECIAL_ROLES", "special_ids"]

SPECIAL_ROLES = ("bos", "eos", "unk", "pad")
"""The special tokens that a model's files may name."""

_log = logging.getLogger("rankitect")


def special_ids(backend: tokenizers.Tokenizer, settings: Mapping[str, Any], file: Path) -> dict[str, int]:
    """The ids of the special tokens that settings name, by role. The log says what is left out.

    Args:
        backend: The tokenizer.
        settings: Content of tokenizer_config.json.
        file: Where it lies, for messages.

    Raises:
        AssetError: A token is neither a text nor a mapping with a text, or the tokenizer cannot be asked.
    """
    special: dict[str, int] = {}
    for role in SPECIAL_ROLES:
        given = settings.get(f"{role}_token")
        if given is None:
            continue
        token = given.get("content") if isinstance(given, dict) else given
        if not isinstance(token, str):
            raise AssetError(f"{file}: {role}_token is {shown(given)}; it must be a token, or null.")
        number = backend.token_to_id(token)
        if number is not None:
            special[role] = number
        else:
            _log.warning("%s: %s_token is %s, which is no token of the tokenizer: left out.", file, role, shown(token))
    with guarded(f"{file.parent}: its tokenizer cannot encode a text"):
        around = backend.encode("", add_special_tokens=True)
    if around.ids and not {*around.ids} <= {*special.values()}:
        tokens = ", ".join(shown(token, 40) for token in around.tokens[:4])
        _log.warning("%s: the tokenizer puts %s around a text, whose role is not stated: left out.", file, tokens)
    return special
