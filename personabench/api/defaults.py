"""Defaults of a task by the kind of its responses: wording, parsing, metrics and measuring.

A task of `kind` "category" has `labels`, the same for all samples, or options that differ by sample
(`Sample.choices`), which the request lists by letter.  The labels of an "ordinal" task are the
numbers of its scale, or the two ends.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import msgspec

from personabench.api.layout import Layout, Parts, arrange
from personabench.api.wording import Rendered, ResponseKind, Vocabulary, Wording
from personabench.errors import UsageError
from personabench.metrics.labels import find_label, label_pair, macro_f1
from personabench.metrics.metric import Metric, Value
from personabench.metrics.ratings import farthest_rating, find_rating, parse_number, rmse
from personabench.metrics.text import ROUGE, rouge_with_variants, strip_chatter
from personabench.types import Message, Record, Sample, moment

HistoryFormat = Literal["auto", "turns", "list"]

AXES = (
    ("Content", "the topics and facts that are mentioned"),
    ("Style", "wording, tone, length and form"),
    ("Opinion", "likes and dislikes, and how strongly they are held"),
)
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:)]?")
# The letter of "B. Go home", "(B)", "The answer is B" and "option B"; never the article "A".
_STATED_LETTER = re.compile(
    r"^([A-Za-z])[.:)]|\(([A-Za-z])\)"
    r"|\b(?:[Aa]nswer|[Oo]ption|[Cc]hoice|[Ll]etter)(?:\s+is)?\s*(?::\s*)?([A-Z])(?![\w'])"
)


def choose_metrics(kind: ResponseKind, label_count: int) -> tuple[Metric, ...]:
    """Return the metrics of a kind; without labels, a category is one of the sample's options."""
    if kind == "text":
        return ROUGE
    if kind == "ordinal":
        return (
            Metric("MAE", higher_is_better=False),
            Metric("RMSE", higher_is_better=False, aggregate=rmse),
        )
    accuracy = Metric("accuracy")
    if not label_count:
        return (accuracy,)
    return accuracy, Metric("f1", aggregate=partial(macro_f1, labels=label_count))


def complete_vocabulary(
    words: Vocabulary,
    kind: ResponseKind,
    labels: Sequence[str],
    has_precedents: bool = True,
) -> Vocabulary:
    """Fill the gaps of a vocabulary with defaults.

    Args:
        has_precedents: whether records are past answers, which a new one may resemble.
    """
    goal = f"Answer as this {words.person} would."
    if not has_precedents:
        goal = f"Take into account what is known of this {words.person}."
    return msgspec.structs.replace(
        words,
        profile_question=words.profile_question
        or f"What is characteristic of this {words.person}'s {words.response}s?",
        axes=words.axes or AXES,
        instruction=words.instruction or _write_instruction(words, kind, labels),
        goal=words.goal or goal,
        answer_form=words.answer_form or _name_answer(words, kind, labels),
    )


def can_replace_contract(words: Vocabulary) -> bool:
    """Return whether the form of an answer is known beside the task's own instruction."""
    return bool(words.answer_form) or not words.instruction


def _write_instruction(
    words: Vocabulary,
    kind: ResponseKind,
    labels: Sequence[str],
) -> str:
    if kind == "category" and labels:
        return f"Answer with one of the following and nothing else: {', '.join(labels)}."
    form = words.answer_form or _name_answer(words, kind, labels)
    return f"Answer with {form} and nothing else."


def _name_answer(
    words: Vocabulary,
    kind: ResponseKind,
    labels: Sequence[str],
) -> str:
    if kind == "text":
        return f"the {words.response}"
    if kind == "ordinal":
        low, high = find_scale(labels)
        return f"a number from {low} to {high}"
    if labels:
        return f"one of {', '.join(labels)}"
    return "the letter of one option"


def find_scale(labels: Sequence[str]) -> tuple[int, int]:
    """Return the ends of an ordinal task's scale.

    Raises:
        ValueError: the labels are not at least two different whole numbers from 0.
    """
    numbers = {int(label) for label in labels}
    if len(numbers) < 2 or min(numbers) < 0:
        raise ValueError("the labels of an ordinal task are its numbers, such as '1', '2', '3'")
    return min(numbers), max(numbers)


# Wording ----------------------------------------------------------------------------------------


def render_chat(
    task: Wording,
    sample: Sample,
    records: Sequence[Record],
    notes: str,
    history_format: HistoryFormat,
) -> Rendered:
    """Word a request as a chat: notes, records as earlier turns or as a list, then the question.

    Records with a stimulus are shown as turns unless the question has options of its own: an
    earlier response is no letter.  In the wording `full` the instruction ends the request, after
    the goal if anything is known of the user.
    """
    if task.wording == "full":
        rendered = render_content(task, sample, records, notes, history_format)
        return rendered.with_paragraph(task.words.instruction)

    messages = _arrange(task, sample, records, notes, history_format)
    instructed = instruct_early(messages, task.words.instruction, needed=task.kind != "text")
    return Rendered(tuple(instructed), tuple(records))


def instruct_early(
    messages: Sequence[Message],
    instruction: str,
    *,
    needed: bool,
) -> list[Message]:
    """Add an instruction to the first request of a chat, where small models follow it best.

    Answers that are shown as turns make it superfluous unless it is `needed`.
    """
    first = 1 if messages[0].role == "system" else 0
    instructed = list(messages)
    if needed or len(messages) == first + 1:
        message = messages[first]
        instructed[first] = Message(message.role, f"{message.content}\n\n{instruction}")
    return instructed


def render_content(
    task: Wording,
    sample: Sample,
    records: Sequence[Record],
    notes: str,
    history_format: HistoryFormat,
) -> Rendered:
    """Word a request as `render_chat` does, but without the form of the answer."""
    messages = _arrange(task, sample, records, notes, history_format)
    rendered = Rendered(tuple(messages), tuple(records))
    return rendered.with_paragraph(task.words.goal) if records or notes else rendered


def replace_instruction(rendered: Rendered, instruction: str, goal: str) -> Rendered | None:
    """Replace the task's instruction in the message that quotes it; None if none does."""
    for index, message in enumerate(rendered.messages):
        if instruction in message.content:
            content = message.content.replace(instruction, goal, 1).strip()
            rest = (Message(message.role, content),) if content else ()
            messages = (*rendered.messages[:index], *rest, *rendered.messages[index + 1 :])
            return dataclasses.replace(rendered, messages=messages) if messages else None
    return None


def _arrange(
    task: Wording,
    sample: Sample,
    records: Sequence[Record],
    notes: str,
    history_format: HistoryFormat,
) -> list[Message]:
    options = task.params if isinstance(task.params, Layout) else Layout()
    as_turns = history_format == "turns"
    if history_format == "auto":
        is_complete = all(record.stimulus is not None for record in records)
        as_turns = is_complete and not _has_options(task, sample)

    parts = Parts(
        question=_word_question(task, sample),
        notes=f"About this {task.words.person}:\n{notes}" if notes else "",
        records=records,
        word_turn=lambda record: task.question(record, sample).input,
        word_list=lambda ordered: _list_records(task, ordered, by_date=options.order == "auto"),
    )
    return arrange(parts, options, "turns" if as_turns else "list")


def _list_records(task: Wording, records: Sequence[Record], *, by_date: bool) -> str:
    ordered = list(records)
    # Dated records read as a story.
    if by_date and all(record.time for record in records):
        ordered.sort(key=lambda record: moment(record.time))

    texts = []
    for record in ordered:
        date = f"[{record.time}] " if record.time else ""
        text = record.response if record.stimulus is None else task.describe(record)
        texts.append(f"{date}{text}")

    # Entries of several lines need a blank line between them.
    separator = "\n\n" if any("\n" in text for text in texts) else "\n"
    return f"From this {task.words.person}'s history:\n\n{separator.join(texts)}"


def _has_options(task: Wording, sample: Sample) -> bool:
    return bool(sample.choices) and not task.labels


def _word_question(task: Wording, sample: Sample) -> str:
    if task.kind != "category" or not _has_options(task, sample):
        return sample.input
    options = [
        f"({letter}) {choice}"
        for letter, choice in zip(_letters(len(sample.choices)), sample.choices, strict=True)
    ]
    return "\n".join([sample.input, "", *options])


def _letters(count: int) -> Sequence[str]:
    letters = string.ascii_uppercase
    if count > len(letters):
        raise UsageError(f"a question has {count} options; letters name at most {len(letters)}")
    return letters[:count]


# Answers ----------------------------------------------------------------------------------------


def parse_answer(
    task: Wording,
    output: str,
    sample: Sample,
    scorer: str,
) -> str | None:
    """Read an answer; None if it cannot be read.

    `official` takes the whole answer literally, but for white space around it.  `lenient` drops
    reasoning, markup and lead-ins, and looks for the only label, number or option.  Options are
    read by letter or by text, and returned as text.

    Raises:
        UsageError: unknown scorer.
    """
    if scorer not in task.scorers:
        raise UsageError(f"{task.name} has no scorer '{scorer}'; it has: {', '.join(task.scorers)}")
    is_lenient = scorer == "lenient"
    answer = strip_chatter(output) if is_lenient else output.strip()
    if task.kind == "text":
        return answer or None
    if task.kind == "ordinal":
        return _parse_rating(answer, task.labels, is_lenient)
    if task.labels:
        if is_lenient:
            return find_label(answer, task.labels)
        return answer if answer in task.labels else None
    return _parse_option(answer, sample.choices, is_lenient)


def _parse_rating(
    answer: str,
    labels: Sequence[str],
    is_lenient: bool,
) -> str | None:
    low, high = find_scale(labels)
    rating = find_rating(answer, low, high) if is_lenient else parse_number(answer)
    if rating is None or not low <= rating <= high:
        return None
    return f"{rating:g}"


def _parse_option(
    answer: str,
    choices: Sequence[str],
    is_lenient: bool,
) -> str | None:
    if answer in choices:
        return answer
    if not choices:
        return None

    match = _LETTER.fullmatch(answer)
    letters = {match[1].upper()} if match else set()
    if is_lenient and not letters:
        stated = _STATED_LETTER.findall(answer)
        letters = {"".join(groups).upper() for groups in stated}

    if len(letters) == 1:
        index = string.ascii_uppercase.index(letters.pop())
        return choices[index] if index < len(choices) else None
    # Two letters are no answer, but no letter may be an option's text.
    return find_label(answer, choices) if is_lenient and not letters else None


# Measuring --------------------------------------------------------------------------------------


def measure_answer(
    task: Wording,
    parsed: str | None,
    sample: Sample,
) -> Mapping[str, Value]:
    """Return a sample's values of `choose_metrics`; empty without references.

    With several references the best one counts.  An unparsed rating counts as the end of the scale
    that is farther from the reference.
    """
    if not sample.references:
        return {}
    if task.kind == "text":
        return _measure_text(parsed or "", sample.references)
    if task.kind == "ordinal":
        return _measure_rating(parsed, sample.references, task.labels)

    is_right = parsed in sample.references
    accuracy = float(is_right)
    if not task.labels:
        return {"accuracy": accuracy}
    gold = str(parsed) if is_right else sample.references[0]
    return {"accuracy": accuracy, "f1": label_pair(parsed, gold, task.labels)}


def _measure_text(text: str, references: Sequence[str]) -> dict[str, Value]:
    scores = [rouge_with_variants(text, reference) for reference in references]
    return {name: max(score[name] for score in scores) for name in scores[0]}


def _measure_rating(
    parsed: str | None,
    references: Sequence[str],
    labels: Sequence[str],
) -> dict[str, Value]:
    low, high = find_scale(labels)
    golds = [float(reference) for reference in references]
    errors = []
    for gold in golds:
        rating = farthest_rating(gold, low, high) if parsed is None else float(parsed)
        errors.append(abs(rating - gold))
    # RMSE takes the root of the mean, so each sample contributes its square.
    return {"MAE": min(errors), "RMSE": min(errors) ** 2}


def explain_gold(task: Wording, sample: Sample) -> str:
    """Say what `measure_answer` cannot use among a sample's references; empty if nothing."""
    if task.kind == "text":
        return ""

    if task.kind == "category":
        choices = task.labels or sample.choices
        if not choices:
            return "a task of kind category needs `labels`, or `choices` in every sample"
        for index, reference in enumerate(sample.references):
            if reference not in choices:
                return (
                    f"references[{index}] is '{reference}', expected one of: {', '.join(choices)}"
                )
        return ""

    low, high = find_scale(task.labels)
    for index, reference in enumerate(sample.references):
        number = parse_number(reference)
        if number is None or not low <= number <= high:
            return f"references[{index}] '{reference}' is not a number from {low} to {high}"
    return ""
