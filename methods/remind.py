"""Ask in another way after the whole conversation: prompt-only methods of a paper on preferences.

All show the history as `full` does.  `remind` ends the question with a sentence, `cot` puts worked
examples in front of it, `rag_k` repeats the best records there, and `self_critic` has the model
revise its answer after a critique of its own.  A history that does not fit loses its oldest part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from personabench import Context, Message, Method, PromptFile, Record, Sample
from personabench.api.method import retrieval_needs

PROMPTS = PromptFile(__file__, "remind.prompts.toml")
CRITIQUE_TOKENS = 150


class Remind(Method):
    """Show the conversation, and remind the model of the user's preferences after the question."""

    name = "remind"
    paper = "Do LLMs Recognize Your Preferences?, arXiv 2502.09597"
    designed_for = ("prefeval*",)
    needs = ("history",)
    prompts = (PROMPTS,)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        reminder = ctx.part(PROMPTS, "reminder")
        reminded = msgspec.structs.replace(sample, input=f"{sample.input}\n\n{reminder}")
        return await _complete(_fit_conversation(reminded, ctx, ctx.answer_tokens), ctx)


class WorkedExamples(Method):
    """Show the conversation, and five examples of finding a preference before the question."""

    name = "cot"
    paper = "Do LLMs Recognize Your Preferences?, arXiv 2502.09597"
    designed_for = ("prefeval*",)
    needs = ("history",)
    prompts = (PROMPTS,)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        question = _put_first(sample, ctx.part(PROMPTS, "examples"))
        return await _complete(_fit_conversation(question, ctx, ctx.answer_tokens), ctx)


class RagK(Method):
    """Show the conversation, and its k best records once more before the question."""

    name = "rag_k"
    paper = "Do LLMs Recognize Your Preferences?, arXiv 2502.09597"
    designed_for = ("prefeval*",)
    needs = ("history",)
    prompts = (PROMPTS,)

    @dataclass(frozen=True)
    class Params:
        """k: records that are repeated.

        retriever, embedder: as in rag.
        """

        k: int = 5
        retriever: str = "bm25"
        embedder: str = "wordllama"

    def requirements(self) -> set[str]:
        return super().requirements() | retrieval_needs(self.params.retriever)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        p = self.params
        records = await ctx.retrieve(sample, p.k, p.retriever, embedder=p.embedder)
        question = sample
        if records:
            # The best one stands next to the question.
            described = "\n\n".join(ctx.task.describe(record) for record in reversed(records))
            question = _put_first(sample, ctx.part(PROMPTS, "excerpts", records=described))
        return await _complete(_fit_conversation(question, ctx, ctx.answer_tokens), ctx)


class SelfCritic(Method):
    """Answer after the conversation, criticize the answer, and revise it."""

    name = "self_critic"
    paper = "Do LLMs Recognize Your Preferences?, arXiv 2502.09597"
    designed_for = ("prefeval*",)
    needs = ("history",)
    prompts = (PROMPTS,)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        critique, revision = ctx.part(PROMPTS, "critique"), ctx.part(PROMPTS, "revision")
        # Room for the first answer and the critique in the third prompt.
        requested = ctx.tokens.count(critique) + ctx.tokens.count(revision)
        needed = 2 * ctx.answer_tokens + CRITIQUE_TOKENS + requested
        messages = _fit_conversation(sample, ctx, needed)
        messages = await _continue(messages, critique, ctx.answer_tokens, ctx)
        messages = await _continue(messages, revision, CRITIQUE_TOKENS, ctx)
        return await _complete(messages, ctx)


async def _continue(
    messages: tuple[Message, ...], request: str, max_tokens: int, ctx: Context
) -> tuple[Message, ...]:
    """Have the model reply, and add its reply and a further request."""
    response = await ctx.complete(messages, max_tokens=max_tokens)
    # An empty turn is refused by many servers.
    said = Message("assistant", response.text.strip() or "…")
    return (*messages, said, Message("user", request))


def _put_first(sample: Sample, text: str) -> Sample:
    return msgspec.structs.replace(sample, input=f"{text}\n\n{sample.input}")


def _fit_conversation(sample: Sample, ctx: Context, max_tokens: int) -> tuple[Message, ...]:
    """The whole conversation with the question at its end, or its newest part that fits."""

    def build(newest_first: Sequence[Record]) -> Sequence[Message]:
        records = tuple(reversed(newest_first))
        conversation = ctx.task.chat(sample, records)
        if conversation is not None:
            return conversation.messages
        # Tasks take records best first, and the newest stands next to the question.
        return ctx.task.render(sample, tuple(newest_first), "", ctx.tokens).messages

    messages = ctx.fit(build, sample.history[::-1], max_tokens)
    if "records_dropped" in ctx.flags:
        ctx.flag("over_window")
    return messages


async def _complete(messages: Sequence[Message], ctx: Context) -> str:
    response = await ctx.complete(messages, max_tokens=ctx.answer_tokens)
    return response.text.strip()
