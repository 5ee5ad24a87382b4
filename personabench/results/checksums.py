"""Checksums of a run's files, taken when it is scored and compared when they are read."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

# Files of large runs do not fit into memory.
CHUNK = 1 << 20


class Seal(msgspec.Struct, frozen=True):
    """Number of whole lines and bytes of a file, and their SHA-256."""

    lines: int
    bytes: int
    sha256: str


# The last field of a sealed object is the SHA-256 of the object without it.
_SEALED = re.compile(rb'(\{.*),"sha256":"([0-9a-f]{64})"\}\s*', re.DOTALL)


def seal_object(text: str) -> str:
    """Add the checksum of a JSON object, compact and with at least one field, as its last field."""
    checksum = hashlib.sha256(text.encode()).hexdigest()
    return f'{text[:-1]},"sha256":"{checksum}"}}'


def is_changed(content: bytes) -> bool:
    """Whether a sealed object is another than the one that was sealed; False without a seal."""
    match = _SEALED.fullmatch(content)
    if match is None:
        return False
    return hashlib.sha256(match[1] + b"}").hexdigest().encode() != match[2]


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
