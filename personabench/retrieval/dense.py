"""Vectors of texts: several embedders behind one coroutine, and the run's memory of what they returned.

An embedder defines its own geometry, and the dot product of two of its vectors is their similarity: WordLlama's and
OpenAI's vectors have length 1, Contriever's do not, as its authors use them.  Local models run in one thread of their
own each, so the event loop stays free and their own parallelism is not multiplied; those behind a server are in
`served.py`.  `Embedders` embeds a text once per run, however many samples ask for it and however closely together.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import importlib.util
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from personabench.errors import UsageError
from personabench.hashing import digest_files

Vectors = npt.NDArray[np.float32]

_REMEMBERED_BYTES = 256 * 2**20
_CHOICES = "wordllama, sentence-transformers:NAME, openai:NAME or vllm:NAME"


class Embedder(ABC):
    """A model that maps texts to vectors whose dot product is their similarity.

    `identity` names model and weights and is part of every cache key; place and URL are not in it.
    """

    @property
    @abstractmethod
    def identity(self) -> str:
        """Model and revision."""

    @abstractmethod
    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors, shape (n, d), in the order of the texts.

        Raises:
            UsageError: the model cannot be loaded.
            BackendError: the call failed for good.
        """

    async def aclose(self) -> None:
        """Let go of threads and connections."""
        return


class _Local(Embedder):
    """A model in this process, used by one thread of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")

    @abstractmethod
    def _encode(self, texts: list[str]) -> Vectors: ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, list(texts))

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """As `embed`, at once and in the calling thread."""
        return self._encode(list(texts))

    async def aclose(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


class WordLlama(_Local):
    """The 256-dimensional WordLlama vectors that come with the `wordllama` package; needs no network.

    Mean of the token vectors, scaled to length 1; a text without tokens has the zero vector.
    """

    @cached_property
    def _folder(self) -> Path:
        spec = importlib.util.find_spec("wordllama")
        if spec is None or spec.origin is None:
            raise UsageError("the embedder wordllama is not installed; run: pip install wordllama")
        return Path(spec.origin).parent

    @cached_property
    def identity(self) -> str:
        files = [
            self._folder / "weights" / "l2_supercat_256.safetensors",
            self._folder / "tokenizers" / "l2_supercat_tokenizer_config.json",
        ]
        return f"wordllama:l2_supercat_256@{digest_files(files)[:16]}"

    @cached_property
    def _model(self) -> Any:
        # Importing wordllama configures the root logger; a library may not.
        root = logging.getLogger()
        level, handlers = root.level, list(root.handlers)
        package = importlib.import_module("wordllama")
        root.setLevel(level)
        root.handlers[:] = handlers
        return package.WordLlama.load("l2_supercat", cache_dir=self._folder, dim=256, disable_download=True)

    def _encode(self, texts: list[str]) -> Vectors:
        vectors: Vectors = self._model.embed(texts)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.maximum(lengths, np.finfo(np.float32).tiny)
        return vectors


class SentenceTransformers(_Local):
    """A model of the `sentence-transformers` package, with its own pooling, length limit and scaling.

    `facebook/contriever`, LaMP's dense retriever, is loaded with mean pooling over at most 512 tokens.
    """

    def __init__(self, name: str) -> None:
        if importlib.util.find_spec("sentence_transformers") is None:
            raise UsageError(
                f"the embedder sentence-transformers:{name} needs an extra that is not installed; "
                "run: pip install 'personabench-harness[sentence-transformers]'"
            )
        super().__init__()
        self._name = name

    @cached_property
    def _model(self) -> Any:
        package = importlib.import_module("sentence_transformers")
        try:
            return package.SentenceTransformer(self._name)
        except (OSError, ValueError) as error:
            raise UsageError(f"sentence-transformers cannot load {self._name!r}: {error}") from error

    @cached_property
    def identity(self) -> str:
        return self._thread.submit(self._identify).result()

    def _identify(self) -> str:
        folder = Path(self._name)
        if folder.is_dir():
            return f"sentence-transformers:{digest_files(sorted(p for p in folder.rglob('*') if p.is_file()))[:16]}"
        weights = hashlib.sha256()
        for key, tensor in sorted(self._model.state_dict().items()):
            weights.update(key.encode())
            weights.update(tensor.cpu().float().numpy().tobytes())
        return f"sentence-transformers:{self._name}@{weights.hexdigest()[:16]}"

    def _encode(self, texts: list[str]) -> Vectors:
        if not texts:
            return self._encode([""])[:0]
        vectors = self._model.encode(texts, batch_size=64, convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(vectors, np.float32)


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
        keys = [hashlib.blake2b(f"{name}\0{text}".encode(), digest_size=16).digest() for text in texts]
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
                from personabench.retrieval.served import OpenAIEmbeddings, VLLMEmbeddings

                served = OpenAIEmbeddings if kind == "openai" else VLLMEmbeddings
                self._embedders[name] = served(model, self._base_url, self._keys, self._headers)
            else:
                raise UsageError(f"unknown embedder {name!r}; choose {_CHOICES}")
        return self._embedders[name]
