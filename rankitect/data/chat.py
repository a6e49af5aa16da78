"""Conversations as text: by a model's chat template, or plainly where it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from rankitect.errors import DataError, safe, short

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["PLAIN", "ChatFormat", "Message", "PlainChat", "TemplateChat", "messages_of"]

_SPOKEN = {"human": "user", "gpt": "assistant"}
"""Roles as ShareGPT calls them, by which many data sets are written."""
_LARGEST = 10_000
"""Numbers in a chat template, and values that it counts through; templates count messages."""


@dataclass(frozen=True)
class Message:
    """What one side of a conversation said.

    Attributes:
        role: `system`, `user`, `assistant`, or another that the template knows.
        content: What it said.
    """

    role: str
    content: str


class ChatFormat(Protocol):
    """How a conversation becomes one text."""

    @property
    def markup(self) -> bool:
        """Whether special tokens in the text stand for themselves."""

    def render(self, messages: Sequence[Message], *, answer: bool = False) -> str:
        """The text of a conversation.

        Args:
            messages: What was said.
            answer: Whether the text ends where the assistant's next message begins.

        Raises:
            DataError: It cannot be rendered; says why, without its place.
        """


class PlainChat:
    """Each message as `role: content`, with a blank line between two.

    >>> PlainChat().render([Message("user", "Hi"), Message("assistant", "Hello!")])
    'user: Hi\\n\\nassistant: Hello!\\n'
    """

    markup = False

    def render(self, messages: Sequence[Message], *, answer: bool = False) -> str:
        """See `ChatFormat`."""
        text = "\n\n".join(f"{message.role}: {message.content}" for message in messages) + "\n"
        return f"{text}\nassistant:" if answer else text


PLAIN = PlainChat()


@dataclass(frozen=True)
class TemplateChat:
    """By a Jinja template, as `transformers.PreTrainedTokenizerBase.apply_chat_template` renders it.

    A template comes with a model and is not trusted: it runs in Jinja's sandbox, and sees no clock, so that a
    conversation always gives the same text (templates that would print today's date have another for this).

    Attributes:
        template: The template.
        tokens: The texts of `bos_token`, `eos_token`, … as templates name them.
        special: The texts of all special tokens. None may stand in a message, where it would end the message.
    """

    template: str
    tokens: Mapping[str, str]
    special: frozenset[str]
    markup = True

    def render(self, messages: Sequence[Message], *, answer: bool = False) -> str:
        """See `ChatFormat`."""
        for message in messages:
            held = next((token for token in self.special if token in message.content), None)
            if held is not None:
                raise DataError(f"a message holds {short(repr(held), 40)}, which would end it")
        given = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text: str = self._compiled.render(
                messages=given, tools=None, documents=None, add_generation_prompt=answer, **self.tokens
            )
        except Exception as error:  # a template raises whatever it likes
            said = short(safe(" ".join(str(error).split())), 160)
            raise DataError(f"the chat template cannot render it ({said or type(error).__name__})") from error
        return text

    @cached_property
    def _compiled(self) -> Template:
        return _environment().from_string(self.template)


def _environment() -> ImmutableSandboxedEnvironment:
    """Where templates run: with what `transformers` gives them, and without what could take memory or time on end."""
    import json

    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %} … {% endgeneration %}` around what the model says: a mark that adds nothing to the text."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)  # what is set inside is not known outside, as in transformers

    class Bounded(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if not all(isinstance(side, int) and abs(side) < _LARGEST for side in (left, right)) or operator == "**":
                raise TemplateError(f"{operator} is not allowed here")
            return super().call_binop(context, operator, left, right)

    def refuse(message: str) -> str:
        raise TemplateError(message)

    def bounded_range(*bounds: int) -> range:
        values = range(*bounds)
        if len(values) > _LARGEST:
            raise TemplateError(f"range of {len(values)} values")
        return values

    def as_json(value: Any, ensure_ascii: bool = False, indent: Any = None, **how: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **how)

    environment = Bounded(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = as_json
    environment.globals |= {"raise_exception": refuse, "range": bounded_range}
    return environment


def messages_of(value: object) -> list[Message]:
    """The messages of a JSON value: a list of `{"role": …, "content": …}`, or `{"from": …, "value": …}`.

    Raises:
        DataError: It is no such list; says why, without its place.
    """
    if not isinstance(value, list) or not value:
        raise DataError(f"expected text or a list of messages, found {_kind(value)}")
    return [_message(each, number) for number, each in enumerate(value, 1)]


def _message(value: object, number: int) -> Message:
    if not isinstance(value, dict):
        raise DataError(f"message {number}: expected an object with role and content, found {_kind(value)}")
    role, content = (value.get("role"), value.get("content")) if "role" in value else (None, None)
    if role is None and "from" in value:
        role, content = value["from"], value.get("value")
        role = _SPOKEN.get(role, role) if isinstance(role, str) else role
    if isinstance(content, list):  # in parts, of which some may be pictures
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        content = "".join(part for part in parts if part) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(role, str) or not role.strip():
        raise DataError(f"message {number}: expected a role, found {_kind(role)}")
    if not isinstance(content, str):
        raise DataError(f"message {number}: expected the content as text, found {_kind(content)}")
    return Message(role, content)


def _kind(value: object) -> str:
    return "null" if value is None else f"an empty {type(value).__name__}" if value == [] else type(value).__name__
