"""Reviews as a dataset: a user's earlier reviews, the one to write, and the items.

Everything here is independent of the source of the rows: a copy of the published data (`hub`) or a
local table from which they were made (`construct`).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from personabench.api.dataset import Dataset
from personabench.api.id_check import compare_ids, list_few
from personabench.errors import DataError
from personabench.hashing import digest, digest_record, digest_set
from personabench.tasks.reviews.wording import UNTITLED, format_request
from personabench.types import Record, Sample, User

# Seconds since 1970 reach this number in the year 5138, milliseconds reached it in 1973.
_MIN_MILLISECONDS = 1e11


class Review(msgspec.Struct, frozen=True, gc=False):
    """One review, in the published fields.

    Attributes:
        title: the review's own title, not the item's.
        timestamp: Unix time in seconds or milliseconds, or ISO.
    """

    asin: str
    rating: float
    title: str
    text: str
    timestamp: int | float | str


class Row(msgspec.Struct, frozen=True):
    """One question: the user, the user's earlier reviews, and the review to write."""

    user_id: str
    profile: list[Review]
    data: Review


class Item(NamedTuple):
    """The title and description of an item."""

    title: str
    description: str

    @property
    def text(self) -> str | None:
        """Title and description on two lines, white space collapsed; None if both are empty."""
        title = " ".join(self.title.split())
        description = " ".join(self.description.split())
        parts = [part for part in (title, description) if part]
        return "\n".join(parts) or None


class Rows(NamedTuple):
    """The rows of a split in file order, with the items by key.

    Attributes:
        origin: the source of the rows, for error messages.
        source: the source of the rows, for summaries.
        peers: users without a question, for methods that compare users.
    """

    rows: Sequence[Row]
    items: Mapping[str, Item]
    origin: str
    source: str
    warnings: tuple[str, ...] = ()
    peers: tuple[Row, ...] = ()


class ReviewData(Dataset):
    """An opened split.

    Raises:
        DataError: the split is empty, or a user has two rows on one item.
    """

    dated = True

    def __init__(self, content: Rows, separation: str, split: str, *, sample: bool = False) -> None:
        self.separation = separation
        self.split = split
        self.sample = sample
        self.source = content.source
        self._rows = content.rows
        self._items = content.items
        self._peers = content.peers

        self._index: list[tuple[str, str]] = []
        undescribed: set[str] = set()
        repeating: list[str] = []
        digests: list[bytes] = []
        used: set[str] = set()
        # One pass, since rows are decoded on access.
        for row in self._rows:
            digests.append(digest_record(row))
            review_id = make_review_id(row.user_id, row.data)
            self._index.append((review_id, row.user_id))
            asins = [review.asin for review in (*row.profile, row.data)]
            if len(set(asins)) < len(asins):
                repeating.append(row.user_id)
            undescribed.update(asin for asin in asins if asin not in self._items)
            used.update(asins)

        self._check_ids(content.origin)
        self.hash = digest([digest_set(digests), self._hash_peers(), self._hash_items(used)])
        self.warnings = (*content.warnings, *self._make_warnings(undescribed, repeating))

    def index(self) -> Sequence[tuple[str, str]]:
        return self._index

    def load(self, position: int) -> Sample:
        row = self._rows[position]
        review = row.data
        stimulus = self._describe_item(review.asin)
        attributes = self._state_facts(review)
        return Sample(
            id=make_review_id(row.user_id, review),
            user_id=row.user_id,
            input=format_request(stimulus, attributes),
            stimulus=stimulus,
            history=self._make_history(row),
            references=(review.text,),
            attributes=attributes,
            time=format_time(review.timestamp),
            item=review.asin,
        )

    def population(self) -> Iterator[User]:
        """See `Dataset`; users without a question come last."""
        yield from super().population()
        for row in self._peers:
            yield User(row.user_id, self._make_history(row))

    def _hash_peers(self) -> str:
        return digest_set(map(digest_record, self._peers))

    def _hash_items(self, asins: set[str]) -> str:
        """Hash the items of reviews; a table of items may have millions of others."""
        used = set(asins)
        for row in self._peers:
            used.update(review.asin for review in (*row.profile, row.data))
        return digest_set(
            digest_record([asin, *self._items[asin]]) for asin in used & self._items.keys()
        )

    def _check_ids(self, origin: str) -> None:
        if not self._index:
            raise DataError(f"{origin}: the split has no rows")

        ids = [review_id for review_id, _ in self._index]
        repeated = compare_ids(ids, ids).repeated
        if repeated:
            raise DataError(
                f"{origin}: a user's review of an item occurs more than once: {list_few(repeated)}"
            )

    def _make_warnings(self, undescribed: set[str], repeating: list[str]) -> Iterator[str]:
        if undescribed and not self._items:
            yield "no item has a title or description: prompts state only rating and review title"
        elif undescribed:
            yield f"{list_few(sorted(undescribed))} items have no title or description"
        if repeating:
            yield f"{list_few(repeating)} users have more than one review of an item"

    def _make_history(self, row: Row) -> tuple[Record, ...]:
        records = [self._make_record(row.user_id, review) for review in row.profile]
        records.sort(key=lambda record: record.time or "")
        return tuple(records)

    def _make_record(self, user_id: str, review: Review) -> Record:
        return Record(
            id=make_review_id(user_id, review),
            stimulus=self._describe_item(review.asin),
            response=review.text,
            time=format_time(review.timestamp),
            item=review.asin,
            fields=self._state_facts(review),
        )

    def _state_facts(self, review: Review) -> dict[str, str]:
        facts = {
            "rating": format_rating(review),
            "review_title": review.title,
        }
        item = self._items.get(review.asin)
        if item is not None and item.text and not item.title.strip():
            facts[UNTITLED] = ""
        return facts

    def _describe_item(self, asin: str) -> str | None:
        item = self._items.get(asin)
        return None if item is None else item.text


def make_review_id(user_id: str, review: Review) -> str:
    """Return the id of a user's review, both in a history and as a question."""
    return f"{user_id}-{review.asin}"


def format_rating(review: Review) -> str:
    """Format a rating without trailing zeros: 4, 4.5."""
    return f"{review.rating:g}"


def format_time(timestamp: int | float | str) -> str:
    """Format a time in ISO form, UTC, sortable as text; a bare date if it is midnight.

    Raises:
        ValueError: the timestamp is neither a number of seconds or milliseconds nor an ISO date.
    """
    try:
        number = float(timestamp)
    except ValueError:
        moment = datetime.datetime.fromisoformat(str(timestamp))
        # A time without a zone counts as UTC.
        if moment.tzinfo is not None:
            moment = moment.astimezone(datetime.UTC)
        return _format_moment(moment)

    seconds = number / 1000 if abs(number) >= _MIN_MILLISECONDS else number
    return _format_moment(datetime.datetime.fromtimestamp(seconds, datetime.UTC))


def _format_moment(moment: datetime.datetime) -> str:
    if moment.time() == datetime.time():
        return moment.date().isoformat()
    precision = "milliseconds" if moment.microsecond else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precision)
