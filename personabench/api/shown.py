"""Find out which records a model saw in the requests for an answer or a profile.

A request that `Context.render` made is known to hold the records that the task rendered.  Any other
text (a prompt of the method's own, notes about the user) is searched for the records of the
visible history, so that no method has to report anything.

A record is found by the beginning of its response.  A response too short to distinguish records,
such as a label, counts only together with its stimulus, or, without one, as a line of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from personabench.types import Record, Sample

# A text of fewer bytes occurs by chance.  Bytes, because a few Chinese characters are a sentence.
_TELLING = 20
# Methods may truncate records, so that their whole text would miss some.
_MARK = 60
# White space may be long, and a mark is taken from the beginning of a text alone.
_BEGINNING = 4 * _MARK
_NEAR = 10_000


class Sent(NamedTuple):
    """A request to the model under test.

    Attributes:
        records: the records that the task rendered into it.
        texts: its further texts, which may quote records.
    """

    records: tuple[Record, ...]
    texts: tuple[str, ...]


def list_shown(
    history: Sequence[Record],
    requests: Sequence[Sent],
    sample: Sample | None = None,
) -> tuple[str, ...]:
    """List the ids of the history's records that requests show, in the order of first showing.

    Records of other users do not count, even if their ids are the same.

    Args:
        sample: the sample that the requests answer; its own text is not searched.
    """
    # Requests without records or notes, such as those of a method without a history, show none.
    if not history or not any(map(any, requests)):
        return ()

    questions = (sample.input, sample.stimulus) if sample else ()
    visible = {record.id: record for record in history}
    records: list[_Searched] = []
    shown: dict[str, None] = {}
    searched: set[str] = set()
    for request in requests:
        for record in request.records:
            if _is_same(record, visible.get(record.id)):
                shown[record.id] = None

        # Requests of one sample often repeat a text, such as a history before several questions.
        texts = [text for text in request.texts if text not in searched]
        searched.update(texts)
        if texts:
            # Split once for all requests: a long history is searched for in every one of them.
            records = records or [_Searched.of(record) for record in history]
            shown.update(dict.fromkeys(_find_quoted(records, texts, questions)))
    return tuple(shown)


def find_quoted(
    history: Sequence[Record],
    texts: Iterable[str],
    questions: Sequence[str | None] = (),
) -> list[str]:
    """List the ids of the history's records that texts quote, in the order of the history.

    Args:
        questions: texts of the sample that are not searched.
    """
    return _find_quoted([_Searched.of(record) for record in history], texts, questions)


class _Searched(NamedTuple):
    """A record with the text that tells it apart, and the first words of that text."""

    record: Record
    text: str
    words: list[str]

    @classmethod
    def of(cls, record: Record) -> _Searched:
        text = _telling_text(record)
        # The outer words may be cut, or touch quotation marks in the prompt.
        return cls(record, text, text[:_MARK].split()[1:-1])


def _find_quoted(
    history: Sequence[_Searched], texts: Iterable[str], questions: Sequence[str | None]
) -> list[str]:
    prompt = _Prompt([_remove_questions(text, questions) for text in texts])
    # A record whose first words do not occur is ruled out at once, as most are.
    candidates = [searched for searched in history if prompt.words.issuperset(searched.words)]
    marks = [_mark(text) for _, text, _ in candidates]
    counts = Counter(marks)
    quoted = []
    for (record, text, _), mark in zip(candidates, marks, strict=True):
        # Texts that begin alike are told apart by the whole of them.
        shortest = mark if counts[mark] == 1 else _flatten(text)
        if _is_quoted(record, shortest, prompt):
            quoted.append(record.id)
    return quoted


class _Prompt:
    """Texts to be searched for records."""

    def __init__(self, texts: Sequence[str]) -> None:
        # Records are often listed as JSON, whose escapes hide their text.
        texts = [*texts, *(_unescape(text) for text in texts if "\\" in text)]
        self._lines = [line for text in texts for line in text.split("\n")]
        words = " ".join(texts).split()
        self._text = " ".join(words)
        self.words = set(words)
        self._position = 0
        self._units: set[str] = set()

    def __contains__(self, text: str) -> bool:
        # Prompts mostly show records in order, so the next one is near the last one.  A search
        # from the beginning for each record of a long history would take seconds.
        near = max(0, self._position - _NEAR)
        position = self._text.find(text, near, self._position + _NEAR)
        if position < 0:
            position = self._text.find(text)
        if position >= 0:
            self._position = position
        return position >= 0

    def has_line(self, text: str) -> bool:
        """Whether a text is a whole line, or the part of a line after a label."""
        if not self._units:
            for line in self._lines:
                _, _, labelled = line.partition(": ")
                self._units |= {_strip(line), _strip(labelled)}
        return _strip(text) in self._units


def _telling_text(record: Record) -> str:
    """The text of a record that tells it apart: its response, or the stimulus of a short one."""
    return record.response if _is_telling(record.response) else record.stimulus or record.response


def _is_quoted(record: Record, text: str, prompt: _Prompt) -> bool:
    if not text:
        return False
    if _is_telling(record.response):
        return text in prompt
    if record.stimulus:
        return text in prompt and record.response.strip() in prompt
    return prompt.has_line(text)


def _is_same(record: Record, visible: Record | None) -> bool:
    """Whether a rendered record is the visible one of its id, perhaps shortened by the method."""
    if visible is None or record is visible:
        return visible is not None
    same_stimulus = record.stimulus is not None and record.stimulus == visible.stimulus
    return same_stimulus or visible.response.startswith(record.response)


def _remove_questions(text: str, questions: Sequence[str | None]) -> str:
    """Remove a sample's own text: a question may repeat a record without showing it."""
    for question in questions:
        if question and _is_telling(question):
            # The last occurrence alone, since an earlier one may be a record's.
            before, _, after = text.rpartition(question)
            text = f"{before}\n{after}"
    return text


def _is_telling(text: str) -> bool:
    return len(text) >= _TELLING or len(text.encode()) >= _TELLING


def _mark(text: str) -> str:
    return _flatten(text[:_BEGINNING])[:_MARK]


def _flatten(text: str) -> str:
    """Write a text in one line with single spaces."""
    return " ".join(text.split())


def _unescape(text: str) -> str:
    return text.replace("\\n", "\n").replace('\\"', '"')


def _strip(line: str) -> str:
    return line.strip(" \t\"'“”*-•")
