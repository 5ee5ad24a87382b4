"""The response cache: one SQLite file that remembers every finished call and every user's state.

Keys are content (`hashing.digest`), never place or time.  Each write is its own transaction in WAL mode, made before
the answer is handed on, so a killed process never pays a finished call twice.  Requests are stored beside responses,
which is what lets `nearest` explain a miss.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from personabench.errors import DataError, RunError, UsageError
from personabench.hashing import digest
from personabench.models.reply import separate_thought
from personabench.types import Request, Response, from_json, to_json

T = TypeVar("T")
SCHEMA = 1
PATIENCE = 60.0
"""Seconds to wait for another process that writes."""
Policy = Literal["use", "refresh", "off", "only"]


def request_key(model: Mapping[str, str], request: Request) -> str:
    """The name of a call: SHA-256 over schema version, kind, model identity and every field of the request."""
    return digest({"schema": SCHEMA, "kind": "chat", "model": dict(model), "request": request})


class Cache:
    """An open cache file.  Use it from one thread; other processes of this machine may use the same file.

    `older` is another cache file, if it exists, that is read, and never written, for what this one does not have.
    A file that cannot be written is opened to be read, unless `writing` says that this is not enough.  An entry that
    cannot be decoded is none, and is overwritten.

    Raises:
        UsageError: the file is not a cache.
        RunError: the file cannot be opened, read or written.
    """

    def __init__(self, path: Path, older: Path | None = None, *, writing: bool = False) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _opened(path, writing)
        except sqlite3.OperationalError as error:
            raise _trouble(path, "opened", error) from error
        except sqlite3.DatabaseError as error:
            raise UsageError(
                f"{path} cannot be opened as a response cache ({error}); move it away"
            ) from error
        except OSError as error:
            raise UsageError(f"{path.parent} cannot be created: {error.strerror}") from error
        self._places = [(path, self._db)]
        if older is not None and older.exists():
            try:
                self._places.append((older, _read_only(older)))
            except sqlite3.DatabaseError as error:
                self._db.close()
                raise _trouble(older, "read", error) from error

    def close(self) -> None:
        """Close the file."""
        for _, db in self._places:
            db.close()

    def get(self, key: str) -> Response | None:
        """The stored response to a call, thought and answer apart even where it was stored with both in one."""
        stored = self._read("SELECT response FROM responses WHERE key=?", key, Response)
        return None if stored is None else separate_thought(stored)

    def put(self, key: str, model: Mapping[str, str], request: Request, response: Response) -> None:
        """Store a finished call."""
        row = (key, to_json(dict(model)), to_json(request), to_json(response), time.time())
        self._write("INSERT OR REPLACE INTO responses VALUES(?,?,?,?,?)", row)

    def request(self, key: str) -> Request | None:
        """The request behind a key."""
        return self._read("SELECT request FROM responses WHERE key=?", key, Request)

    def artifact(self, key: str) -> Any:
        """A stored artifact's JSON value, or None."""
        return self._read("SELECT value FROM artifacts WHERE key=?", key, Any)

    def put_artifact(self, key: str, value: Any) -> None:
        """Store an artifact."""
        self._write(
            "INSERT OR REPLACE INTO artifacts VALUES(?,?,?)", (key, to_json(value), time.time())
        )

    def stats(self) -> dict[str, Any]:
        """Counts and size: responses by model, artifacts, bytes on disk, oldest entry (seconds since the epoch)."""
        models = list(
            self._rows("SELECT model, count(*) FROM responses GROUP BY model ORDER BY 2 DESC")
        )
        ((artifacts, oldest),) = self._rows(
            "SELECT (SELECT count(*) FROM artifacts), (SELECT min(time) FROM responses)"
        )
        names: dict[str, int] = {}
        for model, count in models:
            identity = _decoded(model, dict[str, Any]) or {}
            name = str(identity.get("name", "unreadable"))
            names[name] = names.get(name, 0) + count
        return {
            "path": str(self.path),
            "bytes": self.path.stat().st_size,
            "responses": sum(count for _, count in models),
            "artifacts": artifacts,
            "models": names,
            "oldest": oldest,
        }

    def absorb(self, path: Path) -> None:
        """Take in everything of another cache file that is not known here.

        Raises:
            DataError: the other file is damaged.
        """
        try:
            self._db.execute("ATTACH ? AS other", (str(path),))
            try:
                for table in ("responses", "artifacts"):
                    self._db.execute(f"INSERT OR IGNORE INTO {table} SELECT * FROM other.{table}")
            finally:
                self._db.execute("DETACH other")
        except sqlite3.DatabaseError as error:
            if _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY):
                raise _trouble(self.path, "written", error) from error
            raise DataError(
                f"the response cache {path} cannot be taken into {self.path} ({error}); move it away"
            ) from error

    def prune(self, *, older_than_days: float | None = None, model: str | None = None) -> int:
        """Delete entries by age or model name; returns how many responses went."""
        where, values = ["1"], []
        if older_than_days is not None:
            where.append("time < ?")
            values.append(str(time.time() - older_than_days * 86400))
        if model is not None:
            where.append("CASE WHEN json_valid(model) THEN json_extract(model, '$.name') = ? END")
            values.append(model)
        removed = self._write(f"DELETE FROM responses WHERE {' AND '.join(where)}", tuple(values))
        if model is None and older_than_days is not None:
            self._write("DELETE FROM artifacts WHERE time < ?", tuple(values))
        self._write("VACUUM", ())
        return removed

    def nearest(
        self, model: Mapping[str, str], request: Request
    ) -> tuple[Request, Mapping[str, str]] | None:
        """The stored call most like a wanted one: the most text in equal messages, then the longest common start, then
        the most equal fields.
        """
        best: tuple[tuple[int, int, int], Request, Mapping[str, str]] | None = None
        wanted, text, messages = msgspec.to_builtins(request), _text(request), set(request.messages)
        for stored_model, stored in self._rows("SELECT model, request FROM responses"):
            other, identity = _decoded(stored, Request), _decoded(stored_model, dict[str, Any])
            if other is None or identity is None:
                continue
            fields = msgspec.to_builtins(other)
            equal = sum(fields.get(name) == value for name, value in wanted.items()) + (
                identity == dict(model)
            )
            shared = sum(len(message.content) for message in messages.intersection(other.messages))
            rank = (shared, _common(text, _text(other)), equal)
            if best is None or rank > best[0]:
                best = (rank, other, identity)
        return best and (best[1], best[2])

    def _read(self, statement: str, key: str, kind: type[T]) -> T | None:
        for path, db in self._places:
            try:
                row = db.execute(statement, (key,)).fetchone()
            except sqlite3.DatabaseError as error:
                raise _trouble(path, "read", error) from error
            found = None if row is None else _decoded(row[0], kind)
            if found is not None:
                return found
        return None

    def _rows(self, statement: str) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._db.execute(statement)
        except sqlite3.DatabaseError as error:
            raise _trouble(self.path, "read", error) from error

    def _write(self, statement: str, values: tuple[Any, ...]) -> int:
        try:
            return self._db.execute(statement, values).rowcount
        except sqlite3.DatabaseError as error:
            raise _trouble(self.path, "written", error) from error


def _opened(path: Path, writing: bool) -> sqlite3.Connection:
    """The file to be read and written, made if need be; else, where that is enough, to be read alone."""
    db = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE)
    db.text_factory = bytes
    try:
        db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
            "CREATE TABLE IF NOT EXISTS responses(key TEXT PRIMARY KEY, model TEXT, request TEXT, response TEXT,"
            " time REAL);"
            "CREATE TABLE IF NOT EXISTS artifacts(key TEXT PRIMARY KEY, value TEXT, time REAL);"
        )
        return db
    except sqlite3.DatabaseError as error:
        db.close()
        if (
            writing
            or not isinstance(error, sqlite3.OperationalError)
            or _code(error) == sqlite3.SQLITE_BUSY
        ):
            raise
        try:
            return _read_only(path)
        except sqlite3.DatabaseError:
            raise error from None


def _read_only(path: Path) -> sqlite3.Connection:
    """The file to be read alone.

    Where its folder cannot be written there is no place for what SQLite notes beside it; then it counts as unchanging.
    """
    trouble = sqlite3.OperationalError()
    for how in ("mode=ro", "mode=ro&immutable=1"):
        db = sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True, timeout=PATIENCE)
        db.text_factory = bytes
        try:
            db.execute(
                "SELECT (SELECT key FROM responses LIMIT 1), (SELECT key FROM artifacts LIMIT 1)"
            ).fetchone()
            return db
        except sqlite3.DatabaseError as error:
            db.close()
            if not isinstance(error, sqlite3.OperationalError):
                raise
            trouble = error
    raise trouble


def _code(error: sqlite3.DatabaseError) -> int:
    """SQLite's primary result code; 0 for an error of Python's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _decoded(text: bytes, kind: type[T]) -> T | None:
    """A stored value; None where it is damaged."""
    try:
        return from_json(text, kind)
    except (msgspec.MsgspecError, TypeError):
        return None


def _trouble(path: Path, what: str, error: sqlite3.DatabaseError) -> RunError:
    if _code(error) == sqlite3.SQLITE_FULL:
        remedy = "free some space or choose another --results folder"
    elif isinstance(error, sqlite3.OperationalError):
        remedy = (
            "see that it and its folder can be read and written, or choose another --results folder"
        )
    else:
        remedy = "move it away"
    return RunError(
        f"the response cache {path} cannot be {what} ({error}); {remedy}, "
        "then repeat the command: every finished prediction is kept"
    )


def difference(
    wanted: Request, model: Mapping[str, str], stored: Request, stored_model: Mapping[str, str]
) -> str:
    """The first field in which two calls differ, with both values."""
    if dict(model) != dict(stored_model):
        return f"model: wanted {to_json(dict(model))}, stored {to_json(dict(stored_model))}"
    for position, (mine, theirs) in enumerate(zip(wanted.messages, stored.messages, strict=False)):
        if mine != theirs:
            at = _common(mine.content, theirs.content)
            return (
                f"messages[{position}] ({mine.role}) from character {at}: "
                f"wanted {mine.content[at : at + 60]!r}, stored {theirs.content[at : at + 60]!r}"
            )
    if len(wanted.messages) != len(stored.messages):
        return f"messages: wanted {len(wanted.messages)}, stored {len(stored.messages)}"
    for name in wanted.__struct_fields__:
        if getattr(wanted, name) != getattr(stored, name):
            return f"{name}: wanted {getattr(wanted, name)!r}, stored {getattr(stored, name)!r}"
    return "nothing: the call is stored"


def _text(request: Request) -> str:
    return "\x1e".join(message.content for message in request.messages)


def _common(one: str, other: str) -> int:
    for position, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return position
    return min(len(one), len(other))
