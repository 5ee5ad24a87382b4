"""What OpenAI-compatible servers send, read down to the fields a `Response` has, and kept free of secrets.

A key or header value is struck from whatever a server says of it, in messages and in answers, so that it appears in no
file: whole, in its words, and in the half-masked form (`sk-ab***yz`) in which servers like to quote it.
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
from personabench.models.backends.likelihood import tokens_of
from personabench.models.reply import parse_finish
from personabench.types import Response, Usage

_ANSWERS = ("text", "output_text", "refusal")
_TEXTS = ("text", "refusal", "thinking", "reasoning", "summary", "content")
_LONGEST_ENDING = 60
_SHORTEST = 4
_SHORTEST_WORD = 8
_MASKED = re.compile(r"[^\s'\"]*\*{3,}[^\s'\"]*")
_STATUS = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "overloaded_error": 529,
    "server_error": 500,
    "internal_server_error": 500,
    "api_error": 500,
}
_DATED = re.compile(r"([-@:](\d{3,8}(-\d\d){0,2}|\d\d-\d\d(\d\d)?|latest))+$|\.gguf$")


Number = int | float | str | None
"""A count as servers write it."""


class _Details(msgspec.Struct):
    cached_tokens: Number = 0


class Spent(msgspec.Struct):
    """The `usage` of a reply."""

    prompt_tokens: Number = 0
    completion_tokens: Number = 0
    prompt_tokens_details: _Details | None = None


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None


class _Logprobs(msgspec.Struct):
    content: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class Completion(msgspec.Struct):
    """A chat completion, or the error that a server sent in place of one."""

    choices: list[_Choice] | msgspec.UnsetType | None = msgspec.UNSET
    error: Any = None
    usage: Spent | None = None
    model: str | None = None
    prompt_logprobs: list[Any] | None = None


_decode = msgspec.json.Decoder(Completion).decode


def read(
    content: bytes, where: str, quote: Callable[[str], str], fail: Callable[[int], NoReturn]
) -> Completion:
    """A completion with at least one choice.

    Args:
        quote: how words of the server are repeated.
        fail: raises what an answer of that status means, for errors inside a reply of status 200.

    Raises:
        TransientError: it is not JSON, or has no choice.
        Refused: it is JSON of another shape.
    """
    try:
        reply = _decode(content)
    except msgspec.ValidationError as error:
        raise _another_shape(where, str(error), quote(content.decode(errors="replace"))) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        said = quote(content.decode(errors="replace"))
        raise TransientError(
            f"{where} sent a reply that is not JSON: {said}", kind="malformed"
        ) from error
    if reply.choices and reply.choices[0].message is not None:
        return reply
    if (status := _status(reply.error)) is not None:
        fail(status)
    if reply.choices is msgspec.UNSET or reply.error:
        why = "an error" if reply.error else "no choices"
        raise _another_shape(where, why, quote(content.decode(errors="replace")))
    raise TransientError(f"{where} sent a reply without a choice", kind="no_choice")


def _another_shape(where: str, why: str, said: str) -> Refused:
    return Refused(
        f"{where} sent JSON that is not a completion ({why}): {said}; is --base-url right?", 200
    )


def _status(error: Any) -> int | None:
    """The HTTP status that an error inside a reply stands for; None where it does not say."""
    if not isinstance(error, dict):
        return None
    for code in (error.get("code"), error.get("status"), error.get("type")):
        if isinstance(code, str):
            code = int(code) if code.isdecimal() else _STATUS.get(code.lower())
        if isinstance(code, int) and 400 <= code < 600:
            return code
    return None


def response(reply: Completion, model: str = "") -> Response:
    """The first choice of a reply that has one; `model` is what the server named instead of the model asked for.

    An answer in the field for thoughts, which servers with a mistaken reasoning parser send, is an answer all the same
    where the reply is whole and has no other.
    """
    assert reply.choices and reply.choices[0].message is not None
    choice, message, spent = reply.choices[0], reply.choices[0].message, reply.usage or Spent()
    text, thought = _texts(message)
    finish, ending = parse_finish(choice.finish_reason), choice.finish_reason or ""
    misplaced = not text.strip() and bool(thought.strip()) and finish == "stop"
    if not text.strip() and message.refusal:
        text, finish, ending = message.refusal, "refused", "refusal"
    elif misplaced:
        text, thought = thought, ""
    cached = (
        _number(spent.prompt_tokens_details.cached_tokens) if spent.prompt_tokens_details else 0
    )
    return Response(
        text=text,
        finish=finish,
        usage=Usage(_number(spent.prompt_tokens), _number(spent.completion_tokens), max(cached, 0)),
        logprobs=tuple(
            (choice.logprobs and choice.logprobs.content) or tokens_of(reply.prompt_logprobs)
        ),
        model=model,
        thought=thought,
        ending=ending[:_LONGEST_ENDING] if finish in ("refused", "interrupted") else "",
        oddities=("answer_in_reasoning",) if misplaced else (),
    )


def _texts(message: _Message) -> tuple[str, str]:
    """Answer and thought of a message, by its fields and by the parts that its content may come in."""
    thoughts = [
        said
        for field in (message.reasoning_content, message.reasoning)
        if (said := "".join(_strings(field)))
    ]
    if not isinstance(message.content, list):
        return message.content or "", thoughts[0] if thoughts else ""
    answer: list[str] = []
    for part in message.content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        (answer if kind in _ANSWERS else thoughts).extend(_strings(part))
    return "".join(answer), "".join(dict.fromkeys(thoughts))


def _strings(part: Any) -> Iterator[str]:
    """The texts in a part of a message, or in a list of parts."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, list):
        for one in part:
            yield from _strings(one)
    elif isinstance(part, dict):
        for name in _TEXTS:
            yield from _strings(part.get(name))


def _number(value: Number) -> int:
    """A count; 0 for what is none."""
    try:
        return int(float(value or 0))
    except (ValueError, OverflowError):
        return 0


@lru_cache(maxsize=256)
def other_model(asked: str, said: str | None) -> str:
    """The model a reply names, where it is another than asked for; servers may add dates, owners and folders."""

    def core(name: str) -> str:
        return _DATED.sub("", name.lower().rsplit("/", 1)[-1])

    return said if said and core(said) != core(asked) else ""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The wish in a Retry-After header, in seconds: a number or a date; None where there is none to be read."""
    wish = headers.get("retry-after")
    if wish is None:
        return None
    try:
        return max(0.0, float(wish))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(wish).timestamp() - time.time())
    except ValueError:
        return None


def redirect(where: str, status: int, headers: Mapping[str, str], secrets: Secrets) -> str:
    """What to say of a server that sends its callers elsewhere: key and prompts go nowhere that was not named."""
    to = secrets.quote(headers.get("location", ""))
    return f"{where} answered {status}, a redirect to {to}, which is not followed; name the right address yourself"


class Secrets:
    """Values that must not be repeated.

    Args:
        values: keys and header values; those of fewer than four characters are too common to strike.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._whole = sorted(
            {value for value in values if len(value) >= _SHORTEST}, key=len, reverse=True
        )
        self._long = [value for value in self._whole if len(value) >= _SHORTEST_WORD]
        words = {
            word
            for value in self._whole
            for word in re.split(r"[\s;,=]+", value)
            if len(word) >= _SHORTEST_WORD
        }
        self._all = sorted({*self._whole, *words}, key=len, reverse=True)

    def strike(self, words: object) -> str:
        """A message without them, their words, and anything that looks half masked."""
        text = _MASKED.sub("***", str(words))
        for secret in self._all:
            text = text.replace(secret, "***")
        return text

    def quote(self, words: str) -> str:
        """The start of what a server said, on one line and struck."""
        return self.strike(words)[:300].replace("\n", " ") or "(nothing)"

    def clean(self, answer: Response) -> Response:
        """A model's answer without the long ones; the same object where it has none."""
        for secret in self._long:
            if secret in answer.text or secret in answer.thought or secret in answer.model:
                struck = {
                    name: getattr(answer, name).replace(secret, "***")
                    for name in ("text", "thought", "model")
                }
                answer = msgspec.structs.replace(answer, **struck)
        return answer
