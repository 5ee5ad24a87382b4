"""JSON files on disk: whole lines, replacement in one step, and errors that say what to do next."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from personabench.errors import DataError, RunError
from personabench.types import Prediction, from_json

T = TypeVar("T")

# Block size for finding the end of the last whole line.
_BLOCK = 1 << 20
TEMPORARY = ".tmp"
"""The end of the names of files that are not finished."""


def read_struct(path: Path, kind: type[T], remedy: str) -> T:
    """Read a file that holds one JSON object.

    Args:
        remedy: the last part of the message about a damaged file: what to do next.

    Raises:
        DataError: the file is missing, damaged or not readable.
    """
    try:
        return decode(path.read_bytes(), kind)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; is {path.parent} a run folder?") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); make it readable or move it away, "
            "then repeat the run's command"
        ) from error
    except msgspec.MsgspecError as error:
        raise DataError(f"{path} is damaged ({error}); {remedy}") from error


def read_lines(path: Path, kind: type[T]) -> Iterator[T]:
    """Read a file of JSON lines; a file that does not exist has none.

    Raises:
        DataError: a line is damaged. A last line without its end is skipped if it is torn.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                yield parse_line(path, number, line, kind)
            else:
                with suppress(msgspec.MsgspecError):
                    yield decode(line, kind)


def parse_line(path: Path, number: int, line: bytes, kind: type[T]) -> T:
    """Parse one line of a file.

    Raises:
        DataError: it is damaged; the message names the file and the line.
    """
    try:
        return decode(line, kind)
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{path}, line {number} is damaged ({error}); delete the line and repeat "
            "the run's command"
        ) from error


def decode(text: bytes, kind: type[T]) -> T:
    """Parse JSON, also as earlier versions wrote it."""
    # Runs that were started before an interaction was called so can still be resumed and scored.
    if b'"interaction":' not in text and _has_interaction(kind):
        text = text.replace(b'"record":{', b'"interaction":{')
    return from_json(text, kind)


def _has_interaction(kind: type[Any]) -> bool:
    """Whether JSON of this type holds a prediction, alone or as its last round."""
    annotations = getattr(kind, "__annotations__", {})
    return kind is Prediction or "prediction" in annotations


def count_lines(path: Path) -> int:
    """Count the lines of a file; a file that does not exist has none."""
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def write_line(file: IO[bytes], line: bytes) -> int:
    """Append a line to a file opened without buffering, or leave the file as it was.

    Returns:
        the line's offset.
    """
    # A nearly full disk accepts part of a write without an error.
    start = os.fstat(file.fileno()).st_size
    try:
        written = 0
        while written < len(line):
            written += file.write(line[written:])
    except OSError:
        file.truncate(start)
        raise
    return start


def remove_torn_line(path: Path) -> None:
    """Remove a last line without its end, which an interrupted process left behind."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        if end == 0:
            return
        start = max(0, end - _BLOCK)
        while True:
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0 or start == 0:
                break
            start = max(0, start - _BLOCK)
        file.truncate(start + newline + 1)


def to_file_name(text: str) -> str:
    """Replace the characters that a file name should not have."""
    return re.sub(r"[^\w.+-]+", "_", text)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Provide the name of a file to create that replaces `path` if the block does not raise.

    The file has to be opened with mode "x".
    """
    # A name that can be foreseen could be a link to another file in a folder that is shared.
    temporary = path.with_name(f".{secrets.token_hex(8)}{TEMPORARY}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file, replacing an older one in one step."""
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(content)


def replace_text(path: Path, text: str) -> None:
    """Write a line of text as a file, replacing an older one in one step."""
    replace_bytes(path, f"{text}\n".encode())


def write_error(path: Path, error: OSError) -> RunError:
    """Explain why a file cannot be written."""
    return RunError(
        f"{path} cannot be written ({error.strerror or error}); free some space or fix its "
        "permissions, then repeat the command: everything finished is kept"
    )
