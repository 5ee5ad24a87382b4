"""A run's folder: what is finished stays finished.

`predictions.jsonl` is appended, one flushed line per sample; a torn last line is cut off and owed again.  The same
command opens the same folder and does what is owed.  A lock keeps a second writer out.  Files are described in
docs/files.md.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
from filelock import FileLock, Timeout

from personabench.errors import DataError, RunError, UsageError
from personabench.hashing import digest
from personabench.results.checksums import seal
from personabench.results.spec import RunSpec
from personabench.results.summary import Summary
from personabench.types import Call, Judgement, Prediction, Score, from_json, to_json

T = TypeVar("T")


class Profile(msgspec.Struct, frozen=True):
    """A line of `artifacts/profiles.jsonl`: a user's state and what making it took."""

    user_id: str
    key: str
    state: Any
    calls: tuple[Call, ...]
    flags: dict[str, float]
    reused: bool = False


class Round(msgspec.Struct, frozen=True):
    """`states/<user>.json`: a user of an online task after the last complete round, and that round's prediction."""

    user_id: str
    round: int
    state: Any
    prediction: Prediction


class RefreshState(msgspec.Struct, frozen=True):
    """`refresh.json`: a `--cache refresh` under way, as numbers of lines that are older than it, by file."""

    predictions: int
    profiles: int
    judgements: dict[str, int] = {}


class _Id(msgspec.Struct):
    sample_id: str


class RunFolder:
    """One run on disk.

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
        self.states_path = path / "states"
        self.renewal_path = path / "refresh.json"
        self._lock = FileLock(path / "lock", timeout=0)
        self._files: dict[Path, IO[bytes]] = {}

    @staticmethod
    def place(results: Path, spec: RunSpec) -> Path:
        """Where a run lives: `runs/<task>/<method>/<model>/<fingerprint8>`."""
        parts = (spec.task, spec.method, spec.model["name"], spec.fingerprint[:8])
        return results.joinpath("runs", *(re.sub(r"[^\w.+-]+", "_", part) for part in parts))

    def start(self, spec: RunSpec) -> Path:
        """Take the lock, write `spec.json`, repair torn files; returns the path of this attempt's log."""
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
            spec_path = self.path / "spec.json"
            if (
                spec_path.exists()
                and from_json(spec_path.read_bytes(), RunSpec).fingerprint != spec.fingerprint
            ):
                raise UsageError(f"{self.path} belongs to another run; move it away")
            _replace(spec_path, to_json(spec))
            for path in (
                self.predictions_path,
                self.profiles_path,
                *self.path.glob("judgements/*.jsonl"),
            ):
                _repair(path)
            return attempts / f"{len(list(attempts.glob('*.log'))) + 1:03d}.log"
        except Timeout as error:
            raise UsageError(
                f"another process is writing to {self.path}; wait for it or stop it"
            ) from error
        except msgspec.MsgspecError as error:
            raise UsageError(
                f"{self.path / 'spec.json'} is damaged ({error}); move the folder away"
            ) from error
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def close(self) -> None:
        """Close files and give the lock back."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._lock.release()

    def append(self, path: Path, line: msgspec.Struct) -> None:
        """Add one line, whole or not at all as far as later readers can tell."""
        try:
            file = self._files.get(path)
            if file is None:
                path.parent.mkdir(exist_ok=True)
                file = self._files[path] = path.open("ab", buffering=0)
            _write_whole(file, to_json(line).encode() + b"\n")
        except OSError as error:
            raise _cannot_write(path, error) from error

    def keep(self, finished: Round) -> None:
        """Put a user's latest round in the place of the one before, whole or not at all."""
        try:
            self.states_path.mkdir(exist_ok=True)
            _replace(self._state_path(finished.user_id), to_json(finished))
        except OSError as error:
            raise _cannot_write(self.states_path, error) from error

    def round(self, user_id: str) -> Round | None:
        """A user's latest complete round.

        Raises:
            DataError: the file is damaged.
        """
        path = self._state_path(user_id)
        return (
            _read(path, Round, "delete it and repeat the run's command") if path.exists() else None
        )

    def delete_rounds(self) -> None:
        """Let every user start from the first round."""
        for path in self.states_path.glob("*.json"):
            path.unlink()

    def _state_path(self, user_id: str) -> Path:
        readable = re.sub(r"[^\w.+-]+", "_", user_id)[:80]
        return self.states_path / f"{readable}-{digest(user_id)[:8]}.json"

    def judgements_path(self, judge: str) -> Path:
        """Where the judgements of a judge are, given the judge's key."""
        return self.path / "judgements" / f"{judge[:8]}.jsonl"

    def judgements(self, judge: str, older: int = 0) -> dict[str, Judgement]:
        """The latest judgement of each sample by a judge, leaving out the first lines of the file."""
        return {
            line.sample_id: line
            for line in islice(_lines(self.judgements_path(judge), Judgement), older, None)
        }

    def prediction(self, sample_id: str) -> Prediction | None:
        """The latest prediction of one sample."""
        found = None
        for line in self.iter_predictions():
            if line.sample_id == sample_id:
                found = line
        return found

    def ordered_predictions(self, sample_ids: Iterable[str]) -> Iterator[Prediction | None]:
        """The latest prediction of each sample in the order asked for, None where there is none.

        Only offsets are held in memory.

        Raises:
            DataError: a line is damaged.
        """
        places: dict[str, int] = {}
        if self.predictions_path.exists():
            offset = 0
            with self.predictions_path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.endswith(b"\n"):
                        places[_line(self.predictions_path, number, line, _Id).sample_id] = offset
                    offset += len(line)
        if not places:
            yield from (None for _ in sample_ids)
            return
        with self.predictions_path.open("rb") as file:
            for sample_id in sample_ids:
                place = places.get(sample_id)
                if place is None:
                    yield None
                else:
                    file.seek(place)
                    line = file.readline()
                    try:
                        yield from_json(line, Prediction)
                    except msgspec.MsgspecError:
                        number = 1 + self.predictions_path.read_bytes()[:place].count(b"\n")
                        _line(self.predictions_path, number, line, Prediction)

    def renewal(self) -> RefreshState | None:
        """The refresh that is under way, if one is.

        Raises:
            DataError: the file is damaged.
        """
        remedy = "delete it and repeat the run's command"
        return (
            _read(self.renewal_path, RefreshState, remedy) if self.renewal_path.exists() else None
        )

    def renew(self) -> RefreshState:
        """Begin to make everything anew, or go on with it."""
        found = self.renewal()
        if found is None:
            judged = {path.name: _count(path) for path in self.path.glob("judgements/*.jsonl")}
            found = RefreshState(_count(self.predictions_path), _count(self.profiles_path), judged)
            try:
                shutil.rmtree(self.states_path, ignore_errors=True)
                _replace(self.renewal_path, to_json(found))
            except OSError as error:
                raise _cannot_write(self.renewal_path, error) from error
        return found

    def renewed(self) -> None:
        """End a refresh: everything asked for was made anew."""
        self.renewal_path.unlink(missing_ok=True)

    def iter_predictions(self) -> Iterator[Prediction]:
        """Every line of `predictions.jsonl`, failed attempts included."""
        return _lines(self.predictions_path, Prediction)

    def profiles(self, older: int = 0) -> dict[str, Profile]:
        """The states of users, by key, leaving out the first lines of the file."""
        return {line.key: line for line in islice(_lines(self.profiles_path, Profile), older, None)}

    def scores(self) -> Iterator[Score]:
        """Every line of `scores.jsonl`.

        Raises:
            DataError: it is not what the summary was made with, or a line is damaged.
        """
        if self.summary_path.exists() or self.scores_path.exists():
            self.verify(self.scores_path)
        return _lines(self.scores_path, Score)

    def verify(self, path: Path) -> None:
        """See that a file of the run is still what its summary was made with.

        The scores have to be the same; to the others, later attempts may have appended.

        Raises:
            DataError: it was changed, or the summary does not say what it was; the message says what to do.
        """
        name = path.relative_to(self.path).as_posix()
        then = self.summary().files.get(name)
        if then is None:
            raise DataError(
                f"{self.summary_path} does not say what {name} was when the run was scored: it is of an earlier "
                "version; repeat the run's command, which takes stored answers, and move this folder away"
            )
        now = seal(path, None if path == self.scores_path else then.bytes)
        if now != then:
            lines = seal(path).lines
            what = (
                f"has {lines} lines of {then.lines}" if lines != then.lines else "has other content"
            )
            raise DataError(
                f"{path} was changed after the run was scored: it {what}. Repeat the run's command: it scores the "
                "answers that are there again, and asks a model for missing ones only"
            )

    def spec(self) -> RunSpec:
        """The run's spec.

        Raises:
            DataError: there is none, or it is damaged.
        """
        return _read(
            self.path / "spec.json", RunSpec, "move the run's folder away and repeat its command"
        )

    def summary(self) -> Summary:
        """The run's `summary.json`.

        Raises:
            DataError: there is none, or it is damaged; the message names the field.
        """
        if not self.summary_path.exists() and (self.path / "spec.json").exists():
            raise DataError(
                f"{self.path} has no summary.json: the run did not get that far; repeat its command"
            )
        remedy = "repeat the run's command to write it again"
        return _read(self.summary_path, Summary, remedy)

    @contextmanager
    def replacing(self, path: Path) -> Iterator[IO[str]]:
        """A text file that takes the place of `path` when the block ends well."""
        temporary = path.with_name(path.name + ".tmp")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                yield file
            temporary.replace(path)
        except OSError as error:
            raise _cannot_write(path, error) from error


def _read(path: Path, kind: type[T], remedy: str) -> T:
    try:
        return from_json(path.read_bytes(), kind)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; is {path.parent} a run folder?") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); make it readable or move it away, then repeat the run's command"
        ) from error
    except msgspec.MsgspecError as error:
        raise DataError(f"{path} is damaged ({error}); {remedy}") from error


def _lines(path: Path, kind: type[T]) -> Iterator[T]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                yield _line(path, number, line, kind)
            else:
                with suppress(msgspec.MsgspecError):
                    yield from_json(line, kind)


def _line(path: Path, number: int, line: bytes, kind: type[T]) -> T:
    try:
        return from_json(line, kind)
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{path}, line {number} is damaged ({error}); delete the line and repeat the run's command"
        ) from error


def _count(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def _write_whole(file: IO[bytes], line: bytes) -> None:
    """Append a line, or leave the file as it was: a filling disk takes a part of a write without complaint."""
    start = os.fstat(file.fileno()).st_size
    try:
        written = 0
        while written < len(line):
            written += file.write(line[written:])
    except OSError:
        file.truncate(start)
        raise


def _repair(path: Path) -> None:
    """Cut off a last line that was never finished."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        if end == 0:
            return
        start = max(0, end - (1 << 20))
        while True:
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0 or start == 0:
                break
            start = max(0, start - (1 << 20))
        file.truncate(start + at + 1)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


def _cannot_write(path: Path, error: OSError) -> RunError:
    return RunError(
        f"{path} cannot be written ({error.strerror or error}); free some space or fix its permissions, "
        "then repeat the command: everything finished is kept"
    )
