"""The simulated user: does the draft suit me, and if not, what do I make of it?

Two calls at most.  The first sees document, draft and the hidden preference and answers yes or no; the second, after
anything but a yes, sees draft and preference only and rewrites.  What the model says is read strictly: a chatty
rewrite would otherwise be paid as an edit and learnt as a preference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from personabench.api.wording import Vocabulary
from personabench.errors import BackendError
from personabench.metrics.text import without_reasoning
from personabench.models.roles import Role
from personabench.types import Message

SYSTEM = "You are a person who looks through what an assistant drafted for you."
TOP_P = 0.95
_WORD = re.compile(r"(?<![^\W_])(yes|no)(?![^\W_])")
_NOUN = r"(?:version|rewrite|revision|text|draft|summary|email)"
_CHANGED = r"(?:revised|rewritten|edited|updated|changed|improved)"
_ARTICLE = r"(?:the|a|an|my|your)"
_DESCRIBED = r"(?:(?!(?:of|to|for|in|on|with|that|which|how|what|we|i)\b)[^\s:]+ ){0,6}?"
_MORE = (
    rf"(?: of {_ARTICLE} (?:{_CHANGED} )?{_NOUN})?"
    rf"(?:(?:,| \(| (?:for|with|in|that|which|as|to|you|below|based|{_CHANGED})\b)[^\n:]*)?"
)
_META = re.compile(
    r"\A[\s*_#>]*(?=[^\n]{1,120}:[*_ ]*(?:\n|\Z))"
    r"(?:(?:sure|certainly|okay|ok|of course)\b[ ,.!–—-]*)?"
    rf"(?:here(?: is|['’]s) (?:{_ARTICLE} )?{_DESCRIBED}{_NOUN}{_MORE}"
    r"|here (?:you go|it is)[^\n:]*"
    rf"|(?:{_ARTICLE} )?{_CHANGED}(?:(?: {_NOUN}){{1,2}}{_MORE})?"
    r"|revision|rewrite)"
    r"[*_ ]*:[*_ ]*(?:\n+|\Z)",
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
    found = _WORD.search(without_reasoning(reply).lower())
    if found is None:
        return "undecided"
    return "accepted" if found[1] == "yes" else "rewritten"


def cleaned(reply: str, draft: str = "") -> str:
    """A rewrite without reasoning and, each once at most, a line that announces it, a fence and quotes around it.

    What is the draft at one of these steps is left as it is: a draft may have such a line or quotes of its own.
    """
    text = reply
    for step in (without_reasoning, _unannounced, _unfenced, _unquoted):
        text = step(text).strip()
        if text == draft.strip():
            break
    return text


async def react(
    simulator: Role, words: Vocabulary, document: str, draft: str, preference: str, max_tokens: int
) -> Reaction:
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
    request = rewriting(words, draft, preference)
    for repeat in range(2):
        raw = await _asked(
            simulator, request, max_tokens, repeat, lambda text: bool(cleaned(text, draft))
        )
        final = cleaned(raw, draft)
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
    if final == draft.strip():
        simulator.flag("unchanged_rewrite")
    return Reaction(decision, reply, raw, final)


def acceptance(words: Vocabulary, document: str, draft: str, preference: str) -> str:
    """Whether a draft suits somebody of this taste."""
    return (
        f"From the {words.stimulus} below, an assistant made you a {words.response}.\n\n"
        f"{words.stimulus.capitalize()}:\n{document}\n\n{words.response.capitalize()}:\n{draft}\n\n"
        f"You like every {words.response} to be like this: {preference}.\n"
        f"Is the {words.response} fine for you as it stands? Answer with yes or no."
    )


def rewriting(words: Vocabulary, draft: str, preference: str) -> str:
    """What somebody of this taste makes of a draft; the document stays out of it."""
    return (
        f"{words.response.capitalize()}:\n{draft}\n\nYou like every {words.response} to be like this: {preference}.\n"
        f"Change the {words.response} until you like it, and leave what it says as it is. "
        "Answer with the changed text alone, without a remark."
    )


def _unannounced(text: str) -> str:
    return _META.sub("", text, count=1)


def _unfenced(text: str) -> str:
    fenced = _FENCE.match(text)
    return fenced[1] if fenced else text


def _unquoted(text: str) -> str:
    inner = text[1:-1]
    wrapped = any(
        text == f"{opening}{inner}{closing}" and opening not in inner and closing not in inner
        for opening, closing in _QUOTES
    )
    return inner if wrapped else text


async def _asked(
    simulator: Role,
    text: str,
    max_tokens: int,
    repeat: int = 0,
    accept: Callable[[str], bool] | None = None,
) -> str:
    messages = (Message("system", SYSTEM), Message("user", text))
    return await simulator.complete(
        messages, max_tokens=max_tokens, top_p=TOP_P, repeat=repeat, accept=accept
    )
