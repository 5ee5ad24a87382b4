"""Group features into factors: the model groups, and fixed rules repair the rest.

There is no distance and no number of clusters.  An id listed twice stays with its first factor, an
unlisted one goes to the factor whose words overlap most with its own (ties to the earlier factor,
no overlap to "other"), empty factors are dropped and ids that do not exist are ignored; every
repair is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from personabench import Context
from personabench.hashing import fold_text
from personabench.methods.parsed_reply import limit_reply
from personabench.methods.rpm import prompts
from personabench.methods.rpm.knowledge import Factor, Feature
from personabench.methods.rpm.replies import (
    read_rows,
    request_parsed,
    to_line,
    to_whole_number,
)

# A feature with its number in the prompts.
Numbered = tuple[int, Feature]


class Group(NamedTuple):
    """A factor as a reply states it: name, description and the ids it claims, existing or not."""

    name: str
    description: str
    ids: tuple[int, ...]


class RepairedGroups(NamedTuple):
    """Groups that hold every id once, none of them empty, and the number of repairs."""

    groups: list[Group]
    duplicates: int
    unassigned: int


def repair_groups(groups: Iterable[Group], texts: Mapping[int, str]) -> RepairedGroups:
    """Groups over exactly the ids of `texts`; groups of the same name are merged."""
    members: dict[str, list[int]] = {}
    first_groups: dict[str, Group] = {}
    assigned: set[int] = set()
    duplicates = 0
    for group in groups:
        key = fold_text(group.name)
        first_groups.setdefault(key, group)
        ids = members.setdefault(key, [])
        for number in group.ids:
            if number in assigned:
                duplicates += 1
            elif number in texts:
                assigned.add(number)
                ids.append(number)
    members = {key: ids for key, ids in members.items() if ids}

    vocabulary = {}
    for key, ids in members.items():
        group = first_groups[key]
        words = [
            group.name,
            group.description,
            *(texts[number] for number in ids),
        ]
        vocabulary[key] = _tokens(" ".join(words))

    unlisted = [number for number in texts if number not in assigned]
    for number in unlisted:
        tokens = _tokens(texts[number])
        best = max(
            vocabulary,
            key=lambda key: len(tokens & vocabulary[key]),
            default="",
        )
        if not best or not tokens & vocabulary[best]:
            best = "other"
            other = Group("other", "features that fit no other factor", ())
            first_groups.setdefault(best, other)
        members.setdefault(best, []).append(number)

    repaired = [first_groups[key]._replace(ids=tuple(ids)) for key, ids in members.items()]
    return RepairedGroups(repaired, duplicates, len(unlisted))


async def group_features(
    features: Sequence[Feature],
    *,
    batch: int,
    most: int,
    max_tokens: int,
    tries: int,
    ctx: Context,
) -> list[Factor]:
    """Factors over all features of a user; sets each feature's `factor`.

    Calls: one per `batch` features, one more if there are more than `most` factors.  Flags:
    `n_factors`, `n_duplicate_ids`, `n_unassigned`, `cluster_failed`, `degraded` if some features
    were grouped without the model.
    """
    stated = await _request_groups(features, batch, max_tokens, tries, ctx)
    texts = {number: feature.text for number, feature in enumerate(features, 1)}
    repaired = repair_groups(stated, texts)
    if repaired.duplicates:
        ctx.flag("n_duplicate_ids", repaired.duplicates)
    if repaired.unassigned:
        ctx.flag("n_unassigned", repaired.unassigned)

    groups = repaired.groups
    if len(groups) > most:
        groups = await _merge_groups(groups, most, max_tokens, tries, ctx)
    ctx.flag("n_factors", len(groups))

    for index, group in enumerate(groups):
        for number in group.ids:
            features[number - 1].factor = index
    return _factors_of(groups)


async def _request_groups(
    features: Sequence[Feature],
    batch: int,
    max_tokens: int,
    tries: int,
    ctx: Context,
) -> list[Group]:
    """The groups of all batches; a single one of everything if no batch was answered."""
    remaining = list(enumerate(features, 1))
    groups: list[Group] = []
    answered = not remaining
    # One after the other, because each batch reuses the names of the factors before it.
    while remaining:
        part = _fit_batch(remaining[:batch], groups, max_tokens, ctx)
        remaining = remaining[len(part) :]
        reply = await request_parsed(
            "cluster",
            [prompts.clusters(part, _factors_of(groups), ctx)],
            _read_groups,
            ctx,
            max_tokens=max_tokens,
            tries=tries,
            schema=prompts.clusters_schema(),
        )
        if reply is None:
            ctx.flag("degraded")
            continue

        answered = True
        numbers = {number for number, _ in part}
        for group in reply:
            ids = tuple(number for number in group.ids if number in numbers)
            if ids:
                groups.append(group._replace(ids=ids))

    if not answered:
        everything = tuple(range(1, len(features) + 1))
        return [Group("all", "everything that was noticed", everything)]
    return groups


def _fit_batch(
    part: list[Numbered],
    groups: Sequence[Group],
    max_tokens: int,
    ctx: Context,
) -> list[Numbered]:
    """The first features of a batch, halved until the request fits the window."""
    limit = limit_reply(max_tokens, ctx)
    factors = _factors_of(groups)
    while len(part) > 1:
        messages = prompts.clusters(part, factors, ctx)
        if ctx.count_excess_tokens(messages, limit) <= 0:
            break
        part = part[: len(part) // 2]
        ctx.flag("cluster_batch_halved")
    return part


async def _merge_groups(
    groups: list[Group],
    most: int,
    max_tokens: int,
    tries: int,
    ctx: Context,
) -> list[Group]:
    """At most `most` groups, if the reply gets there; groups it does not list are kept."""
    messages = prompts.merged(_factors_of(groups), most, ctx)
    reply = await request_parsed(
        "merge",
        [messages],
        _read_groups,
        ctx,
        max_tokens=max_tokens,
        tries=tries,
        schema=prompts.clusters_schema(),
    )
    if reply is None:
        return groups

    merged: list[Group] = []
    unlisted = dict(enumerate(groups, 1))
    for name, description, group_numbers in reply:
        parts = [unlisted.pop(number) for number in group_numbers if number in unlisted]
        if parts:
            ids = tuple(number for part in parts for number in part.ids)
            merged.append(Group(name, description, ids))
    merged += unlisted.values()

    # Every id is listed here, so that the texts, which place unlisted ones, are not needed.
    texts = {number: "" for group in groups for number in group.ids}
    merged = repair_groups(merged, texts).groups
    if len(merged) > most:
        ctx.flag("factors_over_cap", len(merged) - most)
    return merged


def _read_groups(text: str) -> list[Group] | None:
    listed = read_rows(text, "factors")
    if listed is None:
        return None
    groups = []
    for row in listed:
        name = to_line(row.get("factor") or row.get("name"))
        if name:
            ids = _read_ids(row.get("ids"))
            groups.append(Group(name, to_line(row.get("description")), ids))
    return groups or None


def _read_ids(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        return ()
    numbers = map(to_whole_number, value)
    return tuple(number for number in numbers if number is not None)


def _factors_of(groups: Sequence[Group]) -> list[Factor]:
    """The factors of some groups, one per name."""
    factors: dict[str, Factor] = {}
    for group in groups:
        factors.setdefault(fold_text(group.name), Factor(group.name, group.description))
    return list(factors.values())


def _tokens(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))
