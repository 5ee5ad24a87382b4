"""SHA-256 of canonical JSON, of records and of files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from personabench.types import to_json

# Not JSON, which would turn bytes into text unnoticed.
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")


def digest(value: Any) -> str:
    """Hash a value's canonical JSON; SHA-256 in hex."""
    text = to_json(value)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_record(record: Any) -> bytes:
    """Hash a record's content, whatever the order of its keys; SHA-256 as bytes.

    Raises:
        TypeError, ValueError, RecursionError: the record cannot be encoded.
    """
    return hashlib.sha256(_ENCODER.encode(record)).digest()


def digest_set(digests: Iterable[bytes]) -> str:
    """Hash the digests of records, whatever their order; SHA-256 in hex."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def digest_files(paths: Iterable[Path]) -> str:
    """Hash several files in order; SHA-256 in hex."""
    total = hashlib.sha256()
    for path in paths:
        # Digests of files rather than their bytes, so that text moving from one file to the next
        # changes the hash.
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def fold_text(text: str) -> str:
    """Fold case and white space, so that two spellings of one name compare equal."""
    return " ".join(text.casefold().split())
