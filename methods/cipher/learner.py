"""Base class of the methods that learn from edits, online or from a replayed history.

Online, the state is the list of rounds: `predict` opens a round in it and `update` closes it with
the user's edit. Offline, a record is a round whose draft the model writes from the record's input
alone and whose final version is the user's own response.  `static` does so for a few records at
once, without a preference, `replay` for all in order. Drafts need the wording of a question, so
both modes start at the question, and the response cache avoids repetition. If histories are
conversations (`turns`), a round is a reply of the assistant and the user's reaction to it.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

import numpy as np

from personabench import Context, Message, Method, Record, Sample, UsageError, User
from personabench.hashing import fold_text
from personabench.methods.cipher import prompts
from personabench.methods.cipher.prompts import PROMPTS, Round
from personabench.methods.vectors import compute_cosines
from personabench.metrics.text import strip_reasoning

EMBEDDERS = {
    # The paper reads 512 word pieces; the package alone stops at 384.
    "mpnet": "sentence-transformers:all-mpnet-base-v2@512",
    "bert": "sentence-transformers:bert-base-uncased",
}
Mode = Literal["auto", "static", "replay", "turns"]
# Of a reply that names no preference.
TRIES = 2
# Tokens that a drafted question leaves free for the notes which `replay` adds to it.
_RESERVE = 128


class Feedback(TypedDict):
    """Feedback of an online task: the draft, the user's version, and the task's edit cost."""

    draft: str
    edited: str
    cost: float


class Learner(Method):
    """A method that learns from drafts and the user's versions of them; `params` has `mode`."""

    params: Any
    prompts = (PROMPTS,)
    uses_profiler = True
    uses_drafts = True

    async def profile(
        self,
        user: User,
        ctx: Context,
    ) -> dict[str, Any]:
        """The state that online tasks start with: no round open and none closed."""
        return {"rounds": [], "open": None, "t": 0}

    def requirements(self) -> set[str]:
        needs = {"conversations"} if self.params.mode == "turns" else set()
        return super().requirements() | needs

    async def predict(
        self,
        sample: Sample,
        state: dict[str, Any],
        ctx: Context,
    ) -> str:
        """The answer; a sample without history opens a round of an online task in `state`."""
        online = not sample.history
        if online:
            rounds = state["rounds"]
        else:
            rounds = await self._rounds_from_history(sample, ctx.shared())
        if not rounds:
            ctx.flag("empty_profile" if online else "plain_prompt")

        answer, preference = await self.respond(sample, rounds, ctx)
        if online:
            ctx.note("preference", preference)
            state["open"] = {"text": subject(sample, ctx), "preference": preference}
        return answer

    async def update(
        self,
        state: dict[str, Any],
        feedback: Feedback,
        ctx: Context,
    ) -> dict[str, Any]:
        """The state after the open round.

        Raises:
            UsageError: no round is open.
        """
        if state["open"] is None:
            raise UsageError(
                f"{self.name}: feedback came without a draft; predict opens a round, update closes "
                "it"
            )

        closed = Round(
            text=state["open"]["text"],
            draft=feedback["draft"],
            final=feedback["edited"],
            preference=state["open"]["preference"],
            cost=feedback["cost"],
            t=state["t"],
        )
        rounds = await self.learn(state["rounds"], closed, ctx)
        return {"rounds": rounds, "open": None, "t": state["t"] + 1}

    @abstractmethod
    async def learn(
        self,
        rounds: Sequence[Round],
        closed: Round,
        ctx: Context,
    ) -> list[Round]:
        """The memory after one more round; `rounds` is not changed."""

    @abstractmethod
    async def select_records(
        self,
        sample: Sample,
        records: Sequence[Record],
        ctx: Context,
    ) -> Sequence[Record]:
        """The records that `static` turns into rounds, in the history's order."""

    async def find_preference(
        self,
        sample: Sample,
        rounds: Sequence[Round],
        ctx: Context,
    ) -> str:
        """The preference that the memory holds for this question, or ""."""
        return ""

    async def respond(
        self,
        sample: Sample,
        rounds: Sequence[Round],
        ctx: Context,
    ) -> tuple[str, str]:
        """An answer and the preference it was made with."""
        preference = await self.find_preference(sample, rounds, ctx)
        answer = await ctx.answer(sample, notes=prompts.format_notes(preference, ctx))
        return answer, preference

    def select_records_to_replay(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records that `replay` goes through."""
        return records

    async def infer(self, pairs: Sequence[Round], ctx: Context) -> str:
        """The preference behind some edits; "", and flagged, if two replies name none.

        A reaction to a reply may show nothing, so for reactions the first "none" is accepted.
        """
        ctx = ctx.profiling()
        max_tokens: int = self.params.preference_max_tokens
        variants = prompts.draft_inferences(pairs, ctx)
        messages = prompts.fit_variant(variants, "pairs_shortened", max_tokens, ctx)

        spoken = pairs[-1].get("spoken")
        read = _strip_reasoning if spoken else prompts.read_phrase
        reply = await self.request_reply(messages, read, ctx)

        preference = prompts.read_phrase(reply)
        if not preference:
            ctx.flag("nothing_shown" if reply else "empty_inference")
        return prompts.cap_preference(preference, ctx, self.params.preference_max_words)

    async def infer_from_all(
        self,
        sample: Sample,
        rounds: Sequence[Round],
        ctx: Context,
    ) -> str:
        """The preference behind all rounds, or "" without any.

        Rounds of the history determine it, so that the user's questions share it.
        """
        if not rounds:
            return ""
        return await self.infer(rounds, ctx.shared() if sample.history else ctx)

    async def request_reply(
        self,
        messages: Sequence[Message],
        read: Callable[[str], str],
        ctx: Context,
    ) -> str:
        """The model's reply; a second repeat if `read` returns nothing; "" if that fails too."""
        for repeat in range(TRIES):
            response = await ctx.complete(
                messages,
                max_tokens=self.params.preference_max_tokens,
                repeat=repeat,
                attempt=repeat,
                attempts=TRIES,
                # An empty reply stored in the cache would be returned again for ever.
                accept=lambda text: bool(read(text)),
            )
            if read(response.text):
                return response.text
        return ""

    async def _rounds_from_history(self, sample: Sample, ctx: Context) -> list[Round]:
        """The history as rounds that were learned from, in the way of `mode`."""
        mode = self.params.mode
        exchanges = ctx.task.exchanges(sample)
        if mode == "turns" or (mode == "auto" and exchanges is not None):
            exchanges = self._drop_duplicates(sample, exchanges or (), ctx)
            return await self._learn_exchanges(sample, exchanges, ctx)

        records = self._drop_duplicates(sample, sample.history, ctx)
        if mode == "replay":
            return await self._replay(sample, records, ctx)

        selected = await self.select_records(sample, records, ctx)
        memories = await asyncio.gather(
            *(self._learn_record(record, sample, ctx) for record in selected)
        )
        return [entry for rounds in memories for entry in rounds]

    async def _replay(
        self,
        sample: Sample,
        records: Sequence[Record],
        ctx: Context,
    ) -> list[Round]:
        """All records as rounds in order, each drafted with the memory of the earlier ones."""
        rounds: list[Round] = []
        for record in self.select_records_to_replay(records):
            closed = await self._draft_round(record, sample, rounds, ctx)
            if closed is not None:
                rounds = await self.learn(rounds, closed, ctx)
        return rounds

    async def _learn_exchanges(
        self,
        sample: Sample,
        exchanges: Sequence[Record],
        ctx: Context,
    ) -> list[Round]:
        """Some exchanges as rounds, learned from all at once, in time order."""
        selected = await self.select_records(sample, exchanges, ctx)
        spoken_rounds = [
            Round(
                text=_subject_of_record(exchange),
                draft=exchange.fields["reply"],
                final=exchange.response,
                preference="",
                cost=None,
                spoken=True,
            )
            for exchange in selected
        ]
        memories = await asyncio.gather(*(self.learn([], closed, ctx) for closed in spoken_rounds))
        return [entry for rounds in memories for entry in rounds]

    async def _learn_record(
        self,
        record: Record,
        sample: Sample,
        ctx: Context,
    ) -> list[Round]:
        closed = await self._draft_round(record, sample, None, ctx)
        if closed is None:
            return []
        return await self.learn([], closed, ctx)

    async def _draft_round(
        self,
        record: Record,
        sample: Sample,
        rounds: Sequence[Round] | None,
        ctx: Context,
    ) -> Round | None:
        """The record as a round, drafted with the memory `rounds`, if any; None if the draft cannot
        be parsed.

        A record that has a draft (an empty one if the user wrote without any) needs no call.
        """
        closed = Round(
            text=_subject_of_record(record),
            draft=None,
            final=record.response,
            preference="",
            cost=None,
        )
        if not self.uses_drafts:
            return closed
        if "draft" in record.fields:
            closed["draft"] = record.fields["draft"] or None
            return closed

        question = _question_from(record, sample, ctx)
        if record.stimulus is None:
            output = await _rewrite_neutrally(record, ctx)
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

    def _drop_duplicates(
        self,
        sample: Sample,
        records: Sequence[Record],
        ctx: Context,
    ) -> list[Record]:
        """The records without those that repeat the sample's own question."""
        if ctx.task.kind != "text" and any(record.stimulus is None for record in records):
            raise UsageError(
                f"{self.name} cannot run on {ctx.task.name}: its histories hold no past choices, "
                "so there is no draft to compare with"
            )

        question = fold_text(subject(sample, ctx))
        remaining = [record for record in records if question not in _folded_texts(record)]
        if len(remaining) < len(records):
            ctx.flag("duplicates_dropped", len(records) - len(remaining))
        return remaining


def subject(sample: Sample, ctx: Context) -> str:
    """The text by which a question's neighbours are found."""
    return sample.stimulus or ctx.task.query_text(sample)


async def find_nearest_records(
    sample: Sample,
    records: Sequence[Record],
    k: int,
    embedder: str,
    ctx: Context,
) -> list[Record]:
    """The k records whose inputs are most similar to the question's, in the history's order."""
    texts = [_subject_of_record(record) for record in records]
    indices = await find_nearest(subject(sample, ctx), texts, k, embedder, ctx)
    return [records[index] for index in sorted(indices)]


async def find_nearest(
    text: str,
    texts: Sequence[str],
    k: int,
    embedder: str,
    ctx: Context,
) -> list[int]:
    """Indices of the k texts most similar by cosine, best first, earlier ones first of equals."""
    return [index for index, _ in await rank_texts(text, texts, k, embedder, ctx)]


async def find_nearest_rounds(
    sample: Sample,
    rounds: Sequence[Round],
    k: int,
    embedder: str,
    ctx: Context,
) -> list[int]:
    """Indices of the k rounds most similar to the question, best first; noted online."""
    texts = [entry["text"] for entry in rounds]
    ranking = await rank_texts(subject(sample, ctx), texts, k, embedder, ctx)

    online = not sample.history and all("t" in entry for entry in rounds)
    if online:
        # Rounded, because the last digits of a cosine differ between machines.
        ctx.note("nearest", [[rounds[index]["t"], round(cosine, 6)] for index, cosine in ranking])
    return [index for index, _ in ranking]


async def rank_texts(
    text: str,
    texts: Sequence[str],
    k: int,
    embedder: str,
    ctx: Context,
) -> list[tuple[int, float]]:
    """Indices and cosines of the k most similar texts; of equals the earlier comes first."""
    if not texts:
        return []
    vectors = await ctx.embed([text, *texts], EMBEDDERS.get(embedder, embedder))
    similarities = compute_cosines(vectors)
    order = np.argsort(-similarities, kind="stable")[:k]
    return [(int(index), float(similarities[index])) for index in order]


async def _rewrite_neutrally(record: Record, ctx: Context) -> str:
    """A neutral version of a record that is a response alone, to serve as its draft."""
    variants = prompts.draft_rewrites(record, ctx)
    messages = prompts.fit_variant(variants, "stimuli_shortened", ctx.answer_tokens, ctx)
    response = await ctx.complete(messages, max_tokens=ctx.answer_tokens)
    return response.text


def _strip_reasoning(reply: str) -> str:
    return strip_reasoning(reply).strip()


def _subject_of_record(record: Record) -> str:
    return record.stimulus or record.response


def _folded_texts(record: Record) -> set[str]:
    texts = (
        record.stimulus or "",
        record.response,
        *record.fields.values(),
    )
    return {fold_text(text) for text in texts}


def _question_from(record: Record, template: Sample, ctx: Context) -> Sample:
    """The record as a question that leaves room for notes, or else the shortest variant."""
    variants = prompts.draft_questions(record, template, ctx)
    question = next(variants)
    shortened = 0
    while _count_excess(question, ctx) > 0:
        shorter = next(variants, None)
        if shorter is None:
            break
        question = shorter
        shortened += 1

    if shortened and record.stimulus is not None:
        ctx.flag("stimuli_shortened", shortened)
    return question


def _count_excess(question: Sample, ctx: Context) -> int:
    messages = ctx.task.render(question, (), "", ctx.tokens).messages
    return ctx.count_excess_tokens(messages, ctx.answer_tokens + _RESERVE)
