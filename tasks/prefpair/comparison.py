"""A comparison of a data set, and the samples that are made of it, one for each order."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from personabench.errors import DataError
from personabench.types import Record, Sample, normalized

Orders = Literal[1, 2]
MIN_OTHERS = 5
"""Other users who have to judge the same responses before their majority counts."""


class Comparison(NamedTuple):
    """Responses to one prompt, and the one that a user prefers.

    Attributes:
        id: of the comparison, unique in the split.
        responses: two or more, the preferred one first.
        dialogue: the conversation before the prompt, as text.
        history: the user's records that are visible, oldest first.
        profile: the user's own statements about themself.
        majority: the response that most other users prefer, or would; empty if unknown.
        hidden: further facts for metrics.
        location: file and row, for messages.
    """

    id: str
    user_id: str
    prompt: str
    responses: tuple[str, ...]
    history: tuple[Record, ...]
    dialogue: str = ""
    profile: str = ""
    time: str | None = None
    majority: str = ""
    hidden: Mapping[str, str] = {}
    location: str = ""


def make_samples(comparison: Comparison, orders: Orders, shows_profile: bool) -> Iterator[Sample]:
    """Yield the samples of a comparison: one in an order drawn from its id, one in the reverse.

    Raises:
        DataError: two of its responses are the same text.
    """
    if len(set(comparison.responses)) < len(comparison.responses):
        raise DataError(
            f"{comparison.location}: two responses are the same text, so that none is preferred; "
            "remove the comparison"
        )

    # Sorted first, so that the order of the data says nothing about the preferred one.
    choices = sorted(comparison.responses)
    random.Random(f"prefpair\x1f{comparison.id}").shuffle(choices)
    for order in range(orders):
        hidden = {
            **comparison.hidden,
            "comparison": comparison.id,
            "order": str(order),
            "orders": str(orders),
        }
        if comparison.majority:
            hidden["population_majority"] = comparison.majority
        yield Sample(
            f"{comparison.id}-{order + 1}",
            user_id=comparison.user_id,
            input=_word_input(comparison, shows_profile),
            stimulus=comparison.prompt,
            history=comparison.history,
            references=comparison.responses[:1],
            choices=tuple(choices if order == 0 else reversed(choices)),
            time=comparison.time,
            hidden=hidden,
        )


def _word_input(comparison: Comparison, shows_profile: bool) -> str:
    parts = []
    if shows_profile and comparison.profile:
        parts.append(f"The user says about themself:\n{comparison.profile}")
    if comparison.dialogue:
        parts.append(f"The conversation so far:\n{comparison.dialogue}")
    parts.append(f"The user writes:\n{comparison.prompt}")
    return "\n\n".join(parts)


def drop_own_prompt(prompt: str, history: Sequence[Record]) -> tuple[tuple[Record, ...], int]:
    """Return the records of other prompts, and the number of those of the same prompt."""
    own = normalized(prompt)
    kept = tuple(record for record in history if normalized(record.stimulus or "") != own)
    return kept, len(history) - len(kept)


def mark_disagreement(comparisons: Sequence[Comparison]) -> Iterator[Comparison]:
    """Add the preferences of the other users to comparisons that many users judged.

    Two users judged the same if prompt, conversation and responses are the same.  With at least
    `MIN_OTHERS` other users, `majority` is the response that most of them prefer, unless several
    are; `departs` marks a user who prefers another one, and `disagreement` and `side` name the
    group and the user's side in it.
    """
    groups: dict[str, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        groups[_group_key(comparison)].append(comparison)
    preferences = {key: _preferences_by_user(group) for key, group in groups.items()}

    for comparison in comparisons:
        key = _group_key(comparison)
        others = {
            user: text for user, text in preferences[key].items() if user != comparison.user_id
        }
        if len(others) < MIN_OTHERS:
            yield comparison
            continue

        majority = find_majority(list(others.values()))
        hidden = {
            **comparison.hidden,
            "disagreement": key,
            "side": comparison.responses[0],
        }
        if majority and majority != comparison.responses[0]:
            hidden["departs"] = "yes"
        yield comparison._replace(majority=majority, hidden=hidden)


class Agreement:
    """How often users agree who judged the same responses to the same prompt.

    Keeps a hash of each preference, since data sets have hundreds of thousands.
    """

    def __init__(self) -> None:
        self._preferences: dict[int, dict[str, int]] = defaultdict(dict)

    def add(self, comparison: Comparison) -> None:
        """Count a comparison; a user who judged the same twice has one vote, the last."""
        votes = self._preferences[hash(_group_key(comparison))]
        votes[comparison.user_id or comparison.id] = hash(comparison.responses[0])

    def describe(self) -> str | None:
        """Describe the agreement, and the ceiling of a rule that is the same for all users.

        None if no two users judged the same.
        """
        shared = [Counter(votes.values()) for votes in self._preferences.values() if len(votes) > 1]
        if not shared:
            return None
        agreeing = sum(math.comb(count, 2) for votes in shared for count in votes.values())
        pairs = sum(math.comb(votes.total(), 2) for votes in shared)
        majority = sum(max(votes.values()) for votes in shared)
        judgements = sum(votes.total() for votes in shared)
        return (
            f"{len(shared)} prompts with the same responses were judged by several users: two of "
            f"them agree in {agreeing / pairs:.1%} of cases, and one answer for all is right in "
            f"{majority / judgements:.1%} at most"
        )


def find_majority(texts: Sequence[str]) -> str:
    """The most frequent text; empty if several are."""
    counts = Counter(texts).most_common(2)
    if not counts or (len(counts) == 2 and counts[0][1] == counts[1][1]):
        return ""
    return counts[0][0]


def _preferences_by_user(comparisons: Sequence[Comparison]) -> dict[str, str]:
    # A user who judged the same twice has one vote, the last.
    return {comparison.user_id: comparison.responses[0] for comparison in comparisons}


def _group_key(comparison: Comparison) -> str:
    content = [comparison.dialogue, comparison.prompt, sorted(comparison.responses)]
    return msgspec.json.encode(content).decode()
