"""Reader of PersonaMem-v2's files: a table of questions (CSV) and one history (JSON) per persona.

The table has one row per question, with the tested preference, the turns that give it away, and
paths of two histories of the persona, of about 32,000 and 128,000 tokens.  A query is the text of a
Python dict, which is parsed as a literal and never evaluated.
"""

from __future__ import annotations

import ast
import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import msgspec

from personabench.errors import DataError, UsageError
from personabench.types import from_json, normalized

SAMPLE = Path(__file__).parent / "sample"
FILE = "benchmark.csv"
FOLDER = PurePosixPath("benchmark", "text")
# SHA-256 of the published table at revision 0622e56d of the dataset.
PUBLISHED_HASHES = {FILE: "95f2a8a324aab7baf2af937feae12731369e2abf7cad5ab3e170594cb25a3e52"}
SPLITS = ("32k", "128k")

TYPES = (
    "stereotypical_pref",
    "anti_stereotypical_pref",
    "neutral_pref",
    "therapy_background",
    "health_and_medical_conditions",
    "sensitive_info",
    "ask_to_forget",
)
"""The published types of preferences, in the order of the tables."""

FORGET = "ask_to_forget"
OTHERS = "others"
COLUMNS = (
    "persona_id",
    "chat_history_32k_link",
    "chat_history_128k_link",
    "short_persona",
    "expanded_persona",
    "user_query",
    "correct_answer",
    "incorrect_answers",
    "topic_query",
    "preference",
    "conversation_scenario",
    "pref_type",
    "related_conversation_snippet",
    "who",
    "updated",
    "prev_pref",
    "sensitive_info",
    "distance_from_related_snippet_to_query_32k",
    "distance_from_related_snippet_to_query_128k",
)
"""The columns that are read; the published table has 27."""

_MULTIMODAL = "multimodal"
_DISTRACTORS = 3
# Rows and histories are long; the csv module refuses cells over 131,072 characters by default.
_FIELD_LIMIT = 1 << 27
_WHOLE_NUMBER = re.compile(r"\d{1,12}(\.0+)?")
_FLAGS = {"true": True, "false": False, "": False}

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


class Row(NamedTuple):
    """A question.

    Attributes:
        id: persona and the row's position among those of the persona, from 0, such as `17-3`.
        correct, wrong: the reply that suits the user, and three that do not.
        type, who: the kind of preference, and whose it is: `self` or `others`.
        updated: whether the preference replaced an earlier one, which is `previous`.
        snippet: the user's turns that give the preference away; empty if the cell has none.
        link: path of the history in the split, from the root of the dataset.
        distance: tokens between snippet and question.
    """

    id: str
    persona: str
    query: str
    correct: str
    wrong: tuple[str, ...]
    topic: str
    scenario: str
    preference: str
    previous: str
    updated: bool
    type: str
    who: str
    snippet: tuple[str, ...]
    profile: str
    link: str
    distance: int


class Turn(NamedTuple):
    """One message of a history."""

    role: Role
    content: str


class History(NamedTuple):
    """A history: the description of the user that opens it, its turns, and broken messages.

    Attributes:
        rejected: positions of messages without a role or a text, which are left out.
    """

    persona: str
    turns: tuple[Turn, ...]
    rejected: tuple[int, ...]


def check_split(split: str) -> None:
    """Refuse a split that does not exist.

    Raises:
        UsageError: no such split.
    """
    if split not in SPLITS:
        raise UsageError(
            f"personamem_v2 has no split '{split}'; it has: {', '.join(SPLITS)}, two lengths of "
            "the same histories"
        )


def locate(data: Path | None) -> tuple[Path, Path]:
    """Return the table and the root that the paths of histories begin at.

    Raises:
        DataError: there is no table, or only that of the questions about images.
    """
    if data is None:
        return SAMPLE / FOLDER / FILE, SAMPLE
    if not data.is_dir():
        _refuse_images(data)
        folder = data.parent
        is_nested = PurePosixPath(folder.as_posix()).parts[-2:] == FOLDER.parts
        return data, folder.parents[1] if is_nested else folder

    for root in (data, data / "personamem_v2"):
        for path in (root / FOLDER / FILE, root / FILE):
            if path.is_file():
                return path, root
    if (data / FOLDER.parent / _MULTIMODAL).is_dir():
        _refuse_images(data / FOLDER.parent / _MULTIMODAL)
    raise DataError(
        f"{data} holds no {FOLDER / FILE}; name the root of the dataset or the table with --data"
    )


def _refuse_images(path: Path) -> None:
    if _MULTIMODAL in path.parts:
        raise DataError(
            f"{path} has questions about images, which this task does not read; "
            f"use {FOLDER / FILE} of the same dataset"
        )


def read_rows(path: Path, split: str) -> list[Row]:
    """Read the questions of a table, in order.

    Raises:
        DataError: the file is missing or broken, or breaks a rule; the message names row and
            column.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    counts: Counter[str] = Counter()
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, reader.fieldnames or ())
            for number, cells in enumerate(reader, start=1):
                location = f"{path}, row {number}"
                if None in cells or None in cells.values():
                    raise DataError(f"{location}: more or fewer cells than the header")
                rows.append(_read_row(cells, split, counts, location))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"{path} holds no questions")
    return rows


def _check_columns(path: Path, names: Sequence[str]) -> None:
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)}; it has: {', '.join(names) or 'none'}"
        )


def _read_row(cells: Mapping[str, str], split: str, counts: Counter[str], location: str) -> Row:
    persona = cells["persona_id"].strip()
    if not persona:
        raise DataError(f"{location}: persona_id is empty")
    for column in ("user_query", "correct_answer"):
        if not cells[column].strip():
            raise DataError(f"{location}: {column} is empty")

    position = counts[persona]
    counts[persona] += 1
    return Row(
        id=f"{persona}-{position}",
        persona=persona,
        query=read_query(cells["user_query"]),
        correct=cells["correct_answer"].strip(),
        wrong=_read_distractors(cells["incorrect_answers"], location),
        topic=cells["topic_query"],
        scenario=cells["conversation_scenario"].strip(),
        preference=cells["preference"].strip(),
        previous=cells["prev_pref"].strip(),
        updated=_read_flag(cells["updated"], f"{location}, updated"),
        type=cells["pref_type"].strip(),
        who=cells["who"].strip(),
        snippet=read_snippet(cells["related_conversation_snippet"]),
        profile=cells["expanded_persona"] or cells["short_persona"],
        link=_check_link(cells[f"chat_history_{split}_link"], location),
        distance=_read_number(
            cells[f"distance_from_related_snippet_to_query_{split}"], f"{location}, distance"
        ),
    )


def read_query(cell: str) -> str:
    """Return the text of a query, whose cell is a Python dict as text or the text itself."""
    try:
        value = ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        # Not a literal: a plain text, whatever it looks like.
        return cell.strip()
    content = value.get("content") if isinstance(value, dict) else None
    return content.strip() if isinstance(content, str) and content.strip() else cell.strip()


def _read_distractors(cell: str, location: str) -> tuple[str, ...]:
    try:
        texts = from_json(cell, list[str])
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{location}: incorrect_answers is not a JSON list of texts: {error}"
        ) from error
    if len(texts) != _DISTRACTORS or not all(text.strip() for text in texts):
        raise DataError(f"{location}: incorrect_answers has {len(texts)} texts, expected 3")
    return tuple(text.strip() for text in texts)


def _read_flag(cell: str, location: str) -> bool:
    flag = _FLAGS.get(cell.strip().lower())
    if flag is None:
        raise DataError(f"{location}: '{cell}' is neither True nor False")
    return flag


def _read_number(cell: str, location: str) -> int:
    # Numbers may be written as floats, such as 3.0.
    if not _WHOLE_NUMBER.fullmatch(cell.strip()):
        raise DataError(f"{location}: '{cell}' is not a whole number")
    return int(float(cell))


def _check_link(cell: str, location: str) -> str:
    path = PurePosixPath(cell.strip())
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise DataError(f"{location}: the path of the history is '{cell}', expected one below data")
    return str(path)


def read_snippet(cell: str) -> tuple[str, ...]:
    """Return the user's turns of a snippet; empty if the cell has none that can be read."""
    try:
        turns = from_json(cell, list[Any])
    except msgspec.MsgspecError:
        return ()
    texts = []
    for turn in turns:
        if isinstance(turn, dict) and turn.get("role", "user") == "user":
            turn = turn.get("content")
        if isinstance(turn, str) and normalized(turn):
            texts.append(turn)
    return tuple(texts)


def read_history(path: Path) -> History:
    """Read a history, `{"metadata", "chat_history"}` or the bare list of messages.

    A message without a role or a text is left out, and its position is in `rejected`.

    Raises:
        DataError: the file is missing, is no JSON or has no list of messages, or no message of it
            can be used.
    """
    try:
        content = from_json(path.read_bytes(), Any)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise DataError(f"{path} is not a JSON file: {error}") from error

    messages = content.get("chat_history") if isinstance(content, dict) else content
    if not isinstance(messages, list):
        raise DataError(f"{path}: chat_history is missing, expected a list of messages")

    persona = ""
    turns: list[Turn] = []
    rejected = []
    for index, message in enumerate(messages):
        turn = _read_turn(message)
        if turn is None:
            rejected.append(index)
        elif turn.role != "system":
            turns.append(turn)
        elif not persona:
            persona = turn.content
    if not turns:
        raise DataError(f"{path} has no message of a user or an assistant")
    return History(persona, tuple(turns), tuple(rejected))


def _read_turn(message: Any) -> Turn | None:
    if not isinstance(message, dict):
        return None
    role, content = message.get("role"), message.get("content")
    if role not in ROLES or not isinstance(content, str) or not content.strip():
        return None
    return Turn(ROLES[ROLES.index(role)], content)
