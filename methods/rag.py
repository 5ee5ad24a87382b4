"""Retrieval-augmented personalization: show the records most relevant to the question."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from personabench import Context, Method, Sample, UsageError
from personabench.api.method import retrieval_needs
from personabench.retrieval.rankings import read_rankings


class Rag(Method):
    """Show the k records of the user's history that best fit the question."""

    name = "rag"
    paper = "LaMP: When Large Language Models Meet Personalization, arXiv 2304.11406"
    designed_for = ("lamp*",)
    needs = ("history",)

    @dataclass(frozen=True)
    class Params:
        """k: records shown.

        retriever: bm25, dense, recency, random, ranked, recency+dense or file-order.
        embedder: for dense; wordllama, sentence-transformers:NAME or openai:NAME.
        replacement: draw random records with replacement, as the paper's code does.
        ranking: for ranked; a JSON file that maps question ids to record ids, best first.
        """

        k: int = 8
        retriever: str = "bm25"
        embedder: str = "wordllama"
        replacement: bool = False
        ranking: str = ""

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        path = self.params.ranking
        # Read once here, so that a broken file stops the run before its first call.
        self.ranking = read_rankings(Path(path)) if path else None
        if self.params.replacement and self.params.retriever != "random":
            raise UsageError("rag: replacement is for retriever=random")

    def requirements(self) -> set[str]:
        return super().requirements() | retrieval_needs(self.params.retriever)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        if self.params.replacement and sample.history:
            rng = ctx.rng("rag with replacement", sample.id)
            drawn = rng.choices(sample.history, k=self.params.k)
            return await ctx.answer(sample, drawn)
        records = await ctx.retrieve(
            sample,
            self.params.k,
            self.params.retriever,
            embedder=self.params.embedder,
            ranking=self.ranking,
        )
        return await ctx.answer(sample, records)
