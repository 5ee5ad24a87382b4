"""Loader of LaMP files: reads large files record by record, locates errors in broken ones.

Question files reach hundreds of megabytes. The file is memory-mapped, split into one raw slice per
record, validated record by record, and decoded again one record at a time on access; no decoded
record is kept.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from personabench.api.dataset import Dataset
from personabench.api.id_check import compare_ids, list_few
from personabench.errors import DataError, UsageError
from personabench.hashing import digest, digest_record, digest_set
from personabench.tasks.lamp.error_location import Peek, describe_syntax_error, explain_mismatch
from personabench.tasks.lamp.forms import FORMS, Form, parse_split
from personabench.types import Record, Sample

SAMPLES = Path(__file__).parent / "sample"
_DATE = re.compile(r"\d{4}(-\d{1,2}){0,2}([T ][\d:.]+Z?)?")
_GOLD_INDEX = re.compile(r".* - at `\$\.golds\[(\d+)\]", re.DOTALL)
# The published LaMP-6 files hold file names of e-mails instead of the licensed texts.
_MAIL_FILE_NAME = re.compile(r"\s*\S+\.txt\s*")


class Gold(msgspec.Struct, frozen=True):
    """One entry of an output file."""

    id: str
    output: str


class Outputs(msgspec.Struct, frozen=True):
    """An output file."""

    task: str
    golds: list[Gold]


class _Wrapped(msgspec.Struct, frozen=True):
    golds: list[msgspec.Raw]


def define_question_type(form: Form) -> type[Any]:
    """Define the Struct type of a dataset's questions: every official field a string.

    Further fields are allowed, since copies of the files carry some.
    """
    entry = msgspec.defstruct(
        "Entry",
        [
            ("id", str),
            *((name, str) for name in form.fields),
            ("date", str | int | None, None),
        ],
        # Entries hold no references to one another; without tracking, the collector has less to do.
        gc=False,
    )
    return msgspec.defstruct(
        "Question",
        [
            ("id", str),
            ("input", str),
            ("profile", list[entry]),  # type: ignore[valid-type]
            ("user_id", str | int | None, None),
        ],
    )


def locate(task: str, separation: str, split: str, data: Path | None) -> tuple[Path, Path]:
    """Return the question file and the output file (which need not exist) of a split.

    `data` holds the two files directly or is a copy of the official tree; None selects the example
    data.

    Raises:
        UsageError: the example data has no such split.
        DataError: the question file is missing; the message lists the paths tried.
    """
    if data is None:
        if split != "dev":
            raise UsageError(
                f"the example data has only the split dev, not {split}; "
                "pass the real data with --data"
            )
        folder = SAMPLES / task
        return folder / "dev_questions.json", folder / "dev_outputs.json"

    prefix = "time" if separation == "time" else ""
    name = f"{split}_questions.json"
    folder = data / prefix / FORMS[task].folder / split
    candidates = [data / name, folder / name]
    for path in candidates:
        if path.is_file():
            return path, path.with_name(f"{split}_outputs.json")

    listing = "\n".join(f"  {path}" for path in candidates)
    raise DataError(
        f"no questions of {task} {separation}/{split}; tried\n{listing}\n"
        "pass one of these root folders with --data"
    )


def read_outputs(path: Path, task: str) -> dict[str, str]:
    """Read the gold outputs of a file by id, in file order.

    Raises:
        DataError: the file is broken or another task's, an id is repeated, or an output is not a
            string or not in the label list.
    """
    form = FORMS[task]
    outputs = _decode_outputs(path)
    if outputs.task.replace("-", "_") != form.official:
        raise DataError(
            f"{path}: the file states task {outputs.task}, but {task} is {form.official}"
        )

    golds = {gold.id: gold.output for gold in outputs.golds}
    if len(golds) < len(outputs.golds):
        difference = compare_ids(golds, [gold.id for gold in outputs.golds])
        raise DataError(f"{path}: ids must be unique; repeated: {list_few(difference.repeated)}")

    if form.labels:
        _check_labels(path, golds, form.labels)
    return golds


def is_output_file(path: Path, task: str) -> bool:
    """Whether a file holds gold outputs of a task; labels tell the two LaMP-2 apart."""
    form = FORMS[task]
    try:
        outputs = _decode_outputs(path)
    except DataError:
        return False
    if outputs.task.replace("-", "_") != form.official:
        return False
    return not form.twin or any(gold.output.strip() in form.labels for gold in outputs.golds)


def _decode_outputs(path: Path) -> Outputs:
    content = path.read_bytes()
    try:
        return msgspec.json.decode(content, type=Outputs)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        match = _GOLD_INDEX.match(str(error))
        record = f" (record {_read_gold_id(content, int(match[1]))})" if match else ""
        raise DataError(
            f"{path}: not an output file: {error}{record}; expected "
            '{"task", "golds": [{"id", "output"}]} with every id and output a string'
        ) from error


def _read_gold_id(content: bytes, index: int) -> Any:
    """The id of a gold of another shape; its number if it has none."""
    try:
        return msgspec.json.decode(content)["golds"][index]["id"]
    # The rest of the file may be damaged as well.
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        return index


def _check_labels(path: Path, golds: Mapping[str, str], labels: Sequence[str]) -> None:
    for gold_id, output in golds.items():
        if output.strip() not in labels:
            raise DataError(
                f"{path}: record {gold_id}: gold '{output}' is not one of: {', '.join(labels)}"
            )


class LampData(Dataset):
    """An opened LaMP split.

    Raises:
        UsageError: no such split.
        DataError: files are missing, broken or contradict each other; the message names file,
            record, entry and field.
    """

    def __init__(self, task: str, split: str, data: Path | None) -> None:
        self.separation, self.split = parse_split(split)
        self.sample = data is None
        self._task = task
        self._form = FORMS[task]
        self._path, outputs = locate(task, self.separation, self.split, data)
        self.source = "example data, not LaMP" if self.sample else str(self._path)

        self._decoder = msgspec.json.Decoder(define_question_type(self._form))
        self._file = _map_file(self._path)
        self._raws = self._split_records()
        self._index: list[tuple[str, str]] = []
        records = self._check_records()

        self._golds: Mapping[str, str] = {}
        if outputs.is_file():
            self._golds = self._read_golds(outputs)
        elif self.split != "test":
            raise DataError(f"{outputs} is missing: only the test split comes without outputs")
        golds = digest_set(map(digest_record, self._golds.items()))
        self.hash = digest([records, golds])

    def index(self) -> Sequence[tuple[str, str]]:
        return self._index

    def load(self, position: int) -> Sample:
        question = self._decoder.decode(self._raws[position])
        _, user_id = self._index[position]

        # LaMP-1 has no stimulus: its query is the two candidates.
        stimulus = None
        if self._form.marker:
            query = self._form.extract_query(question.input)
            stimulus = question.input if query is None else query

        gold = self._golds.get(question.id)
        return Sample(
            id=question.id,
            user_id=user_id,
            input=question.input,
            stimulus=stimulus,
            history=self._make_history(question.profile),
            references=() if gold is None else (gold,),
            choices=self._form.labels,
        )

    def _make_history(self, profile: list[Any]) -> tuple[Record, ...]:
        records = []
        for entry in profile:
            fields = {name: getattr(entry, name) for name in self._form.fields}
            date = None if entry.date in (None, "") else str(entry.date)
            records.append(self._form.make_record(entry.id, fields, date))

        # The sort is stable, so records of one date keep the order of the file.
        if self.dated:
            records.sort(key=lambda record: date_key(record.time))
        return tuple(records)

    def _read_golds(self, path: Path) -> dict[str, str]:
        golds = read_outputs(path, self._task)
        question_ids = [question_id for question_id, _ in self._index]
        difference = str(compare_ids(question_ids, golds))
        if difference:
            raise DataError(f"{path} does not fit {self._path.name} beside it: ids {difference}")
        return golds

    def _split_records(self) -> list[msgspec.Raw]:
        shape: Any = list[msgspec.Raw] | _Wrapped
        try:
            content = msgspec.json.decode(self._file, type=shape)
        except msgspec.ValidationError as error:
            form = 'a question file is a list of questions or {"task", "golds": [questions]}'
            if b'"profile"' in self._file[: self._file.find(b"\n")]:
                # A first line that is a question: JSON lines.
                form += "; for JSON lines, one question a line, join them with `jq -s .`"
            raise DataError(f"{self._path}: {error}; {form}") from error
        except (msgspec.DecodeError, RecursionError) as error:
            raise describe_syntax_error(self._path, self._file, error) from error
        return content.golds if isinstance(content, _Wrapped) else list(content)

    def _check_records(self) -> str:
        """Decode every record once: build the index, detect dates and users, collect warnings.

        Returns:
            The hash of the records.
        """
        digests: list[bytes] = []
        entries = dated = identified = 0
        unworded: list[str] = []
        repeating: list[str] = []

        for position, raw in enumerate(self._raws):
            question = self._decode(position, raw)
            self._check_content(position, question)
            digests.append(digest_record(question))

            if question.user_id is None:
                # Files of the user separation name no users: each question is a user of its own.
                self._index.append((question.id, question.id))
            else:
                self._index.append((question.id, str(question.user_id)))
                identified += 1

            if self._form.extract_query(question.input) is None:
                unworded.append(question.id)
            entry_ids = {entry.id for entry in question.profile}
            if len(entry_ids) < len(question.profile):
                repeating.append(question.id)
            entries += len(question.profile)
            dated += self._count_dates(question)

        self._check_ids()
        # One entry without a date leaves the order of its history open, so dates count only if
        # every entry has one.
        self.dated = 0 < entries == dated
        self.identified = identified == len(self._index)
        self.warnings = tuple(self._make_warnings(unworded, repeating))
        return digest_set(digests)

    def _check_ids(self) -> None:
        if not self._index:
            raise DataError(f"{self._path}: the file holds no questions")

        ids = [question_id for question_id, _ in self._index]
        repeated = compare_ids(ids, ids).repeated
        if repeated:
            raise DataError(
                f"{self._path}: question ids must be unique; repeated: {list_few(repeated)}"
            )

    def _make_warnings(self, unworded: list[str], repeating: list[str]) -> Iterator[str]:
        if unworded:
            yield (
                f"{list_few(unworded)} inputs lack the official wording; "
                "they are sent to the model "
                "unchanged"
            )
        if repeating:
            yield f"{list_few(repeating)} profiles repeat an entry id"
        if self.separation == "time" and not self.sample and not (self.identified and self.dated):
            yield (
                f"time separation, but {self._path} lacks user ids or dates; check that it is not "
                "the file of the user separation"
            )

    def _decode(self, position: int, raw: msgspec.Raw) -> Any:
        try:
            return self._decoder.decode(raw)
        except msgspec.ValidationError as error:
            # Say first if the record is of the other LaMP-2 dataset: that explains missing fields.
            self._refuse_twin(position, raw)
            problem = explain_mismatch(raw, position, error)
            raise DataError(f"{self._path}: {problem}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise describe_syntax_error(self._path, self._file, error, bytes(raw)) from error

    def _check_content(self, position: int, question: Any) -> None:
        if self._form.twin:
            wording, _, _ = question.input.partition(self._form.marker)
            if FORMS[self._form.twin].input_mark in wording:
                self._refuse_twin(position, self._raws[position])

        if self._task == "lamp6":
            _, _, text = question.input.partition(":")
            texts = [text]
            if question.profile:
                texts.append(question.profile[0].text)
            if any(_MAIL_FILE_NAME.fullmatch(text) for text in texts):
                raise DataError(
                    f"{self._path}: record {question.id} holds the name of an e-mail file instead "
                    "of its text. The public LaMP-6 files are unfilled: obtain the licensed "
                    "Avocado Research Email Collection, fill them with the benchmark's own script "
                    "and pass the result with --data"
                )

    def _refuse_twin(self, position: int, raw: msgspec.Raw) -> None:
        """Raise a DataError if a LaMP-2 record belongs to the other LaMP-2 dataset."""
        if not self._form.twin:
            return

        twin = FORMS[self._form.twin]
        record = msgspec.json.decode(raw, type=Peek)
        is_marked = isinstance(record.input, str) and twin.input_mark in record.input
        if not is_marked and not self._has_twin_fields(record, twin):
            return

        remedy = f"use the task {self._form.twin}"
        if position:
            remedy = "the file mixes both datasets: separate them"
        raise DataError(
            f"{self._path}: record {record.id} belongs to {self._form.twin}, "
            f"not to {self._task}; {remedy}"
        )

    def _has_twin_fields(self, record: Peek, twin: Form) -> bool:
        # Both datasets may name a title and a text, so only the other fields tell them apart.
        shared = {"text", "title"}
        expected = set(self._form.fields) - shared
        foreign = set(twin.fields) - shared

        profile = record.profile if isinstance(record.profile, list) else []
        for entry in profile:
            if not isinstance(entry, dict):
                continue
            if foreign & entry.keys() and not expected <= entry.keys():
                return True
        return False

    def _count_dates(self, question: Any) -> int:
        """Count the dated entries of a question's profile.

        Raises:
            DataError: an entry's date is not a date.
        """
        count = 0
        for number, entry in enumerate(question.profile):
            if entry.date in (None, ""):
                continue
            if not _is_date(entry.date):
                raise DataError(
                    f"{self._path}: record {question.id}: profile[{number}].date: "
                    f"'{entry.date}' is not a date; write YYYY-MM-DD or a year"
                )
            count += 1
        return count


@lru_cache(maxsize=1 << 16)
def date_key(date: str | None) -> tuple[int, ...]:
    """Return a date as a tuple of integers, so that a bare year sorts before every day of it."""
    # Python converts a few thousand digits at most.
    return tuple(int(part) for part in re.findall(r"\d{1,100}", date or ""))


@lru_cache(maxsize=1 << 16)
def _is_date(date: str | int) -> bool:
    return _DATE.fullmatch(str(date)) is not None


def _map_file(path: Path) -> mmap.mmap:
    # An empty file cannot be mapped.
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
