"""The model of dry runs: replies without a model, in several ways that a real run may go.

The methods run for real, against a client that answers from the cache if it can and with filler if
it cannot.  How many calls follow, and how long their prompts are, depends on the replies: so a plan
tries short and long ones, lists without and with many entries, drafts that are right and wrong, and
replies that cannot be read until the last attempt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from personabench.errors import RunError
from personabench.models.backends.base import Backend
from personabench.models.backends.scripted import FILLER, fill_schema, letters
from personabench.models.cache import request_key
from personabench.models.client import Client
from personabench.models.tokens import EstimatedTokens, Tokens, bound_tokens
from personabench.types import ONLY_TRY, Call, Phase, Record, Request, Response, Try, Usage, to_json

# Bytes per token of filler, as `EstimatedTokens` counts them.
_BYTES_PER_TOKEN = 3


class PlannedTokens(NamedTuple):
    """Tokens in and out that would be paid for."""

    input: float = 0
    output: float = 0

    def plus(self, input_tokens: float, output_tokens: float) -> PlannedTokens:
        """The sum of both."""
        return PlannedTokens(self.input + input_tokens, self.output + output_tokens)


@dataclass
class Work:
    """Calls and tokens of one way that a run may go.

    Attributes:
        calls: distinct calls by phase; cached: how many of them are stored.
        spent: tokens to pay for by model, those of roles included.
    """

    calls: dict[str, int] = field(default_factory=dict)
    cached: int = 0
    spent: dict[str, PlannedTokens] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Calls of all phases."""
        return sum(self.calls.values())

    @property
    def to_pay(self) -> int:
        """Calls that are not stored."""
        return self.total - self.cached

    @property
    def input_tokens(self) -> int:
        """Tokens of the requests to pay for."""
        return round(sum(tokens.input for tokens in self.spent.values()))

    @property
    def output_tokens(self) -> int:
        """Tokens of the replies to pay for."""
        return round(sum(tokens.output for tokens in self.spent.values()))

    def price(self, prices: Mapping[str, Mapping[str, float]]) -> float | None:
        """The price of the calls to pay for; None without a price for every model."""
        if any(model not in prices for model in self.spent):
            return None
        total = 0.0
        for model, tokens in self.spent.items():
            total += tokens.input * prices[model]["input"]
            total += tokens.output * prices[model]["output"]
        return total / 1_000_000

    def book(self, phase: str, *, stored: bool) -> None:
        """Count a call."""
        self.calls[phase] = self.calls.get(phase, 0) + 1
        self.cached += stored

    def spend(self, model: str, input_tokens: float, output_tokens: float) -> None:
        """Add the tokens of a call that is not stored."""
        spent = self.spent.get(model, PlannedTokens())
        self.spent[model] = spent.plus(input_tokens, output_tokens)


@dataclass
class Books:
    """The work of one dry run, counted three times.

    Attributes:
        expected: without repetitions of unreadable replies; input tokens estimated, replies of the
            full length.
        least: the same calls, with the fewest tokens that they can take, and without those after
            feedback, which may hold nothing to learn from.
        most: with all repetitions, and the most tokens.
    """

    expected: Work = field(default_factory=Work)
    least: Work = field(default_factory=Work)
    most: Work = field(default_factory=Work)

    def book(self, phase: str, *, stored: bool, is_certain: bool) -> None:
        """Count a call."""
        for work in self._affected(phase, is_certain):
            work.book(phase, stored=stored)

    def spend(
        self, model: str, phase: str, request: Request, allowance: int, *, is_certain: bool
    ) -> int:
        """Add the tokens of a request; returns the estimate for its input."""
        counter = EstimatedTokens()
        estimate = sum(counter.count(message.content) for message in request.messages)
        fewest, most = bound_tokens(request)
        output = request.max_tokens + allowance
        amounts = {
            id(self.expected): (estimate, output),
            id(self.least): (fewest, min(1, output)),
            id(self.most): (most, output),
        }
        for work in self._affected(phase, is_certain):
            work.spend(model, *amounts[id(work)])
        return estimate

    def _affected(self, phase: str, is_certain: bool) -> Sequence[Work]:
        if not is_certain:
            return (self.most,)
        if phase == "update":
            return (self.expected, self.most)
        return (self.expected, self.least, self.most)


class PlannedCall(NamedTuple):
    """One call of a dry run; `stored`: the cache holds its response."""

    key: str
    phase: Phase
    request: Request
    stored: bool


@dataclass(frozen=True)
class FillerStyle:
    """How replies are filled in.

    Attributes:
        plain: the text of replies without a schema; labels: of a task with labels, all of them.
        marked: whether a text carries a mark of its request, which JSON always does.
        is_uniform: nothing carries a mark, so that some requests made of replies are equal.
        tail: text added to replies without a schema.
        is_long: replies are as long as they may be, except labels that would become unreadable.
        answer_tokens: the maximum of an answer, which may be a label.
        entries: the length of lists of objects; None for as many as fit the reply.
        is_reluctant: a reply that is requested again if it cannot be read cannot be read until the
            last attempt.
        simulated: the text of a simulated user's replies; None for the same as of others.
        drafts_are_right: a draft of a record has the user's label; None for the first label.
    """

    plain: str = FILLER
    labels: Sequence[str] = ()
    marked: bool = True
    is_uniform: bool = False
    tail: str = ""
    is_long: bool = False
    answer_tokens: int = 0
    entries: int | None = 1
    is_reluctant: bool = False
    simulated: str | None = None
    drafts_are_right: bool | None = None

    def reply(
        self, key: str, phase: Phase, request: Request, attempt: Try, records: Sequence[Record]
    ) -> str:
        """Filler for a request; marked filler is different for every key.

        Args:
            records: those of the user, some of which the request may have the model draft.
        """
        if self.is_reluctant and attempt.number < attempt.of - 1:
            return ""
        has_mark = (self.marked or request.schema is not None) and not self.is_uniform
        mark = letters(key) if has_mark else ""
        if request.schema is not None:
            text = self._fill_schema(request, mark)
        else:
            plain = self._choose_label(request, records)
            if phase == "simulate" and self.simulated is not None:
                plain = self.simulated
            text = fill_schema(None, plain, mark)
            text = f"{text} {self.tail}" if self.tail else text
        may_be_label = self.labels and request.max_tokens <= self.answer_tokens
        if self.is_long and (self.marked or not may_be_label):
            text = _lengthen(text, request, mark)
        return text

    def _fill_schema(self, request: Request, mark: str) -> str:
        entries = self.entries
        if entries is None:
            single = len(fill_schema(request.schema, mark=mark).encode())
            entries = max(1, _BYTES_PER_TOKEN * request.max_tokens // single)
        return fill_schema(request.schema, self.plain, mark, entries=entries)

    def _choose_label(self, request: Request, records: Sequence[Record]) -> str:
        if not self.labels or self.drafts_are_right is None:
            return self.plain
        question = request.messages[-1].content
        for record in records:
            if record.stimulus and record.stimulus in question and record.response in self.labels:
                if self.drafts_are_right:
                    return record.response
                return next(label for label in self.labels if label != record.response)
        return self.plain


def _lengthen(text: str, request: Request, mark: str) -> str:
    """Fill a reply up to its maximum: the texts of JSON, or the text itself."""
    missing = _BYTES_PER_TOKEN * request.max_tokens - len(text.encode())
    if missing <= 0:
        return text
    if request.schema is None:
        return text + _padding(missing, mark)

    value = msgspec.json.decode(text)
    paths = list(_text_places(value))
    for holder, key in paths:
        holder[key] += _padding(missing // len(paths), mark)
    return to_json(value)


def _text_places(value: Any) -> Sequence[tuple[Any, Any]]:
    """The texts of a JSON value that are filler, as containers with keys."""
    slots: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        if isinstance(part, dict | list):
            slots += _text_places(part)
        elif isinstance(part, str) and part.startswith(FILLER):
            slots.append((value, key))
    return slots


def _padding(size: int, mark: str) -> str:
    """Words of a size in bytes."""
    word = f" {mark or 'word'}"
    return (word * (size // len(word) + 1))[:size].rstrip()


class DryRunClient(Client):
    """A client that pays nothing: stored responses if there are any, filler otherwise.

    Attributes:
        books: calls and tokens so far.
        planned_calls: every call so far.
        memory: responses given so far, as if they had been stored.
        booked: the keys of the calls of this run, each of which is booked once.
        style: how replies are filled in.
        records_of: the records of a user, which drafts are compared with.
        owed: samples of the dry run.
        has_repeated: whether a reply was requested again that could not be read.
        give_up: the time (`time.monotonic`) after which a call ends the dry run; None for never.
    """

    books: Books
    planned_calls: list[PlannedCall]
    memory: dict[str, Response]
    booked: set[str]
    style: FillerStyle
    records_of: Callable[[str], Sequence[Record]]
    owed: int
    has_repeated: bool
    give_up: float | None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.books = Books()
        self.planned_calls = []
        self.memory = {}
        self.booked = set()
        self.style = FillerStyle()
        self.records_of = lambda user: ()
        self.owed = 0
        self.over_window = 0
        self.has_repeated = False
        self.give_up = None
        self._refused: dict[str | int, Response] = {}

    @property
    def tokens(self) -> Tokens:
        """An estimate of token counts."""
        # Loading the model only to count would take longer than the rest of the dry run.
        return EstimatedTokens()

    async def complete(
        self,
        request: Request,
        phase: Phase,
        group: str,
        accept: Callable[[str], bool] | None = None,
        flag: Callable[[str], None] | None = None,
        work: str = "",
        attempt: Try = ONLY_TRY,
    ) -> tuple[Response, Call]:
        if self.give_up is not None and time.monotonic() > self.give_up:
            raise RunError("the dry run takes too long")
        key = request_key(self.backend.identity_of(request), request)
        stored = self._stored(key)
        if stored is not None and key in self.booked:
            return self._receipt(key, phase, request, stored, cached=True)

        # A method repeats the request since it cannot read the filler.  It may be able to read a
        # real reply, so the repetition is not certain.
        previous = self._previous_repeat(request)
        is_certain = attempt.number == 0 and (stored is not None or previous not in self._refused)
        self.has_repeated |= not is_certain
        self.booked.add(key)
        self.books.book(phase, stored=stored is not None, is_certain=is_certain)
        response = stored
        if response is None:
            text = self.style.reply(key, phase, request, attempt, self.records_of(group))
            response = self._book_tokens(phase, request, text, is_certain=is_certain)
            if accept and not accept(response.text):
                self._refused[key] = response
        self.memory[key] = response
        if is_certain:
            self.planned_calls.append(PlannedCall(key, phase, request, stored is not None))
        return self._receipt(key, phase, request, response, cached=stored is not None)

    def _stored(self, key: str) -> Response | None:
        if self.policy not in ("use", "only"):
            return None
        if key in self.memory:
            return self.memory[key]
        return self.cache.get(key) if self.cache else None

    def _previous_repeat(self, request: Request) -> str | int:
        """The key of the repetition before this one, or 0 for the first."""
        if not request.repeat:
            return 0
        previous = msgspec.structs.replace(request, repeat=request.repeat - 1)
        return request_key(self.backend.identity_of(previous), previous)

    def _book_tokens(
        self, phase: Phase, request: Request, text: str, *, is_certain: bool
    ) -> Response:
        """Book the tokens of a call that would be paid for."""
        model = self.backend.identity["name"]
        input_tokens = self.books.spend(
            model, phase, request, self.allowance, is_certain=is_certain
        )
        return Response(text, usage=Usage(input_tokens, request.max_tokens + self.allowance))

    def for_role(self, backend: Backend) -> DryRunClient:
        """A client for a role with its own model that books in the same plan."""
        client = DryRunClient(backend, self.cache, self.policy)
        client.books = self.books
        client.planned_calls = self.planned_calls
        client.memory = self.memory
        client.booked = self.booked
        client.style = self.style
        client.records_of = self.records_of
        client.give_up = self.give_up
        return client
