"""Data types of a run: records, samples, requests, responses, lines of its files.

All are frozen `msgspec.Struct`s: slotted, comparable, and able to round-trip through JSON
(`to_json`, `from_json`).  Behaviour belongs to the engine, the tasks and the methods.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import msgspec

if TYPE_CHECKING:
    from mmap import mmap

Phase = Literal["prepare", "profile", "predict", "update", "judge", "simulate"]
T = TypeVar("T")

_WORD = re.compile(r"[^\W_]+")
_ASCII_WORDS = "".join(chr(code) if chr(code).isalnum() else " " for code in range(128))


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One past item of a user's history: a stimulus and the user's response.

    Attributes:
        id: unique within a history; empty in what `Task.load` yields if the data has none.
        stimulus: the thing that the user responded to (an article, a plot); None for a response
            alone (a tweet).
        response: text, a label, or a number written as text.
        time: an ISO date.
        item: the thing that stimulus and response belong to (a product), if the data names it.
        fields: the entry as the data gave it.
    """

    id: str = ""
    # A factory keeps the default in the JSON: stored profiles are named by the hash of a history.
    stimulus: str | None = msgspec.field(default_factory=lambda: None)
    response: str = msgspec.field(default_factory=lambda: "")
    time: str | None = None
    item: str | None = None
    fields: Mapping[str, str] = {}


class User(msgspec.Struct, frozen=True):
    """A user and their history at one moment, oldest record first."""

    id: str
    history: tuple[Record, ...]


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    """One question about one user.

    Attributes:
        id: from the data, never a position; empty in what `Task.load` yields if the data has none.
        user_id: empty in what `Task.load` yields if the data does not name the user.
        input: the request as the benchmark words it.
        stimulus: the part of the input that the user would respond to.
        history: the records that are visible before the sample.
        references: gold outputs; emptied by `view()`.
        choices: the options of a multiple-choice question.
        attributes: further facts known at test time (a review's rating).
        time, item: as in `Record`.
        dialogue: the earlier turns of a sample that takes several.
        hidden: facts for a simulated user, a judge or an oracle only; emptied by `view()`.
        evidence: ids of the records that the answer depends on; emptied by `view()`, but for an
            oracle.
        history_owner: the user whose records a history control shows; None for the user's own.
    """

    id: str = ""
    user_id: str = ""
    input: str = ""
    stimulus: str | None = None
    history: tuple[Record, ...] = ()
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    attributes: Mapping[str, str] = {}
    time: str | None = None
    item: str | None = None
    dialogue: tuple[Message, ...] = ()
    hidden: Mapping[str, str] = {}
    evidence: tuple[str, ...] = ()
    history_owner: str | None = None

    def view(self, *, privileged: bool = False) -> Sample:
        """Return the sample as a method receives it; only an oracle sees hidden facts and marks."""
        if privileged:
            return msgspec.structs.replace(self, references=())
        return msgspec.structs.replace(self, references=(), hidden={}, evidence=())

    @property
    def user(self) -> User:
        """The user with the history visible at this sample."""
        return User(self.user_id, self.history)


@lru_cache(maxsize=1 << 14)
def moment(time: str | None) -> tuple[int, ...]:
    """Split a time into its numbers, so that times of one data set compare; () for none."""
    # Data sets write times with and without leading zeros, which texts would sort wrongly.
    # Python converts a few thousand digits at most.
    numbers = re.findall(r"\d{1,100}", time or "")
    return tuple(int(number) for number in numbers)


def normalized(text: str) -> str:
    """Reduce a text to its words, without case and punctuation, to compare texts."""
    text = text.lower()
    # A table takes a third of the time of the expression, and whole populations are normalized.
    words = text.translate(_ASCII_WORDS).split() if text.isascii() else _WORD.findall(text)
    return " ".join(words)


class Message(msgspec.Struct, frozen=True):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


class Request(msgspec.Struct, frozen=True):
    """One complete model call: two equal requests to one model are the same call.

    Attributes:
        max_tokens: of the reply.  0 generates nothing: the last message, the assistant's, is
            returned with the log-probabilities of its tokens.
        schema: a JSON schema that the reply must follow.
        logprobs: the number of alternatives to report per token; 0 for none.
        repeat: the index of an intended repetition at temperature > 0.
        adapter: the served adapter that answers in place of the base model.
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
    # Unset fields are left out of the JSON, so requests without an adapter keep the cache keys they
    # had before.
    adapter: str | msgspec.UnsetType = msgspec.UNSET


class Try(NamedTuple):
    """A try of a request that is repeated if its reply cannot be read: its number, from 0, of how
    many."""

    number: int = 0
    of: int = 1


ONLY_TRY = Try()


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one call or of many.

    Attributes:
        cached_tokens, cache_write_tokens: the part of the input that the server had in its cache,
            and the part that it stored there; the latter is unset if it is 0.
        reasoning_tokens: the part of the output that is thought; unset if it is 0.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    # Unset rather than 0: most servers report neither, and every line of a run would hold both.
    reasoning_tokens: int | msgspec.UnsetType = msgspec.UNSET
    cache_write_tokens: int | msgspec.UnsetType = msgspec.UNSET


class Response(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model's reply.

    Attributes:
        text: the answer; thought: the reasoning before it; raw: both as they came, if they came in
            one text.
        finish: "stop" (whole), "length" (truncated at `max_tokens`), "refused" (by a content filter
            or by the model) or "interrupted" (ended otherwise, or by an unknown word).  Backends
            may report "unsaid" for an end without a word; the client decides.
        ending: the server's own word, for the last two.
        seconds: the latency of the call when it was made.
        model: the model that the server reported if it differs from the requested one, else empty.
        served: who answered, in the server's words: the exact name of the model if it is not the
            requested one, its fingerprint and its provider.
        oddities: names of peculiarities of the reply that are counted.
    """

    text: str
    finish: str = "stop"
    usage: Usage = Usage()
    seconds: float = 0.0
    logprobs: tuple[Mapping[str, Any], ...] = ()
    model: str = ""
    thought: str = ""
    raw: str = ""
    ending: str = ""
    oddities: tuple[str, ...] = ()
    served: str = ""


class Call(msgspec.Struct, frozen=True):
    """Usage of one model call, by its cache key.

    Attributes:
        cached: True if the response cache answered; an earlier call paid for it.
        cached_tokens: the part of the input that the server had in its cache when the call was
            made.
        reasoning_tokens, cache_write_tokens: see `Usage`.
        served: who answered (see `Response`); unset for the requested model without further words.
        max_tokens: the allowance of the reply; unset in lines of earlier versions.
        profiler: whether the profiler answered in place of the model under test.
    """

    key: str
    phase: Phase
    cached: bool
    input_tokens: int
    output_tokens: int
    seconds: float
    finish: str = "stop"
    cached_tokens: int = 0
    served: str | msgspec.UnsetType = msgspec.UNSET
    reasoning_tokens: int | msgspec.UnsetType = msgspec.UNSET
    cache_write_tokens: int | msgspec.UnsetType = msgspec.UNSET
    max_tokens: int | msgspec.UnsetType = msgspec.UNSET
    # Unset rather than false, as few runs have a profiler.
    profiler: bool | msgspec.UnsetType = msgspec.UNSET


class Prediction(msgspec.Struct, frozen=True):
    """A line of `predictions.jsonl`: one finished or failed sample.

    Attributes:
        output: the method's answer as the official scorer will read it.
        parsed: the task's lenient reading of the answer; None if unparsed.
        flags: counts of events such as `empty_profile`, `truncated` and `tokens_dropped`.
        calls: all model calls, those of simulated users and judges included.
        usage: tokens of the model under test alone.
        profile: the key of the user's profile that was used, if the method keeps one.
        interaction: recorded by an interactive task; under "method" the method's own notes.
        shown: ids of the history's records that the model saw while it answered; None for a failed
            sample, in lines of earlier versions, and for a memory that cannot tell.
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
    interaction: Mapping[str, Any] = {}
    shown: tuple[str, ...] | None = None


class Judgement(msgspec.Struct, frozen=True):
    """A line of `judgements/<key>.jsonl`: a judge's assessment of one answer.

    Attributes:
        answer: the hash of the judged answer.
        values: the result of the task's `assess`.  None if the judge's reply could not be read: the
            sample is unjudged and has no score.
    """

    sample_id: str
    answer: str
    values: Mapping[str, Any] | None
    calls: tuple[Call, ...]
    flags: Mapping[str, int | float]


class Score(msgspec.Struct, frozen=True):
    """A line of `scores.jsonl`: the value that a sample contributes per scorer and metric.

    A metric that is more than a mean keeps the input of its aggregate: RMSE the squared error,
        macro-F1 the pair of
    label indices.  A sample without a prediction has no score.  `answer` is the hash of the answer,
    by which runs are searched for equal answers; empty in lines of earlier versions.
    """

    sample_id: str
    user_id: str
    values: Mapping[str, Mapping[str, float | list[float]]]
    answer: str = ""


def to_json(value: Any) -> str:
    """Encode as compact JSON with a fixed key order: the same value always gives the same text."""
    return msgspec.json.encode(value, order="deterministic").decode()


# How files begin that are JSON in another form, and what to do about it.
_FOREIGN = {
    codecs.BOM_UTF8: "it begins with a byte order mark; save it as UTF-8 without one",
    codecs.BOM_UTF16_LE: "it is UTF-16; save it as UTF-8",
    codecs.BOM_UTF16_BE: "it is UTF-16; save it as UTF-8",
    b"\x1f\x8b": "it is compressed; unpack it with gunzip",
}


def from_json(text: str | bytes | mmap, kind: type[T]) -> T:
    """Read a value written by `to_json`.

    Raises:
        msgspec.ValidationError: the text is JSON of another shape.
        msgspec.DecodeError: the text is not JSON, or not UTF-8.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        if isinstance(text, str) or isinstance(error, msgspec.ValidationError):
            raise
        with memoryview(text) as view:
            beginning = bytes(view[:3])
        for mark, reason in _FOREIGN.items():
            if beginning.startswith(mark):
                raise msgspec.DecodeError(reason) from error
        raise
    # msgspec lets these through; callers handle a single kind of error for a broken file.
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"invalid UTF-8 at byte {error.start}: {error.reason}") from error
    except RecursionError as error:
        raise msgspec.DecodeError("it is nested too deeply") from error


class Sampling(msgspec.Struct, frozen=True):
    """Sampling parameters of a comparison, and how its replies are read.

    Attributes:
        max_tokens: None means the task's default.
        reading: "raw" scores an answer with the thought before it, as the reply came; unset scores
            the answer alone.
        refusals: "empty" makes empty replies of those that a filter withheld or the model refused,
            and of refused prompts; unset leaves the words, and fails the samples of such prompts.
        memory_tokens: tokens of a request for an answer that records and notes may take; unset for
            no limit.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int | None = None
    # Unset rather than named, so that the fingerprints of earlier runs stay.
    reading: Literal["raw"] | msgspec.UnsetType = msgspec.UNSET
    refusals: Literal["empty"] | msgspec.UnsetType = msgspec.UNSET
    memory_tokens: int | msgspec.UnsetType = msgspec.UNSET
