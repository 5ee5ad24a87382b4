"""CIPHER and its family: methods that learn from a user's edits of the model's drafts.

All of them (arXiv 2404.15269) remember drafts and edits and differ in how they use the memory:
`cipher` infers a preference from each edit and looks up the preferences of similar contexts,
`icl_edit` and `cot_edit` show the edits themselves, `continual` and `e_then_e` infer one preference
from the latest or the first edits, and `oracle` receives the true preference.  The shared part is
in `learner`, the wording in `prompts`, the edit cost in `edits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from personabench import Context, Method, Record, Sample, UsageError
from personabench.methods.cipher import prompts
from personabench.methods.cipher.edits import is_costly_edit
from personabench.methods.cipher.learner import (
    Learner,
    Mode,
    find_nearest_records,
    find_nearest_rounds,
)
from personabench.methods.cipher.prompts import PROMPTS, Round

# Of the paper's agents, whatever they remember.
DECODING = {"temperature": 0.0, "top_p": 0.95, "max_tokens": 4000}


class Cipher(Learner):
    """Infer a preference from every edit; answer with those of the k most similar contexts."""

    name = "cipher"
    paper = "Aligning LLM Agents by Learning Latent Preference from User Edits, arXiv 2404.15269"
    needs = ("history|feedback", "precedents|conversations|feedback")
    designed_for = ("prelude*",)
    paper_settings = {
        **DECODING,
        "k": [1, 5],
        "delta": 0.0,
        "embedder": ["mpnet", "bert"],
        "use_edits": True,
    }

    @dataclass(frozen=True)
    class Params:
        """k: remembered preferences used; 1 uses the nearest as it is, more are merged by one call.

        delta: edits that cost at most this are ignored.
        embedder: mpnet or bert as in the paper, or wordllama, sentence-transformers:NAME,
            openai:NAME.
        mode: offline only; static drafts the k nearest records, replay all records in order, turns
            reads the user's reactions to an assistant's replies; auto is turns for conversations,
            else static.
        use_edits: offline only; False infers from the user's own texts, without drafts.
        preference_max_tokens: maximum tokens of an inference or a merge.
        preference_max_words: words after which its result is cut.
        """

        k: int = 5
        delta: float = 0.0
        embedder: str = "wordllama"
        mode: Mode = "auto"
        use_edits: bool = True
        preference_max_tokens: int = 128
        preference_max_words: int = prompts.LONGEST_PREFERENCE

        def __post_init__(self) -> None:
            _require_positive(self, "k", "preference_max_tokens", "preference_max_words")
            if self.delta < 0:
                raise ValueError(f"delta must be 0 or more, not {self.delta}")

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        self.uses_drafts = self.params.use_edits

    async def select_records(
        self,
        sample: Sample,
        records: Sequence[Record],
        ctx: Context,
    ) -> Sequence[Record]:
        p = self.params
        return await find_nearest_records(sample, records, p.k, p.embedder, ctx)

    async def learn(
        self,
        rounds: Sequence[Round],
        closed: Round,
        ctx: Context,
    ) -> list[Round]:
        teaches = self._is_worth_inference(closed, ctx)
        preference = await self.infer([closed], ctx) if teaches else closed["preference"]
        if closed["cost"] is not None:
            ctx.note("inferred", preference if teaches else None)
        if not preference:
            return list(rounds)

        # The memory holds preferences by context, not texts: these would only make the stored state
        # large.
        remembered = Round(
            **{
                **closed,
                "draft": "",
                "final": "",
                "preference": preference,
            }
        )
        return [*rounds, remembered]

    async def find_preference(
        self,
        sample: Sample,
        rounds: Sequence[Round],
        ctx: Context,
    ) -> str:
        p = self.params
        timed = any(entry.get("spoken") for entry in rounds)
        if timed:
            indices = list(range(len(rounds)))
        else:
            indices = await find_nearest_rounds(sample, rounds, p.k, p.embedder, ctx)
        preferences = [rounds[index]["preference"] for index in indices]
        if not preferences:
            return ""
        if p.k == 1:
            return preferences[0]

        profiling = ctx.profiling()
        messages = prompts.draft_aggregation(preferences, profiling, timed=timed)
        reply = await self.request_reply(messages, prompts.read_phrase, profiling)
        if reply:
            phrase = prompts.read_phrase(reply)
            return prompts.cap_preference(phrase, ctx, p.preference_max_words)

        ctx.flag("empty_aggregation")
        # Without a merge, one preference stands for all: the newest if they are in time order, else
        # the nearest.
        return preferences[-1] if timed else preferences[0]

    def _is_worth_inference(self, closed: Round, ctx: Context) -> bool:
        """Whether a round is worth an inference."""
        if closed["cost"] is not None:
            return closed["cost"] > float(self.params.delta)
        if closed.get("spoken") or not self.params.use_edits:
            return True
        return is_costly_edit(
            closed["draft"] or "", closed["final"], self.params.delta, ctx.task.kind
        )


class IclEdit(Learner):
    """Show the drafts of the k most similar contexts with the user's versions."""

    name = "icl_edit"
    paper = "Aligning LLM Agents by Learning Latent Preference from User Edits, arXiv 2404.15269"
    needs = ("history|feedback", "precedents|conversations|feedback")
    designed_for = ("prelude*",)
    paper_settings = {**DECODING, "k": 5, "embedder": ["mpnet", "bert"]}

    @dataclass(frozen=True)
    class Params:
        """k: pairs shown; embedder, mode: as in cipher.

        order: the nearest pair last, next to the question, or first, as in the paper's code.
        """

        k: int = 5
        embedder: str = "wordllama"
        mode: Mode = "auto"
        order: Literal["nearest_last", "nearest_first"] = "nearest_last"

        def __post_init__(self) -> None:
            _require_positive(self, "k")

    async def select_records(
        self,
        sample: Sample,
        records: Sequence[Record],
        ctx: Context,
    ) -> Sequence[Record]:
        p = self.params
        return await find_nearest_records(sample, records, p.k, p.embedder, ctx)

    async def learn(
        self,
        rounds: Sequence[Round],
        closed: Round,
        ctx: Context,
    ) -> list[Round]:
        return [*rounds, closed]

    async def respond(
        self,
        sample: Sample,
        rounds: Sequence[Round],
        ctx: Context,
    ) -> tuple[str, str]:
        if not rounds:
            return await ctx.answer(sample), ""

        p = self.params
        indices = await find_nearest_rounds(sample, rounds, p.k, p.embedder, ctx)
        pairs = [rounds[index] for index in reversed(indices)]
        return await self.imitate(sample, pairs, ctx), ""

    async def imitate(
        self,
        sample: Sample,
        pairs: Sequence[Round],
        ctx: Context,
    ) -> str:
        """The answer in line with some pairs, the nearest last."""
        variants = prompts.add_examples(sample, pairs, ctx, order=self.params.order)
        messages = prompts.fit_variant(variants, "pairs_dropped", ctx.answer_tokens, ctx)
        response = await ctx.complete(messages, max_tokens=ctx.answer_tokens)
        return response.text.strip()


class CotEdit(IclEdit):
    """Like `icl_edit`, with a thought about the edits before the answer."""

    name = "cot_edit"
    paper = "Aligning LLM Agents by Learning Latent Preference from User Edits, arXiv 2404.15269"
    needs = ("history|feedback", "precedents|conversations|feedback")
    designed_for = ("prelude*",)
    paper_settings = {**DECODING, "k": 5, "embedder": ["mpnet", "bert"]}

    @dataclass(frozen=True)
    class Params(IclEdit.Params):
        """reasoning_max_tokens: maximum of the thought; all else as in icl_edit."""

        reasoning_max_tokens: int = 256

    async def imitate(
        self,
        sample: Sample,
        pairs: Sequence[Round],
        ctx: Context,
    ) -> str:
        max_tokens = ctx.answer_tokens + self.params.reasoning_max_tokens
        contract = prompts.request_reasoning(ctx)
        variants = prompts.add_examples(sample, pairs, ctx, contract, order=self.params.order)
        messages = prompts.fit_variant(variants, "pairs_dropped", max_tokens, ctx)
        response = await ctx.complete(messages, max_tokens=max_tokens)
        return prompts.read_final(response.text, ctx)


class Continual(Learner):
    """Before each answer, infer one preference from the user's latest edits."""

    name = "continual"
    paper = "Aligning LLM Agents by Learning Latent Preference from User Edits, arXiv 2404.15269"
    needs = ("history|feedback", "precedents|conversations|feedback")
    designed_for = ("prelude*",)
    paper_settings = {**DECODING, "pairs": 5}

    @dataclass(frozen=True)
    class Params:
        """pairs: edits used; all else as in cipher."""

        pairs: int = 5
        mode: Mode = "auto"
        preference_max_tokens: int = 128
        preference_max_words: int = prompts.LONGEST_PREFERENCE

        def __post_init__(self) -> None:
            _require_positive(self, "pairs", "preference_max_tokens", "preference_max_words")

    async def select_records(
        self,
        sample: Sample,
        records: Sequence[Record],
        ctx: Context,
    ) -> Sequence[Record]:
        return records[-self.params.pairs :]

    async def learn(
        self,
        rounds: Sequence[Round],
        closed: Round,
        ctx: Context,
    ) -> list[Round]:
        return [*rounds, closed][-self.params.pairs :]

    async def find_preference(
        self,
        sample: Sample,
        rounds: Sequence[Round],
        ctx: Context,
    ) -> str:
        return await self.infer_from_all(sample, rounds, ctx)


class EThenE(Learner):
    """Explore, then exploit: infer one preference from the user's first edits and keep it."""

    name = "e_then_e"
    paper = "Aligning LLM Agents by Learning Latent Preference from User Edits, arXiv 2404.15269"
    needs = ("history|feedback", "precedents|conversations|feedback")
    designed_for = ("prelude*",)
    paper_settings = {**DECODING, "pairs": 5}

    @dataclass(frozen=True)
    class Params(Continual.Params):
        """pairs: first edits used; all else as in cipher."""

    async def select_records(
        self,
        sample: Sample,
        records: Sequence[Record],
        ctx: Context,
    ) -> Sequence[Record]:
        return self.select_records_to_replay(records)

    def select_records_to_replay(self, records: Sequence[Record]) -> Sequence[Record]:
        return records[: self.params.pairs]

    async def learn(
        self,
        rounds: Sequence[Round],
        closed: Round,
        ctx: Context,
    ) -> list[Round]:
        """Keep the first rounds; online, store their preference with the last of them."""
        limit = self.params.pairs
        if len(rounds) >= limit:
            return list(rounds)

        explored = [*rounds, closed]
        if closed["cost"] is not None and len(explored) == limit:
            preference = await self.infer(explored, ctx)
            ctx.note("inferred", preference)
            explored[-1] = Round(**{**closed, "preference": preference})
        return explored

    async def find_preference(
        self,
        sample: Sample,
        rounds: Sequence[Round],
        ctx: Context,
    ) -> str:
        if sample.history:
            return await self.infer_from_all(sample, rounds, ctx)
        # Online, nothing is exploited before the exploration is complete.
        return rounds[-1]["preference"] if len(rounds) == self.params.pairs else ""


class Oracle(Method):
    """Answer with the user's true preference: an upper bound, not a method."""

    name = "oracle"
    paper = "Aligning LLM Agents by Learning Latent Preference from User Edits, arXiv 2404.15269"
    privileged = True
    designed_for = ("prelude*",)
    paper_settings = DECODING
    needs = ("preference",)
    prompts = (PROMPTS,)

    async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
        preference = sample.hidden.get("preference")
        if preference is None:
            raise UsageError(
                f"oracle cannot run on {ctx.task.name}: the task does not reveal its users' "
                "preferences"
            )
        return await ctx.answer(sample, notes=prompts.format_notes(preference, ctx))


def _require_positive(params: Any, *names: str) -> None:
    for name in names:
        value = getattr(params, name)
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
