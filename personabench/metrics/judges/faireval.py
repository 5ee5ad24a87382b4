"""FairEval's calibrated judge of two answers.

Source: "Large Language Models are not Fair Evaluators", arXiv 2305.17926.  *Multiple evidence*: the
judge writes an evaluation first and then scores both answers from 1 to 10, several times.
*Balanced position*: the same number of votes with the answers swapped in the prompt, mapped back.
*Human in the loop*: the items whose votes are spread most are labelled by annotators.  Unlike the
reference implementation, scores are averaged within each order first, and an order without any
parsed vote is repeated once, after which the item is unjudged.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from personabench.hashing import digest
from personabench.metrics.judges.ask import MAX_TOKENS, Judge
from personabench.metrics.judges.fence import RULE, Fence
from personabench.metrics.judges.verdict import Pick, Verdict, Vote
from personabench.metrics.judges.verdict_reader import read_verdicts
from personabench.types import Message

VOTES = 3
TEMPERATURE = 1.0
REVIEW_SHARE = 0.2
_SYSTEM = (
    "You compare two replies to the same request, made for the same person. Say how well each of "
    "them does what was asked and, where something is known of the person, how well it suits them. "
    "The order in which the replies stand says nothing about them; let it not influence you, nor "
    f"their length. {RULE}\n\n"
    "First write an evaluation of both replies. Then end with exactly two lines, each with a "
    "number from 1 to 10:\n"
    "Score of reply 1: NUMBER\nScore of reply 2: NUMBER"
)
# The hash names the wording; it is part of the verdicts' protocol.
PROMPT = digest([_SYSTEM, "known, request, reply 1, reply 2"])

# A label that ends in the number or letter of a reply, then its score.
_SCORE = re.compile(
    r"[A-Za-z ]{0,40}\b([12AB])\s{0,3}:\s{0,3}[\[(]?(\d{1,3}(?:\.\d{1,9})?)(?:\s?/\s?10)?[\])]?\.?"
)
_POSITIONS = {"1": "first", "A": "first", "2": "second", "B": "second"}


class OrderScores(NamedTuple):
    """The parsed scores of one order, first answer first, and how many replies were requested."""

    scores: list[tuple[float, float]]
    attempts: int


def build_prompt(
    background: str,
    request: str,
    first: str,
    second: str,
) -> tuple[Message, Message]:
    """Build the question to the judge, `first` before `second`; `background` may be empty."""
    fence = Fence(background, request, first, second)
    parts = [f"What is known of the person:\n{fence.wrap(background)}"] if background else []
    parts += [
        f"Request:\n{fence.wrap(request)}",
        f"Reply 1:\n{fence.wrap(first)}",
        f"Reply 2:\n{fence.wrap(second)}",
    ]
    question = "\n\n".join(parts)
    return Message("system", _SYSTEM), Message("user", question)


def read_scores(reply: str) -> tuple[float, float] | None:
    """Parse the scores of both replies, each alone on its line after a colon.

    None unless both have one score, from 1 to 10.
    """
    scores = read_verdicts(reply, _read_line)
    if scores.keys() != {"first", "second"}:
        return None
    first, second = scores["first"], scores["second"]
    return (first, second) if 1 <= first <= 10 and 1 <= second <= 10 else None


def _read_line(line: str) -> tuple[str, float] | None:
    match = _SCORE.fullmatch(line)
    return None if match is None else (_POSITIONS[match[1]], float(match[2]))


async def compare(
    judge: Judge,
    *,
    sample_id: str,
    user_id: str,
    background: str,
    request: str,
    a: str,
    b: str,
    votes: int = VOTES,
    temperature: float = TEMPERATURE,
) -> Verdict:
    """Collect the judge's votes on two answers, `votes` in each order.

    Raises:
        BackendError: a call failed for good.
    """
    straight_prompt = build_prompt(background, request, a, b)
    swapped_prompt = build_prompt(background, request, b, a)
    straight, swapped = await asyncio.gather(
        _score_order(judge, straight_prompt, votes, temperature),
        _score_order(judge, swapped_prompt, votes, temperature),
    )
    orders = (
        tuple(_create_vote(first, second) for first, second in straight.scores),
        tuple(_create_vote(second, first) for first, second in swapped.scores),
    )
    return Verdict(
        sample_id,
        user_id,
        orders,
        both=True,
        asked=straight.attempts + swapped.attempts,
    )


async def _score_order(
    judge: Judge,
    messages: tuple[Message, ...],
    votes: int,
    temperature: float,
) -> OrderScores:
    """Score one order; if no reply can be parsed, repeat it once with new replies."""

    async def request_scores(repeat: int) -> tuple[float, float] | None:
        reply = await judge.complete(
            messages,
            max_tokens=MAX_TOKENS,
            temperature=temperature,
            repeat=repeat,
            accept=lambda text: read_scores(text) is not None,
        )
        return read_scores(reply)

    attempts = 0
    scores: list[tuple[float, float]] = []
    while not scores and attempts < 2 * votes:
        repeats = range(attempts, attempts + votes)
        replies = await asyncio.gather(*map(request_scores, repeats))
        scores = [pair for pair in replies if pair is not None]
        attempts += votes
    return OrderScores(scores, attempts)


def _create_vote(a: float, b: float) -> Vote:
    pick: Pick = "tie"
    if a > b:
        pick = "a"
    elif b > a:
        pick = "b"
    return Vote(pick, (a, b))


def select_for_review(
    verdicts: Iterable[Verdict],
    share: float = REVIEW_SHARE,
) -> list[str]:
    """Select the items for annotators: the `share` of judged ones whose votes are spread most.

    Ties are broken by sample id.
    """
    judged = [verdict for verdict in verdicts if verdict.judged]
    judged.sort(key=lambda verdict: (-verdict.entropy, verdict.sample_id))
    count = round(share * len(judged))
    return [verdict.sample_id for verdict in judged[:count]]


def apply_labels(
    verdicts: Iterable[Verdict],
    labels: Mapping[str, Pick],
) -> dict[str, Pick | None]:
    """Map each item to its verdict, or to an annotator's label if it has one (`hitl`)."""
    picks = {}
    for verdict in verdicts:
        picks[verdict.sample_id] = labels.get(verdict.sample_id, verdict.pick)
    return picks
