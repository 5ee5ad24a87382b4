"""PersonalLLM's tables: prompts with responses that several reward models score.

A simulated user is a weight for each reward model.  Its score of a response is the weighted sum of
the standardised rewards, and it prefers the response of the highest score, so that labels are exact
and any number of users can be drawn.
"""

from __future__ import annotations

import math
import random
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from personabench.api.comparison import comparison_record
from personabench.api.rows import Row, is_table, read_rows
from personabench.errors import DataError
from personabench.tasks.prefpair.comparison import Comparison
from personabench.types import Record, normalized

USERS = "users.jsonl"
_RESPONSE = re.compile(r"response_(\d+)")


class Prompt(NamedTuple):
    """A prompt, its responses, and the rewards of each, by the name of the reward model."""

    id: str
    text: str
    responses: tuple[str, ...]
    rewards: tuple[Mapping[str, float], ...]
    location: str


class Scale(NamedTuple):
    """Mean and standard deviation of a reward model's scores."""

    mean: float
    deviation: float


def read_comparisons(
    root: Path,
    user_count: int,
    alpha: float,
    shown: int,
    questions: int,
    counts: Counter[str],
    with_weights: bool = False,
) -> Iterator[Comparison]:
    """Yield the choices of simulated users among the responses to prompts of the test table.

    Args:
        root: a folder with the tables train and test, and optionally users.jsonl, rows of
            `{"user_id", "weights"}`; without it users are drawn.
        user_count: users to draw.
        alpha: concentration of the symmetric Dirichlet distribution that weights are drawn from;
            small values make users that follow one reward model.
        shown: prompts of the training table in a history, drawn from the user's id.
        questions: prompts of the test table, the same for all users.
        with_weights: whether comparisons hide the user's weights and the scales of the rewards, to
            score new responses.
        counts: receives the numbers of "prompts" and of those "dropped" for equal responses.

    Raises:
        DataError: a table is missing or broken.
    """
    train = _read_prompts(root, "train", counts)
    test = _read_prompts(root, "test", counts)
    scales = _measure_scales(train)
    users = _read_users(root, scales) or _draw_users(sorted(scales), user_count, alpha)

    # Of the sorted ids, so that the order of a table changes nothing.
    chosen = random.Random("personalllm").sample(test, min(questions, len(test)))
    for user_id, weights in users.items():
        drawn = random.Random(f"personalllm\x1f{user_id}").sample(train, min(shown, len(train)))
        history = tuple(_make_record(prompt, weights, scales) for prompt in drawn)
        for prompt in chosen:
            comparison = _compare(prompt, user_id, weights, scales, history)
            if with_weights:
                user = {"weights": weights, "scales": scales}
                # Sorted, so that the order of columns changes nothing.
                encoded = msgspec.json.encode(user, order="sorted").decode()
                hidden = {**comparison.hidden, "user": encoded}
                comparison = comparison._replace(hidden=hidden)
            yield comparison


def score_responses(
    prompt: Prompt, weights: Mapping[str, float], scales: Mapping[str, Scale]
) -> list[float]:
    """Return a user's score of each response: the weighted sum of standardised rewards."""
    return [
        math.fsum(
            weight * (rewards[name] - scales[name].mean) / scales[name].deviation
            for name, weight in weights.items()
        )
        for rewards in prompt.rewards
    ]


class SimulatedUser(msgspec.Struct):
    """A user's weights and the scales of the rewards, as comparisons hide them."""

    weights: dict[str, float]
    scales: dict[str, tuple[float, float]]

    def score(self, rewards: Mapping[str, float]) -> float:
        """Return the user's score of a response with these rewards."""
        return math.fsum(
            weight * (rewards[name] - self.scales[name][0]) / self.scales[name][1]
            for name, weight in self.weights.items()
        )


def normalize_score(scores: Mapping[str, float], score: float) -> float:
    """Return (score - mean) / (maximum - mean) of the known responses' scores."""
    mean = statistics.fmean(scores.values())
    highest = max(scores.values())
    return (score - mean) / (highest - mean) if highest > mean else 0.0


def _order_responses(
    prompt: Prompt, weights: Mapping[str, float], scales: Mapping[str, Scale]
) -> list[tuple[float, str]]:
    """The responses with the user's scores, the preferred one first."""
    scores = score_responses(prompt, weights, scales)
    # Equal scores have the order of the texts, whatever that of the table.
    return sorted(zip(scores, prompt.responses, strict=True), key=lambda pair: (-pair[0], pair[1]))


def _compare(
    prompt: Prompt,
    user_id: str,
    weights: Mapping[str, float],
    scales: Mapping[str, Scale],
    history: Sequence[Record],
) -> Comparison:
    ordered = _order_responses(prompt, weights, scales)
    own = normalized(prompt.text)
    return Comparison(
        f"{user_id}-{prompt.id}",
        user_id,
        prompt.text,
        tuple(text for _, text in ordered),
        tuple(record for record in history if normalized(record.stimulus or "") != own),
        hidden={"scores": msgspec.json.encode({text: score for score, text in ordered}).decode()},
        location=prompt.location,
    )


def _make_record(
    prompt: Prompt, weights: Mapping[str, float], scales: Mapping[str, Scale]
) -> Record:
    (_, preferred), *others = _order_responses(prompt, weights, scales)
    return comparison_record(prompt.text, preferred, [text for _, text in others], id=prompt.id)


def normalize_pick(scores: Mapping[str, float], pick: str | None) -> float:
    """Return (score of the pick - mean) / (maximum - mean); the lowest score if it is unparsed.

    It is 1 for the preferred response and 0 for a response of mean score.
    """
    return normalize_score(scores, min(scores.values()) if pick is None else scores[pick])


# Tables -----------------------------------------------------------------------------------------


def _read_prompts(root: Path, split: str, counts: Counter[str]) -> list[Prompt]:
    paths = [
        path
        for folder in (root, root / "data")
        for path in sorted(folder.glob(f"{split}*"))
        if is_table(path)
    ]
    if not paths:
        raise DataError(
            f"{root} has no table {split}, such as {split}-00000-of-00001.parquet; PersonalLLM "
            "consists of train and test"
        )
    prompts = []
    for path in paths:
        for row in read_rows(path):
            prompt = _read_prompt(row)
            counts["prompts"] += 1
            if len(set(prompt.responses)) < len(prompt.responses):
                counts["dropped"] += 1
            else:
                prompts.append(prompt)
    return sorted(prompts, key=lambda prompt: prompt.id)


def _read_prompt(row: Row) -> Prompt:
    names = [name for name in row if _RESPONSE.fullmatch(name)]
    if len(names) < 2:
        raise DataError(f"{row.location}: expected response_1, response_2, ...")
    rewards = tuple(_read_rewards(row, name) for name in names)
    if not rewards[0] or any(reward.keys() != rewards[0].keys() for reward in rewards):
        raise DataError(
            f"{row.location}: the responses have no rewards of the same models, such as "
            "response_1_gemma_2b and response_2_gemma_2b"
        )
    texts = [row["prompt"], *(row[name] for name in names)]
    for name, text in zip(["prompt", *names], texts, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{row.location}: {name} is {text!r}, expected text")
    return Prompt(row.read_id("prompt_id"), texts[0], tuple(texts[1:]), rewards, row.location)


def _read_rewards(row: Row, response: str) -> dict[str, float]:
    rewards = {}
    for field, value in row.items():
        name = field.removeprefix(f"{response}_")
        if name in (field, "model"):
            continue
        try:
            rewards[name] = float(value)
        except (TypeError, ValueError):
            rewards[name] = math.nan
        if not math.isfinite(rewards[name]):
            raise DataError(f"{row.location}: {field} is {value!r}, expected a number")
    return rewards


def _measure_scales(prompts: Sequence[Prompt]) -> dict[str, Scale]:
    scales = {}
    for name in prompts[0].rewards[0] if prompts else ():
        try:
            values = [rewards[name] for prompt in prompts for rewards in prompt.rewards]
        except KeyError:
            raise DataError(f"not every row has rewards of {name}") from None
        deviation = statistics.pstdev(values)
        if not deviation:
            raise DataError(f"all rewards of {name} are the same number")
        scales[name] = Scale(statistics.fmean(values), deviation)
    if not scales:
        raise DataError("the table train has no prompts with different responses")
    return scales


def _read_users(root: Path, scales: Mapping[str, Scale]) -> dict[str, dict[str, float]]:
    path = next(iter(sorted(root.glob(f"{Path(USERS).stem}.*"))), None)
    if path is None:
        return {}
    if path.name != USERS:
        # Users that are not read would be replaced by drawn ones without a word.
        raise DataError(f"{path}: users are read from {USERS}; convert it, or move it elsewhere")
    users: dict[str, dict[str, float]] = {}
    for row in read_rows(path):
        weights = row["weights"]
        is_known = isinstance(weights, dict) and weights.keys() <= scales.keys()
        if not is_known or not all(map(_is_finite, weights.values())):
            raise DataError(
                f"{row.location}: weights is {weights!r}, expected a number for some of: "
                f"{', '.join(scales)}"
            )
        user_id = row.read_id("user_id")
        if user_id in users:
            raise DataError(f"{row.location}: user '{user_id}' has weights in an earlier row")
        users[user_id] = {name: float(weight) for name, weight in weights.items()}
    if not users:
        raise DataError(f"{path} has no rows, expected one for each user")
    return users


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def _draw_users(names: Sequence[str], count: int, alpha: float) -> dict[str, dict[str, float]]:
    users = {}
    for number in range(count):
        rng = random.Random(f"personalllm\x1f{alpha}\x1f{number}")
        # Gamma variates divided by their sum have the Dirichlet distribution.
        parts = [rng.gammavariate(alpha, 1) for _ in names]
        total = math.fsum(parts)
        users[f"user{number:04d}"] = {
            name: part / total for name, part in zip(names, parts, strict=True)
        }
    return users
