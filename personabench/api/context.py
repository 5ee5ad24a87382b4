"""What a method can do: ask the model, render the task's wording, look things up.

A `Context` belongs to one phase of one unit of work (a user's profile, a sample's prediction).  It collects the
receipts of its calls and the flags raised on the way; the engine reads both when the unit is done.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from personabench.errors import BackendError, UsageError
from personabench.models.roles import Caller
from personabench.retrieval.search import search
from personabench.types import Message, Phase, Record, Request, Response, Sample

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from personabench.api.task import Task
    from personabench.models.client import Client
    from personabench.retrieval.embedders import Embedders
    from personabench.types import Sampling

_log = logging.getLogger("personabench.method")


class Context(Caller):
    """One phase of one unit of work, as a method sees it.

    Attributes:
        task: the task, for its `words`, `kind` and `describe`; it holds no data.
        sampling: the run's decoding.
        notes: what the method told of its work, by name.
    """

    def __init__(
        self,
        *,
        task: Task,
        client: Client,
        embedders: Embedders,
        sampling: Sampling,
        seed: int,
        phase: Phase,
        unit: str,
    ) -> None:
        super().__init__(client, phase, unit, seed)
        self.task = task
        self.sampling = sampling
        self.notes: dict[str, Any] = {}
        self._embedders = embedders

    @property
    def answer_tokens(self) -> int:
        """The allowance of an answer to the task, in tokens."""
        return self.sampling.max_tokens or self.task.max_tokens

    def note(self, name: str, value: Any) -> None:
        """Keep something of how the answer came about, any JSON, beside it in the run's records."""
        self.notes[name] = value

    def log(self, text: str) -> None:
        """Write a line to the attempt's log."""
        _log.info("%s %s: %s", self._phase, self._unit, text)

    def rng(self, *names: str) -> random.Random:
        """A generator that depends on the run's seed and the names given, on nothing else."""
        return random.Random("\x1f".join([str(self.seed), *names]))

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
    ) -> Response:
        """Ask the model.

        Sampling is the run's unless given.  A reply that `accept` refuses is handed on but not remembered.  A reply cut
        at `max_tokens` raises the flag `truncated`, one that a filter withheld or broke off the flag `refused`.  The
        response's text is the answer; what the model thought before it is in `thought`, and is not for prompts.

        Raises:
            BackendError: the call failed for good.
        """
        request = Request(
            messages=tuple(messages),
            max_tokens=max_tokens,
            temperature=self.sampling.temperature if temperature is None else temperature,
            top_p=self.sampling.top_p,
            seed=self.seed,
            schema=schema,
            logprobs=logprobs,
            repeat=repeat,
            adapter=self._client.backend.adapter(self._unit),
        )
        return await self._ask(request, accept)

    async def likelihood(self, messages: Sequence[Message], reply: str) -> tuple[float, ...]:
        """The log-probability of each token of a given reply to a conversation; nothing is written.

        Raises:
            UsageError: the backend does not say.
            BackendError: the call failed for good.
        """
        if not self._client.backend.supports_reply_logprobs:
            raise UsageError(
                "how likely a given reply is, this backend does not say; --backend vllm does"
            )
        given = (*messages, Message("assistant", reply))
        adapter = self._client.backend.adapter(self._unit)
        response = await self._ask(
            Request(given, 0, seed=self.seed, logprobs=1, adapter=adapter), None
        )
        return tuple(token["logprob"] for token in response.logprobs)

    def render(
        self, sample: Sample, records: Sequence[Record] = (), notes: str = ""
    ) -> tuple[Message, ...]:
        """The task's request with the records shown (best first) and notes about the user.

        The lowest-ranked records are dropped until request and answer fit the model's window; the sample's own text
        is never cut.  Flags say what was dropped.

        Raises:
            BackendError: the request does not fit even without records.
        """

        flags: dict[str, float] = {}

        def build(kept: Sequence[Record]) -> tuple[Message, ...]:
            nonlocal flags
            rendered = self.task.render(sample, kept, notes, self.tokens)
            flags = rendered.flags
            return rendered.messages

        messages = self.fit(build, records, self.answer_tokens)
        for name, amount in flags.items():
            self.flag(name, amount)
        return messages

    def fit(
        self,
        build: Callable[[Sequence[Record]], Sequence[Message]],
        records: Sequence[Record],
        max_tokens: int,
    ) -> tuple[Message, ...]:
        """Messages built from as many of the best records as the window holds beside a reply of `max_tokens`.

        Raises:
            BackendError: not even an empty list fits.
        """
        kept = len(records)
        while True:
            messages = tuple(build(records[:kept]))
            excess = self.excess(messages, max_tokens)
            if excess <= 0:
                break
            if kept == 0:
                raise BackendError(
                    f"the request is {excess} tokens too long for the model's window of {self.window}, "
                    "even without any history; use a model with a larger window"
                )
            kept -= 1
        if kept < len(records):
            self.flag("records_dropped", len(records) - kept)
            self.log(f"{len(records) - kept} lowest-ranked records dropped to fit the window")
        return messages

    def within(self, texts: Sequence[str], budget: int) -> int:
        """How many of the leading texts fit a budget in tokens; at least one, and a flag when some do not."""
        used = 0
        for position, text in enumerate(texts):
            used += self.tokens.count(text)
            if used > budget and position > 0:
                self.flag("records_over_budget", len(texts) - position)
                return position
        return len(texts)

    def excess(self, messages: Sequence[Message], max_tokens: int) -> int:
        """By how many tokens a request and its reply overrun the window; 0 or less when they fit."""
        if self.window is None:
            return 0
        room = self.window - max_tokens
        if sum(len(message.content.encode()) + 16 for message in messages) + 64 <= room:
            return 0
        return sum(self.tokens.count(message.content) + 8 for message in messages) + 32 - room

    async def answer(self, sample: Sample, records: Sequence[Record] = (), notes: str = "") -> str:
        """Render, ask, trim: the whole of a prompt-only method."""
        response = await self.complete(
            self.render(sample, records, notes), max_tokens=self.answer_tokens
        )
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
        """The k records of the sample's visible history that fit it best, best first.

        `by` is bm25, dense, recency, random, ranked (with `ranking`: sample id to record ids) or recency+dense.
        Query and document texts are the task's.  Flags `empty_profile` when there is nothing to search.
        """
        history = sample.history if records is None else records
        if not history and k > 0:
            self.flag("empty_profile")
        return await search(
            history,
            query=self.task.query_text(sample),
            document=self.task.document_text,
            k=k,
            by=by,
            rng=self.rng("retrieve", sample.id),
            embed=lambda texts: self.embed(texts, embedder),
            ranking=None if ranking is None else ranking.get(sample.id),
            flag=self.flag,
        )

    async def embed(
        self, texts: Sequence[str], embedder: str = "wordllama"
    ) -> npt.NDArray[np.float32]:
        """Vectors of texts, shape (n, d): `wordllama`, `sentence-transformers:NAME`, `openai:NAME` or `vllm:NAME`."""
        return await self._embedders.embed(texts, embedder)
