"""Embedders behind servers: any OpenAI-compatible `/embeddings`, and vLLM's own endpoints.

Both use the openai SDK: texts travel in batches, so its overhead per call does not matter.  The key
and header values are removed from a server's messages before these are shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from personabench.errors import BackendDown, BackendError, UsageError
from personabench.models.backends import credentials
from personabench.models.backends.redaction import Secrets
from personabench.models.backends.status import describe_redirect
from personabench.retrieval.embedder import Embedder

if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI

    from personabench.retrieval.embedder import Vectors

_BATCH = 256
_IN_FLIGHT = 8


class OpenAIEmbeddings(Embedder):
    """A model behind an OpenAI-compatible `/embeddings` endpoint.

    Texts travel in batches of 256, at most 8 requests at a time.  The key is in the first of the
    variables `key_names` that is set, by default OPENAI_API_KEY; a server of one's own (`base_url`)
    needs none.  Before the first reply the vectors' length is unknown, and no texts give shape
    (0, 0).
    """

    kind, key = "openai", credentials.OPENAI

    def __init__(
        self,
        name: str,
        base_url: str | None = None,
        key_names: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._key_names = (self.key,) if key_names is None else key_names
        self._key_name, self._key = credentials.read_key(self._key_names)
        self._headers = headers or {}
        self._secrets = Secrets([self._key, *self._headers.values()])
        self._check_options(name, base_url)
        self._name = name
        self._base_url = base_url
        self._dimension = 0
        self._limit = asyncio.Semaphore(_IN_FLIGHT)

    @property
    def identity(self) -> str:
        return f"{self.kind}:{self._name}"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, self._dimension), np.float32)

        starts = range(0, len(texts), _BATCH)
        batches = [texts[start : start + _BATCH] for start in starts]
        parts = await asyncio.gather(*map(self._embed_batch, batches))
        vectors = np.concatenate(parts)
        self._dimension = vectors.shape[1]
        return vectors

    async def aclose(self) -> None:
        # The client is a cached property; reading it here would create one only to close it.
        if "_client" in self.__dict__:
            await self._client.close()

    def _check_options(
        self,
        name: str,
        base_url: str | None,
    ) -> None:
        if base_url is None and not self._key:
            key_names = " or ".join(self._key_names)
            raise UsageError(
                f"the embedder openai:{name} needs a key; set {key_names} or name a server's "
                "base URL"
            )

    @cached_property
    def _client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI, DefaultAioHttpClient

        return AsyncOpenAI(
            # The SDK refuses an empty key, although servers without keys accept any.
            api_key=self._key or "none",
            base_url=self._base_url,
            max_retries=5,
            default_headers={
                **credentials.suppressed_headers(self._key_name, self._key),
                **self._headers,
            },
            # A redirect would send the key to another server.
            http_client=DefaultAioHttpClient(follow_redirects=False),
        )

    async def _request_vectors(self, texts: list[str]) -> Mapping[int, Any]:
        """Request the vector of each index, as the server returns it."""
        reply = await self._client.embeddings.create(model=self._name, input=texts)
        return {item.index: item.embedding for item in reply.data}

    async def _embed_batch(self, texts: Sequence[str]) -> Vectors:
        import openai

        # The API refuses an empty string, not a blank one.
        inputs = [text or " " for text in texts]
        try:
            async with self._limit:
                rows = await self._request_vectors(inputs)
        except openai.APIError as error:
            raise self._translate_error(error) from None

        lengths = {len(row) for row in rows.values()}
        indices = list(range(len(texts)))
        if sorted(rows) != indices or len(lengths) != 1:
            raise BackendError(
                f"{self.identity}: requested {len(texts)} vectors, got {len(rows)} that do not fit"
            )
        vectors = np.array([rows[index] for index in indices], np.float32)
        if not np.isfinite(vectors).all():
            raise BackendError(
                f"{self.identity}: the server returned vectors with values that are not numbers"
            )
        return vectors

    def _translate_error(self, error: APIError) -> BackendDown | BackendError:
        """Decide whether the server is unusable or one call failed, without naming secrets."""
        import openai

        message = self._secrets.quote(str(error))
        match error:
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return BackendDown(
                    f"{self.identity}: the embedding server cannot be used: {message}; "
                    f"check {self._key_name}"
                )
            case openai.APIConnectionError() | openai.NotFoundError():
                return BackendDown(
                    f"{self.identity}: the embedding server cannot be used: {message}"
                )
            case openai.APIStatusError() if 300 <= error.status_code < 400:
                reason = describe_redirect(
                    "the embedding server",
                    error.status_code,
                    error.response.headers,
                    self._secrets,
                )
                return BackendDown(f"{self.identity}: {reason}")
            case _:
                return BackendError(f"{self.identity}: the embedding call failed: {message}")


class VLLMEmbeddings(OpenAIEmbeddings):
    """A pooling model that a vLLM server serves under `name`.

    Uses `/v1/embeddings`; if the server lacks it, because its model gives a vector per token, uses
    `/pooling` and the mean over a text's tokens.  Texts longer than the model's limit are
    truncated.  The key, if the server needs one, is by default in VLLM_API_KEY.
    """

    kind, key = "vllm", credentials.VLLM
    _uses_pooling = False

    def _check_options(
        self,
        name: str,
        base_url: str | None,
    ) -> None:
        if base_url is None:
            raise UsageError(
                f"the embedder vllm:{name} needs its server's address: --embedder-base-url URL"
            )

    async def _request_vectors(self, texts: list[str]) -> Mapping[int, Any]:
        from openai import NotFoundError

        # -1 truncates to the model's own limit; without it vLLM refuses longer texts.
        truncation = {"truncate_prompt_tokens": -1}
        if not self._uses_pooling:
            try:
                reply = await self._client.embeddings.create(
                    model=self._name,
                    input=texts,
                    extra_body=truncation,
                )
                return {item.index: item.embedding for item in reply.data}
            except NotFoundError:
                self._uses_pooling = True

        # vLLM serves `/pooling` beside `/v1`, not below it.
        root = str(self._base_url).rstrip("/").removesuffix("/v1")
        body = {"model": self._name, "input": texts, **truncation}
        pooled: Any = await self._client.post(
            f"{root}/pooling",
            cast_to=object,
            body=body,
        )
        rows = {}
        for item in pooled["data"]:
            rows[item["index"]] = _pool_vectors(item["data"])
        return rows


def _pool_vectors(data: Any) -> Vectors:
    """Reduce the reply for a text, one vector or one for each token, to one vector."""
    vectors = np.array(data, np.float32)
    if vectors.ndim == 1:
        return vectors
    mean: Vectors = vectors.mean(axis=0)
    return mean
