"""Vectors from servers: any OpenAI-compatible `/embeddings`, and vLLM's own endpoints.

Both go through the openai SDK, which batches of texts do not make the hot path.  A server's words are struck of the
key and of header values before they are shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from personabench.errors import BackendDown, BackendError, UsageError
from personabench.models.backends import credentials
from personabench.models.backends.chat_completion import Secrets, redirect
from personabench.retrieval.embedder import Embedder, Vectors

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_BATCH = 256
_IN_FLIGHT = 8


class OpenAIEmbeddings(Embedder):
    """A model behind an OpenAI-compatible `/embeddings` endpoint.

    Texts travel in batches of 256, at most 8 requests at a time.  The key is in the first of the variables `names` that
    is set, by default OPENAI_API_KEY; a server of one's own (`base_url`) needs none.  Before the first reply the
    vectors' length is unknown, and no texts give shape (0, 0).
    """

    kind, key = "openai", credentials.OPENAI

    def __init__(
        self,
        name: str,
        base_url: str | None = None,
        names: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._names = (self.key,) if names is None else names
        self._key_name, self._key = credentials.read_key(self._names)
        self._headers = headers or {}
        self._secrets = Secrets([self._key, *self._headers.values()])
        self._check(name, base_url)
        self._name = name
        self._base_url = base_url
        self._dimension = 0
        self._limit = asyncio.Semaphore(_IN_FLIGHT)

    @property
    def identity(self) -> str:
        return f"{self.kind}:{self._name}"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        batches = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
        if not batches:
            return np.empty((0, self._dimension), np.float32)
        vectors = np.concatenate(await asyncio.gather(*map(self._embed, batches)))
        self._dimension = vectors.shape[1]
        return vectors

    async def aclose(self) -> None:
        if "_client" in self.__dict__:
            await self._client.close()

    def _check(self, name: str, base_url: str | None) -> None:
        if base_url is None and not self._key:
            wanted = " or ".join(self._names)
            raise UsageError(
                f"the embedder openai:{name} needs a key; set {wanted} or name a server's base URL"
            )

    @cached_property
    def _client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI, DefaultAioHttpClient

        return AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self._base_url,
            max_retries=5,
            default_headers={**credentials.unsent(self._key_name, self._key), **self._headers},
            http_client=DefaultAioHttpClient(follow_redirects=False),
        )

    async def _ask(self, texts: list[str]) -> Mapping[int, Any]:
        """The vector of each position, as the server gives it."""
        reply = await self._client.embeddings.create(model=self._name, input=texts)
        return {item.index: item.embedding for item in reply.data}

    async def _embed(self, texts: Sequence[str]) -> Vectors:
        import openai

        # The API refuses an empty string, not a blank one.
        words = [text or " " for text in texts]
        try:
            async with self._limit:
                rows = await self._ask(words)
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            said = self._secrets.strike(error)
            why = f"the embedding server cannot be used: {said}; check {self._key_name}"
            raise BackendDown(f"{self.identity}: {why}") from None
        except (openai.APIConnectionError, openai.NotFoundError) as error:
            said = self._secrets.strike(error)
            raise BackendDown(
                f"{self.identity}: the embedding server cannot be used: {said}"
            ) from None
        except openai.APIError as error:
            if isinstance(error, openai.APIStatusError) and 300 <= error.status_code < 400:
                why = redirect(
                    "the embedding server", error.status_code, error.response.headers, self._secrets
                )
                raise BackendDown(f"{self.identity}: {why}") from None
            raise BackendError(
                f"{self.identity}: the embedding call failed: {self._secrets.strike(error)}"
            ) from None
        if sorted(rows) != list(range(len(texts))) or len({len(row) for row in rows.values()}) != 1:
            raise BackendError(
                f"{self.identity}: asked for {len(texts)} vectors, got {len(rows)} that do not fit"
            )
        vectors = np.array([rows[position] for position in range(len(texts))], np.float32)
        if not np.isfinite(vectors).all():
            raise BackendError(
                f"{self.identity}: the server returned vectors with values that are not numbers"
            )
        return vectors


class VLLMEmbeddings(OpenAIEmbeddings):
    """A pooling model that a vLLM server has under `name`.

    Asked through `/v1/embeddings`; of a server without it (its model gives a vector per token) through `/pooling`, and
    the mean over a text's tokens is taken.  Texts longer than the model's limit are cut there.  The key is by default
    VLLM_API_KEY, where the server wants one.
    """

    kind, key = "vllm", credentials.VLLM
    _pools = False

    def _check(self, name: str, base_url: str | None) -> None:
        if base_url is None:
            raise UsageError(
                f"the embedder vllm:{name} needs its server's address: --embedder-base-url URL"
            )

    async def _ask(self, texts: list[str]) -> Mapping[int, Any]:
        from openai import NotFoundError

        cut = {"truncate_prompt_tokens": -1}
        if not self._pools:
            try:
                reply = await self._client.embeddings.create(
                    model=self._name, input=texts, extra_body=cut
                )
                return {item.index: item.embedding for item in reply.data}
            except NotFoundError:
                self._pools = True
        root = str(self._base_url).rstrip("/").removesuffix("/v1")
        body = {"model": self._name, "input": texts, **cut}
        pooled: Any = await self._client.post(f"{root}/pooling", cast_to=object, body=body)
        return {item["index"]: _pooled(item["data"]) for item in pooled["data"]}


def _pooled(data: Any) -> npt.NDArray[np.float32]:
    """One vector for a text, from its own or from those of its tokens."""
    vectors = np.array(data, np.float32)
    mean: npt.NDArray[np.float32] = vectors.mean(axis=0) if vectors.ndim == 2 else vectors
    return mean
