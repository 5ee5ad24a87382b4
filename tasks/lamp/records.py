"""Opening LaMP files: large ones cheaply, broken ones with a message that says where.

Question files reach hundreds of megabytes.  The file is mapped, cut into one raw slice per record, checked record by
record, and decoded again one record at a time when asked; no decoded record is kept.
"""

from __future__ import annotations

import codecs
import mmap
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from personabench.api.dataset import Dataset
from personabench.api.id_check import compare_ids, few
from personabench.errors import DataError, UsageError
from personabench.hashing import digest_files
from personabench.tasks.lamp.forms import FORMS, Form
from personabench.types import Record, Sample

SAMPLES = Path(__file__).parent / "sample"
_DATE = re.compile(r"\d{4}(-\d{1,2}){0,2}([T ][\d:.]+Z?)?")
_PLACE = re.compile(r"(?P<problem>.*) - at `\$(?P<place>.*)`", re.DOTALL)
_QUESTION_ID = re.compile(rb'"id"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"(?:input|profile|user_id)"')


class Gold(msgspec.Struct, frozen=True):
    """One line of an output file."""

    id: str
    output: str


class Outputs(msgspec.Struct, frozen=True):
    """An output file."""

    task: str
    golds: list[Gold]


class _Wrapped(msgspec.Struct, frozen=True):
    golds: list[msgspec.Raw]


class _Peek(msgspec.Struct, frozen=True):
    id: Any = None
    input: Any = None
    profile: Any = None


def question_type(form: Form) -> type[Any]:
    """A Struct type for one question of a dataset: every official field a string, further fields allowed."""
    entry = msgspec.defstruct(
        "Entry",
        [("id", str), *((name, str) for name in form.fields), ("date", str | int | None, None)],
        gc=False,
    )
    return msgspec.defstruct(
        "Question",
        [
            ("id", str),
            ("input", str),
            ("profile", list[entry]),
            ("user_id", str | int | None, None),
        ],  # type: ignore[valid-type]
    )


def parse_split(text: str) -> tuple[str, str]:
    """`[user/|time/]train|dev|test` as (separation, split); the user separation when none is named.

    Raises:
        UsageError: anything else.
    """
    separation, slash, split = text.rpartition("/")
    separation = separation if slash else "user"
    if separation not in ("user", "time") or split not in ("train", "dev", "test"):
        raise UsageError(
            f"LaMP has no split '{text}'; write [user/|time/]train|dev|test, for example time/dev"
        )
    return separation, split


def locate(task: str, separation: str, split: str, data: Path | None) -> tuple[Path, Path]:
    """The question file and the output file (which need not exist) of a split.

    `data` holds the two files directly or is a copy of the official tree; None is the bundled sample.

    Raises:
        UsageError: the bundled sample has no such split.
        DataError: no question file; the message lists the places looked at.
    """
    if data is None:
        if split != "dev":
            raise UsageError(
                f"the bundled sample has the split dev only, not {split}; pass the real data with --data"
            )
        folder = SAMPLES / task
        return folder / "dev_questions.json", folder / "dev_outputs.json"
    tree = Path("time" if separation == "time" else "", FORMS[task].folder, split)
    places = [data / f"{split}_questions.json", data / tree / f"{split}_questions.json"]
    for place in places:
        if place.is_file():
            return place, place.with_name(f"{split}_outputs.json")
    looked = "\n".join(f"  {place}" for place in places)
    raise DataError(
        f"no questions of {task} {separation}/{split}; looked for\n{looked}\ngive --data one of those roots"
    )


def read_outputs(path: Path, task: str) -> dict[str, str]:
    """The gold outputs of a file by id, in file order.

    Raises:
        DataError: broken file, another task's, a repeated id, an output that is no string or outside its label list.
    """
    form = FORMS[task]
    content = path.read_bytes()
    try:
        outputs = msgspec.json.decode(content, type=Outputs)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        match = _PLACE.fullmatch(str(error))
        index = re.match(r"\.golds\[(\d+)\]", match["place"]) if match else None
        name = f" (record {_gold_id(content, int(index[1]))})" if index else ""
        raise DataError(
            f'{path}: not an output file: {error}{name}; expected {{"task", "golds": [{{"id", "output"}}]}} '
            "with every id and output a string"
        ) from error
    if outputs.task.replace("-", "_") != form.official:
        raise DataError(f"{path}: the file says task {outputs.task}, but {task} is {form.official}")
    golds = {gold.id: gold.output for gold in outputs.golds}
    if len(golds) < len(outputs.golds):
        difference = compare_ids(golds, [gold.id for gold in outputs.golds])
        raise DataError(f"{path}: ids must be unique; repeated: {few(difference.repeated)}")
    if form.labels:
        for gold_id, output in golds.items():
            if output.strip() not in form.labels:
                raise DataError(
                    f"{path}: record {gold_id}: gold '{output}' is not one of: {', '.join(form.labels)}"
                )
    return golds


def _gold_id(content: bytes, index: int) -> Any:
    return msgspec.json.decode(content)["golds"][index].get("id", index)


class LampData(Dataset):
    """An opened LaMP split.

    Raises:
        UsageError: no such split.
        DataError: files missing, broken or contradicting each other; says file, record, entry and field.
    """

    def __init__(self, task: str, split: str, data: Path | None) -> None:
        self.separation, self.split = parse_split(split)
        self.sample = data is None
        self._task = task
        self._form = FORMS[task]
        self._path, outputs = locate(task, self.separation, self.split, data)
        self.source = "bundled sample, not LaMP" if self.sample else str(self._path)
        self._decoder = msgspec.json.Decoder(question_type(self._form))
        self._file = _map(self._path)
        self._raws = self._cut()
        self._index: list[tuple[str, str]] = []
        self._check_records()
        self._golds: Mapping[str, str] = {}
        if outputs.is_file():
            self._golds = read_outputs(outputs, task)
            difference = compare_ids([each for each, _ in self._index], self._golds)
            if str(difference):
                raise DataError(
                    f"{outputs} does not fit {self._path.name} beside it: ids {difference}"
                )
        elif self.split != "test":
            raise DataError(f"{outputs} is missing: only the test split comes without outputs")
        self.hash = digest_files([self._path, outputs] if self._golds else [self._path])

    def index(self) -> Sequence[tuple[str, str]]:
        return self._index

    def load(self, position: int) -> Sample:
        question = self._decoder.decode(self._raws[position])
        _, user_id = self._index[position]
        query = self._form.query(question.input)
        gold = self._golds.get(question.id)
        return Sample(
            id=question.id,
            user_id=user_id,
            input=question.input,
            stimulus=(question.input if query is None else query) if self._form.marker else None,
            history=self._history(question.profile),
            references=() if gold is None else (gold,),
            choices=self._form.labels,
        )

    def _history(self, profile: list[Any]) -> tuple[Record, ...]:
        records = [
            self._form.record(
                entry.id,
                {name: getattr(entry, name) for name in self._form.fields},
                None if entry.date in (None, "") else str(entry.date),
            )
            for entry in profile
        ]
        if self.dated:
            records.sort(key=lambda record: date_key(record.time))
        return tuple(records)

    def _cut(self) -> list[msgspec.Raw]:
        try:
            shape: Any = list[msgspec.Raw] | _Wrapped
            found = msgspec.json.decode(self._file, type=shape)
        except msgspec.ValidationError as error:
            raise DataError(
                f'{self._path}: {error}; a question file is a list of questions or {{"task", "golds": [questions]}}'
            ) from error
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._broken(error) from error
        return found.golds if isinstance(found, _Wrapped) else list(found)

    def _check_records(self) -> None:
        """Decode every record once: fill the index, find out whether data are dated, collect warnings."""
        entries = dated = named = 0
        unworded: list[str] = []
        repeating: list[str] = []
        for position, raw in enumerate(self._raws):
            question = self._checked(position, raw)
            self._check_content(position, question)
            named += question.user_id is not None
            self._index.append(
                (question.id, question.id if question.user_id is None else str(question.user_id))
            )
            if self._form.query(question.input) is None:
                unworded.append(question.id)
            if len({entry.id for entry in question.profile}) < len(question.profile):
                repeating.append(question.id)
            entries += len(question.profile)
            dated += sum(
                self._is_dated(question, number) for number in range(len(question.profile))
            )
        if not self._index:
            raise DataError(f"{self._path}: no questions in it")
        ids = [each for each, _ in self._index]
        repeated = compare_ids(ids, ids).repeated
        if repeated:
            raise DataError(f"{self._path}: question ids must be unique; repeated: {few(repeated)}")
        self.dated = 0 < entries == dated
        self.identified = named == len(self._index)
        self.warnings = tuple(self._told(unworded, repeating))

    def _told(self, unworded: list[str], repeating: list[str]) -> Iterator[str]:
        if unworded:
            yield f"{few(unworded)} inputs lack the official wording; they are asked as they are"
        if repeating:
            yield f"{few(repeating)} profiles repeat an entry id"
        if self.separation == "time" and not self.sample and not (self.identified and self.dated):
            yield f"time separation, but {self._path} lacks user ids or dates: is it the user separation's file?"

    def _checked(self, position: int, raw: msgspec.Raw) -> Any:
        try:
            return self._decoder.decode(raw)
        except msgspec.ValidationError as error:
            self._refuse_foreign(position, raw)
            raise DataError(f"{self._path}: {_explained(raw, position, error)}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._broken(error, bytes(raw)) from error

    def _check_content(self, position: int, question: Any) -> None:
        if (
            self._form.foreign
            and self._form.foreign[0] in question.input.partition(self._form.marker)[0]
        ):
            self._refuse_foreign(position, self._raws[position])
        if self._task == "lamp6":
            texts = [
                question.input.partition(":")[2],
                *(entry.text for entry in question.profile[:1]),
            ]
            if any(re.fullmatch(r"\s*\S+\.txt\s*", text) for text in texts):
                raise DataError(
                    f"{self._path}: record {question.id} holds the name of an e-mail file instead of its text. The "
                    "public LaMP-6 files are unfilled: obtain the licensed Avocado Research Email Collection, fill "
                    "them with the benchmark's own script and pass the result with --data"
                )

    def _refuse_foreign(self, position: int, raw: msgspec.Raw) -> None:
        """Raise if a LaMP-2 record belongs to the other LaMP-2 dataset."""
        if self._form.foreign is None:
            return
        mark, other = self._form.foreign
        peek = msgspec.json.decode(raw, type=_Peek)
        entries = (
            [each for each in peek.profile if isinstance(each, dict)]
            if isinstance(peek.profile, list)
            else []
        )
        lost, gained = (
            set(self._form.fields) - {"text", "title"},
            set(FORMS[other].fields) - {"text", "title"},
        )
        if (isinstance(peek.input, str) and mark in peek.input) or any(
            gained & each.keys() and not lost <= each.keys() for each in entries
        ):
            remedy = (
                "the file mixes both datasets: separate them"
                if position
                else f"use the task {other}"
            )
            raise DataError(
                f"{self._path}: record {peek.id} belongs to {other}, not to {self._task}; {remedy}"
            )

    def _is_dated(self, question: Any, number: int) -> bool:
        date = question.profile[number].date
        if date is None or date == "":
            return False
        if not _is_date(date):
            raise DataError(
                f"{self._path}: record {question.id}: profile[{number}].date: '{date}' is no date; "
                "write YYYY-MM-DD or a year"
            )
        return True

    def _broken(self, error: Exception, record: bytes | None = None) -> DataError:
        """Where a file stops being JSON: byte, line and the last question that was whole."""
        start = 0 if record is None else self._file.find(record)
        found = re.search(r"\(byte (\d+)\)", str(error))
        offset = start + int(found[1]) if found else len(self._file)
        problem = str(error)
        if isinstance(error, UnicodeDecodeError) and record is not None:
            try:
                record.decode()
            except UnicodeDecodeError as precise:
                offset = start + precise.start
                problem = f"invalid UTF-8 (byte value 0x{record[precise.start]:02x})"
        opening = bytes(self._file[:64])
        if opening.lstrip().startswith(b"<"):
            problem = "this is an HTML page, not JSON"
        if opening.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return DataError(
                f"{self._path} begins with a byte order mark; save it as UTF-8 without one"
            )
        line = 1 + sum(chunk.count(b"\n") for chunk in _chunks(self._file, offset))
        last = next(iter(deque(_QUESTION_ID.finditer(self._file, 0, offset), maxlen=1)), None)
        after = (
            f"after the question id {last[1].decode(errors='replace')}"
            if last
            else "before any question id"
        )
        return DataError(
            f"{self._path}: {problem}, at byte {offset}, line {line}, {after}; the download may be incomplete"
        )


@lru_cache(maxsize=1 << 16)
def date_key(date: str | None) -> tuple[int, ...]:
    """A date as its integers, so that a bare year comes before every day of it."""
    return tuple(int(part) for part in re.findall(r"\d+", date or ""))


@lru_cache(maxsize=1 << 16)
def _is_date(date: str | int) -> bool:
    return _DATE.fullmatch(str(date)) is not None


def _map(path: Path) -> mmap.mmap:
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _chunks(content: mmap.mmap, end: int, size: int = 1 << 20) -> Iterator[bytes]:
    for start in range(0, end, size):
        yield content[start : min(start + size, end)]


def _explained(raw: msgspec.Raw, position: int, error: Exception) -> str:
    """A validation error in words: record, entry, field, problem."""
    match = _PLACE.fullmatch(str(error))
    problem, place = (match["problem"], match["place"].lstrip(".")) if match else (str(error), "")
    try:
        peek = msgspec.json.decode(raw, type=_Peek)
    except msgspec.ValidationError:
        return f"record number {position + 1} is not an object"
    record = (
        f"record {peek.id}"
        if isinstance(peek.id, str)
        else f"record number {position + 1} (id {peek.id!r})"
    )
    entry = re.match(r"profile\[(\d+)\]", place)
    if entry and isinstance(peek.profile[int(entry[1])], dict):
        place += f" (entry id {peek.profile[int(entry[1])].get('id')!r})"
    hint = (
        "; ids, scores and labels are JSON strings"
        if "got `int`" in problem or "got `float`" in problem
        else ""
    )
    return f"{record}{': ' + place if place else ''}: {problem}{hint}"
