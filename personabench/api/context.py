"""The `Context` of a method: call the model, render the task's wording, retrieve records.

A context belongs to one phase of one unit of work (a user's profile, a sample's prediction).  It
collects the usage of its calls and the flags raised meanwhile; the engine reads both when the unit
is done.
"""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from personabench.api.arguments import check_arguments
from personabench.api.prompts import PromptFile, Prompts
from personabench.api.shown import Sent
from personabench.api.wording import Wording, WordingView
from personabench.errors import BackendError, Filtered, UsageError
from personabench.models.call_order import Ordered, next_place
from personabench.models.reply import as_it_came
from personabench.models.roles import Caller
from personabench.retrieval.search import SEARCHES, search
from personabench.types import ONLY_TRY, Message, Phase, Record, Request, Response, Sample, Try

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from personabench.api.artifacts import Artifact, Artifacts
    from personabench.api.wording import Rendered
    from personabench.models.client import Client
    from personabench.retrieval.embedders import Embedders
    from personabench.types import Sampling

_log = logging.getLogger("personabench.method")

# Chat templates add special tokens around messages.  Their number is unknown here, so requests are
# estimated on the safe side: a token has at least one byte, and the margins cover the common
# templates.
_TOKENS_PER_MESSAGE = 8
_TOKENS_PER_REQUEST = 32
_BYTES_PER_MESSAGE = 16
_BYTES_PER_REQUEST = 64


class Profiler(NamedTuple):
    """The model that does a method's profiling work in place of the model under test.

    Attributes:
        client: calls it.
        prompts: the texts of the method's prompts, in the wording for this model.
    """

    client: Client
    prompts: Prompts


class Citation(NamedTuple):
    """The records behind a method's requests, in the method's own words.

    Attributes:
        record_ids: their ids, in the order of first citing; None if the method cannot tell.
    """

    record_ids: tuple[str, ...] | None


class Context(Caller):
    """One phase of one unit of work, as a method sees it.

    Attributes:
        task: the task's wording: instruction, vocabulary, rendering and parsing.  It is a view
            without a way to the task's data, references or metrics.
        sampling: the run's sampling parameters.
        notes: the method's own notes on its work, by name.
        raw_replies: in a run that scores replies as they came, the replies by their answers.
        cited: the ids of the records behind the requests, if the method states them (`cite`).
    """

    def __init__(
        self,
        *,
        task: Wording,
        client: Client,
        embedders: Embedders,
        sampling: Sampling,
        seed: int,
        phase: Phase,
        unit: str,
        sample_id: str = "",
        prompts: Prompts | None = None,
        profiler: Profiler | None = None,
        may_profile: bool = True,
        artifacts: Artifacts | None = None,
    ) -> None:
        super().__init__(client, phase, unit, seed, sample_id)
        self.task: Wording = WordingView(task)
        self.sampling = sampling
        self.notes: dict[str, Any] = {}
        self.raw_replies: dict[str, str] = {}
        self.cited: Citation | None = None
        self._sent = Ordered[Sent]()
        self._embedders = embedders
        self._prompts = prompts or Prompts()
        self._profiler = profiler
        self._may_profile = may_profile
        self._attempt = ONLY_TRY
        self._artifacts = artifacts
        self._adapter: str | msgspec.UnsetType = msgspec.UNSET
        # By the identity of their messages, which the entry keeps alive.
        self._rendered: dict[int, tuple[Sequence[Message], Sent]] = {}
        if phase in ("prepare", "profile") and profiler is not None:
            vars(self).update(_profiler_attributes(profiler))

    @property
    def has_profiler(self) -> bool:
        """Whether a profiler is named, so that profiling work is not the model's under test."""
        return self._profiler is not None

    @property
    def sent(self) -> list[Sent]:
        """The requests for the profile or the prediction that got a response, in program order."""
        return self._sent.items

    @property
    def answer_tokens(self) -> int:
        """The maximum number of tokens of an answer to the task."""
        return self.sampling.max_tokens or self.task.max_tokens

    def note(self, name: str, value: Any) -> None:
        """Record any JSON value about the answer, beside it in the run's files.

        Raises:
            TypeError: JSON cannot hold the value.
        """
        try:
            msgspec.json.encode(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"ctx.note: the value of '{name}' is no JSON: {error}") from error
        self.notes[name] = value

    def cite(self, record_ids: Sequence[str] | None) -> None:
        """State the records behind the requests for an answer, in place of a search for their text.

        Paraphrases of records are not recognized by their text.  Citations add up; None says that
        the records are unknown.
        """
        earlier = self.cited.record_ids if self.cited else ()
        if earlier is None or record_ids is None:
            self.cited = Citation(None)
        else:
            self.cited = Citation(tuple(dict.fromkeys([*earlier, *record_ids])))

    def log(self, text: str) -> None:
        """Write a line to the attempt's log."""
        _log.info("%s %s: %s", self._phase, self._unit, text)

    def rng(self, *scope: str) -> random.Random:
        """Return a random generator that depends on the run's seed and the scope alone."""
        # Independent of earlier draws, so that concurrency and resuming do not change results.
        seed = "\x1f".join([str(self.seed), *scope])
        return random.Random(seed)

    def shared(self) -> Context:
        """Return this context for artifacts: replies that belong to records, not to a question.

        A draft of a record or a difference from peers is determined by its request.  It is
        requested once, whichever sample needs it first, and booked offline; at a temperature above
        0, equal requests of two samples would otherwise have independent replies.
        """
        if not self.sample_id:
            return self
        # Rounds of an online task are no records of the past.
        phase = "profile" if self._phase == "predict" else self._phase
        return self._with({"sample_id": "", "_phase": phase})

    def profiling(self) -> Context:
        """Return this context for profiling work: what describes the user, not the answer.

        The profiler (`--profile-model`) does it, if one is named; else the model under test.  All
        calls of `prepare` and `profile` are the profiler's.

        Raises:
            TypeError: the method does not declare `uses_profiler`.
        """
        if not self._may_profile:
            raise TypeError("ctx.profiling: the method's class has to state `uses_profiler = True`")
        if self._profiler is None or self.is_profiler:
            return self
        return self._with(_profiler_attributes(self._profiler))

    def repeating(self, attempt: Try, temperature: float | None) -> Context:
        """Return this context for another try of an answer that the task could not read.

        Args:
            attempt: the number of the try, from 0, and of all tries.
            temperature: in place of the run's; None for the run's.
        """
        if attempt == ONLY_TRY and temperature is None:
            return self
        sampling = self.sampling
        if temperature is not None:
            sampling = msgspec.structs.replace(sampling, temperature=temperature)
        return self._with({"_attempt": attempt, "sampling": sampling})

    def choosing(self) -> Context:
        """Return this context for choosing records to show, such as by a filter.

        Records in its requests do not count as shown; those in requests for the answer do.
        """
        return self._with({"_sent": Ordered[Sent]()})

    def _with(self, attributes: Mapping[str, Any]) -> Context:
        """Return this context with other attributes; calls and flags are collected together."""
        context = copy.copy(self)
        vars(context).update(attributes)
        return context

    def artifact(self, sample: Sample, stage: Literal["base", "user"] = "user") -> Artifact | None:
        """Return what `personabench train` made for a sample: "base" is of the population stage,
        "user" of the user whose history the sample shows; None without such a stage or history.

        Raises:
            UsageError: it is not trained yet, or it saw something that is hidden from the sample.
            DataError: its files are damaged.
        """
        if self._artifacts is None:
            raise UsageError(
                "it answers with what `personabench train` made, which only runs find, and no check"
            )
        if stage == "base":
            return self._artifacts.base(sample)
        return self._artifacts.user(sample)

    def using(self, artifact: Artifact, scale: float = 1.0) -> Context:
        """Return this context with an artifact, at a scale if it is a vector, before the model."""
        name = artifact.name if scale == 1 else f"{artifact.name}x{scale:g}"
        self._client.backend.add_adapter(name, artifact.adapter, scale)
        return self._with({"_adapter": name})

    def _choose_adapter(self) -> str | msgspec.UnsetType:
        """The adapter of a call: an artifact's, or the one that the options name for the user."""
        if self._adapter is not msgspec.UNSET:
            return self._adapter
        backend = self._client.backend
        adapter = backend.adapter(self._unit)
        if backend.options.adapter_map and adapter is msgspec.UNSET:
            self.flag("base_without_adapter")
        return adapter

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float | None = None,
        schema: Mapping[str, Any] | None = None,
        logprobs: int = 0,
        repeat: int = 0,
        accept: Callable[[str], bool] | None = None,
        attempt: int = 0,
        attempts: int = 1,
    ) -> Response:
        """Call the model, with the run's sampling unless a temperature is given.

        A reply that `accept` refuses is returned but not cached.  A reply truncated at `max_tokens`
        raises the flag `truncated`, one that a content filter withheld or ended the flag `refused`.
        The text of the response is the answer.  The model's thought is in `thought`, which does not
        belong into prompts.  A method that requests a reply again if it cannot read it states the
        number of the `attempt`, from 0, and of all `attempts`, so that plans count a repetition as
        possible.

        Raises:
            TypeError: an argument of the wrong type.
            BackendError: the call failed for good.
        """
        check_arguments("complete", messages=messages, max_tokens=max_tokens)
        tried = Try(attempt, attempts)
        if temperature is None and tried == ONLY_TRY and self._attempt != ONLY_TRY:
            # An index of its own, so that no repetition is answered with the reply before it.
            tried = self._attempt
            repeat = repeat * tried.of + tried.number
        request = Request(
            messages=tuple(messages),
            max_tokens=max_tokens,
            temperature=self.sampling.temperature if temperature is None else temperature,
            top_p=self.sampling.top_p,
            schema=schema,
            logprobs=logprobs,
            repeat=repeat,
            adapter=self._choose_adapter(),
        )
        response = await self._ask(request, accept, tried)
        if self.sampling.reading == "raw":
            self.raw_replies[response.text.strip()] = as_it_came(response)
        return response

    async def _ask(
        self,
        request: Request,
        accept: Callable[[str], bool] | None,
        attempt: Try = ONLY_TRY,
    ) -> Response:
        # Requests of other phases are made for all users, or after the answer.
        if self._phase not in ("profile", "predict"):
            return await self._ask_filtered(request, accept, attempt)

        # Described before the call, since the method may reuse a list of messages afterwards.
        place = next_place()
        self._sent.add(place, self._describe(request))
        try:
            return await self._ask_filtered(request, accept, attempt)
        except BaseException:
            self._sent.remove(place)
            raise

    async def _ask_filtered(
        self, request: Request, accept: Callable[[str], bool] | None, attempt: Try
    ) -> Response:
        """Call the model; a refusal is an empty reply if the run says so."""
        if self.sampling.refusals != "empty":
            return await super()._ask(request, accept, attempt)
        try:
            response = await super()._ask(request, accept, attempt)
        except Filtered:
            self.flag("refused")
            self.is_storable = False
            return Response("", finish="refused")
        if response.finish == "refused":
            return msgspec.structs.replace(response, text="")
        return response

    def _describe(self, request: Request) -> Sent:
        rendered = self._rendered.get(id(request.messages))
        if rendered is not None:
            return rendered[1]
        return Sent((), tuple(message.content for message in request.messages))

    async def likelihood(
        self,
        messages: Sequence[Message],
        reply: str,
    ) -> tuple[float, ...]:
        """Return the log-probability of each token of a given reply; nothing is generated.

        Raises:
            UsageError: the backend does not report it.
            BackendError: the call failed for good.
        """
        if not self._client.backend.supports_reply_logprobs:
            raise UsageError(
                "this backend does not report the likelihood of a given reply; use --backend vllm"
            )

        request = Request(
            messages=(*messages, Message("assistant", reply)),
            max_tokens=0,
            logprobs=1,
            adapter=self._choose_adapter(),
        )
        response = await self._ask(request, None)
        return tuple(token["logprob"] for token in response.logprobs)

    def prompt(self, file: PromptFile, stage: str, **slots: str) -> tuple[Message, ...]:
        """Return the request of a stage of a template file, in the run's wording.

        The method fills the stage's slots; those of the task's vocabulary are filled in.

        Raises:
            PluginError: other slots are filled than the stage has.
        """
        return self._prompts.messages(file, stage, self.task.words, slots)

    def part(self, file: PromptFile, stage: str, **slots: str) -> str:
        """Return a part of a request, such as one of several examples, as `prompt` does.

        Raises:
            PluginError: as `prompt`.
        """
        return self._prompts.part(file, stage, self.task.words, slots)

    def render(
        self,
        sample: Sample,
        records: Sequence[Record] = (),
        notes: str = "",
        contract: str = "",
    ) -> tuple[Message, ...]:
        """Render the task's request with records (best first) and notes about the user.

        `contract` replaces the task's own request for the form of the answer.  The lowest-ranked
        records are dropped until request and answer fit the model's window; the sample's own text
        is never truncated.  Flags count the dropped records.

        Raises:
            TypeError: an argument of the wrong type.
            BackendError: the request does not fit even without records.
        """
        # Before the task's code runs, which would be taken for the one at fault.
        check_arguments("render", sample=sample, records=records, notes=notes, contract=contract)
        records, notes = self._limit_memory(records, notes)
        rendered: Rendered | None = None

        def build(candidates: Sequence[Record]) -> tuple[Message, ...]:
            nonlocal rendered
            rendered = self.word(sample, candidates, notes, contract)
            return rendered.messages

        messages = self.fit(build, records, self.answer_tokens)

        # Only the last attempt counts: earlier ones are requests that are not sent.
        assert rendered is not None
        for name, amount in rendered.flags.items():
            self.flag(name, amount)
        # A rendering that names no records is searched for them like any other text.
        if rendered.records or not records:
            sent = Sent(rendered.records, (notes,) if notes else ())
            self._rendered[id(messages)] = messages, sent
        return messages

    def _limit_memory(self, records: Sequence[Record], notes: str) -> tuple[Sequence[Record], str]:
        """Keep notes, and then the best whole records, within `memory_tokens` of the run."""
        budget = self.sampling.memory_tokens
        if budget is msgspec.UNSET or self._phase != "predict":
            return records, notes

        used = self.tokens.count(notes) if notes else 0
        if used > budget:
            notes = self.tokens.truncate(notes, budget)
            used = self.tokens.count(notes)
            self.flag("memory_truncated")
        count = 0
        for record in records:
            tokens = self.tokens.count(self.task.describe(record))
            if used + tokens > budget:
                self.flag("memory_over_budget", len(records) - count)
                break
            used += tokens
            count += 1
        self.flag("memory_tokens", used)
        self.flag("memory_items", count)
        return records[:count], notes

    def word(
        self,
        sample: Sample,
        records: Sequence[Record] = (),
        notes: str = "",
        contract: str = "",
    ) -> Rendered:
        """Word a request like `render`, whatever its length.

        A contract stands at the end of the last message.  It is added to the task's own if the task
        cannot leave this out.
        """
        parts = (sample, records, notes, self.tokens)
        if not contract:
            return self.task.render(*parts)
        content = self.task.render_content(*parts) or self.task.render(*parts)
        return content.with_paragraph(contract)

    def fit(
        self,
        build: Callable[[Sequence[Record]], Sequence[Message]],
        records: Sequence[Record],
        max_tokens: int,
    ) -> tuple[Message, ...]:
        """Build messages from as many of the best records as fit the window beside the reply.

        Raises:
            BackendError: the messages do not fit even without records.
        """
        count = len(records)
        messages = tuple(build(records))
        excess = self.count_excess_tokens(messages, max_tokens)
        while excess > 0:
            if count == 0:
                raise BackendError(
                    f"the request is {excess} tokens too long for the model's window of "
                    f"{self.window}, even without any history; use a model with a larger window"
                )
            count -= 1
            messages = tuple(build(records[:count]))
            excess = self.count_excess_tokens(messages, max_tokens)

        dropped = len(records) - count
        if dropped:
            self.flag("records_dropped", dropped)
            self.log(f"{dropped} lowest-ranked records dropped to fit the window")
        return messages

    def count_within(self, texts: Sequence[str], budget: int) -> int:
        """Count the leading texts that fit a budget in tokens, at least one; flag the rest."""
        used = 0
        for index, text in enumerate(texts):
            used += self.tokens.count(text)
            if used > budget and index > 0:
                self.flag("records_over_budget", len(texts) - index)
                return index
        return len(texts)

    def count_excess_tokens(
        self,
        messages: Sequence[Message],
        max_tokens: int,
    ) -> int:
        """Count the tokens of a request and its reply beyond the window; 0 or less if they fit."""
        if self.window is None:
            return 0
        available = self.window - max_tokens - self._client.allowance

        # Counting bytes is much faster than tokenizing and settles most requests.
        sizes = [len(message.content.encode()) + _BYTES_PER_MESSAGE for message in messages]
        if sum(sizes) + _BYTES_PER_REQUEST <= available:
            return 0

        counts = [self.tokens.count(message.content) + _TOKENS_PER_MESSAGE for message in messages]
        return sum(counts) + _TOKENS_PER_REQUEST - available

    async def answer(
        self,
        sample: Sample,
        records: Sequence[Record] = (),
        notes: str = "",
    ) -> str:
        """Render the request, call the model and strip the reply, as a prompt-only method does."""
        messages = self.render(sample, records, notes)
        response = await self.complete(messages, max_tokens=self.answer_tokens)
        return response.text.strip()

    async def retrieve(
        self,
        sample: Sample,
        k: int,
        by: str = "bm25",
        *,
        records: Sequence[Record] | None = None,
        embedder: str = "wordllama",
        ranking: Mapping[str, Sequence[str]] | None = None,
    ) -> list[Record]:
        """Retrieve the k best records of the sample's visible history, best first.

        `by` is bm25, dense, recency, random, ranked (with `ranking`: sample id to record ids),
        recency+dense or file-order.  Query and document texts are the task's, and so is the
        tokenizer of bm25.  An empty history raises the flag `empty_profile`, one that shares no
        token with the query under bm25 the flag `bm25_no_match`.

        Raises:
            TypeError: an argument of the wrong type.
            ValueError: unknown `by`.
            UsageError: negative k, or data without what `by` needs.
        """
        check_arguments("retrieve", sample=sample, records=records or (), k=k)
        # A parameter's value was checked before the run, so that this one is the method's fault.
        if by not in SEARCHES:
            raise ValueError(f"ctx.retrieve: by is {by!r}, not one of {', '.join(SEARCHES)}")
        history = sample.history if records is None else records
        if not history and k > 0:
            self.flag("empty_profile")

        return await search(
            history,
            query=self.task.query_text(sample),
            document=self.task.document_text,
            k=k,
            by=by,
            tokenizer=self.task.tokenizer,
            rng=self.rng("retrieve", sample.id),
            embed=lambda texts: self.embed(texts, embedder),
            ranking=None if ranking is None else ranking.get(sample.id),
            flag=self.flag,
        )

    async def embed(
        self, texts: Sequence[str], embedder: str = "wordllama"
    ) -> npt.NDArray[np.float32]:
        """Embed texts as vectors, shape (n, d).

        The embedder is `wordllama`, `sentence-transformers:NAME`, `openai:NAME` or `vllm:NAME`.
        """
        return await self._embedders.embed(texts, embedder)


def _profiler_attributes(profiler: Profiler) -> dict[str, Any]:
    client, prompts = profiler
    return {
        "_client": client,
        "window": client.window,
        "tokens": client.tokens,
        "_prompts": prompts,
        "is_profiler": True,
        # An artifact belongs to the model under test.
        "_adapter": msgspec.UNSET,
    }
