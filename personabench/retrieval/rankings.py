"""Read precomputed rankings: JSON files of `{question id: [record ids, best first]}`.

LaMP's retrievers write their results in this form.  Ids are opaque strings and stay strings ("011"
is not 11).  Only the shape is checked here; ids that do not fit a user's history are counted when a
ranking is used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from personabench.errors import DataError

_SHAPE = 'expected {"question id": ["record id", ...], ...}, best record first'


def read_rankings(path: Path) -> dict[str, tuple[str, ...]]:
    """Read record ids, best first, by question id.

    Raises:
        DataError: the file cannot be read or has another shape; the message names file, question
            and position.
    """

    def reject_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        rankings: dict[str, Any] = {}
        for question, ids in pairs:
            if question in rankings:
                raise DataError(
                    f"{path}: question {question!r} is ranked twice; keep one entry per question"
                )
            rankings[question] = ids
        return rankings

    try:
        # A hook, since `json` silently keeps the last of repeated keys.
        rankings = json.loads(path.read_bytes(), object_pairs_hook=reject_repeats)
    except OSError as error:
        raise DataError(f"{path}: cannot read the rankings ({error.strerror or error})") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); {_SHAPE}") from error

    if not isinstance(rankings, dict):
        raise DataError(f"{path}: the file holds a {type(rankings).__name__}; {_SHAPE}")
    return {question: _check_ids(path, question, ids) for question, ids in rankings.items()}


def _check_ids(
    path: Path,
    question: str,
    ids: object,
) -> tuple[str, ...]:
    if not isinstance(ids, list):
        raise DataError(
            f"{path}: question {question!r} has a {type(ids).__name__} instead of a list of ids"
        )
    for index, record_id in enumerate(ids):
        if not isinstance(record_id, str):
            raise DataError(
                f"{path}: question {question!r}, position {index}: {record_id!r} is not a string; "
                "write record ids as the data does, in quotes"
            )
    return tuple(ids)
