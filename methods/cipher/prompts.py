"""Prompts of CIPHER and its family, in the task's vocabulary, and the parsing of the replies.

Pairs are ordered with the most important one last: it is next to the question, and the first ones
are dropped when the model's window is full.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NotRequired, TypedDict

import msgspec

from personabench import Context, Message, Record, Rendered, Sample
from personabench.errors import BackendError
from personabench.metrics.text import strip_reasoning

# The prompts request a short phrase; longer replies are explanations, which crowd out the question.
LONGEST_PREFERENCE = 60
# Token limits to which texts are shortened, one after the other, until the request fits.
_SHORTER = (1024, 512, 256, 128, 64, 32)
_LABEL = re.compile(
    r"^[\s*_#>-]*(?:preference|tendency|phrase|answer)s?[\s*_]*:[\s*_]*", re.IGNORECASE
)
_FINAL = r"^[\s*_#>-]*final(?: (?:{}|answer|text|version))?[\s*_]*:[*_]*"
# A reply that names nothing, also with a reason after it, but not a phrase that begins with such a
# word ("none of the usual jargon", "no/low sugar").
_NOTHING = re.compile(
    r"[\W_]*(?:none|null|nil|nothing|n/?a|no preferences?|unknown)"
    r"(?![*_`\"'”’]*(?:[^\S\n]*\w|[/-]\w))",
    re.IGNORECASE,
)


class Round(TypedDict):
    """One exchange: its subject, the draft, the user's version, and the preference used or learned.

    `draft` is None if the user wrote without one.  `preference` is the one the draft was made with,
    or "", and after learning, the one learned.  `cost` is the user's edit cost if the task reports
    it, else None; `t` the number of an online round, from 0.  `spoken` marks an exchange of a
    conversation: `draft` is the assistant's reply, `final` the user's next message.
    """

    text: str
    draft: str | None
    final: str
    preference: str
    cost: float | None
    t: NotRequired[int]
    spoken: NotRequired[bool]


def format_notes(preference: str, ctx: Context) -> str:
    """A preference as notes for the answer; empty without one."""
    if preference and ctx.task.kind == "text":
        return f"Prefers: {preference}"
    # The preference behind labels is a whole tendency, which reads badly after "Prefers:".
    return preference


def draft_inferences(pairs: Sequence[Round], ctx: Context) -> Iterator[Rendered]:
    """Requests for the preference behind edits: of all pairs, fewer, then the last shortened."""
    for start in range(len(pairs)):
        yield Rendered(_inference_prompt(pairs[start:], None, ctx))
    for limit in _SHORTER:
        yield Rendered(_inference_prompt(pairs[-1:], limit, ctx))


def _inference_prompt(
    pairs: Sequence[Round],
    limit: int | None,
    ctx: Context,
) -> tuple[Message, ...]:
    words = ctx.task.words
    listed = _format_pairs(pairs, limit, ctx)
    if pairs[-1].get("spoken"):
        system = (
            f"You see what an assistant replied to one {words.person}, "
            f"and what this {words.person} said next. "
            f"Name what that shows of the {words.person}'s wishes: content, tone, likes and "
            "dislikes. "
            "Reply with one short phrase that would also hold later, or NONE if it shows nothing."
        )
        return Message("system", system), Message("user", f"{listed}\n\nPreference:")

    has_drafts = any(pair["draft"] is not None for pair in pairs)
    if ctx.task.kind != "text":
        situation = f"You see what one {words.person} answered"
        situation += " and what an assistant had guessed." if has_drafts else "."
        instruction = (
            f"Name the general tendency in this {words.person}'s choice of {words.response} "
            "that explains it."
        )
        ending = "Tendency:"
    else:
        if has_drafts:
            situation = (
                f"An assistant drafted a {words.response}, "
                f"and one {words.person} turned it into a version of their own."
            )
        else:
            situation = f"You see a {words.response} by one {words.person}."
        instruction = f"Name what this {words.person} generally prefers in form, tone and wording."
        ending = "Preference:"

    system = (
        f"{situation} {instruction} "
        "Reply with one short phrase that would also hold for other topics; repeat no facts."
    )
    return Message("system", system), Message("user", f"{listed}\n\n{ending}")


def draft_aggregation(
    preferences: Sequence[str],
    ctx: Context,
    *,
    timed: bool = False,
) -> tuple[Message, ...]:
    """The request to merge preferences; if `timed`, the later ones take precedence."""
    if timed:
        instruction = (
            "Merge them, oldest first as they are, into one short phrase; "
            "where two disagree, the later one holds."
        )
    else:
        instruction = "Merge them into one short phrase that keeps the points most of them share."
    system = (
        f"You see notes on what one {ctx.task.words.person} prefers. {instruction} "
        "Reply with the phrase only."
    )
    listed = "\n".join(f"- {preference}" for preference in preferences)
    return Message("system", system), Message("user", f"{listed}\n\nPreference:")


def draft_rewrites(record: Record, ctx: Context) -> Iterator[Rendered]:
    """Requests to rewrite a text neutrally, as a draft: all of it, then its beginning."""
    response_word = ctx.task.words.response
    system = (
        f"Rewrite the {response_word} in plain, neutral language. Keep its meaning. "
        f"Reply with the rewritten {response_word} only."
    )
    for limit in (None, *_SHORTER):
        text = _truncate(record.response, limit, ctx)
        yield Rendered((Message("system", system), Message("user", text)))


def draft_questions(record: Record, template: Sample, ctx: Context) -> Iterator[Sample]:
    """A record as a question in the wording of another one; then with a shorter stimulus."""
    for limit in (None, *_SHORTER):
        stimulus = _truncate(record.stimulus or record.response, limit, ctx)
        shortened = msgspec.structs.replace(record, stimulus=stimulus)
        yield ctx.task.question(shortened, template)


def add_examples(
    sample: Sample,
    pairs: Sequence[Round],
    ctx: Context,
) -> Iterator[Rendered]:
    """The question with earlier edits of the same user; then with fewer, finally with none."""
    person = ctx.task.words.person
    if any(pair.get("spoken") for pair in pairs):
        heading = f"How this {person} took earlier replies"
    else:
        heading = f"What this {person} made of earlier drafts"

    for start in range(len(pairs) + 1):
        listed = _format_pairs(pairs[start:], None, ctx)
        notes = f"{heading}:\n\n{listed}" if listed else ""
        yield ctx.task.render(sample, (), notes, ctx.tokens)


def ask_for_reasoning(question: Rendered, ctx: Context) -> Rendered:
    """The question with the request to think first and to mark the answer."""
    words = ctx.task.words
    request = (
        f"First say in one or two sentences what the {words.person}'s changes have in common. "
        f'Then write "Final:" and after it the {words.response} alone.'
    )
    *earlier, last = question.messages
    last = msgspec.structs.replace(last, content=f"{last.content}\n\n{request}")
    return replace(question, messages=(*earlier, last))


def fit_variant(
    variants: Iterable[Rendered],
    cut: str,
    max_tokens: int,
    ctx: Context,
) -> tuple[Message, ...]:
    """The first variant that fits the window beside its reply; the flag `cut` counts those that do
    not.

    Raises:
        BackendError: none fits.
    """
    for number, variant in enumerate(variants):
        if ctx.count_excess_tokens(variant.messages, max_tokens) > 0:
            continue
        if number:
            ctx.flag(cut, number)
        for name, amount in variant.flags.items():
            ctx.flag(name, amount)
        return variant.messages

    raise BackendError(
        f"no shortened request fits the model's window of {ctx.window}; use a larger one"
    )


def read_phrase(reply: str) -> str:
    """A preference in one line; empty if the reply names none, with or without a reason."""
    text = strip_reasoning(reply).strip()
    text = _LABEL.sub("", text, count=1)
    if _NOTHING.match(text):
        return ""
    return " ".join(text.strip("\"'“”*_` \n").split())


def cap_preference(preference: str, ctx: Context) -> str:
    """A preference of at most 60 words; a longer one is truncated and flagged."""
    words = preference.split()
    if len(words) > LONGEST_PREFERENCE:
        ctx.flag("preference_capped")
    return " ".join(words[:LONGEST_PREFERENCE])


def read_final(reply: str, ctx: Context) -> str:
    """The text after the last mark of a reasoned answer; without one, the whole reply, flagged."""
    text = strip_reasoning(reply).strip()
    # "Final" alone or with the task's word for an answer, because answers have lines like "Final
    # score:".
    mark = _FINAL.format(re.escape(ctx.task.words.response))
    marks = list(re.finditer(mark, text, re.IGNORECASE | re.MULTILINE))
    final = text[marks[-1].end() :].strip() if marks else ""
    if not final:
        ctx.flag("no_final")
        return text
    return final


def _format_pairs(
    pairs: Sequence[Round],
    limit: int | None,
    ctx: Context,
) -> str:
    return "\n\n".join(_format_pair(pair, limit, ctx) for pair in pairs)


def _format_pair(pair: Round, limit: int | None, ctx: Context) -> str:
    words = ctx.task.words
    draft = None
    if pair["draft"] is not None:
        draft = _truncate(pair["draft"], limit, ctx)
    final = _truncate(pair["final"], limit, ctx)

    if pair.get("spoken"):
        return f"Assistant: {draft}\n{words.person.capitalize()}: {final}"
    if ctx.task.kind == "text":
        lines = [f"Final: {final}"]
        if draft is not None:
            lines.insert(0, f"Draft: {draft}")
        return "\n".join(lines)

    stimulus = _truncate(pair["text"], limit, ctx)
    lines = [f"{words.stimulus.capitalize()}: {stimulus}"]
    if draft is not None:
        lines.append(f"Guess: {draft}")
    lines.append(f"{words.response.capitalize()}: {final}")
    return "\n".join(lines)


def _truncate(text: str, limit: int | None, ctx: Context) -> str:
    return text if limit is None else ctx.tokens.truncate(text, limit)
