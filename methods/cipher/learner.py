"""What all methods that learn from edits share: the online rounds, and history replayed as if it had been rounds.

Online, the state is the list of rounds: `predict` opens a round in it and `update` closes that with the user's edit.
Offline, a record is a round whose draft the model writes from the record's input alone and whose final is the user's
own response.  `static` does so for a few records with no preference and all at once, `replay` for all in order.  The
drafts need the wording of a question, so both begin at the question, and repetitions come from the response cache.
Where histories are conversations (`turns`), a round is a reply of the assistant's and what the user said to it.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

import numpy as np

from personabench import Context, Message, Method, Record, Sample, UsageError, User
from personabench.methods.cipher import prompts
from personabench.methods.cipher.prompts import Round
from personabench.metrics.text import without_reasoning

EMBEDDERS = {
    "mpnet": "sentence-transformers:all-mpnet-base-v2",
    "bert": "sentence-transformers:bert-base-uncased",
}
Mode = Literal["auto", "static", "replay", "turns"]
_RESERVE = 128


class Feedback(TypedDict):
    """What an online task tells after a round: the draft, what the user made of it, and the task's edit cost."""

    draft: str
    edited: str
    cost: float


class Learner(Method):
    """A method that learns from drafts and what the user made of them; `params` has `mode`."""

    params: Any
    uses_drafts = True

    async def profile(self, user: User, ctx: Context) -> dict[str, Any]:
        """Nothing learnt yet, no round open and none closed: the state online tasks begin with."""
        return {"rounds": [], "open": None, "t": 0}

    async def predict(self, sample: Sample, state: dict[str, Any], ctx: Context) -> str:
        """The answer; a sample without history is a round of an online task and is opened in `state`."""
        rounds = await self._remembered(sample, ctx) if sample.history else state["rounds"]
        if not sample.history and not rounds:
            ctx.flag("empty_profile")
        elif not rounds:
            ctx.flag("plain_prompt")
        answer, preference = await self.respond(sample, rounds, ctx)
        if not sample.history:
            ctx.note("preference", preference)
            state["open"] = {"text": subject(sample, ctx), "preference": preference}
        return answer

    async def update(
        self, state: dict[str, Any], feedback: Feedback, ctx: Context
    ) -> dict[str, Any]:
        """The state after the open round.

        Raises:
            UsageError: no round is open.
        """
        if state["open"] is None:
            raise UsageError(
                f"{self.name}: feedback came without a draft; predict opens a round, update closes it"
            )
        closed = Round(
            text=state["open"]["text"],
            draft=feedback["draft"],
            final=feedback["edited"],
            preference=state["open"]["preference"],
            cost=feedback["cost"],
            t=state["t"],
        )
        return {
            "rounds": await self.learn(state["rounds"], closed, ctx),
            "open": None,
            "t": state["t"] + 1,
        }

    @abstractmethod
    async def learn(self, rounds: Sequence[Round], closed: Round, ctx: Context) -> list[Round]:
        """The memory after one more round; the given one is not changed."""

    @abstractmethod
    async def chosen(
        self, sample: Sample, records: Sequence[Record], ctx: Context
    ) -> Sequence[Record]:
        """The records that `static` makes rounds of, in the history's order."""

    async def preference(self, sample: Sample, rounds: Sequence[Round], ctx: Context) -> str:
        """What the memory says this user prefers here, or ""."""
        return ""

    async def respond(
        self, sample: Sample, rounds: Sequence[Round], ctx: Context
    ) -> tuple[str, str]:
        """An answer and the preference it was made with."""
        preference = await self.preference(sample, rounds, ctx)
        return await ctx.answer(sample, notes=prompts.notes_of(preference, ctx)), preference

    def replayed(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records that `replay` goes through."""
        return records

    async def infer(self, pairs: Sequence[Round], ctx: Context) -> str:
        """The preference behind some edits; "", counted, where the model names none when asked a second time.

        What somebody said to a reply may show nothing, so there the first "none" stands.
        """
        allowance: int = self.params.preference_max_tokens
        messages = prompts.fitting(prompts.inference(pairs, ctx), "pairs_shortened", allowance, ctx)
        reply = await self.asked(
            messages, _said if pairs[-1].get("spoken") else prompts.phrase, ctx
        )
        preference = prompts.phrase(reply)
        if not preference:
            ctx.flag("nothing_shown" if reply else "empty_inference")
        return prompts.capped(preference, ctx)

    async def asked(
        self, messages: Sequence[Message], read: Callable[[str], str], ctx: Context
    ) -> str:
        """The model's reply, drawn anew once where `read` finds nothing in it, and not remembered then; or ""."""
        for repeat in range(2):
            response = await ctx.complete(
                messages,
                max_tokens=self.params.preference_max_tokens,
                repeat=repeat,
                accept=lambda text: bool(read(text)),
            )
            if read(response.text):
                return response.text
        return ""

    async def _remembered(self, sample: Sample, ctx: Context) -> list[Round]:
        exchanges, mode = ctx.task.exchanges(sample), self.params.mode
        if mode == "turns" and exchanges is None:
            raise UsageError(
                f"{self.name}: mode=turns needs conversations, and {ctx.task.name} has none"
            )
        if mode == "turns" or (mode == "auto" and exchanges is not None):
            return await self._heard(sample, self._others(sample, exchanges or (), ctx), ctx)
        records = self._others(sample, sample.history, ctx)
        if mode == "replay":
            rounds: list[Round] = []
            for record in self.replayed(records):
                closed = await self._round(record, sample, rounds, ctx)
                rounds = rounds if closed is None else await self.learn(rounds, closed, ctx)
            return rounds
        chosen = await self.chosen(sample, records, ctx)
        learnt = await asyncio.gather(*(self._learnt(record, sample, ctx) for record in chosen))
        return [each for rounds in learnt for each in rounds]

    async def _heard(
        self, sample: Sample, exchanges: Sequence[Record], ctx: Context
    ) -> list[Round]:
        """Some exchanges as rounds, learnt from all at once, in time order."""
        chosen = await self.chosen(sample, exchanges, ctx)
        heard = [
            Round(
                text=_subject(each),
                draft=each.fields["reply"],
                final=each.response,
                preference="",
                cost=None,
                spoken=True,
            )
            for each in chosen
        ]
        learnt = await asyncio.gather(*(self.learn([], each, ctx) for each in heard))
        return [each for rounds in learnt for each in rounds]

    async def _learnt(self, record: Record, sample: Sample, ctx: Context) -> list[Round]:
        closed = await self._round(record, sample, None, ctx)
        return [] if closed is None else await self.learn([], closed, ctx)

    async def _round(
        self, record: Record, sample: Sample, rounds: Sequence[Round] | None, ctx: Context
    ) -> Round | None:
        """The record as a round, drafted from `rounds` or, for None, plainly; None where the draft is unreadable.

        A record that brings a draft, or an empty one where the user spoke without any, needs none written.
        """
        closed = Round(
            text=_subject(record), draft=None, final=record.response, preference="", cost=None
        )
        if not self.uses_drafts:
            return closed
        if "draft" in record.fields:
            closed["draft"] = record.fields["draft"] or None
            return closed
        question = _question(record, sample, ctx)
        if record.stimulus is None:
            messages = prompts.fitting(
                prompts.neutral(record, ctx), "stimuli_shortened", ctx.answer_tokens, ctx
            )
            output = (await ctx.complete(messages, max_tokens=ctx.answer_tokens)).text
        elif rounds:
            output, closed["preference"] = await self.respond(question, rounds, ctx)
        else:
            output = await ctx.answer(question)
        draft = ctx.task.parse(output, question, "lenient")
        if draft is None:
            ctx.flag("draft_unreadable")
            return None
        closed["draft"] = draft
        return closed

    def _others(self, sample: Sample, records: Sequence[Record], ctx: Context) -> list[Record]:
        """Records without those that ask what the sample asks."""
        if ctx.task.kind != "text" and any(record.stimulus is None for record in records):
            raise UsageError(
                f"{self.name} cannot run on {ctx.task.name}: its histories hold no past choices, "
                "so there is no draft to compare with"
            )
        asked = _folded(subject(sample, ctx))
        others = [
            record
            for record in records
            if asked
            not in map(_folded, (record.stimulus or "", record.response, *record.fields.values()))
        ]
        if len(others) < len(records):
            ctx.flag("duplicates_dropped", len(records) - len(others))
        return others


def subject(sample: Sample, ctx: Context) -> str:
    """What a question is about: the text its neighbours are found by."""
    return sample.stimulus or ctx.task.query_text(sample)


async def nearest_records(
    sample: Sample, records: Sequence[Record], k: int, embedder: str, ctx: Context
) -> list[Record]:
    """The k records whose inputs are nearest to the question's, in the history's order."""
    texts = [_subject(record) for record in records]
    return [
        records[place]
        for place in sorted(await nearest(subject(sample, ctx), texts, k, embedder, ctx))
    ]


async def nearest(
    text: str, texts: Sequence[str], k: int, embedder: str, ctx: Context
) -> list[int]:
    """Places of the k texts nearest by cosine, nearest first; of equally near ones the earlier first."""
    return [place for place, _ in await ranked(text, texts, k, embedder, ctx)]


async def recalled(
    sample: Sample, rounds: Sequence[Round], k: int, embedder: str, ctx: Context
) -> list[int]:
    """Places of the k rounds nearest to the question, nearest first; online their numbers and cosines are noted."""
    found = await ranked(subject(sample, ctx), [each["text"] for each in rounds], k, embedder, ctx)
    if not sample.history and all("t" in each for each in rounds):
        ctx.note("nearest", [[rounds[place]["t"], round(cosine, 6)] for place, cosine in found])
    return [place for place, _ in found]


async def ranked(
    text: str, texts: Sequence[str], k: int, embedder: str, ctx: Context
) -> list[tuple[int, float]]:
    """Places and cosines of the k nearest texts; of equally near ones the earlier first."""
    if not texts:
        return []
    vectors = (await ctx.embed([text, *texts], EMBEDDERS.get(embedder, embedder))).astype(
        np.float64
    )
    lengths = np.sqrt((vectors**2).sum(axis=1))
    scale = lengths[1:] * lengths[0]
    products = (vectors[1:] * vectors[0]).sum(axis=1)
    likeness = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    return [
        (int(place), float(likeness[place])) for place in np.argsort(-likeness, kind="stable")[:k]
    ]


def _said(reply: str) -> str:
    return without_reasoning(reply).strip()


def _subject(record: Record) -> str:
    return record.stimulus or record.response


def _question(record: Record, like: Sample, ctx: Context) -> Sample:
    """The record as a question that fits the window with some room for notes, or the shortest there is."""
    variants = prompts.questions(record, like, ctx)
    question, shortened = next(variants), 0
    while _excess(question, ctx) > 0 and (shorter := next(variants, None)):
        question, shortened = shorter, shortened + 1
    if shortened and record.stimulus is not None:
        ctx.flag("stimuli_shortened", shortened)
    return question


def _excess(question: Sample, ctx: Context) -> int:
    return ctx.excess(
        ctx.task.render(question, (), "", ctx.tokens).messages, ctx.answer_tokens + _RESERVE
    )


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
