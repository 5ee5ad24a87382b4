"""FairEval's calibrated judge of two answers ("Large Language Models are not Fair Evaluators", arXiv 2305.17926).

*Multiple evidence*: the judge writes an evaluation first and then scores both answers from 1 to 10, several times.
*Balanced position*: as often again with the answers swapped in the prompt, mapped back.  *Human in the loop*: the items
on which its votes are spread most go to people.  Unlike the reference, scores are averaged within each order first, and
an order without any readable sample is asked once more and then leaves the item unjudged.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping

from personabench.hashing import digest
from personabench.metrics.judges.ask import MAX_TOKENS, Judge, spoken
from personabench.metrics.judges.verdict import Pick, Verdict, Vote
from personabench.types import Message

SAMPLES = 3
TEMPERATURE = 1.0
PEOPLE = 0.2
_SYSTEM = (
    "You compare two replies to the same request, made for the same person. Say how well each of them does what was "
    "asked and, where something is known of the person, how well it suits them. The order in which the replies stand "
    "says nothing about them; let it not influence you, nor their length.\n\n"
    "First write an evaluation of both replies. Then end with exactly two lines, each with a number from 1 to 10:\n"
    "Score of reply 1: NUMBER\nScore of reply 2: NUMBER"
)
PROMPT = digest([_SYSTEM, "known, request, reply 1, reply 2"])
"""Names the wording; part of the verdicts' protocol."""

_SCORE = re.compile(r"[\s*_`\[(]*(\d+(?:\.\d+)?)(?:\s*/\s*10)?[\s.*_`\])]*")


def prompt(known: str, request: str, first: str, second: str) -> tuple[Message, Message]:
    """The question to the judge, `first` standing before `second`; `known` may be empty."""
    parts = [f"What is known of the person:\n{known}"] if known else []
    parts += [f"Request:\n{request}", f"Reply 1:\n{first}", f"Reply 2:\n{second}"]
    return Message("system", _SYSTEM), Message("user", "\n\n".join(parts))


def read(reply: str) -> tuple[float, float] | None:
    """The scores on the last two lines that are not empty, after their last colon; None unless both are 1 to 10."""
    lines = [line for line in spoken(reply).splitlines() if line.strip()][-2:]
    found = [_SCORE.fullmatch(line.rpartition(":")[2]) for line in lines if ":" in line]
    values = [float(each[1]) for each in found if each]
    return (
        (values[0], values[1])
        if len(values) == 2 and all(1 <= value <= 10 for value in values)
        else None
    )


async def compare(
    judge: Judge,
    *,
    sample_id: str,
    user_id: str,
    known: str,
    request: str,
    a: str,
    b: str,
    samples: int = SAMPLES,
    temperature: float = TEMPERATURE,
) -> Verdict:
    """The judge's votes on two answers, `samples` in each order.

    Raises:
        BackendError: a call failed for good.
    """
    orders = await asyncio.gather(
        _votes(judge, prompt(known, request, a, b), samples, temperature),
        _votes(judge, prompt(known, request, b, a), samples, temperature),
    )
    (straight, asked), (mirrored, again) = orders
    votes = (
        tuple(_vote(*pair) for pair in straight),
        tuple(_vote(second, first) for first, second in mirrored),
    )
    return Verdict(sample_id, user_id, votes, both=True, asked=asked + again)


async def _votes(
    judge: Judge, messages: tuple[Message, ...], samples: int, temperature: float
) -> tuple[list[tuple[float, float]], int]:
    """The readable samples of one order and how many were asked for: once more as many where none could be read."""
    for attempt in (0, 1):
        replies = await asyncio.gather(
            *(
                judge.complete(
                    messages,
                    max_tokens=MAX_TOKENS,
                    temperature=temperature,
                    repeat=attempt * samples + at,
                    accept=lambda text: read(text) is not None,
                )
                for at in range(samples)
            )
        )
        found = [scores for scores in map(read, replies) if scores]
        if found:
            break
    return found, (attempt + 1) * samples


def _vote(a: float, b: float) -> Vote:
    return Vote("a" if a > b else "b" if b > a else "tie", (a, b))


def for_people(verdicts: Iterable[Verdict], share: float = PEOPLE) -> list[str]:
    """Ids of the items whose votes are spread most, the top `share` of the judged ones; ties by id."""
    judged = sorted(
        (verdict for verdict in verdicts if verdict.judged), key=lambda v: (-v.entropy, v.sample_id)
    )
    return [verdict.sample_id for verdict in judged[: round(share * len(judged))]]


def with_people(verdicts: Iterable[Verdict], labels: Mapping[str, Pick]) -> dict[str, Pick | None]:
    """The verdict of each item, a person's label in its place where there is one (`hitl`)."""
    return {verdict.sample_id: labels.get(verdict.sample_id, verdict.pick) for verdict in verdicts}
