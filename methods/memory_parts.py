"""Parts that the built-in memories share: similarity, structured replies, dates and sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from personabench import Batch, Context, Message, PromptFile
from personabench.methods.parsed_reply import (
    ATTEMPTS,
    SHORTER,
    find_value,
    limit_reply,
    request_repeatedly,
)
from personabench.methods.vectors import compute_cosines

T = TypeVar("T")
Retriever = Literal["dense", "bm25"]
Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}


async def compute_similarities(
    query: str, texts: Sequence[str], ctx: Context, by: Retriever, embedder: str
) -> list[float]:
    """Similarities of texts to a query: cosines, or BM25 scores scaled by their maximum."""
    if not texts:
        return []
    if by == "dense":
        cosines: list[float] = compute_cosines(await ctx.embed([query, *texts], embedder)).tolist()
        return cosines

    # Imported on use: a run without a search needs no index.
    from personabench.retrieval.bm25 import BM25

    scores = BM25(texts, tokenizer=ctx.task.tokenizer).scores(query).tolist()
    highest = max(scores)
    # Words that most texts share have weights below 0.
    return [max(0.0, score) / highest if highest > 0 else 0.0 for score in scores]


def rank(scores: Sequence[float], k: int) -> list[int]:
    """Positions of the k highest scores, best first; ties put the later one first."""
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], -index))
    return order[:k]


def read_object(text: str) -> Mapping[str, Any] | None:
    """The first balanced JSON object in a reply; None without one."""
    first: Mapping[str, Any] | None = find_value(text, lambda value: isinstance(value, dict))
    return first


def read_text(value: Any) -> str:
    """A text field on one line; empty for a value of another type."""
    return " ".join(value.split()) if isinstance(value, str) else ""


def read_texts(value: Any) -> list[str]:
    """The texts of a list; of other values none, and of objects the field `text`."""
    rows = value if isinstance(value, list) else []
    texts = (read_text(row.get("text") if isinstance(row, dict) else row) for row in rows)
    return [text for text in texts if text]


def read_rows(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list; of other values none."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def read_number(value: Any) -> int | None:
    """A whole number, also one in a text."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        return int(value)
    except ValueError:
        return None


def object_schema(**fields: Schema) -> Schema:
    """The schema of an object with these fields."""
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def list_schema(items: Schema, most: int) -> Schema:
    """The schema of a list of up to so many items."""
    return {"type": "array", "items": items, "maxItems": most}


async def request_text(
    ctx: Context,
    file: PromptFile,
    stage: str,
    slots: Mapping[str, str],
    *,
    max_tokens: int,
    shorten: Sequence[str],
) -> str:
    """The reply to a stage as plain text; empty if the request does not fit the window."""
    messages = _fit(ctx, file, stage, slots, max_tokens, shorten)
    if messages is None:
        return ""
    reply = await ctx.complete(messages, max_tokens=limit_reply(max_tokens, ctx))
    text = reply.text.strip()
    if not text:
        ctx.flag("memory_empty_reply")
    return text


async def request_object(
    ctx: Context,
    file: PromptFile,
    stage: str,
    slots: Mapping[str, str],
    read: Callable[[Mapping[str, Any]], T | None],
    *,
    schema: Schema,
    max_tokens: int,
    shorten: Sequence[str],
) -> T | None:
    """What `read` makes of the JSON reply to a stage; None after two replies it cannot read.

    Every such reply is counted as `memory_bad_json`, and a stage that is given up as
    `<stage>_failed`.

    Args:
        shorten: slots whose texts are shortened, all alike, if the request exceeds the window.
    """
    messages = _fit(ctx, file, stage, slots, max_tokens, shorten)
    if messages is None:
        return None

    def read_reply(text: str) -> T | None:
        value = read_object(text)
        return None if value is None else read(value)

    result, _ = await request_repeatedly(
        messages,
        read_reply,
        ctx,
        max_tokens=limit_reply(max_tokens, ctx),
        reminder=f"\n\n{ctx.part(file, 'reminder')}",
        flags=("memory_bad_json",) * ATTEMPTS,
        schema=schema,
        is_stored=True,
    )
    if result is None:
        ctx.flag(f"{stage}_failed")
    return result


def _fit(
    ctx: Context,
    file: PromptFile,
    stage: str,
    slots: Mapping[str, str],
    max_tokens: int,
    shorten: Sequence[str],
) -> Sequence[Message] | None:
    limit = limit_reply(max_tokens, ctx)
    messages = ctx.prompt(file, stage, **slots)
    if ctx.count_excess_tokens(messages, limit) <= 0:
        return messages
    for tokens in SHORTER:
        shorter = {name: ctx.tokens.truncate(slots[name], tokens) for name in shorten}
        messages = ctx.prompt(file, stage, **{**slots, **shorter})
        if ctx.count_excess_tokens(messages, limit) <= 0:
            ctx.flag("memory_text_shortened")
            return messages
    ctx.flag("memory_too_long")
    return None


def describe_batch(batch: Batch, ctx: Context) -> str:
    """The records of a batch in the task's words, oldest first."""
    return "\n".join(ctx.task.describe(record) for record in batch.records)


def numbered(texts: Iterable[str]) -> str:
    """Texts as lines with numbers from 0; a word in place of none."""
    return "\n".join(f"{number}: {text}" for number, text in enumerate(texts)) or "none"


def unite(*ids: Sequence[str]) -> list[str]:
    """Record ids without repetitions, in the order of first mention."""
    return list(dict.fromkeys(name for part in ids for name in part))


def by_number(items: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The items of a state in the order of their numbers, which JSON has as texts."""
    return sorted(items.items(), key=lambda pair: int(pair[0]))
