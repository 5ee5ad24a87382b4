"""Prompt templates of LaMP: `chat` for chat models, `lamp-official` for the paper's prompt.

`chat` puts the profile into a system message and shows the records as earlier turns of the same
conversation, the best one next to the question. `lamp-official` is the benchmark's own single
prompt (arXiv 2304.11406) with its length budget.
"""

from __future__ import annotations

from collections.abc import Sequence

from personabench.api.wording import Rendered, Vocabulary
from personabench.models.tokens import Tokens
from personabench.tasks.lamp.forms import Form
from personabench.types import Message, Record, Sample

# The official prompt reserves at most this many tenths of the length for the input.
_MAX_INPUT_TENTHS = 6
# The official script counts two tokens for each ", and " between entries.
_SEPARATOR_TOKENS = 2


def chat(
    form: Form,
    words: Vocabulary,
    sample: Sample,
    records: Sequence[Record],
    notes: str,
) -> Rendered:
    """Render the chat template: profile, records as earlier turns or as a list, then the input."""
    # The best record comes last, next to the question. The parts that change least come first, so
    # that a server can reuse its prefix cache.
    worst_first = tuple(reversed(records))
    system_parts = [f"About this {words.person}:\n{notes}"] if notes else []
    turns: list[Message] = []

    if form.stimulus:
        for record in worst_first:
            question = form.format_question(record.stimulus or "", like=sample.input)
            turns.append(Message("user", question))
            turns.append(Message("assistant", record.response))
    elif records:
        # Records without a stimulus (LaMP-1, LaMP-7) cannot be shown as question and answer.
        responses = "\n\n".join(record.response for record in worst_first)
        system_parts.append(f"Earlier {words.response}s by this {words.person}:\n\n{responses}")
    turns.append(Message("user", sample.input))

    # The instruction ends the conversation's first request, since small models follow it best
    # there. With free text, answers that are shown as turns make it superfluous.
    if form.labels or len(turns) == 1:
        turns[0] = Message("user", f"{turns[0].content}\n\n{words.instruction}")

    if system_parts:
        turns.insert(0, Message("system", "\n\n".join(system_parts)))
    return Rendered(tuple(turns), tuple(records), _flag_fallback(form, sample))


def official(
    form: Form,
    words: Vocabulary,
    sample: Sample,
    records: Sequence[Record],
    notes: str,
    tokens: Tokens,
    length: int | None,
) -> Rendered:
    """Render the benchmark's prompt as one user message, within `length` tokens if given.

    Flags: `tokens_dropped` from records, `bare_fallback` if no record fits, `input_truncated` if
    the whole prompt was truncated at the end.
    """
    flags = _flag_fallback(form, sample)
    texts = [record.fields[form.long_field] for record in records]

    if length is not None and records:
        truncated = _truncate_texts(form, sample, records, tokens, length)
        if truncated:
            dropped = _count_all(tokens, texts) - _count_all(tokens, truncated)
            if dropped > 0:
                flags["tokens_dropped"] = dropped
        else:
            flags["bare_fallback"] = 1
            records = ()
        texts = truncated

    prompt = _join_prompt(form, sample, records, texts)
    if length is not None and tokens.count(prompt) > length:
        prompt = tokens.truncate(prompt, length)
        flags["input_truncated"] = 1

    # The official prompt has no room for a profile, so it precedes the prompt, outside the budget.
    if notes:
        prompt = f"About this {words.person}:\n{notes}\n\n{prompt}"
    return Rendered((Message("user", prompt),), tuple(records), flags)


def _flag_fallback(form: Form, sample: Sample) -> dict[str, float]:
    if form.extract_query(sample.input) is None:
        return {"query_fallback": 1}
    return {}


def _count_all(tokens: Tokens, texts: Sequence[str]) -> int:
    return sum(tokens.count(text) for text in texts)


def _format_entry(form: Form, record: Record, text: str) -> str:
    fields = {**record.fields, form.long_field: text}
    return form.entry.format_map(fields)


def _join_prompt(
    form: Form,
    sample: Sample,
    records: Sequence[Record],
    texts: Sequence[str],
) -> str:
    if not records:
        return sample.input

    entries = [
        _format_entry(form, record, text) for record, text in zip(records, texts, strict=True)
    ]
    joined = ", and ".join(entries)
    if form.marker:
        return f"{joined}{form.bridge}{sample.input}"

    # LaMP-1 lists the author's papers inside the input, after the first word "title".
    before, word, after = sample.input.partition("title")
    return f"{before}{word}, and {joined}{after}"


def _truncate_texts(
    form: Form,
    sample: Sample,
    records: Sequence[Record],
    tokens: Tokens,
    length: int,
) -> list[str]:
    """Truncate the long fields to the budget, in order; empty if no reserve leaves enough room.

    The share of the budget that is reserved for the input shrinks until every entry gets a token.
    """
    count = len(records)
    input_tokens = tokens.count(sample.input)
    template_tokens = [_count_template(form, record, tokens) for record in records]
    overhead = _count_bridge(form, tokens) + _SEPARATOR_TOKENS * (count - 1)

    for tenths in range(_MAX_INPUT_TENTHS, -1, -1):
        room = length - min(input_tokens, tenths * length // 10)
        share = (room - overhead) // count
        texts = _fill_shares(form, records, template_tokens, share, tokens)
        if len(texts) == count:
            return texts
    return []


def _count_template(form: Form, record: Record, tokens: Tokens) -> int:
    # LaMP-1 entries are a quoted title: the two quotation marks.
    if not form.marker:
        return 2
    template = form.charged_entry or form.entry
    return tokens.count(template.format_map({**record.fields, form.long_field: " "}))


def _count_bridge(form: Form, tokens: Tokens) -> int:
    if not form.marker:
        return 0
    # One token for the ". " that all bridges share.
    return 1 + (tokens.count(form.charged_bridge) if form.charged_bridge else 0)


def _fill_shares(
    form: Form,
    records: Sequence[Record],
    template_tokens: Sequence[int],
    share: int,
    tokens: Tokens,
) -> list[str]:
    """Truncate each record's text to its share, passing unused tokens on to the next record.

    Stops at the first record that would get less than one token.
    """
    texts: list[str] = []
    unused = 0
    for record, fixed in zip(records, template_tokens, strict=True):
        allowance = share + unused - fixed
        if allowance < 1:
            break

        text = tokens.truncate(record.fields[form.long_field], allowance)
        texts.append(text)
        unused = allowance - tokens.count(text)
    return texts
