"""LoCoMo's file: a JSON list of long conversations between two people, with questions about them.

A conversation holds `session_N`, a list of turns, and `session_N_date_time`.  Some date keys have
no session, some evidence names turns that do not exist or several in one text, and some answers are
numbers: all of this is read, and evidence that names no turn is counted.  Summaries, observations
and events, which the authors derived from the conversations, are never read, nor is a picture's
search query, which was written for the picture and not said by anybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from personabench.errors import DataError
from personabench.types import from_json

FILE = "locomo10.json"
_SESSION = re.compile(r"session_(\d{1,9})", re.ASCII)
_TURN_ID = re.compile(r"D:?(\d+):0*(\d+)")
_PUBLISHED_TURN_ID = re.compile(r"D\d+:[1-9]\d*")
_DATE_FORMAT = "%I:%M %p on %d %B, %Y"


class Turn(NamedTuple):
    """One turn: who says it in which session, and the text with the caption of a picture."""

    id: str
    session: str
    speaker: str
    text: str


class Session(NamedTuple):
    """One session: its id (`D3`), its time as ISO minutes, and its turns in order."""

    id: str
    time: str
    turns: tuple[Turn, ...]


class Question(NamedTuple):
    """One question.

    Attributes:
        category: 1 multi-hop, 2 temporal, 3 open domain, 4 single-hop, 5 adversarial.
        answer: the gold; empty for an adversarial question.
        decoy: the wrong answer that an adversarial question offers; empty for others.
        evidence: ids of the turns that hold the answer, those that exist.
        malformed_evidence: the number of texts under `evidence` that are in another form than
            "D8:6".
        lost_evidence: the number of texts or ids under `evidence` that name no turn.
    """

    id: str
    text: str
    category: int
    answer: str
    decoy: str
    evidence: tuple[str, ...]
    malformed_evidence: int
    lost_evidence: int


class Conversation(NamedTuple):
    """One conversation of two people, with the questions about it."""

    id: str
    speakers: tuple[str, str]
    sessions: tuple[Session, ...]
    questions: tuple[Question, ...]


class _Turn(msgspec.Struct, frozen=True):
    speaker: str
    dia_id: str
    text: str
    blip_caption: str = ""


class _Question(msgspec.Struct, frozen=True):
    question: str
    category: int
    answer: str | int | float = ""
    adversarial_answer: str | int | float = ""
    evidence: list[str] = []


class _Entry(msgspec.Struct, frozen=True):
    sample_id: str
    conversation: dict[str, Any]
    qa: list[_Question]


def locate(data: Path) -> Path:
    """Return the file itself, or the file of the official name in a folder.

    Raises:
        DataError: the folder has no such file.
    """
    if not data.is_dir():
        return data
    for path in (data / FILE, data / "data" / FILE, data / "locomo" / FILE):
        if path.is_file():
            return path
    raise DataError(f"{data} holds no {FILE}; name the folder or the file with --data")


def read_conversations(path: Path) -> Iterator[Conversation]:
    """Read the conversations of a file, in order.

    Raises:
        DataError: the file cannot be read or has another form; the message names entry and field.
    """
    try:
        entries = from_json(path.read_bytes(), list[msgspec.Raw])
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise DataError(f"{path} is not a JSON list of conversations: {error}") from error

    seen_ids: set[str] = set()
    for index, raw in enumerate(entries):
        location = f"{path}, conversation {index}"
        try:
            entry = from_json(raw, _Entry)
        except msgspec.MsgspecError as error:
            raise DataError(f"{location}: {error}") from error
        # Two conversations of one id would be one user, with one memory for both.
        if entry.sample_id in seen_ids:
            raise DataError(f"{location}: sample_id '{entry.sample_id}' occurs twice")
        seen_ids.add(entry.sample_id)
        yield _make_conversation(index, entry, f"{location} ({entry.sample_id})")


def _make_conversation(index: int, entry: _Entry, location: str) -> Conversation:
    speakers = []
    for key in ("speaker_a", "speaker_b"):
        speaker = entry.conversation.get(key)
        if not isinstance(speaker, str):
            raise DataError(f"{location}: conversation.{key} is missing, expected a name")
        speakers.append(speaker)

    sessions = tuple(_read_sessions(entry.conversation, location))
    turn_ids = [turn.id for session in sessions for turn in session.turns]
    if len(set(turn_ids)) != len(turn_ids):
        repeated = next(name for name in turn_ids if turn_ids.count(name) > 1)
        raise DataError(f"{location}: two turns have the dia_id '{repeated}'")

    known_ids = set(turn_ids)
    questions = tuple(
        _make_question(f"locomo_{index}_qa{number}", question, known_ids, location)
        for number, question in enumerate(entry.qa)
    )
    return Conversation(entry.sample_id, (speakers[0], speakers[1]), sessions, questions)


def _read_sessions(conversation: Mapping[str, Any], location: str) -> Iterator[Session]:
    matches = [match for match in map(_SESSION.fullmatch, conversation) if match is not None]
    keys = {int(match[1]): match[0] for match in matches}
    if len(keys) < len(matches):
        repeated = sorted(match[0] for match in matches if keys[int(match[1])] != match[0])
        raise DataError(f"{location}: conversation.{repeated[0]} is a second session of its number")
    for number, key in sorted(keys.items()):
        try:
            turns = msgspec.convert(conversation[key], list[_Turn])
        except msgspec.ValidationError as error:
            raise DataError(f"{location}: conversation.{key}: {error}") from error
        session_id = f"D{number}"
        yield Session(
            session_id,
            _read_time(conversation.get(f"{key}_date_time"), f"{location}, {key}_date_time"),
            tuple(_make_turn(turn, session_id) for turn in turns),
        )


def _make_turn(turn: _Turn, session: str) -> Turn:
    # The caption is all that a text model can know of a picture.
    caption = f" [{turn.blip_caption}]" if turn.blip_caption else ""
    return Turn(turn.dia_id, session, turn.speaker, turn.text + caption)


def _read_time(value: object, location: str) -> str:
    """Convert "9:05 am on 3 March, 2024" to "2024-03-03T09:05".

    Raises:
        DataError: the date is missing or has another form.
    """
    try:
        moment = datetime.strptime(str(value).strip(), _DATE_FORMAT)
    except ValueError as error:
        raise DataError(
            f"{location} is {value!r:.60}, expected a date such as '9:05 am on 3 March, 2024'"
        ) from error
    return moment.isoformat(timespec="minutes")


def _make_question(
    question_id: str, question: _Question, turn_ids: set[str], location: str
) -> Question:
    if question.category not in range(1, 6):
        raise DataError(
            f"{location}, {question_id}: category is {question.category}, expected 1 to 5"
        )
    is_adversarial = question.category == 5
    decoy = str(question.adversarial_answer) if is_adversarial else ""
    answer = "" if is_adversarial else str(question.answer)
    if not (answer or decoy):
        field = "adversarial_answer" if is_adversarial else "answer"
        raise DataError(f"{location}, {question_id}: no {field}")

    evidence, lost = find_evidence(question.evidence, turn_ids)
    malformed = [text for text in question.evidence if not _PUBLISHED_TURN_ID.fullmatch(text)]
    return Question(
        question_id,
        question.question,
        question.category,
        answer,
        decoy,
        evidence,
        len(malformed),
        lost,
    )


def find_evidence(texts: Sequence[str], turn_ids: set[str]) -> tuple[tuple[str, ...], int]:
    """Read turn ids from texts such as "D8:6; D9:17" or "D:11:26".

    Returns:
        The ids of turns that exist, and the number of texts or ids that name none.
    """
    evidence: list[str] = []
    lost = 0
    for text in texts:
        names = [f"D{session}:{turn}" for session, turn in _TURN_ID.findall(text)]
        known = [name for name in names if name in turn_ids]
        lost += len(names) - len(known) if names else 1
        evidence += [name for name in known if name not in evidence]
    return tuple(evidence), lost
