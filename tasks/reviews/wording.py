"""Prompts of the review task: the same words for a past review and for the one to write."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from personabench.api.layout import Layout, Parts, arrange
from personabench.api.wording import Rendered, Vocabulary
from personabench.metrics.text import strip_chatter
from personabench.types import Record, Sample

GOAL = (
    "You write the review that one particular reviewer wrote of an item, "
    "in that reviewer's own manner, with the given rating and under the given review title."
)
ANSWER_FORM = "the text of the review"
WORDS = Vocabulary(
    person="reviewer",
    stimulus="item",
    response="review",
    profile_question=(
        "What does this reviewer attend to in an item, how do they judge and feel about it, "
        "and how do they write: "
        "openings, closings, sentence length, words and habits that come back?"
    ),
    axes=(
        (
            "Writing",
            "choice of words, sentence structure, length, how a review opens and closes",
        ),
        (
            "Emotion",
            "how positive or negative it is, how strongly that is put, irony or warmth",
        ),
        (
            "Substance",
            "what about the item is attended to, how dense the details are, "
            "how the points hang together",
        ),
    ),
    goal=GOAL,
    answer_form=ANSWER_FORM,
    instruction=f"{GOAL} Answer with {ANSWER_FORM} and nothing else.",
)
# Models mark the tag in many ways: `Review:`, `**Review:**`, `[Review]`, or on a line of its own.
_TAG = re.compile(
    r"^[\s*_#>]*(?:[\[<(]\s*)?review(?:[\])>*_\s]*:[*_]*|\s*[\])>*_]+|\s*\n)\s*",
    re.IGNORECASE,
)
UNTITLED = "untitled"
"""Attribute or field of a review whose item has a description but no title."""


def format_request(stimulus: str | None, attributes: Mapping[str, str]) -> str:
    """Format the request for a review: the item, then rating and review title if known."""
    parts = ["Write the review of this item."]
    if stimulus:
        parts.append(f"Item: {stimulus}")
    facts = format_facts(attributes)
    if facts:
        parts.append(facts)
    return "\n\n".join(parts)


def format_facts(attributes: Mapping[str, str]) -> str:
    """Format a review's rating and title, one line each, if known."""
    facts = []
    rating = attributes.get("rating")
    if rating:
        facts.append(f"Rating: {rating} of 5")
    title = attributes.get("review_title")
    if title:
        facts.append(f"Review title: {title}")
    return "\n".join(facts)


def render_chat(
    sample: Sample,
    records: Sequence[Record],
    notes: str,
    opening: str,
    options: Layout,
) -> Rendered:
    """Render an opening instruction and the profile, past reviews as turns, then the question."""
    parts = Parts(
        opening=opening,
        question=sample.input,
        notes=f"About this {WORDS.person}:\n{notes}" if notes else "",
        records=records,
        word_turn=lambda record: format_request(record.stimulus, record.fields),
        word_list=_list_reviews,
    )
    return Rendered(tuple(arrange(parts, options, "turns")), tuple(records))


def _list_reviews(records: Sequence[Record]) -> str:
    descriptions = [describe_record(record) for record in records]
    return "\n\n".join([f"Earlier reviews by this {WORDS.person}:", *descriptions])


def describe_record(record: Record) -> str:
    """Format a past review as labelled text."""
    parts = [] if record.stimulus is None else [f"Item: {record.stimulus}"]
    parts.append(format_facts(record.fields))
    parts.append(f"Review: {record.response}")
    return "\n".join(parts)


def make_search_text(facts: Mapping[str, str], stimulus: str | None) -> str:
    """Return a review's retrieval text: its title and the item's description.

    Args:
        facts: the attributes of a question or the fields of a record.
    """
    text = stimulus or ""
    # The item's title would match every other review of the item.
    description = text if UNTITLED in facts else text.partition("\n")[2]
    review_title = facts.get("review_title", "")
    return f"{review_title} {description}".strip() or text


def strip_tag(output: str) -> str:
    """Remove a leading `Review:` tag, with or without markup, and surrounding white space."""
    return _TAG.sub("", output, count=1).strip()


def parse_reply(output: str, scorer: str) -> str | None:
    """Parse a reply: `official` removes the tag only, `lenient` also chatty text around it."""
    if scorer == "official":
        return strip_tag(output)
    return strip_tag(strip_chatter(output)) or None
