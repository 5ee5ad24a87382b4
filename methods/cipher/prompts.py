"""Prompts of CIPHER and its family, in the task's vocabulary, and the parsing of the replies.

Pairs are ordered with the most important one last: it is next to the question, and the first ones
are dropped when the model's window is full.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NotRequired, TypedDict

import msgspec

from personabench import Context, Message, PromptFile, Record, Rendered, Sample
from personabench.errors import BackendError
from personabench.metrics.text import strip_reasoning

PROMPTS = PromptFile(__file__, "cipher.prompts.toml")

# The prompts request a short phrase; longer replies are explanations, which crowd out the question.
LONGEST_PREFERENCE = 60
"""Default of the parameter `preference_max_words`."""
# Token limits to which texts are shortened, one after the other, until the request fits.
_SHORTER = (1024, 512, 256, 128, 64, 32)
_LABEL = re.compile(
    r"^[\s*_#>-]*(?:preference|tendency|phrase|answer)s?[\s*_]*:[\s*_]*", re.IGNORECASE
)
_FINAL = r"^(?:[^\S\n]|[*_#>-])*final(?: (?:{}|answer|text|version))?[\s*_]*:[*_]*"
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
    if not preference:
        return ""
    # The preference behind labels is a whole tendency, which reads badly after "Prefers:".
    stage = "notes" if ctx.task.kind == "text" else "notes_of_choices"
    return ctx.part(PROMPTS, stage, preference=preference)


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
    listed = _format_pairs(pairs, limit, ctx)
    return ctx.prompt(PROMPTS, _choose_inference(pairs, ctx), pairs=listed)


def _choose_inference(pairs: Sequence[Round], ctx: Context) -> str:
    """The stage that infers from such pairs."""
    if pairs[-1].get("spoken"):
        return "infer_conversation"
    has_drafts = any(pair["draft"] is not None for pair in pairs)
    if ctx.task.kind == "text":
        return "infer_edits" if has_drafts else "infer_texts"
    return "infer_choices" if has_drafts else "infer_answers"


def draft_aggregation(
    preferences: Sequence[str],
    ctx: Context,
    *,
    timed: bool = False,
) -> tuple[Message, ...]:
    """The request to merge preferences; if `timed`, the later ones take precedence."""
    listed = "\n".join(f"- {preference}" for preference in preferences)
    stage = "aggregate_timed" if timed else "aggregate"
    return ctx.prompt(PROMPTS, stage, preferences=listed)


def draft_rewrites(record: Record, ctx: Context) -> Iterator[Rendered]:
    """Requests to rewrite a text neutrally, as a draft: all of it, then its beginning."""
    for limit in (None, *_SHORTER):
        text = _truncate(record.response, limit, ctx)
        yield Rendered(ctx.prompt(PROMPTS, "rewrite", text=text))


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
    contract: str = "",
    *,
    order: str = "nearest_last",
) -> Iterator[Rendered]:
    """The question with earlier edits of the same user; then with fewer, finally with none.

    Pairs come nearest last and are shown in `order`. `contract` replaces the task's own form of an
    answer.
    """
    is_spoken = any(pair.get("spoken") for pair in pairs)
    stage = "spoken_examples" if is_spoken else "edited_examples"

    for start in range(len(pairs) + 1):
        shown = pairs[start:] if order == "nearest_last" else pairs[start:][::-1]
        listed = _format_pairs(shown, None, ctx)
        notes = ctx.part(PROMPTS, stage, pairs=listed) if listed else ""
        yield ctx.word(sample, notes=notes, contract=contract)


def request_reasoning(ctx: Context) -> str:
    """The request to think first and to mark the answer."""
    return ctx.part(PROMPTS, "reasoning")


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


def cap_preference(preference: str, ctx: Context, limit: int = LONGEST_PREFERENCE) -> str:
    """A preference of at most so many words; a longer one is truncated and flagged."""
    words = preference.split()
    if len(words) > limit:
        ctx.flag("preference_capped")
    return " ".join(words[:limit])


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
    draft = None
    if pair["draft"] is not None:
        draft = _truncate(pair["draft"], limit, ctx)
    final = _truncate(pair["final"], limit, ctx)

    if pair.get("spoken"):
        return ctx.part(PROMPTS, "spoken_pair", draft=draft or "", final=final)
    if ctx.task.kind == "text":
        if draft is None:
            return ctx.part(PROMPTS, "own_text", final=final)
        return ctx.part(PROMPTS, "edit_pair", draft=draft, final=final)

    stimulus = _truncate(pair["text"], limit, ctx)
    if draft is None:
        return ctx.part(PROMPTS, "own_answer", stimulus_text=stimulus, final=final)
    return ctx.part(PROMPTS, "choice_pair", stimulus_text=stimulus, draft=draft, final=final)


def _truncate(text: str, limit: int | None, ctx: Context) -> str:
    return text if limit is None else ctx.tokens.truncate(text, limit)
