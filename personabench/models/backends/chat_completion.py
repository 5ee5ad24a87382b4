"""Chat completions: build the bodies of requests and parse replies.

An answer is worth more than the numbers beside it: usage, log-probabilities and names of another
type than usual are converted or dropped, and only a reply without a message is an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import zip_longest
from typing import Any, NoReturn

import msgspec

from personabench.errors import Refused, TransientError
from personabench.models.backends.event_stream import is_stream, join_events
from personabench.models.backends.likelihood import prompt_tokens
from personabench.models.backends.status import inner_status
from personabench.models.reply import parse_finish
from personabench.types import Request, Response, Usage

# Types of content parts, and the fields of a part that may hold its text.
_ANSWER_TYPES = ("text", "output_text", "refusal")
_TEXT_FIELDS = ("text", "refusal", "thinking", "reasoning", "summary", "content")

_BLOCKS = ("promptFeedback", "prompt_feedback", "prompt_filter_results")
"""Fields that say why there is no reply; Azure's is beside replies too."""
_BLOCKED = 403

_LONGEST_ENDING = 60
_LONGEST_NAME = 200

# Servers append dates and versions to a model's name.
_NAME_SUFFIX = re.compile(r"([-@:](\d{3,8}(-\d\d){0,2}|\d\d-\d\d(\d\d)?|latest))+$|\.gguf$")

UNLIKELY = -9999.0
"""The log-probability of a token for which a server reports none, as OpenAI writes it."""

Number = int | float | str | None
"""A count as servers write it."""


class _PromptDetails(msgspec.Struct):
    cached_tokens: Number = None
    cache_write_tokens: Number = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: Number = None


class ReportedUsage(msgspec.Struct):
    """The `usage` of a reply, in the fields of OpenAI, DeepSeek, Moonshot and Anthropic."""

    prompt_tokens: Number = None
    completion_tokens: Number = None
    total_tokens: Number = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: Number = None
    cached_tokens: Number = None
    input_tokens: Number = None
    output_tokens: Number = None
    cache_read_input_tokens: Number = None
    cache_creation_input_tokens: Number = None


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    # Of Ollama and of Anthropic's gateways.
    thinking: Any = None
    thinking_blocks: Any = None
    # Of OpenRouter.
    reasoning_details: Any = None


class _Logprobs(msgspec.Struct):
    content: list[dict[str, Any]] | None = None
    # Of the completions API, which has columns.
    tokens: list[str] | None = None
    token_logprobs: list[Any] | None = None
    top_logprobs: list[Any] | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    # Of the completions API.
    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    error: Any = None


class Completion(msgspec.Struct):
    """A chat completion, or the error that a server sent in place of one."""

    choices: list[_Choice | None] | msgspec.UnsetType | None = msgspec.UNSET
    error: Any = None
    usage: ReportedUsage | None = None
    model: str | None = None
    # Of any type, since they are no reason to lose an answer.
    system_fingerprint: Any = None
    provider: Any = None
    prompt_logprobs: list[Any] | None = None


_DETAILS = {
    "prompt_tokens_details": _PromptDetails | None,
    "completion_tokens_details": _CompletionDetails | None,
}
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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        reply = _decode_leniently(content, address, quote)

    read_text_choice(reply)
    choice = reply.choices[0] if reply.choices else None
    if choice is not None and choice.message is not None and _has_text(choice.message):
        return reply

    error = reply.error or (choice.error if choice is not None else None)
    if not error and not reply.choices:
        # Some servers put code and message of an error at the top, or why they blocked a prompt.
        body = _load(content)
        is_blocked = isinstance(body, dict) and any(map(body.get, _BLOCKS))
        status = _BLOCKED if is_blocked else inner_status(body)
    else:
        status = inner_status(error)
    if status is not None:
        raise_for_status(status)
    if error or reply.choices is msgspec.UNSET:
        reason = "an error" if error else "no choices"
        raise _shape_error(address, reason, quote(content.decode(errors="replace")))
    if choice is None or choice.message is None:
        excerpt = quote(content.decode(errors="replace"))
        raise TransientError(
            f"{address} sent a reply without a choice: {excerpt}", kind="no_choice"
        )
    return reply


def _has_text(message: _Message) -> bool:
    return bool(message.content or message.refusal)


def _decode_leniently(content: bytes, address: str, quote: Callable[[str], str]) -> Completion:
    """Decode a reply whose text is not quite JSON, or whose side values have odd types."""
    text = content.decode(errors="replace")
    reply = join_events(content) if is_stream(content) else _load(content)
    if reply is msgspec.UNSET and text.lstrip().startswith("<"):
        # A login page or another program's, which stays the same.
        raise _shape_error(address, "a page", quote(text))
    if reply is msgspec.UNSET:
        raise TransientError(
            f"{address} sent a reply that is not JSON: {quote(text)}", kind="malformed"
        )
    if not isinstance(reply, dict):
        raise _shape_error(address, f"a {type(reply).__name__}", quote(text))
    choices = reply.get("choices", msgspec.UNSET)
    if isinstance(choices, list):
        choices = [_read_choice(choice) for choice in choices[:1]]
    elif choices is not msgspec.UNSET:
        choices = None

    model = reply.get("model")
    return Completion(
        choices=choices,
        error=reply.get("error"),
        usage=_read_reported_usage(reply.get("usage")),
        model=model if isinstance(model, str) else None,
        system_fingerprint=reply.get("system_fingerprint"),
        provider=reply.get("provider"),
        prompt_logprobs=_convert_or_none(reply.get("prompt_logprobs"), list[Any]),
    )


def _load(content: bytes) -> Any:
    """Decode JSON as Python does: with NaN, lone surrogates and bad UTF-8; unset if it is none."""
    try:
        return json.loads(content.decode("utf-8-sig", errors="replace"))
    except (ValueError, RecursionError):
        return msgspec.UNSET


def _read_choice(choice: Any) -> _Choice | None:
    if not isinstance(choice, dict):
        return None
    finish = choice.get("finish_reason")
    # SGLang's own form.
    if isinstance(finish, dict):
        finish = finish.get("type")
    return _Choice(
        message=_read_message(choice.get("message")),
        text=_convert_or_none(choice.get("text"), str),
        finish_reason=None if finish is None else str(finish),
        logprobs=_convert_or_none(choice.get("logprobs"), _Logprobs),
        error=choice.get("error"),
    )


def _read_message(message: Any) -> _Message | None:
    if isinstance(message, str):
        return _Message(content=message)
    if not isinstance(message, dict):
        return None

    content = message.get("content")
    if isinstance(content, dict):
        content = [content]
    elif content is not None and not isinstance(content, str | list):
        content = str(content)
    refusal = message.get("refusal")
    return _Message(
        content=content,
        refusal=refusal if isinstance(refusal, str) else None,
        reasoning_content=message.get("reasoning_content"),
        reasoning=message.get("reasoning"),
        thinking=message.get("thinking"),
        thinking_blocks=message.get("thinking_blocks"),
        reasoning_details=message.get("reasoning_details"),
    )


def _read_reported_usage(usage: Any) -> ReportedUsage | None:
    if not isinstance(usage, dict):
        return None
    fields = {
        name: _convert_or_none(usage.get(name), _DETAILS.get(name, Number))
        for name in ReportedUsage.__struct_fields__
    }
    return ReportedUsage(**fields)


def _convert_or_none(value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return None


def read_text_choice(reply: Completion) -> None:
    """Turn the text of a reply of the completions API into a message."""
    choice = reply.choices[0] if reply.choices else None
    if choice is not None and choice.message is None and choice.text is not None:
        choice.message = _Message(content=choice.text)
        if choice.logprobs is not None and choice.logprobs.content is None:
            choice.logprobs.content = _list_tokens(choice.logprobs)


def _list_tokens(logprobs: _Logprobs) -> list[dict[str, Any]]:
    """Return the tokens of a completion, which come in columns, as those of a chat."""
    columns = zip_longest(
        logprobs.tokens or (), logprobs.token_logprobs or (), logprobs.top_logprobs or ()
    )
    tokens = []
    for token, logprob, alternatives in columns:
        pairs = alternatives.items() if isinstance(alternatives, dict) else ()
        listed = [{"token": name, "logprob": value} for name, value in pairs]
        tokens.append({"token": token or "", "logprob": logprob, "top_logprobs": listed})
    return tokens


def _shape_error(address: str, reason: str, excerpt: str) -> Refused:
    return Refused(
        f"{address} sent a reply that is not a completion ({reason}): {excerpt}; "
        "is --base-url right?",
        200,
    )


def build_response(reply: Completion, model: str = "", served: str = "") -> Response:
    """Build a response from a reply's first choice.

    Args:
        model: a differing name of the model that it reports.
        served: who answered (`describe_server`).
    """
    assert reply.choices and reply.choices[0] is not None
    choice = reply.choices[0]
    message = choice.message
    assert message is not None

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

    tokens = choice.logprobs.content if choice.logprobs else None
    logprobs = tuple(tokens or prompt_tokens(reply.prompt_logprobs))
    return Response(
        text=text,
        finish=finish,
        usage=_read_usage(reply.usage or ReportedUsage()),
        logprobs=tuple(map(_complete_token, logprobs)) if logprobs else (),
        model=model,
        thought=thought,
        ending=ending[:_LONGEST_ENDING],
        oddities=oddities,
        served=served,
    )


def _complete_token(token: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give a token and its alternatives a log-probability each, where a server has no number."""
    alternatives = token.get("top_logprobs")
    complete = dict(token)
    complete["logprob"] = _read_logprob(token.get("logprob"))
    if isinstance(alternatives, list):
        complete["top_logprobs"] = [
            {**alternative, "logprob": _read_logprob(alternative.get("logprob"))}
            for alternative in alternatives
            if isinstance(alternative, dict)
        ]
    elif "top_logprobs" in complete:
        complete["top_logprobs"] = []
    return complete


def _read_logprob(value: Any) -> float:
    try:
        logprob = float(value)
    except (TypeError, ValueError):
        return UNLIKELY
    # Infinite ones cannot be written as JSON.
    return logprob if math.isfinite(logprob) else UNLIKELY


def _read_usage(reported: ReportedUsage) -> Usage:
    if reported.prompt_tokens is None and reported.input_tokens is not None:
        return _read_anthropic_usage(reported)

    input_tokens = _read_number(reported.prompt_tokens)
    output_tokens = _read_number(reported.completion_tokens)
    reasoning_tokens = 0
    if reported.completion_tokens_details is not None:
        reasoning_tokens = _read_number(reported.completion_tokens_details.reasoning_tokens)

    # xAI and Gemini count thoughts in the total alone, although they are paid like the answer.
    unlisted_tokens = _read_number(reported.total_tokens) - input_tokens - output_tokens
    if unlisted_tokens > 0 and input_tokens > 0 and output_tokens >= 0:
        output_tokens += unlisted_tokens
        reasoning_tokens = max(reasoning_tokens, unlisted_tokens)

    details = reported.prompt_tokens_details or _PromptDetails()
    cached_tokens = _first_count(
        details.cached_tokens,
        reported.prompt_cache_hit_tokens,
        reported.cached_tokens,
        reported.cache_read_input_tokens,
    )
    written_tokens = _first_count(details.cache_write_tokens, reported.cache_creation_input_tokens)
    return Usage(
        input_tokens,
        output_tokens,
        cached_tokens,
        reasoning_tokens if reasoning_tokens > 0 else msgspec.UNSET,
        written_tokens or msgspec.UNSET,
    )


def _read_anthropic_usage(reported: ReportedUsage) -> Usage:
    # The input does not include what was read from the cache or written to it.
    cached_tokens = _first_count(reported.cache_read_input_tokens)
    written_tokens = _first_count(reported.cache_creation_input_tokens)
    return Usage(
        _read_number(reported.input_tokens) + cached_tokens + written_tokens,
        _read_number(reported.output_tokens),
        cached_tokens,
        cache_write_tokens=written_tokens or msgspec.UNSET,
    )


def _first_count(*values: Number) -> int:
    """Return the first count above 0; 0 without any."""
    for value in values:
        if value:
            count = _read_number(value)
            if count > 0:
                return count
    return 0


def _split_message(message: _Message) -> tuple[str, str]:
    """Return answer and thought of a message, by its fields and the types of its parts."""
    thoughts = []
    fields = (
        message.reasoning_content,
        message.reasoning,
        message.thinking,
        message.thinking_blocks,
        message.reasoning_details,
    )
    for field in filter(None, fields):
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


def describe_server(requested: str, reply: Completion) -> str:
    """Return who answered, in the server's words; "" if it names only the requested model."""
    fingerprint = reply.system_fingerprint
    provider = reply.provider
    return _describe_server(
        requested,
        reply.model or "",
        fingerprint if isinstance(fingerprint, str) else "",
        provider if isinstance(provider, str) else "",
    )


# Both are cached because they are called for every reply, with the same few names.
@lru_cache(maxsize=256)
def _describe_server(requested: str, reported: str, fingerprint: str, provider: str) -> str:
    parts = []
    if reported and reported != requested:
        parts.append(reported)
    if fingerprint:
        parts.append(f"({fingerprint})")
    if provider:
        parts.append(f"via {provider}")
    return " ".join(parts)[:_LONGEST_NAME]


@lru_cache(maxsize=256)
def other_model(requested: str, reported: str | None) -> str:
    """Return the model named in a reply if it is not the requested one, else "".

    Servers may add dates, owners and folders to a name, or leave them out, and they leave out what
    only chooses among offers of a model, such as `:free`.
    """
    if not reported:
        return ""
    name = _core_name(requested)
    if _core_name(reported) in (name, name.partition(":")[0]):
        return ""
    return reported


def _core_name(model: str) -> str:
    name = re.split(r"[/\\]", model.lower().strip("/\\ "))[-1]
    return _NAME_SUFFIX.sub("", name)
