"""Infer the columns of one's own tables and the kind of their answers."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from personabench.api.own_data.cells import read_text, read_texts
from personabench.api.own_data.declaration import Declaration, History, Questions
from personabench.api.own_data.samples import column_names, list_columns
from personabench.api.rows import Row, read_rows
from personabench.api.wording import ResponseKind
from personabench.errors import UsageError
from personabench.metrics.ratings import parse_number

AnswerKind = Literal["choice", "label", "rating", "text"]
KINDS: Mapping[AnswerKind, ResponseKind] = {
    "choice": "category",
    "label": "category",
    "rating": "ordinal",
    "text": "text",
}
HISTORY = "history."
"""Prefix of roles of the records' columns, as in `history.user=author`."""

# Column names that are taken for a role if none is named, in the order of preference.
_USUAL_QUESTIONS: Mapping[str, Sequence[str]] = {
    "question": ("question", "input", "prompt", "query", "text"),
    "user": ("user_id", "user", "customer", "author", "person"),
    "answer": ("answer", "output", "reference", "gold", "target", "label", "rating"),
    "time": ("time", "timestamp", "date", "created_at"),
    "choices": ("choices", "options"),
    "id": ("id", "question_id", "sample_id"),
    "history": ("history", "profile", "records"),
}
_USUAL_HISTORY: Mapping[str, Sequence[str]] = {
    "response": ("response", "text", "message", "content", "answer", "output", "review"),
    "user": ("user_id", "user", "customer", "author", "person"),
    "stimulus": ("stimulus", "question", "input", "prompt", "title"),
    "time": ("time", "timestamp", "date", "created_at"),
    "id": ("id", "record_id", "message_id"),
}
# More different answers than this are free text.
_MOST_LABELS = 12
_LONGEST_LABEL = 40
_LARGEST_RATING = 10
_FEWEST_REPEATS = 3


@dataclass(frozen=True)
class Inferred:
    """A declaration, and sentences about its inferred parts."""

    declaration: Declaration
    remarks: Sequence[str]


def infer_declaration(
    questions: Path,
    history: Path | None,
    roles: Mapping[str, str],
    *,
    name: str,
    kind: AnswerKind | None = None,
) -> Inferred:
    """Complete the columns that a user named, and infer the kind of the answers.

    Args:
        roles: columns by role, such as `{"user": "customer", "history.user": "author"}`.
        kind: the kind, if the user states it.

    Raises:
        UsageError: a role is unknown, a column does not exist, or no column can be the question.
        DataError: a file cannot be read.
    """
    question_roles, record_roles = _split_roles(roles)
    columns = list_columns(questions)
    named = _complete(question_roles, _USUAL_QUESTIONS, columns, questions, "")
    if "question" not in named:
        raise UsageError(
            f"{questions}: name the column of the question with --map question=COLUMN; it has: "
            f"{', '.join(columns)}"
        )
    if history is not None:
        named.pop("history", None)
    question_table = Questions(file=str(questions), **named)
    rows = list(read_rows(questions, report=lambda file, number, problem: None))
    record_table = _find_record_columns(
        history, rows, question_table, record_roles, explicit="history" in question_roles
    )
    if history is None and not record_table.response:
        question_table = msgspec.structs.replace(question_table, history="")

    answers = _Answers.collect(rows, question_table)
    chosen = kind or answers.infer_kind()
    past = _collect_past(history, rows, question_table, record_table)
    if record_table.stimulus and answers.are_alike(past, chosen):
        record_table = msgspec.structs.replace(record_table, answers=True)
    declaration = Declaration(
        name=name,
        questions=question_table,
        kind=KINDS[chosen],
        labels=answers.labels(chosen),
        max_tokens=answers.max_tokens(chosen),
        history=record_table,
    )
    inferred = {**_describe_columns(question_table), **_describe_columns(record_table, HISTORY)}
    unstated = [f"{role}={column}" for role, column in inferred.items() if role not in roles]
    remarks = [f"columns taken by their names: {', '.join(unstated)}"] if unstated else []
    remarks += _describe_unused(columns, question_table, history, record_table)
    if not question_table.answer:
        remarks.append(
            "no column holds the answers, so that nothing is scored; --map answer=COLUMN names it"
        )
    remarks.append(answers.describe(chosen, is_stated=kind is not None))
    return Inferred(declaration, remarks)


def _describe_unused(
    columns: Sequence[str], questions: Questions, history: Path | None, records: History
) -> list[str]:
    """Name the columns of either table that play no part, which may be a name mistaken."""
    tables: list[tuple[Sequence[str], Questions | History, str]] = [(columns, questions, "")]
    if history is not None:
        tables.append((list_columns(history), records, HISTORY))
    unused = []
    for names, table, prefix in tables:
        used = set(column_names(table).values())
        unused += [f"{prefix}{name}" for name in names if name not in used]
    return [f"columns that are not used: {', '.join(unused)}"] if unused else []


def _split_roles(roles: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Split roles into those of the questions and those of the records.

    Raises:
        UsageError: an unknown role.
    """
    question_roles, record_roles = {}, {}
    known = [*column_names(Questions("", ""))]
    known += [f"{HISTORY}{role}" for role in column_names(History())]
    for role, column in roles.items():
        if role not in known:
            matches = difflib.get_close_matches(role, known, n=1)
            hint = f"did you mean {matches[0]}?" if matches else f"known: {', '.join(known)}"
            raise UsageError(f"--map {role}={column}: no such role; {hint}")
        if role.startswith(HISTORY):
            record_roles[role.removeprefix(HISTORY)] = column
        else:
            question_roles[role] = column
    return question_roles, record_roles


def _complete(
    stated: Mapping[str, str],
    usual: Mapping[str, Sequence[str]],
    columns: Sequence[str],
    file: Path | str,
    prefix: str,
) -> dict[str, str]:
    """Check the stated columns, and add those that have usual names.

    Raises:
        UsageError: a stated column does not exist.
    """
    for role, column in stated.items():
        if column not in columns:
            matches = difflib.get_close_matches(column, columns, n=1)
            hint = f"did you mean '{matches[0]}'? " if matches else ""
            raise UsageError(
                f"--map {prefix}{role}={column}: {file} has no column '{column}'; {hint}"
                f"it has: {', '.join(columns)}"
            )

    named = dict(stated)
    plain_names = {column.lower(): column for column in reversed(columns)}
    for role, candidates in usual.items():
        free = [name for name in candidates if plain_names.get(name) not in (None, *named.values())]
        if role not in named and free:
            named[role] = plain_names[free[0]]
    return named


def _find_record_columns(
    history: Path | None,
    rows: Sequence[Row],
    questions: Questions,
    stated: Mapping[str, str],
    explicit: bool,
) -> History:
    """Find the columns of records, in their own file or inside the questions.

    Raises:
        UsageError: the records have no column of the user's responses, or name no users.
    """
    if history is None:
        entries = [row.get(questions.history) for row in rows] if questions.history else []
        items = [item for entry in entries if isinstance(entry, list) for item in entry]
        objects = [item for item in items if isinstance(item, dict)]
        fields = list(dict.fromkeys(key for item in objects for key in item))
        if not fields:
            # Records of plain text need no columns; the name is for messages.
            has_texts = explicit or any(isinstance(item, str) for item in items)
            return History(response="text") if has_texts else History()
        named = _complete(stated, _USUAL_HISTORY, fields, f"'{questions.history}'", HISTORY)
        named.pop("user", None)
    else:
        columns = list_columns(history)
        defaults = {}
        # A column that both tables have plays the same part in both.
        for role in ("user", "time"):
            column = getattr(questions, role)
            if column in columns:
                defaults[role] = column
        named = _complete({**defaults, **stated}, _USUAL_HISTORY, columns, history, HISTORY)
        if "user" not in named or not questions.user:
            raise UsageError(
                f"{history}: records belong to users; name the columns of the user with --map "
                f"user=COLUMN,history.user=COLUMN; it has: {', '.join(columns)}"
            )
    if "response" not in named:
        location = history or f"'{questions.history}'"
        raise UsageError(
            f"{location}: name the column of what the user wrote with --map history.response=COLUMN"
        )
    columns_by_role = {"file": "" if history is None else str(history), **named}
    return msgspec.convert(columns_by_role, History)


def _collect_past(
    history: Path | None, rows: Sequence[Row], questions: Questions, records: History
) -> list[str]:
    """What users wrote in the past."""
    entries: list[Any] = []
    if history is not None:
        entries += read_rows(history, report=lambda file, number, problem: None)
    elif questions.history:
        for row in rows:
            inside = row.get(questions.history)
            entries += inside if isinstance(inside, list) else []
    responses = [entry.get(records.response) for entry in entries if isinstance(entry, dict)]
    return [text for text in map(read_text, responses) if text]


def _describe_columns(table: Questions | History, prefix: str = "") -> dict[str, str]:
    return {f"{prefix}{role}": name for role, name in column_names(table).items() if name}


@dataclass(frozen=True)
class _Answers:
    """The answers of a table, which show their kind.

    Attributes:
        texts: all answers, in the order of the file.
        has_choices: whether rows have options of their own.
    """

    texts: Sequence[str]
    has_choices: bool

    @classmethod
    def collect(cls, rows: Iterable[Mapping[str, Any]], columns: Questions) -> _Answers:
        """Collect the answers of all rows."""
        texts: list[str] = []
        has_choices = False
        for row in rows:
            if columns.choices:
                has_choices |= len(read_texts(row.get(columns.choices))) > 1
            if columns.answer:
                value = row.get(columns.answer)
                texts += read_texts(value) if isinstance(value, list) else [read_text(value)]
        return cls([text for text in texts if text], has_choices)

    @property
    def counts(self) -> Counter[str]:
        """The number of rows with each answer."""
        return Counter(self.texts)

    def infer_kind(self) -> AnswerKind:
        """Infer the kind of answers."""
        if self.has_choices:
            return "choice"
        distinct = len(self.counts)
        repeats = len(self.texts) >= _FEWEST_REPEATS * distinct
        if distinct > 1 and repeats and all(map(_is_rating, self.counts)):
            return "rating"
        is_short = all(len(text) <= _LONGEST_LABEL for text in self.counts)
        if 1 < distinct <= _MOST_LABELS and repeats and is_short:
            return "label"
        return "text"

    def labels(self, kind: AnswerKind) -> tuple[str, ...]:
        """The labels of a kind: the answers by frequency, or the numbers of the scale."""
        if kind == "label":
            return tuple(text for text, _ in self.counts.most_common())
        if kind == "rating":
            numbers = [number for text in self.counts if (number := parse_number(text)) is not None]
            if not numbers:
                raise UsageError("--kind rating: no answer is a number")
            low, high = math.floor(min(numbers)), math.ceil(max(numbers))
            return tuple(map(str, range(low, max(high, low + 1) + 1)))
        return ()

    def are_alike(self, past: Sequence[str], kind: AnswerKind) -> bool:
        """Whether what users wrote in the past are answers of this kind."""
        labels = self.labels(kind)
        if kind == "rating":
            return all(_is_rating(text) and text in labels for text in past)
        return kind == "text" or (kind == "label" and all(text in labels for text in past))

    def max_tokens(self, kind: AnswerKind) -> int:
        """Tokens that all but the longest answers need, with half as much again."""
        if kind != "text" or not self.texts:
            return 16 if kind != "text" else 128
        # Words of English take 1.3 tokens, other scripts up to a token for a character.
        sizes = sorted(max(1.3 * len(text.split()), len(text) / 4) for text in self.texts)
        typical = sizes[int(0.95 * (len(sizes) - 1))]
        return min(1024, max(32, 32 * math.ceil(1.5 * typical / 32)))

    def describe(self, kind: AnswerKind, *, is_stated: bool) -> str:
        """Say in a sentence which kind the answers have, and why."""
        origin = "as stated" if is_stated else "inferred; --kind names another"
        labels = self.labels(kind)
        facts = {
            "choice": "one of the options of its row",
            "label": f"one of {len(labels)}: {', '.join(labels[:6])}",
            "rating": f"a number from {labels[0]} to {labels[-1]}" if labels else "",
            "text": f"{len(self.counts)} different ones, at most {self.max_tokens(kind)} tokens",
        }
        return f"kind of answer: {kind} ({facts[kind]}; {origin})"


def _is_rating(text: str) -> bool:
    return bool(re.fullmatch(r"\d+(\.0)?", text)) and float(text) <= _LARGEST_RATING
