"""Files of answers: JSON lines of `{"id", "output"}`, and compressed files of any form."""

from __future__ import annotations

import gzip
import re
import shutil
import tempfile
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from personabench.errors import DataError, PersonabenchError
from personabench.types import from_json


class Answer(NamedTuple):
    """A sample's output, None for an absent one, and its user if the file names it."""

    id: str
    output: str | None
    user_id: str | None = None


class _Line(msgspec.Struct, frozen=True):
    id: str
    output: str | int | float | None
    user_id: str | None = None


# The start of a line of our own form, to tell a damaged line from another file format.
_LINE_START = re.compile(rb'\s*\{\s*"(id|output)"')


def read_lines(path: Path) -> list[Answer] | None:
    """Read a JSON-lines file of `{"id", "output"}`; None if the file has another format.

    Raises:
        DataError: a line is damaged; the message names it.
    """
    answers: list[Answer] = []
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            text = text.removeprefix(BOM_UTF8)
            try:
                line = from_json(text, _Line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if not answers and not _LINE_START.match(text):
                    return None
                raise DataError(
                    f'{path}: line {number}: {error}; expected {{"id", "output"}}, ids as strings'
                ) from error
            output = None if line.output is None else str(line.output)
            answers.append(Answer(line.id, output, line.user_id))
    return answers or None


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Give a file that may be compressed (`.gz`) as a plain file.

    Raises:
        DataError: there is no such file, or it cannot be unpacked. Errors about the plain file
            name the compressed one.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; name one file in it")
    if not path.is_file():
        raise DataError(f"no file {path}")
    if path.suffix != ".gz":
        yield path
        return

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.stem
        try:
            with gzip.open(path, "rb") as source, plain.open("wb") as target:
                shutil.copyfileobj(source, target)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} cannot be unpacked: {error}") from error
        try:
            yield plain
        except PersonabenchError as error:
            raise type(error)(str(error).replace(str(plain), str(path))) from error
