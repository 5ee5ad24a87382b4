"""Profile-augmented generation: a summary of the user written once, then retrieval as usual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from personabench import Context, Message, Method, Record, Sample, User
from personabench.method import retrieval_needs


class Summary(Method):
    """Summarise the user's history once; answer with the summary and the k nearest records."""

    name = "summary"
    paper = "Integrating Summarization and Retrieval for Enhanced Personalization via LLMs, arXiv 2310.20081"
    needs = ("history",)

    @dataclass(frozen=True)
    class Params:
        """k: records shown with the question; retriever, embedder: as for rag.

        summary_budget_tokens: how much of the history the summary is made from; the newest records are kept.
        summary_max_tokens: allowance of the summary.
        """

        k: int = 4
        retriever: str = "bm25"
        embedder: str = "wordllama"
        summary_budget_tokens: int = 6000
        summary_max_tokens: int = 512

    def requirements(self) -> set[str]:
        return super().requirements() | retrieval_needs(self.params.retriever)

    async def profile(self, user: User, ctx: Context) -> str:
        """The summary text; empty for a user without history."""
        if not user.history:
            return ""
        newest_first = user.history[::-1]
        kept = ctx.within([ctx.task.describe(record) for record in newest_first], self.params.summary_budget_tokens)
        messages = ctx.fit(lambda records: _prompt(records, ctx), newest_first[:kept], self.params.summary_max_tokens)
        response = await ctx.complete(messages, max_tokens=self.params.summary_max_tokens)
        return response.text.strip()

    async def predict(self, sample: Sample, state: str, ctx: Context) -> str:
        records = await ctx.retrieve(sample, self.params.k, self.params.retriever, embedder=self.params.embedder)
        return await ctx.answer(sample, records, notes=state)


def _prompt(newest_first: Sequence[Record], ctx: Context) -> tuple[Message, ...]:
    words = ctx.task.words
    system = (
        f"You study one {words.person}. {words.profile_question} "
        "Write one short paragraph about habits that hold across the records. "
        "Describe the person, not single records, and do not number or quote them."
    )
    shown = "\n\n".join(ctx.task.describe(record) for record in reversed(newest_first))
    return Message("system", system), Message(
        "user", f"The {words.person}'s records, oldest first:\n\n{shown}\n\nProfile:"
    )
