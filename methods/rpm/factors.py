"""Features into factors: the model groups, and whatever it leaves undone is repaired by fixed rules.

There is no distance and no number of clusters.  An id listed twice stays with its first factor, an unlisted one goes
to the factor whose words overlap most with its own (ties to the earlier factor, no overlap to "other"), empty factors
are dropped and ids that do not exist are ignored; every repair is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from personabench import Context
from personabench.methods.rpm import prompts
from personabench.methods.rpm.knowledge import Factor, Feature
from personabench.methods.rpm.replies import allowance, ask, number_of, rows, words_of


class Group(NamedTuple):
    """A factor as a reply states it: name, description and the ids it claims, existing or not."""

    name: str
    description: str
    ids: tuple[int, ...]


class Repaired(NamedTuple):
    """Groups in which every id stands once, none of them empty; and what had to be repaired."""

    groups: list[Group]
    duplicates: int
    unassigned: int


def repair(groups: Iterable[Group], texts: Mapping[int, str]) -> Repaired:
    """Groups over exactly the ids of `texts`, which gives each id's words; groups of one name are one group."""
    members: dict[str, list[int]] = {}
    stated: dict[str, Group] = {}
    taken: set[int] = set()
    duplicates = 0
    for group in groups:
        key = _folded(group.name)
        stated.setdefault(key, group)
        kept = members.setdefault(key, [])
        for number in group.ids:
            if number in taken:
                duplicates += 1
            elif number in texts:
                taken.add(number)
                kept.append(number)
    members = {key: kept for key, kept in members.items() if kept}
    vocabulary = {
        key: _tokens(
            " ".join(
                [stated[key].name, stated[key].description, *(texts[number] for number in kept)]
            )
        )
        for key, kept in members.items()
    }
    unlisted = [number for number in texts if number not in taken]
    for number in unlisted:
        own = _tokens(texts[number])
        best = max(vocabulary, key=lambda key: len(own & vocabulary[key]), default="")
        if not best or not own & vocabulary[best]:
            best = "other"
            stated.setdefault(best, Group("other", "features that fit no other factor", ()))
        members.setdefault(best, []).append(number)
    done = [
        Group(stated[key].name, stated[key].description, tuple(kept))
        for key, kept in members.items()
    ]
    return Repaired(done, duplicates, len(unlisted))


async def grouped(
    features: Sequence[Feature], *, batch: int, most: int, max_tokens: int, ctx: Context
) -> list[Factor]:
    """Factors over all features of a user; sets each feature's `factor`.

    Calls: one per `batch` features, one more when there are more than `most` factors.  Flags: `n_factors`,
    `n_duplicate_ids`, `n_unassigned`, `cluster_failed`, `degraded` when features had to do without the model.
    """
    numbered = list(enumerate(features, 1))
    found: list[Group] = []
    answered = not numbered
    while numbered:
        part = _fitting(numbered[:batch], found, max_tokens, ctx)
        numbered = numbered[len(part) :]
        messages = prompts.clusters(part, _factors(found), ctx.task.words)
        reply = await ask(
            "cluster",
            [messages],
            _groups,
            ctx,
            max_tokens=max_tokens,
            schema=prompts.clusters_schema(),
        )
        if reply is None:
            ctx.flag("degraded")
            continue
        offered = {number for number, _ in part}
        answered = True
        stated = [
            Group(name, about, tuple(filter(offered.__contains__, ids)))
            for name, about, ids in reply
        ]
        found += [group for group in stated if group.ids]
    if not answered:
        found = [Group("all", "everything that was noticed", tuple(range(1, len(features) + 1)))]
    done = repair(found, {number: feature.text for number, feature in enumerate(features, 1)})
    groups = done.groups
    for name, count in (("n_duplicate_ids", done.duplicates), ("n_unassigned", done.unassigned)):
        if count:
            ctx.flag(name, count)
    if len(groups) > most:
        groups = await _merged(groups, most, max_tokens, ctx)
    ctx.flag("n_factors", len(groups))
    for position, group in enumerate(groups):
        for number in group.ids:
            features[number - 1].factor = position
    return _factors(groups)


def _fitting(
    part: list[tuple[int, Feature]], found: Sequence[Group], max_tokens: int, ctx: Context
) -> list[tuple[int, Feature]]:
    limit = allowance(max_tokens, ctx)
    while (
        len(part) > 1
        and ctx.excess(prompts.clusters(part, _factors(found), ctx.task.words), limit) > 0
    ):
        part = part[: len(part) // 2]
        ctx.flag("cluster_batch_halved")
    return part


async def _merged(groups: list[Group], most: int, max_tokens: int, ctx: Context) -> list[Group]:
    messages = prompts.merged(_factors(groups), most, ctx.task.words)
    reply = await ask(
        "merge", [messages], _groups, ctx, max_tokens=max_tokens, schema=prompts.clusters_schema()
    )
    if reply is None:
        return groups
    fewer: list[Group] = []
    left = dict(enumerate(groups, 1))
    for name, about, ids in reply:
        parts = [left.pop(number) for number in ids if number in left]
        if parts:
            fewer.append(Group(name, about, tuple(number for part in parts for number in part.ids)))
    fewer += left.values()
    numbers = {number: "" for group in groups for number in group.ids}
    fewer = repair(fewer, numbers).groups
    if len(fewer) > most:
        ctx.flag("factors_over_cap", len(fewer) - most)
    return fewer


def _groups(text: str) -> list[Group] | None:
    listed = rows(text, "factors")
    if listed is None:
        return None
    groups = [
        Group(
            words_of(row.get("factor") or row.get("name")),
            words_of(row.get("description")),
            _ids(row.get("ids")),
        )
        for row in listed
    ]
    return [group for group in groups if group.name] or None


def _ids(value: Any) -> tuple[int, ...]:
    listed = value if isinstance(value, list) else []
    return tuple(number for number in map(number_of, listed) if number is not None)


def _factors(groups: Sequence[Group]) -> list[Factor]:
    first: dict[str, Factor] = {}
    for group in groups:
        first.setdefault(_folded(group.name), Factor(group.name, group.description))
    return list(first.values())


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())


def _tokens(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))
