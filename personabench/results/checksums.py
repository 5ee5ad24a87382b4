"""Checksums of a run's files, taken when it is scored and compared when they are read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

# Files of large runs do not fit into memory.
CHUNK = 1 << 20


class Seal(msgspec.Struct, frozen=True):
    """Number of whole lines and bytes of a file, and their SHA-256."""

    lines: int
    bytes: int
    sha256: str


def make_seal(path: Path, size: int | None = None) -> Seal:
    """Take the checksum of a file, or of its first `size` bytes; a missing file counts as empty."""
    total = hashlib.sha256()
    lines = 0
    count = 0
    if path.exists():
        with path.open("rb") as file:
            while size is None or count < size:
                part = file.read(CHUNK if size is None else min(CHUNK, size - count))
                if not part:
                    break
                total.update(part)
                lines += part.count(b"\n")
                count += len(part)
    return Seal(lines, count, total.hexdigest())
