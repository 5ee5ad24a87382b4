"""Making the benchmark's splits from any table of reviews, by the rules DPL's authors used on Amazon Reviews 2023.

Complete reviews of enough length, of items that are described; items with enough reviewers and users with enough
reviews, to a fixpoint; each user's last reviews are kept as questions, and the earlier ones must again be on items
that enough people reviewed, to a fixpoint.  Every bound is an option, since smaller tables need smaller ones.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from personabench.errors import DataError, UsageError
from personabench.hashing import digest_files
from personabench.tasks.reviews.records import Item, Review, Row, Rows
from personabench.tasks.reviews.tables import find, read_items, read_reviews

_SPACE = re.compile(r"\s+")
_SMALLER = " ".join(
    f"--set task.{option}"
    for option in (
        "min_chars=1",
        "item_reviewers=5",
        "min_reviews=2",
        "inputs=1",
        "base_reviews=1",
        "asked_reviews=5",
    )
)
Written = dict[str, list[Review]]


@dataclasses.dataclass(frozen=True)
class Rules:
    """Bounds of the construction.

    min_chars: characters a review has at least, before white space is collapsed.
    min_description, max_description: characters of an item's description; not asked where no item has one.
    item_reviewers: people who reviewed an item, at least.
    min_reviews, max_reviews: reviews of a user.
    inputs: a user's last reviews, kept as questions: test is the last, val the one before.
    base_reviewers: people with an item among their earlier reviews; base_reviews: a user's earlier reviews, at least.
    asked_reviews: earlier reviews of a user who is asked about; users with fewer are only there to compare with.
    """

    min_chars: int = 200
    min_description: int = 100
    max_description: int = 2000
    item_reviewers: int = 8
    min_reviews: int = 18
    max_reviews: int = 500
    inputs: int = 10
    base_reviewers: int = 5
    base_reviews: int = 8
    asked_reviews: int = 0

    def __post_init__(self) -> None:
        low = [field.name for field in dataclasses.fields(Rules) if getattr(self, field.name) < 0]
        if low or self.inputs < 1:
            raise ValueError(f"{low[0] if low else 'inputs'} must be at least {0 if low else 1}")
        if self.min_reviews <= self.inputs:
            raise ValueError(
                "min_reviews must exceed inputs: a user needs reviews before the questions"
            )


def read(data: Path, split: str, rules: Rules) -> Rows:
    """A split of the table of reviews in a folder.

    Raises:
        UsageError: `inputs` leaves no review for the split.
        DataError: no table, a broken one, or one of which the rules leave nobody; the message counts what each left.
    """
    table, described = find(data)
    if split == "val" and rules.inputs < 2:
        raise UsageError(
            "the split val is each user's last question but one: it needs --set task.inputs=2 or more"
        )
    reviews, counted = read_reviews(table)
    items = read_items(described) if described else {}
    items |= counted.items
    left = [f"{counted.rows} rows", f"{sum(map(len, reviews.values()))} complete"]

    def note(what: str, users: Mapping[str, Sequence[Review]]) -> None:
        left.append(f"{sum(map(len, users.values()))} by {len(users)} users {what}")

    kept = _long_enough(reviews, items, rules)
    note(f"of {rules.min_chars} characters or more", kept)
    kept = _dense(_distinct(kept), rules)
    note(
        f"with {rules.item_reviewers} reviewers an item and {rules.min_reviews} to {rules.max_reviews} a user",
        kept,
    )
    split_up = _split_up(kept, rules)
    bounds = f"{rules.base_reviewers} reviewers an item and {rules.base_reviews} a user"
    note(
        f"before the last {rules.inputs}, with {bounds}",
        {user: base for user, (base, _) in split_up.items()},
    )
    last = 1 if split == "test" else 2
    rows = [
        Row(user, [*base, *inputs[:-last]], inputs[-last])
        for user, (base, inputs) in split_up.items()
    ]
    asked = [row for row in rows if len(row.profile) >= rules.asked_reviews]
    if not asked:
        raise DataError(
            f"{table}: the construction rules leave nobody to ask about: {'; '.join(left)}. They are made for large "
            f"tables; lower them, for example {_SMALLER}"
        )
    files = [table, *([described] if described else [])]
    lacking = f"{counted.incomplete} of {counted.rows} rows lack a field and are left out"
    return Rows(
        asked,
        items,
        str(table),
        digest_files(files),
        f"{table}, {len(asked)} of {len(rows)} users asked about",
        (lacking,) if counted.incomplete else (),
        tuple(row for row in rows if len(row.profile) < rules.asked_reviews),
    )


def _long_enough(reviews: Written, items: Mapping[str, Item], rules: Rules) -> Written:
    asked = any(item.description for item in items.values())

    def fits(asin: str) -> bool:
        item = items.get(asin)
        return not asked or (
            item is not None
            and rules.min_description <= len(item.description) <= rules.max_description
        )

    return _filtered(
        reviews, lambda user, review: len(review.text) >= rules.min_chars and fits(review.asin)
    )


def _distinct(reviews: Written) -> Written:
    """Each user's reviews oldest first, the newest of those on one item or of one text; white space collapsed."""
    found: Written = {}
    for user, written in reviews.items():
        items: set[str] = set()
        texts: set[str] = set()
        kept = []
        for review in sorted(written, key=_time, reverse=True):
            text = _SPACE.sub(" ", review.text).strip()
            if review.asin not in items and text not in texts:
                kept.append(
                    Review(review.asin, review.rating, review.title, text, review.timestamp)
                )
                items.add(review.asin)
                texts.add(text)
        found[user] = kept[::-1]
    return found


def _dense(reviews: Written, rules: Rules) -> Written:
    while True:
        people = _reviewers(reviews.values())
        kept = {
            user: [review for review in written if people[review.asin] >= rules.item_reviewers]
            for user, written in reviews.items()
            if rules.min_reviews <= len(written) <= rules.max_reviews
        }
        if kept == reviews:
            return kept
        reviews = kept


def _split_up(reviews: Written, rules: Rules) -> dict[str, tuple[list[Review], list[Review]]]:
    """Each user's earlier reviews and last ones."""
    base = {user: written[: -rules.inputs] for user, written in reviews.items()}
    while True:
        people = _reviewers(base.values())
        kept = {
            user: [review for review in written if people[review.asin] >= rules.base_reviewers]
            for user, written in base.items()
        }
        kept = {
            user: written for user, written in kept.items() if len(written) >= rules.base_reviews
        }
        if kept == base:
            return {
                user: (written, reviews[user][-rules.inputs :]) for user, written in kept.items()
            }
        base = kept


def _reviewers(written: Iterable[Sequence[Review]]) -> Counter[str]:
    return Counter(asin for reviews in written for asin in {review.asin for review in reviews})


def _filtered(reviews: Written, keep: Callable[[str, Review], bool]) -> Written:
    found: Written = defaultdict(list)
    for user, written in reviews.items():
        for review in written:
            if keep(user, review):
                found[user].append(review)
    return dict(found)


def _time(review: Review) -> float:
    return float(review.timestamp)
