"""Create embedders by name and cache their vectors."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from personabench.errors import UsageError
from personabench.retrieval.embedder import Embedder
from personabench.retrieval.local_embedders import SentenceTransformers, WordLlama
from personabench.retrieval.vector_store import VectorStore

if TYPE_CHECKING:
    from personabench.retrieval.embedder import Vectors

# Enough for 260,000 vectors of 256 dimensions: a run's records are rarely embedded twice.
_CACHE_BYTES = 256 * 2**20

_CHOICES = "wordllama, sentence-transformers:NAME, openai:NAME or vllm:NAME"


class Embedders:
    """The embedders of a run, created on first use, and the vectors they have returned.

    A text is embedded once, however many samples need it and however closely together.  At most
    256 MiB of vectors are cached; the oldest are dropped first.

    Args:
        base_url: the server of `openai:NAME` (None: OpenAI's own) and of `vllm:NAME`.
        keys: environment variables that may hold that server's key; None for the embedder's own.
        headers: additional headers for that server; their values are secrets.
        store: vectors of earlier runs, to which those of this one are added.
    """

    def __init__(
        self,
        base_url: str | None = None,
        keys: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
        store: VectorStore | None = None,
    ) -> None:
        self._store = store
        self._base_url = base_url
        self._keys = keys
        self._headers = headers or {}
        self._embedders: dict[str, Embedder] = {}
        self._vectors: dict[bytes, Vectors] = {}
        self._cached_bytes = 0
        self._pending: dict[bytes, asyncio.Task[dict[bytes, Vectors]]] = {}

    def identity(self, name: str) -> str:
        """Model and revision of an embedder, for cache keys; may load the model.

        Raises:
            UsageError: unknown or unusable embedder.
        """
        return self._get_embedder(name).identity

    def identities(self) -> dict[str, str]:
        """Identities of the embedders used so far, by name."""
        return {name: embedder.identity for name, embedder in self._embedders.items()}

    async def embed(
        self,
        texts: Sequence[str],
        name: str,
    ) -> Vectors:
        """Embed texts: vectors of shape (n, d), in the order of the texts.

        Cached vectors are not computed again.

        Raises:
            UsageError: unknown or unusable embedder.
            BackendError: the call failed for good.
        """
        embedder = self._get_embedder(name)
        if not texts:
            return await embedder.embed([])

        keys = [_hash_text(name, text) for text in texts]
        # Taken from the cache at once: it may drop them while other texts are awaited.
        vectors = {}
        batches = set()
        missing = {}
        for key, text in zip(keys, texts, strict=True):
            if key in self._vectors:
                vectors[key] = self._vectors[key]
            elif key in self._pending:
                batches.add(self._pending[key])
            else:
                missing[key] = text
        if missing:
            batches.add(self._start_batch(embedder, missing))

        # Shielded, since other samples may wait for the same batch if this one is cancelled.
        for batch_vectors in await asyncio.gather(*map(asyncio.shield, batches)):
            vectors.update(batch_vectors)
        return _stack([vectors[key] for key in keys])

    async def aclose(self) -> None:
        """Close every embedder."""
        for embedder in self._embedders.values():
            await embedder.aclose()
        self._embedders.clear()
        if self._store is not None:
            self._store.close()

    def _start_batch(
        self,
        embedder: Embedder,
        texts: dict[bytes, str],
    ) -> asyncio.Task[dict[bytes, Vectors]]:
        """Start to embed texts; until they are done, other samples wait for this batch."""

        def remove_pending(_: asyncio.Task[dict[bytes, Vectors]]) -> None:
            for key in texts:
                del self._pending[key]

        batch = asyncio.create_task(self._compute(embedder, texts))
        self._pending.update(dict.fromkeys(texts, batch))
        batch.add_done_callback(remove_pending)
        return batch

    async def _compute(
        self,
        embedder: Embedder,
        texts: dict[bytes, str],
    ) -> dict[bytes, Vectors]:
        stored = self._store.get(embedder.identity, list(texts.values())) if self._store else {}
        missing = [text for text in texts.values() if text not in stored]
        if missing:
            matrix = await embedder.embed(missing)
            # Copies: a row that is a view would keep the whole matrix in memory.
            computed = {text: row.copy() for text, row in zip(missing, matrix, strict=True)}
            if self._store is not None:
                self._store.put(embedder.identity, computed)
            stored |= computed

        vectors = {key: stored[text] for key, text in texts.items()}
        self._vectors.update(vectors)
        self._cached_bytes += sum(vector.nbytes for vector in vectors.values())

        while self._cached_bytes > _CACHE_BYTES:
            oldest = next(iter(self._vectors))
            self._cached_bytes -= self._vectors.pop(oldest).nbytes
        return vectors

    def _get_embedder(self, name: str) -> Embedder:
        if name not in self._embedders:
            self._embedders[name] = self._create_embedder(name)
        return self._embedders[name]

    def _create_embedder(self, name: str) -> Embedder:
        kind, _, model = name.partition(":")
        if name == "wordllama":
            return WordLlama()
        if kind == "sentence-transformers" and model:
            return SentenceTransformers(model)
        if kind not in ("openai", "vllm") or not model:
            raise UsageError(f"unknown embedder {name!r}; choose {_CHOICES}")

        # Imported on use: the openai SDK takes longer to import than most commands run.
        from personabench.retrieval.served_embedders import OpenAIEmbeddings, VLLMEmbeddings

        embedder_class = OpenAIEmbeddings if kind == "openai" else VLLMEmbeddings
        return embedder_class(model, self._base_url, self._keys, self._headers)


def _stack(vectors: Sequence[Vectors]) -> Vectors:
    # Imported on use, as everywhere on the way to the first call: most runs embed nothing.
    import numpy as np

    return np.stack(vectors)


def _hash_text(name: str, text: str) -> bytes:
    content = f"{name}\0{text}".encode()
    return hashlib.blake2b(content, digest_size=16).digest()
