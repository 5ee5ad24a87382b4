"""The user's whole history before the question: what a long context is worth without any selection.

Tasks whose histories are conversations tell them as such, both sides, in order (`chat`); elsewhere all records are
shown as every method shows records.  A history that is longer than the model's window is a declared choice, counted.
`persona_only` is the control beside it: the description that opens a conversation, and nothing that was said.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from personabench import Context, Message, Method, Record, Sample, UsageError
from personabench.api.wording import Rendered
from personabench.errors import BackendError

ALTERNATIVES = 20
FIRST_TOKENS = 16


class Full(Method):
    """Show the whole history; refuse, keep the newest or retrieve what fits where it is too long."""

    name = "full"
    paper = "Know Me, Respond to Me, arXiv 2504.14225 (its main setting)"
    designed_for = ("personamem*",)
    needs = ("history",)

    @dataclass(frozen=True)
    class Params:
        """overflow: what happens to a history that does not fit the model's window beside question and answer.

            refuse fails the question; recent leaves out the oldest blocks of it, then its oldest records; retrieve
            keeps the records that fit the question best, in their order.
        retriever, embedder: of retrieve, as for rag.
        decide: reply, what the model writes; logprobs, the choice whose letter was likeliest where the model names one;
            sum or mean, the option whose text was the likeliest reply to a question that shows no options, by the sum
            (as in the paper) or the mean of its tokens' log-probabilities.
        """

        overflow: Literal["refuse", "recent", "retrieve"] = "refuse"
        retriever: str = "bm25"
        embedder: str = "wordllama"
        decide: Literal["reply", "logprobs", "sum", "mean"] = "reply"

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        if not sample.history:
            ctx.flag("empty_profile")
        if self.params.decide in ("sum", "mean"):
            return await self._generative(sample, ctx)
        messages = await self._fitting(sample, ctx)
        if self.params.decide == "logprobs":
            return await _likeliest(messages, sample, ctx)
        return (await ctx.complete(messages, max_tokens=ctx.answer_tokens)).text.strip()

    async def _generative(self, sample: Sample, ctx: Context) -> str:
        """The choice whose text is the likeliest reply, the first of equals.

        Raises:
            UsageError: the task offers no options, or the backend does not say how likely a reply is.
        """
        if "options" not in sample.attributes or sample.stimulus is None:
            raise UsageError(
                f"decide={self.params.decide} needs a task that offers options; {ctx.task.name} has none"
            )
        messages = await self._fitting(msgspec.structs.replace(sample, input=sample.stimulus), ctx)
        texts = msgspec.json.decode(sample.attributes["options"], type=list[str])
        found = await asyncio.gather(*(ctx.likelihood(messages, text) for text in texts))
        sums = [math.fsum(tokens) for tokens in found]
        if self.params.decide == "mean":
            sums = [total / max(len(tokens), 1) for total, tokens in zip(sums, found, strict=True)]
        return sample.choices[sums.index(max(sums))]

    async def _fitting(self, sample: Sample, ctx: Context) -> tuple[Message, ...]:
        history = sample.history
        whole = _shown(sample, history, ctx)
        excess = ctx.excess(whole.messages, ctx.answer_tokens)
        if excess <= 0:
            return _counted(whole, ctx)
        ctx.flag("over_window")
        if self.params.overflow == "refuse":
            raise BackendError(
                f"the history is {excess:,} tokens too long for the model's window of {ctx.window:,}; choose "
                "--set full.overflow=recent or retrieve, which are other protocols, or a model with a larger window"
            )
        if self.params.overflow == "recent":
            blocks = list(dict.fromkeys(map(_block, history)))
            kept = _most(len(blocks), lambda n: _fits(sample, _newest(history, blocks, n), ctx))
            if kept:
                ctx.flag("blocks_dropped", len(blocks) - kept)
                records: Sequence[Record] = _newest(history, blocks, kept)
            else:
                last = _newest(history, blocks, 1)
                ctx.flag("blocks_dropped", len(blocks) - 1)
                count = _most(len(last), lambda n: _fits(sample, last[len(last) - n :], ctx))
                records = last[len(last) - count :]
        else:
            p = self.params
            ranked = await ctx.retrieve(sample, len(history), p.retriever, embedder=p.embedder)
            records = ranked[: _most(len(ranked), lambda n: _fits(sample, ranked[:n], ctx))]
        ctx.flag("records_dropped", len(history) - len(records))
        shown = _shown(sample, records, ctx)
        if (excess := ctx.excess(shown.messages, ctx.answer_tokens)) > 0:
            raise BackendError(
                f"the question is {excess:,} tokens too long for the model's window of {ctx.window:,}, even without "
                "the history; use a model with a larger window"
            )
        return _counted(shown, ctx)


class PersonaOnly(Method):
    """Show the description of the user that opens a conversation, and nothing that was said."""

    name = "persona_only"
    paper = "Know Me, Respond to Me, arXiv 2504.14225 (control)"
    designed_for = ("personamem*",)
    needs = ("history",)
    refuses = {
        "lamp*": "its users have no written description",
        "longlamp*": "its users have no written description",
        "reviews*": "its users have no written description",
        "prelude*": "its users' preferences are hidden",
        "prefdisco*": "its personas are hidden",
    }

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        described: Callable[[Sample], str] | None = getattr(ctx.task, "persona", None)
        if described is None:
            raise UsageError(
                f"{self.name} cannot run on {ctx.task.name}: its users have no written description"
            )
        notes = described(sample)
        if not notes:
            ctx.flag("no_persona")
        return await ctx.answer(sample, notes=notes)


def _shown(sample: Sample, records: Sequence[Record], ctx: Context) -> Rendered:
    told: Callable[[Sample, Sequence[Record]], Rendered] | None = getattr(ctx.task, "chat", None)
    if told is not None:
        return told(sample, records)
    return ctx.task.render(sample, tuple(reversed(records)), "", ctx.tokens)


def _counted(shown: Rendered, ctx: Context) -> tuple[Message, ...]:
    for name, amount in shown.flags.items():
        ctx.flag(name, amount)
    return shown.messages


def _fits(sample: Sample, records: Sequence[Record], ctx: Context) -> bool:
    return ctx.excess(_shown(sample, records, ctx).messages, ctx.answer_tokens) <= 0


def _block(record: Record) -> str:
    return record.fields.get("block", record.id)


def _newest(history: Sequence[Record], blocks: Sequence[str], count: int) -> Sequence[Record]:
    kept = set(blocks[len(blocks) - count :])
    return [record for record in history if _block(record) in kept]


def _most(count: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `count` that fits, by bisection; 0 where none does."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


async def _likeliest(messages: Sequence[Message], sample: Sample, ctx: Context) -> str:
    """The choice whose letter was likeliest at the first place where the model writes a letter of a choice.

    Raises:
        UsageError: the task has no choices, or the backend reports no log-probabilities.
    """
    if not sample.choices:
        raise UsageError("decide=logprobs needs a task with choices")
    names = {choice.strip("()[]").casefold(): choice for choice in sample.choices}
    response = await ctx.complete(messages, max_tokens=FIRST_TOKENS, logprobs=ALTERNATIVES)
    if not response.logprobs:
        raise UsageError(
            "decide=logprobs needs a backend that reports log-probabilities, and this one reported none"
        )
    best: dict[str, float] = {}
    for place in response.logprobs:
        found = _letters([place, *place.get("top_logprobs", ())], names)
        if _letter(place["token"]) in names:
            best = found
            break
        best = best or found
    if not best:
        ctx.flag("no_letter_likely")
        return response.text.strip()
    return max(sorted(best), key=lambda choice: best[choice])


def _letters(
    alternatives: Sequence[Mapping[str, Any]], names: Mapping[str, str]
) -> dict[str, float]:
    """The choices that some tokens name, with the logarithm of their summed probability."""
    total: dict[str, float] = {}
    seen: set[str] = set()
    for each in alternatives:
        letter, token = _letter(each["token"]), each["token"]
        if letter in names and token not in seen:
            seen.add(token)
            total[names[letter]] = total.get(names[letter], 0.0) + math.exp(each["logprob"])
    return {choice: math.log(mass) if mass else -math.inf for choice, mass in total.items()}


def _letter(token: str) -> str:
    return token.strip().strip("()[]<>:.").casefold()
