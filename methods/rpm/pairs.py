"""The query-answer pairs in a user's history, for each kind of history.

Most records are pairs.  Some are an answer alone: a paper has its title for a query, a tweet gets a
neutral paraphrase from the model.  Two kinds of record are recognized by their fields: chat
messages (`role`) become the preferences that the user states, and labelled questions (`cut`, the
position in the chat at which they came up) pairs with the correct letter.  Records equal to the
question itself are dropped here, before any model call.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence

import msgspec

from personabench import Context, Record, Sample, UsageError, Wording
from personabench.hashing import digest, fold_text
from personabench.methods.rpm import prompts
from personabench.methods.rpm.knowledge import Item, Knowledge, ordered_labels
from personabench.methods.rpm.replies import (
    read_rows,
    request_parsed,
    shorten_until_fit,
    to_line,
    to_whole_number,
)

# The user's messages in one request, and preferences accepted from it: more are missed or padded.
WINDOW_MESSAGES = 12
WINDOW_ITEMS = 6
LETTERS = ("a", "b", "c", "d")
# Token limits of a message when a window does not fit the request.
_SHORTER = (256, 64)
# Messages as (number, role, text).
Window = list[tuple[int, str, str]]
_QUOTED = re.compile(r'"(.+?)"', re.DOTALL)


def select_visible_records(sample: Sample, *, letters: bool) -> tuple[Record, ...]:
    """The records that a sample's state may be made from: one kind of a chat's records, and never
    the question itself.

    A record is the question itself if it has its id or, apart from case and spacing, its text; the
    paper of a record without a stimulus if the question quotes its title.  Labelled questions must
    be strictly earlier in the chat than this one.
    """
    records = [record for record in sample.history if not _is_question(record, sample)]
    if not letters:
        return tuple(record for record in records if "cut" not in record.fields)
    cut = int(sample.attributes.get("cut", 0))
    return tuple(
        record for record in records if "cut" in record.fields and int(record.fields["cut"]) < cut
    )


def seen(history: Sequence[Record]) -> str:
    """The digest of a history's content."""
    return digest(history)


def make_query(sample: Sample, task: Wording) -> str:
    """The question's own content, with the facts that the task gives about its answer.

    Without a stimulus that is the text the task searches histories with, after the first quotation
    of the input if that is another text (the author's own title, then the candidates).
    """
    if sample.stimulus:
        return _with_facts(sample.stimulus, task.facts(sample.attributes))
    search_text = task.query_text(sample)
    quoted = _QUOTED.search(sample.input)
    if quoted is None or quoted[1] in search_text:
        return search_text
    return f"{quoted[1]}\n{search_text}"


def list_offered_choices(
    sample: Sample,
    items: Sequence[Item],
    task: Wording,
) -> tuple[str, ...]:
    """The choices of a question, if its answer is one of them and unlike the user's past answers.

    Empty if the past answers are such choices (tags, scores), or if the task accepts other texts.
    """

    def parse(text: str) -> str | None:
        return task.parse(text, sample, task.scorers[0])

    if any(item.answer in sample.choices for item in items):
        return ()
    # A task that accepts its own word for a response as an answer accepts any text.
    if parse(task.words.response) is not None:
        return ()
    if any(parse(choice) != choice for choice in sample.choices):
        return ()
    return sample.choices


async def gather_pairs(
    history: Sequence[Record],
    ctx: Context,
    *,
    cap: int | None,
    stats_mode: str,
    max_tokens: int,
    tries: int,
) -> Knowledge:
    """The pairs of a history, at most the `cap` newest, before anything is learned from them.

    Raises:
        UsageError: `stats_mode` is propensity, but answers are not labels.
    """
    is_chat = any("role" in record.fields for record in history)
    is_labelled = any("cut" in record.fields for record in history)
    is_bare = not is_chat and any(record.stimulus is None for record in history)
    newest = slice(-cap if cap else None, None)
    if is_chat:
        # Only the whole chat has all preferences, so that the cap applies to them, not to messages.
        items = (await _items_from_chat(history, ctx, max_tokens, tries))[newest]
    else:
        items = await asyncio.gather(
            *(_item_from_record(record, ctx, max_tokens, tries) for record in history[newest])
        )

    if stats_mode == "propensity" and (is_bare or is_chat):
        raise UsageError(
            f"rpm: the history of {ctx.task.name} holds no labels; leave stats_mode at auto"
        )
    if stats_mode == "auto":
        has_labels = ctx.task.kind != "text" and not is_bare and not is_chat
        closed = has_labels or is_labelled
    else:
        closed = stats_mode == "propensity"

    labels: list[str] = []
    if closed:
        declared = LETTERS if is_labelled else ctx.task.labels
        labels = ordered_labels(declared, [item.answer for item in items])
    return Knowledge(
        seen=seen(history),
        closed=closed,
        adapted=is_bare,
        labels=labels,
        items=list(items),
    )


async def _item_from_record(record: Record, ctx: Context, max_tokens: int, tries: int) -> Item:
    fields = record.fields
    if record.stimulus is not None:
        dimensions = fields.get("dimensions", "").split("\n")
        return Item(
            record.id,
            _with_facts(record.stimulus, ctx.task.facts(fields)),
            record.response,
            f"({record.response}) {fields['option']}" if "option" in fields else "",
            dimensions=[name for name in dimensions if name],
        )
    if "title" in fields and "abstract" in fields:
        return Item(record.id, fields["title"], fields["abstract"])

    paraphrase = await request_parsed(
        "paraphrase",
        shorten_until_fit(lambda text: prompts.paraphrase(text, ctx), record.response, ctx),
        lambda text: text.strip() or None,
        ctx,
        max_tokens=max_tokens,
        tries=tries,
    )
    return Item(record.id, paraphrase or record.response, record.response)


async def _items_from_chat(
    history: Sequence[Record],
    ctx: Context,
    max_tokens: int,
    tries: int,
) -> list[Item]:
    results = await asyncio.gather(
        *(_request_preferences(window, ctx, max_tokens, tries) for window in _windows(history))
    )
    items = [item for window_items in results for item in window_items]
    return [
        msgspec.structs.replace(item, id=f"{item.position}-{number}")
        for number, item in enumerate(items)
    ]


def _windows(history: Sequence[Record]) -> Iterator[Window]:
    """Parts of a chat, split at the end of a session and after `WINDOW_MESSAGES` of the user's.

    A session ends at a system message, whose own text is left out, or where `block` changes.
    """
    window: Window = []
    user_messages = 0
    block = None
    for index, record in enumerate(history):
        role = record.fields.get("role", "user")
        session_ends = role == "system" or record.fields.get("block") != block
        block = record.fields.get("block")
        # Splitting before a user's message keeps the assistant's reply in the window it belongs to.
        is_full = role == "user" and user_messages == WINDOW_MESSAGES
        if window and (session_ends or is_full):
            yield window
            window = []
            user_messages = 0
        if role != "system":
            window.append((index, role, record.response))
            user_messages += role == "user"
    if window:
        yield window


async def _request_preferences(
    window: Window,
    ctx: Context,
    max_tokens: int,
    tries: int,
) -> list[Item]:
    """The preferences stated in one window; positions are the chat's.

    Those that name no message of the window count as its oldest, from its first message.
    """
    # Numbered within the window: a longer part of the same chat then sends the same request again.
    numbered = [(number, role, text) for number, (_, role, text) in enumerate(window, 1)]
    positions: dict[int | None, int] = {
        number: position for number, (position, _, _) in enumerate(window, 1)
    }

    def read(text: str) -> list[Item] | None:
        listed = read_rows(text, "items")
        if listed is None:
            return None
        items = []
        for row in listed[:WINDOW_ITEMS]:
            situation = to_line(row.get("situation"))
            preference = to_line(row.get("preference"))
            position = positions.get(to_whole_number(row.get("message")))
            if situation and preference:
                items.append(Item("", situation, preference, position=position))
        return items

    items = await request_parsed(
        "preferences",
        _preference_prompts(numbered, ctx),
        read,
        ctx,
        max_tokens=max_tokens,
        tries=tries,
        schema=prompts.preferences_schema(WINDOW_ITEMS),
    )
    positioned = [item for item in items or () if item.position is not None]
    unpositioned = [item for item in items or () if item.position is None]
    if unpositioned:
        ctx.flag("preferences_unplaced", len(unpositioned))
    first_position = window[0][0]
    return [
        *(msgspec.structs.replace(item, position=first_position) for item in unpositioned),
        *positioned,
    ]


def _preference_prompts(window: Window, ctx: Context) -> Iterator[prompts.Messages]:
    """The request about a window, then with shortened messages."""
    yield prompts.stated_preferences(window, ctx)
    for limit in _SHORTER:
        shortened = [
            (
                number,
                role,
                ctx.tokens.truncate(text, limit),
            )
            for number, role, text in window
        ]
        yield prompts.stated_preferences(shortened, ctx)


def _with_facts(stimulus: str, facts: str) -> str:
    return f"{stimulus}\n{facts}" if facts else stimulus


def _is_question(record: Record, sample: Sample) -> bool:
    """Whether a record is the sample itself, which a history may hold in another form."""
    if record.id == sample.id:
        return True
    if record.stimulus is None and "title" in record.fields:
        return f'"{fold_text(record.fields["title"])}"' in fold_text(sample.input)
    # A chat message that happens to repeat the question was part of the conversation.
    if "role" in record.fields:
        return False
    text = record.response if record.stimulus is None else record.stimulus
    return fold_text(text) in (fold_text(sample.stimulus or sample.input), fold_text(sample.input))
