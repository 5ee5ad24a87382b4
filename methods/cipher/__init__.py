"""CIPHER and its family: methods that learn from what a user makes of the model's drafts.

All of them (arXiv 2404.15269) remember drafts and edits and differ in what they make of the memory: `cipher` infers a
preference from each edit and looks up the preferences of similar contexts, `icl_edit` and `cot_edit` show the edits
themselves, `continual` and `e_then_e` infer one preference from the latest or the first edits, and `oracle` is told.
What they share is in `learner`, the wording in `prompts`, the edit cost in `edits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from personabench import Context, Method, Record, Sample, UsageError
from personabench.methods.cipher import prompts
from personabench.methods.cipher.edits import differs
from personabench.methods.cipher.learner import Learner, Mode, nearest_records, recalled
from personabench.methods.cipher.prompts import Round


class Cipher(Learner):
    """Infer a preference from every edit; answer with those of the k most similar contexts, merged into one."""

    name = "cipher"
    paper = "Aligning LLM Agents by Learning Latent Preference from User Edits, arXiv 2404.15269"
    needs = ("history|feedback",)
    designed_for = ("prelude*",)
    refuses = {
        "lamp1": "profiles hold no past citation choices, so no pair of a draft and what the user made of it"
    }

    @dataclass(frozen=True)
    class Params:
        """k: remembered preferences used; 1 uses the nearest as it is, more are merged by one call.

        delta: edits that cost at most this teach nothing.
        embedder: mpnet or bert as in the paper, or wordllama, sentence-transformers:NAME, openai:NAME.
        mode: offline only; static drafts the k nearest records, replay all records in order, turns reads what the user
            said to an assistant's replies; auto is turns where there are conversations, else static.
        use_edits: offline only; False infers from the user's own texts, without drafts.
        preference_max_tokens: allowance of an inference or a merge.
        """

        k: int = 5
        delta: float = 0.0
        embedder: str = "wordllama"
        mode: Mode = "auto"
        use_edits: bool = True
        preference_max_tokens: int = 128

        def __post_init__(self) -> None:
            _at_least_one(self, "k", "preference_max_tokens")
            if self.delta < 0:
                raise ValueError(f"delta must be 0 or more, not {self.delta}")

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        self.uses_drafts = self.params.use_edits

    async def chosen(
        self, sample: Sample, records: Sequence[Record], ctx: Context
    ) -> Sequence[Record]:
        return await nearest_records(sample, records, self.params.k, self.params.embedder, ctx)

    async def learn(self, rounds: Sequence[Round], closed: Round, ctx: Context) -> list[Round]:
        taught = self._taught(closed, ctx)
        preference = await self.infer([closed], ctx) if taught else closed["preference"]
        if closed["cost"] is not None:
            ctx.note("inferred", preference if taught else None)
        if not preference:
            return list(rounds)
        return [*rounds, Round(**{**closed, "draft": "", "final": "", "preference": preference})]

    async def preference(self, sample: Sample, rounds: Sequence[Round], ctx: Context) -> str:
        p = self.params
        timed = any(each.get("spoken") for each in rounds)
        places = (
            range(len(rounds)) if timed else await recalled(sample, rounds, p.k, p.embedder, ctx)
        )
        found = [rounds[place]["preference"] for place in places]
        if p.k == 1 or not found:
            return found[0] if found else ""
        messages = prompts.aggregation(found, ctx, timed=timed)
        if reply := await self.asked(messages, prompts.phrase, ctx):
            return prompts.capped(prompts.phrase(reply), ctx)
        ctx.flag("empty_aggregation")
        return found[-1] if timed else found[0]

    def _taught(self, closed: Round, ctx: Context) -> bool:
        if closed["cost"] is not None:
            return closed["cost"] > float(self.params.delta)
        if closed.get("spoken") or not self.params.use_edits:
            return True
        return differs(closed["draft"] or "", closed["final"], self.params.delta, ctx.task.kind)


class IclEdit(Learner):
    """Show the k most similar contexts' drafts with what the user made of them."""

    name = "icl_edit"
    paper = "Aligning LLM Agents by Learning Latent Preference from User Edits, arXiv 2404.15269"
    needs = ("history|feedback",)
    designed_for = ("prelude*",)
    refuses = {
        "lamp1": "profiles hold no past citation choices, so no pair of a draft and what the user made of it"
    }

    @dataclass(frozen=True)
    class Params:
        """k: pairs shown; embedder, mode: as for cipher."""

        k: int = 5
        embedder: str = "wordllama"
        mode: Mode = "auto"

        def __post_init__(self) -> None:
            _at_least_one(self, "k")

    async def chosen(
        self, sample: Sample, records: Sequence[Record], ctx: Context
    ) -> Sequence[Record]:
        return await nearest_records(sample, records, self.params.k, self.params.embedder, ctx)

    async def learn(self, rounds: Sequence[Round], closed: Round, ctx: Context) -> list[Round]:
        return [*rounds, closed]

    async def respond(
        self, sample: Sample, rounds: Sequence[Round], ctx: Context
    ) -> tuple[str, str]:
        p = self.params
        if not rounds:
            return await ctx.answer(sample), ""
        places = await recalled(sample, rounds, p.k, p.embedder, ctx)
        return await self.imitate(sample, [rounds[place] for place in reversed(places)], ctx), ""

    async def imitate(self, sample: Sample, pairs: Sequence[Round], ctx: Context) -> str:
        """The answer in line with some pairs, the nearest last."""
        messages = prompts.fitting(
            prompts.with_examples(sample, pairs, ctx), "pairs_dropped", ctx.answer_tokens, ctx
        )
        return (await ctx.complete(messages, max_tokens=ctx.answer_tokens)).text.strip()


class CotEdit(IclEdit):
    """As icl_edit, with a thought about the edits before the answer."""

    name = "cot_edit"
    paper = "Aligning LLM Agents by Learning Latent Preference from User Edits, arXiv 2404.15269"
    needs = ("history|feedback",)
    designed_for = ("prelude*",)
    refuses = {
        "lamp1": "profiles hold no past citation choices, so no pair of a draft and what the user made of it"
    }

    @dataclass(frozen=True)
    class Params(IclEdit.Params):
        """k, embedder, mode: as for icl_edit; reasoning_max_tokens: allowance of the thought."""

        reasoning_max_tokens: int = 256

    async def imitate(self, sample: Sample, pairs: Sequence[Round], ctx: Context) -> str:
        allowance = ctx.answer_tokens + self.params.reasoning_max_tokens
        variants = (
            prompts.with_reasoning(each, ctx) for each in prompts.with_examples(sample, pairs, ctx)
        )
        messages = prompts.fitting(variants, "pairs_dropped", allowance, ctx)
        return prompts.marked((await ctx.complete(messages, max_tokens=allowance)).text, ctx)


class Continual(Learner):
    """Before each answer, infer one preference from the user's latest edits."""

    name = "continual"
    paper = "Aligning LLM Agents by Learning Latent Preference from User Edits, arXiv 2404.15269"
    needs = ("history|feedback",)
    designed_for = ("prelude*",)
    refuses = {
        "lamp1": "profiles hold no past citation choices, so no pair of a draft and what the user made of it"
    }

    @dataclass(frozen=True)
    class Params:
        """pairs: edits looked at; mode, preference_max_tokens: as for cipher."""

        pairs: int = 5
        mode: Mode = "auto"
        preference_max_tokens: int = 128

        def __post_init__(self) -> None:
            _at_least_one(self, "pairs", "preference_max_tokens")

    async def chosen(
        self, sample: Sample, records: Sequence[Record], ctx: Context
    ) -> Sequence[Record]:
        return records[-self.params.pairs :]

    async def learn(self, rounds: Sequence[Round], closed: Round, ctx: Context) -> list[Round]:
        return [*rounds, closed][-self.params.pairs :]

    async def preference(self, sample: Sample, rounds: Sequence[Round], ctx: Context) -> str:
        return await self.infer(rounds, ctx) if rounds else ""


class EThenE(Learner):
    """Explore, then exploit: infer one preference from the user's first edits and keep it."""

    name = "e_then_e"
    paper = "Aligning LLM Agents by Learning Latent Preference from User Edits, arXiv 2404.15269"
    needs = ("history|feedback",)
    designed_for = ("prelude*",)
    refuses = {
        "lamp1": "profiles hold no past citation choices, so no pair of a draft and what the user made of it"
    }

    @dataclass(frozen=True)
    class Params(Continual.Params):
        """pairs: first edits looked at; mode, preference_max_tokens: as for cipher."""

    async def chosen(
        self, sample: Sample, records: Sequence[Record], ctx: Context
    ) -> Sequence[Record]:
        return self.replayed(records)

    def replayed(self, records: Sequence[Record]) -> Sequence[Record]:
        return records[: self.params.pairs]

    async def learn(self, rounds: Sequence[Round], closed: Round, ctx: Context) -> list[Round]:
        """The first rounds; what they teach is inferred once, online after the last of them, and kept with it."""
        wanted = self.params.pairs
        if len(rounds) >= wanted:
            return list(rounds)
        explored = [*rounds, closed]
        if closed["cost"] is not None and len(explored) == wanted:
            preference = await self.infer(explored, ctx)
            ctx.note("inferred", preference)
            explored[-1] = Round(**{**closed, "preference": preference})
        return explored

    async def preference(self, sample: Sample, rounds: Sequence[Round], ctx: Context) -> str:
        if not sample.history:
            return rounds[-1]["preference"] if len(rounds) == self.params.pairs else ""
        return await self.infer(rounds, ctx) if rounds else ""


class Oracle(Method):
    """Be told the user's true preference: a bound, not a method."""

    name = "oracle"
    paper = "Aligning LLM Agents by Learning Latent Preference from User Edits, arXiv 2404.15269"
    privileged = True
    designed_for = ("prelude*",)
    refuses = {
        "lamp*": "real users have no written preference to be told",
        "longlamp*": "real users have no written preference to be told",
        "lampqa*": "real users have no written preference to be told",
        "reviews*": "real users have no written preference to be told",
        "personamem*": "the task has no written preference to be told",
        "prefdisco*": "the task keeps its preferences with the simulated user",
    }

    async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
        preference = sample.hidden.get("preference")
        if preference is None:
            raise UsageError(
                f"oracle cannot run on {ctx.task.name}: the task tells nobody its users' preferences"
            )
        return await ctx.answer(sample, notes=prompts.notes_of(preference, ctx))


def _at_least_one(params: Any, *names: str) -> None:
    for name in names:
        if getattr(params, name) < 1:
            raise ValueError(f"{name} must be at least 1, not {getattr(params, name)}")
