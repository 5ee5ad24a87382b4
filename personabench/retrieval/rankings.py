"""Read precomputed rankings: JSON files of `{question id: [record ids, best first]}`.

LaMP's retrievers write their results in this form.  Ids are opaque strings and stay strings ("011"
is not 11).  Only the shape is checked here; ids that do not fit a user's history are counted when a
ranking is used.

In place of an id, a ranking may hold the ranked record, `{"id", "text"}`.  Its text is then held
against that of the record with this id: the ranker of LaMP-QA's reference gives ranked texts the
ids of the unranked order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from personabench.errors import DataError

_SHAPE = 'expected {"question id": ["record id", ...], ...}, best record first'


class RankedId(str):
    """The id of a ranked record, with the record's text if the file states it."""

    __slots__ = ("text",)
    text: str | None

    def __new__(cls, record_id: str, text: str | None = None) -> RankedId:
        ranked = super().__new__(cls, record_id)
        ranked.text = text
        return ranked


def read_rankings(path: Path) -> dict[str, tuple[str, ...]]:
    """Read record ids, best first, by question id.

    Raises:
        DataError: the file cannot be read or has another shape; the message names file, question
            and position.
    """

    def reject_repeats(pairs: list[tuple[str, Any]]) -> Any:
        if {"id", "text"} <= {name for name, _ in pairs}:
            return dict(pairs)
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
    ranked = []
    for index, entry in enumerate(ids):
        record_id, text = entry, None
        if isinstance(entry, dict):
            record_id, text = entry.get("id"), entry.get("text")
        if not isinstance(record_id, str):
            raise DataError(
                f"{path}: question {question!r}, position {index}: {record_id!r} is not a string; "
                "write record ids as the data does, in quotes"
            )
        ranked.append(RankedId(record_id, text if isinstance(text, str) else None))
    return tuple(ranked)
