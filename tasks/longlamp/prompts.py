"""Prompts of LongLaMP: the harness's own chat, and the benchmark's two single prompts.

`longlamp-official` is the prompt of the paper, `longlamp-llama` the variant that was used with
Llama; rows of the two do not compare.  The reference has no length budget: a prompt over the
context comes back as nothing.  Here every template cuts the long fields of the entries to equal
shares of a budget, and counts that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from personabench.api.layout import Layout, Parts, arrange
from personabench.api.wording import Rendered, Vocabulary
from personabench.models.tokens import Tokens
from personabench.tasks.longlamp.forms import Form, Template
from personabench.types import Message, Record, Sample

_SEPARATOR = ", and "
# Tokens of a joined text may be more than those of its parts, by few for each part.
_CORRECTIONS = 8


@dataclass(frozen=True)
class _Shape:
    """The words of an official prompt."""

    entry: str
    bridge: str
    max_words: int
    opening: str
    separator: str


def _choose_shape(form: Form, template: Template) -> _Shape:
    if template == "longlamp-llama" and form.llama is not None:
        entry, bridge, max_words = form.llama
        return _Shape(entry, bridge, max_words, form.llama_opening, form.llama_separator)
    return _Shape(form.entry, form.bridge, form.max_words, "", _SEPARATOR)


def render_official(
    form: Form,
    words: Vocabulary,
    sample: Sample,
    records: Sequence[Record],
    notes: str,
    tokens: Tokens,
    template: Template,
    length: int | None,
) -> Rendered:
    """Render one of the benchmark's prompts as one user message, within `length` tokens if given.

    Flags: `tokens_dropped` from long fields, `records_dropped` of entries that have no room,
    `bare_fallback` if none has, `input_truncated` if the input alone is too long, `query_fallback`
    if the input has no mark before its query.
    """
    shape = _choose_shape(form, template)
    opening = f"About this {words.person}:\n{notes}\n\n" if notes else ""
    texts = [_take_words(record.fields[form.long_field], shape.max_words) for record in records]

    def join(shown: Sequence[str]) -> str:
        if not shown:
            return f"{opening}{sample.input}"
        entries = [
            _format_entry(form, shape, record, text)
            for record, text in zip(records, shown, strict=False)
        ]
        joined = shape.separator.join(entries)
        return f"{opening}{shape.opening}{joined}{shape.bridge}{sample.input}"

    flags = flag_fallback(form, sample)
    shown = fit_texts(texts, join, tokens, length, flags)
    prompt = join(shown)
    if length is not None and tokens.count(prompt) > length:
        prompt = tokens.truncate(prompt, length)
        flags["input_truncated"] = 1
    return Rendered((Message("user", prompt),), tuple(records[: len(shown)]), flags)


def render_chat(
    form: Form,
    words: Vocabulary,
    sample: Sample,
    records: Sequence[Record],
    notes: str,
    tokens: Tokens,
    options: Layout,
    length: int | None,
    instruction: str,
) -> Rendered:
    """Render the chat template: instruction, notes, past texts as a list, then the input."""

    def arrange_texts(shown: Sequence[str]) -> list[Message]:
        kept = [
            msgspec.structs.replace(record, response=text)
            for record, text in zip(records, shown, strict=False)
        ]
        parts = Parts(
            opening=instruction,
            question=sample.input,
            notes=f"About this {words.person}:\n{notes}" if notes else "",
            records=kept,
            word_turn=lambda record: form.request.format(stimulus=record.stimulus or ""),
            word_list=lambda listed: list_texts(words, listed),
        )
        return arrange(parts, options, "message")

    def join(shown: Sequence[str]) -> str:
        return "\n\n".join(message.content for message in arrange_texts(shown))

    flags = flag_fallback(form, sample)
    shown = fit_texts([record.response for record in records], join, tokens, length, flags)
    return Rendered(tuple(arrange_texts(shown)), tuple(records[: len(shown)]), flags)


def list_texts(words: Vocabulary, records: Sequence[Record]) -> str:
    """List past texts under a heading."""
    heading = f"Earlier {words.response}s by this {words.person}:"
    return "\n\n".join([heading, *(describe(words, record) for record in records)])


def describe(words: Vocabulary, record: Record) -> str:
    """Write a past text under the thing that it was written for."""
    response = f"{words.response.capitalize()}: {record.response}"
    if record.stimulus is None:
        return response
    return f"{words.stimulus.capitalize()}: {record.stimulus}\n{response}"


def flag_fallback(form: Form, sample: Sample) -> dict[str, float]:
    """Flag an input without the mark before its query, which is then the whole input."""
    return {} if form.find_query(sample.input) is not None else {"query_fallback": 1}


def fit_texts(
    texts: Sequence[str],
    join: Callable[[Sequence[str]], str],
    tokens: Tokens,
    length: int | None,
    flags: dict[str, float],
) -> list[str]:
    """Cut texts to equal shares of a budget; unused parts of a share go to the next texts.

    Texts that would keep no token are left out, the last first.

    Args:
        join: makes the whole prompt of the first texts.
        length: tokens of the whole prompt; None for no budget.
        flags: receives `tokens_dropped`, `records_dropped` and `bare_fallback`.
    """
    if length is None or not texts or tokens.count(join(texts)) <= length:
        return list(texts)

    sizes = [tokens.count(text) for text in texts]
    for count in range(len(texts), 0, -1):
        fixed = tokens.count(join([""] * count))
        kept = _cut(texts[:count], sizes, length - fixed, tokens)
        for _ in range(_CORRECTIONS):
            excess = tokens.count(join(kept)) - length if kept else 0
            if excess <= 0:
                break
            fixed += excess
            kept = _cut(texts[:count], sizes, length - fixed, tokens)
        if not kept or tokens.count(join(kept)) > length:
            continue
        flags["tokens_dropped"] = sum(sizes) - sum(tokens.count(text) for text in kept)
        if count < len(texts):
            flags["records_dropped"] = len(texts) - count
        return kept

    flags["bare_fallback"] = 1
    flags["tokens_dropped"] = sum(sizes)
    return []


def _cut(texts: Sequence[str], sizes: Sequence[int], room: int, tokens: Tokens) -> list[str]:
    """Cut texts to shares of the room, the shortest first; empty if a share has no token."""
    if room < len(texts):
        return []
    kept = dict[int, str]()
    # Short texts leave the rest of their shares to all others, whatever their order.
    for done, index in enumerate(sorted(range(len(texts)), key=lambda index: sizes[index])):
        share = room // (len(texts) - done)
        text = texts[index] if sizes[index] <= share else tokens.truncate(texts[index], share)
        kept[index] = text
        room -= min(sizes[index], share)
    return [kept[index] for index in range(len(texts))]


def _take_words(text: str, limit: int) -> str:
    words = text.split()
    return " ".join(words[:limit]) if limit and len(words) > limit else text


def _format_entry(form: Form, shape: _Shape, record: Record, text: str) -> str:
    fields: Mapping[str, str] = {**record.fields, form.long_field: text}
    return shape.entry.format_map(fields)
