"""The judge of paraphrases: which facts does a text use without naming them?

It is asked about the facts alone whose tokens the text does not have, all in one call, by id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from personabench.hashing import digest
from personabench.metrics.judges.ask import query_judge
from personabench.metrics.judges.fence import RULE, Fence
from personabench.metrics.judges.verdict_reader import read_json_verdict
from personabench.models.roles import Role
from personabench.tasks.restraint.cases import Fact

_SYSTEM = (
    "You compare a text with facts about a person. A fact is used if the text states it, hints at "
    "it, or could not have been written like this without it. Similar subjects are not enough. "
    f"{RULE}\n\n"
    "Reply with one JSON object that maps the number of every fact to yes or no, such as "
    '{"1": "no", "2": "yes"}, and nothing else.'
)
PROMPT = digest([_SYSTEM])[:12]
_WORDS = {"yes": True, "no": False}


async def find_paraphrased(judge: Role, text: str, facts: Sequence[Fact]) -> set[str] | None:
    """The ids of the facts that a text uses by the judge's word; None if it stays unjudged.

    Raises:
        BackendError: a call failed for good.
    """
    if not facts or not text.strip():
        return set()
    fence = Fence(text, *(fact.text for fact in facts))
    listed = "\n".join(
        f"Fact {number}:\n{fence.wrap(fact.text)}" for number, fact in enumerate(facts, start=1)
    )
    user = f"Text:\n{fence.wrap(text)}\n\n{listed}"
    reply = await query_judge(judge, _SYSTEM, user, lambda text: read_answers(text, len(facts)))
    if reply.value is None:
        return None
    return {fact.id for fact, is_used in zip(facts, reply.value, strict=True) if is_used}


def read_answers(reply: str, count: int) -> list[bool] | None:
    """Read yes or no for every fact; None if one is missing or is another word."""

    def read_fields(fields: Mapping[str, Any]) -> list[bool] | None:
        words = [str(fields.get(str(n), "")).strip().casefold() for n in range(1, count + 1)]
        if len(fields) != count or not all(word in _WORDS for word in words):
            return None
        return [_WORDS[word] for word in words]

    return read_json_verdict(reply, read_fields)
