"""Download of the official LaMP files, with checks that the content is the requested data.

A wrong but plausible address answers with status 200 and a short web page, and a broken connection
leaves half a file; neither may ever pass for data. Files are fetched to a temporary name, checked
completely (format, number of records, fields, which of the two LaMP-2 datasets, ids of questions
against ids of outputs), and renamed only when all of them have passed. Sizes and layout follow the
LaMP paper (arXiv 2304.11406) and its download page.
"""

from __future__ import annotations

import mmap
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from personabench.api import downloads
from personabench.errors import DataError, UsageError
from personabench.tasks.lamp.forms import FORMS, SPLITS, parse_split

BASE_URL = "https://ciir.cs.umass.edu/downloads/LaMP/"
# Published numbers of records in train, dev and test.
SIZES = {
    ("lamp1", "user"): (9682, 2500, 2500),
    ("lamp2m", "user"): (3820, 692, 870),
    ("lamp2n", "user"): (5914, 1052, 1274),
    ("lamp3", "user"): (20000, 2500, 2500),
    ("lamp4", "user"): (12527, 1925, 2376),
    ("lamp5", "user"): (9682, 2500, 2500),
    ("lamp6", "user"): (4840, 1353, 1246),
    ("lamp7", "user"): (10437, 1500, 1496),
    ("lamp1", "time"): (6542, 1500, 1500),
    ("lamp2m", "time"): (5073, 1410, 1557),
    ("lamp3", "time"): (20000, 2500, 2500),
    ("lamp4", "time"): (12500, 1500, 1800),
    ("lamp5", "time"): (14682, 1500, 1500),
    ("lamp6", "time"): (4821, 1250, 1250),
    ("lamp7", "time"): (13437, 1498, 1500),
}
# Numbers that were never compared with the files themselves, so a difference only warns.
UNVERIFIED = {
    ("lamp2m", "user", "train"),
    ("lamp2m", "user", "test"),
    ("lamp5", "user", "train"),
}
LAMP2_TITLES = {"lamp2m": "movie tagging", "lamp2n": "news categorisation"}
REMEDY = "Check the address, or pass your own copy of the official files with --data DIR."
UNFILLED = (
    "LaMP-6 as published holds e-mail file names in place of texts. The texts belong to the "
    "Avocado corpus, which is licensed by the LDC (LDC2015T03): fill the files with the LaMP "
    "repository's data/avocado script and pass the folder it writes with --data. Until then the "
    "task cannot run."
)
# Fields are checked in the first records only: they show which dataset a file is, and the loader
# checks every record anyway.
_HEAD = 20
_MAIL_FILE_NAME = re.compile(r"(Generate a subject for the following email: )?\S+\.txt")


class _Content(NamedTuple):
    """The content of a file: its stated task, its record ids in order and its first records."""

    task: str | None
    ids: list[str]
    head: list[dict[str, Any]]


class _Part(NamedTuple):
    """One part of the benchmark."""

    task: str
    separation: str
    split: str

    @property
    def file_names(self) -> list[str]:
        """Paths in the official tree; the outputs of a test split are not published."""
        prefix = "time/" if self.separation == "time" else ""
        folder = f"{prefix}{FORMS[self.task].folder}/{self.split}"
        kinds = ["questions"] if self.split == "test" else ["questions", "outputs"]
        return [f"{folder}/{self.split}_{kind}.json" for kind in kinds]

    @property
    def size(self) -> int | None:
        """The published number of records; None without one."""
        sizes = SIZES.get((self.task, self.separation))
        return sizes[SPLITS.index(self.split)] if sizes else None


def download(
    task: str,
    split: str,
    target: Path,
    *,
    base_url: str = BASE_URL,
    expected: int | None = None,
    progress: downloads.Progress | None = None,
    notice: Callable[[str], None] = warnings.warn,
    wait: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Fetch and check the files of one split into `target`, in the layout of the official tree.

    A file that is already present is never overwritten: it counts if it is unchanged according to
    the manifest or passes the same checks. `target/manifest.json` records origin, SHA-256, size,
    time and number of records of each file.

    Args:
        task: "lamp1" ... "lamp7", "lamp2m", "lamp2n".
        split: "dev", "user/dev", "time/test"; the separation defaults to "user".
        base_url: the address of the root of the official tree.
        expected: the number of records (default: the published one).
        progress: called with (url, bytes so far, bytes in total or None).
        notice: called with warnings: an unverified number of records, an unfilled LaMP-6.
        wait: called with the seconds to wait between attempts.

    Returns:
        The question file and, except for a test split or an unfilled LaMP-6, the output file.

    Raises:
        UsageError: no such task or split, or another download is writing to `target`.
        DataError: the content is not the data; the message names the address and a remedy.
    """
    part = _select_part(task, split)
    size = part.size if expected is None else expected
    question_ids: list[str] | None = None

    def check(paths: Sequence[Path]) -> downloads.CheckedFile:
        # A question file has hundreds of megabytes; its ids are kept for the outputs.
        nonlocal question_ids
        content = _read_content(paths[-1])
        unfilled = question_ids is None and _is_unfilled(part, content)
        notes = _check_content(part, content, question_ids, size, unfilled)
        question_ids = content.ids
        return downloads.CheckedFile(len(content.ids), notes, unfilled)

    return downloads.download_files(
        target,
        dict.fromkeys(part.file_names, b"[{"),
        lambda _: base_url,
        check,
        remedy=REMEDY,
        progress=progress,
        notice=notice,
        wait=wait,
    )


def _select_part(task: str, split: str) -> _Part:
    if task == "lamp2":
        raise UsageError(
            "lamp2 is two datasets: choose lamp2m (movie tagging) or lamp2n (news categorisation)"
        )
    if task not in FORMS:
        raise UsageError(f"no LaMP task {task}; choose one of {', '.join(FORMS)}")
    return _Part(task, *parse_split(split))


class _Golds(msgspec.Struct):
    task: str
    golds: list[msgspec.Raw]


def _read_content(path: Path) -> _Content:
    """Parse a whole file, record by record to save memory.

    Raises:
        DataError: the file is not JSON or has another shape, or a record has no string id.
    """
    text = _map_file(path)
    opening = bytes(text[:320]).lstrip()
    if opening[:1] not in (b"[", b"{"):
        raise DataError(f"it begins with {downloads.excerpt(opening)}")

    task: str | None = None
    ids: list[str] = []
    head: list[dict[str, Any]] = []
    try:
        if opening[:1] == b"{":
            wrapped = msgspec.json.decode(text, type=_Golds)
            task, records = wrapped.task, wrapped.golds
        else:
            records = msgspec.json.decode(text, type=list[msgspec.Raw])

        for raw in records:
            record = msgspec.json.decode(raw)
            if not isinstance(record, dict) or not isinstance(record.get("id"), str):
                raise DataError(f"record {len(ids)} has no id that is a string")
            ids.append(record["id"])
            if len(head) < _HEAD:
                head.append(record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"it is not whole JSON of the right shape ({error})") from error
    return _Content(task, ids, head)


def _map_file(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        # An empty file cannot be mapped.
        raise DataError("it is empty") from error
    except OSError as error:
        raise DataError(f"it cannot be read ({error.strerror})") from error


def _check_content(
    part: _Part,
    content: _Content,
    questions: list[str] | None,
    size: int | None,
    unfilled: bool,
) -> tuple[str, ...]:
    """Check a question file, or an output file if the ids of the `questions` are given.

    Returns:
        Notes for the user about facts that are not defects.

    Raises:
        DataError: with all defects.
    """
    official = FORMS[part.task].official
    defects = []
    if content.task is not None and content.task.replace("-", "_") != official:
        defects.append(f"it states task {content.task}, not {official}")

    size_defects, notes = _compare_size(part, content, size)
    defects += size_defects
    if questions is None:
        defects += _find_question_defects(part, content, unfilled)
    else:
        defects += _find_output_defects(content, questions)

    # All defects at once: together they often show which other file this is.
    if defects:
        raise DataError("; ".join(defects))
    return (*notes, UNFILLED) if unfilled else tuple(notes)


def _compare_size(
    part: _Part,
    content: _Content,
    size: int | None,
) -> tuple[list[str], list[str]]:
    """Compare the number of records with the expected one; returns defects and notes."""
    summary = f"it holds {len(content.ids):,} records, and {'/'.join(part)}"
    if size is None:
        return [], [f"{summary} has no published number to compare"]
    if len(content.ids) == size:
        return [], []
    if size == part.size and part in UNVERIFIED:
        return [], [f"{summary} has {size:,} by a number that was never verified"]
    return [f"{summary} has {size:,}"], []


def _find_question_defects(part: _Part, content: _Content, unfilled: bool) -> list[str]:
    """List the defects of the first records of a question file."""
    if not content.head:
        return ["it holds no records"]

    required: dict[str, Any] = {"input": str, "profile": list}
    if part.separation == "time":
        required["user_id"] = str | int
    first = content.head[0]
    missing = [key for key, kind in required.items() if not isinstance(first.get(key), kind)]
    if missing:
        return [f"its first record lacks {', '.join(missing)}"]

    defects = []
    record_id, count = Counter(content.ids).most_common(1)[0]
    if count > 1:
        defects.append(f"id {record_id} occurs {count} times")

    entries = _collect_entries(content.head)
    if part.task in LAMP2_TITLES:
        defects += _find_lamp2_defects(part.task, content.head, entries)
    if entries:
        defects += _find_entry_defects(part, entries[0], unfilled)
    return defects


def _collect_entries(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    entries = []
    for record in records:
        profile = record.get("profile") or ()
        entries += [entry for entry in profile if isinstance(entry, dict)]
    return entries


def _find_entry_defects(part: _Part, entry: dict[str, Any], unfilled: bool) -> list[str]:
    if unfilled:
        fields = ["id", "text"]
    else:
        fields = ["id", *FORMS[part.task].fields]
        if part.separation == "time":
            fields.append("date")

    missing = [field for field in fields if field not in entry]
    if not missing:
        return []
    return [f"its first profile entry lacks {', '.join(missing)} (it has {', '.join(entry)})"]


def _find_lamp2_defects(
    task: str,
    head: list[dict[str, Any]],
    entries: list[dict[str, Any]],
) -> list[str]:
    # Both LaMP-2 datasets state the same task name, so inputs and profile fields must distinguish
    # them. Single inputs of the published files are mangled; hence any marked record counts.
    inputs = [str(record.get("input")) for record in head]
    present = []
    for name in LAMP2_TITLES:
        form = FORMS[name]
        in_inputs = any(form.input_mark in text for text in inputs)
        in_entries = any(form.response[0] in entry for entry in entries)
        if in_inputs or in_entries:
            present.append(name)

    if present == [task]:
        return []
    kinds = " and ".join(f"{LAMP2_TITLES[name]} ({name})" for name in present)
    kinds = kinds or "neither LaMP-2 dataset"
    return [f"its records are of {kinds}, not of {LAMP2_TITLES[task]} alone"]


def _find_output_defects(content: _Content, questions: list[str]) -> list[str]:
    """List the defects of an output file, given the ids of its questions."""
    defects = []
    if content.task is None:
        defects.append('it is not of the form {"task", "golds"}')
    if content.head and not isinstance(content.head[0].get("output"), str):
        defects.append("its first record lacks output")

    output_ids = Counter(content.ids)
    question_ids = Counter(questions)
    mismatches = {
        "without an output": question_ids - output_ids,
        "without a question": output_ids - question_ids,
    }
    for problem, ids in mismatches.items():
        if ids:
            examples = ", ".join(list(ids)[:3])
            defects.append(f"{ids.total()} ids {problem} ({examples})")
    return defects


def _is_unfilled(part: _Part, content: _Content) -> bool:
    """Whether a LaMP-6 file still holds e-mail file names instead of texts."""
    if part.task != "lamp6" or not content.head:
        return False
    inputs = [str(record.get("input")) for record in content.head]
    return all(_MAIL_FILE_NAME.fullmatch(text) for text in inputs)
