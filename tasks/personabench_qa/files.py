"""Files of PersonaBench's private-data questions: communities of people and their documents.

A community's folder holds `eval_info` with questions and gold segments, and `private_data` with
conversations, talks with an assistant and purchases at several levels of noise.  Only some of the
listed people have documents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from personabench.errors import DataError
from personabench.types import from_json

T = TypeVar("T")
SOURCES = {
    "conversation": "conversation",
    "assistant": "user_ai_interaction",
    "purchase": "purchase_history",
}
"""Sources of documents in the order of the reference, with the names of their files and fields."""

CATEGORIES = ("basic", "preference-easy", "preference-hard", "social", "subjective")
"""The paper's categories of questions; subjective ones are not scored."""

_MONTHS = {
    **{"Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6},
    **{"Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11, "Dec": 12},
}
_TIME = re.compile(r"(\d{4})/([A-Z][a-z]{2})/(\d{1,2})/(\d{1,2}):(\d{2}) (AM|PM)")
# Neither is content: a session's name and its id.
_MARKS = ("segment_id", "session")


class Document(NamedTuple):
    """One session: its segment id, its source, its time as ISO minutes and the session itself."""

    id: str
    source: str
    time: str
    session: Mapping[str, Any]

    def dump(self) -> str:
        """Write the session as JSON without its marks, as the reference retrieves it."""
        content = {key: value for key, value in self.session.items() if key not in _MARKS}
        # With blanks after separators, since retrieval may split texts at blanks.
        return json.dumps(content)

    def lines(self) -> str:
        """Write the session as plain lines, one per turn or purchase."""
        entries = self.session[SOURCES[self.source]]
        if self.source == "purchase":
            return "\n".join(f"Bought: {_describe_purchase(entry)}" for entry in entries)
        return "\n".join(f"{turn.get('role')}: {turn.get('content')}" for turn in entries)


class Question(NamedTuple):
    """One question.

    Attributes:
        answer: a text, a number, or a list of texts and objects with one key.
        outdated: former values that the answer must not repeat; empty without any.
        segments: for each value of the answer, the ids of alternative segments that hold it.
    """

    id: str
    text: str
    answer: Any
    type: str
    difficulty: str
    outdated: Sequence[Any]
    segments: Sequence[Sequence[str]]

    @property
    def category(self) -> str:
        """The category of the paper, in which only preferences are divided by difficulty."""
        if self.type == "Preference":
            return f"preference-{self.difficulty}"
        return self.type.partition(" ")[0].lower()


class Person(NamedTuple):
    """A person with documents and questions."""

    community: str
    name: str
    documents: Sequence[Document]
    questions: Sequence[Question]


class _Question(msgspec.Struct, frozen=True):
    q_id: str
    question: str
    answer: Any
    type: str
    difficulty: str
    outdated_value: Any = None


class _Questions(msgspec.Struct, frozen=True):
    qa: list[_Question]


class _Evaluated(msgspec.Struct, frozen=True):
    name: str = msgspec.field(name="Name")
    info: _Questions = msgspec.field(name="Eval_Info")


class _Golds(msgspec.Struct, frozen=True):
    q_id: str
    segment_id: dict[str, list[str]]


class _Owner(msgspec.Struct, frozen=True):
    name: str = msgspec.field(name="Name")
    data: list[dict[str, Any]] = msgspec.field(name="Data")


def find_communities(data: Path) -> list[Path]:
    """Return the folders of communities in a folder, or the folder itself if it is one.

    Raises:
        DataError: there is none.
    """
    if (data / "eval_info").is_dir():
        return [data]
    for root in (data, data / "personabench_qa", *data.glob("eval_data/*/synthetic_data")):
        communities = sorted(root.glob("community_*")) if root.is_dir() else []
        if communities:
            return communities
    raise DataError(f"{data} has no folder community_0; name the folder synthetic_data with --data")


def read_community(folder: Path, noise: str) -> tuple[list[Person], int]:
    """Read the people of a community who have documents.

    Returns:
        The people, and the number of those without documents, who are left out.

    Raises:
        DataError: a file is missing or broken, or there are no documents of this noise.
    """
    data_folder = folder / "private_data" / f"noise_{noise}"
    if not data_folder.is_dir():
        levels = sorted(path.name.removeprefix("noise_") for path in data_folder.parent.glob("n*"))
        raise DataError(
            f"{data_folder.parent} has no noise {noise}; it has: {', '.join(levels) or 'none'}"
        )

    golds_path = folder / "eval_info" / f"qa_gt_context_all_noise_{noise}.json"
    golds = {gold.q_id: gold.segment_id for gold in _read(golds_path, list[_Golds])}
    documents: dict[str, list[Document]] = {}
    for source, stem in SOURCES.items():
        path = data_folder / f"{stem}_data_all.json"
        for owner in _read(path, list[_Owner]):
            owned = documents.setdefault(owner.name, [])
            owned += _read_documents(owner.data, source, f"{path}, {owner.name}")

    evaluated_path = folder / "eval_info" / "eval_info_all.json"
    evaluated = _read(evaluated_path, list[_Evaluated])
    people = [
        Person(
            folder.name,
            person.name,
            # Stable, so that sessions of one minute stay in the order of the reference.
            sorted(documents[person.name], key=lambda document: document.time),
            [
                _make_question(question, golds, f"{evaluated_path}, question {question.q_id}")
                for question in person.info.qa
            ],
        )
        for person in evaluated
        if documents.get(person.name)
    ]
    return people, len(evaluated) - len(people)


def _read_documents(
    entries: Sequence[Mapping[str, Any]], source: str, location: str
) -> Iterator[Document]:
    for entry in entries:
        # Conversations are grouped by the other person.
        sessions = entry.get("Conversations", [entry])
        for session in sessions if isinstance(sessions, list) else [sessions]:
            yield _make_document(session, source, location)


def _make_document(session: Any, source: str, location: str) -> Document:
    field = SOURCES[source]
    if not isinstance(session, dict) or not isinstance(session.get(field), list):
        raise DataError(f"{location}: a session has no list {field}")
    segment = session.get("segment_id")
    location = f"{location}, segment {segment}"
    if not isinstance(segment, str):
        raise DataError(f"{location}: segment_id is no text")
    if not all(isinstance(entry, dict) for entry in session[field]):
        raise DataError(f"{location}: {field} holds something other than objects")
    if source != "purchase":
        for number, turn in enumerate(session[field]):
            if not isinstance(turn.get("role"), str) or not isinstance(turn.get("content"), str):
                raise DataError(f"{location}, turn {number}: role and content are not both texts")
    return Document(segment, source, read_time(session.get("time"), location), session)


def read_time(value: object, location: str) -> str:
    """Convert "2023/Feb/03/09:05 PM" to "2023-02-03T21:05".

    Raises:
        DataError: the time has another form.
    """
    match = _TIME.fullmatch(str(value))
    try:
        if match is None or not 1 <= int(match[4]) <= 12:
            raise ValueError
        year, month, day, hour, minute, half = match.groups()
        hours = int(hour) % 12 + (12 if half == "PM" else 0)
        date = datetime(int(year), _MONTHS[month], int(day), hours, int(minute))
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{location}: time is {value!r:.60}, expected one such as 2023/Feb/03/09:05 PM"
        ) from error
    return date.isoformat(timespec="minutes")


def _make_question(
    question: _Question, golds: Mapping[str, Mapping[str, list[str]]], location: str
) -> Question:
    outdated = question.outdated_value
    if outdated is None:
        outdated = []
    # An empty answer has no words that a reply could share, and null would be the word "none".
    for value in question.answer if isinstance(question.answer, list) else [question.answer]:
        if value is None or isinstance(value, bool | list) or value in ("", {}):
            raise DataError(f"{location}: an answer is {value!r:.60}, expected a text or a number")
    made = Question(
        question.q_id,
        question.question,
        question.answer,
        question.type,
        question.difficulty,
        outdated if isinstance(outdated, list) else [outdated],
        # Sorted, so that the order of the keys in the file means nothing.
        [segments for _, segments in sorted(golds.get(question.q_id, {}).items()) if segments],
    )
    if question.answer == []:
        raise DataError(f"{location}: answer is an empty list")
    if made.category not in CATEGORIES:
        raise DataError(
            f"{location}: type and difficulty are {question.type!r:.60} and "
            f"{question.difficulty!r:.60}, which make none of: {', '.join(CATEGORIES)}"
        )
    return made


def _describe_purchase(entry: Mapping[str, Any]) -> str:
    parts = [str(entry[key]) for key in ("title", "brand", "description") if entry.get(key)]
    return "; ".join(parts)


def _read(path: Path, kind: type[T]) -> T:
    try:
        return from_json(path.read_bytes(), kind)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise DataError(f"{path} is not a file of PersonaBench: {error}") from error
