"""Reviews as the benchmark sees them: a user's earlier reviews, the one to write, and what is known of the items.

Everything here is independent of where the rows come from: a copy of the published data (`hub`) or a local table from
which they were made (`construct`).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from personabench.api.dataset import Dataset
from personabench.api.id_check import compare_ids, few
from personabench.errors import DataError
from personabench.tasks.reviews.wording import request
from personabench.types import Record, Sample, User

_MILLISECONDS = 1e11


class Review(msgspec.Struct, frozen=True, gc=False):
    """One review, in the published fields: `title` is the review's own; `timestamp` is of Unix, in s or ms, or ISO."""

    asin: str
    rating: float
    title: str
    text: str
    timestamp: int | float | str


class Row(msgspec.Struct, frozen=True):
    """One question: who writes, what they wrote before, and the review they wrote then."""

    user_id: str
    profile: list[Review]
    data: Review


class Item(NamedTuple):
    """What is known of an item."""

    title: str
    description: str

    @property
    def text(self) -> str | None:
        """Title and description on two lines, white space collapsed; None where nothing is known."""
        return (
            "\n".join(
                part
                for part in (" ".join(self.title.split()), " ".join(self.description.split()))
                if part
            )
            or None
        )


class Rows(NamedTuple):
    """A split: rows in file order, items by key, and what there is to say of them.

    `place` names a row's source for messages; `hash` is of the files; `others` are people nothing is asked about.
    """

    rows: Sequence[Row]
    items: Mapping[str, Item]
    place: str
    hash: str
    source: str
    warnings: tuple[str, ...] = ()
    others: tuple[Row, ...] = ()


class ReviewData(Dataset):
    """An opened split.

    Raises:
        DataError: no rows, or two rows of one user on one item.
    """

    dated = True

    def __init__(self, found: Rows, separation: str, split: str, *, sample: bool = False) -> None:
        self.separation, self.split, self.sample = separation, split, sample
        self.hash, self.source = found.hash, found.source
        self._rows, self._items, self._others = found.rows, found.items, found.others
        self._index: list[tuple[str, str]] = []
        asked: set[str] = set()
        undescribed: set[str] = set()
        repeating = []
        for row in self._rows:
            self._index.append((name_of(row.user_id, row.data), row.user_id))
            asked.add(row.data.asin)
            seen = [review.asin for review in row.profile]
            if len({*seen, row.data.asin}) <= len(seen):
                repeating.append(row.user_id)
            undescribed |= {asin for asin in (row.data.asin, *seen) if asin not in self._items}
        if not self._index:
            raise DataError(f"{found.place}: no rows in it")
        ids = [each for each, _ in self._index]
        if repeated := compare_ids(ids, ids).repeated:
            raise DataError(
                f"{found.place}: a user's review of an item occurs more than once: {few(repeated)}"
            )
        warnings = list(found.warnings)
        if undescribed and not self._items:
            warnings.append(
                "nothing is known of the items but their keys: reviews are asked for by rating and title"
            )
        elif undescribed:
            warnings.append(f"{few(sorted(undescribed))} items have no title or description")
        if repeating:
            warnings.append(f"{few(repeating)} users have more than one review of an item")
        self.warnings = tuple(warnings)

    def index(self) -> Sequence[tuple[str, str]]:
        return self._index

    def load(self, position: int) -> Sample:
        row = self._rows[position]
        target, stimulus = row.data, self._stimulus(row.data.asin)
        attributes = {"rating": rating_of(target), "review_title": target.title}
        return Sample(
            id=name_of(row.user_id, target),
            user_id=row.user_id,
            input=request(stimulus, attributes),
            stimulus=stimulus,
            history=self._history(row),
            references=(target.text,),
            attributes=attributes,
            time=iso(target.timestamp),
            item=target.asin,
        )

    def population(self) -> Iterator[User]:
        """See `Dataset`; whoever is there only to compare with comes last."""
        yield from super().population()
        for row in self._others:
            yield User(row.user_id, self._history(row))

    def _history(self, row: Row) -> tuple[Record, ...]:
        records = [self._record(row.user_id, review) for review in row.profile]
        return tuple(sorted(records, key=lambda record: record.time or ""))

    def _record(self, user_id: str, review: Review) -> Record:
        return Record(
            id=name_of(user_id, review),
            stimulus=self._stimulus(review.asin),
            response=review.text,
            time=iso(review.timestamp),
            item=review.asin,
            fields={"rating": rating_of(review), "review_title": review.title},
        )

    def _stimulus(self, asin: str) -> str | None:
        item = self._items.get(asin)
        return None if item is None else item.text


def name_of(user_id: str, review: Review) -> str:
    """The id of a user's review, in a history and as a question."""
    return f"{user_id}-{review.asin}"


def rating_of(review: Review) -> str:
    """A rating as people write it: 4, 4.5."""
    return f"{review.rating:g}"


def iso(timestamp: int | float | str) -> str:
    """A time in ISO form, UTC, sortable as text; a bare date where it is midnight.

    Raises:
        ValueError: neither a number of seconds or milliseconds nor an ISO date.
    """
    try:
        number = float(timestamp)
    except ValueError:
        moment = datetime.datetime.fromisoformat(str(timestamp))
        return _written(moment if moment.tzinfo is None else moment.astimezone(datetime.UTC))
    seconds = number / 1000 if abs(number) >= _MILLISECONDS else number
    return _written(datetime.datetime.fromtimestamp(seconds, datetime.UTC))


def _written(moment: datetime.datetime) -> str:
    if moment.time() == datetime.time():
        return moment.date().isoformat()
    return moment.replace(tzinfo=None).isoformat(
        timespec="milliseconds" if moment.microsecond else "seconds"
    )
