"""Rankings made elsewhere: JSON files of `{question id: [record ids, best first]}`.

This is the form in which LaMP's retrievers hand over their results.  Ids are opaque strings and stay strings ("011"
is not 11).  Reading checks the shape only; ids that do not fit a user's history are counted where a ranking is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from personabench.errors import DataError

_SHAPE = 'expected {"question id": ["record id", ...], ...}, best record first'


def read_rankings(path: Path) -> dict[str, tuple[str, ...]]:
    """Record ids, best first, by question id.

    Raises:
        DataError: the file cannot be read or has another shape; the message names file, question and position.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise DataError(
                    f"{path}: question {key!r} is ranked twice; keep one entry per question"
                )
            seen[key] = value
        return seen

    try:
        data = json.loads(path.read_bytes(), object_pairs_hook=unique)
    except OSError as error:
        raise DataError(f"{path}: cannot read the rankings ({error.strerror or error})") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); {_SHAPE}") from error
    if not isinstance(data, dict):
        raise DataError(f"{path}: the file holds a {type(data).__name__}; {_SHAPE}")
    for question, ids in data.items():
        if not isinstance(ids, list):
            raise DataError(
                f"{path}: question {question!r} has a {type(ids).__name__} where a list of ids belongs"
            )
        for position, name in enumerate(ids):
            if not isinstance(name, str):
                raise DataError(
                    f"{path}: question {question!r}, position {position}: {name!r} is not a string; "
                    "write record ids as the data does, in quotes"
                )
    return {question: tuple(ids) for question, ids in data.items()}


def write_rankings(path: Path, rankings: Mapping[str, Sequence[str]]) -> None:
    """Write rankings, a line per question in the order given; the file appears whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    lines = (
        f"{json.dumps(question)}: {json.dumps(list(ids))}" for question, ids in rankings.items()
    )
    try:
        draft.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot write the rankings ({error.strerror or error})") from error
