"""Construction of the benchmark's splits from a table of reviews, by the rules of DPL's authors.

Kept are complete reviews of sufficient length, of items with a description; then items with enough
reviewers and users with enough reviews, to a fixpoint. Each user's last reviews become questions,
and the earlier ones must again be of items that enough users reviewed, to a fixpoint. The authors
applied the rules to Amazon Reviews 2023. Every bound is an option, since smaller tables need
smaller ones.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from personabench.errors import DataError, UsageError
from personabench.tasks.reviews.records import Item, Review, Row, Rows
from personabench.tasks.reviews.tables import find_tables, read_items, read_reviews

_SPACE = re.compile(r"\s+")
# Bounds that suit tables of a few dozen users, for the error message.
_SMALLER_BOUNDS = (
    "min_chars=1",
    "item_reviewers=5",
    "min_reviews=2",
    "inputs=1",
    "base_reviews=1",
    "asked_reviews=5",
)
# Reviews by user id.
Reviews = Mapping[str, list[Review]]


@dataclasses.dataclass(frozen=True)
class Rules:
    """Bounds of the construction.

    min_chars: minimum length of a review in characters, before white space is collapsed.
    min_description, max_description: length of an item's description in characters; ignored if no
        item has one.
    item_reviewers: minimum number of users who reviewed an item.
    min_reviews, max_reviews: number of a user's reviews.
    inputs: number of a user's last reviews that become questions: test is the last, val the one
        before.
    base_reviewers: minimum number of users with an item among their earlier reviews.
    base_reviews: minimum number of a user's earlier reviews.
    asked_reviews: minimum number of earlier reviews of a user with a question; users with fewer
        serve as peers only.
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
        for field in dataclasses.fields(Rules):
            if getattr(self, field.name) < 0:
                raise ValueError(f"{field.name} must be at least 0")
        if self.inputs < 1:
            raise ValueError("inputs must be at least 1")
        if self.min_reviews <= self.inputs:
            raise ValueError(
                "min_reviews must exceed inputs: a user needs reviews before the questions"
            )


def construct_split(data: Path, split: str, rules: Rules) -> Rows:
    """Construct a split from the table of reviews in a folder.

    Raises:
        UsageError: `inputs` leaves no review for the split.
        DataError: the table is missing or broken, or the rules exclude every user; the message
            counts the reviews left after each rule.
    """
    path, items_path = find_tables(data)
    if split == "val" and rules.inputs < 2:
        raise UsageError(
            "the split val is each user's second-last question: "
            "it needs --set task.inputs=2 or more"
        )

    table = read_reviews(path)
    items = read_items(items_path) if items_path else {}
    items |= table.items
    complete = sum(map(len, table.reviews.values()))
    steps = [f"{table.rows} rows", f"{complete} complete"]

    base, inputs = _apply_rules(table.reviews, items, rules, steps)
    rows = _make_rows(base, inputs, split)
    questions = [row for row in rows if len(row.profile) >= rules.asked_reviews]
    if not questions:
        example = " ".join(f"--set task.{bound}" for bound in _SMALLER_BOUNDS)
        raise DataError(
            f"{path}: the construction rules exclude every user: {'; '.join(steps)}. They are "
            f"made for large tables; lower them, for example {example}"
        )

    warnings: tuple[str, ...] = ()
    if table.incomplete:
        warnings = (f"{table.incomplete} of {table.rows} rows lack a field and are left out",)
    return Rows(
        rows=questions,
        items=items,
        origin=str(path),
        source=f"{path}, {len(questions)} of {len(rows)} users asked about",
        warnings=warnings,
        peers=tuple(row for row in rows if len(row.profile) < rules.asked_reviews),
    )


def _make_rows(base: Reviews, inputs: Reviews, split: str) -> list[Row]:
    # test asks for a user's last review, val for the one before it.
    skipped = 0 if split == "test" else 1
    rows = []
    for user_id, earlier in base.items():
        last = inputs[user_id]
        # Last reviews before the question belong to the history.
        *between, question = last[: len(last) - skipped]
        rows.append(Row(user_id, [*earlier, *between], question))
    return rows


def _apply_rules(
    reviews: Reviews,
    items: Mapping[str, Item],
    rules: Rules,
    steps: list[str],
) -> tuple[Reviews, Reviews]:
    """Return each user's earlier reviews and last reviews; adds the counts of each step."""

    def report(rule: str, remaining: Reviews) -> None:
        count = sum(map(len, remaining.values()))
        steps.append(f"{count} by {len(remaining)} users {rule}")

    reviews = _select_long(reviews, items, rules)
    report(f"of {rules.min_chars} characters or more", reviews)

    reviews = _select_dense(_remove_duplicates(reviews), rules)
    report(
        f"with {rules.item_reviewers} reviewers per item and "
        f"{rules.min_reviews} to {rules.max_reviews} per user",
        reviews,
    )

    base = _select_base(reviews, rules)
    report(
        f"before the last {rules.inputs}, with {rules.base_reviewers} reviewers per item and "
        f"{rules.base_reviews} per user",
        base,
    )
    inputs = {user_id: reviews[user_id][-rules.inputs :] for user_id in base}
    return base, inputs


def _select_long(reviews: Reviews, items: Mapping[str, Item], rules: Rules) -> Reviews:
    # Tables without any description would lose all reviews.
    needs_description = any(item.description for item in items.values())

    def is_selected(review: Review) -> bool:
        if len(review.text) < rules.min_chars:
            return False
        if not needs_description:
            return True
        item = items.get(review.asin)
        if item is None:
            return False
        return rules.min_description <= len(item.description) <= rules.max_description

    selected: dict[str, list[Review]] = {}
    for user_id, group in reviews.items():
        kept_reviews = [review for review in group if is_selected(review)]
        if kept_reviews:
            selected[user_id] = kept_reviews
    return selected


def _remove_duplicates(reviews: Reviews) -> Reviews:
    """Sort each user's reviews by time, with one review per item and per text, the newest."""
    return {user_id: _remove_user_duplicates(group) for user_id, group in reviews.items()}


def _remove_user_duplicates(reviews: list[Review]) -> list[Review]:
    newest_first = sorted(reviews, key=_sort_time, reverse=True)
    items: set[str] = set()
    texts: set[str] = set()
    unique = []
    for review in newest_first:
        # Copies of a text may differ in white space only.
        text = _SPACE.sub(" ", review.text).strip()
        if review.asin in items or text in texts:
            continue
        unique.append(msgspec.structs.replace(review, text=text))
        items.add(review.asin)
        texts.add(text)
    unique.reverse()
    return unique


def _select_dense(reviews: Reviews, rules: Rules) -> Reviews:
    # Removing a user takes reviewers from items and the reverse, so the rule repeats to a fixpoint.
    while True:
        reviewers = _count_reviewers(reviews.values())
        selected = {
            user_id: _select_reviewed(group, reviewers, rules.item_reviewers)
            for user_id, group in reviews.items()
            if rules.min_reviews <= len(group) <= rules.max_reviews
        }
        if selected == reviews:
            return selected
        reviews = selected


def _select_base(reviews: Reviews, rules: Rules) -> Reviews:
    """Select each user's reviews before the last ones, to a fixpoint."""
    base = {user_id: group[: -rules.inputs] for user_id, group in reviews.items()}
    while True:
        reviewers = _count_reviewers(base.values())
        selected = {}
        for user_id, group in base.items():
            remaining = _select_reviewed(group, reviewers, rules.base_reviewers)
            if len(remaining) >= rules.base_reviews:
                selected[user_id] = remaining
        if selected == base:
            return selected
        base = selected


def _select_reviewed(
    reviews: list[Review],
    reviewers: Mapping[str, int],
    minimum: int,
) -> list[Review]:
    return [review for review in reviews if reviewers[review.asin] >= minimum]


def _count_reviewers(groups: Iterable[Sequence[Review]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for reviews in groups:
        counts.update({review.asin for review in reviews})
    return counts


def _sort_time(review: Review) -> float:
    return float(review.timestamp)
