"""Files of answers: JSON lines of `{"id", "output"}`, and compressed files of any form.

`sample_id` and `prediction`, the names in run folders and in other tools, are read as well.
"""

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
    """A sample's output, None for an absent one, with its user and seed if the file names them.

    An answer may be a score for each choice in place of an output.
    """

    id: str
    output: str | None
    user_id: str | None = None
    seed: int | None = None
    scores: tuple[float, ...] | None = None


class _Line(msgspec.Struct, frozen=True):
    id: str | None = None
    sample_id: str | None = None
    output: str | int | float | msgspec.UnsetType | None = msgspec.UNSET
    prediction: str | int | float | msgspec.UnsetType | None = msgspec.UNSET
    user_id: str | None = None
    seed: int | None = None
    scores: tuple[float, ...] | None = None

    def answer(self) -> Answer | None:
        """The answer of the line; None if it lacks an id or an output."""
        sample_id = self.sample_id if self.id is None else self.id
        output = self.prediction if self.output is msgspec.UNSET else self.output
        if sample_id is None or (output is msgspec.UNSET and self.scores is None):
            return None
        text = None if output is msgspec.UNSET or output is None else str(output)
        return Answer(sample_id, text, self.user_id, self.seed, self.scores)


# The start of a line of our own form, to tell a damaged line from another file format.
_LINE_START = re.compile(rb'\s*\{\s*"(id|sample_id|output|prediction)"')


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
            problem = "no id or no output"
            try:
                answer = from_json(text, _Line).answer()
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                answer, problem = None, str(error)
            if answer is None:
                if not answers and not _LINE_START.match(text):
                    return None
                raise DataError(
                    f'{path}: line {number}: {problem}; expected {{"id", "output"}}, ids as strings'
                )
            answers.append(answer)
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
