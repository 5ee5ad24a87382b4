"""The wording of a task: its vocabulary, its requests and its reading of answers.

`Wording` is the part of a task that methods may use through their `Context`.  Data, metrics and
judging belong to `Task`, which derives from it, so that a method never depends on how its answers
are scored.  A method gets a `WordingView`, not the task: references stay out of its reach.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NoReturn
from weakref import WeakKeyDictionary

import msgspec

from personabench.api.comparison import describe_comparison, rejected_responses
from personabench.api.contracts import WORDING, Contract, check_rendered, guard_methods
from personabench.models.tokens import Tokens
from personabench.types import Message, Record, Sample

ResponseKind = Literal["text", "category", "ordinal"]
WordingName = Literal["full", "compact"]


class Vocabulary(msgspec.Struct, frozen=True):
    """A task's vocabulary, shared by all methods' prompts.

    Attributes:
        person: the user's part in the task ("author").
        stimulus: the thing that the user responds to ("article").
        response: the thing that the user produces ("headline").
        profile_question: the question that a summary of the user should answer.
        axes: the dimensions on which two users' responses may differ, as (name, definition) pairs.
        instruction: the request for an answer in its form ("Answer with the headline and nothing
            else."), the task's answer contract.
        goal: the request for the user's own answer, without its form ("Write the headline as this
            author would.").
        answer_form: the content of an answer as a noun phrase ("the headline", "a number from 1
            to 5"), for methods whose replies have a form of their own.

    All but the first three have defaults, which `Task` fills in.
    """

    person: str
    stimulus: str
    response: str
    profile_question: str = ""
    axes: tuple[tuple[str, str], ...] = ()
    instruction: str = ""
    goal: str = ""
    answer_form: str = ""


@dataclasses.dataclass
class Rendered:
    """A worded request, the records it contains, and flags for the run's counters."""

    messages: tuple[Message, ...]
    records: tuple[Record, ...] = ()
    flags: dict[str, float] = dataclasses.field(default_factory=dict)

    def with_paragraph(self, text: str) -> Rendered:
        """Return the request with a paragraph at the end of its last message."""
        *earlier, last = self.messages
        longer = Message(last.role, f"{last.content}\n\n{text}")
        return dataclasses.replace(self, messages=(*earlier, longer))


def _rendered(plugin: Any, value: Any) -> str:
    return check_rendered(plugin, value, Rendered)


def _chat(plugin: Any, value: Any) -> str:
    return "" if value is None else _rendered(plugin, value)


CONTRACTS: Mapping[str, Contract] = {
    **WORDING,
    "render": Contract("a `Rendered` whose messages are a tuple of `Message`s", _rendered),
    "render_content": Contract("a `Rendered` with a tuple of `Message`s, or None", _chat),
    "chat": Contract("a `Rendered` with a tuple of `Message`s, or None", _chat),
}


class Wording(ABC):
    """The wording of a task, shared by all methods.

    Attributes:
        name: the task's name on the command line.
        kind: the kind of response.
        scorers: the ways to read an answer.
        max_tokens: the maximum number of tokens of an answer.
        labels: the possible answers in the benchmark's order; empty for text.
        words: the vocabulary for prompts.
        tokenizer: the tokenizer of query and document texts for BM25: "words" (lower-cased words,
            pairs of characters in scripts without spaces) or "whitespace" (case and punctuation
            stay, as in LaMP's reference implementation).
        wording: the wording of the run's requests, which suits its model.
        params: the task's options, an instance of `Params`.
    """

    name: ClassVar[str]
    kind: ClassVar[ResponseKind] = "text"
    scorers: ClassVar[tuple[str, ...]] = ("official", "lenient")
    max_tokens: ClassVar[int] = 64
    labels: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[Vocabulary]
    tokenizer: str = "words"
    wording: WordingName = "compact"

    @dataclasses.dataclass(frozen=True)
    class Params:
        """Options of the task; none by default."""

    def __init__(self, params: Any = None) -> None:
        self.params = params if params is not None else self.Params()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        guard_methods(cls, CONTRACTS)

    @abstractmethod
    def render(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
    ) -> Rendered:
        """Word the request: the sample, chosen records (best first) and notes about the user.

        All methods share this wording.  Without records and notes it is the non-personalized
        request.
        """

    def render_content(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
    ) -> Rendered | None:
        """Word the request like `render`, but without the form of the answer.

        A method whose replies have a form of their own, such as a thought before the answer, adds
        its own contract to the last message (see `Context.word`).  None if the task cannot tell its
        contract from the rest.
        """
        return None

    @abstractmethod
    def parse(
        self,
        output: str,
        sample: Sample,
        scorer: str,
    ) -> str | None:
        """Read an answer as a scorer does; None when it cannot be read."""

    def describe(self, record: Record) -> str:
        """Write a record as labelled plain text, for prompts about the user.

        A comparison is written with the responses that the user did not prefer.
        """
        if rejected_responses(record):
            return describe_comparison(record)

        response = f"{self.words.response.capitalize()}: {record.response}"
        if record.stimulus is None:
            return response

        return f"{self.words.stimulus.capitalize()}: {record.stimulus}\n{response}"

    def query_text(self, sample: Sample) -> str:
        """Return the text to search a history with."""
        return sample.stimulus or sample.input

    def document_text(self, record: Record) -> str:
        """Return the text to find a record by; never a label or score.

        That of a comparison is its prompt and the preferred response.
        """
        if rejected_responses(record):
            return f"{record.stimulus}\n{record.response}"
        return record.stimulus or record.response

    def question(self, record: Record, like: Sample) -> Sample:
        """Turn a record into a question worded like another sample, to draft a past response.

        By default the record's stimulus replaces that of `like`.  A task whose questions hold more
        of a record overrides this.  The response of a record without a stimulus serves as its
        stimulus.
        """
        stimulus = record.stimulus or record.response
        wording = stimulus
        if like.stimulus and like.stimulus in like.input:
            before, _, after = like.input.rpartition(like.stimulus)
            wording = f"{before}{stimulus}{after}"

        attributes = {
            name: record.fields[name] for name in like.attributes if name in record.fields
        }
        return Sample(
            id=record.id,
            user_id=like.user_id,
            input=wording,
            stimulus=stimulus,
            choices=like.choices,
            attributes=attributes,
            time=record.time,
            item=record.item,
        )

    def facts(self, fields: Mapping[str, str]) -> str:
        """Write out facts of a response, such as a review's rating; empty by default.

        `fields` are a sample's attributes or a record's fields.
        """
        return ""

    def exchanges(self, sample: Sample) -> Sequence[Record] | None:
        """Return the user's earlier replies to an assistant; None without a conversation.

        A record's `stimulus` is the user's earlier message, `fields["reply"]` the assistant's reply
        to it, and `response` the user's next message.
        """
        return None

    def options(self, sample: Sample) -> tuple[str, ...]:
        """Return the texts behind a sample's choices, in the order of `choices`.

        They are the JSON list in the attribute `options`, else the choices themselves; empty
        without choices.  A task whose choices stand for texts elsewhere in the input overrides
        this.
        """
        if "options" in sample.attributes:
            return msgspec.json.decode(sample.attributes["options"], type=tuple[str, ...])
        return sample.choices

    def persona(self, sample: Sample) -> str:
        """Return the written description of the user that a history contains; empty without one."""
        return ""

    def chat(self, sample: Sample, records: Sequence[Record]) -> Rendered | None:
        """Render records as the original conversation; None if they are no conversation."""
        return None


# Beside the views rather than on them: an attribute of a view would lead back to the task.
_tasks: WeakKeyDictionary[WordingView, Wording] = WeakKeyDictionary()


class WordingView(Wording):
    """The wording of a task and nothing else of it, as methods get it."""

    def __init__(self, task: Wording) -> None:
        _tasks[self] = task
        for name in _CONSTANTS:
            # A task may leave out what its own code never uses.
            if hasattr(task, name):
                vars(self)[name] = getattr(task, name)

    def __getattr__(self, name: str) -> NoReturn:
        # Only called for names that are not part of the wording.
        raise AttributeError(
            f"ctx.task has no '{name}': a method gets the wording of a task, never its data, "
            "references or metrics"
        )

    def render(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
    ) -> Rendered:
        return _tasks[self].render(sample, records, notes, tokens)

    def render_content(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
    ) -> Rendered | None:
        return _tasks[self].render_content(sample, records, notes, tokens)

    def parse(
        self,
        output: str,
        sample: Sample,
        scorer: str,
    ) -> str | None:
        return _tasks[self].parse(output, sample, scorer)

    def describe(self, record: Record) -> str:
        return _tasks[self].describe(record)

    def query_text(self, sample: Sample) -> str:
        return _tasks[self].query_text(sample)

    def document_text(self, record: Record) -> str:
        return _tasks[self].document_text(record)

    def question(self, record: Record, like: Sample) -> Sample:
        return _tasks[self].question(record, like)

    def facts(self, fields: Mapping[str, str]) -> str:
        return _tasks[self].facts(fields)

    def exchanges(self, sample: Sample) -> Sequence[Record] | None:
        return _tasks[self].exchanges(sample)

    def options(self, sample: Sample) -> tuple[str, ...]:
        return _tasks[self].options(sample)

    def persona(self, sample: Sample) -> str:
        return _tasks[self].persona(sample)

    def chat(self, sample: Sample, records: Sequence[Record]) -> Rendered | None:
        return _tasks[self].chat(sample, records)


_CONSTANTS = (*Wording.__annotations__, "params")

guard_methods(Wording, CONTRACTS)
