"""The user's whole history before the question: the value of a long context without any selection.

Tasks whose histories are conversations render them as such, both sides, in order (`chat`);
elsewhere all records are shown as every method shows records.  What happens to a history longer
than the model's window is a declared choice, and flagged.  `persona_only` is the control: the
description that opens a conversation, without the conversation.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from personabench import Context, Message, Method, Record, Rendered, Sample, UsageError
from personabench.errors import BackendError

# The most alternatives per token that OpenAI-compatible servers report.
ALTERNATIVES = 20
# Room for a lead-in such as "The answer is (" before the letter.
FIRST_TOKENS = 16


class Full(Method):
    """Show the whole history; if it is too long, fail, show the newest part or retrieve."""

    name = "full"
    paper = "Know Me, Respond to Me, arXiv 2504.14225 (its main setting)"
    designed_for = ("personamem*",)
    paper_settings = {"overflow": "refuse", "decide": ["reply", "sum"]}
    needs = ("history",)

    @dataclass(frozen=True)
    class Params:
        """overflow: treatment of a history that does not fit the model's window beside question and
        answer.

            refuse fails the question; recent leaves out the oldest blocks, then the oldest records;
            retrieve keeps the records that fit the question best, in their order.
        retriever, embedder: for retrieve, as in rag.
        decide: reply, the text the model writes; logprobs, the choice whose letter is likeliest at
            the point where the model names one; sum or mean, the option whose text is the likeliest
            reply to a question without options, by the sum (as in the paper) or the mean of its
            tokens' log-probabilities; sum_gain or mean_gain, the option that gains most by the
            history: the same less the log-probability without history, the pointwise mutual
            information of option and history.
        """

        overflow: Literal["refuse", "recent", "retrieve"] = "refuse"
        retriever: str = "bm25"
        embedder: str = "wordllama"
        decide: Literal["reply", "logprobs", "sum", "mean", "sum_gain", "mean_gain"] = "reply"

    def requirements(self) -> set[str]:
        needs = {"reply": set[str](), "logprobs": {"choices"}}
        return super().requirements() | needs.get(self.params.decide, {"options"})

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        if not sample.history:
            ctx.flag("empty_profile")

        if self.params.decide not in ("reply", "logprobs"):
            return await self._choose_likeliest_option(sample, ctx)

        messages = await self._fit_history(sample, ctx)
        if self.params.decide == "logprobs":
            return await _choose_likeliest_letter(messages, sample, ctx)
        response = await ctx.complete(messages, max_tokens=ctx.answer_tokens)
        return response.text.strip()

    async def _choose_likeliest_option(self, sample: Sample, ctx: Context) -> str:
        """The choice whose text is the likeliest reply, the first of equals.

        Raises:
            UsageError: the backend does not report the likelihood of a reply.
        """
        # The stimulus is the question without its options, as the paper scores them.
        open_question = msgspec.structs.replace(
            sample, input=sample.stimulus or sample.input, choices=()
        )
        options = ctx.task.options(sample)
        messages = await self._fit_history(open_question, ctx)
        scores = await self._score_replies(messages, options, ctx)
        if self.params.decide.endswith("_gain"):
            bare = _render(open_question, (), ctx)
            baselines = await self._score_replies(bare.messages, options, ctx)
            scores = [score - base for score, base in zip(scores, baselines, strict=True)]

        if scores.count(max(scores)) > 1:
            ctx.flag("likelihood_ties")
        return sample.choices[scores.index(max(scores))]

    async def _score_replies(
        self, messages: Sequence[Message], replies: Sequence[str], ctx: Context
    ) -> list[float]:
        """The log-probability of each reply, its sum or its mean over tokens."""
        logprobs = await asyncio.gather(*(ctx.likelihood(messages, reply) for reply in replies))
        scores = [math.fsum(token_logprobs) for token_logprobs in logprobs]
        if self.params.decide.startswith("mean"):
            lengths = [max(len(token_logprobs), 1) for token_logprobs in logprobs]
            scores = [score / length for score, length in zip(scores, lengths, strict=True)]
        return scores

    async def _fit_history(
        self,
        sample: Sample,
        ctx: Context,
    ) -> tuple[Message, ...]:
        """The question after its whole history, or after the part of it that `overflow` keeps.

        Raises:
            BackendError: the history does not fit and `overflow` is refuse, or the question alone
            does not fit.
        """
        history = sample.history
        rendered = _render(sample, history, ctx)
        excess = ctx.count_excess_tokens(rendered.messages, ctx.answer_tokens)
        if excess <= 0:
            return _flag_rendered(rendered, ctx)

        ctx.flag("over_window")
        if self.params.overflow == "refuse":
            raise BackendError(
                f"the history is {excess:,} tokens too long for the model's window of "
                f"{ctx.window:,}; choose --set full.overflow=recent or retrieve, which are other "
                "protocols, or a model with a larger window"
            )

        if self.params.overflow == "recent":
            records = _keep_newest(sample, ctx)
        else:
            records = await self._keep_most_relevant(sample, ctx)
        ctx.flag("records_dropped", len(history) - len(records))

        rendered = _render(sample, records, ctx)
        excess = ctx.count_excess_tokens(rendered.messages, ctx.answer_tokens)
        if excess > 0:
            raise BackendError(
                f"the question is {excess:,} tokens too long for the model's window of "
                f"{ctx.window:,}, even without the history; use a model with a larger window"
            )
        return _flag_rendered(rendered, ctx)

    async def _keep_most_relevant(self, sample: Sample, ctx: Context) -> Sequence[Record]:
        p = self.params
        ranked = await ctx.retrieve(
            sample,
            len(sample.history),
            p.retriever,
            embedder=p.embedder,
        )
        count = _largest(len(ranked), lambda size: _fits(sample, ranked[:size], ctx))
        return ranked[:count]


class PersonaOnly(Method):
    """Show the description of the user that opens a conversation, without the conversation."""

    name = "persona_only"
    paper = "Know Me, Respond to Me, arXiv 2504.14225 (control)"
    designed_for = ("personamem*",)
    needs = ("history", "persona")

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        persona = ctx.task.persona(sample)
        if not persona:
            ctx.flag("no_persona")
        return await ctx.answer(sample, notes=persona)


def _render(sample: Sample, records: Sequence[Record], ctx: Context) -> Rendered:
    conversation = ctx.task.chat(sample, records)
    if conversation is not None:
        return conversation
    # Tasks take records best first, and this method shows the newest next to the question.
    return ctx.task.render(sample, tuple(reversed(records)), "", ctx.tokens)


def _flag_rendered(rendered: Rendered, ctx: Context) -> tuple[Message, ...]:
    for name, amount in rendered.flags.items():
        ctx.flag(name, amount)
    return rendered.messages


def _fits(sample: Sample, records: Sequence[Record], ctx: Context) -> bool:
    messages = _render(sample, records, ctx).messages
    return ctx.count_excess_tokens(messages, ctx.answer_tokens) <= 0


def _keep_newest(sample: Sample, ctx: Context) -> Sequence[Record]:
    """The newest whole blocks that fit, or the newest records of a last block too long."""
    blocks = list(dict.fromkeys(map(_block_of, sample.history)))

    def newest_blocks(count: int) -> Sequence[Record]:
        kept_blocks = set(blocks[len(blocks) - count :])
        return [record for record in sample.history if _block_of(record) in kept_blocks]

    count = _largest(len(blocks), lambda size: _fits(sample, newest_blocks(size), ctx))
    if count:
        ctx.flag("blocks_dropped", len(blocks) - count)
        return newest_blocks(count)

    ctx.flag("blocks_dropped", len(blocks) - 1)
    last_block = newest_blocks(1)
    size = len(last_block)
    count = _largest(size, lambda count: _fits(sample, last_block[size - count :], ctx))
    return last_block[size - count :]


def _block_of(record: Record) -> str:
    return record.fields.get("block", record.id)


def _largest(count: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `count` that fits, by bisection; 0 if none does."""
    low, high = 0, count
    while low < high:
        # Rounding up, because `low` is known to fit and must grow.
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


async def _choose_likeliest_letter(
    messages: Sequence[Message],
    sample: Sample,
    ctx: Context,
) -> str:
    """The choice whose letter is likeliest at the first position where the model writes a choice's
    letter.

    Raises:
        UsageError: the backend reports no log-probabilities.
    """
    choices = {choice.strip("()[]").casefold(): choice for choice in sample.choices}
    response = await ctx.complete(messages, max_tokens=FIRST_TOKENS, logprobs=ALTERNATIVES)
    if not response.logprobs:
        raise UsageError(
            "decide=logprobs needs a backend that reports log-probabilities, and this one reported "
            "none"
        )

    best: dict[str, float] = {}
    for token in response.logprobs:
        alternatives = [token, *token.get("top_logprobs", ())]
        logprobs = _choice_logprobs(alternatives, choices)
        if _letter_of(token["token"]) in choices:
            best = logprobs
            break
        # Without a letter in the reply, the first position with one among its alternatives decides.
        best = best or logprobs

    if not best:
        ctx.flag("no_letter_likely")
        return response.text.strip()
    # Sorted, so that of equally likely choices the first by name wins on every backend.
    return max(sorted(best), key=lambda choice: best[choice])


def _choice_logprobs(
    alternatives: Sequence[Mapping[str, Any]], choices: Mapping[str, str]
) -> dict[str, float]:
    """The choices that some tokens name, with the logarithm of their summed probability."""
    masses: dict[str, float] = {}
    counted: set[str] = set()
    for alternative in alternatives:
        token = alternative["token"]
        letter = _letter_of(token)
        # The sampled token is usually among its own alternatives and must count once.
        if letter not in choices or token in counted:
            continue
        counted.add(token)
        choice = choices[letter]
        masses[choice] = masses.get(choice, 0.0) + math.exp(alternative["logprob"])
    return {choice: math.log(mass) if mass else -math.inf for choice, mass in masses.items()}


def _letter_of(token: str) -> str:
    return token.strip().strip("()[]<>:.").casefold()
