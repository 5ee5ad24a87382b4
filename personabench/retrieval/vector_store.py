"""A file of vectors, so that no text is embedded twice by the same embedder in a results folder."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from personabench.retrieval.embedder import Vectors

_log = logging.getLogger("personabench.retrieval")

_PATIENCE = 60.0
"""Seconds to wait for a lock that another process holds."""
# SQLite takes a limited number of parameters.
_BATCH = 500
_CHECKSUM = 8

_CREATE = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=NORMAL;
CREATE TABLE IF NOT EXISTS vectors(key BLOB PRIMARY KEY, vector BLOB);
"""


class VectorStore:
    """Vectors by text and embedder, in one SQLite file that several processes may share.

    It saves time and decides nothing: a file that cannot be opened, read or written is left alone,
    with a line in the log, and a damaged vector counts as missing.

    Args:
        path: the file, created with its folder when the first vector is stored.
        reads: return stored vectors; otherwise they are only replaced.
    """

    def __init__(self, path: Path, *, reads: bool = True) -> None:
        self._path = path
        self._reads = reads
        self._db: sqlite3.Connection | None = None
        self._failed = False

    def get(self, identity: str, texts: Sequence[str]) -> dict[str, Vectors]:
        """Return the stored vectors of texts, each of shape (d,)."""
        if self._failed or not self._reads or not (self._db or self._path.exists()):
            return {}

        text_of = {_key(identity, text): text for text in texts}
        keys = list(text_of)
        vectors = {}
        try:
            db = self._open()
            for start in range(0, len(keys), _BATCH):
                batch = keys[start : start + _BATCH]
                marks = ",".join("?" * len(batch))
                query = f"SELECT key, vector FROM vectors WHERE key IN ({marks})"
                for key, content in db.execute(query, batch):
                    vector = _unpack(key, content)
                    if vector is not None:
                        vectors[text_of[key]] = vector
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
        return vectors

    def put(self, identity: str, vectors: Mapping[str, Vectors]) -> None:
        """Store the vectors of texts."""
        if self._failed:
            return
        rows = []
        for text, vector in vectors.items():
            key = _key(identity, text)
            rows.append((key, _pack(key, vector)))
        try:
            db = self._open()
            with db:
                db.executemany("INSERT OR REPLACE INTO vectors VALUES(?,?)", rows)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._path, timeout=_PATIENCE)
            self._db.executescript(_CREATE)
        return self._db

    def _give_up(self, error: Exception) -> None:
        _log.warning("%s is not used, so texts may be embedded again: %s", self._path, error)
        self._failed = True
        self.close()


def _key(identity: str, text: str) -> bytes:
    content = f"{identity}\0{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).digest()


def _pack(key: bytes, vector: Vectors) -> bytes:
    content = vector.astype("<f4").tobytes()
    return _checksum(key, content) + content


def _unpack(key: bytes, packed: object) -> Vectors | None:
    """The vector of an entry; None if it is not as it was stored."""
    import numpy as np

    if not isinstance(packed, bytes):
        return None
    content = packed[_CHECKSUM:]
    if packed[:_CHECKSUM] != _checksum(key, content):
        return None
    return np.frombuffer(content, "<f4").astype(np.float32)


def _checksum(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECKSUM, key=key).digest()
