"""Make samples of one's own tables; every problem is collected with its line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from personabench.api.own_data.cells import find_choice, read_text, read_texts, read_time
from personabench.api.own_data.declaration import Declaration, History, Questions
from personabench.api.own_data.problems import Problems
from personabench.api.rows import Row, read_rows
from personabench.errors import DataError
from personabench.metrics.ratings import parse_number
from personabench.types import Record, Sample, moment

# Rows of JSON may leave out fields, so the columns are those of several rows.
_FIRST_ROWS = 100


class Files(NamedTuple):
    """The files of a declared task; `history` is None if records are inside the questions."""

    questions: Path
    history: Path | None


def read_samples(declaration: Declaration, files: Files, problems: Problems) -> Iterator[Sample]:
    """Yield the samples of declared tables.

    A sample shows the records of its user that are earlier than its own time, oldest first, or all
    of them if it has no time.

    Args:
        problems: receives everything that is wrong; a row with a fatal problem is left out.

    Raises:
        DataError: a file cannot be read at all.
    """
    reader = _Reader(declaration, files, problems)
    yield from reader.read()


class _Reader:
    """The state of one reading: the histories by user, and the questions so far."""

    def __init__(self, declaration: Declaration, files: Files, problems: Problems) -> None:
        self.declaration = declaration
        self.files = files
        self.problems = problems
        self.histories: dict[str, list[Record]] = {}
        self.questions: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = {}
        self.ids: dict[str, int] = {}
        self.name = files.questions.name

    def read(self) -> Iterator[Sample]:
        self._read_histories()
        users = set()
        if not self._has_columns(self.files.questions, _named_columns(self.declaration.questions)):
            return
        for row in read_rows(self.files.questions, report=self.problems.report_row):
            sample = self._read_question(row)
            if sample is not None:
                users.add(sample.user_id)
                yield sample
        self._note_unused(users)

    def _note_unused(self, users: set[str]) -> None:
        if self.files.history is None:
            return
        unused = len(self.histories.keys() - users)
        if unused:
            self.problems.note(self.files.history.name, 0, f"{unused} users have no question")

    def _has_columns(self, path: Path, columns: Sequence[str]) -> bool:
        known = list_columns(path)
        missing = [column for column in columns if column not in known]
        if not missing:
            return True
        names = ", ".join(f"'{column}'" for column in missing)
        self.problems.add(path.name, 0, f"no column {names}; it has: {', '.join(known)}")
        return False

    # Histories ----------------------------------------------------------------------------------

    def _read_histories(self) -> None:
        path = self.files.history
        if path is None:
            return
        columns = self.declaration.history
        if not self._has_columns(path, _named_columns(columns)):
            return
        for row in read_rows(path, report=self.problems.report_row):
            user = read_text(row.get(columns.user))
            record = self._read_record(row, path.name, row.number)
            if not user:
                self.problems.add(path.name, row.number, "the record names no user")
            elif record is not None:
                self.histories.setdefault(user, []).append(record)

        for records in self.histories.values():
            _sort(records)

    def _read_record(self, entry: Any, file: str, number: int) -> Record | None:
        columns = self.declaration.history
        if not isinstance(entry, dict):
            text = read_text(entry)
            return Record(response=text) if text else None

        response = read_text(entry.get(columns.response))
        stimulus = read_text(entry.get(columns.stimulus)) if columns.stimulus else ""
        if not response:
            remark = f"'{columns.response}' is empty; the record is left out"
            self.problems.note(file, number, remark)
            return None
        return Record(
            id=read_text(entry.get(columns.id)) if columns.id else "",
            stimulus=stimulus or None,
            response=response,
            time=self._read_time(entry, columns.time, file, number) or None,
            item=(read_text(entry.get(columns.item)) or None) if columns.item else None,
        )

    def _read_time(self, row: Mapping[str, Any], column: str, file: str, number: int) -> str:
        if not column:
            return ""
        value = row.get(column)
        try:
            return read_time(value)
        except ValueError:
            expected = f"'{column}' is no date such as 2024-01-31 or 2024-01-31T09:30"
            self.problems.add(file, number, expected, repr(value))
            return ""

    # Questions ----------------------------------------------------------------------------------

    def _read_question(self, row: Row) -> Sample | None:
        columns = self.declaration.questions
        text = read_text(row.get(columns.question))
        if not text:
            self.problems.add(self.name, row.number, f"'{columns.question}' is empty")
            return None

        user = read_text(row.get(columns.user)) if columns.user else ""
        if columns.user and not user:
            self.problems.add(self.name, row.number, f"'{columns.user}' is empty")
        choices = read_texts(row.get(columns.choices)) if columns.choices else ()
        references = self._read_answers(row, choices)
        sample_id = read_text(row.get(columns.id)) if columns.id else ""
        if not self._is_new(row, user, text, choices, references, sample_id):
            return None

        time = self._read_time(row, columns.time, self.name, row.number)
        return Sample(
            id=sample_id,
            user_id=user,
            input=text,
            stimulus=text,
            history=tuple(self._visible_records(row, user, time)),
            references=references,
            choices=choices,
            time=time or None,
            item=(read_text(row.get(columns.item)) or None) if columns.item else None,
        )

    def _is_new(
        self,
        row: Row,
        user: str,
        text: str,
        choices: tuple[str, ...],
        references: tuple[str, ...],
        sample_id: str,
    ) -> bool:
        """Report a repeated id or question; whether the row is to be kept."""
        if sample_id and self.ids.setdefault(sample_id, row.number) != row.number:
            self.problems.add(self.name, row.number, "the id is that of an earlier row", sample_id)
            return False

        key = user, f"{text}\n{choices}"
        first = self.questions.setdefault(key, (row.number, references))
        if first[0] == row.number or sample_id:
            return True
        if first[1] != references:
            problem = "the question is that of an earlier row of the user, with another answer"
            self.problems.add(self.name, row.number, problem, f"line {first[0]}")
            return False
        self.problems.note(self.name, row.number, "the row repeats an earlier one and is left out")
        return False

    def _read_answers(self, row: Row, choices: tuple[str, ...]) -> tuple[str, ...]:
        column = self.declaration.questions.answer
        if not column:
            return ()
        value = row.get(column)
        answers = read_texts(value) if isinstance(value, list) else (read_text(value),)
        answers = tuple(answer for answer in answers if answer)
        if not answers:
            self.problems.note(self.name, row.number, f"'{column}' is empty; it gets no score")

        if self.declaration.kind == "text":
            return answers
        read = [self._read_answer(answer, choices, row) for answer in answers]
        return tuple(answer for answer in read if answer is not None)

    def _read_answer(self, answer: str, choices: tuple[str, ...], row: Row) -> str | None:
        labels = self.declaration.labels
        if self.declaration.kind == "ordinal":
            number = parse_number(answer)
            if number is not None and float(labels[0]) <= number <= float(labels[-1]):
                return f"{number:g}"
            problem = f"the answer is no number from {labels[0]} to {labels[-1]}"
            self.problems.add(self.name, row.number, problem, repr(answer))
            return None

        options = labels or choices
        choice = find_choice(answer, options)
        if choice is None:
            kind = "labels" if labels else "choices of its row"
            self.problems.add(
                self.name, row.number, f"the answer is none of the {kind}", repr(answer)
            )
        return choice

    def _visible_records(self, row: Row, user: str, time: str) -> list[Record]:
        column = self.declaration.questions.history
        if column:
            entries = row.get(column)
            entries = entries if isinstance(entries, list) else read_texts(entries)
            read = [self._read_record(entry, self.name, row.number) for entry in entries]
            records = [record for record in read if record is not None]
            _sort(records)
        else:
            records = self.histories.get(user, [])
        if self.declaration.has_history and not records:
            self.problems.note(self.name, row.number, "the user has no records")
        if not time:
            return records

        visible = [
            record for record in records if not record.time or moment(record.time) < moment(time)
        ]
        if len(visible) < len(records):
            self.problems.note(
                self.name, row.number, "records that are not earlier than the question are hidden"
            )
        return visible


def list_columns(path: Path) -> list[str]:
    """List the columns of a table, as far as its first rows show them.

    Raises:
        DataError: the file cannot be read, or has no rows.
    """
    columns: dict[str, None] = {}
    rows = read_rows(path, report=lambda file, number, problem: None)
    for row in itertools.islice(rows, _FIRST_ROWS):
        columns |= dict.fromkeys(row)
    if not columns:
        raise DataError(f"{path} has no rows that can be read")
    return list(columns)


def column_names(columns: Questions | History) -> dict[str, str]:
    """The name of the column for each role; empty without one."""
    roles = [role for role in columns.__struct_fields__ if role not in ("file", "answers")]
    return {role: getattr(columns, role) for role in roles}


def _named_columns(columns: Questions | History) -> list[str]:
    """The columns that a declaration names."""
    return [name for name in column_names(columns).values() if name]


def _sort(records: list[Record]) -> None:
    # Records without dates stay in the order of the file.
    if all(record.time for record in records):
        records.sort(key=lambda record: moment(record.time))
