"""The simulated users of PRELUDE, who edits drafts, and of PLUME, who writes texts.

PRELUDE's makes two calls at most.  The first sees document, draft and the hidden preference and
replies yes or no.  The second, after anything but a yes, sees draft and preference only and
rewrites.  PLUME's makes one, which sees document and preferences and never the draft.  Replies are
parsed strictly: a chatty text would otherwise be paid as an edit and learned as a preference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from personabench.api.prompts import PromptFile, Prompts
from personabench.api.wording import Vocabulary
from personabench.errors import BackendError
from personabench.metrics.text import strip_reasoning
from personabench.models.roles import Role
from personabench.types import Message

PROMPTS = PromptFile(__file__, "prelude.prompts.toml")
PLUME_PROMPTS = PromptFile(__file__, "plume.prompts.toml")

# Part of the protocol: costs can only be compared if all methods meet the same user.
TOP_P = 0.95

# Lookarounds instead of \b, for which an underscore is a letter: "__yes__" is a yes.
_WORD = re.compile(r"(?<![^\W_])(yes|no)(?![^\W_])")
_NOUN = r"(?:version|rewrite|revision|text|draft|summary|email)"
_CHANGED = r"(?:revised|rewritten|edited|updated|changed|improved)"
_ARTICLE = r"(?:the|a|an|my|your)"
_DESCRIBED = r"(?:(?!(?:of|to|for|in|on|with|that|which|how|what|we|i)\b)[^\s:]+ ){0,6}?"
_MORE = (
    rf"(?: of {_ARTICLE} (?:{_CHANGED} )?{_NOUN})?"
    rf"(?:(?:,| \(| (?:for|with|in|that|which|as|to|you|below|based|{_CHANGED})\b)[^\n:]*)?"
)

# A line that announces the rewrite ends with a colon and names no subject of its own: "Here is the
# revised summary:" goes, "Here is the text of the law:" belongs to the text and stays.
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
    """The simulated user's decision and text.

    Attributes:
        decision: accepted, rewritten, or undecided, which is rewritten too.
        reply: the reply that holds the decision.
        raw: the reply that holds the rewrite, empty without one.
        final: the text that the user is content with.
    """

    decision: str
    reply: str
    raw: str
    final: str


def parse_decision(reply: str) -> str:
    """Parse the first whole word that is yes or no, outside of reasoning."""
    match = _WORD.search(strip_reasoning(reply).lower())
    if match is None:
        return "undecided"
    return "accepted" if match[1] == "yes" else "rewritten"


def clean_rewrite(reply: str, draft: str = "") -> str:
    """Remove reasoning from a rewrite and, once each, an announcement, a fence and quotes.

    A step that yields the draft is the last one: a draft may have such a line or quotes of its own.
    """
    text = reply
    for remove in (strip_reasoning, _remove_announcement, _remove_fence, _remove_quotes):
        text = remove(text).strip()
        if text == draft.strip():
            break
    return text


async def react(
    simulator: Role,
    texts: Prompts,
    words: Vocabulary,
    document: str,
    draft: str,
    preference: str,
    max_tokens: int,
    top_p: float = TOP_P,
) -> Reaction:
    """Let the user react to a draft; flags undecided, cleaned and unchanged replies.

    The document is left out of the request to rewrite: the user edits the draft and cannot add to
    its content.

    Raises:
        BackendError: a call failed for good, or the rewrite was empty twice.
    """
    slots = {"draft": draft, "preference": preference}
    question = texts.messages(PROMPTS, "accept", words, {**slots, "document": document})
    reply = await _call_user(simulator, question, max_tokens, top_p)
    decision = parse_decision(reply)
    if decision == "accepted":
        return Reaction(decision, reply, "", draft)
    if decision == "undecided":
        simulator.flag("undecided")

    request = texts.messages(PROMPTS, "rewrite", words, slots)
    raw = await _request_text(simulator, request, "rewrite", max_tokens, top_p, draft)
    final = clean_rewrite(raw, draft)
    if final != raw.strip():
        simulator.flag("cleaned_rewrite")
    if final == draft.strip():
        simulator.flag("unchanged_rewrite")
    return Reaction(decision, reply, raw, final)


async def write(
    simulator: Role,
    texts: Prompts,
    words: Vocabulary,
    document: str,
    preferences: Sequence[str],
    max_tokens: int,
    top_p: float,
) -> tuple[str, str]:
    """Let the user write a text about a document: the reply, and the text; flags a cleaned one.

    Raises:
        BackendError: the call failed for good, or the text was empty twice.
    """
    listed = "\n".join(f"- {preference}" for preference in preferences)
    slots = {"document": document, "preferences": listed}
    request = texts.messages(PLUME_PROMPTS, "write", words, slots)
    raw = await _request_text(simulator, request, "text", max_tokens, top_p)
    text = clean_rewrite(raw)
    if text != raw.strip():
        simulator.flag("cleaned_text")
    return raw, text


async def _request_text(
    simulator: Role,
    request: Sequence[Message],
    noun: str,
    max_tokens: int,
    top_p: float,
    draft: str = "",
) -> str:
    """Request a text, a second time if it is empty after cleaning, which the flag counts.

    Raises:
        BackendError: a call failed for good, or both texts were empty.
    """
    for repeat in range(2):
        raw = await _call_user(
            simulator,
            request,
            max_tokens,
            top_p,
            repeat=repeat,
            accept=lambda text: bool(clean_rewrite(text, draft)),
        )
        if clean_rewrite(raw, draft):
            return raw
        simulator.flag(f"empty_{noun}")
    raise BackendError(
        f"the simulated user's {noun} was empty twice, so this trajectory stops here; "
        "repeat the command to continue, or name another model with --simulator-model"
    )


def _remove_announcement(text: str) -> str:
    return _META.sub("", text, count=1)


def _remove_fence(text: str) -> str:
    match = _FENCE.match(text)
    return match[1] if match else text


def _remove_quotes(text: str) -> str:
    """Remove quotes around a whole text that has no such quotes inside."""
    inner = text[1:-1]
    for opening, closing in _QUOTES:
        wrapped = text == f"{opening}{inner}{closing}"
        if wrapped and opening not in inner and closing not in inner:
            return inner
    return text


async def _call_user(
    simulator: Role,
    messages: Sequence[Message],
    max_tokens: int,
    top_p: float,
    repeat: int = 0,
    accept: Callable[[str], bool] | None = None,
) -> str:
    return await simulator.complete(
        messages,
        max_tokens=max_tokens,
        top_p=top_p,
        repeat=repeat,
        accept=accept,
    )
