"""Search for the user's best prompts with the answers that earlier prompts got wrong.

Past questions of the user are answered with a prompt, and scored against the user's own answers.
From the best prompts so far, with their scores and failures, the model writes new ones, for some
rounds.  A question is answered with the prompt that scores best on the past questions nearest to
it.  The search belongs to the user: its calls are made once, whichever question comes first.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from personabench import Context, Message, Method, PromptFile, Record, Sample
from personabench.methods.fermi_scoring import (
    Pair,
    ScoredPrompt,
    choose_threshold,
    measure_span,
    quotes_pair,
    score_prediction,
)
from personabench.methods.memory_parts import compute_similarities
from personabench.methods.parsed_reply import ATTEMPTS, has_words, request_parsed
from personabench.methods.rpm.pairs import select_visible_records

PROMPTS = PromptFile(__file__, "fermi.prompts.toml")
# Room for the JSON around a prompt.
_MARKUP_TOKENS = 24
_PROMPT = re.compile(r'"prompt"\s*:\s*("(?:[^"\\]|\\.)*")', re.DOTALL)


class Fermi(Method):
    """Answer with the best of the prompts that were optimized on the user's past answers."""

    name = "fermi"
    paper = "Few-shot Personalization of LLMs with Mis-aligned Responses, arXiv 2406.18678"
    needs = ("history", "precedents")
    designed_for = ("lamp2*", "lamp3")
    uses_profiler = True
    prompts = (PROMPTS,)

    @dataclass(frozen=True)
    class Params:
        """rounds: rounds of new prompts; n_prompts: prompts of a round.

        memory: best prompts so far that a round starts from.
        n_pairs: the newest records, which prompts are scored on; demonstrations: older records that
            are shown as examples and never scored.
        prompt_max_tokens: tokens of a prompt; failures_shown: failures shown with a prompt.
        neighbours: past questions nearest to the question, on which its prompt is chosen; embedder:
            of questions, as in rag.
        optimizer_temperature: of the calls that write prompts.
        """

        rounds: int = 10
        n_prompts: int = 4
        memory: int = 5
        n_pairs: int = 40
        demonstrations: int = 4
        prompt_max_tokens: int = 128
        failures_shown: int = 16
        neighbours: int = 8
        embedder: str = "wordllama"
        optimizer_temperature: float = 0.7

        def __post_init__(self) -> None:
            for name in ("n_prompts", "memory", "n_pairs", "prompt_max_tokens", "neighbours"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
            if self.rounds < 0:
                raise ValueError(f"rounds must be 0 or more, not {self.rounds}")

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        demonstrations, records = self._divide(select_visible_records(sample, letters=False))
        if not records:
            ctx.flag("empty_history")
            return await ctx.answer(sample)

        # Prompts are scored with the model under test and written by the profiler.  In `profile`
        # all calls would be the profiler's, and no sample would word the past questions.
        artifact = ctx.shared()
        pairs = await _pose(records, sample, artifact)
        search = Search(self.params, pairs, demonstrations, artifact)
        pool = await search.run(ctx.task.persona(sample))

        prompt = await self._choose(sample, pool, pairs, ctx)
        ctx.note("prompt", prompt.prompt)
        ctx.note("training_score", round(prompt.mean, 6))
        notes = _format_notes(prompt.prompt, ctx)
        return await ctx.answer(sample, notes=notes)

    def _divide(self, records: Sequence[Record]) -> tuple[Sequence[Record], Sequence[Record]]:
        """The records that are shown as demonstrations, and the newer ones that are scored."""
        p = self.params
        # A short history is needed for the scores first.
        count = min(p.demonstrations, len(records) // 3)
        size = min(p.n_pairs, len(records) - count)
        older, newest = records[: len(records) - size], records[len(records) - size :]
        return older[len(older) - count :], newest

    async def _choose(
        self,
        sample: Sample,
        pool: Sequence[ScoredPrompt],
        pairs: Sequence[Pair],
        ctx: Context,
    ) -> ScoredPrompt:
        """The prompt with the highest score on the past questions nearest to this one."""
        texts = [pair.question.stimulus or pair.question.input for pair in pairs]
        query = sample.stimulus or ctx.task.query_text(sample)
        cosines = await compute_similarities(query, texts, ctx, "dense", self.params.embedder)
        order = sorted(range(len(pairs)), key=lambda index: -cosines[index])
        nearest = order[: self.params.neighbours]
        # `max` returns the first of equals.
        return max(pool, key=lambda prompt: prompt.mean_of(nearest))


class Search:
    """The search for one user's prompts.

    Attributes:
        scored: all prompts so far, by their text.
    """

    def __init__(
        self,
        params: Fermi.Params,
        pairs: Sequence[Pair],
        demonstrations: Sequence[Record],
        ctx: Context,
    ) -> None:
        self.params = params
        self.pairs = pairs
        self.demonstrations = demonstrations
        self.ctx = ctx
        self.span = measure_span(pairs, ctx)
        self.threshold = 1.0
        self.scored: dict[str, ScoredPrompt] = {}

    async def run(self, initial: str) -> list[ScoredPrompt]:
        """The prompts of the last round and the best one ever, best first of equals."""
        p = self.params
        most = len(self.pairs) * (1 + p.n_prompts * p.rounds)
        self.ctx.log(
            f"at most {most} predictions for the prompts of one user, and {p.rounds} "
            "calls that write prompts; less those in the cache"
        )

        pool = await self._score([initial])
        self.threshold = choose_threshold(pool[0], self.ctx)
        for number in range(p.rounds):
            if any(prompt.is_aligned(self.threshold) for prompt in pool):
                self.ctx.flag("aligned_early")
                break
            memory = self._remember()
            prompts = await self._write(memory, number)
            missing = p.n_prompts - len(prompts)
            if missing:
                self.ctx.flag("parents_kept", missing)
                prompts.append(memory[-1].prompt)
            pool = await self._score(prompts)

        best = self._remember()[-1]
        return sorted({*pool, best}, key=lambda prompt: prompt.order)

    def _remember(self) -> list[ScoredPrompt]:
        """The best prompts so far, in ascending order; of equals the earlier is better."""
        prompts = sorted(self.scored.values(), key=lambda prompt: (prompt.mean, -prompt.order))
        return prompts[-self.params.memory :]

    async def _score(self, prompts: Sequence[str]) -> list[ScoredPrompt]:
        """Score prompts on all pairs; one that was scored before costs no call."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.scored]
        for scored in await asyncio.gather(*(self._score_one(prompt) for prompt in new)):
            self.scored[scored.prompt] = replace(scored, order=len(self.scored))
        return [self.scored[prompt] for prompt in dict.fromkeys(prompts)]

    async def _score_one(self, prompt: str) -> ScoredPrompt:
        predictions = await asyncio.gather(*(self._predict(prompt, pair) for pair in self.pairs))
        scores = [
            None
            if prediction is None
            else score_prediction(prediction, pair.record.response, self.span, self.ctx)
            for pair, prediction in zip(self.pairs, predictions, strict=True)
        ]
        return ScoredPrompt(prompt, tuple(scores), tuple(predictions), 0)

    async def _predict(self, prompt: str, pair: Pair) -> str | None:
        """The answer to a past question with a prompt; None if two replies cannot be parsed."""
        ctx = self.ctx
        messages = ctx.render(pair.question, notes=_format_notes(prompt, ctx))
        for attempt in range(ATTEMPTS):
            response = await ctx.complete(
                messages,
                max_tokens=ctx.answer_tokens,
                repeat=attempt,
                attempt=attempt,
                attempts=ATTEMPTS,
            )
            prediction = ctx.task.parse(response.text.strip(), pair.question, "lenient")
            if prediction is not None:
                return prediction
        ctx.flag("predictions_unparsed")
        return None

    async def _write(self, memory: Sequence[ScoredPrompt], number: int) -> list[str]:
        """New prompts of one round, each once; none if two replies have no prompt."""
        p = self.params
        ctx = self.ctx.profiling()
        max_tokens = p.n_prompts * (p.prompt_max_tokens + _MARKUP_TOKENS)
        # Only the first prompt's failures are written out, the newest first: a small window drops
        # the oldest failures, then the oldest demonstrations.
        failures = memory[0].find_failures(self.threshold)[::-1][: p.failures_shown]
        demonstrations = self.demonstrations[::-1]
        records = [*demonstrations, *(self.pairs[index].record for index in failures)]

        def build(fitted: Sequence[Record]) -> tuple[Message, ...]:
            count = max(0, len(fitted) - len(demonstrations))
            shown = demonstrations[: len(fitted)][::-1]
            return self._write_prompt(memory, shown, failures[:count], ctx)

        messages = ctx.fit(build, records, max_tokens)
        replies = await request_parsed(
            "optimizer",
            messages,
            read_prompts,
            ctx,
            reminder=ctx.part(PROMPTS, "reminder"),
            max_tokens=max_tokens,
            schema=_prompts_schema(p.n_prompts),
            temperature=p.optimizer_temperature,
            # Without new prompts the next request is the same, and its reply has to be another.
            repeat=number,
            is_stored=True,
        )
        return self._check(replies or [], ctx)

    def _check(self, replies: Sequence[str], ctx: Context) -> list[str]:
        """The prompts of a reply that may be used, within their length."""
        prompts: dict[str, None] = {}
        for reply in replies[: self.params.n_prompts]:
            prompt = ctx.tokens.truncate(reply, self.params.prompt_max_tokens).strip()
            if prompt != reply:
                ctx.flag("prompts_truncated")
            if quotes_pair(prompt, self.pairs):
                ctx.flag("prompts_quoting")
            elif prompt:
                prompts[prompt] = None
        return list(prompts)

    def _write_prompt(
        self,
        memory: Sequence[ScoredPrompt],
        records: Sequence[Record],
        failures: Sequence[int],
        ctx: Context,
    ) -> tuple[Message, ...]:
        demonstrations = "\n\n".join(map(ctx.task.describe, records))
        entries = [self._describe_first(memory[0], failures, ctx)]
        entries += [self._describe_later(prompt, failures, ctx) for prompt in memory[1:]]
        return ctx.prompt(
            PROMPTS,
            "optimize",
            demonstrations=demonstrations,
            memory="\n\n".join(entries),
            count=str(self.params.n_prompts),
            words=str(self.params.prompt_max_tokens // 2),
        )

    def _describe_first(self, prompt: ScoredPrompt, failures: Sequence[int], ctx: Context) -> str:
        lines = []
        for index in sorted(failures):
            pair = self.pairs[index]
            lines.append(
                ctx.part(
                    PROMPTS,
                    "failure",
                    number=str(pair.number),
                    record=ctx.task.describe(pair.record),
                    prediction=prompt.predictions[index] or "",
                )
            )
        return _describe_prompt(prompt, "\n\n".join(lines) or "-", ctx)

    def _describe_later(self, prompt: ScoredPrompt, shown: Sequence[int], ctx: Context) -> str:
        failures = prompt.find_failures(self.threshold)
        shared = [self.pairs[index].number for index in failures if index in shown]
        text = ctx.part(
            PROMPTS,
            "shared_failures",
            numbers=", ".join(map(str, shared)) or "-",
            count=str(len(failures) - len(shared)),
        )
        return _describe_prompt(prompt, text, ctx)


def read_prompts(text: str) -> list[str] | None:
    """The prompts of a JSON reply, also of a truncated one, each on one line; None without any."""
    prompts = []
    for match in _PROMPT.finditer(text):
        try:
            prompt = json.loads(match[1], strict=False)
            prompt.encode()
        except ValueError:
            # Escapes that are no JSON, or half a character.
            continue
        prompts.append(" ".join(prompt.split()))
    return [prompt for prompt in prompts if has_words(prompt)] or None


async def _pose(records: Sequence[Record], sample: Sample, ctx: Context) -> list[Pair]:
    """The records as questions like the sample, with a stimulus where they have none."""
    stimuli = await asyncio.gather(*(_find_stimulus(record, ctx) for record in records))
    posed = [
        msgspec.structs.replace(record, stimulus=stimulus)
        for record, stimulus in zip(records, stimuli, strict=True)
    ]
    return [
        Pair(number, ctx.task.question(record, like=sample), record)
        for number, record in enumerate(posed, 1)
    ]


async def _find_stimulus(record: Record, ctx: Context) -> str:
    """The record's stimulus; a neutral rewriting of its response if it has none."""
    if record.stimulus is not None:
        return record.stimulus
    messages = ctx.prompt(PROMPTS, "rewrite", text=record.response)
    response = await ctx.complete(messages, max_tokens=ctx.answer_tokens)
    return response.text.strip() or record.response


def _prompts_schema(count: int) -> dict[str, Any]:
    prompt = {
        "type": "object",
        "properties": {"prompt": {"type": "string"}},
        "required": ["prompt"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"prompts": {"type": "array", "items": prompt, "maxItems": count}},
        "required": ["prompts"],
        "additionalProperties": False,
    }


def _describe_prompt(prompt: ScoredPrompt, failures: str, ctx: Context) -> str:
    return ctx.part(
        PROMPTS,
        "candidate",
        prompt=prompt.prompt or "-",
        score=f"{100 * max(prompt.mean, 0):.0f}",
        failures=failures,
    )


def _format_notes(prompt: str, ctx: Context) -> str:
    return ctx.part(PROMPTS, "notes", prompt=prompt) if prompt else ""
