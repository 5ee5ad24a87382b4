"""The official PersonaMem files: a table of questions and a file of conversations, read with every rule checked.

Questions are CSV with line breaks inside cells, so lines are never counted; options are a Python list written as text,
which is read as a literal and never evaluated.  Conversations are JSON lines of up to five megabytes each: they are
indexed by offset and decoded when asked for.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from personabench.errors import DataError, UsageError

SAMPLES = Path(__file__).parent / "sample"
SPLITS = ("32k", "128k", "1M")
LETTERS = ("(a)", "(b)", "(c)", "(d)")
KNOWN = {
    "questions_32k.csv": "cccd34cf53e0bc4d9536c04cff5ca045156d9a4e227e83327112482840bbc93c",
    "questions_128k.csv": "f0e137c3167fadbffbce5be2786105283c3299972c4ac1f158939155fd1578a7",
    "shared_contexts_32k.jsonl": "217247ebfec9e8442fc53570c795ab69f21aad08745f7de78d9beab51b122d4a",
    "shared_contexts_128k.jsonl": "733cc009e84a138b386c9e40adea741565db01074f73af4058fd039b42951726",
}
"""SHA-256 of the published files, where it is known."""

COLUMNS = (
    *(
        "persona_id",
        "question_id",
        "question_type",
        "topic",
        "context_length_in_tokens",
        "context_length_in_letters",
    ),
    *("distance_to_ref_in_blocks", "distance_to_ref_in_tokens", "num_irrelevant_tokens"),
    *(
        "distance_to_ref_proportion_in_context",
        "user_question_or_message",
        "correct_answer",
        "all_options",
    ),
    *("shared_context_id", "end_index_in_shared_context"),
)
NUMBERS = (
    *("context_length_in_letters", "distance_to_ref_in_blocks", "distance_to_ref_in_tokens"),
    "end_index_in_shared_context",
)
_OPENING = re.compile(rb'\s*\{\s*"((?:[^"\\]|\\.)*)"\s*:')
_FIELD_LIMIT = 1 << 27


@dataclass(frozen=True, slots=True)
class Question:
    """A row of the question table.

    `options` are the four texts as published, `(a) ` first; `cell` is the list as it stands in the file; `gold` is the
    keyed position, `equal` all positions whose text is the keyed one's.  `end` is the first message not yet said.
    """

    id: str
    persona: str
    type: str
    topic: str
    query: str
    options: tuple[str, ...]
    cell: str
    gold: int
    context: str
    end: int
    letters: int
    blocks: int
    tokens: int
    proportion: float

    @property
    def texts(self) -> tuple[str, ...]:
        """The options without their letters."""
        return tuple(option[4:] for option in self.options)

    @property
    def equal(self) -> tuple[int, ...]:
        """The positions that carry the keyed text; more than one is a defect of the data."""
        texts = [text.strip() for text in self.texts]
        return tuple(at for at, text in enumerate(texts) if text == texts[self.gold])


class Turn(NamedTuple):
    """One message of a conversation, as published."""

    role: str
    content: str


class Table(NamedTuple):
    """The rows of a question file and how many repeated header lines were left out."""

    questions: list[Question]
    headers: int


def locate(split: str, data: Path | None) -> tuple[Path, Path]:
    """The question file and the conversation file of a split.

    Raises:
        UsageError: no such split.
        DataError: a file is missing; the message lists the places looked at.
    """
    if split not in SPLITS:
        raise UsageError(f"PersonaMem has no split '{split}'; choose one of {', '.join(SPLITS)}")
    if data is None and split != "32k":
        raise UsageError(
            f"the bundled sample has the split 32k only, not {split}; pass the real data with --data"
        )
    folders = [SAMPLES] if data is None else [data, data / "personamem"]
    names = f"questions_{split}.csv", f"shared_contexts_{split}.jsonl"
    for folder in folders:
        if all((folder / name).is_file() for name in names):
            return folder / names[0], folder / names[1]
    looked = "\n".join(f"  {folder / name}" for folder in folders for name in names)
    raise DataError(
        f"no PersonaMem {split}: both files of one folder are needed; looked for\n{looked}\n"
        f"fetch them with `personabench download personamem --split {split}`"
    )


def read_questions(path: Path) -> Table:
    """The questions of a file, in file order.

    Raises:
        DataError: not the table it should be; the message names file, question and column.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    questions: list[Question] = []
    headers = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            found = reader.fieldnames or ()
            if missing := [name for name in COLUMNS if name not in found]:
                raise DataError(
                    f"{path} lacks the column {missing[0]}; it has: {', '.join(found) or 'nothing'}"
                )
            for row in reader:
                if row["question_id"] == "question_id":
                    headers += 1
                else:
                    questions.append(_question(path, row))
    except (csv.Error, UnicodeDecodeError) as error:
        last = f"after question {questions[-1].id}" if questions else "before any question"
        raise DataError(f"{path} is not a whole CSV file in UTF-8: {error}, {last}") from error
    if not questions:
        raise DataError(f"{path}: no questions in it")
    repeated = [
        name for name, times in Counter(question.id for question in questions).items() if times > 1
    ]
    if repeated:
        raise DataError(
            f"{path}: question ids must be unique; {repeated[0]} is not ({len(repeated)} such ids)"
        )
    return Table(questions, headers)


def _question(path: Path, row: Mapping[str, str]) -> Question:
    name = row["question_id"]

    def wrong(column: str, problem: str) -> DataError:
        return DataError(f"{path}: question {name}: {column}: {problem}")

    if short := [column for column in COLUMNS if row[column] is None]:
        raise wrong(short[0], "the row ends before this column")
    numbers = {}
    for column in NUMBERS:
        if not re.fullmatch(r"\d+(\.0+)?", row[column]):
            raise wrong(column, f"'{row[column]}' is no whole number")
        numbers[column] = int(float(row[column]))
    share = re.fullmatch(r"(\d+(?:\.\d+)?)%", row["distance_to_ref_proportion_in_context"].strip())
    if share is None:
        raise wrong("distance_to_ref_proportion_in_context", "it is no percentage")
    if row["correct_answer"] not in LETTERS:
        raise wrong(
            "correct_answer", f"'{row['correct_answer']}' is not one of {', '.join(LETTERS)}"
        )
    options = parse_options(row["all_options"])
    if isinstance(options, str):
        raise wrong("all_options", options)
    return Question(
        id=name,
        persona=row["persona_id"],
        type=row["question_type"],
        topic=row["topic"],
        query=row["user_question_or_message"],
        options=options,
        cell=row["all_options"],
        gold=LETTERS.index(row["correct_answer"]),
        context=row["shared_context_id"],
        end=numbers["end_index_in_shared_context"],
        letters=numbers["context_length_in_letters"],
        blocks=numbers["distance_to_ref_in_blocks"],
        tokens=numbers["distance_to_ref_in_tokens"],
        proportion=float(share[1]) / 100,
    )


def parse_options(cell: str) -> tuple[str, ...] | str:
    """The four options of a cell, or what is wrong with it."""
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return "it is not a list of strings, and nothing else is read"
    if (
        not isinstance(found, list)
        or len(found) != 4
        or not all(isinstance(each, str) for each in found)
    ):
        return "it is not a list of four strings"
    for letter, option in zip(LETTERS, found, strict=True):
        if not option.startswith(f"{letter} "):
            return f"the option in place of {letter} does not begin with '{letter} '"
    return tuple(found)


class Contexts:
    """The conversations of a file by id, decoded when asked for.

    Raises:
        DataError: a line is not `{"id": [...]}`, or two have one id.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}
        offset = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    opening = _OPENING.match(line)
                    if opening is None:
                        raise DataError(f'{path}: line {number} does not begin with {{"id": ...}}')
                    name = msgspec.json.decode(b'"' + opening[1] + b'"', type=str)
                    if name in self._places:
                        raise DataError(f"{path}: line {number}: the id {name} was there before")
                    self._places[name] = offset, len(line)
                offset += len(line)
        self.turns = lru_cache(maxsize=2)(self._turns)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __len__(self) -> int:
        return len(self._places)

    def raw(self, name: str) -> list[Any]:
        """The messages of a conversation as the file has them, keys in file order.

        Raises:
            DataError: the line is broken.
        """
        offset, size = self._places[name]
        with self.path.open("rb") as file:
            file.seek(offset)
            line = file.read(size)
        try:
            found = msgspec.json.decode(line, type=dict[str, list[dict[str, Any]]])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}: conversation {name} is broken: {error}") from error
        if len(found) != 1:
            raise DataError(
                f"{self.path}: the line of conversation {name} has {len(found)} keys instead of one"
            )
        return found[name]

    def _turns(self, name: str) -> Sequence[Turn]:
        turns = []
        for at, message in enumerate(self.raw(name)):
            role, content = message.get("role"), message.get("content")
            if role not in ("system", "user", "assistant") or not isinstance(content, str):
                raise DataError(
                    f"{self.path}: conversation {name}: message {at} has no role and content of text"
                )
            turns.append(Turn(role, content))
        return tuple(turns)


def context_id(messages: Sequence[Mapping[str, Any]]) -> str:
    """The id that belongs to a conversation: SHA-256 of its messages' Python text forms, joined by a blank."""
    return hashlib.sha256(" ".join(map(str, messages)).encode()).hexdigest()


def defects(questions: Sequence[Question], contexts: Contexts) -> Iterator[str]:
    """What breaks the files' own rules: ids that are not their content's, lengths that another cut would have.

    Raises:
        DataError: a question refers to a conversation that is not there, or to a place outside of it.
    """
    rows: dict[str, list[Question]] = {}
    for question in questions:
        if question.context not in contexts:
            raise DataError(
                f"{contexts.path}: no conversation {question.context}, which question {question.id} names"
            )
        rows.setdefault(question.context, []).append(question)
    for name, asked in rows.items():
        turns = contexts.turns(name)
        if context_id(contexts.raw(name)) != name:
            yield f"conversation {name} is not the one its id was made from"
        reached = [0]
        for turn in turns:
            reached.append(reached[-1] + len(turn.content))
        for question in asked:
            if question.end > len(turns):
                raise DataError(
                    f"{contexts.path}: question {question.id} is asked at message {question.end} of conversation "
                    f"{name}, which has {len(turns)}"
                )
            if reached[question.end] != question.letters:
                yield (
                    f"question {question.id}: the history before message {question.end} has "
                    f"{reached[question.end]} letters, the table says {question.letters}"
                )
