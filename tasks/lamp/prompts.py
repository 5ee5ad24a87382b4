"""Prompt templates of LaMP: `chat` for chat models, `lamp-official` for the paper's prompt.

`chat` puts the profile into a system message and shows the records as earlier turns of the same
conversation, the best one next to the question. `lamp-official` is the benchmark's own single
prompt (arXiv 2304.11406) with its length budget.
"""

from __future__ import annotations

from collections.abc import Sequence

from personabench.api.defaults import instruct_early
from personabench.api.layout import Layout, Parts, arrange
from personabench.api.wording import Rendered, Vocabulary, WordingName
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
    options: Layout,
    wording: WordingName,
) -> Rendered:
    """Render the chat template: profile, records as earlier turns or as a list, then the input.

    The wording `full` ends with the request for the user's own style if anything is known of the
    user, and with the form of the answer unless the benchmark's input has it.
    """
    if wording == "full":
        content = chat_content(form, words, sample, records, notes, options, sample.input)
        if form.answer_rule and form.answer_rule in sample.input:
            return content
        return content.with_paragraph(f"Reply with {words.answer_form} only.")

    messages = _arrange_chat(form, words, sample, records, notes, options, sample.input)
    instructed = instruct_early(messages, words.instruction, needed=bool(form.labels))
    return Rendered(tuple(instructed), tuple(records), _flag_fallback(form, sample))


def chat_content(
    form: Form,
    words: Vocabulary,
    sample: Sample,
    records: Sequence[Record],
    notes: str,
    options: Layout,
    question: str,
) -> Rendered:
    """Render the chat template up to the form of the answer, for an input that may leave it out."""
    messages = _arrange_chat(form, words, sample, records, notes, options, question)
    rendered = Rendered(tuple(messages), tuple(records), _flag_fallback(form, sample))
    return rendered.with_paragraph(words.goal) if records or notes else rendered


def _arrange_chat(
    form: Form,
    words: Vocabulary,
    sample: Sample,
    records: Sequence[Record],
    notes: str,
    options: Layout,
    question: str,
) -> list[Message]:
    def word_list(ordered: Sequence[Record]) -> str:
        if form.stimulus:
            heading = f"From this {words.person}'s history:"
        else:
            heading = f"Earlier {words.response}s by this {words.person}:"
        return "\n\n".join([heading, *(_describe(form, words, record) for record in ordered)])

    parts = Parts(
        question=question,
        notes=f"About this {words.person}:\n{notes}" if notes else "",
        records=records,
        word_turn=lambda record: form.format_question(record.stimulus or "", like=question),
        word_list=word_list,
    )
    # Records without a stimulus (LaMP-1, LaMP-7) cannot be shown as question and answer.
    return arrange(parts, options, "turns" if form.stimulus else "list")


def _describe(form: Form, words: Vocabulary, record: Record) -> str:
    if not form.stimulus:
        return record.response
    stimulus = f"{words.stimulus.capitalize()}: {record.stimulus}"
    return f"{stimulus}\n{words.response.capitalize()}: {record.response}"


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

    The sample's input ends the prompt, and is counted, as it is.

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
