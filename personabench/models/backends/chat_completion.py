"""Chat completions: build requests, parse replies, and keep secrets out of both.

A key or header value is removed from everything a server sends, in error messages and in answers,
so that it appears in no file: as a whole, by its words, and in the half-masked form (`sk-ab***yz`)
in which servers like to quote it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, NoReturn

import msgspec

from personabench.errors import Refused, TransientError
from personabench.models.backends.likelihood import prompt_tokens
from personabench.models.reply import parse_finish
from personabench.types import Request, Response, Usage

# Types of content parts, and the fields of a part that may hold its text.
_ANSWER_TYPES = ("text", "output_text", "refusal")
_TEXT_FIELDS = ("text", "refusal", "thinking", "reasoning", "summary", "content")

_LONGEST_ENDING = 60
# Shorter values are too common in ordinary text to be removed from it.
_SHORTEST_SECRET = 4
_SHORTEST_WORD = 8
_MASKED = re.compile(r"[^\s'\"]*\*{3,}[^\s'\"]*")

# Error types that some servers send inside a reply of status 200.
_STATUS = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "overloaded_error": 529,
    "server_error": 500,
    "internal_server_error": 500,
    "api_error": 500,
}

# Servers append dates and versions to a model's name.
_NAME_SUFFIX = re.compile(r"([-@:](\d{3,8}(-\d\d){0,2}|\d\d-\d\d(\d\d)?|latest))+$|\.gguf$")

Number = int | float | str | None
"""A count as servers write it."""


class _PromptDetails(msgspec.Struct):
    cached_tokens: Number = 0


class ReportedUsage(msgspec.Struct):
    """The `usage` of a reply."""

    prompt_tokens: Number = 0
    completion_tokens: Number = 0
    prompt_tokens_details: _PromptDetails | None = None


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None


class _Logprobs(msgspec.Struct):
    content: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    # Of the completions API.
    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class Completion(msgspec.Struct):
    """A chat completion, or the error that a server sent in place of one."""

    choices: list[_Choice] | msgspec.UnsetType | None = msgspec.UNSET
    error: Any = None
    usage: ReportedUsage | None = None
    model: str | None = None
    prompt_logprobs: list[Any] | None = None


_decode = msgspec.json.Decoder(Completion).decode


def chat_body(
    model: str, request: Request, limit_field: str, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Build the body of a request.

    Args:
        limit_field: the server's name of the token limit.
        extra: sampling fields that only some servers know.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": request.messages,
        limit_field: request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        **extra,
        # Repeats of a request at a temperature above 0 need seeds of their own.
        "seed": request.seed + request.repeat,
    }
    if request.schema is not None:
        schema = {"name": "reply", "schema": request.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.logprobs:
        body["logprobs"] = True
        body["top_logprobs"] = request.logprobs
    return body


def parse_completion(
    content: bytes,
    address: str,
    quote: Callable[[str], str],
    raise_for_status: Callable[[int], NoReturn],
) -> Completion:
    """Parse a completion with at least one choice.

    Args:
        address: the server, for messages.
        quote: shortens a server's text for messages and removes secrets.
        raise_for_status: raises the error that a status means, for errors inside a reply of status
            200.

    Raises:
        TransientError: it is not JSON, or has no choice.
        Refused: it is JSON of another shape.
    """
    try:
        reply = _decode(content)
    except msgspec.ValidationError as error:
        excerpt = quote(content.decode(errors="replace"))
        raise _shape_error(address, str(error), excerpt) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        excerpt = quote(content.decode(errors="replace"))
        raise TransientError(
            f"{address} sent a reply that is not JSON: {excerpt}", kind="malformed"
        ) from error

    reply = read_text_choice(reply)
    if reply.choices and reply.choices[0].message is not None:
        return reply

    status = _error_status(reply.error)
    if status is not None:
        raise_for_status(status)
    if reply.choices is msgspec.UNSET or reply.error:
        reason = "an error" if reply.error else "no choices"
        raise _shape_error(address, reason, quote(content.decode(errors="replace")))
    raise TransientError(f"{address} sent a reply without a choice", kind="no_choice")


def read_text_choice(reply: Completion) -> Completion:
    """Turn the text of a reply of the completions API into a message."""
    if reply.choices and reply.choices[0].text is not None:
        choice = reply.choices[0]
        choice.message = choice.message or _Message(content=choice.text)
    return reply


def _shape_error(address: str, reason: str, excerpt: str) -> Refused:
    return Refused(
        f"{address} sent JSON that is not a completion ({reason}): {excerpt}; is --base-url right?",
        200,
    )


def _error_status(error: Any) -> int | None:
    """Return the HTTP status that corresponds to an error inside a reply, or None."""
    if not isinstance(error, dict):
        return None
    for field in ("code", "status", "type"):
        code = error.get(field)
        if isinstance(code, str):
            code = int(code) if code.isdecimal() else _STATUS.get(code.lower())
        if isinstance(code, int) and 400 <= code < 600:
            return code
    return None


def build_response(reply: Completion, model: str = "") -> Response:
    """Build a response from a reply's first choice; `model` is a differing name it reports."""
    assert reply.choices and reply.choices[0].message is not None
    choice = reply.choices[0]
    message = reply.choices[0].message

    text, thought = _split_message(message)
    finish = parse_finish(choice.finish_reason)
    ending = choice.finish_reason or ""
    oddities: tuple[str, ...] = ()

    if not text.strip():
        if message.refusal:
            text = message.refusal
            finish = "refused"
            ending = "refusal"
        elif thought.strip() and finish == "stop":
            # Servers with a wrong reasoning parser put the answer of a complete reply into the
            # field for thoughts.
            text, thought = thought, ""
            oddities = ("answer_in_reasoning",)

    if finish not in ("refused", "interrupted"):
        ending = ""

    logprobs = choice.logprobs.content if choice.logprobs else None
    return Response(
        text=text,
        finish=finish,
        usage=_read_usage(reply.usage or ReportedUsage()),
        logprobs=tuple(logprobs or prompt_tokens(reply.prompt_logprobs)),
        model=model,
        thought=thought,
        ending=ending[:_LONGEST_ENDING],
        oddities=oddities,
    )


def _read_usage(reported: ReportedUsage) -> Usage:
    cached_tokens = 0
    if reported.prompt_tokens_details is not None:
        cached_tokens = _read_number(reported.prompt_tokens_details.cached_tokens)
    return Usage(
        _read_number(reported.prompt_tokens),
        _read_number(reported.completion_tokens),
        max(cached_tokens, 0),
    )


def _split_message(message: _Message) -> tuple[str, str]:
    """Return answer and thought of a message, by its fields and the types of its parts."""
    thoughts = []
    for field in (message.reasoning_content, message.reasoning):
        thought = "".join(_iter_texts(field))
        if thought:
            thoughts.append(thought)

    if not isinstance(message.content, list):
        # Servers that renamed the field send the same thought in both.
        return message.content or "", thoughts[0] if thoughts else ""

    answers: list[str] = []
    for part in message.content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        texts = answers if kind in _ANSWER_TYPES else thoughts
        texts.extend(_iter_texts(part))
    return "".join(answers), "".join(dict.fromkeys(thoughts))


def _iter_texts(part: Any) -> Iterator[str]:
    """Yield the texts in a part of a message, or in a list of parts."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, list):
        for item in part:
            yield from _iter_texts(item)
    elif isinstance(part, dict):
        for name in _TEXT_FIELDS:
            yield from _iter_texts(part.get(name))


def _read_number(value: Number) -> int:
    """Read a count; 0 if it is not a number."""
    try:
        return int(float(value or 0))
    except (ValueError, OverflowError):
        return 0


# Cached because it is called for every reply, with the same few names.
@lru_cache(maxsize=256)
def other_model(requested: str, reported: str | None) -> str:
    """Return the model named in a reply if it is not the requested one, else "".

    Servers may add dates, owners and folders to a name, or leave them out.
    """
    if not reported or _core_name(reported) == _core_name(requested):
        return ""
    return reported


def _core_name(model: str) -> str:
    name = model.lower().rsplit("/", 1)[-1]
    return _NAME_SUFFIX.sub("", name)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read a Retry-After header (seconds or a date); None if it is missing or unreadable."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def error_kind(status: int) -> str:
    """Return the kind of a transient error, under which its retries are counted."""
    return "5xx" if status >= 500 else "4xx"


def describe_redirect(
    address: str, status: int, headers: Mapping[str, str], secrets: Secrets
) -> str:
    """Describe a redirect, which is not followed: key and prompts would go to another server."""
    target = secrets.quote(headers.get("location", ""))
    return (
        f"{address} answered {status}, a redirect to {target}, which is not followed; "
        "set --base-url to the right address"
    )


class Secrets:
    """Values that must not be repeated.

    Args:
        values: keys and header values; those of fewer than four characters are too common to
            remove.
    """

    def __init__(self, values: Iterable[str]) -> None:
        secrets = {value for value in values if len(value) >= _SHORTEST_SECRET}
        # Longest first, so that a secret that contains another is removed as a whole.
        self._whole = sorted(secrets, key=len, reverse=True)
        self._long = [value for value in self._whole if len(value) >= _SHORTEST_WORD]

        # Servers quote parts of a header, such as the key after "Bearer".
        words = {
            word
            for value in self._whole
            for word in re.split(r"[\s;,=]+", value)
            if len(word) >= _SHORTEST_WORD
        }
        self._whole_and_words = sorted(secrets | words, key=len, reverse=True)

    def strike(self, message: object) -> str:
        """Remove the secrets, their words, and anything that looks half-masked from a message."""
        text = _MASKED.sub("***", str(message))
        for secret in self._whole_and_words:
            text = text.replace(secret, "***")
        return text

    def quote(self, text: str) -> str:
        """Return the start of a server's text, on one line and without secrets."""
        excerpt = self.strike(text)[:300]
        return excerpt.replace("\n", " ") or "(nothing)"

    def clean(self, answer: Response) -> Response:
        """Remove the long secrets from a model's answer; returns the same object if it has none."""
        # Only the long ones: a short header value may be an ordinary word of an answer.
        for secret in self._long:
            if secret in answer.text or secret in answer.thought or secret in answer.model:
                answer = msgspec.structs.replace(
                    answer,
                    text=answer.text.replace(secret, "***"),
                    thought=answer.thought.replace(secret, "***"),
                    model=answer.model.replace(secret, "***"),
                )
        return answer
