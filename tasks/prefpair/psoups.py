"""Files in the form of AlignX's benchmarks (P-Soups, UF-P-4, PRISM.json).

A file is a JSON list; a row has a prompt, a chosen and a rejected response, the user's profile and
four earlier comparisons.  `ground_truth_persona` is the instruction that generated the row: it only
names the user, by its hash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from personabench.api.comparison import comparison_record
from personabench.api.downloads import MANIFEST
from personabench.api.rows import Row, read_rows
from personabench.errors import DataError
from personabench.hashing import digest
from personabench.tasks.prefpair.comparison import Comparison, drop_own_prompt
from personabench.types import Record

FEEDBACK = "Pair-wise Comparative Feedback"


def list_files(data: Path) -> list[Path]:
    """Return the files to read: `data` itself, or the JSON files in the folder.

    Raises:
        DataError: there is none.
    """
    if data.is_file():
        return [data]
    # The manifest of a download is no table.
    paths = [path for path in sorted(data.glob("*.json")) if path.name != MANIFEST]
    if not paths:
        raise DataError(
            f"{data} holds no JSON files; name a file of AlignX's benchmark folder, or the folder "
            "P-Soups, with --data"
        )
    return paths


def read_comparisons(data: Path, counts: Counter[str]) -> Iterator[Comparison]:
    """Read the rows of all files.

    Args:
        counts: receives the number of records that are left out ("own prompt").

    Raises:
        DataError: a file is missing or broken, or a row lacks a field.
    """
    for path in list_files(data):
        ids: Counter[str] = Counter()
        for row in read_rows(path):
            comparison = _read_row(row, path.stem, counts)
            ids[comparison.id] += 1
            if ids[comparison.id] > 1:
                comparison = comparison._replace(id=f"{comparison.id}.{ids[comparison.id]}")
            yield comparison


def _read_row(row: Row, stem: str, counts: Counter[str]) -> Comparison:
    prompt = row.read_text("prompt")
    chosen, rejected = row.read_text("chosen"), row.read_text("rejected")
    user_id = f"{stem}-{digest(row.read_text('ground_truth_persona'))[:8]}"
    feedback = row[FEEDBACK]
    if not isinstance(feedback, list):
        raise DataError(f"{row.location}: '{FEEDBACK}' is not a list of comparisons")

    history, dropped = drop_own_prompt(prompt, [_read_record(entry, row) for entry in feedback])
    counts["own prompt"] += dropped
    # Sorted, so that an id does not depend on which of the two is preferred.
    content = digest([user_id, prompt, sorted([chosen, rejected])])
    profile = row.get("profile") or ""
    return Comparison(
        f"{stem}-{content[:12]}",
        user_id,
        prompt,
        (chosen, rejected),
        history,
        profile=profile if isinstance(profile, str) else "",
        location=row.location,
    )


def _read_record(entry: object, row: Row) -> Record:
    if not isinstance(entry, Row):
        raise DataError(f"{row.location}: '{FEEDBACK}' holds {entry!r}, expected a comparison")
    return comparison_record(
        entry.read_text("prompt"), entry.read_text("chosen"), [entry.read_text("rejected")]
    )
