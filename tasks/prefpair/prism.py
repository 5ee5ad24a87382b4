"""PRISM's files: survey, conversations, and one row for each rated response.

An interaction is one turn of a conversation, in which a user rates several responses from 1 to 100
and goes on with one.  Ratings are compared within an interaction only, since users use the scale
differently.  Names of models and ratings are in no sample that a method sees.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from personabench.api.comparison import comparison_record
from personabench.api.rows import Row, read_rows
from personabench.errors import DataError
from personabench.tasks.prefpair.comparison import Comparison, drop_own_prompt
from personabench.types import Record, moment

Pairs = Literal["one", "extreme", "all"]
FILES = ("survey.jsonl", "conversations.jsonl", "utterances.jsonl")


class Utterance(NamedTuple):
    """A rated response of an interaction."""

    user_id: str
    conversation_id: str
    interaction_id: str
    turn: int
    prompt: str
    response: str
    model: str
    score: float
    is_chosen: bool
    location: str


class Conversation(NamedTuple):
    """A conversation without its turns."""

    id: str
    user_id: str
    kind: str
    time: str


class Interaction(NamedTuple):
    """A turn of a conversation with the responses that are compared.

    Attributes:
        chosen: the response that the user went on with.
        others: responses that the user rated lower by the gap or more, those to compare with.
        dialogue: the turns before, as text.
    """

    chosen: Utterance
    others: tuple[Utterance, ...]
    dialogue: str


class ModelScores:
    """Mean scores of models over all users but one."""

    def __init__(self, utterances: Sequence[Utterance]) -> None:
        self._by_model: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._by_user: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for utterance in utterances:
            key = utterance.user_id, utterance.model
            for totals in (self._by_model[utterance.model], self._by_user[key]):
                totals[0] += utterance.score
                totals[1] += 1

    def mean_without(self, user_id: str, model: str) -> float | None:
        """Return the mean over the other users; None if no other user rated the model."""
        total, count = self._by_model.get(model, (0.0, 0.0))
        own_total, own_count = self._by_user.get((user_id, model), (0.0, 0.0))
        if count == own_count:
            return None
        return (total - own_total) / (count - own_count)

    def prefer(self, user_id: str, utterances: Sequence[Utterance]) -> str:
        """Return the response of the model with the best mean; empty if it is not one alone."""
        means = [self.mean_without(user_id, utterance.model) for utterance in utterances]
        known = [mean for mean in means if mean is not None]
        if len(known) < len(means) or known.count(max(known)) > 1:
            return ""
        return utterances[known.index(max(known))].response


def read_comparisons(
    root: Path, gap: float, pairs: Pairs, counts: Counter[str]
) -> Iterator[Comparison]:
    """Read the comparisons of all interactions, conversations of a user in the order of time.

    Args:
        root: the folder of the three files.
        gap: points by which the chosen response has to be rated higher than another.
        pairs: responses to compare the chosen one with: one drawn from the interaction's id, the
            lowest (extreme), or each.
        counts: receives the numbers of "interactions", of those that are "dropped", and of records
            with their sample's "own prompt".

    Raises:
        DataError: a file is missing or broken.
    """
    for name in FILES:
        if not (root / name).is_file():
            raise DataError(f"{root} has no {name}; PRISM consists of {', '.join(FILES)}")

    profiles = {_text(row, "user_id"): _word_profile(row) for row in read_rows(root / FILES[0])}
    if not profiles:
        raise DataError(f"{root / FILES[0]} has no rows, expected one for each user")
    by_user: dict[str, list[Conversation]] = defaultdict(list)
    for row in read_rows(root / FILES[1]):
        conversation = _read_conversation(row)
        by_user[conversation.user_id].append(conversation)
    utterances = [_read_utterance(row) for row in read_rows(root / FILES[2])]
    scores = ModelScores(utterances)
    by_conversation: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        by_conversation[utterance.conversation_id].append(utterance)

    for user_id, conversations in by_user.items():
        conversations.sort(key=lambda conversation: (moment(conversation.time), conversation.id))
        earlier: list[Record] = []
        for conversation in conversations:
            # Two conversations of one moment are not earlier than one another.
            visible = [r for r in earlier if moment(r.time) < moment(conversation.time)]
            turns = by_conversation[conversation.id]
            for interaction in _read_interactions(turns, gap, pairs, counts):
                for comparison in _compare(interaction, conversation, visible, scores, counts):
                    yield comparison._replace(profile=profiles.get(user_id, ""))
                earlier.append(_make_record(interaction, conversation))


def _read_interactions(
    utterances: Sequence[Utterance], gap: float, pairs: Pairs, counts: Counter[str]
) -> Iterator[Interaction]:
    """Yield the interactions of a conversation that have something to compare, in order."""
    by_interaction: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in sorted(utterances, key=lambda utterance: utterance.turn):
        by_interaction[utterance.interaction_id].append(utterance)

    dialogue: list[str] = []
    for rated in by_interaction.values():
        counts["interactions"] += 1
        chosen = [utterance for utterance in rated if utterance.is_chosen]
        others = _select_others(chosen, rated, gap, pairs) if len(chosen) == 1 else ()
        if others:
            yield Interaction(chosen[0], others, "\n\n".join(dialogue))
        else:
            counts["dropped"] += 1
        for utterance in chosen[:1]:
            dialogue.append(f"User: {utterance.prompt}")
            dialogue.append(f"Assistant: {utterance.response}")


def _select_others(
    chosen: Sequence[Utterance], rated: Sequence[Utterance], gap: float, pairs: Pairs
) -> tuple[Utterance, ...]:
    best = chosen[0]
    lower = [
        utterance
        for utterance in rated
        if best.score - utterance.score >= gap
        and not utterance.is_chosen
        and utterance.response != best.response
    ]
    lower.sort(key=lambda utterance: (utterance.score, utterance.response))
    if pairs == "all":
        # Two models may reply alike.
        return tuple({utterance.response: utterance for utterance in lower}.values())
    if pairs == "extreme":
        return tuple(lower[:1])
    rng = random.Random(f"prism\x1f{best.interaction_id}")
    return (rng.choice(lower),) if lower else ()


def _compare(
    interaction: Interaction,
    conversation: Conversation,
    visible: Sequence[Record],
    scores: ModelScores,
    counts: Counter[str],
) -> Iterator[Comparison]:
    chosen = interaction.chosen
    history, dropped = drop_own_prompt(chosen.prompt, visible)
    counts["own prompt"] += dropped
    for number, other in enumerate(interaction.others):
        suffix = f".{number}" if len(interaction.others) > 1 else ""
        yield Comparison(
            f"{chosen.interaction_id}{suffix}",
            chosen.user_id,
            chosen.prompt,
            (chosen.response, other.response),
            history,
            dialogue=interaction.dialogue,
            time=conversation.time,
            majority=scores.prefer(chosen.user_id, (chosen, other)),
            hidden={"conversation_type": conversation.kind},
            location=chosen.location,
        )


def _make_record(interaction: Interaction, conversation: Conversation) -> Record:
    chosen = interaction.chosen
    return comparison_record(
        chosen.prompt,
        chosen.response,
        [other.response for other in interaction.others],
        id=chosen.interaction_id,
        time=conversation.time,
        score=f"{chosen.score:g}",
    )


# Rows -------------------------------------------------------------------------------------------


def _read_conversation(row: Row) -> Conversation:
    time = _text(row, "generated_datetime")
    if not moment(time):
        raise DataError(f"{row.location}: generated_datetime is '{time}', expected a date")
    return Conversation(
        _text(row, "conversation_id"), _text(row, "user_id"), _text(row, "conversation_type"), time
    )


def _read_utterance(row: Row) -> Utterance:
    numbers: Mapping[str, object] = {name: row[name] for name in ("turn", "score")}
    for name, value in numbers.items():
        if not _is_finite(value):
            raise DataError(f"{row.location}: {name} is {value!r}, expected a number")
    if not isinstance(row["if_chosen"], bool):
        raise DataError(f"{row.location}: if_chosen is {row['if_chosen']!r}, expected true, false")
    return Utterance(
        _text(row, "user_id"),
        _text(row, "conversation_id"),
        _text(row, "interaction_id"),
        int(row["turn"]),
        _text(row, "user_prompt"),
        _text(row, "model_response"),
        _text(row, "model_name"),
        float(row["score"]),
        row["if_chosen"],
        row.location,
    )


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def _word_profile(row: Row) -> str:
    parts = [row.get("self_description"), row.get("system_string")]
    return "\n".join(part.strip() for part in parts if isinstance(part, str) and part.strip())


def _text(row: Row, field: str) -> str:
    value = row[field]
    if not isinstance(value, str):
        raise DataError(f"{row.location}: {field} is {value!r}, expected text")
    return value
