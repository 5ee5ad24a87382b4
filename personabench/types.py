"""The data that flows through a benchmark run.

Everything here is a frozen `msgspec.Struct`: slotted, comparable, and able to round-trip through JSON
(`to_json`, `from_json`).  Nothing here does anything; behaviour lives in the engine, the tasks and the methods.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec

Phase = Literal["prepare", "profile", "predict", "update", "judge", "simulate"]
T = TypeVar("T")


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One piece of a user's history: what they saw and how they responded.

    `stimulus` is what the user responded to (an article, a plot), or None where the record is the response alone
    (a tweet).  `response` is text, a label, or a number written as text.  `item` names the thing both belong to
    where the data says so (a product), `time` is an ISO date, `fields` holds the entry as the data gave it.
    """

    id: str
    stimulus: str | None
    response: str
    time: str | None = None
    item: str | None = None
    fields: Mapping[str, str] = {}


class User(msgspec.Struct, frozen=True):
    """A person and the records of theirs that are visible at one moment, oldest first."""

    id: str
    history: tuple[Record, ...]


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    """One question about one user.

    `id` comes from the data and is never a position.  `input` is the request as the benchmark words it, `stimulus`
    the part of it that the user would respond to.  `history` is what is visible before the sample, and `history_owner`
    whose
    it is where a control lent somebody else's; `attributes` are further facts known at test time (a review's rating).
    `dialogue` is what was said so far, where a sample takes several turns.  `references` are gold outputs and `hidden`
    facts that only a simulated user, a judge or an oracle may know: `view()` empties both, and a view is all that a
    method ever receives.
    """

    id: str
    user_id: str
    input: str
    stimulus: str | None = None
    history: tuple[Record, ...] = ()
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    attributes: Mapping[str, str] = {}
    time: str | None = None
    item: str | None = None
    dialogue: tuple[Message, ...] = ()
    hidden: Mapping[str, str] = {}
    history_owner: str | None = None

    def view(self, *, privileged: bool = False) -> Sample:
        """The sample without anything a method must not see; an oracle is `privileged` to what is hidden."""
        return msgspec.structs.replace(
            self, references=(), hidden=self.hidden if privileged else {}
        )

    @property
    def user(self) -> User:
        """The user as visible at this sample."""
        return User(self.user_id, self.history)


def moment(time: str | None) -> tuple[int, ...]:
    """A time as its numbers, so that times of one data set compare; () for none."""
    return tuple(map(int, re.findall(r"\d+", time or "")))


def normalized(text: str) -> str:
    """The words of a text without case and punctuation: what two texts share that say the same."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


class Message(msgspec.Struct, frozen=True):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


class Request(msgspec.Struct, frozen=True):
    """One model call, complete: two equal requests to one model are the same call.

    Sampling is always explicit.  `schema` is a JSON schema the reply must follow, `logprobs` the number of
    alternatives to report per token (0: none), `repeat` the index of an intended repetition at temperature > 0,
    `adapter` the served adapter that answers in place of the model itself.  With `max_tokens` 0 nothing is written: the
    last message, the assistant's, is reported with the log-probabilities of its tokens.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    schema: Mapping[str, Any] | None = None
    logprobs: int = 0
    # Stored and hashed as "draw": renaming it there would orphan every response cache.
    repeat: int = msgspec.field(default=0, name="draw")
    adapter: str | msgspec.UnsetType = msgspec.UNSET


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one call or the sum of many; `cached_tokens` is the part of the input the server had at hand."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


class Response(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model's reply: `text` is the answer, `thought` what the model thought before it.

    `finish` is "stop" (whole), "length" (cut at the allowance), "refused" (withheld or broken off by a filter, or the
    model's refusal) or "interrupted" (broken off otherwise, or ended in an unknown word); for the last two `ending` is
    the server's own word.  Backends may leave thoughts in `text`, and say "unsaid" of an end without a word: the client
    decides.  `seconds` is the call's latency when it was made, `model` how the server named the model where that is
    another one than asked for, else empty.  `oddities` names what is odd about the reply and worth counting.
    """

    text: str
    finish: str = "stop"
    usage: Usage = Usage()
    seconds: float = 0.0
    logprobs: tuple[Mapping[str, Any], ...] = ()
    model: str = ""
    thought: str = ""
    ending: str = ""
    oddities: tuple[str, ...] = ()


class Call(msgspec.Struct, frozen=True):
    """The receipt of one model call: its cache key and what it cost; `cached` calls were paid by an earlier one.

    `cached_tokens` is the part of the input that the server had at hand when the call was made.
    """

    key: str
    phase: Phase
    cached: bool
    input_tokens: int
    output_tokens: int
    seconds: float
    finish: str = "stop"
    cached_tokens: int = 0


class Prediction(msgspec.Struct, frozen=True):
    """A line of `predictions.jsonl`: one finished, or failed, sample.

    `output` is the method's answer as the official scorer will read it, `parsed` the task's lenient reading of it
    (None: unreadable).  `flags` counts what happened on the way (`empty_profile`, `truncated`, `tokens_dropped`).
    `usage` is what the model under test was asked for; simulated users and judges are in `calls` only.
    `profile` is the key of the user's state that was used, where the method keeps one.  `record` is what an
    interactive task wrote down, and under "method" what the method did.
    """

    sample_id: str
    user_id: str
    output: str | None
    parsed: str | None
    flags: Mapping[str, int | float]
    calls: tuple[Call, ...]
    usage: Usage
    error: str | None = None
    attempts: int = 1
    profile: str | None = None
    record: Mapping[str, Any] = {}


class Judgement(msgspec.Struct, frozen=True):
    """A line of `judgements/<key>.jsonl`: what a judge made of one answer.

    `answer` names the answer that was judged by its content.  `values` is what the task's `assess` returned, None
    where the judge's words could not be read: the sample is unjudged, which is no score.
    """

    sample_id: str
    answer: str
    values: Mapping[str, Any] | None
    calls: tuple[Call, ...]
    flags: Mapping[str, int | float]


class Score(msgspec.Struct, frozen=True):
    """A line of `scores.jsonl`: per scorer, per metric, the value a sample contributes.

    A metric that is more than a mean keeps what its aggregate needs: RMSE the squared error, macro-F1 the pair of
    label indices.  A sample without a prediction has no score.
    """

    sample_id: str
    user_id: str
    values: Mapping[str, Mapping[str, float | list[float]]]


def to_json(value: Any) -> str:
    """Compact JSON with a fixed key order: the same value always gives the same text."""
    return msgspec.json.encode(value, order="deterministic").decode()


def from_json(text: str | bytes, kind: type[T]) -> T:
    """Read a value written by `to_json`.

    Raises:
        msgspec.ValidationError: the text is JSON of another shape.
        msgspec.DecodeError: the text is not JSON, or not UTF-8.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"invalid UTF-8 at byte {error.start}: {error.reason}") from error


class Sampling(msgspec.Struct, frozen=True):
    """Decoding, the same for every method of a comparison.  `max_tokens` None: the task's own allowance."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int | None = None
