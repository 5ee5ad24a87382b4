"""What a file was when a run was scored: its seal stands in the summary, and readers compare."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

CHUNK = 1 << 20


class Seal(msgspec.Struct, frozen=True):
    """A file's whole lines, its bytes and their SHA-256."""

    lines: int
    bytes: int
    sha256: str


def seal(path: Path, size: int | None = None) -> Seal:
    """The seal of a file, or of its first `size` bytes; one that is not there counts as empty."""
    total, lines, count = hashlib.sha256(), 0, 0
    if path.exists():
        with path.open("rb") as file:
            while part := file.read(CHUNK if size is None else min(CHUNK, size - count)):
                total.update(part)
                lines += part.count(b"\n")
                count += len(part)
    return Seal(lines, count, total.hexdigest())
