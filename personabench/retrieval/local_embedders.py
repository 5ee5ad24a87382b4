"""Embedders that run in this process: WordLlama and sentence-transformers.

An embedder defines its own geometry, and the dot product of two of its vectors is their similarity:
WordLlama's vectors have length 1, Contriever's do not, as its authors use them.  Each local model
runs in one thread of its own, so the event loop stays free and the model's own parallelism is not
multiplied.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import importlib.util
import logging
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personabench.errors import UsageError
from personabench.hashing import digest_files
from personabench.retrieval.embedder import Embedder

if TYPE_CHECKING:
    from personabench.retrieval.embedder import Vectors


class _LocalEmbedder(Embedder):
    """A model in this process with one thread of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")

    @abstractmethod
    def _encode(self, texts: list[str]) -> Vectors: ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._thread,
            self._encode,
            list(texts),
        )

    def embed_now(self, texts: Sequence[str]) -> Vectors:
        """Embed texts in the calling thread, for callers without an event loop."""
        return self._encode(list(texts))

    async def aclose(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


class WordLlama(_LocalEmbedder):
    """The 256-dimensional WordLlama vectors from the `wordllama` package; needs no network.

    A vector is the mean of the token vectors, scaled to length 1; a text without tokens has the
    zero vector.
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
        level = root.level
        handlers = list(root.handlers)
        package = importlib.import_module("wordllama")
        root.setLevel(level)
        root.handlers[:] = handlers
        return package.WordLlama.load(
            "l2_supercat",
            cache_dir=self._folder,
            dim=256,
            disable_download=True,
        )

    def _encode(self, texts: list[str]) -> Vectors:
        import numpy as np

        vectors: Vectors = self._model.embed(texts)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        # The smallest normal number leaves every real length as it is and zero vectors at zero.
        vectors /= np.maximum(lengths, np.finfo(np.float32).tiny)
        return vectors


class SentenceTransformers(_LocalEmbedder):
    """A model of the `sentence-transformers` package with its own pooling, limit and scaling.

    `facebook/contriever`, LaMP's dense retriever, is loaded with mean pooling over at most 512
    tokens.

    Args:
        name: a model of the hub or a folder; `NAME@512` reads at most 512 tokens of a text instead
            of the model's own limit.
    """

    def __init__(self, name: str) -> None:
        if importlib.util.find_spec("sentence_transformers") is None:
            raise UsageError(
                f"the embedder sentence-transformers:{name} needs an extra that is not installed; "
                "run: pip install 'personabench-harness[sentence-transformers]'"
            )
        super().__init__()
        model_name, _, limit = name.rpartition("@")
        has_limit = bool(model_name) and limit.isdecimal()
        self._name = model_name if has_limit else name
        self._limit = int(limit) if has_limit else None

    @cached_property
    def _model(self) -> Any:
        package = importlib.import_module("sentence_transformers")
        try:
            model = package.SentenceTransformer(self._name)
            if self._limit is not None:
                model.max_seq_length = self._limit
            return model
        except (OSError, ValueError) as error:
            raise UsageError(
                f"sentence-transformers cannot load {self._name!r}: {error}"
            ) from error

    @cached_property
    def identity(self) -> str:
        # In the model's own thread, which may be loading it for `embed` at this moment.
        return self._thread.submit(self._compute_identity).result()

    def _compute_identity(self) -> str:
        limit = "" if self._limit is None else f"@{self._limit}"
        return f"{self._identify_weights()}{limit}"

    def _identify_weights(self) -> str:
        folder = Path(self._name)
        if folder.is_dir():
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            return f"sentence-transformers:{digest_files(files)[:16]}"

        # A name on the hub may get new weights at any time, so these are hashed too.
        weights = hashlib.sha256()
        for key, tensor in sorted(self._model.state_dict().items()):
            weights.update(key.encode())
            weights.update(tensor.cpu().float().numpy().tobytes())
        return f"sentence-transformers:{self._name}@{weights.hexdigest()[:16]}"

    def _encode(self, texts: list[str]) -> Vectors:
        import numpy as np

        # Without texts the model returns no dimension, so one text is embedded for its shape.
        if not texts:
            return self._encode([""])[:0]
        vectors = self._model.encode(
            texts,
            batch_size=64,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, np.float32)
