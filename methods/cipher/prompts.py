"""What CIPHER and its family ask the model, in the task's vocabulary, and how they read the replies.

Pairs come with the most important one last: it stands next to the question, and the first ones go when the model's
window is full.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NotRequired, TypedDict

import msgspec

from personabench import Context, Message, Record, Rendered, Sample
from personabench.errors import BackendError
from personabench.metrics.text import without_reasoning

LONGEST_PREFERENCE = 60
_SHORTER = (1024, 512, 256, 128, 64, 32)
_LABEL = re.compile(
    r"^[\s*_#>-]*(?:preference|tendency|phrase|answer)s?[\s*_]*:[\s*_]*", re.IGNORECASE
)
_FINAL = r"^[\s*_#>-]*final(?: (?:{}|answer|text|version))?[\s*_]*:[*_]*"
_NOTHING = re.compile(
    r"[\W_]*(?:none|null|nil|nothing|n/?a|no preferences?|unknown)(?![*_`\"'”’]*(?:[^\S\n]*\w|[/-]\w))",
    re.IGNORECASE,
)


class Round(TypedDict):
    """One exchange: what was asked about, the draft, what the user made of it, and what is known of the user.

    `draft` is None where the user wrote without one.  `preference` is the one the draft was made with, or "", and once
    learnt from, the one learnt.  `cost` is the user's edit cost where the task told it, else None; `t` the number of an
    online round, from 0.  `spoken` marks an exchange: the "draft" is what an assistant replied, the "final" what the
    user said next.
    """

    text: str
    draft: str | None
    final: str
    preference: str
    cost: float | None
    t: NotRequired[int]
    spoken: NotRequired[bool]


def notes_of(preference: str, ctx: Context) -> str:
    """A preference as notes for the answer; empty for none."""
    return f"Prefers: {preference}" if preference and ctx.task.kind == "text" else preference


def inference(pairs: Sequence[Round], ctx: Context) -> Iterator[Rendered]:
    """Which preference explains these edits: all pairs, then fewer, then the last one shortened."""
    for start in range(len(pairs)):
        yield Rendered(_inference(pairs[start:], None, ctx))
    for limit in _SHORTER:
        yield Rendered(_inference(pairs[-1:], limit, ctx))


def _inference(pairs: Sequence[Round], limit: int | None, ctx: Context) -> tuple[Message, ...]:
    words = ctx.task.words
    edits = any(pair["draft"] is not None for pair in pairs)
    if pairs[-1].get("spoken"):
        told = f"You see what an assistant replied to one {words.person}, and what this {words.person} said next."
        asked = f"Name what that shows of the {words.person}'s wishes: content, tone, likes and dislikes."
        system = f"{told} {asked} Reply with one short phrase that would also hold later, or NONE if it shows nothing."
        return Message("system", system), Message(
            "user", f"{_listed(pairs, limit, ctx)}\n\nPreference:"
        )
    if ctx.task.kind != "text":
        told = f"You see what one {words.person} answered" + (
            " and what an assistant had guessed." if edits else "."
        )
        asked = f"Name the general tendency in this {words.person}'s choice of {words.response} that explains it."
    elif edits:
        told = f"An assistant drafted a {words.response}, and one {words.person} turned it into a version of their own."
        asked = f"Name what this {words.person} generally prefers in form, tone and wording."
    else:
        told = f"You see a {words.response} by one {words.person}."
        asked = f"Name what this {words.person} generally prefers in form, tone and wording."
    system = f"{told} {asked} Reply with one short phrase that would also hold for other topics; repeat no facts."
    ending = "Preference:" if ctx.task.kind == "text" else "Tendency:"
    return Message("system", system), Message("user", f"{_listed(pairs, limit, ctx)}\n\n{ending}")


def aggregation(
    preferences: Sequence[str], ctx: Context, *, timed: bool = False
) -> tuple[Message, ...]:
    """One preference that stands for several; with `timed` they come in time order, and the later ones count."""
    words = ctx.task.words
    merge = (
        "Merge them, oldest first as they are, into one short phrase; where two disagree, the later one holds."
        if timed
        else "Merge them into one short phrase that keeps the points most of them share."
    )
    system = (
        f"You see notes on what one {words.person} prefers. {merge} Reply with the phrase only."
    )
    listed = "\n".join(f"- {preference}" for preference in preferences)
    return Message("system", system), Message("user", f"{listed}\n\nPreference:")


def neutral(record: Record, ctx: Context) -> Iterator[Rendered]:
    """A neutral rewrite of a text that answers nothing, to serve as its draft; then of its beginning."""
    system = (
        f"Rewrite the {ctx.task.words.response} in plain, neutral language. Keep its meaning. "
        f"Reply with the rewritten {ctx.task.words.response} only."
    )
    for limit in (None, *_SHORTER):
        yield Rendered(
            (Message("system", system), Message("user", _cut(record.response, limit, ctx)))
        )


def questions(record: Record, like: Sample, ctx: Context) -> Iterator[Sample]:
    """A record as if it were asked, in the wording of another question; then with a shorter stimulus."""
    for limit in (None, *_SHORTER):
        stimulus = _cut(record.stimulus or record.response, limit, ctx)
        yield ctx.task.question(msgspec.structs.replace(record, stimulus=stimulus), like)


def with_examples(sample: Sample, pairs: Sequence[Round], ctx: Context) -> Iterator[Rendered]:
    """The question with earlier edits of the same user; then with fewer, at last with none."""
    person = ctx.task.words.person
    for start in range(len(pairs) + 1):
        listed = _listed(pairs[start:], None, ctx)
        spoken = any(pair.get("spoken") for pair in pairs)
        about = (
            f"How this {person} took earlier replies"
            if spoken
            else f"What this {person} made of earlier drafts"
        )
        notes = f"{about}:\n\n{listed}" if listed else ""
        yield ctx.task.render(sample, (), notes, ctx.tokens)


def with_reasoning(question: Rendered, ctx: Context) -> Rendered:
    """A question that is to be answered after a thought, behind a mark."""
    words = ctx.task.words
    request = (
        f"First say in one or two sentences what the {words.person}'s changes have in common. "
        f'Then write "Final:" and after it the {words.response} alone.'
    )
    *earlier, last = question.messages
    return replace(
        question,
        messages=(*earlier, msgspec.structs.replace(last, content=f"{last.content}\n\n{request}")),
    )


def fitting(
    variants: Iterable[Rendered], cut: str, max_tokens: int, ctx: Context
) -> tuple[Message, ...]:
    """The first variant that fits the window beside its reply, its flags raised; `cut` counts those that did not.

    Raises:
        BackendError: none fits.
    """
    for number, variant in enumerate(variants):
        if ctx.excess(variant.messages, max_tokens) <= 0:
            if number:
                ctx.flag(cut, number)
            for name, amount in variant.flags.items():
                ctx.flag(name, amount)
            return variant.messages
    raise BackendError(
        f"no shortened request fits the model's window of {ctx.window}; use a larger one"
    )


def phrase(reply: str) -> str:
    """A preference in one line; empty where the reply names none, or says so before it says why."""
    named = _LABEL.sub("", without_reasoning(reply).strip(), count=1)
    return "" if _NOTHING.match(named) else " ".join(named.strip("\"'“”*_` \n").split())


def capped(preference: str, ctx: Context) -> str:
    """A preference of at most 60 words; a longer one is cut, counted."""
    words = preference.split()
    if len(words) > LONGEST_PREFERENCE:
        ctx.flag("preference_capped")
    return " ".join(words[:LONGEST_PREFERENCE])


def marked(reply: str, ctx: Context) -> str:
    """What follows the last mark of a reasoned answer; the whole reply, flagged, where nothing does.

    A mark is "Final" alone or with the task's word for an answer, since answers have lines like "Final score:".
    """
    text = without_reasoning(reply).strip()
    mark = _FINAL.format(re.escape(ctx.task.words.response))
    marks = list(re.finditer(mark, text, re.IGNORECASE | re.MULTILINE))
    final = text[marks[-1].end() :].strip() if marks else ""
    if not final:
        ctx.flag("no_final")
    return final or text


def _listed(pairs: Sequence[Round], limit: int | None, ctx: Context) -> str:
    return "\n\n".join(_shown(pair, limit, ctx) for pair in pairs)


def _shown(pair: Round, limit: int | None, ctx: Context) -> str:
    draft = None if pair["draft"] is None else _cut(pair["draft"], limit, ctx)
    final = _cut(pair["final"], limit, ctx)
    if pair.get("spoken"):
        return f"Assistant: {draft}\n{ctx.task.words.person.capitalize()}: {final}"
    if ctx.task.kind == "text":
        return f"Final: {final}" if draft is None else f"Draft: {draft}\nFinal: {final}"
    about = f"{ctx.task.words.stimulus.capitalize()}: {_cut(pair['text'], limit, ctx)}"
    guess = "" if draft is None else f"\nGuess: {draft}"
    return f"{about}{guess}\n{ctx.task.words.response.capitalize()}: {final}"


def _cut(text: str, limit: int | None, ctx: Context) -> str:
    return text if limit is None else ctx.tokens.cut(text, limit)
