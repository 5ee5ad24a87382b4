"""Tables of reviews as people have them: CSV or JSON lines, plain or gzipped, with the column names in use.

The Amazon files of 2014 and 2023 are read as they come.  A table may carry the items' titles and descriptions itself,
or a second table beside it does, whose name begins with `meta` or `items`.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from personabench.errors import DataError
from personabench.tasks.reviews.records import Item, Review, iso

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "user": ("user_id", "user", "reviewerID"),
    "item": ("parent_asin", "asin", "item_id", "item"),
    "rating": ("rating", "overall", "stars"),
    "text": ("review_text", "text", "reviewText", "review"),
    "time": ("timestamp", "time", "unixReviewTime", "date"),
}
TITLES = ("review_title", "summary", "title")
ITEM_COLUMNS = {
    "title": ("item_title", "product_title"),
    "description": ("item_description", "description"),
}
_ENDINGS = (".csv", ".jsonl", ".json", ".csv.gz", ".jsonl.gz", ".json.gz")
_HEADING = "Product Description"


@dataclass
class Counted:
    """What came with the reviews: rows, rows without a needed field, and items described in the same table."""

    rows: int = 0
    incomplete: int = 0
    items: dict[str, Item] = field(default_factory=dict)


def find(data: Path) -> tuple[Path, Path | None]:
    """The table of reviews in a folder and the table of items, if there is one.

    Raises:
        DataError: not exactly one of the first.
    """
    tables = sorted(
        path for path in data.iterdir() if path.is_file() and path.name.lower().endswith(_ENDINGS)
    )
    described = [path for path in tables if path.name.lower().startswith(("meta", "items"))]
    reviews = [path for path in tables if path not in described and path.name != "manifest.json"]
    if len(reviews) != 1 or len(described) > 1:
        what = ", ".join(path.name for path in [*reviews, *described]) or "none"
        raise DataError(
            f"{data} should hold one table of reviews ({', '.join(_ENDINGS[:2])}, also .gz) and at most one of items, "
            f"named meta* or items*; found: {what}. Or it holds DPL-main and DPL-meta, as `download reviews` makes them"
        )
    return reviews[0], described[0] if described else None


def read_reviews(path: Path) -> tuple[dict[str, list[Review]], Counted]:
    """Reviews by user, in file order, and what else the table held.

    Raises:
        DataError: a column is missing, or a value is no number or time; the message names line and column.
    """
    found: dict[str, list[Review]] = defaultdict(list)
    counted = Counted()
    for line, row in _rows(path):
        counted.rows += 1
        if counted.rows == 1:
            names = {role: _column(path, row, role, choices) for role, choices in COLUMNS.items()}
            heading = next((name for name in TITLES if name in row), None)
            about = {
                role: next((n for n in choices if n in row), None)
                for role, choices in ITEM_COLUMNS.items()
            }
        values = {role: _text(row.get(name)) for role, name in names.items()}
        title = _text(row.get(heading)) if heading else ""
        if not all(values.values()) or (heading and not title):
            counted.incomplete += 1
            continue
        asin = values["item"]
        rating = _number(path, line, names["rating"], values["rating"])
        found[values["user"]].append(
            Review(asin, rating, title, values["text"], _seconds(path, line, values["time"]))
        )
        if asin not in counted.items and any(about.values()):
            counted.items[asin] = Item(*(_text(row.get(name or "")) for name in about.values()))
    return dict(found), counted


def read_items(path: Path) -> dict[str, Item]:
    """Items by key.

    Raises:
        DataError: no column names the items.
    """
    found: dict[str, Item] = {}
    for _, row in _rows(path):
        key = row.get(_column(path, row, "item", COLUMNS["item"]))
        title = row.get(next((n for n in (*ITEM_COLUMNS["title"], "title") if n in row), ""))
        description = row.get(next((n for n in ITEM_COLUMNS["description"] if n in row), ""))
        found[_text(key)] = Item(_text(title), _text(description))
    return found


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line numbers and rows; every column is there in each of them."""
    with _opened(path) as file:
        try:
            if ".csv" in path.suffixes:
                csv.field_size_limit(1 << 30)
                reader = csv.DictReader(file)
                for row in reader:
                    yield reader.line_num, row
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, msgspec.json.decode(line, type=dict[str, Any])
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 text: {error}") from error
        except csv.Error as error:
            raise DataError(f"{path}: line {reader.line_num}: {error}") from error
        except msgspec.DecodeError as error:
            raise DataError(
                f"{path}: line {number}: {error}; expected one JSON object a line"
            ) from error


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _column(path: Path, row: Mapping[str, Any], role: str, choices: tuple[str, ...]) -> str:
    for name in choices:
        if name in row:
            return name
    raise DataError(
        f"{path}: no column for the {role}: one of {', '.join(choices)}; it has: {', '.join(map(str, row))}"
    )


def _text(value: Any) -> str:
    """A value as text; a list of paragraphs joined, its bare heading left out."""
    if isinstance(value, list):
        return " ".join(str(each) for each in (value[1:] if value[:1] == [_HEADING] else value))
    return "" if value is None else str(value).strip()


def _number(path: Path, line: int, column: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise DataError(f"{path}: line {line}: {column}: '{value}' is no number") from error


def _seconds(path: Path, line: int, value: str) -> float:
    try:
        moment = datetime.fromisoformat(iso(value))
    except (ValueError, OverflowError, OSError) as error:
        raise DataError(
            f"{path}: line {line}: '{value}' is no time: write Unix seconds or an ISO date"
        ) from error
    return moment.replace(tzinfo=UTC).timestamp()
