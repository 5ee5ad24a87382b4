"""Copies of data files with the same records in another form."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Prompts list these in the order of the file, which is therefore content.
LISTED = ("persona", "persona_preferences", "options")


def copy_reformatted(source: Path, target: Path, *, shuffled: bool = True, seed: int = 0) -> Path:
    """Copy data files with other white space, key order and, if shuffled, order of records."""
    rng = random.Random(seed)
    shutil.copytree(source, target)
    for path in sorted(target.rglob("*")):
        change = FORMS.get(path.suffix)
        if change is not None and path.is_file():
            text = path.read_text(encoding="utf-8")
            path.write_text(change(text, rng if shuffled else None), encoding="utf-8")
    return target


def _reformat_json(text: str, rng: random.Random | None) -> str:
    value = json.loads(text)
    for records in (value, value.get("golds") if isinstance(value, dict) else None):
        if rng and isinstance(records, list):
            rng.shuffle(records)
    return json.dumps(_turn_keys(value), indent=3, ensure_ascii=True)


def _reformat_lines(text: str, rng: random.Random | None) -> str:
    lines = [
        json.dumps(_turn_keys(json.loads(line)), ensure_ascii=True) for line in text.splitlines()
    ]
    if rng:
        rng.shuffle(lines)
    return "\n\n".join(lines)


def _reformat_csv(text: str, rng: random.Random | None) -> str:
    header, *rows = csv.reader(io.StringIO(text))
    if rng:
        rng.shuffle(rows)
    # The columns from last to first, and a quote around every cell.
    written = io.StringIO()
    writer = csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerows(row[::-1] for row in [header, *rows])
    return written.getvalue()


FORMS: dict[str, Callable[[str, random.Random | None], str]] = {
    ".json": _reformat_json,
    ".jsonl": _reformat_lines,
    ".csv": _reformat_csv,
}


def _turn_keys(value: Any) -> Any:
    """The value with the keys of all objects from last to first, except those that are listed."""
    if isinstance(value, list):
        return [_turn_keys(item) for item in value]
    if isinstance(value, dict):
        return {
            key: item if key in LISTED else _turn_keys(item)
            for key, item in reversed(value.items())
        }
    return value
