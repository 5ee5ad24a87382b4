"""Past questions of a user as validation: the model's answers, scored against the user's."""

from __future__ import annotations

from collections.abc import Sequence

from personabench import Context, Record, Sample
from personabench.hashing import fold_text
from personabench.methods.fermi_scoring import score_prediction
from personabench.metrics.ratings import parse_number


def list_precedents(sample: Sample, ctx: Context) -> list[Record]:
    """The user's records, oldest first, without those that repeat the sample's own question."""
    question = fold_text(ctx.task.query_text(sample))
    return [
        record
        for record in sample.history
        if record.response and fold_text(ctx.task.document_text(record)) != question
    ]


async def score_past_answer(
    record: Record, like: Sample, records: Sequence[Record], notes: str, ctx: Context
) -> tuple[float, str]:
    """Answer a past question with these records and notes; the score, 0 to 1, and the answer.

    1 or 0 for a label, 1 - |difference| / range for a rating, and ROUGE-L for a text.  An answer
    that cannot be read scores 0, as in the tasks themselves, and is counted.
    """
    question = ctx.task.question(record, like=like)
    output = await ctx.answer(question, records, notes)
    answer = ctx.task.parse(output, question, "lenient")
    if answer is None:
        ctx.flag("past_answer_unreadable")
        return 0.0, output
    return score_prediction(answer, record.response, _measure_span(ctx), ctx), answer


def _measure_span(ctx: Context) -> float:
    """The range of the task's ratings; 1 without any."""
    scale = [number for number in map(parse_number, ctx.task.labels) if number is not None]
    span = max(scale) - min(scale) if scale else 0.0
    return span or 1.0
