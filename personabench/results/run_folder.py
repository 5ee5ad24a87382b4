"""Run folders: append and read a run's files so that finished work survives any interrupt.

`predictions.jsonl` is appended, one flushed line per sample; a torn last line is removed and its
sample is owed again. The same command opens the same folder and runs the owed samples. A lock keeps
a second writer out. Files are described in docs/files.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
from filelock import FileLock, Timeout

from personabench.errors import DataError, UsageError
from personabench.results.checksums import Seal, is_changed, make_seal
from personabench.results.files import (
    TEMPORARY,
    decode,
    parse_line,
    read_lines,
    read_struct,
    remove_torn_line,
    replace_text,
    replacing,
    to_file_name,
    write_error,
    write_line,
)
from personabench.results.refresh import Refresh
from personabench.results.rounds import Rounds
from personabench.results.spec import RunSpec
from personabench.results.summary import Summary
from personabench.types import Call, Judgement, Prediction, Score, from_json, to_json

T = TypeVar("T")

RUN_FILE = "run.toml"


class Profile(msgspec.Struct, frozen=True):
    """A line of `artifacts/profiles.jsonl`: a user's state and the calls that made it.

    `shown` holds the ids of the records in these calls; None in lines of earlier versions.
    """

    user_id: str
    key: str
    state: Any
    calls: tuple[Call, ...]
    flags: dict[str, float]
    reused: bool = False
    shown: tuple[str, ...] | None = None


class ProfileHead(msgspec.Struct, frozen=True):
    """A `Profile` without its state, which may be as long as the history."""

    user_id: str
    key: str
    calls: tuple[Call, ...]
    flags: dict[str, float]


class _Id(msgspec.Struct):
    sample_id: str


class _Key(msgspec.Struct):
    key: str


class RunFolder:
    """One run on disk.

    Attributes:
        rounds: the last round of each user of an online task.
        refresh: an unfinished `--cache refresh`.

    Raises:
        UsageError: another process is writing to it, or it belongs to another run.
        RunError: the disk is full or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.predictions_path = path / "predictions.jsonl"
        self.scores_path = path / "scores.jsonl"
        self.summary_path = path / "summary.json"
        self.profiles_path = path / "artifacts" / "profiles.jsonl"
        self.rounds = Rounds(path / "states")
        self.refresh = Refresh(path)
        self._lock = FileLock(path / "lock", timeout=0)
        self._files: dict[Path, IO[bytes]] = {}

    @staticmethod
    def path_of(results: Path, spec: RunSpec) -> Path:
        """Path of a run's folder: `runs/<task>/<method>/<model>/<fingerprint8>`."""
        parts = (
            spec.task,
            spec.method,
            spec.model["name"],
            spec.fingerprint[:8],
        )
        return results.joinpath("runs", *map(to_file_name, parts))

    def start(self, spec: RunSpec) -> Path:
        """Take the lock, write `spec.json`, and repair torn files.

        Returns:
            the path of this attempt's log.
        """
        try:
            return self._start(spec)
        except BaseException:
            self.close()
            raise

    def _start(self, spec: RunSpec) -> Path:
        try:
            (self.path / "artifacts").mkdir(parents=True, exist_ok=True)
            attempts = self.path / "attempts"
            attempts.mkdir(exist_ok=True)
            self._lock.acquire()
            self._write_spec(spec)

            # Those of a killed process; nobody else writes while the lock is held.
            for path in self.path.glob(f"*{TEMPORARY}"):
                path.unlink()

            # Only now: a line that another process is still writing looks torn as well.
            remove_torn_line(self.predictions_path)
            remove_torn_line(self.profiles_path)
            for path in self.path.glob("judgements/*.jsonl"):
                remove_torn_line(path)

            number = len(list(attempts.glob("*.log"))) + 1
            return attempts / f"{number:03d}.log"
        except Timeout as error:
            raise UsageError(
                f"another process is writing to {self.path}; wait for it or stop it"
            ) from error
        except msgspec.MsgspecError as error:
            raise UsageError(
                f"{self.path / 'spec.json'} is damaged ({error}); move the folder away"
            ) from error
        except OSError as error:
            raise write_error(self.path, error) from error

    def _write_spec(self, spec: RunSpec) -> None:
        path = self.path / "spec.json"
        if path.exists():
            existing = from_json(path.read_bytes(), RunSpec)
            if existing.fingerprint != spec.fingerprint:
                raise UsageError(f"{self.path} belongs to another run; move it away")
        replace_text(path, to_json(spec))

    def write_run_file(self, text: str) -> None:
        """Write `run.toml`, the options of the command that works on the run."""
        try:
            replace_text(self.path / RUN_FILE, text.rstrip("\n"))
        except OSError as error:
            raise write_error(self.path / RUN_FILE, error) from error

    def close(self) -> None:
        """Close files and release the lock."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._lock.release()

    def discard(self) -> None:
        """Delete a folder without predictions, which was started for nothing."""
        if not self.predictions_path.exists():
            shutil.rmtree(self.path, ignore_errors=True)

    def append(self, path: Path, line: msgspec.Struct) -> int:
        """Append one line, whole or not at all as far as later readers can see.

        Returns:
            its offset in the file.
        """
        try:
            file = self._files.get(path)
            if file is None:
                path.parent.mkdir(exist_ok=True)
                file = self._files[path] = path.open("ab", buffering=0)
            return write_line(file, to_json(line).encode() + b"\n")
        except OSError as error:
            raise write_error(path, error) from error

    def judgements_path(self, judge: str) -> Path:
        """Path of the judgements of a judge, given the judge's key."""
        return self.path / "judgements" / f"{judge[:8]}.jsonl"

    def judgements(self, judge: str, older: int = 0) -> dict[str, Judgement]:
        """Read the latest judgement of each sample by a judge.

        Args:
            older: number of lines at the start of the file to skip.
        """
        judgements = islice(read_lines(self.judgements_path(judge), Judgement), older, None)
        return {judgement.sample_id: judgement for judgement in judgements}

    def prediction(self, sample_id: str) -> Prediction | None:
        """Read the latest prediction of one sample; None without one."""
        latest = None
        for prediction in self.iter_predictions():
            if prediction.sample_id == sample_id:
                latest = prediction
        return latest

    def ordered_predictions(self, sample_ids: Iterable[str]) -> Iterator[Prediction | None]:
        """Read the latest prediction of each sample in the given order, None for those without one.

        Raises:
            DataError: a line is damaged.
        """
        # Only offsets are held in memory: predictions of a large run may not fit.
        offsets = {
            sample.sample_id: offset for sample, offset in _iter_offsets(self.predictions_path, _Id)
        }
        if not offsets:
            yield from (None for _ in sample_ids)
            return
        with self.predictions_path.open("rb") as file:
            for sample_id in sample_ids:
                offset = offsets.get(sample_id)
                if offset is None:
                    yield None
                else:
                    yield _read_line(self.predictions_path, file, offset, Prediction)

    def iter_predictions(self) -> Iterator[Prediction]:
        """Read every line of `predictions.jsonl`, failed attempts included."""
        return read_lines(self.predictions_path, Prediction)

    def profiles(self, older: int = 0) -> dict[str, Profile]:
        """Read the states of users, by key.

        Args:
            older: number of lines at the start of the file to skip.
        """
        profiles = islice(read_lines(self.profiles_path, Profile), older, None)
        return {profile.key: profile for profile in profiles}

    def profile_heads(self) -> dict[str, ProfileHead]:
        """Read the profiles without the states of users, by key."""
        heads = read_lines(self.profiles_path, ProfileHead)
        return {head.key: head for head in heads}

    def profile_offsets(self, older: int = 0) -> dict[str, int]:
        """The offset of the latest line of each profile, by its key; `older` as in `profiles`."""
        offsets = islice(_iter_offsets(self.profiles_path, _Key), older, None)
        return {profile.key: offset for profile, offset in offsets}

    def profile(self, offset: int) -> Profile:
        """Read the profile on the line at an offset.

        Raises:
            DataError: the line is damaged.
        """
        with self.profiles_path.open("rb") as file:
            return _read_line(self.profiles_path, file, offset, Profile)

    def scores(self) -> Iterator[Score]:
        """Read every line of `scores.jsonl`.

        Raises:
            DataError: the file was changed since the run was scored, or a line is damaged.
        """
        if self.summary_path.exists() or self.scores_path.exists():
            self.verify(self.scores_path)
        return read_lines(self.scores_path, Score)

    def verify(self, path: Path) -> None:
        """Check that a file of the run has not changed since the run was scored.

        The scores have to be the same; to other files, later attempts may have appended.

        Raises:
            DataError: it was changed, or the summary has no checksum of it.
        """
        name = path.relative_to(self.path).as_posix()
        recorded = self.summary().files.get(name)
        if recorded is None:
            raise DataError(
                f"{self.summary_path} does not have a checksum of {name}: it was written by an "
                "earlier version; repeat the run's command, which uses stored answers, and "
                "move this folder away"
            )

        change = self.describe_change(path, recorded)
        if change is not None:
            raise DataError(
                f"{path} was changed after the run was scored: it {change}. Repeat the run's "
                "command: it scores existing answers again, and calls a model for missing ones only"
            )

    def describe_change(self, path: Path, recorded: Seal) -> str | None:
        """Describe how a file differs from its checksum; None if it does not."""
        current = make_seal(path, None if path == self.scores_path else recorded.bytes)
        if current == recorded:
            return None
        lines = make_seal(path).lines
        if lines != recorded.lines:
            return f"has {lines} lines of {recorded.lines}"
        return "has other content"

    def spec(self) -> RunSpec:
        """Read the run's spec.

        Raises:
            DataError: it is missing or damaged.
        """
        return read_struct(
            self.path / "spec.json", RunSpec, "move the run's folder away and repeat its command"
        )

    def summary(self) -> Summary:
        """Read the run's `summary.json`.

        Raises:
            DataError: it is missing or damaged; the message names the field.
        """
        if not self.summary_path.exists() and (self.path / "spec.json").exists():
            raise DataError(
                f"{self.path} has no summary.json: the run did not get that far; repeat its command"
            )
        remedy = "repeat the run's command to write it again"
        summary = read_struct(self.summary_path, Summary, remedy)
        if is_changed(self.summary_path.read_bytes()):
            raise DataError(
                f"{self.summary_path} was changed by something else than a run; {remedy}"
            )
        return summary

    def verify_all(self) -> None:
        """Verify that every file behind the summary is unchanged.

        Raises:
            DataError: as `verify`.
        """
        self.verify(self.predictions_path)
        for name in self.summary().files:
            self.verify(self.path / name)

    @contextmanager
    def replacing(self, path: Path) -> Iterator[IO[str]]:
        """Open a text file that replaces `path` if the block ends without an exception."""
        try:
            with replacing(path) as temporary, temporary.open("x", encoding="utf-8") as file:
                yield file
        except OSError as error:
            raise write_error(path, error) from error


def _iter_offsets(path: Path, kind: type[T]) -> Iterator[tuple[T, int]]:
    """The whole lines of a file, with their offsets.

    Raises:
        DataError: a line is damaged.
    """
    if not path.exists():
        return
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            # A line without its end is still being written, or torn.
            if line.endswith(b"\n"):
                yield parse_line(path, number, line, kind), offset
            offset += len(line)


def _read_line(path: Path, file: IO[bytes], offset: int, kind: type[T]) -> T:
    file.seek(offset)
    line = file.readline()
    try:
        return decode(line, kind)
    except msgspec.MsgspecError:
        # The number of the line is counted only for the message.
        number = 1 + path.read_bytes()[:offset].count(b"\n")
        return parse_line(path, number, line, kind)
