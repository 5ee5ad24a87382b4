"""Error messages for broken LaMP question files: byte, line, record, entry and field."""

from __future__ import annotations

import codecs
import mmap
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from personabench.errors import DataError

_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MISMATCH = re.compile(r"(?P<problem>.*) - at `\$(?P<field>.*)`", re.DOTALL)
# Profile entries have ids as well; only those of questions are followed by one of these keys.
_QUESTION_ID = re.compile(rb'"id"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"(?:input|profile|user_id)"')


class Peek(msgspec.Struct, frozen=True):
    """The parts of a question that messages name, whatever their types."""

    id: Any = None
    input: Any = None
    profile: Any = None


def describe_syntax_error(
    path: Path,
    content: mmap.mmap,
    error: Exception,
    record: bytes | None = None,
) -> DataError:
    """Make an error that locates broken JSON: byte, line and the last complete question.

    `record` is the raw record in which decoding failed; by default the whole file was decoded.
    """
    opening = bytes(content[:64])
    if opening.startswith(_BYTE_ORDER_MARKS):
        return DataError(f"{path} begins with a byte order mark; save it as UTF-8 without one")

    problem, offset = _locate_problem(content, error, record)
    if opening.lstrip().startswith(b"<"):
        problem = "this is an HTML page, not JSON"

    chunks = _iter_chunks(content, offset)
    line = 1 + sum(chunk.count(b"\n") for chunk in chunks)
    # A deque of length 1 keeps the last match only, however many questions precede the error.
    matches = deque(_QUESTION_ID.finditer(content, 0, offset), maxlen=1)
    context = "before any question id"
    if matches:
        context = f"after the question id {matches[0][1].decode(errors='replace')}"
    return DataError(
        f"{path}: {problem}, at byte {offset}, line {line}, {context}; "
        "the download may be incomplete"
    )


def _locate_problem(
    content: mmap.mmap,
    error: Exception,
    record: bytes | None,
) -> tuple[str, int]:
    """Return the problem in words and its byte offset in the file."""
    start = 0 if record is None else content.find(record)

    # msgspec reports invalid UTF-8 without the offset within the record.
    if isinstance(error, UnicodeDecodeError) and record is not None:
        try:
            record.decode()
        except UnicodeDecodeError as precise:
            value = record[precise.start]
            return f"invalid UTF-8 (byte value 0x{value:02x})", start + precise.start

    match = re.search(r"\(byte (\d+)\)", str(error))
    offset = start + int(match[1]) if match else len(content)
    return str(error), offset


def _iter_chunks(content: mmap.mmap, end: int, size: int = 1 << 20) -> Iterator[bytes]:
    for start in range(0, end, size):
        yield content[start : min(start + size, end)]


def explain_mismatch(raw: msgspec.Raw, position: int, error: Exception) -> str:
    """Put a validation error into words: record, entry, field, problem."""
    match = _MISMATCH.fullmatch(str(error))
    problem = match["problem"] if match else str(error)
    field = match["field"].lstrip(".") if match else ""

    try:
        record = msgspec.json.decode(raw, type=Peek)
    except msgspec.ValidationError:
        return f"record number {position + 1} is not an object"

    name = f"record number {position + 1} (id {record.id!r})"
    if isinstance(record.id, str):
        name = f"record {record.id}"

    entry_match = re.match(r"profile\[(\d+)\]", field)
    if entry_match:
        entry = record.profile[int(entry_match[1])]
        if isinstance(entry, dict):
            field += f" (entry id {entry.get('id')!r})"

    # The usual cause of a number is a file that was rewritten by a tool that converts digits.
    hint = ""
    if "got `int`" in problem or "got `float`" in problem:
        hint = "; ids, scores and labels are JSON strings"
    location = f": {field}" if field else ""
    return f"{name}{location}: {problem}{hint}"
