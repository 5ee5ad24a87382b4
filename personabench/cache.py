"""The response cache: one SQLite file that remembers every finished call and every user's state.

Keys are content (`hashing.digest`), never place or time.  Each write is its own transaction in WAL mode, made before
the answer is handed on, so a killed process never pays a finished call twice.  Requests are stored beside responses,
which is what lets `nearest` explain a miss.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from personabench.errors import RunError, UsageError
from personabench.hashing import digest
from personabench.types import Request, Response, from_json, to_json

SCHEMA = 1
Policy = Literal["use", "refresh", "off", "only"]
POLICIES: tuple[Policy, ...] = ("use", "refresh", "off", "only")


def request_key(model: Mapping[str, str], request: Request) -> str:
    """The name of a call: SHA-256 over schema version, kind, model identity and every field of the request."""
    return digest({"schema": SCHEMA, "kind": "chat", "model": dict(model), "request": request})


class Cache:
    """An open cache file.  Use it from one thread; other processes of this machine may use the same file.

    `older` is another cache file, if it exists, that is read, and never written, for what this one does not have.

    Raises:
        UsageError: the file is not a cache.
        RunError: the disk is full or the file cannot be written.
    """

    def __init__(self, path: Path, older: Path | None = None) -> None:
        self.path = path
        self._older: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=60)
            self._db.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
                "CREATE TABLE IF NOT EXISTS responses(key TEXT PRIMARY KEY, model TEXT, request TEXT, response TEXT,"
                " time REAL);"
                "CREATE TABLE IF NOT EXISTS artifacts(key TEXT PRIMARY KEY, value TEXT, time REAL);"
            )
            if older is not None and older.exists():
                self._older = sqlite3.connect(f"{older.resolve().as_uri()}?mode=ro", uri=True, timeout=60)
        except sqlite3.OperationalError as error:
            raise self._trouble("opened", error) from error
        except sqlite3.DatabaseError as error:
            raise UsageError(f"{path} cannot be opened as a response cache ({error}); move it away") from error
        except OSError as error:
            raise UsageError(f"{path.parent} cannot be created: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        if self._older is not None:
            self._older.close()

    def get(self, key: str) -> Response | None:
        """The stored response to a call."""
        text = self._read("SELECT response FROM responses WHERE key=?", key)
        return None if text is None else from_json(text, Response)

    def put(self, key: str, model: Mapping[str, str], request: Request, response: Response) -> None:
        """Store a finished call."""
        row = (key, to_json(dict(model)), to_json(request), to_json(response), time.time())
        self._write("INSERT OR REPLACE INTO responses VALUES(?,?,?,?,?)", row)

    def request(self, key: str) -> Request | None:
        """The request behind a key."""
        text = self._read("SELECT request FROM responses WHERE key=?", key)
        return None if text is None else from_json(text, Request)

    def artifact(self, key: str) -> Any:
        """A stored artifact's JSON value, or None."""
        text = self._read("SELECT value FROM artifacts WHERE key=?", key)
        return None if text is None else msgspec.json.decode(text)

    def put_artifact(self, key: str, value: Any) -> None:
        """Store an artifact."""
        self._write("INSERT OR REPLACE INTO artifacts VALUES(?,?,?)", (key, to_json(value), time.time()))

    def stats(self) -> dict[str, Any]:
        """Counts and size: responses by model, artifacts, bytes on disk, oldest entry (seconds since the epoch)."""
        models = self._db.execute("SELECT model, count(*) FROM responses GROUP BY model ORDER BY 2 DESC").fetchall()
        artifacts, oldest = self._db.execute(
            "SELECT (SELECT count(*) FROM artifacts), (SELECT min(time) FROM responses)"
        ).fetchone()
        names: dict[str, int] = {}
        for model, count in models:
            name = msgspec.json.decode(model).get("name", model)
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
        """Take in everything of another cache file that is not known here."""
        self._write("ATTACH ? AS other", (str(path),))
        try:
            for table in ("responses", "artifacts"):
                self._write(f"INSERT OR IGNORE INTO {table} SELECT * FROM other.{table}", ())
        finally:
            self._write("DETACH other", ())

    def prune(self, *, older_than_days: float | None = None, model: str | None = None) -> int:
        """Delete entries by age or model name; returns how many responses went."""
        where, values = ["1"], []
        if older_than_days is not None:
            where.append("time < ?")
            values.append(str(time.time() - older_than_days * 86400))
        if model is not None:
            where.append("json_extract(model, '$.name') = ?")
            values.append(model)
        removed = self._write(f"DELETE FROM responses WHERE {' AND '.join(where)}", tuple(values))
        if model is None and older_than_days is not None:
            self._write("DELETE FROM artifacts WHERE time < ?", tuple(values))
        self._db.execute("VACUUM")
        return removed

    def nearest(self, model: Mapping[str, str], request: Request) -> tuple[Request, Mapping[str, str]] | None:
        """The stored call most like a wanted one: the most text in equal messages, then the longest common start, then
        the most equal fields.
        """
        best: tuple[tuple[int, int, int], Request, Mapping[str, str]] | None = None
        wanted, text, messages = msgspec.to_builtins(request), _text(request), set(request.messages)
        for stored_model, stored in self._db.execute("SELECT model, request FROM responses"):
            other, identity = from_json(stored, Request), msgspec.json.decode(stored_model)
            fields = msgspec.to_builtins(other)
            equal = sum(fields.get(name) == value for name, value in wanted.items()) + (identity == dict(model))
            shared = sum(len(message.content) for message in messages.intersection(other.messages))
            rank = (shared, _common(text, _text(other)), equal)
            if best is None or rank > best[0]:
                best = (rank, other, identity)
        return best and (best[1], best[2])

    def _read(self, statement: str, key: str) -> str | None:
        try:
            row = self._db.execute(statement, (key,)).fetchone()
            if row is None and self._older is not None:
                row = self._older.execute(statement, (key,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise self._trouble("read", error) from error
        return row[0] if row else None

    def _write(self, statement: str, values: tuple[Any, ...]) -> int:
        try:
            return self._db.execute(statement, values).rowcount
        except sqlite3.DatabaseError as error:
            raise self._trouble("written", error) from error

    def _trouble(self, what: str, error: sqlite3.DatabaseError) -> RunError:
        remedy = (
            "free some space or choose another --results folder"
            if isinstance(error, sqlite3.OperationalError)
            else "move it away"
        )
        return RunError(
            f"the response cache {self.path} cannot be {what} ({error}); {remedy}, "
            "then repeat the command: every finished prediction is kept"
        )


def difference(wanted: Request, model: Mapping[str, str], stored: Request, stored_model: Mapping[str, str]) -> str:
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
