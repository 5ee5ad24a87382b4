"""Scenarios of PENGUIN: a query and the user's attributes, from a table of any form.

Names of columns are normalised, columns that the paper does not know are attributes as well, and a
cell is text, whatever it looks like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from personabench.api.rows import Row, read_rows
from personabench.errors import DataError
from personabench.hashing import digest

ATTRIBUTES = (
    "age",
    "gender",
    "marital status",
    "profession",
    "economic status",
    "education",
    "health",
    "mental health",
    "self-harm history",
    "emotional state",
)
"""The paper's ten attributes, in its order."""
_OTHER_NAMES = {
    "marital": "marital status",
    "occupation": "profession",
    "job": "profession",
    "economy": "economic status",
    "education level": "education",
    "education status": "education",
    "health status": "health",
    "physical health": "health",
    "mental health status": "mental health",
    "emotion": "emotional state",
    "emotional status": "emotional state",
}
_NO_ATTRIBUTES = {"id", "query", "question", "scenario", "domain", "source", "index", "split"}
_EMPTY = {"", "none", "nan", "null", "n/a", "unknown", "not specified", "not mentioned"}


class Scenario(NamedTuple):
    """One user with one query.

    Attributes:
        id: the domain of life and a hash of query and attributes.
        domain: such as career or health; empty if the data names none.
        attributes: by normalised name, those that are known.
    """

    id: str
    domain: str
    query: str
    attributes: Mapping[str, str]


def read_scenarios(path: Path) -> Iterator[Scenario]:
    """Read the scenarios of a file, or of the only table of a folder, each once.

    Raises:
        DataError: the file is missing or broken, or a row has no query; texts are not quoted.
    """
    seen: set[str] = set()
    for row in read_rows(path, "train"):
        cells = {normalise_name(name): _as_text(cell) for name, cell in row.items()}
        query = _read_query(row)
        domain = cells.get("scenario") or cells.get("domain") or ""
        attributes = {
            name: cell
            for name, cell in cells.items()
            if name not in _NO_ATTRIBUTES and cell.casefold() not in _EMPTY
        }
        prefix = re.sub(r"\W+", "-", domain.casefold()).strip("-")[:24] or "scenario"
        scenario_id = f"{prefix}-{digest([query, attributes])[:12]}"
        if scenario_id not in seen:
            seen.add(scenario_id)
            yield Scenario(scenario_id, domain, query, attributes)


def _read_query(row: Row) -> str:
    cells = {normalise_name(name): cell for name, cell in row.items()}
    query = cells.get("query") or cells.get("question")
    if not isinstance(query, str) or not query.strip():
        raise DataError(f"{row.location}: no 'query' in words, expected the user's message")
    return _as_text(query)


def normalise_name(name: str) -> str:
    """The name of a column in lower case and words; the paper's name for a known attribute.

    "Marital_Status" is "marital status", "past self harm history" is "self-harm history".
    """
    words = " ".join(re.sub(r"([a-z])([A-Z])", r"\1 \2", name).casefold().split())
    words = " ".join(words.replace("_", " ").replace("-", " ").split())
    if "self harm" in words or "selfharm" in words:
        return "self-harm history"
    return _OTHER_NAMES.get(words, words)


def _as_text(cell: Any) -> str:
    # Never evaluated: a cell that looks like a list is the text of one.
    return "" if cell is None else " ".join(str(cell).split())
