"""The official LaMP files: where they lie, and how to tell that what came back is really them.

A wrong but plausible address answers with status 200 and a short web page, and a broken connection leaves half a file;
neither may ever look like data.  Files are fetched to a temporary name, checked whole (format, number of records,
fields, which of the two LaMP-2 datasets, ids of questions against ids of outputs), and renamed only when all of them
have passed.  Sizes and layout follow the LaMP paper (arXiv 2304.11406) and its download page.
"""

from __future__ import annotations

import mmap
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from personabench.api import downloads
from personabench.errors import DataError, UsageError

BASE_URL = "https://ciir.cs.umass.edu/downloads/LaMP/"
SPLITS = ("train", "dev", "test")

ENTRY_FIELDS = {
    "lamp1": ("title", "abstract"),
    "lamp2m": ("tag", "description"),
    "lamp2n": ("title", "text", "category"),
    "lamp3": ("text", "score"),
    "lamp4": ("title", "text"),
    "lamp5": ("title", "abstract"),
    "lamp6": ("title", "text"),
    "lamp7": ("text",),
}
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
UNVERIFIED = {("lamp2m", "user", "train"), ("lamp2m", "user", "test"), ("lamp5", "user", "train")}
LAMP2 = {
    "lamp2m": ("movie tagging", "tags: [", "tag"),
    "lamp2n": ("news categorisation", "categories: [", "category"),
}
REMEDY = "Check the address, or pass your own copy of the official files with --data DIR."
UNFILLED = (
    "LaMP-6 as published holds e-mail file names in place of texts. The texts belong to the Avocado corpus, which is "
    "licensed by the LDC (LDC2015T03): fill the files with the LaMP repository's data/avocado script and pass the "
    "folder it writes with --data. Until then the task cannot run."
)


class _Wrong(Exception):
    """A file that is not the data it should be; the message is the list of reasons."""


class _Content(NamedTuple):
    """What a file holds: the task it states, its record ids in order, and its first records in full."""

    task: str | None
    ids: list[str]
    head: list[dict[str, Any]]


class _Part(NamedTuple):
    """One part of the benchmark."""

    task: str
    separation: str
    split: str

    @property
    def folder(self) -> str:
        number = self.task[4]
        movie = "new/" if self.task == "lamp2m" else ""
        return f"{'time/' if self.separation == 'time' else ''}LaMP_{number}/{movie}{self.split}"

    @property
    def names(self) -> list[str]:
        """Paths in the official tree; the outputs of a test split are not offered."""
        kinds = ("questions",) if self.split == "test" else ("questions", "outputs")
        return [f"{self.folder}/{self.split}_{kind}.json" for kind in kinds]

    @property
    def size(self) -> int | None:
        """The published number of records, None where there is none."""
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

    A file that is already there is never overwritten: it counts when the manifest knows it unchanged or when it passes
    the same checks.  `target/manifest.json` states origin, SHA-256, size, time and number of records of each file.

    Args:
        task: "lamp1" ... "lamp7", "lamp2m", "lamp2n".
        split: "dev", "user/dev", "time/test"; without a separation it is "user".
        base_url: the address that stands for the top of the official tree.
        expected: the number of records, instead of the published one.
        progress: called with (url, bytes so far, bytes in total or None).
        notice: told what does not stop the download: an unverified count, an unfilled LaMP-6.
        wait: how to wait between attempts, in seconds.

    Returns:
        The question file and, except for a test split or an unfilled LaMP-6, the output file.

    Raises:
        UsageError: no such task or split, or another download is at work in `target`.
        DataError: what came back, or already stands there, is not the data; the message names address and remedy.
    """
    part = _select(task, split)
    found: dict[Path, downloads.Entry] = {}
    fetched: dict[Path, Path] = {}
    questions: list[str] | None = None
    with downloads.exclusive(target):
        manifest = downloads.read_manifest(target)
        complete = _complete(part, target, manifest)
        for name in complete:
            for note in manifest[name].notes:
                notice(f"{name}: {note}")
        if complete:
            return [target / name for name in complete]
        for name in part.names:
            final, url = target / name, f"{base_url.rstrip('/')}/{name}"
            path = final
            try:
                if not final.exists():
                    path = fetched[final] = final.with_name(f"{final.name}.part")
                    downloads.fetch(url, path, opening=b"[{", progress=progress, wait=wait)
                content = _read(path)
                unfilled = questions is None and _unfilled(part, content)
                notes = _check(
                    part, content, questions, part.size if expected is None else expected, unfilled
                )
            except DataError as error:
                raise DataError(f"{str(error).rstrip('.')}. {REMEDY}") from error
            except _Wrong as error:
                for wrong in fetched.values():
                    downloads.discard(wrong)
                if path == final:
                    raise DataError(
                        f"{final} is not the data: {error}. Move it away to have it fetched."
                    ) from error
                raise DataError(
                    f"{url} did not bring the data: {error}. Nothing was kept. {REMEDY}"
                ) from error
            questions = content.ids
            known = manifest.get(name)
            if known is None or not downloads.intact(path, known):
                known = downloads.describe(
                    path, url if final in fetched else "", len(content.ids), notes, unfilled
                )
            found[final] = known
            for note in notes:
                notice(f"{name}: {note}")
            if unfilled:
                break
        for final, path in fetched.items():
            downloads.publish(path, final)
        entries = {final.relative_to(target).as_posix(): entry for final, entry in found.items()}
        downloads.write_manifest(target, {**manifest, **entries})
    return list(found)


def _select(task: str, split: str) -> _Part:
    separation, _, name = split.rpartition("/")
    part = _Part(task, separation or "user", name)
    if task == "lamp2":
        raise UsageError(
            "lamp2 is two datasets: choose lamp2m (movie tagging) or lamp2n (news categorisation)"
        )
    if task not in ENTRY_FIELDS:
        raise UsageError(f"no LaMP task {task}; there are {', '.join(ENTRY_FIELDS)}")
    if part.separation not in ("user", "time") or name not in SPLITS:
        raise UsageError(
            f"no split {split}; write user/ or time/ and one of {', '.join(SPLITS)}, as in time/dev"
        )
    return part


def _complete(part: _Part, target: Path, manifest: dict[str, downloads.Entry]) -> list[str]:
    """The names of a split's files if all of them are there as they were checked, else nothing."""
    names = part.names
    if names[0] in manifest and manifest[names[0]].unfilled:
        names = names[:1]
    return (
        names if all(downloads.intact(target / name, manifest.get(name)) for name in names) else []
    )


def _read(path: Path) -> _Content:
    """Parse a whole file, record by record, so that memory stays small.

    Raises:
        _Wrong: the file is no JSON, or has another shape, or a record without a text id.
    """
    try:
        with path.open("rb") as file:
            text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise _Wrong("it is empty") from error
    except OSError as error:
        raise _Wrong(f"it cannot be read ({error.strerror})") from error
    opening = bytes(text[:320]).lstrip()
    if opening[:1] not in (b"[", b"{"):
        raise _Wrong(f"it begins with {downloads.excerpt(opening)}")
    task: str | None = None
    ids: list[str] = []
    head: list[dict[str, Any]] = []
    try:
        if opening[:1] == b"{":
            answer = msgspec.json.decode(text, type=_Golds)
            task, records = answer.task, answer.golds
        else:
            records = msgspec.json.decode(text, type=list[msgspec.Raw])
        for raw in records:
            record = msgspec.json.decode(raw)
            if not isinstance(record, dict) or not isinstance(record.get("id"), str):
                raise _Wrong(f"record {len(ids)} has no id that is a string")
            ids.append(record["id"])
            if len(head) < 20:
                head.append(record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Wrong(f"it is not whole JSON of the right shape ({error})") from error
    return _Content(task, ids, head)


class _Golds(msgspec.Struct):
    task: str
    golds: list[msgspec.Raw]


def _check(
    part: _Part, content: _Content, questions: list[str] | None, size: int | None, unfilled: bool
) -> tuple[str, ...]:
    """Check a question file, or an output file when the ids of the `questions` are given.

    Returns:
        What is worth telling though it is no defect.

    Raises:
        _Wrong: with every defect found.
    """
    defects, notes = [], []
    stated = f"LaMP_{part.task[4]}"
    if content.task is not None and content.task.replace("-", "_") != stated:
        defects.append(f"it states task {content.task}, not {stated}")
    count = f"it holds {len(content.ids):,} records, and {'/'.join(part)}"
    if size is None:
        notes.append(f"{count} has no published number to compare")
    elif len(content.ids) != size and size == part.size and part in UNVERIFIED:
        notes.append(f"{count} has {size:,} by a number that was never verified")
    elif len(content.ids) != size:
        defects.append(f"{count} has {size:,}")
    defects += (
        _question_defects(part, content, unfilled)
        if questions is None
        else _output_defects(content, questions)
    )
    if defects:
        raise _Wrong("; ".join(defects))
    return (*notes, UNFILLED) if unfilled else tuple(notes)


def _question_defects(part: _Part, content: _Content, unfilled: bool) -> list[str]:
    """Defects of the first records of a question file."""
    if not content.head:
        return ["it holds no record"]
    dated = part.separation == "time"
    needed: dict[str, Any] = {"input": str, "profile": list} | (
        {"user_id": str | int} if dated else {}
    )
    lacking = [
        key for key, kind in needed.items() if not isinstance(content.head[0].get(key), kind)
    ]
    if lacking:
        return [f"its first record lacks {', '.join(lacking)}"]
    name, times = Counter(content.ids).most_common(1)[0]
    defects = [f"id {name} occurs {times} times"] if times > 1 else []
    entries = [
        entry
        for record in content.head
        for entry in record.get("profile") or ()
        if isinstance(entry, dict)
    ]
    if part.task in LAMP2:
        defects += _kind_defects(part.task, content.head, entries)
    fields = (
        ("id", "text")
        if unfilled
        else ("id", *ENTRY_FIELDS[part.task], *(["date"] if dated else []))
    )
    missing = [field for field in fields if entries and field not in entries[0]]
    if missing:
        defects.append(
            f"its first profile entry lacks {', '.join(missing)} (it has {', '.join(entries[0])})"
        )
    return defects


def _kind_defects(
    task: str, head: list[dict[str, Any]], entries: list[dict[str, Any]]
) -> list[str]:
    """Both LaMP-2 datasets state the same task name; inputs and profile fields tell them apart."""
    seen = {
        name
        for name, (_, marker, field) in LAMP2.items()
        if any(marker in str(record.get("input")) for record in head)
        or any(field in entry for entry in entries)
    }
    if seen == {task}:
        return []
    kinds = (
        " and ".join(f"{LAMP2[name][0]} ({name})" for name in sorted(seen))
        or "neither LaMP-2 dataset"
    )
    return [f"its records are of {kinds}, not of {LAMP2[task][0]} alone"]


def _output_defects(content: _Content, questions: list[str]) -> list[str]:
    """Defects of an output file, given the ids of its questions."""
    defects = []
    if content.task is None:
        defects.append('it is not of the form {"task", "golds"}')
    if content.head and not isinstance(content.head[0].get("output"), str):
        defects.append("its first record lacks output")
    have, want = Counter(content.ids), Counter(questions)
    for what, ids in (("without an output", want - have), ("without a question", have - want)):
        if ids:
            defects.append(f"{ids.total()} ids {what} ({', '.join(list(ids)[:3])})")
    return defects


def _unfilled(part: _Part, content: _Content) -> bool:
    """Whether a LaMP-6 file still holds e-mail file names."""
    name = re.compile(r"(Generate a subject for the following email: )?\S+\.txt")
    inputs = [str(record.get("input")) for record in content.head]
    return part.task == "lamp6" and bool(inputs) and all(name.fullmatch(text) for text in inputs)
