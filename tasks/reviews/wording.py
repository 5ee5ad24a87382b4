"""How a review is asked for: the same words for a past review shown as an example and for the one to write."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from personabench.api.wording import Rendered, Vocabulary
from personabench.metrics.text import strip_chatter
from personabench.types import Message, Record, Sample

WORDS = Vocabulary(
    person="reviewer",
    stimulus="item",
    response="review",
    profile_question=(
        "What does this reviewer attend to in an item, how do they judge and feel about it, and how do they write: "
        "openings, closings, sentence length, words and habits that come back?"
    ),
    axes=(
        ("Writing", "choice of words, sentence structure, length, how a review opens and closes"),
        ("Emotion", "how positive or negative it is, how strongly that is put, irony or warmth"),
        (
            "Substance",
            "what about the item is attended to, how dense the details are, how the points hang together",
        ),
    ),
    instruction=(
        "You write the review that one particular reviewer wrote of an item, in that reviewer's own manner, with the "
        "given rating and under the given review title. Answer with the text of the review and nothing else."
    ),
)
_TAG = re.compile(
    r"^[\s*_#>]*[\[<(]?\s*review\s*(?:[\])>*_\s]*:[*_]*|[\])>*_]+|[ \t]*\n)\s*", re.IGNORECASE
)


def request(stimulus: str | None, attributes: Mapping[str, str]) -> str:
    """What a review is written from: the item, then the rating and the review's title, as far as they are known."""
    parts = ["Write the review of this item."]
    if stimulus:
        parts.append(f"Item: {stimulus}")
    known = facts(attributes)
    return "\n\n".join([*parts, *([known] if known else [])])


def facts(known: Mapping[str, str]) -> str:
    """A review's rating and title, a line for either, as far as they are known."""
    lines = [f"Rating: {known['rating']} of 5"] if known.get("rating") else []
    lines += [f"Review title: {known['review_title']}"] if known.get("review_title") else []
    return "\n".join(lines)


def chat(sample: Sample, records: Sequence[Record], notes: str) -> Rendered:
    """The contract, notes about the reviewer, past reviews as earlier turns with the best one last, the question."""
    system = [WORDS.instruction, *([f"About this {WORDS.person}:\n{notes}"] if notes else [])]
    turns: list[Message] = []
    for record in reversed(records):
        turns.append(Message("user", request(record.stimulus, record.fields)))
        turns.append(Message("assistant", record.response))
    messages = (Message("system", "\n\n".join(system)), *turns, Message("user", sample.input))
    return Rendered(messages, tuple(records))


def describe(record: Record) -> str:
    """A past review as labelled text."""
    item = [] if record.stimulus is None else [f"Item: {record.stimulus}"]
    return "\n".join([*item, facts(record.fields), f"Review: {record.response}"])


def search_text(review_title: str, stimulus: str | None) -> str:
    """What a review is found by: its title and the item's description; neither the item's title nor the body."""
    _, _, description = (stimulus or "").partition("\n")
    return f"{review_title} {description}".strip() or stimulus or ""


def untagged(output: str) -> str:
    """A reply without a leading `Review:` tag, however that is marked, and without white space around it."""
    return _TAG.sub("", output, count=1).strip()


def read(output: str, scorer: str) -> str | None:
    """A reply as a scorer reads it: `official` drops the tag alone, `lenient` also what chatty models put around."""
    return untagged(output) if scorer == "official" else untagged(strip_chatter(output)) or None
