"""The pairs of query and answer that a user's history holds, for each kind of history.

Most records are pairs.  Some are an answer alone: a paper has its title for a query, a tweet gets a neutral paraphrase
from the model.  Two kinds of record are told apart by their fields: chat messages (`role`) become the preferences
their user states, and labelled questions (`cut`, the place in the chat where they were asked) pairs with the letter
that was right.  What equals the question itself is dropped here, before anything is asked of the model.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence

import msgspec

from personabench import Context, Record, Sample, Task, UsageError
from personabench.hashing import digest
from personabench.methods.rpm import prompts
from personabench.methods.rpm.knowledge import Item, Knowledge, ordered_labels
from personabench.methods.rpm.replies import ask, drafts, number_of, rows, words_of

WINDOW_MESSAGES = 12
WINDOW_ITEMS = 6
LETTERS = ("a", "b", "c", "d")
Window = list[tuple[int, str, str]]
_QUOTED = re.compile(r'"(.+?)"', re.DOTALL)


def visible(sample: Sample, *, letters: bool) -> tuple[Record, ...]:
    """The records a sample's state may be made from: not the question itself, and only one kind of a chat's records.

    A record is the question itself when it has its id or, but for case and spacing, its text; the paper of a record
    without a stimulus when the question quotes its title.  Labelled questions must have been asked strictly earlier
    in the chat than this one.
    """
    kept = [record for record in sample.history if not _same(record, sample)]
    if letters:
        cut = int(sample.attributes.get("cut", 0))
        return tuple(
            record for record in kept if "cut" in record.fields and int(record.fields["cut"]) < cut
        )
    return tuple(record for record in kept if "cut" not in record.fields)


def seen(history: Sequence[Record]) -> str:
    """The name of a history, by its content."""
    return digest(history)


def query_of(sample: Sample, task: Task) -> str:
    """The question's own content, and what is known of its answer.

    Without a stimulus that is what the task searches histories with, after what the input quotes first where that is
    something else (LaMP-1: the author's own title, then the candidates); the input where the task knows no more.
    """
    if sample.stimulus:
        return _with_facts(sample.stimulus, task.facts(sample.attributes))
    searched, quoted = task.query_text(sample), _QUOTED.search(sample.input)
    return searched if quoted is None or quoted[1] in searched else f"{quoted[1]}\n{searched}"


def offered(sample: Sample, items: Sequence[Item], task: Task) -> tuple[str, ...]:
    """The choices of a question whose answer is one of them and of another form than the user's past answers.

    None where the past answers are such choices (tags, scores), nor where the task reads other texts as answers too.
    """

    def read(text: str) -> str | None:
        return task.parse(text, sample, task.scorers[0])

    if (
        any(item.answer in sample.choices for item in items)
        or read(task.words.response) is not None
    ):
        return ()
    return sample.choices if all(read(choice) == choice for choice in sample.choices) else ()


async def gathered(
    history: Sequence[Record], ctx: Context, *, cap: int | None, stats_mode: str, max_tokens: int
) -> Knowledge:
    """The pairs of a history, at most the `cap` newest, with nothing yet learned from them.

    Raises:
        UsageError: propensity is asked for where answers are no labels.
    """
    recent = slice(-cap if cap else None, None)
    chat = any("role" in record.fields for record in history)
    labelled = any("cut" in record.fields for record in history)
    bare = not chat and any(record.stimulus is None for record in history)
    if chat:
        items = (await _chat_items(history, ctx, max_tokens))[recent]
    else:
        items = list(
            await asyncio.gather(*(_item(record, ctx, max_tokens) for record in history[recent]))
        )
    closed = (ctx.task.kind != "text" and not bare and not chat) or labelled
    if stats_mode == "propensity" and (bare or chat):
        raise UsageError(
            f"rpm: the history of {ctx.task.name} holds no labels; leave stats_mode at auto"
        )
    if stats_mode != "auto":
        closed = stats_mode == "propensity"
    declared = LETTERS if labelled else getattr(ctx.task, "labels", ())
    return Knowledge(
        seen=seen(history),
        closed=closed,
        adapted=bare,
        labels=ordered_labels(declared, [item.answer for item in items]) if closed else [],
        items=items,
    )


async def _item(record: Record, ctx: Context, max_tokens: int) -> Item:
    fields = record.fields
    if record.stimulus is not None:
        shown = f"({record.response}) {fields['option']}" if "option" in fields else ""
        dimensions = [name for name in fields.get("dimensions", "").split("\n") if name]
        query = _with_facts(record.stimulus, ctx.task.facts(fields))
        return Item(record.id, query, record.response, shown, dimensions=dimensions)
    if "title" in fields and "abstract" in fields:
        return Item(record.id, fields["title"], fields["abstract"])
    words = ctx.task.words
    told = await ask(
        "paraphrase",
        drafts(lambda text: prompts.paraphrase(text, words), record.response, ctx),
        lambda text: text.strip() or None,
        ctx,
        max_tokens=max_tokens,
    )
    return Item(record.id, told or record.response, record.response)


async def _chat_items(history: Sequence[Record], ctx: Context, max_tokens: int) -> list[Item]:
    windows = list(_windows(history))
    found = await asyncio.gather(*(_stated(window, ctx, max_tokens) for window in windows))
    items = [item for window in found for item in window]
    return [
        msgspec.structs.replace(item, id=f"{item.position}-{number}")
        for number, item in enumerate(items)
    ]


def _windows(history: Sequence[Record]) -> Iterator[Window]:
    """Parts of a chat, cut where a session ends and at `WINDOW_MESSAGES` of the user's.

    A session ends at a system message, whose own text is left out, or where records name another `block`.
    """
    window: Window = []
    spoken = 0
    block = None
    for at, record in enumerate(history):
        role = record.fields.get("role", "user")
        ends = role == "system" or record.fields.get("block") != block
        block = record.fields.get("block")
        if window and (ends or (role == "user" and spoken == WINDOW_MESSAGES)):
            yield window
            window, spoken = [], 0
        if role != "system":
            window.append((at, role, record.response))
            spoken += role == "user"
    if window:
        yield window


async def _stated(window: Window, ctx: Context, max_tokens: int) -> list[Item]:
    """What one window says, numbered within itself so that a later cut asks the same; positions are the chat's.

    What names no message of the window counts as its oldest, said by its first message.
    """
    local = [(number, role, text) for number, (_, role, text) in enumerate(window, 1)]
    places: dict[int | None, int] = {number: at for number, (at, _, _) in enumerate(window, 1)}

    def read(text: str) -> list[Item] | None:
        listed = rows(text, "items")
        if listed is None:
            return None
        items = []
        for row in listed[:WINDOW_ITEMS]:
            situation, preference = words_of(row.get("situation")), words_of(row.get("preference"))
            if situation and preference:
                items.append(
                    Item(
                        "",
                        situation,
                        preference,
                        position=places.get(number_of(row.get("message"))),
                    )
                )
        return items

    schema = prompts.preferences_schema(WINDOW_ITEMS)
    shorter = (
        [(n, role, ctx.tokens.cut(text, limit)) for n, role, text in local] for limit in (256, 64)
    )
    asked = (prompts.stated_preferences(part) for part in (local, *shorter))
    found = await ask("preferences", asked, read, ctx, max_tokens=max_tokens, schema=schema) or []
    placed = [item for item in found if item.position is not None]
    unplaced = [
        msgspec.structs.replace(item, position=window[0][0])
        for item in found
        if item.position is None
    ]
    if unplaced:
        ctx.flag("preferences_unplaced", len(unplaced))
    return [*unplaced, *placed]


def _with_facts(stimulus: str, facts: str) -> str:
    return f"{stimulus}\n{facts}" if facts else stimulus


def _same(record: Record, sample: Sample) -> bool:
    if record.id == sample.id:
        return True
    if record.stimulus is None and "title" in record.fields:
        return f'"{_folded(record.fields["title"])}"' in _folded(sample.input)
    text = record.response if record.stimulus is None else record.stimulus
    asked = (sample.stimulus or sample.input, sample.input)
    return "role" not in record.fields and _folded(text) in map(_folded, asked)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
