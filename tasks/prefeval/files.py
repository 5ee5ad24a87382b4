"""PrefEval's files: 20 topics in four forms, row by row the same preference and question.

`explicit_preference` states the preference, `implicit_preference/choice-based` and `persona-driven`
show it in a conversation, `mcq_options` has four replies of which the first is right.
`filtered_inter_turns.json` holds conversations of other people, the filler between preference and
question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import msgspec

from personabench.errors import DataError, UsageError
from personabench.types import from_json

T = TypeVar("T")
Form = Literal["explicit", "choice", "persona"]
# The stems are named, since the published folder also holds a stray copy of one file.
TOPICS: Mapping[str, int] = {
    "education_learning_styles": 31,
    "education_resources": 54,
    "entertain_games": 51,
    "entertain_music_book": 56,
    "entertain_shows": 62,
    "entertain_sports": 52,
    "lifestyle_beauty": 53,
    "lifestyle_dietary": 57,
    "lifestyle_fit": 52,
    "lifestyle_health": 49,
    "pet_ownership": 43,
    "professional_work_location_style": 36,
    "shop_fashion": 54,
    "shop_home": 56,
    "shop_motors": 45,
    "shop_technology": 35,
    "travel_activities": 58,
    "travel_hotel": 54,
    "travel_restaurant": 56,
    "travel_transportation": 46,
}
"""The published topics, with their numbers of rows."""

OPTIONS_FOLDER = "mcq_options"
FORM_FOLDERS: Mapping[Form, str] = {
    "explicit": "explicit_preference",
    "choice": "implicit_preference/choice-based",
    "persona": "implicit_preference/persona-driven",
}
FILLER = "filtered_inter_turns.json"
_ROOT = "benchmark_dataset"
# Python reads numbers of a few thousand digits at most.
_POSITION = re.compile(r"\d{1,9}", re.ASCII)


class Exchange(NamedTuple):
    """A user's message and the assistant's reply."""

    user: str
    assistant: str


class Row(NamedTuple):
    """One preference and its question.

    Attributes:
        id: topic and position, such as `pet_ownership-007`.
        exchanges: the conversation that shows the preference.  Empty for the explicit form, which
            has a statement and no reply.
        options: the four replies, the right one first.
    """

    id: str
    topic: str
    preference: str
    question: str
    exchanges: tuple[Exchange, ...]
    options: tuple[str, ...]


class _Statement(msgspec.Struct, frozen=True):
    preference: str
    question: str


class _Choice(msgspec.Struct, frozen=True):
    query: str
    assistant_options: str
    user_selection: str
    assistant_acknowledgment: str


class _ChoiceRow(_Statement, frozen=True):
    conversation: _Choice


class _Turn(msgspec.Struct, frozen=True):
    user: str
    assistant: str


class _PersonaRow(_Statement, frozen=True):
    conversation: dict[str, _Turn]


class _Options(_Statement, frozen=True):
    classification_task_options: list[str]


class _Message(msgspec.Struct, frozen=True):
    role: Literal["user", "assistant"]
    content: str


class _Filler(msgspec.Struct, frozen=True):
    conversation: list[_Message]


def find_root(data: Path) -> Path:
    """Return the folder with the four forms, which may be inside `data`.

    Raises:
        DataError: there is none.
    """
    for root in (data, data / _ROOT, data / "prefeval"):
        if (root / OPTIONS_FOLDER).is_dir():
            return root
    raise DataError(
        f"{data} has no folder {OPTIONS_FOLDER}; name the folder {_ROOT} of PrefEval with --data"
    )


def choose_topics(root: Path, topic: str) -> list[str]:
    """Return the topics to read: the one that is named, or all that the folder has.

    Raises:
        UsageError: there is no such topic.
        DataError: the folder holds none of the topics.
    """
    if topic and topic not in TOPICS:
        raise UsageError(f"prefeval has no topic '{topic}'; it has: {', '.join(TOPICS)}")
    if topic:
        return [topic]
    present = [stem for stem in TOPICS if (root / OPTIONS_FOLDER / f"{stem}.json").exists()]
    if not present:
        raise DataError(f"{root / OPTIONS_FOLDER} holds none of PrefEval's topics")
    return present


def read_topic(root: Path, topic: str, form: Form) -> Iterator[Row]:
    """Read the rows of a topic.

    Raises:
        DataError: a file is missing or broken, or the files of two forms do not match.
    """
    options_path = root / OPTIONS_FOLDER / f"{topic}.json"
    form_path = root / FORM_FOLDERS[form] / f"{topic}.json"
    options = _read(options_path, list[_Options])
    exchanges = _read_exchanges(form_path, form)
    if len(options) != len(exchanges):
        raise DataError(
            f"{form_path} has {len(exchanges)} rows, and {options_path} has {len(options)}; "
            "row by row they are the same question"
        )

    for index, (row, (statement, conversation)) in enumerate(zip(options, exchanges, strict=True)):
        location = f"{options_path}, row {index}"
        if row.question != statement.question:
            raise DataError(f"{location}: the question is another one than in {form_path}")
        texts = tuple(row.classification_task_options)
        if len(texts) != 4 or len(set(texts)) != 4:
            raise DataError(
                f"{location}: expected four different options, not {len(texts)} of which "
                f"{len(set(texts))} differ"
            )
        yield Row(
            f"{topic}-{index:03d}",
            topic,
            # A few rows word the preference differently with the options.
            statement.preference,
            row.question,
            conversation,
            texts,
        )


def _read_exchanges(path: Path, form: Form) -> Sequence[tuple[_Statement, tuple[Exchange, ...]]]:
    if form == "explicit":
        return [(row, ()) for row in _read(path, list[_Statement])]
    if form == "choice":
        return [(row, _split_choice(row.conversation)) for row in _read(path, list[_ChoiceRow])]
    return [
        (row, _order_exchanges(row.conversation, f"{path}, row {index}"))
        for index, row in enumerate(_read(path, list[_PersonaRow]))
    ]


def _split_choice(conversation: _Choice) -> tuple[Exchange, ...]:
    return (
        Exchange(conversation.query, conversation.assistant_options),
        Exchange(conversation.user_selection, conversation.assistant_acknowledgment),
    )


def _order_exchanges(conversation: Mapping[str, _Turn], location: str) -> tuple[Exchange, ...]:
    if not all(_POSITION.fullmatch(key) for key in conversation):
        raise DataError(f"{location}: the keys of a conversation are numbers, expected 0, 1, ...")
    ordered = sorted(conversation.items(), key=lambda entry: int(entry[0]))
    return tuple(Exchange(turn.user, turn.assistant) for _, turn in ordered)


def read_filler(root: Path, count: int) -> tuple[Exchange, ...]:
    """Read the first exchanges of the filler.

    Raises:
        DataError: the file is missing or broken.
        UsageError: it has fewer exchanges.
    """
    if not count:
        return ()
    path = root / FILLER
    exchanges: list[Exchange] = []
    for number, entry in enumerate(_read(path, list[_Filler])):
        messages = entry.conversation
        roles = [message.role for message in messages]
        if roles != ["user", "assistant"] * (len(roles) // 2):
            raise DataError(f"{path}, conversation {number}: user and assistant do not alternate")
        for user, assistant in zip(messages[::2], messages[1::2], strict=True):
            exchanges.append(Exchange(user.content, assistant.content))
    if count > len(exchanges):
        raise UsageError(
            f"turns is {count}, but {path} has {len(exchanges)} exchanges; choose at most as many"
        )
    return tuple(exchanges[:count])


def _read(path: Path, kind: type[T]) -> T:
    try:
        return from_json(path.read_bytes(), kind)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise DataError(f"{path} is not a file of PrefEval: {error}") from error
