"""What OpenAI-compatible servers send, read down to the fields a `Response` has, and kept free of secrets.

A key or header value is struck from whatever a server says of it, in messages and in answers, so that it appears in no
file: whole, in its words, and in the half-masked form (`sk-ab***yz`) in which servers like to quote it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

import msgspec

from personabench.models.backends.likelihood import tokens_of
from personabench.types import Response, Usage

_SHORTEST = 4
_SHORTEST_WORD = 8
_MASKED = re.compile(r"[^\s'\"]*\*{3,}[^\s'\"]*")
_DATED = re.compile(r"([-@:](\d{3,8}(-\d\d){0,2}|\d\d-\d\d(\d\d)?|latest))+$|\.gguf$")


class _Details(msgspec.Struct):
    cached_tokens: int | None = 0


class Spent(msgspec.Struct):
    """The `usage` of a reply."""

    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _Details | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Logprobs(msgspec.Struct):
    content: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = "stop"
    logprobs: _Logprobs | None = None


class Completion(msgspec.Struct):
    """A chat completion."""

    choices: list[_Choice]
    usage: Spent | None = None
    model: str | None = None
    prompt_logprobs: list[Any] | None = None


decode = msgspec.json.Decoder(Completion).decode


def response(reply: Completion, model: str = "") -> Response:
    """The first choice of a reply that has one; `model` is what the server named instead of the model asked for."""
    choice, spent = reply.choices[0], reply.usage or Spent()
    cached = spent.prompt_tokens_details.cached_tokens if spent.prompt_tokens_details else 0
    return Response(
        text=choice.message.content or choice.message.refusal or "",
        finish="length" if choice.finish_reason == "length" else "stop",
        usage=Usage(spent.prompt_tokens or 0, spent.completion_tokens or 0, cached or 0),
        logprobs=tuple(
            (choice.logprobs and choice.logprobs.content) or tokens_of(reply.prompt_logprobs)
        ),
        model=model,
    )


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
            if secret in answer.text or secret in answer.model:
                text, model = (
                    answer.text.replace(secret, "***"),
                    answer.model.replace(secret, "***"),
                )
                answer = msgspec.structs.replace(answer, text=text, model=model)
        return answer
