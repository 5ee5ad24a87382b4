"""Create embedders by name and remember their vectors."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from personabench.errors import UsageError
from personabench.retrieval.embedder import Embedder, Vectors
from personabench.retrieval.local_embedders import SentenceTransformers, WordLlama

_REMEMBERED_BYTES = 256 * 2**20


_CHOICES = "wordllama, sentence-transformers:NAME, openai:NAME or vllm:NAME"


class Embedders:
    """The embedders of a run, made when first named, and the vectors they have returned.

    At most 256 MiB of vectors are remembered; the oldest go first.

    Args:
        base_url: the server of `openai:NAME` (None: OpenAI's own) and of `vllm:NAME`.
        keys: environment variables that may hold that server's key; None for the embedder's own.
        headers: sent to that server along; their values are secrets.
    """

    def __init__(
        self,
        base_url: str | None = None,
        keys: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._base_url = base_url
        self._keys = keys
        self._headers = headers or {}
        self._embedders: dict[str, Embedder] = {}
        self._vectors: dict[bytes, Vectors] = {}
        self._bytes = 0
        self._pending: dict[bytes, asyncio.Task[dict[bytes, Vectors]]] = {}

    def identity(self, name: str) -> str:
        """Model and revision of an embedder, for cache keys; may load the model.

        Raises:
            UsageError: unknown or unusable embedder.
        """
        return self._embedder(name).identity

    def used(self) -> dict[str, str]:
        """Identities of the embedders used so far, by name."""
        return {name: embedder.identity for name, embedder in self._embedders.items()}

    async def embed(self, texts: Sequence[str], name: str) -> Vectors:
        """Vectors, shape (n, d), in the order of the texts; those seen before are not computed again.

        Raises:
            UsageError: unknown or unusable embedder.
            BackendError: the call failed for good.
        """
        embedder = self._embedder(name)
        if not texts:
            return await embedder.embed([])
        keys = [
            hashlib.blake2b(f"{name}\0{text}".encode(), digest_size=16).digest() for text in texts
        ]
        found: dict[bytes, Vectors] = {}
        wanted: dict[bytes, str] = {}
        for key, text in zip(keys, texts, strict=True):
            if key in self._vectors:
                found[key] = self._vectors[key]
            elif key not in self._pending:
                wanted[key] = text
        batches = {self._pending[key] for key in keys if key in self._pending}
        if wanted:
            batch = asyncio.create_task(self._compute(embedder, wanted))
            self._pending.update(dict.fromkeys(wanted, batch))
            batch.add_done_callback(lambda _: [self._pending.pop(key) for key in wanted])
            batches.add(batch)
        for vectors in await asyncio.gather(*map(asyncio.shield, batches)):
            found.update(vectors)
        return np.stack([found[key] for key in keys])

    async def aclose(self) -> None:
        """Close every embedder."""
        for embedder in self._embedders.values():
            await embedder.aclose()
        self._embedders.clear()

    async def _compute(self, embedder: Embedder, wanted: dict[bytes, str]) -> dict[bytes, Vectors]:
        matrix = await embedder.embed(list(wanted.values()))
        vectors = {key: row.copy() for key, row in zip(wanted, matrix, strict=True)}
        self._vectors.update(vectors)
        self._bytes += matrix.nbytes
        while self._bytes > _REMEMBERED_BYTES:
            self._bytes -= self._vectors.pop(next(iter(self._vectors))).nbytes
        return vectors

    def _embedder(self, name: str) -> Embedder:
        if name not in self._embedders:
            kind, _, model = name.partition(":")
            if name == "wordllama":
                self._embedders[name] = WordLlama()
            elif kind == "sentence-transformers" and model:
                self._embedders[name] = SentenceTransformers(model)
            elif kind in ("openai", "vllm") and model:
                from personabench.retrieval.served_embedders import OpenAIEmbeddings, VLLMEmbeddings

                served = OpenAIEmbeddings if kind == "openai" else VLLMEmbeddings
                self._embedders[name] = served(model, self._base_url, self._keys, self._headers)
            else:
                raise UsageError(f"unknown embedder {name!r}; choose {_CHOICES}")
        return self._embedders[name]
