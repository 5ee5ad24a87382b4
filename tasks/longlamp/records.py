"""Rows of LongLaMP as samples: ids, users, profile entries.

Rows carry no id, so that a sample is named by configuration, split and row.  A hash of input and
output stands beside it, by which a changed download is noticed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from personabench.api.hub_files import StoredRow, find_split_files, read_stored_rows
from personabench.errors import DataError
from personabench.hashing import digest
from personabench.tasks.longlamp.forms import SPLITS, Form
from personabench.types import Record, Sample

NO_USER = "no_user"


def find_files(root: Path, form: Form, setting: str, split: str) -> list[Path]:
    """Find the files of a split.

    Raises:
        DataError: there are none.
    """
    config = f"{form.config}_{setting}"
    paths = find_split_files(root, config, SPLITS[split])
    if not paths:
        raise DataError(
            f"{root} has no files of {config}, split {split}; expected {config}/{split}.json, "
            ".jsonl or .parquet"
        )
    return paths


def read_samples(paths: Sequence[Path], form: Form, setting: str, split: str) -> Iterator[Sample]:
    """Read the samples of a split's files.

    Raises:
        DataError: a row is not of the published form; the message names file, row and field.
    """
    for number, stored in enumerate(read_stored_rows(paths)):
        sample_id = f"{form.config}_{setting}-{split}-{number}"
        yield _make_sample(stored, form, sample_id)


def _make_sample(stored: StoredRow, form: Form, sample_id: str) -> Sample:
    text = _read_text(stored, stored.fields, "input")
    gold = _read_text(stored, stored.fields, "output")
    entries = stored.fields.get("profile")
    if not isinstance(entries, list):
        raise DataError(
            f"{stored.location}: profile is {type(entries).__name__}, expected a list of entries"
        )

    user = _read_cell(stored, stored.fields.get(form.user_field), form.user_field)
    has_user = user.strip() != ""
    query = form.find_query(text)
    return Sample(
        sample_id,
        user_id=user if has_user else sample_id,
        input=text,
        stimulus=query or text,
        history=tuple(_make_records(stored, entries, form)),
        references=(gold,),
        hidden={"content": digest([text, gold])[:16], NO_USER: str(not has_user)},
    )


def _make_records(stored: StoredRow, entries: Sequence[Any], form: Form) -> Iterator[Record]:
    counts: Counter[str] = Counter()
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping):
            raise DataError(
                f"{stored.location}: profile entry {number} is {type(entry).__name__}, expected "
                f"an object of {', '.join(form.fields)}"
            )
        fields = _read_fields(stored, entry, form, number)
        location = f"profile entry {number}: id"
        name = _read_cell(stored, entry.get("id"), location) or str(number)
        counts[name] += 1
        # Ids that repeat within a profile would name no single entry.
        record_id = name if counts[name] == 1 else f"{name}-{counts[name]}"
        time = fields.get(form.time_field) if form.time_field else None
        stimulus = " | ".join(fields[part] for part in form.stimulus if fields[part])
        yield Record(
            record_id,
            stimulus=stimulus or None,
            # A record without a text would be refused, and entries may be empty.
            response=fields[form.long_field] or "(empty)",
            time=time or None,
            fields=fields,
        )


def _read_fields(
    stored: StoredRow, entry: Mapping[str, Any], form: Form, number: int
) -> dict[str, str]:
    """An entry's fields as text; published and reference code name some of them differently."""
    fields = {}
    for name, other in form.fields.items():
        if name not in entry and other not in entry:
            raise DataError(
                f"{stored.location}: profile entry {number} has no field '{name}'; it has: "
                f"{', '.join(entry)}"
            )
        content = entry[name] if name in entry else entry[other]
        fields[name] = _read_cell(stored, content, f"profile entry {number}: {name}")
    return fields


def _read_cell(stored: StoredRow, content: Any, name: str) -> str:
    """A cell as text: ratings are numbers or texts, and are printed as they stand.

    Files that pandas wrote have NaN for what is missing.
    """
    is_number = isinstance(content, int | float) and not isinstance(content, bool)
    if content is None or (is_number and math.isnan(content)):
        return ""
    if not is_number and not isinstance(content, str):
        raise DataError(f"{stored.location}: {name} is {content!r:.40}, expected text or a number")
    return str(content)


def _read_text(stored: StoredRow, fields: Mapping[str, Any], name: str) -> str:
    content = fields.get(name)
    if not isinstance(content, str) or not content.strip():
        raise DataError(
            f"{stored.location}: {name} is {content!r:.40}, expected text; a row has the fields "
            "input, output, profile, and optionally the user"
        )
    return content
