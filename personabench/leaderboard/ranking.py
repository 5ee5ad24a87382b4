"""The order of a board: settings apart, and within one its rows by score, as far as they rank.

Rows of different settings (of two models, say) were measured under different conditions, so no
order joins them. Within a setting, a row of few users, or of far fewer samples than most rows,
may lead by chance: it comes below the others and leads nothing.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from personabench.leaderboard.estimates import MIN_USERS
from personabench.leaderboard.rows import Entry, conditions, is_imported, shorten_digest

# A row with less than this share of the samples that most rows of its setting have does not rank.
# Of the cost frontier, the share of the samples that a row may at most take from the others.
COMMON_SHARE = 0.5

Score = Callable[[Entry], float | None]


@dataclass(frozen=True)
class Group:
    """The entries of one setting.

    Attributes:
        heading: the model, and what else tells the setting from others of the board.
        entries: best first, then those without a rank.
    """

    heading: str
    setting: str
    entries: Sequence[Entry]


def rank(entries: Sequence[Entry], score: Score, higher: bool) -> list[Group]:
    """Group entries by setting and order those of each; groups come in the order of headings.

    Args:
        score: the primary metric of an entry; None without one.
        higher: whether a higher score is better.
    """
    members: dict[str, list[Entry]] = {}
    for entry in entries:
        members.setdefault(entry.setting, []).append(entry)

    def place(entry: Entry) -> tuple[bool, bool, float, str]:
        value = score(entry)
        if value is None:
            return True, True, 0.0, entry.label
        return False, bool(entry.unranked), -value if higher else value, entry.label

    groups = []
    for setting, heading in _headings(members).items():
        ordered = sorted(_mark_unranked(members[setting], score), key=place)
        groups.append(Group(heading, setting, ordered))
    return sorted(groups, key=lambda group: (group.heading, group.setting))


def _mark_unranked(entries: Sequence[Entry], score: Score) -> list[Entry]:
    """Note which entries of a setting do not rank, and why."""
    sizes = Counter(entry.summary.n for entry in entries if score(entry) is not None)
    common = max(sizes, key=lambda n: (sizes[n], n), default=0)
    marked = []
    for entry in entries:
        reason = "no score" if score(entry) is None else _explain_no_rank(entry, common)
        marked.append(dataclasses.replace(entry, unranked=reason))
    return marked


def _explain_no_rank(entry: Entry, common: int) -> str:
    summary = entry.summary
    if summary.users < MIN_USERS:
        return f"fewer than {MIN_USERS} users, too few for an interval"
    if summary.n < COMMON_SHARE * common:
        return f"fewer than half of the {common} samples that most rows have"
    return ""


def _headings(members: Mapping[str, Sequence[Entry]]) -> dict[str, str]:
    """Name each setting by its model, and by what differs between settings of the same model."""
    facts = {setting: _flatten(_typical(entries)) for setting, entries in members.items()}
    headings = {}
    for setting, entries in members.items():
        model = entries[0].summary.model
        peers = [facts[peer] for peer in members if members[peer][0].summary.model == model]
        parts = [model]
        for name, value in facts[setting].items():
            if any(peer.get(name) != value for peer in peers):
                parts.append(f"{name} {value}")
        headings[setting] = " · ".join(parts)
    return headings


def _typical(entries: Sequence[Entry]) -> Entry:
    """An entry whose run knows its setting: of imported answers only the model's name is known."""
    return next((entry for entry in entries if not is_imported(entry.first)), entries[0])


def _flatten(entry: Entry) -> dict[str, str]:
    """The conditions of an entry on one level, as texts; those without a value are left out."""
    flat: dict[str, str] = {}
    for name, value in conditions(entry.first).items():
        parts: Mapping[str, Any] = value if isinstance(value, Mapping) else {"": value}
        for key, part in parts.items():
            # The parts of a model, of the decoding and of a task are known by their own names.
            is_known = name in ("model", "sampling", "task_params")
            full = key if is_known and key else ".".join(filter(None, (name, key)))
            if part is not None:
                flat[full] = shorten_digest(part)
    return flat
