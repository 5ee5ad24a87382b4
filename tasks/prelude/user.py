"""The simulated user: does the draft suit me, and if not, what do I make of it?

Two calls at most.  The first sees document, draft and the hidden preference and answers yes or no; the second, after
anything but a yes, sees draft and preference only and rewrites.  What the model says is read strictly: a chatty
rewrite would otherwise be paid as an edit and learnt as a preference.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from personabench.errors import BackendError
from personabench.roles import Role
from personabench.task import Words
from personabench.types import Message

SYSTEM = "You are a person who looks through what an assistant drafted for you."
TOP_P = 0.95
_REASONING = re.compile(r"<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_WORD = re.compile(r"\b(yes|no)\b")
_META = re.compile(
    r"\A(?=[^\n]*\b(?:here|here's|sure|certainly|okay|revised|rewritten|changed|edited|updated|improved)\b)"
    r"(?=[^\n]*\b(?:version|rewrite|revision|text|summary|email|draft|it is|you go)\b)"
    r"[^\n]{1,120}:[*_ ]*(?:\n+|\Z)",
    re.IGNORECASE,
)
_FENCE = re.compile(r"\A\s*```[^\n`]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_QUOTES = (('"', '"'), ("“", "”"), ("'", "'"), ("‘", "’"), ("«", "»"))


class Reaction(NamedTuple):
    """What the user said and did.

    Attributes:
        decision: accepted, rewritten, or undecided, which is rewritten too.
        reply: the words of the decision; raw: those of the rewrite, empty without one.
        final: the text the user is content with.
    """

    decision: str
    reply: str
    raw: str
    final: str


def decided(reply: str) -> str:
    """The first whole word that is yes or no, outside of reasoning: accepted, rewritten or undecided."""
    found = _WORD.search(_REASONING.sub("", reply).lower())
    if found is None:
        return "undecided"
    return "accepted" if found[1] == "yes" else "rewritten"


def cleaned(reply: str) -> str:
    """A rewrite without reasoning, a line that announces it, a fence and quotes around it; each once at most."""
    text = _REASONING.sub("", reply, count=1).strip()
    text = _META.sub("", text, count=1).strip()
    if fenced := _FENCE.match(text):
        text = fenced[1].strip()
    for opening, closing in _QUOTES:
        inner = text[1:-1]
        if text == f"{opening}{inner}{closing}" and opening not in inner and closing not in inner:
            return inner.strip()
    return text


async def react(simulator: Role, words: Words, document: str, draft: str, preference: str, max_tokens: int) -> Reaction:
    """Let the user look at a draft.  Flags what was undecided, cleaned or returned unchanged.

    Raises:
        BackendError: a call failed for good, or the rewrite was empty twice.
    """
    reply = await _asked(simulator, acceptance(words, document, draft, preference), max_tokens)
    decision = decided(reply)
    if decision == "accepted":
        return Reaction(decision, reply, "", draft)
    if decision == "undecided":
        simulator.flag("undecided")
    for draw in range(2):
        raw = await _asked(simulator, rewriting(words, draft, preference), max_tokens, draw)
        final = cleaned(raw)
        if final:
            break
        simulator.flag("empty_rewrite")
    else:
        raise BackendError(
            "the simulated user's rewrite was empty twice, so this trajectory stops here; "
            "repeat the command to go on, or name another model with --simulator-model"
        )
    if final != raw.strip():
        simulator.flag("cleaned_rewrite")
    if final == draft:
        simulator.flag("unchanged_rewrite")
    return Reaction(decision, reply, raw, final)


def acceptance(words: Words, document: str, draft: str, preference: str) -> str:
    """Whether a draft suits somebody of this taste."""
    return (
        f"From the {words.stimulus} below, an assistant made you a {words.response}.\n\n"
        f"{words.stimulus.capitalize()}:\n{document}\n\n{words.response.capitalize()}:\n{draft}\n\n"
        f"You like every {words.response} to be like this: {preference}.\n"
        f"Is the {words.response} fine for you as it stands? Answer with yes or no."
    )


def rewriting(words: Words, draft: str, preference: str) -> str:
    """What somebody of this taste makes of a draft; the document stays out of it."""
    return (
        f"{words.response.capitalize()}:\n{draft}\n\nYou like every {words.response} to be like this: {preference}.\n"
        f"Change the {words.response} until you like it, and leave what it says as it is. "
        "Answer with the changed text alone, without a remark."
    )


async def _asked(simulator: Role, text: str, max_tokens: int, draw: int = 0) -> str:
    messages = (Message("system", SYSTEM), Message("user", text))
    return await simulator.complete(messages, max_tokens=max_tokens, top_p=TOP_P, draw=draw)
