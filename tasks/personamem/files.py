"""Reader of the official PersonaMem files: a question table (CSV) and conversations (JSON lines).

Every rule of the files is checked. Questions have line breaks inside cells, so lines are never
counted; options are a Python list written as text, which is parsed as a literal and never
evaluated. Conversations have up to five megabytes each: they are indexed by offset and decoded on
access.
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
# SHA-256 of the published files; those of 1M are not known.
PUBLISHED_HASHES = {
    "questions_32k.csv": "cccd34cf53e0bc4d9536c04cff5ca045156d9a4e227e83327112482840bbc93c",
    "questions_128k.csv": "f0e137c3167fadbffbce5be2786105283c3299972c4ac1f158939155fd1578a7",
    "shared_contexts_32k.jsonl": "217247ebfec9e8442fc53570c795ab69f21aad08745f7de78d9beab51b122d4a",
    "shared_contexts_128k.jsonl": (
        "733cc009e84a138b386c9e40adea741565db01074f73af4058fd039b42951726"
    ),
}

COLUMNS = (
    "persona_id",
    "question_id",
    "question_type",
    "topic",
    "context_length_in_tokens",
    "context_length_in_letters",
    "distance_to_ref_in_blocks",
    "distance_to_ref_in_tokens",
    "num_irrelevant_tokens",
    "distance_to_ref_proportion_in_context",
    "user_question_or_message",
    "correct_answer",
    "all_options",
    "shared_context_id",
    "end_index_in_shared_context",
)
_PROPORTION = "distance_to_ref_proportion_in_context"
_WHOLE_NUMBER = re.compile(r"\d+(\.0+)?")
_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?)%")
_OPENING = re.compile(rb'\s*\{\s*"((?:[^"\\]|\\.)*)"\s*:')
# The csv module refuses cells over 131,072 characters by default.
_FIELD_LIMIT = 1 << 27


@dataclass(frozen=True, slots=True)
class Question:
    """A row of the question table.

    Attributes:
        options: the four texts as published, `(a) ` first.
        cell: the options as the file has them.
        gold: the position of the keyed option.
        context: the id of the conversation.
        end: the index of the first message that is still to come.
        letters: the length of the history in characters.
        blocks, tokens, proportion: distances to the preference that the question refers to.
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
        gold = texts[self.gold]
        return tuple(position for position, text in enumerate(texts) if text == gold)


class Turn(NamedTuple):
    """One message of a conversation, as published."""

    role: str
    content: str


class Table(NamedTuple):
    """The rows of a question file and the number of repeated header lines that were skipped."""

    questions: list[Question]
    headers: int


class _InvalidCell(Exception):
    """A cell breaks a rule of the question table."""

    def __init__(self, column: str, problem: str) -> None:
        super().__init__(f"{column}: {problem}")


def locate(split: str, data: Path | None) -> tuple[Path, Path]:
    """Return the question file and the conversation file of a split.

    Raises:
        UsageError: no such split.
        DataError: a file is missing; the message lists the paths tried.
    """
    if split not in SPLITS:
        raise UsageError(f"PersonaMem has no split '{split}'; choose one of {', '.join(SPLITS)}")
    if data is None and split != "32k":
        raise UsageError(
            f"the example data has only the split 32k, not {split}; pass the real data with --data"
        )

    folders = [SAMPLES] if data is None else [data, data / "personamem"]
    candidates = [
        (folder / f"questions_{split}.csv", folder / f"shared_contexts_{split}.jsonl")
        for folder in folders
    ]
    for questions, contexts in candidates:
        if questions.is_file() and contexts.is_file():
            return questions, contexts

    listing = "\n".join(f"  {path}" for pair in candidates for path in pair)
    raise DataError(
        f"no PersonaMem {split}: both files of one folder are needed; tried\n{listing}\n"
        f"fetch them with `personabench download personamem --split {split}`"
    )


def read_questions(path: Path) -> Table:
    """Read the questions of a file, in file order.

    Raises:
        DataError: the table breaks a rule; the message names file, question and column.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    questions: list[Question] = []
    headers = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, reader.fieldnames or ())
            for row in reader:
                # Some files repeat their header line between rows.
                if row["question_id"] == "question_id":
                    headers += 1
                else:
                    questions.append(_read_question(path, row))
    except (csv.Error, UnicodeDecodeError) as error:
        context = f"after question {questions[-1].id}" if questions else "before any question"
        raise DataError(f"{path} is not a whole CSV file in UTF-8: {error}, {context}") from error

    _check_ids(path, questions)
    return Table(questions, headers)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    for column in COLUMNS:
        if column not in columns:
            raise DataError(
                f"{path} lacks the column {column}; it has: {', '.join(columns) or 'nothing'}"
            )


def _check_ids(path: Path, questions: Sequence[Question]) -> None:
    if not questions:
        raise DataError(f"{path}: the file holds no questions")

    counts = Counter(question.id for question in questions)
    repeated = [question_id for question_id, count in counts.items() if count > 1]
    if repeated:
        raise DataError(
            f"{path}: question ids must be unique; {repeated[0]} is not ({len(repeated)} such ids)"
        )


def _read_question(path: Path, row: Mapping[str, str]) -> Question:
    try:
        return _parse_row(row)
    except _InvalidCell as error:
        raise DataError(f"{path}: question {row['question_id']}: {error}") from error


def _parse_row(row: Mapping[str, str]) -> Question:
    # The csv module fills the columns that a short row lacks with None.
    for column in COLUMNS:
        if row[column] is None:
            raise _InvalidCell(column, "the row ends before this column")

    letters = _parse_number(row, "context_length_in_letters")
    blocks = _parse_number(row, "distance_to_ref_in_blocks")
    tokens = _parse_number(row, "distance_to_ref_in_tokens")
    end = _parse_number(row, "end_index_in_shared_context")
    percentage = _PERCENTAGE.fullmatch(row[_PROPORTION].strip())
    if percentage is None:
        raise _InvalidCell(_PROPORTION, "it is not a percentage")

    gold = row["correct_answer"]
    if gold not in LETTERS:
        raise _InvalidCell("correct_answer", f"'{gold}' is not one of {', '.join(LETTERS)}")
    options = parse_options(row["all_options"])
    if isinstance(options, str):
        raise _InvalidCell("all_options", options)

    return Question(
        id=row["question_id"],
        persona=row["persona_id"],
        type=row["question_type"],
        topic=row["topic"],
        query=row["user_question_or_message"],
        options=options,
        cell=row["all_options"],
        gold=LETTERS.index(gold),
        context=row["shared_context_id"],
        end=end,
        letters=letters,
        blocks=blocks,
        tokens=tokens,
        proportion=float(percentage[1]) / 100,
    )


def _parse_number(row: Mapping[str, str], column: str) -> int:
    # Numbers may be written as floats, such as 3.0.
    if not _WHOLE_NUMBER.fullmatch(row[column]):
        raise _InvalidCell(column, f"'{row[column]}' is not a whole number")
    return int(float(row[column]))


def parse_options(cell: str) -> tuple[str, ...] | str:
    """Parse the four options of a cell; a cell that breaks a rule returns the problem."""
    try:
        options = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return "it is not a list of strings; other expressions are not evaluated"

    is_list = isinstance(options, list) and len(options) == len(LETTERS)
    if not is_list or not all(isinstance(option, str) for option in options):
        return "it is not a list of four strings"

    for letter, option in zip(LETTERS, options, strict=True):
        if not option.startswith(f"{letter} "):
            return f"the option in place of {letter} does not begin with '{letter} '"
    return tuple(options)


class Contexts:
    """The conversations of a file by id, decoded on access.

    Raises:
        DataError: a line is not `{"id": [...]}`, or two have one id.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._spans: dict[str, tuple[int, int]] = {}
        offset = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    self._add_line(number, line, offset)
                offset += len(line)
        # Questions of one conversation follow one another. The cache is per instance: one on the
        # class would keep every opened file alive.
        self.turns = lru_cache(maxsize=2)(self._read_turns)

    def __contains__(self, context: str) -> bool:
        return context in self._spans

    def __len__(self) -> int:
        return len(self._spans)

    def raw(self, context: str) -> list[Any]:
        """Return the messages of a conversation as the file has them, keys in file order.

        Raises:
            DataError: the line is broken.
        """
        offset, size = self._spans[context]
        with self.path.open("rb") as file:
            file.seek(offset)
            line = file.read(size)

        try:
            conversations = msgspec.json.decode(line, type=dict[str, list[dict[str, Any]]])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}: conversation {context} is broken: {error}") from error
        if len(conversations) != 1:
            raise DataError(
                f"{self.path}: the line of conversation {context} has {len(conversations)} keys "
                "instead of one"
            )
        return conversations[context]

    def _add_line(self, number: int, line: bytes, offset: int) -> None:
        opening = _OPENING.match(line)
        if opening is None:
            raise DataError(f'{self.path}: line {number} does not begin with {{"id": ...}}')

        # The id is decoded as JSON, since it may hold escapes.
        context = msgspec.json.decode(b'"' + opening[1] + b'"', type=str)
        if context in self._spans:
            raise DataError(f"{self.path}: line {number}: the id {context} is repeated")
        self._spans[context] = offset, len(line)

    def _read_turns(self, context: str) -> Sequence[Turn]:
        turns = []
        for index, message in enumerate(self.raw(context)):
            role = message.get("role")
            content = message.get("content")
            if role not in ("system", "user", "assistant") or not isinstance(content, str):
                raise DataError(
                    f"{self.path}: conversation {context}: message {index} lacks a role or a "
                    "content of text"
                )
            turns.append(Turn(role, content))
        return tuple(turns)


def context_id(messages: Sequence[Mapping[str, Any]]) -> str:
    """Compute the id of a conversation: SHA-256 of its messages as Python text, blanks between."""
    text = " ".join(map(str, messages))
    return hashlib.sha256(text.encode()).hexdigest()


def find_defects(questions: Sequence[Question], contexts: Contexts) -> Iterator[str]:
    """List breaches of the files' own rules.

    Ids must match their content, and lengths must match the history before each question.

    Raises:
        DataError: a question refers to a missing conversation, or to a message beyond its end.
    """
    by_context: dict[str, list[Question]] = {}
    for question in questions:
        if question.context not in contexts:
            raise DataError(
                f"{contexts.path}: conversation {question.context}, which question {question.id} "
                "refers to, is missing"
            )
        by_context.setdefault(question.context, []).append(question)

    # One conversation at a time, so that each is decoded once.
    for context, group in by_context.items():
        if context_id(contexts.raw(context)) != context:
            yield f"conversation {context} does not match its id"
        yield from _find_length_defects(context, group, contexts)


def _find_length_defects(
    context: str,
    questions: Sequence[Question],
    contexts: Contexts,
) -> Iterator[str]:
    turns = contexts.turns(context)
    lengths = [0]
    for turn in turns:
        lengths.append(lengths[-1] + len(turn.content))

    for question in questions:
        if question.end > len(turns):
            raise DataError(
                f"{contexts.path}: question {question.id} belongs before message {question.end} "
                f"of conversation {context}, which has {len(turns)}"
            )
        length = lengths[question.end]
        if length != question.letters:
            yield (
                f"question {question.id}: the history before message {question.end} has "
                f"{length} letters, but the table states {question.letters}"
            )
