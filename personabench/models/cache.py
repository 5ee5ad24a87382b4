"""The response cache: one SQLite file with all finished calls and all users' profiles.

Keys are hashes of content (`hashing.digest`), never of location or time.  A write is a transaction
in WAL mode, which calls that finish at the same time share, and made before the response is
returned, so a killed process never pays for a finished call twice.  Requests are stored beside
responses, so that `nearest` can explain a miss.  Replies that answer no other call, such as
unparsed ones, are in a table of their own (`Journal`).
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from personabench.errors import DataError, RunError, UsageError
from personabench.hashing import digest
from personabench.models.reply import separate_thought
from personabench.types import Request, Response, from_json, to_json

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")
SCHEMA = 1
PATIENCE = 60.0
"""Seconds to wait for a lock that another process holds."""
Policy = Literal["use", "refresh", "off", "only"]

_CREATE = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=NORMAL;
CREATE TABLE IF NOT EXISTS responses(
    key TEXT PRIMARY KEY, model TEXT, request TEXT, response TEXT, time REAL, sha256 TEXT
);
CREATE TABLE IF NOT EXISTS artifacts(key TEXT PRIMARY KEY, value TEXT, time REAL, sha256 TEXT);
CREATE TABLE IF NOT EXISTS unfinished(
    key TEXT PRIMARY KEY, run TEXT, work TEXT, response TEXT, time REAL, sha256 TEXT
);
"""

_PUT = "INSERT OR REPLACE INTO responses VALUES(?,?,?,?,?,?)"

# Columns of content, which come first; then the time, and a checksum of the content.
COLUMNS = {
    "responses": ("key", "model", "request", "response"),
    "artifacts": ("key", "value"),
    "unfinished": ("key", "run", "work", "response"),
}


def request_key(model: Mapping[str, str], request: Request) -> str:
    """Compute the key of a call: SHA-256 over the model's identity and the request's fields."""
    return digest(
        {
            "schema": SCHEMA,
            "kind": "chat",
            "model": dict(model),
            "request": request,
        }
    )


class Cache:
    """An open cache file, for one thread; other processes of this machine may use it as well.

    `older` is another cache file, if it exists, that is read, and never written, for entries that
    this one lacks.  A file that cannot be written is opened read-only, unless `writing` requires
    more.  An entry that cannot be decoded, or that differs from its checksum, counts as missing,
    and is overwritten.

    Raises:
        UsageError: the file is not a cache.
        RunError: the file cannot be opened, read or written.
    """

    def __init__(self, path: Path, older: Path | None = None, *, writing: bool = False) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _open_file(path, writing)
        except sqlite3.OperationalError as error:
            raise _file_error(path, "opened", error) from error
        except sqlite3.DatabaseError as error:
            raise UsageError(
                f"{path} cannot be opened as a response cache ({error}); move it away"
            ) from error
        except OSError as error:
            raise UsageError(f"{path.parent} cannot be created: {error.strerror}") from error

        self._unwritten: list[tuple[tuple[Any, ...], asyncio.Future[None]]] = []
        # Read in this order: the newer entry wins.
        self._sources = [(path, self._db)]
        if older is not None and older.exists():
            try:
                self._sources.append((older, _open_read_only(older)))
            except sqlite3.DatabaseError as error:
                self._db.close()
                raise _file_error(older, "read", error) from error

    def close(self) -> None:
        """Close the file."""
        self._write_all()
        for _, db in self._sources:
            db.close()

    def get(self, key: str) -> Response | None:
        """Return the stored response to a call, or None."""
        stored = self._read("responses", "response", key, Response)
        if stored is None:
            return None
        # Entries of older versions have thought and answer in one text.
        return separate_thought(stored)

    def put(self, key: str, model: Mapping[str, str], request: Request, response: Response) -> None:
        """Store a finished call."""
        self._write(_PUT, _row(key, model, request, response))

    async def store(
        self, key: str, model: Mapping[str, str], request: Request, response: Response
    ) -> None:
        """Store a finished call together with those that finish in the same turn of the loop.

        It is on disk when this returns.
        """
        # Imported late, since lists of runs need no event loop.
        import asyncio

        loop = asyncio.get_running_loop()
        written = loop.create_future()
        if not self._unwritten:
            loop.call_soon(self._write_all)
        self._unwritten.append((_row(key, model, request, response), written))
        await written

    def _write_all(self) -> None:
        """Write the calls that wait for it, and wake their callers."""
        waiting, self._unwritten = self._unwritten, []
        error: Exception | None = None
        try:
            self._write_rows([row for row, _ in waiting])
        except Exception as failure:
            # Whatever it is, the callers get it: nobody else would wake them.
            error = failure
        for _, written in waiting:
            if written.done():
                continue
            if error is None:
                written.set_result(None)
            else:
                written.set_exception(error)

    def _write_rows(self, rows: Sequence[tuple[Any, ...]]) -> None:
        if len(rows) < 2:
            # Its own transaction.
            for row in rows:
                self._write(_PUT, row)
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(_PUT, rows)
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise _file_error(self.path, "written", error) from error
        finally:
            # After an error; SQLite may have rolled back by itself.
            if self._db.in_transaction:
                self._db.rollback()

    def request(self, key: str) -> Request | None:
        """Return the request behind a key, or None."""
        return self._read("responses", "request", key, Request)

    def artifact(self, key: str) -> Any:
        """Return a stored artifact's JSON value, or None."""
        return self._read("artifacts", "value", key, Any)

    def put_artifact(self, key: str, value: Any) -> None:
        """Store an artifact."""
        content = (key, to_json(value))
        row = (*content, time.time(), _checksum(text.encode() for text in content))
        self._write("INSERT OR REPLACE INTO artifacts VALUES(?,?,?,?)", row)

    def unfinished(self, run: str, work: str, key: str) -> Response | None:
        """Return the reply that a run's unfinished work got to a call, or None."""
        return self._read("unfinished", "response", _unfinished_key(run, work, key), Response)

    def put_unfinished(self, run: str, work: str, key: str, response: Response) -> None:
        """Store a reply for a run's unfinished work alone."""
        content = (_unfinished_key(run, work, key), run, work, to_json(response))
        row = (*content, time.time(), _checksum(text.encode() for text in content))
        self._write("INSERT OR REPLACE INTO unfinished VALUES(?,?,?,?,?,?)", row)

    def unfinished_work(self, run: str) -> set[str]:
        """Return the names of a run's unfinished work that has replies."""
        rows = self._rows("SELECT DISTINCT work FROM unfinished WHERE run=?", (run,))
        return {work.decode(errors="replace") for (work,) in rows}

    def delete_unfinished(self, run: str, work: str | None = None) -> None:
        """Delete the replies of a run's unfinished work, or of all of it."""
        if work is None:
            self._write("DELETE FROM unfinished WHERE run=?", (run,))
        else:
            self._write("DELETE FROM unfinished WHERE run=? AND work=?", (run, work))

    def stats(self) -> dict[str, Any]:
        """Return the numbers of responses and artifacts, the file's size and its oldest entry."""
        rows = list(
            self._rows("SELECT model, count(*) FROM responses GROUP BY model ORDER BY 2 DESC")
        )
        ((artifacts, oldest),) = self._rows(
            "SELECT (SELECT count(*) FROM artifacts), (SELECT min(time) FROM responses)"
        )

        # Several identities can share a name, such as one model with different serving options.
        responses_by_model: dict[str, int] = {}
        for model, count in rows:
            identity = _decode(model, dict[str, Any]) or {}
            name = str(identity.get("name", "unreadable"))
            responses_by_model[name] = responses_by_model.get(name, 0) + count

        return {
            "path": str(self.path),
            "bytes": self.path.stat().st_size,
            "responses": sum(responses_by_model.values()),
            "artifacts": artifacts,
            "models": responses_by_model,
            "oldest": oldest,
        }

    def absorb(self, path: Path, keys: Iterable[str] | None = None) -> None:
        """Add all entries of another cache file that this one lacks.

        Args:
            keys: add only the responses to these calls.

        Raises:
            DataError: the other file is damaged.
        """
        try:
            self._db.execute("ATTACH ? AS other", (str(path),))
            try:
                for table in COLUMNS if keys is None else ("responses",):
                    # Earlier versions had no table of unfinished work.
                    if not _columns(self._db, table, "other"):
                        continue
                    columns = "*" if _has_checksums(self._db, table, "other") else "*, NULL"
                    insert = f"INSERT OR IGNORE INTO {table} SELECT {columns} FROM other.{table}"
                    if keys is None:
                        self._db.execute(insert)
                    else:
                        self._db.executemany(f"{insert} WHERE key = ?", ((key,) for key in keys))
            finally:
                self._db.execute("DETACH other")
        except sqlite3.DatabaseError as error:
            # These two concern this file, whatever the other one is like.
            if _result_code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY):
                raise _file_error(self.path, "written", error) from error
            raise DataError(
                f"the response cache {path} cannot be merged into {self.path} ({error}); "
                "move it away"
            ) from error

    def prune(self, *, older_than_days: float | None = None, model: str | None = None) -> int:
        """Delete entries by age or model name; return the number of deleted responses."""
        conditions = ["1"]
        values = []
        if older_than_days is not None:
            conditions.append("time < ?")
            values.append(str(time.time() - older_than_days * 86400))
        if model is not None:
            # A damaged row has no model name, and SQLite would fail on its JSON.
            conditions.append(
                "CASE WHEN json_valid(model) THEN json_extract(model, '$.name') = ? END"
            )
            values.append(model)

        condition = " AND ".join(conditions)
        removed = self._write(f"DELETE FROM responses WHERE {condition}", tuple(values))
        # Neither artifacts nor unfinished work name their model, so only age can select them.
        if model is None and older_than_days is not None:
            self._write("DELETE FROM artifacts WHERE time < ?", tuple(values))
            self._write("DELETE FROM unfinished WHERE time < ?", tuple(values))
        self._write("VACUUM", ())
        return removed

    def nearest(
        self, model: Mapping[str, str], request: Request
    ) -> tuple[Request, Mapping[str, str]] | None:
        """Find the stored call most similar to a request.

        Calls are compared by the text in equal messages, then by the longest common prefix, then by
        equal fields.
        """
        fields = msgspec.to_builtins(request)
        text = _message_text(request)
        messages = set(request.messages)

        nearest: tuple[Request, Mapping[str, str]] | None = None
        best_rank = (-1, -1, -1)
        for stored_model, stored_request in self._rows("SELECT model, request FROM responses"):
            candidate = _decode(stored_request, Request)
            identity = _decode(stored_model, dict[str, Any])
            if candidate is None or identity is None:
                continue

            common_messages = messages.intersection(candidate.messages)
            common_text = sum(len(message.content) for message in common_messages)
            prefix = _common_prefix(text, _message_text(candidate))

            candidate_fields = msgspec.to_builtins(candidate)
            equal_fields = sum(
                candidate_fields.get(name) == value for name, value in fields.items()
            )
            if identity == dict(model):
                equal_fields += 1

            rank = (common_text, prefix, equal_fields)
            if rank > best_rank:
                best_rank = rank
                nearest = (candidate, identity)
        return nearest

    def _read(self, table: str, column: str, key: str, kind: type[T]) -> T | None:
        names = COLUMNS[table]
        # Unfinished work is continued where it was begun.
        sources = self._sources[:1] if table == "unfinished" else self._sources
        for path, db in sources:
            try:
                row = db.execute(f"SELECT * FROM {table} WHERE key=?", (key,)).fetchone()
            except sqlite3.DatabaseError as error:
                raise _file_error(path, "read", error) from error

            if row is not None and _is_intact(row[: len(names)], row[len(names) + 1 :]):
                value = _decode(row[names.index(column)], kind)
                if value is not None:
                    return value
        return None

    def _rows(self, statement: str, values: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._db.execute(statement, values)
        except sqlite3.DatabaseError as error:
            raise _file_error(self.path, "read", error) from error

    def _write(self, statement: str, values: tuple[Any, ...]) -> int:
        try:
            return self._db.execute(statement, values).rowcount
        except sqlite3.DatabaseError as error:
            raise _file_error(self.path, "written", error) from error


def _open_file(path: Path, writing: bool) -> sqlite3.Connection:
    """Open or create a file for writing; read-only if that fails and `writing` is not required."""
    db = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE)
    # Bytes, because damaged text that is not UTF-8 must not fail before it can be skipped.
    db.text_factory = bytes
    try:
        db.executescript(_CREATE)
        _add_checksums(db)
        return db
    except sqlite3.DatabaseError as error:
        db.close()
        is_busy = _result_code(error) == sqlite3.SQLITE_BUSY
        if writing or is_busy or not isinstance(error, sqlite3.OperationalError):
            raise
        try:
            return _open_read_only(path)
        except sqlite3.DatabaseError:
            # The first error names the cause; the second only that reading failed as well.
            raise error from None


def _add_checksums(db: sqlite3.Connection) -> None:
    """Add the column of checksums to a file of an earlier version."""
    for table in COLUMNS:
        if _has_checksums(db, table):
            continue
        # A second process that opens the file meanwhile has to wait, and then finds the column.
        db.execute("BEGIN IMMEDIATE")
        try:
            if not _has_checksums(db, table):
                db.execute(f"ALTER TABLE {table} ADD COLUMN sha256 TEXT")
        finally:
            db.execute("COMMIT")


def _has_checksums(db: sqlite3.Connection, table: str, schema: str = "main") -> bool:
    return b"sha256" in _columns(db, table, schema)


def _columns(db: sqlite3.Connection, table: str, schema: str) -> list[bytes]:
    """The names of a table's columns; none without the table."""
    rows = db.execute(f"PRAGMA {schema}.table_info({table})").fetchall()
    return [row[1] for row in rows]


def _row(
    key: str, model: Mapping[str, str], request: Request, response: Response
) -> tuple[Any, ...]:
    """The row of a finished call."""
    content = (key, to_json(dict(model)), to_json(request), to_json(response))
    return (*content, time.time(), _checksum(text.encode() for text in content))


def _unfinished_key(run: str, work: str, key: str) -> str:
    return digest([run, work, key])


def _checksum(content: Iterable[bytes]) -> str:
    # JSON text has no NUL.
    return hashlib.sha256(b"\0".join(content)).hexdigest()


def _is_intact(content: Sequence[Any], checksums: Sequence[bytes | None]) -> bool:
    """Whether an entry is as it was stored; entries of earlier versions have no checksum."""
    checksum = checksums[0] if checksums else None
    if checksum is None:
        return True
    # A damaged file can hold values of any type.
    is_text = all(isinstance(value, bytes) for value in content)
    return is_text and _checksum(content).encode() == checksum


def _open_read_only(path: Path) -> sqlite3.Connection:
    """Open a file for reading only."""
    last_error = sqlite3.OperationalError()

    # In a folder that cannot be written, SQLite cannot create its lock files; it then needs
    # `immutable`.
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        uri = f"{path.resolve().as_uri()}?{mode}"
        db = sqlite3.connect(uri, uri=True, timeout=PATIENCE)
        db.text_factory = bytes
        try:
            # SQLite opens lazily: only a query shows whether the file can be read.
            cursor = db.execute(
                "SELECT (SELECT key FROM responses LIMIT 1), (SELECT key FROM artifacts LIMIT 1)"
            )
            cursor.fetchone()
            return db
        except sqlite3.DatabaseError as error:
            db.close()
            if not isinstance(error, sqlite3.OperationalError):
                raise
            last_error = error
    raise last_error


def _result_code(error: sqlite3.DatabaseError) -> int:
    """Return SQLite's primary result code; 0 for an error of Python's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _decode(text: bytes, kind: type[T]) -> T | None:
    """Decode a stored value; None if it is damaged."""
    try:
        return from_json(text, kind)
    except (msgspec.MsgspecError, TypeError):
        return None


def _file_error(path: Path, action: str, error: sqlite3.DatabaseError) -> RunError:
    if _result_code(error) == sqlite3.SQLITE_FULL:
        remedy = "free some space or choose another --results folder"
    elif isinstance(error, sqlite3.OperationalError):
        remedy = (
            "check that it and its folder can be read and written, "
            "or choose another --results folder"
        )
    else:
        remedy = "move it away"
    return RunError(
        f"the response cache {path} cannot be {action} ({error}); {remedy}, "
        "then repeat the command: all finished predictions are kept"
    )


def difference(
    request: Request, model: Mapping[str, str], stored: Request, stored_model: Mapping[str, str]
) -> str:
    """Describe the first field in which two calls differ, with both values."""
    if dict(model) != dict(stored_model):
        return f"model: wanted {to_json(dict(model))}, stored {to_json(dict(stored_model))}"

    pairs = zip(request.messages, stored.messages, strict=False)
    for index, (message, stored_message) in enumerate(pairs):
        if message != stored_message:
            start = _common_prefix(message.content, stored_message.content)
            excerpt = message.content[start : start + 60]
            stored_excerpt = stored_message.content[start : start + 60]
            return (
                f"messages[{index}] ({message.role}) from character {start}: "
                f"wanted {excerpt!r}, stored {stored_excerpt!r}"
            )
    if len(request.messages) != len(stored.messages):
        return f"messages: wanted {len(request.messages)}, stored {len(stored.messages)}"

    for name in request.__struct_fields__:
        value = getattr(request, name)
        stored_value = getattr(stored, name)
        if value != stored_value:
            return f"{name}: wanted {value!r}, stored {stored_value!r}"
    return "nothing: the call is stored"


def _message_text(request: Request) -> str:
    return "\x1e".join(message.content for message in request.messages)


def _common_prefix(first: str, second: str) -> int:
    """Return the length of the common prefix of two texts."""
    for index, characters in enumerate(zip(first, second, strict=False)):
        if characters[0] != characters[1]:
            return index
    return min(len(first), len(second))
