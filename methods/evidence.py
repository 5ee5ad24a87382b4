"""The evidence oracle: show exactly the records that hold the answer, as the data mark them.

The difference between this row and a retriever's is the loss of the search, and the difference to a
perfect score is what reading loses.  It sees marks that no method may see, so it is no method.
"""

from __future__ import annotations

from personabench import Context, Method, Sample


class Evidence(Method):
    """Show the records that the data mark as evidence and no others: an upper bound."""

    name = "evidence"
    paper = "LongMemEval, arXiv 2410.10813 (its oracle setting)"
    privileged = True
    needs = ("history", "evidence")
    designed_for = ("*",)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        marked = set(sample.evidence)
        records = [record for record in sample.history if record.id in marked]
        if not marked:
            ctx.flag("no_evidence")
        # A history control may hide them, and another user's records hold none.
        missing = len(marked) - len(records)
        if missing:
            ctx.flag("evidence_missing", missing)
        # Tasks take records best first, and the newest stands next to the question.
        return await ctx.answer(sample, records[::-1])
