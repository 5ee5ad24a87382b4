"""Dialects: how a request is put to a server that does not take a plain chat completion.

A dialect is learnt once (`probe.py`) and then applied to every request.  It changes only the
requests that need it, and those are another call in the response cache: `marks` says in which way.
Fields that belong to the sampling of a run are never in a dialect, since only the user may drop
them (`--omit-params`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from personabench.models.backends import reasoning
from personabench.models.backends.chat_completion import chat_body
from personabench.types import Message, Request, to_json

SAMPLING = ("temperature", "top_p", "seed")
"""Sampling fields that every server is sent."""
LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")
"""The name of the token limit for most models, and for OpenAI's reasoning models."""
SCHEMAS = ("json_schema", "json_object", "prompt")
"""Ways to request a JSON reply, best first."""

RESERVED = {
    "model": " (--model)",
    "messages": "",
    "prompt": "",
    "n": "",
    "tools": "",
    "tool_choice": "",
    "response_format": "",
    "logprobs": "",
    "top_logprobs": "",
    "max_tokens": " (--max-tokens)",
    "max_completion_tokens": " (--max-tokens)",
    "temperature": " (--temperature)",
    "top_p": " (--top-p)",
    "seed": " (--seed)",
}
"""Fields that `--extra` cannot set, with the option that sets them."""

_OPENING = "(The conversation starts with the assistant.)"
_SCHEMA = "Reply with one JSON object and no other text. The object must follow this JSON schema:\n"
_LABELS = {"system": "", "user": "User: ", "assistant": "Assistant: "}


class Dialect(msgspec.Struct, frozen=True, omit_defaults=True):
    """The form of request that a server accepts in place of a plain chat completion.

    Attributes:
        api: "chat", or "completions" for a base model without a chat template.
        system: the role of a system message; "user" puts it at the start of the first user turn.
        merges_turns: neighbouring turns of one role become one, and the first turn is a user's.
        schema: how a JSON reply is requested, one of `SCHEMAS`.
        limit_field: the server's name of the token limit.
        streams: replies come in pieces.
        most_tokens: tokens of a reply at most, of which a thought gets half; None if not learnt.
        reasoning: the form of `--reasoning`, if not the first one for this server.
    """

    api: Literal["chat", "completions"] = "chat"
    system: Literal["system", "developer", "user"] = "system"
    merges_turns: bool = False
    schema: str = SCHEMAS[0]
    limit_field: str = LIMIT_FIELDS[0]
    streams: bool = False
    most_tokens: int | None = None
    reasoning: str = ""

    def marks(self, request: Request | None = None) -> str:
        """Name the changes to a request, or all that this dialect makes; "" for none.

        The name and the highest value of the token limit and a stream are no change: the request
        means the same.
        """
        has_system = request is None or _has_system(request)
        is_irregular = request is None or _is_irregular(request.messages)
        has_schema = request is None or request.schema is not None

        marks = []
        if self.api == "completions":
            marks.append("plain completions")
        elif self.system == "user" and has_system:
            marks.append("system message in the user turn")
        elif self.system == "developer" and has_system:
            marks.append("developer role")
        if self.api == "chat" and self.merges_turns and is_irregular:
            marks.append("merged turns")
        if self.schema != SCHEMAS[0] and has_schema:
            marks.append(f"schema by {self.schema}")
        if self.reasoning:
            marks.append(f"reasoning by {self.reasoning}")
        return ", ".join(marks)

    def describe(self) -> str:
        """Describe the dialect on one line."""
        parts = [self.marks() or "plain chat completions"]
        if self.limit_field != LIMIT_FIELDS[0]:
            parts.append(f"token limit in {self.limit_field}")
        if self.streams:
            parts.append("streamed replies")
        if self.most_tokens is not None:
            parts.append(f"replies of at most {self.most_tokens} tokens")
        return ", ".join(parts)


PLAIN = Dialect()


class RequestWriter:
    """Writes the bodies of requests in a dialect.

    Args:
        neutral: sampling fields that only this kind of server knows.
        omit: fields that are not sent; extra: further fields.
        temperature: of every request, in place of its own.
        forms: the ways to say `--reasoning` to this server.

    Attributes:
        allowance: tokens that a thought may take, beside those for the answer.
        dialect: the server's dialect, on which the API's `path` depends.
        trial: fields that a probe sets (None: leaves out) until the user decides about them.
    """

    def __init__(
        self,
        neutral: Mapping[str, Any],
        *,
        omit: Sequence[str] = (),
        extra: Mapping[str, Any] | None = None,
        temperature: float | None = None,
        forms: Sequence[reasoning.Form] = (),
    ) -> None:
        self.forms = forms
        self.trial: dict[str, Any] = {}
        self._neutral = neutral
        self._omit = omit
        self._extra = extra or {}
        self._temperature = temperature
        self.adopt(PLAIN)

    def adopt(self, dialect: Dialect) -> None:
        """Write further bodies in another dialect."""
        self.dialect = dialect
        # Other names of fields need no rewriting, which costs time in every call.
        plain = Dialect(
            limit_field=dialect.limit_field,
            streams=dialect.streams,
            most_tokens=dialect.most_tokens,
            reasoning=dialect.reasoning,
        )
        self._rewrites = dialect != plain
        self.path = "/completions" if dialect.api == "completions" else "/chat/completions"
        self._streams = dialect.streams or self._extra.get("stream") is True
        form = reasoning.find_form(self.forms, dialect.reasoning)
        self._reasoning = form.fields if form is not None else {}
        self.allowance = form.allowance if form is not None else 0

    def write(self, model: str, request: Request) -> dict[str, Any]:
        """Write the body of a request."""
        dialect = self.dialect
        body = chat_body(model, request, dialect.limit_field, self._neutral)
        if self._temperature is not None:
            body["temperature"] = self._temperature
        for name in self._omit:
            body.pop(name, None)
        if self._reasoning or self._extra:
            _add_fields(body, self._reasoning)
            _add_fields(body, self._extra)
        if self._rewrites:
            _apply(dialect, body, request)
        if self._streams:
            body["stream"] = True
            body.setdefault("stream_options", {"include_usage": True})
        if self.trial:
            _add_fields(body, self.trial)
        return body


def _add_fields(body: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """Set fields; objects are joined, so that a template's options may come from two sides."""
    for name, value in fields.items():
        present = body.get(name)
        if value is None:
            body.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(present, Mapping):
            body[name] = {**present, **value}
        else:
            body[name] = value


def _apply(dialect: Dialect, body: dict[str, Any], request: Request) -> None:
    """Rewrite a plain body in a dialect."""
    messages = request.messages
    if request.schema is not None and dialect.schema != SCHEMAS[0]:
        messages = _with_schema(messages, request.schema)
        if dialect.schema == "json_object":
            body["response_format"] = {"type": "json_object"}
        else:
            del body["response_format"]

    if dialect.api == "completions":
        del body["messages"]
        body.pop("chat_template_kwargs", None)
        body.update(plain_prompt(messages))
        if request.logprobs:
            # The completions API has one field for both.
            body["logprobs"] = body.pop("top_logprobs")
        return

    turns = [(message.role, message.content) for message in messages]
    adapted = adapt_turns(turns, dialect)
    body["messages"] = [{"role": role, "content": content} for role, content in adapted]


def adapt_turns(turns: Sequence[tuple[str, str]], dialect: Dialect) -> list[tuple[str, str]]:
    """Return the turns (role, content) of a conversation as a dialect has them."""
    adapted = list(turns)
    if dialect.system == "developer":
        adapted = [
            ("developer" if role == "system" else role, content) for role, content in adapted
        ]
    elif dialect.system == "user":
        adapted = _fold_system(adapted)
    if dialect.merges_turns:
        adapted = _merge(adapted)
    return adapted


def _fold_system(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Put the system messages at the start into the first user turn; later ones become turns."""
    count = 0
    while count < len(turns) and turns[count][0] == "system":
        count += 1

    instructions = [content for _, content in turns[:count]]
    rest = [("user" if role == "system" else role, content) for role, content in turns[count:]]
    if not instructions:
        return rest
    if rest and rest[0][0] == "user":
        instructions.append(rest.pop(0)[1])
    return [("user", "\n\n".join(instructions)), *rest]


def _merge(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join neighbouring turns of one role; all but the first system messages become the user's."""
    merged: list[tuple[str, str]] = []
    for role, content in turns:
        # Templates that want alternation allow a system message at the start only.
        if role == "system" and merged and merged[-1][0] != "system":
            role = "user"
        if role == "assistant" and (not merged or merged[-1][0] in ("system", "developer")):
            merged.append(("user", _OPENING))
        if merged and merged[-1][0] == role:
            content = f"{merged.pop()[1]}\n\n{content}"
        merged.append((role, content))
    return merged


def _with_schema(messages: Sequence[Message], schema: Mapping[str, Any]) -> tuple[Message, ...]:
    """Return messages whose last one requests a reply that follows a schema."""
    *before, last = messages
    content = f"{last.content}\n\n{_SCHEMA}{to_json(dict(schema))}"
    return (*before, Message(last.role, content))


def plain_prompt(messages: Sequence[Message]) -> dict[str, Any]:
    """Return the fields of a completion request: messages as the text that a base model continues.

    One user turn is sent as it is, after the system message.  Only a conversation needs labels, and
    ends at the next one.
    """
    turns = [message for message in messages if message.role != "system"]
    if len(turns) < 2:
        return {"prompt": "\n\n".join(message.content for message in messages)}

    parts = [_LABELS[message.role] + message.content for message in messages]
    if turns[-1].role != "assistant":
        parts.append(_LABELS["assistant"].strip())
    return {"prompt": "\n\n".join(parts), "stop": ["\nUser:"]}


def _has_system(request: Request) -> bool:
    return any(message.role == "system" for message in request.messages)


def _is_irregular(messages: Sequence[Message]) -> bool:
    """Whether a conversation is changed by merging."""
    turns = [(message.role, message.content) for message in messages]
    return _merge(turns) != turns


def unfenced(text: str) -> str:
    """Return the JSON object in a reply that was requested by the prompt alone.

    Models put a fence or a sentence around it, which a schema prevents elsewhere.
    """
    start = text.find("{")
    end = text.rfind("}")
    if start < 0 or end < start:
        return text
    candidate = text[start : end + 1]
    try:
        msgspec.json.decode(candidate)
    except msgspec.DecodeError:
        return text
    return candidate
