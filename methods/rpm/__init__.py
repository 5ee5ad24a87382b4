"""RPM: reasoning-level personalization.

Offline, every past query is split into features, the features are grouped into the user's factors,
each factor's relation to the user's answers is counted, and every past answer gets a rationale that
leads from features through counts to the answer.  Online, the new query is split in the same way
and answered with the counts of its factors and the most similar cases with their rationales.  A
user's state is in `knowledge`, the source of the pairs in `pairs`, the stages in `study`, the
grouping in `factors`, the wording in `prompts`, the parsing of replies in `replies`.
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
from personabench.methods.parsed_reply import limit_reply, request_repeatedly
from personabench.methods.rpm import prompts
from personabench.methods.rpm.knowledge import Feature, Item, Knowledge, feature_text
from personabench.methods.rpm.pairs import (
    gather_pairs,
    list_offered_choices,
    make_query,
    seen,
    select_visible_records,
)
from personabench.methods.rpm.replies import find_marked_answer
from personabench.methods.rpm.study import locate_query, study
from personabench.retrieval.bm25 import top

# Shares over one or two labelled questions are noise, so the question is answered without them.
FEWEST_LABELS = 3
# Tokens of reasoning that the reply keeps before examples are dropped.
BRIEF_REASONING = 64


class Rpm(Method):
    """Answer from counted factors of past queries and the most similar cases, with rationales."""

    name = "rpm"
    version = 2
    paper = "RPM: Reasoning-Level Personalization for Black-Box LLMs, arXiv 2505.21082"
    needs = ("history",)
    designed_for = ("lamp2m", "lamp3", "lamp5")
    paper_settings = {
        "k": 3,
        "embedder": "sentence-transformers:facebook/contriever",
        "history_cap": None,
        "use_factors": True,
        "use_examples": True,
        "example_reasoning": "rpm",
        "propensity_alpha": 0.0,
    }
    prompts = (prompts.PROMPTS,)

    @dataclass(frozen=True)
    class Params:
        """k: cases shown, the most similar ones; embedder: of features, as in rag.

        history_cap: newest records used; null for all, as in the paper.
        max_features, max_factors: of a query, of a user; cluster_batch: features grouped in a call.
        extract_max_tokens, cluster_max_tokens, reason_max_tokens, infer_max_tokens: maximum tokens
            of the calls.
        use_factors, use_examples, example_reasoning: the ablation; the method's page lists its
            rungs.
        stats_mode: propensity for labels, influence for texts, auto by the task.
        propensity_alpha: smoothing of propensity; labels_shown: labels of a factor whose shares are
            shown, the largest.
        tries: requests of a reply that cannot be parsed.
        chat: reading of a chat, as preferences or letters.
        label_history: confirms that letters uses labels.
        refresh_rounds: in online tasks, rounds between two studies of the user.
        state_from: profiles.jsonl of an rpm run with another model, whose states are used instead
            of new ones; the run is identified by the file's content, not by its path.
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
        labels_shown: int = 5
        tries: int = 3
        chat: Literal["preferences", "letters"] = "preferences"
        label_history: bool = False
        refresh_rounds: int = 5
        state_from: str = ""

    params: Params

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        p = self.params
        _check_params(p)
        self.letters = p.chat == "letters"
        if self.letters:
            self.privileged = True  # type: ignore[misc]
        self.stored: Mapping[tuple[str, str], Any] = {}
        if p.state_from:
            path = Path(p.state_from)
            self.stored = _read_states(path)
            # The fingerprint of the run covers the parameters: the same file elsewhere is the same.
            content = digest_files([path])[:16]
            self.params = replace(p, state_from=f"sha256:{content}")

    def visible(self, sample: Sample) -> tuple[Record, ...]:
        """The records that the user's state may be made from: never the question itself."""
        return select_visible_records(sample, letters=self.letters)

    async def profile(self, user: User, ctx: Context) -> Any:
        """The user's `Knowledge`; empty for the rung of the ablation that uses none of it."""
        p = self.params
        history_digest = seen(user.history)
        if not (p.use_factors or p.use_examples):
            return msgspec.to_builtins(Knowledge(seen=history_digest))

        stored = self.stored.get((user.id, history_digest))
        if stored:
            return stored
        if p.state_from:
            ctx.flag("state_not_stored")

        knowledge = await gather_pairs(
            user.history,
            ctx,
            cap=p.history_cap,
            stats_mode=p.stats_mode,
            max_tokens=p.extract_max_tokens,
            tries=p.tries,
        )
        return msgspec.to_builtins(await study(knowledge, p, ctx))

    async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
        p = self.params
        if not (p.use_factors or p.use_examples):
            return await ctx.answer(sample)

        self._require_labels(sample)
        if not sample.history:
            state["open"] = make_query(sample, ctx.task)
        knowledge = await self._load_knowledge(sample, state, ctx)
        if self._lacks_evidence(knowledge, ctx):
            return await ctx.answer(sample)

        query = make_query(sample, ctx.task)
        features: list[Feature] = []
        if p.use_factors:
            features = await locate_query(query, knowledge, p, ctx)
            _flag_missing_features(features, knowledge.items, ctx)
        examples: list[Item] = []
        if p.use_examples:
            examples = await self._nearest_items(query, features, knowledge, ctx)
        return await self._infer(sample, features, examples, knowledge, ctx)

    async def update(
        self,
        state: Any,
        feedback: Mapping[str, Any],
        ctx: Context,
    ) -> Any:
        """Online tasks: close the open round, and study the user every `refresh_rounds` rounds.

        The first study is after the first round.  Of `feedback` only `edited`, the user's final
        text, is used.
        """
        p = self.params
        knowledge = msgspec.convert(state, Knowledge)
        knowledge.rounds = [*knowledge.rounds, (knowledge.open, feedback["edited"])]
        knowledge.open = ""

        count = len(knowledge.rounds)
        is_due = count == 1 or count % p.refresh_rounds == 0
        if is_due and (p.use_factors or p.use_examples):
            items = [
                Item(f"round-{number}", query, answer)
                for number, (query, answer) in enumerate(knowledge.rounds, 1)
            ]
            newest = items[-p.history_cap :] if p.history_cap else items
            studied = Knowledge(items=newest, rounds=knowledge.rounds)
            knowledge = await study(studied, p, ctx.profiling())
        return msgspec.to_builtins(knowledge)

    def requirements(self) -> set[str]:
        # Propensity counts the labels of past answers; letters are the labels of past questions.
        counts_answers = self.params.stats_mode == "propensity" and not self.letters
        return super().requirements() | ({"precedents"} if counts_answers else set())

    def _require_labels(self, sample: Sample) -> None:
        if not self.letters or not sample.history:
            return
        if not any("cut" in record.fields for record in sample.history):
            raise UsageError(
                "rpm: chat=letters learns from questions, and this history has none; "
                "add --set task.records=questions"
            )

    async def _load_knowledge(self, sample: Sample, state: Any, ctx: Context) -> Knowledge:
        """The state; made again if it was made from more than this sample may use."""
        history = self.visible(sample)
        # Online states grow with their rounds and are never ahead of the sample.
        if not state["rounds"] and state["seen"] != seen(history):
            ctx.flag("state_remade")
            state = await self.profile(User(sample.user_id, history), ctx.shared().profiling())
        return msgspec.convert(state, Knowledge)

    def _lacks_evidence(self, knowledge: Knowledge, ctx: Context) -> bool:
        """Whether the state is too small to personalize with; flags the kind of state."""
        if knowledge.adapted:
            ctx.flag("adapted")
        if self.letters:
            ctx.flag("label_history")
            if len(knowledge.items) < FEWEST_LABELS:
                ctx.flag("too_few_labels")
                return True
        if not knowledge.items:
            ctx.flag("empty_history")
            return True
        return False

    async def _nearest_items(
        self,
        query: str,
        features: Sequence[Feature],
        knowledge: Knowledge,
        ctx: Context,
    ) -> list[Item]:
        """The k items with the most similar features, best first; by queries without features."""
        texts = [feature_text(features) or query]
        for item in knowledge.items:
            # Features are compared with features and queries with queries, as far as possible.
            text = feature_text(item.features) if features else ""
            texts.append(text or item.query)

        vectors = (await ctx.embed(texts, self.params.embedder)).astype(np.float64)
        lengths = np.linalg.norm(
            vectors,
            axis=1,
            keepdims=True,
        )
        vectors /= np.maximum(lengths, np.finfo(np.float64).tiny)
        similarities = (vectors[1:] * vectors[0]).sum(axis=1)
        return [knowledge.items[index] for index in top(similarities, self.params.k)]

    async def _infer(
        self,
        sample: Sample,
        features: Sequence[Feature],
        examples: Sequence[Item],
        knowledge: Knowledge,
        ctx: Context,
    ) -> str:
        """Answer with the statistics of the features and the examples, as far as they fit (X6)."""
        choices = list_offered_choices(sample, knowledge.items, ctx.task)
        statistics = prompts.known_features(
            features,
            knowledge,
            ctx,
            alpha=self.params.propensity_alpha,
            labels_shown=self.params.labels_shown,
        )
        contract = prompts.contract(choices, ctx)
        notes, example_count, limit = self._fit_notes(sample, statistics, examples, contract, ctx)
        parsed, first_text = await request_repeatedly(
            ctx.render(sample, notes=notes, contract=contract),
            find_marked_answer,
            ctx,
            max_tokens=limit,
            reminder=ctx.part(prompts.PROMPTS, "reminder"),
            attempts=self.params.tries,
            schema=prompts.answer_schema(choices),
        )

        ctx.note("features", _describe_features(features, knowledge))
        ctx.note("examples", [item.id for item in examples[:example_count]])
        if parsed is None:
            ctx.flag("unmarked_answer")
            ctx.note("reasoning", None)
            return first_text.strip()
        reasoning, answer = parsed
        ctx.note("reasoning", reasoning)
        return answer

    def _fit_notes(
        self,
        sample: Sample,
        statistics: str,
        examples: Sequence[Item],
        contract: str,
        ctx: Context,
    ) -> tuple[str, int, int]:
        """The notes that fit the window, the number of examples, and the tokens left for the reply.

        The reply is shortened first, as long as an answer with some reasoning has room; then
        examples are dropped, the least similar first; then features and statistics.
        """
        p = self.params
        detailed = p.use_factors and p.example_reasoning == "rpm"
        most = max(limit_reply(p.infer_max_tokens, ctx), ctx.answer_tokens)
        least = min(most, ctx.answer_tokens + BRIEF_REASONING)

        counts = range(len(examples), -1, -1)
        variants = [*((statistics, count) for count in counts), ("", 0)]
        for shown_statistics, example_count in variants:
            notes = prompts.notes(
                shown_statistics,
                examples[:example_count],
                detailed,
                ctx,
            )
            messages = ctx.word(sample, notes=notes, contract=contract).messages
            room = most - max(0, ctx.count_excess_tokens(messages, most))
            if room >= least:
                break

        if example_count < len(examples):
            ctx.flag("examples_dropped", len(examples) - example_count)
        if statistics and not shown_statistics:
            ctx.flag("statistics_dropped")
        return notes, example_count, max(room, ctx.answer_tokens)


def _check_params(p: Rpm.Params) -> None:
    """Reject parameters that cannot work.

    Raises:
        UsageError: a number is too small, or two parameters contradict each other.
    """
    at_least_one = (
        "k",
        "max_features",
        "max_factors",
        "cluster_batch",
        "labels_shown",
        "tries",
        "refresh_rounds",
    )
    for name in at_least_one:
        value = getattr(p, name)
        if value < 1:
            raise UsageError(f"rpm: {name} must be at least 1, not {value}")
    if p.history_cap is not None and p.history_cap < 1:
        raise UsageError("rpm: history_cap must be at least 1, or null for the whole history")
    if p.propensity_alpha < 0:
        raise UsageError("rpm: propensity_alpha must be 0 or more")
    if p.chat == "letters" and not p.label_history:
        raise UsageError(
            "rpm: chat=letters learns from the right letters of earlier questions, "
            "a control that uses labels; agree to it with --set rpm.label_history=true"
        )
    if p.use_examples and not p.use_factors and p.example_reasoning == "rpm":
        raise UsageError(
            "rpm: without factors there is nothing to reason from; "
            "set example_reasoning to none or generic_cot, or use_examples=false"
        )


def _flag_missing_features(
    features: Sequence[Feature],
    items: Sequence[Item],
    ctx: Context,
) -> None:
    if not features:
        ctx.flag("query_without_features")
    missing = sum(not item.features for item in items)
    if missing:
        ctx.flag("items_without_features", missing)


def _describe_features(
    features: Sequence[Feature], knowledge: Knowledge
) -> list[dict[str, str | None]]:
    descriptions = []
    for feature in features:
        factor = None
        if feature.factor is not None:
            factor = knowledge.factors[feature.factor].name
        descriptions.append(
            {
                "name": feature.name,
                "context": feature.context,
                "factor": factor,
            }
        )
    return descriptions


def _read_states(path: Path) -> Mapping[tuple[str, str], Any]:
    """The states of another run's profiles, by user and digest of the history.

    Raises:
        UsageError: the file cannot be parsed as profiles of an rpm run.
    """
    states = {}
    try:
        for line in path.read_bytes().splitlines():
            profile = msgspec.json.decode(line)
            state = profile["state"]
            if state:
                states[profile["user_id"], state["seen"]] = state
    except (OSError, msgspec.MsgspecError, LookupError, TypeError) as error:
        raise UsageError(
            f"rpm: state_from={path} is not the artifacts/profiles.jsonl of an rpm run: {error!r}"
        ) from error
    return states
