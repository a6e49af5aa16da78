"""How a pretrained model is used, beside its weights and sizes: what a candidate made from it must not lose.

The files are those of `transformers`: generation_config.json (begin and stop tokens, sampling defaults),
tokenizer_config.json (the longest input, special tokens), special_tokens_map.json, added_tokens.json, and chat
templates in files of their own, as transformers 5 writes them, as well as in tokenizer_config.json, where older
versions look.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankitect.data.chat_templates import DEFAULT, TEMPLATE, TEMPLATES, chat_templates
from rankitect.data.files import write_whole
from rankitect.data.members import member
from rankitect.data.special_tokens import SPECIAL_ROLES
from rankitect.data.tokenizer import Tokenizer
from rankitect.documents import read_json
from rankitect.errors import AssetError, short, shown

__all__ = [
    "ABOUT",
    "GENERATION",
    "SETTINGS",
    "SPECIAL",
    "TOKENIZER",
    "Usage",
    "checked_ids",
    "checked_settings",
    "read_object",
]

GENERATION, SETTINGS, TOKENIZER = "generation_config.json", "tokenizer_config.json", "tokenizer.json"
SPECIAL = "special_tokens_map.json"
ABOUT = "backbone"
"""Folder of what describes the pretrained model itself: its README, licence and original configuration."""
_AGAIN = "Copy it again from where it came."


@dataclass(frozen=True)
class Usage:
    """How a pretrained model is used.

    Attributes:
        generation: Content of generation_config.json: ids of begin and stop tokens, sampling defaults.
        settings: Content of tokenizer_config.json, without chat templates.
        templates: Chat templates (Jinja) by name; "default" is the one that is used where none is asked for.
        files: Other files of the tokenizer as they are, by name.
        about: Files that describe the pretrained model, by name.
        dropped: What of the pretrained model's folder is left out, each with the reason.
    """

    generation: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    templates: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    about: Mapping[str, bytes] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()

    @property
    def chat_template(self) -> str | None:
        """The chat template that is used where none is asked for."""
        return self.templates.get(DEFAULT)

    @property
    def begin_id(self) -> int | None:
        """The token that a text begins with, where the model wants one."""
        ids = as_ids(self.generation.get("bos_token_id"))
        return ids[0] if ids else None

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return as_ids(self.generation.get("eos_token_id"))

    def first_token(self, tokenizer: Tokenizer) -> int | None:
        """The token that sequences begin with as the model was trained, which its tokenizer's files say; or None."""
        stated = self.settings.get("add_bos_token")
        wanted = tokenizer.begin_id is not None if stated is None else stated
        return tokenizer.special_ids.get("bos") if wanted else None

    def completed(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """`generation`, with ids that only the tokenizer knows."""
        known = {f"{role}_token_id": tokenizer.special_ids.get(role) for role in ("bos", "eos", "pad")}
        return {**{key: value for key, value in known.items() if value is not None}, **self.generation}

    def save(self, folder: Path, tokenizer: Tokenizer) -> list[str]:
        """Write the tokenizer and everything else into an existing folder, each file whole or not at all.

        Returns:
            The names of the files.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        tokenizer.save(folder)
        written = read_object(folder, SETTINGS)
        settings = {**written, **self.settings}
        templates = self.templates or chat_templates(settings)
        contents: dict[str, str | bytes] = {GENERATION: _json(self.completed(tokenizer)), **self.files}
        if templates:
            settings["chat_template"] = _in_settings(templates)
            contents |= {(TEMPLATE if n == DEFAULT else f"{TEMPLATES}/{n}.jinja"): t for n, t in templates.items()}
        contents[SETTINGS] = _json(settings)
        roles = {key: settings[key] for key in (f"{role}_token" for role in SPECIAL_ROLES) if settings.get(key)}
        contents = {SPECIAL: _json(roles), **contents} if roles else contents
        if TOKENIZER not in contents and (settings.get("add_bos_token") or settings.get("add_eos_token")):
            contents[TOKENIZER] = _adding(read_object(folder, TOKENIZER), settings)
        contents |= {f"{ABOUT}/{name}": content for name, content in self.about.items()}
        for name, content in contents.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_whole(folder / name, content)
        return sorted({TOKENIZER, *contents})

    @classmethod
    def load(cls, folder: Path, tokenizer: Tokenizer, vocab: int) -> Usage:
        """What `save` wrote. Folders of older versions have less.

        Args:
            folder: Of the candidate.
            tokenizer: Of the candidate.
            vocab: Tokens that the model knows.

        Raises:
            AssetError: A file cannot be read, or names a token that there is not.
        """
        settings = checked_settings(read_object(folder, SETTINGS), tokenizer, folder / SETTINGS)
        templates = chat_templates(settings, folder)
        generation = checked_ids(read_object(folder, GENERATION), vocab, folder / GENERATION)
        settings = {key: value for key, value in settings.items() if key != "chat_template"}
        usage = cls(generation, settings, templates)
        return cls(usage.completed(tokenizer), settings, templates)


def as_ids(value: object) -> tuple[int, ...]:
    """Token ids, of which there may be none, one or several."""
    ids: tuple[Any, ...] = tuple(value) if isinstance(value, list | tuple) else () if value is None else (value,)
    return ids


def checked_ids(settings: Mapping[str, Any], vocab: int, file: Path) -> dict[str, Any]:
    """Settings whose ids of begin, stop and padding tokens are ids of tokens; -1, which stands for none, is left out.

    Raises:
        AssetError: An id is of another type, or there is no such token.
    """
    checked = dict(settings)
    for role in ("bos", "eos", "pad"):
        key = f"{role}_token_id"
        ids = as_ids(checked.get(key))
        for number in ids:
            if not isinstance(number, int) or isinstance(number, bool) or not -1 <= number < vocab:
                raise AssetError(
                    f"{file}: {key} is {short(repr(number), 40)}; a whole number from 0 to {vocab - 1} is needed."
                )
        if -1 in ids or not ids:
            checked.pop(key, None)
    return checked


def checked_settings(settings: Mapping[str, Any], tokenizer: Tokenizer, where: Path) -> dict[str, Any]:
    """Settings that say in a way that is understood whether texts begin and end with a token, which there is.

    Args:
        settings: Content of tokenizer_config.json, or what another file says instead.
        tokenizer: Read from the same place.
        where: The file, for errors.

    Raises:
        AssetError: They do not, and sequences would begin otherwise than those that the model was trained on.
    """
    for role in ("bos", "eos"):
        stated = settings.get(f"add_{role}_token")
        if stated is not None and not isinstance(stated, bool):
            raise AssetError(f"{where}: add_{role}_token is {shown(stated)}; it must be true or false.")
    if settings.get("add_bos_token") and "bos" not in tokenizer.special_ids:
        stated = settings.get("bos_token")
        token = stated.get("content") if isinstance(stated, dict) else stated
        is_what = (
            "no bos_token is stated" if token is None else f"bos_token, {shown(token)}, is no token of the tokenizer"
        )
        raise AssetError(f"{where}: add_bos_token is true, but {is_what}.")
    return dict(settings)


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of a folder; empty where there is no such file.

    Raises:
        AssetError: It cannot be read, is a link out of the folder, or holds something else.
    """
    file = member(folder, name)
    return {} if file is None else read_json(file, dict[str, Any], AssetError, advice=_AGAIN)


def _in_settings(templates: Mapping[str, str]) -> str | list[dict[str, str]]:
    """Chat templates as tokenizer_config.json holds them."""
    if set(templates) == {DEFAULT}:
        return templates[DEFAULT]
    return [{"name": name, "template": template} for name, template in templates.items()]


def _adding(tokenizer: dict[str, Any], settings: Mapping[str, Any]) -> str:
    """tokenizer.json whose post-processor puts the begin and the stop token around a text, for whoever asks for it."""
    around = {}
    for role, where in (("bos", "add_bos_token"), ("eos", "add_eos_token")):
        token = settings.get(f"{role}_token")
        ids = {one["content"]: one["id"] for one in tokenizer.get("added_tokens", [])}
        ids = {**tokenizer.get("model", {}).get("vocab", {}), **ids}
        if settings.get(where) and isinstance(token, str) and token in ids:
            around[role] = {"id": token, "ids": [ids[token]], "tokens": [token]}

    def template(*names: str) -> list[dict[str, Any]]:
        pieces: list[dict[str, Any]] = []
        for number, name in enumerate(names):
            begin, end = (
                [{"SpecialToken": {"id": around[role]["id"], "type_id": number}}] if role in around else []
                for role in ("bos", "eos")
            )
            pieces += [*begin, {"Sequence": {"id": name, "type_id": number}}, *end]
        return pieces

    if around:
        special = {token["id"]: token for token in around.values()}
        tokenizer["post_processor"] = {
            "type": "TemplateProcessing",
            "single": template("A"),
            "pair": template("A", "B"),
            "special_tokens": special,
        }
    return json.dumps(tokenizer, indent=1, ensure_ascii=False) + "\n"


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
