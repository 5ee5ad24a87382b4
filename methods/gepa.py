"""A prompt for each user, evolved by the package gepa on the user's past questions.

The older half of the user's records gives feedback: the model's answers beside the user's, from
which a better prompt is written.  The newer half chooses among the prompts.  Search and selection
are the package's, texts and scores are ours.  Needs the extra `gepa`.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeVar

from personabench import Context, Method, PromptFile, Record, Sample, UsageError
from personabench.api.python_memory import find_version
from personabench.methods.past_answers import list_precedents, score_past_answer
from personabench.types import normalized

PROMPTS = PromptFile(__file__, "gepa.prompts.toml")
PACKAGE = "gepa"
# The part of the request that is evolved, as the package names it.
_PART = "notes"
# Without two records on each side nothing can be told from chance.
_FEWEST = 4
# Common words of an answer in a row that are no quotation of it.
_QUOTED_WORDS = 4
T = TypeVar("T")


class Attempt(NamedTuple):
    """A past question answered with a prompt: the model's answer, and its score from 0 to 1."""

    record: Record
    answer: str
    score: float


class Gepa(Method):
    """Evolve a prompt on the user's past questions with the package gepa; answer with the best."""

    name = "gepa"
    paper = (
        "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning, arXiv 2507.19457"
    )
    designed_for = ()
    needs = ("history", "precedents")
    uses_profiler = True
    prompts = (PROMPTS,)
    external = True
    # The package's version is part of the identity of runs.
    code = find_version(PACKAGE)

    @dataclass(frozen=True)
    class Params:
        """records: newest records used, half for feedback, half for selection.

        evaluations: answers to past questions that the search may request.
        batch: past questions behind each new prompt.
        prompt_max_tokens: maximum tokens of a prompt.
        """

        records: int = 12
        evaluations: int = 48
        batch: int = 3
        prompt_max_tokens: int = 200

        def __post_init__(self) -> None:
            for name, minimum in {"records": _FEWEST, "evaluations": 1, "batch": 1}.items():
                if getattr(self, name) < minimum:
                    raise ValueError(f"{name} must be at least {minimum}")

    def requirements(self) -> set[str]:
        """Return the needs.

        Raises:
            UsageError: the package is not installed.
        """
        if find_spec(PACKAGE) is None:
            raise UsageError(
                "method gepa needs the package gepa: pip install 'personabench-harness[gepa]'"
            )
        return super().requirements()

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        records = list_precedents(sample, ctx)[-self.params.records :]
        if len(records) < _FEWEST:
            ctx.flag("too_few_records")
            return await ctx.answer(sample)

        evolution = Evolution(self.params, sample, records, ctx.shared())
        prompt, scores = await evolution.run()
        # Scores of the records that chose, so that the best one is an optimistic estimate.
        ctx.note("prompt", prompt)
        ctx.note("validation", scores)
        ctx.flag("prompts_tried", len(scores))
        return await ctx.answer(sample, notes=ctx.part(PROMPTS, "notes", prompt=prompt))


class Evolution:
    """The search for one user's prompt, an adapter of the package.

    The package is synchronous and runs in a thread, which calls the model on the event loop.

    Attributes:
        propose_new_texts: None, since the package takes `propose` as a function instead.
    """

    propose_new_texts = None

    def __init__(
        self, params: Gepa.Params, sample: Sample, records: Sequence[Record], ctx: Context
    ) -> None:
        self._params = params
        self._sample = sample
        self._records = records
        self._ctx = ctx
        self._loop = asyncio.get_running_loop()
        self._ended = threading.Event()
        self._failure: BaseException | None = None

    async def run(self) -> tuple[str, list[float]]:
        """The prompt with the best answers on the newer half, and the scores of all prompts."""
        # A thread of its own: the shared ones may be those that answer its calls.
        with_place = contextvars.copy_context().run
        executor = ThreadPoolExecutor(max_workers=1)
        try:
            return await self._loop.run_in_executor(executor, with_place, self._search)
        finally:
            # The thread of a cancelled sample ends at its next step.
            self._ended.set()
            executor.shutdown(wait=False)

    def _search(self) -> tuple[str, list[float]]:
        # Imported on use: an extra.
        import gepa

        middle = len(self._records) // 2
        result: Any = gepa.optimize(
            seed_candidate={_PART: self._ctx.part(PROMPTS, "seed")},
            trainset=list(self._records[:middle]),
            valset=list(self._records[middle:]),
            adapter=self,
            custom_candidate_proposer=self.propose,
            reflection_minibatch_size=min(self._params.batch, middle),
            max_metric_calls=self._params.evaluations,
            stop_callbacks=lambda state: self._ended.is_set(),
            seed=self._ctx.rng("gepa", self._sample.user_id).getrandbits(31),
            logger=Silence(),
            track_best_outputs=False,
        )
        # The package goes on after a failed proposal, but a failed call is the sample's failure.
        if self._failure is not None:
            raise self._failure
        scores = [round(float(score), 6) for score in result.val_aggregate_scores]
        return str(result.best_candidate[_PART]), scores

    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
        except BaseException as failure:
            self._failure = self._failure or failure
            self._ended.set()
            raise

    def evaluate(
        self, batch: Sequence[Record], candidate: Mapping[str, str], capture_traces: bool = False
    ) -> Any:
        """Answer past questions with a prompt, and score the answers."""
        from gepa.core.adapter import EvaluationBatch

        attempts = self._await(self._answer(batch, candidate[_PART]))
        return EvaluationBatch(
            outputs=[attempt.answer for attempt in attempts],
            scores=[attempt.score for attempt in attempts],
            trajectories=list(attempts) if capture_traces else None,
        )

    async def _answer(self, batch: Sequence[Record], prompt: str) -> list[Attempt]:
        notes = self._ctx.part(PROMPTS, "notes", prompt=prompt)

        async def attempt(record: Record) -> Attempt:
            score, answer = await score_past_answer(record, self._sample, (), notes, self._ctx)
            return Attempt(record, answer, score)

        return list(await asyncio.gather(*(attempt(record) for record in batch)))

    def make_reflective_dataset(
        self, candidate: Mapping[str, str], eval_batch: Any, components_to_update: Sequence[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """The attempts behind a new prompt, in the form of the package."""
        attempts = eval_batch.trajectories or ()
        return {
            part: [{"attempt": attempt} for attempt in attempts] for part in components_to_update
        }

    def propose(
        self,
        candidate: Mapping[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: Sequence[str],
    ) -> dict[str, str]:
        """A new prompt, written by the profiler; the parent if its reply is of no use."""
        attempts = [row["attempt"] for row in reflective_dataset[_PART]]
        return {_PART: self._await(self._reflect(candidate[_PART], attempts))}

    async def _reflect(self, prompt: str, attempts: Sequence[Attempt]) -> str:
        ctx = self._ctx.profiling()
        examples = [
            ctx.part(
                PROMPTS,
                "example",
                question=ctx.task.document_text(attempt.record),
                answer=attempt.answer or "–",
                gold=attempt.record.response,
            )
            for attempt in attempts
        ]
        limit = self._params.prompt_max_tokens
        stand_ins = [Record(str(number)) for number in range(len(examples))]
        messages = ctx.fit(
            lambda shown: ctx.prompt(
                PROMPTS, "reflect", prompt=prompt, examples="\n\n".join(examples[: len(shown)])
            ),
            stand_ins,
            limit,
        )
        reply = await ctx.complete(messages, max_tokens=limit)
        written = reply.text.strip()
        if not written:
            ctx.flag("empty_prompt")
            return prompt
        if _quotes(written, [attempt.record for attempt in attempts]):
            ctx.flag("prompt_quotes_answer")
            return prompt
        return written


class Silence:
    """A logger of the package that writes nothing: its lines would hold texts of users."""

    def log(self, message: str) -> None:
        """Write nothing."""


def _quotes(prompt: str, records: Sequence[Record]) -> bool:
    """Whether a prompt contains the whole of an answer of at least four words."""
    words = f" {normalized(prompt)} "
    answers = [normalized(record.response) for record in records]
    return any(
        len(answer.split()) >= _QUOTED_WORDS and f" {answer} " in words for answer in answers
    )
