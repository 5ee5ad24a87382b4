"""LongMemEval's files: a JSON list of questions, each with its own haystack of sessions.

A file has up to 2.7 GB, so it is mapped into memory and its entries are decoded one at a time.
Marks of evidence are labels: session ids that begin with "answer" and turns with `has_answer`
never leave this module but as evidence.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from personabench.errors import DataError, UsageError
from personabench.types import from_json

T = TypeVar("T")
FILES: dict[str, str] = {
    "oracle": "longmemeval_oracle.json",
    "s": "longmemeval_s_cleaned.json",
    "m": "longmemeval_m_cleaned.json",
}
TYPES = (
    "single-session-user",
    "single-session-assistant",
    "single-session-preference",
    "multi-session",
    "knowledge-update",
    "temporal-reasoning",
)
_DATE = re.compile(r"(\d{4})/(\d{2})/(\d{2})\D*(\d{2}):(\d{2})")
_ABSTENTION = "_abs"


class Turn(msgspec.Struct, frozen=True):
    """One turn of a session, with its mark of evidence."""

    role: str
    content: str
    has_answer: bool = False


class Session(NamedTuple):
    """One session: its time as ISO minutes, its turns, and whether it holds evidence."""

    time: str
    turns: Sequence[Turn]
    is_evidence: bool


class Question(NamedTuple):
    """One question with its sessions in the order of time."""

    id: str
    type: str
    text: str
    answer: str
    time: str
    sessions: Sequence[Session]

    @property
    def is_abstention(self) -> bool:
        """Whether the haystack does not hold the answer."""
        return self.id.endswith(_ABSTENTION)


class _Entry(msgspec.Struct, frozen=True):
    question_id: str
    question_type: str
    question: str
    answer: str | int | float
    question_date: str
    haystack_session_ids: list[str]
    haystack_dates: list[str]
    haystack_sessions: list[list[Turn]]
    answer_session_ids: list[str] = []


class _Id(msgspec.Struct, frozen=True):
    question_id: str


class Questions:
    """The questions of a file, decoded on access.

    Raises:
        DataError: the file cannot be read or is no JSON list of questions.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise DataError(f"{path} is empty") from error
        try:
            # Raw entries are views of the mapped file, so the list takes little memory.
            self._entries = from_json(text, list[msgspec.Raw])
        except msgspec.MsgspecError as error:
            raise DataError(f"{path} is not a JSON list of questions: {error}") from error

    def __len__(self) -> int:
        return len(self._entries)

    def ids(self) -> Iterator[str]:
        """Yield the ids of all questions, in order."""
        for index in range(len(self)):
            yield self._decode(index, _Id).question_id

    def __getitem__(self, index: int) -> Question:
        entry = self._decode(index, _Entry)
        location = f"{self.path}, question {entry.question_id}"
        if entry.question_type not in TYPES:
            raise DataError(
                f"{location}: question_type is {entry.question_type!r:.60}, "
                f"expected one of: {', '.join(TYPES)}"
            )
        if not (entry.question.strip() and str(entry.answer).strip()):
            raise DataError(f"{location}: question or answer is empty")
        columns = entry.haystack_session_ids, entry.haystack_dates, entry.haystack_sessions
        lengths = [len(column) for column in columns]
        if len(set(lengths)) != 1:
            numbers = ", ".join(map(str, lengths))
            raise DataError(f"{location}: ids, dates and sessions differ in number ({numbers})")

        marked = set(entry.answer_session_ids)
        sessions = [
            Session(_read_time(date, location), turns, session_id in marked)
            for session_id, date, turns in zip(*columns, strict=True)
        ]
        # The sort is stable, and the published files are not all in this order.
        sessions.sort(key=lambda session: session.time)
        return Question(
            entry.question_id,
            entry.question_type,
            entry.question,
            str(entry.answer),
            _read_time(entry.question_date, location),
            sessions,
        )

    def __iter__(self) -> Iterator[Question]:
        return (self[index] for index in range(len(self)))

    def _decode(self, index: int, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(self._entries[index], type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}, question {index}: {error}") from error


def check_split(split: str) -> None:
    """Refuse a split that does not exist.

    Raises:
        UsageError: no such split.
    """
    if split not in FILES:
        raise UsageError(f"longmemeval has no split '{split}'; it has: {', '.join(FILES)}")


def locate(data: Path, split: str) -> Path:
    """Return the file of a split, in a folder or named itself.

    Raises:
        DataError: the folder does not hold the file.
    """
    if not data.is_dir():
        return data
    name = FILES[split]
    # Before their cleaning in 2025 the files had names without the word.
    for path in (data / name, data / "longmemeval" / name, data / name.replace("_cleaned", "")):
        if path.is_file():
            return path
    raise DataError(f"{data} holds no {name}; name the folder or the file with --data")


def _read_time(value: str, location: str) -> str:
    """Convert "2023/05/30 (Tue) 23:40" to "2023-05-30T23:40".

    Raises:
        DataError: the date has another form.
    """
    match = _DATE.fullmatch(value.strip())
    try:
        if match is None:
            raise ValueError
        year, month, day, hour, minute = map(int, match.groups())
        date = datetime(year, month, day, hour, minute)
    except ValueError as error:
        raise DataError(
            f"{location}: date is {value!r:.60}, expected one such as 2023/05/30 23:40"
        ) from error
    return date.isoformat(timespec="minutes")
