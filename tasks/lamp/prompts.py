"""The two wordings of a LaMP request.

`chat` is for chat models: what is known about the user, then the shown records as earlier turns of the same
conversation, the best one next to the question.  What changes least comes first, so that a server's prefix cache is of
use.  The contract of the answer is said once, at the end of the conversation's first request: small models keep to it
there.  Where answers in free text are shown as turns they say it better, and it is left out.
`lamp-official` is the benchmark's own single prompt (arXiv 2304.11406) with its length budget.
"""

from __future__ import annotations

from collections.abc import Sequence

from personabench.api.wording import Rendered, Vocabulary
from personabench.models.tokens import Tokens
from personabench.tasks.lamp.forms import Form
from personabench.types import Message, Record, Sample


def chat(
    form: Form, words: Vocabulary, sample: Sample, records: Sequence[Record], notes: str
) -> Rendered:
    """The chat template: notes as system message, records as earlier turns or as a list, then the input as it is."""
    least_first = tuple(reversed(records))
    system = [f"About this {words.person}:\n{notes}"] if notes else []
    turns: list[Message] = []
    if form.stimulus:
        for record in least_first:
            question = form.question(record.stimulus or "", like=sample.input)
            turns += [Message("user", question), Message("assistant", record.response)]
    elif records:
        listed = "\n\n".join(record.response for record in least_first)
        system.append(f"Earlier {words.response}s by this {words.person}:\n\n{listed}")
    turns.append(Message("user", sample.input))
    if form.labels or len(turns) == 1:
        turns[0] = Message("user", f"{turns[0].content}\n\n{words.instruction}")
    told = (Message("system", "\n\n".join(system)),) if system else ()
    return Rendered((*told, *turns), tuple(records), _fallback(form, sample))


def official(
    form: Form,
    words: Vocabulary,
    sample: Sample,
    records: Sequence[Record],
    notes: str,
    tokens: Tokens,
    length: int | None,
) -> Rendered:
    """The benchmark's prompt as one user message, within `length` tokens of the model when a length is given.

    Notes have no place in the official prompt; they precede it, outside the budget.  Flags: `tokens_dropped` from
    records, `bare_fallback` when no record fits, `input_truncated` when the whole was cut at the end.
    """
    flags = _fallback(form, sample)
    texts = [record.fields[form.long] for record in records]
    kept = list(texts)
    if length is not None and records:
        kept = _cut(form, sample, records, tokens, length)
        if kept:
            dropped = sum(tokens.count(text) for text in texts) - sum(
                tokens.count(text) for text in kept
            )
            if dropped > 0:
                flags["tokens_dropped"] = dropped
        else:
            flags["bare_fallback"] = 1
            records = ()
    prompt = _joined(form, sample, records, kept)
    if length is not None and tokens.count(prompt) > length:
        prompt = tokens.cut(prompt, length)
        flags["input_truncated"] = 1
    if notes:
        prompt = f"About this {words.person}:\n{notes}\n\n{prompt}"
    return Rendered((Message("user", prompt),), tuple(records), flags)


def _fallback(form: Form, sample: Sample) -> dict[str, float]:
    return {"query_fallback": 1} if form.query(sample.input) is None else {}


def _entry(form: Form, record: Record, text: str) -> str:
    return form.entry.format_map({**record.fields, form.long: text})


def _joined(form: Form, sample: Sample, records: Sequence[Record], texts: Sequence[str]) -> str:
    if not records:
        return sample.input
    joined = ", and ".join(
        _entry(form, record, text) for record, text in zip(records, texts, strict=True)
    )
    if form.marker:
        return f"{joined}{form.bridge}{sample.input}"
    before, word, after = sample.input.partition("title")
    return f"{before}{word}, and {joined}{after}"


def _cut(
    form: Form, sample: Sample, records: Sequence[Record], tokens: Tokens, length: int
) -> list[str]:
    """The long fields cut to the budget, in order; empty when not even the smallest reserve leaves room.

    The input reserves at most .6 of the length; where an entry would get less than a token, .1 less is tried.  What an
    entry leaves unused is carried to the next.
    """
    count = len(records)
    input_tokens = tokens.count(sample.input)
    fixed = [
        2 if not form.marker else tokens.count(_entry(form, record, " ")) for record in records
    ]
    extra = 1 + (tokens.count(form.charged) if form.charged else 0) if form.marker else 0
    for tenths in range(6, -1, -1):
        room = length - min(input_tokens, tenths * length // 10)
        share = (room - extra - 2 * (count - 1)) // count
        carry = 0
        kept: list[str] = []
        for record, cost in zip(records, fixed, strict=True):
            allowance = share + carry - cost
            if allowance < 1:
                break
            text = tokens.cut(record.fields[form.long], allowance)
            kept.append(text)
            carry = allowance - tokens.count(text)
        if len(kept) == count:
            return kept
    return []
