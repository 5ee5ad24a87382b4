"""Reader of review tables: CSV or JSON lines, plain or gzipped, with common column names.

The Amazon files of 2014 and 2023 are read unchanged. Titles and descriptions of the items are in
the table itself, or in a second table beside it whose name begins with `meta` or `items`.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from personabench.errors import DataError
from personabench.tasks.reviews.records import Item, Review, format_time

# The first column present counts. Variants of a product share the parent's key, so it comes first.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "user": ("user_id", "user", "reviewerID"),
    "item": ("parent_asin", "asin", "item_id", "item"),
    "rating": ("rating", "overall", "stars"),
    "text": ("review_text", "text", "reviewText", "review"),
    "time": ("timestamp", "time", "unixReviewTime", "date"),
}
TITLES = ("review_title", "summary", "title")
ITEM_TITLES = ("item_title", "product_title")
ITEM_DESCRIPTIONS = ("item_description", "description")
_ENDINGS = (".csv", ".jsonl", ".json", ".csv.gz", ".jsonl.gz", ".json.gz")
# Amazon's descriptions are lists of paragraphs, often under this heading.
_HEADING = "Product Description"
# A row with its line number, for error messages.
_NumberedRow = tuple[int, Mapping[str, Any]]


@dataclass
class ReviewTable:
    """The content of a table of reviews.

    Attributes:
        reviews: the complete reviews by user, in file order.
        items: the items that the same table describes.
        rows: the number of rows.
        incomplete: the number of rows without a required field.
    """

    reviews: dict[str, list[Review]] = field(default_factory=lambda: defaultdict(list))
    items: dict[str, Item] = field(default_factory=dict)
    rows: int = 0
    incomplete: int = 0


@dataclass(frozen=True)
class _Columns:
    """The column names of one table; None for an optional column that it lacks."""

    required: Mapping[str, str]
    title: str | None
    item_title: str | None
    item_description: str | None


def find_tables(data: Path) -> tuple[Path, Path | None]:
    """Return the table of reviews in a folder and the table of items, if there is one.

    Raises:
        DataError: the folder holds no table of reviews, or several tables of one kind.
    """
    tables = [
        path
        for path in sorted(data.iterdir())
        if path.is_file() and path.name.lower().endswith(_ENDINGS)
    ]
    items = [path for path in tables if _is_item_table(path)]
    # A download leaves a manifest beside its files.
    reviews = [path for path in tables if path not in items and path.name != "manifest.json"]

    if len(reviews) != 1 or len(items) > 1:
        file_names = [path.name for path in (*reviews, *items)]
        present = ", ".join(file_names) or "none"
        raise DataError(
            f"{data} must hold one table of reviews ({', '.join(_ENDINGS[:2])}, also .gz) and at "
            f"most one of items, named meta* or items*; found: {present}. Alternatively it holds "
            "DPL-main and DPL-meta, as `download reviews` makes them"
        )
    return reviews[0], items[0] if items else None


def _is_item_table(path: Path) -> bool:
    return path.name.lower().startswith(("meta", "items"))


def read_reviews(path: Path) -> ReviewTable:
    """Read a table of reviews.

    Raises:
        DataError: a column is missing, or a value is not a number or a time; the message names
            line and column.
    """
    table = ReviewTable()
    columns: _Columns | None = None
    for line_number, row in _iter_rows(path):
        if columns is None:
            columns = _find_columns(path, row)
        table.rows += 1
        _add_row(table, path, line_number, row, columns)
    return table


def _find_columns(path: Path, row: Mapping[str, Any]) -> _Columns:
    return _Columns(
        required={role: _require_column(path, row, role) for role in COLUMNS},
        title=_find_column(row, TITLES),
        item_title=_find_column(row, ITEM_TITLES),
        item_description=_find_column(row, ITEM_DESCRIPTIONS),
    )


def _add_row(
    table: ReviewTable,
    path: Path,
    line_number: int,
    row: Mapping[str, Any],
    columns: _Columns,
) -> None:
    values = {role: _to_text(row.get(column)) for role, column in columns.required.items()}
    title = _read_optional(row, columns.title)
    # A table without a title column is complete without titles.
    lacks_title = columns.title is not None and not title
    if lacks_title or not all(values.values()):
        table.incomplete += 1
        return

    asin = values["item"]
    rating_column = columns.required["rating"]
    review = Review(
        asin=asin,
        rating=_parse_number(path, line_number, rating_column, values["rating"]),
        title=title,
        text=values["text"],
        timestamp=_parse_seconds(path, line_number, values["time"]),
    )
    table.reviews[values["user"]].append(review)

    describes_items = columns.item_title or columns.item_description
    if describes_items and asin not in table.items:
        table.items[asin] = Item(
            _read_optional(row, columns.item_title),
            _read_optional(row, columns.item_description),
        )


def read_items(path: Path) -> dict[str, Item]:
    """Read a table of items by key.

    Raises:
        DataError: no column names the items.
    """
    items: dict[str, Item] = {}
    for _, row in _iter_rows(path):
        asin = _to_text(row.get(_require_column(path, row, "item")))
        # Here `title` is the item's own, in a table of reviews it is the review's.
        title = _read_optional(row, _find_column(row, (*ITEM_TITLES, "title")))
        description = _read_optional(row, _find_column(row, ITEM_DESCRIPTIONS))
        items[asin] = Item(title, description)
    return items


def _iter_rows(path: Path) -> Iterator[_NumberedRow]:
    """Yield line numbers and rows."""
    with _open_text(path) as file:
        read_format = _iter_csv if ".csv" in path.suffixes else _iter_json
        try:
            yield from read_format(path, file)
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 text: {error}") from error


def _iter_csv(path: Path, file: IO[str]) -> Iterator[_NumberedRow]:
    # Reviews may be longer than the csv module's limit of 131,072 characters.
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader(file)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}") from error


def _iter_json(path: Path, file: IO[str]) -> Iterator[_NumberedRow]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise DataError(
                f"{path}: line {number}: {error}; expected one JSON object per line"
            ) from error
        yield number, row


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _find_column(row: Mapping[str, Any], candidates: Sequence[str]) -> str | None:
    return next((column for column in candidates if column in row), None)


def _require_column(path: Path, row: Mapping[str, Any], role: str) -> str:
    column = _find_column(row, COLUMNS[role])
    if column is None:
        raise DataError(
            f"{path}: no column for the {role}: name it {' or '.join(COLUMNS[role])}; "
            f"it has: {', '.join(map(str, row))}"
        )
    return column


def _read_optional(row: Mapping[str, Any], column: str | None) -> str:
    return "" if column is None else _to_text(row.get(column))


def _to_text(value: Any) -> str:
    """Convert a value to text; a list of paragraphs is joined without its bare heading."""
    if value is None:
        return ""
    if not isinstance(value, list):
        return str(value).strip()

    paragraphs = value[1:] if value[:1] == [_HEADING] else value
    return " ".join(str(paragraph) for paragraph in paragraphs)


def _parse_number(path: Path, line_number: int, column: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise DataError(
            f"{path}: line {line_number}: {column}: '{value}' is not a number"
        ) from error


def _parse_seconds(path: Path, line_number: int, value: str) -> float:
    try:
        moment = datetime.fromisoformat(format_time(value))
    except (ValueError, OverflowError, OSError) as error:
        raise DataError(
            f"{path}: line {line_number}: '{value}' is not a time: "
            "write Unix seconds or an ISO date"
        ) from error
    return moment.replace(tzinfo=UTC).timestamp()
