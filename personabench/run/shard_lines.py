"""Copy JSON lines from the files of shards byte for byte, without holding them in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from personabench.errors import DataError
from personabench.results.run_folder import RunFolder
from personabench.run.shard_file import ShardOptions
from personabench.types import from_json


@dataclass(frozen=True)
class ShardRun:
    """One run of one shard: its folder and its `shard.json`."""

    folder: RunFolder
    options: ShardOptions

    def __str__(self) -> str:
        return f"{self.options.shard}/{self.options.of}"

    @property
    def has_summary(self) -> bool:
        """Whether the shard was scored."""
        return self.folder.summary_path.exists()


class LineHead(msgspec.Struct):
    """The fields of a line that merging reads.

    `sample_id` identifies a prediction or a judgement, `key` a profile.
    """

    sample_id: str = ""
    key: str = ""
    error: str | None = None
    profile: str | None = None


@dataclass(frozen=True)
class Line:
    """A line of JSON: the file, the offset of the line in it, and the fields that identify it."""

    path: Path
    offset: int
    head: LineHead


def index_lines(
    shards: Sequence[ShardRun], name: Path, owners: Mapping[str, int]
) -> dict[str, Line]:
    """Index the latest line of each sample, or of each profile's key, in a file of every shard.

    Args:
        name: the file's path in a run folder.
        owners: the shard that a sample belongs to, which counts if several shards have the sample.

    Raises:
        DataError: a line is damaged.
    """
    lines: dict[str, Line] = {}
    for shard in shards:
        path = shard.folder.path / name
        if not path.exists():
            continue
        for key, line in _index_file(path).items():
            if key not in lines or owners.get(key) == shard.options.shard:
                lines[key] = line
    return lines


def _index_file(path: Path) -> dict[str, Line]:
    lines: dict[str, Line] = {}
    offset = 0
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            # A line without its end was torn by an interrupt.
            if text.endswith(b"\n"):
                head = _read_head(path, number, text)
                lines[head.sample_id or head.key] = Line(path, offset, head)
            offset += len(text)
    return lines


def _read_head(path: Path, number: int, text: bytes) -> LineHead:
    try:
        return from_json(text, LineHead)
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{path}, line {number} is damaged ({error}); delete it and repeat"
        ) from error


def write_lines(target: RunFolder, path: Path, lines: Iterable[Line]) -> None:
    """Replace a file of a run folder by a copy of the lines."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(target.replacing(path))
        sources: dict[Path, IO[bytes]] = {}
        for line in lines:
            if line.path not in sources:
                sources[line.path] = stack.enter_context(line.path.open("rb"))
            source = sources[line.path]
            source.seek(line.offset)
            file.write(source.readline().decode())
