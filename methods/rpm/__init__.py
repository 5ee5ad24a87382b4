"""RPM: reasoning-level personalization.

Offline, every past query is taken apart into features, the features are grouped into the user's factors, each factor's
relation to the user's answers is counted, and every past answer gets a rationale that goes from features through
counts to the answer.  Online, the new query is taken apart the same way and answered with the counts of its factors
and the most similar reasoned cases.  What is known of a user is in `knowledge`, where pairs come from in `pairs`, the
stages in `study`, the grouping in `factors`, the wording in `prompts`, the reading of replies in `replies`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from personabench import Context, Method, Record, Sample, UsageError, User
from personabench.hashing import digest_files
from personabench.methods.rpm import prompts
from personabench.methods.rpm.knowledge import Feature, Item, Knowledge, feature_text
from personabench.methods.rpm.pairs import gathered, offered, query_of, seen, visible
from personabench.methods.rpm.replies import allowance, ask_raw, marked_answer
from personabench.methods.rpm.study import located, study
from personabench.retrieval.bm25 import top

FEWEST_LABELS = 3
BRIEF_REASONING = 64


class Rpm(Method):
    """Answer from counted factors of the user's past queries and the most similar cases with their rationales."""

    name = "rpm"
    version = 2
    paper = "RPM: Reasoning-Level Personalization for Black-Box LLMs, arXiv 2505.21082"
    needs = ("history",)
    designed_for = ("lamp2m", "lamp3", "lamp5")

    @dataclass(frozen=True)
    class Params:
        """k: cases shown, the most similar ones; embedder: of features, as for rag.

        history_cap: newest records used; null for all, as in the paper.
        max_features, max_factors: of a query, of a user; cluster_batch: features grouped in one call.
        extract_max_tokens, cluster_max_tokens, reason_max_tokens, infer_max_tokens: allowances of the calls.
        use_factors, use_examples, example_reasoning: the ablation; see the method's page for its rungs.
        stats_mode: propensity for labels, influence for texts, auto by the task; propensity_alpha: smoothing.
        personamem: what a chat is read as, preferences or letters; label_history: agree that letters uses labels.
        refresh_rounds: in online tasks, rounds between two studies of the user.
        state_from: profiles.jsonl of an rpm run with another model, whose states are used instead of making them;
            the run knows the file by what it says, not by where it lies.
        """

        k: int = 3
        embedder: str = "wordllama"
        history_cap: int | None = 50
        max_features: int = 8
        max_factors: int = 20
        cluster_batch: int = 150
        extract_max_tokens: int = 512
        cluster_max_tokens: int = 4096
        reason_max_tokens: int = 512
        infer_max_tokens: int = 1024
        use_factors: bool = True
        use_examples: bool = True
        example_reasoning: Literal["none", "generic_cot", "rpm"] = "rpm"
        stats_mode: Literal["auto", "propensity", "influence"] = "auto"
        propensity_alpha: float = 0.0
        personamem: Literal["preferences", "letters"] = "preferences"
        label_history: bool = False
        refresh_rounds: int = 5
        state_from: str = ""

    params: Params

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        p = self.params
        for name in ("k", "max_features", "max_factors", "cluster_batch", "refresh_rounds"):
            if getattr(p, name) < 1:
                raise UsageError(f"rpm: {name} must be at least 1, not {getattr(p, name)}")
        if p.history_cap is not None and p.history_cap < 1:
            raise UsageError("rpm: history_cap must be at least 1, or null for the whole history")
        if p.propensity_alpha < 0:
            raise UsageError("rpm: propensity_alpha must be 0 or more")
        if p.personamem == "letters" and not p.label_history:
            raise UsageError(
                "rpm: personamem=letters learns from the right letters of earlier questions, a control that uses "
                "labels; agree to it with --set rpm.label_history=true"
            )
        if p.use_examples and not p.use_factors and p.example_reasoning == "rpm":
            raise UsageError(
                "rpm: without factors there is nothing to reason from; "
                "set example_reasoning to none or generic_cot, or use_examples=false"
            )
        self.letters = p.personamem == "letters"
        if self.letters:
            self.privileged = True  # type: ignore[misc]
        self.stored = _states(Path(p.state_from)) if p.state_from else {}
        if p.state_from:
            self.params = replace(p, state_from=f"sha256:{digest_files([Path(p.state_from)])[:16]}")

    def visible(self, sample: Sample) -> tuple[Record, ...]:
        """The part of a sample's history that the user's state may be made from: never the question itself."""
        return visible(sample, letters=self.letters)

    async def profile(self, user: User, ctx: Context) -> Any:
        """The user's `Knowledge`; empty for the rung that uses none of it."""
        p = self.params
        if not (p.use_factors or p.use_examples):
            return msgspec.to_builtins(Knowledge(seen=seen(user.history)))
        if stored := self.stored.get((user.id, seen(user.history))):
            return stored
        if p.state_from:
            ctx.flag("state_not_stored")
        knowledge = await gathered(
            user.history,
            ctx,
            cap=p.history_cap,
            stats_mode=p.stats_mode,
            max_tokens=p.extract_max_tokens,
        )
        return msgspec.to_builtins(await study(knowledge, p, ctx))

    async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
        p = self.params
        if not (p.use_factors or p.use_examples):
            return await ctx.answer(sample)
        if (
            self.letters
            and sample.history
            and not any("cut" in record.fields for record in sample.history)
        ):
            raise UsageError(
                "rpm: personamem=letters learns from questions, this history has none; add --set task.records=questions"
            )
        if not sample.history:
            state["open"] = query_of(sample, ctx.task)
        knowledge = await self._known(sample, state, ctx)
        if knowledge.adapted:
            ctx.flag("adapted")
        if self.letters:
            ctx.flag("label_history")
        if self.letters and len(knowledge.items) < FEWEST_LABELS:
            ctx.flag("too_few_labels")
            return await ctx.answer(sample)
        if not knowledge.items:
            ctx.flag("empty_history")
            return await ctx.answer(sample)
        query = query_of(sample, ctx.task)
        features = await located(query, knowledge, p, ctx) if p.use_factors else []
        if p.use_factors:
            missing = sum(not item.features for item in knowledge.items)
            for name, count in (
                ("query_without_features", not features),
                ("items_without_features", missing),
            ):
                if count:
                    ctx.flag(name, count)
        examples = await self._nearest(query, features, knowledge, ctx) if p.use_examples else []
        return await self._infer(sample, features, examples, knowledge, ctx)

    async def update(self, state: Any, feedback: Mapping[str, Any], ctx: Context) -> Any:
        """Online tasks: close the round that `predict` opened, and study the user every `refresh_rounds` rounds.

        The first study is after the first round.  Of `feedback` only `edited`, the user's final text, is used.
        """
        p, knowledge = self.params, msgspec.convert(state, Knowledge)
        rounds = [*knowledge.rounds, (knowledge.open, feedback["edited"])]
        knowledge.rounds, knowledge.open = rounds, ""
        if (p.use_factors or p.use_examples) and (
            len(rounds) == 1 or len(rounds) % p.refresh_rounds == 0
        ):
            items = [
                Item(f"round-{at}", query, answer) for at, (query, answer) in enumerate(rounds, 1)
            ]
            newest = items[-p.history_cap if p.history_cap else None :]
            knowledge = await study(Knowledge(items=newest, rounds=rounds), p, ctx)
        return msgspec.to_builtins(knowledge)

    async def _known(self, sample: Sample, state: Any, ctx: Context) -> Knowledge:
        """The state, made anew where it was made from more than this sample may use."""
        history = self.visible(sample)
        if not state["rounds"] and state["seen"] != seen(history):
            ctx.flag("state_remade")
            state = await self.profile(User(sample.user_id, history), ctx)
        return msgspec.convert(state, Knowledge)

    async def _nearest(
        self, query: str, features: Sequence[Feature], knowledge: Knowledge, ctx: Context
    ) -> list[Item]:
        """The k items with the most similar features, best first; similar queries where there are no features."""
        texts = [
            (features and feature_text(item.features)) or item.query for item in knowledge.items
        ]
        vectors = await ctx.embed([feature_text(features) or query, *texts], self.params.embedder)
        exact = vectors.astype(np.float64)
        exact /= np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), np.finfo(np.float64).tiny)
        return [
            knowledge.items[at] for at in top((exact[1:] * exact[0]).sum(axis=1), self.params.k)
        ]

    async def _infer(
        self,
        sample: Sample,
        features: Sequence[Feature],
        examples: Sequence[Item],
        knowledge: Knowledge,
        ctx: Context,
    ) -> str:
        p = self.params
        choices = offered(sample, knowledge.items, ctx.task)
        told = prompts.known_features(features, knowledge, ctx.task.words, p.propensity_alpha)
        notes, kept, limit = self._fitting(sample, told, examples, choices, ctx)
        messages = ctx.render(sample, notes=notes)
        schema = prompts.answer_schema(choices)
        found, text = await ask_raw(messages, marked_answer, ctx, max_tokens=limit, schema=schema)
        if found is None:
            ctx.flag("unmarked_answer")
        names = {None: None, **{at: factor.name for at, factor in enumerate(knowledge.factors)}}
        ctx.note(
            "features",
            [{"name": f.name, "context": f.context, "factor": names[f.factor]} for f in features],
        )
        ctx.note("examples", [item.id for item in examples[:kept]])
        ctx.note("reasoning", found[0] if found else None)
        return found[1] if found else text.strip()

    def _fitting(
        self,
        sample: Sample,
        told: str,
        examples: Sequence[Item],
        choices: Sequence[str],
        ctx: Context,
    ) -> tuple[str, int, int]:
        """The notes that fit the window, the number of examples in them, and the tokens left for the reply.

        The reply gives way first, while an answer with some reasoning has room; then the examples, the least similar
        first; then features and numbers.
        """
        p, words = self.params, ctx.task.words
        detailed = p.use_factors and p.example_reasoning == "rpm"
        most = max(allowance(p.infer_max_tokens, ctx), ctx.answer_tokens)
        least = min(most, ctx.answer_tokens + BRIEF_REASONING)
        for shown, kept in [*((told, kept) for kept in range(len(examples), -1, -1)), ("", 0)]:
            notes = prompts.notes(shown, examples[:kept], detailed, words, choices)
            room = most - max(
                0, ctx.excess(ctx.task.render(sample, (), notes, ctx.tokens).messages, most)
            )
            if room >= least:
                break
        if kept < len(examples):
            ctx.flag("examples_dropped", len(examples) - kept)
        if told and not shown:
            ctx.flag("statistics_dropped")
        return notes, kept, max(room, ctx.answer_tokens)


def _states(path: Path) -> Mapping[tuple[str, str], Any]:
    """The states of another run's profiles by user and history.

    Raises:
        UsageError: the file cannot be read as profiles of an rpm run.
    """
    try:
        lines = map(msgspec.json.decode, path.read_bytes().splitlines())
        return {
            (line["user_id"], line["state"]["seen"]): line["state"]
            for line in lines
            if line["state"]
        }
    except (OSError, msgspec.MsgspecError, LookupError, TypeError) as error:
        raise UsageError(
            f"rpm: state_from={path} is not the artifacts/profiles.jsonl of an rpm run: {error!r}"
        ) from error
