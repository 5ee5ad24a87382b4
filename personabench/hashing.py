"""Names made of content: canonical JSON and its SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from personabench.types import to_json


def digest(value: Any) -> str:
    """SHA-256, in hex, of a value's canonical JSON."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()


def digest_files(paths: Iterable[Path]) -> str:
    """SHA-256, in hex, over the bytes of several files in order."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def fold_text(text: str) -> str:
    """Fold case and white space, so that two spellings of one name compare equal."""
    return " ".join(text.casefold().split())
