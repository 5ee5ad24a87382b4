"""Embedders: the packaged WordLlama, and a loopback server for the OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from personabench.errors import BackendDown, BackendError, UsageError
from personabench.retrieval.embedder import Embedder
from personabench.retrieval.embedders import Embedders
from personabench.retrieval.local_embedders import WordLlama
from personabench.retrieval.served_embedders import OpenAIEmbeddings


class Server:
    """An embeddings endpoint that returns (length, vowels); `reply` may replace its answer."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.statuses: list[int] = []
        self.vectors: list[list[float]] | None = None
        self.paths: list[str] = []
        self.echo = False
        self.url = ""

    async def pool(self, request: web.Request) -> web.Response:
        """vLLM's /pooling, for a model with a vector for each token: (its length, 1)."""
        self.paths.append(request.path)
        body = await request.json()
        self.requests.append(body)
        data = [
            {
                "index": index,
                "object": "pooling",
                "data": [[float(len(word)), 1.0] for word in text.split() or [" "]],
            }
            for index, text in enumerate(body["input"])
        ]
        return web.json_response({"object": "list", "model": body["model"], "data": data[::-1]})

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.paths.append(request.path)
        self.requests.append(body)
        self.keys.append(request.headers.get("Authorization"))
        if self.echo:
            return web.json_response({"error": {"message": f"no {self.keys[-1]}"}}, status=401)
        if self.statuses:
            return web.json_response({"error": {"message": "no"}}, status=self.statuses.pop(0))
        texts = body["input"]
        vectors = self.vectors or [
            [float(len(text)), float(sum(c in "aeiou" for c in text))] for text in texts
        ]
        data = [
            {"object": "embedding", "index": i, "embedding": vector}
            for i, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return web.json_response(
            {"object": "list", "model": body["model"], "data": data[::-1], "usage": usage}
        )


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_post("/v1/embeddings", server.handle)
    app.router.add_post("/pooling", server.pool)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield server
    await runner.cleanup()


@pytest.fixture
async def embedders(server: Server) -> AsyncIterator[Embedders]:
    embedders = Embedders(server.url)
    yield embedders
    await embedders.aclose()


class Counting(Embedder):
    """Records its calls and takes a moment for each."""

    identity = "counting"

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        await asyncio.sleep(0.01)
        if "bad" in texts:
            raise BackendError("bad text")
        return np.array([[len(text), 1.0, 0.0] for text in texts], np.float32).reshape(
            len(texts), 3
        )


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting()
    monkeypatch.setattr("personabench.retrieval.embedders.WordLlama", lambda: counting)
    return counting


async def test_wordllama_vectors() -> None:
    embedders = Embedders()
    texts = [
        "a film about a dog",
        "a movie with a puppy",
        "quarterly tax report",
        "a film about a dog",
        "",
    ]
    vectors = await embedders.embed(texts, "wordllama")
    assert vectors.shape == (5, 256)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors[:4], axis=1) == pytest.approx(1, abs=1e-5)
    assert not vectors[4].any()
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1
    assert (vectors[0] == vectors[3]).all()
    assert (await embedders.embed([], "wordllama")).shape == (0, 256)
    await embedders.aclose()


async def test_a_wordllama_vector_does_not_depend_on_its_company() -> None:
    model = WordLlama()
    text = "the same few words"
    single = await model.embed([text])
    crowd = await model.embed(["x " * 300, *[f"filler {i}" for i in range(90)], text])
    assert (single[0] == crowd[-1]).all()
    await model.aclose()


async def test_wordllama_leaves_the_root_logger_alone() -> None:
    level, handlers = logging.getLogger().level, list(logging.getLogger().handlers)
    model = WordLlama()
    await model.embed(["a"])
    await model.aclose()
    assert (logging.getLogger().level, logging.getLogger().handlers) == (level, handlers)


def test_identity_names_the_weights() -> None:
    identity = Embedders().identity("wordllama")
    assert identity.startswith("wordllama:l2_supercat_256@")
    assert identity == Embedders().identity("wordllama")
    assert Embedders("http://127.0.0.1:9/v1").identity("openai:small") == "openai:small"


async def test_an_unknown_embedder_is_refused_with_the_choices() -> None:
    for name in ("wordlama", "openai:", "sentence-transformers", "wordllama:x"):
        with pytest.raises(
            UsageError, match=r"wordllama, sentence-transformers:NAME, openai:NAME or vllm:NAME"
        ):
            await Embedders("http://127.0.0.1:9/v1").embed(["a"], name)


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is not None, reason="the extra is installed"
)
async def test_a_missing_extra_is_named() -> None:
    with pytest.raises(UsageError, match=r"personabench-harness\[sentence-transformers\]"):
        await Embedders().embed(["a"], "sentence-transformers:all-MiniLM-L6-v2")


async def test_a_text_is_embedded_once(counting: Counting) -> None:
    embedders = Embedders()
    first = await embedders.embed(["a", "bb", "a"], "wordllama")
    assert first[:, 0].tolist() == [1, 2, 1]
    second = await embedders.embed(["ccc", "bb", "dddd"], "wordllama")
    assert second[:, 0].tolist() == [3, 2, 4]
    assert counting.calls == [["a", "bb"], ["ccc", "dddd"]]


async def test_texts_under_way_are_shared(counting: Counting) -> None:
    embedders = Embedders()
    results = await asyncio.gather(
        *(embedders.embed(["a", "b" * n], "wordllama") for n in (2, 3, 2))
    )
    assert [matrix[:, 0].tolist() for matrix in results] == [[1, 2], [1, 3], [1, 2]]
    assert counting.calls == [["a", "bb"], ["bbb"]]


async def test_a_cancelled_question_does_not_take_others_with_it(counting: Counting) -> None:
    embedders = Embedders()
    first = asyncio.create_task(embedders.embed(["a"], "wordllama"))
    second = asyncio.create_task(embedders.embed(["a"], "wordllama"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second)[0, 0] == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_failure_is_not_remembered(counting: Counting) -> None:
    embedders = Embedders()
    for _ in range(2):
        with pytest.raises(BackendError, match="bad text"):
            await embedders.embed(["bad"], "wordllama")
    assert len(counting.calls) == 2


async def test_memory_is_bounded(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("personabench.retrieval.embedders._CACHE_BYTES", 2 * 3 * 4)
    embedders = Embedders()
    assert len(await embedders.embed(["a", "bb", "ccc"], "wordllama")) == 3
    await embedders.embed(["ccc", "bb", "a"], "wordllama")
    assert counting.calls == [["a", "bb", "ccc"], ["a"]]


async def test_openai_embeddings_come_in_order_and_in_batches(
    server: Server, embedders: Embedders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    texts = [f"text {'o' * i}" for i in range(600)]
    vectors = await embedders.embed(texts, "openai:small")
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[len(text), len(text) - 4] for text in texts]
    assert sorted(len(request["input"]) for request in server.requests) == [88, 256, 256]
    assert {request["model"] for request in server.requests} == {"small"}
    assert set(server.keys) == {"Bearer secret"}


async def test_openai_empty_text_is_sent_blank(server: Server, embedders: Embedders) -> None:
    assert (await embedders.embed([], "openai:small")).shape == (0, 0)
    assert (await embedders.embed(["", "a"], "openai:small")).tolist() == [[1, 0], [1, 1]]
    assert server.requests[0]["input"] == [" ", "a"]
    assert (await embedders.embed([], "openai:small")).shape == (0, 2)


async def test_openai_busy_server_is_retried(server: Server, embedders: Embedders) -> None:
    server.statuses = [429]
    assert (await embedders.embed(["ab"], "openai:small")).tolist() == [[2, 1]]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "error"), [(400, BackendError), (401, BackendDown), (404, BackendDown)]
)
async def test_openai_refusals(
    server: Server, embedders: Embedders, status: int, error: type[Exception]
) -> None:
    server.statuses = [status]
    with pytest.raises(error, match="openai:small"):
        await embedders.embed(["a"], "openai:small")
    assert len(server.requests) == 1


@pytest.mark.parametrize("vectors", [[[1.0]], [[1.0], [1.0, 2.0]], [[1.0], [2.0], [3.0]]])
async def test_openai_vectors_that_do_not_fit(
    server: Server, embedders: Embedders, vectors: list[list[float]]
) -> None:
    server.vectors = vectors
    with pytest.raises(BackendError, match="requested 2 vectors"):
        await embedders.embed(["a", "b"], "openai:small")


def test_openai_without_key_or_server_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match="OPENAI_API_KEY"):
        OpenAIEmbeddings("small")


async def test_vllm_embeddings(
    server: Server, embedders: Embedders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret-of-vllm")
    assert (await embedders.embed(["ab", ""], "vllm:small")).tolist() == [[2, 1], [1, 0]]
    assert (
        server.requests[0]["truncate_prompt_tokens"] == -1
        and server.requests[0]["model"] == "small"
    )
    assert (
        server.keys == ["Bearer secret-of-vllm"]
        and embedders.identity("vllm:small") == "vllm:small"
    )
    server.statuses = [400]
    with pytest.raises(BackendError, match="vllm:small") as caught:
        await embedders.embed(["b"], "vllm:small")
    assert not isinstance(caught.value, BackendDown)


async def test_vllm_model_with_a_vector_per_token_is_pooled(
    server: Server, embedders: Embedders
) -> None:
    server.statuses = [404]
    assert (await embedders.embed(["ab abcd", "a"], "vllm:tokens")).tolist() == [[3, 1], [1, 1]]
    assert (await embedders.embed(["abc"], "vllm:tokens")).tolist() == [[3, 1]]
    assert server.paths == ["/v1/embeddings", "/pooling", "/pooling"]


async def test_vllm_embedder_wants_an_address() -> None:
    with pytest.raises(UsageError, match="--embedder-base-url URL"):
        await Embedders().embed(["a"], "vllm:small")


async def test_a_key_that_a_server_repeats_is_not_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-marker-271828")
    server.echo = True
    embedders = Embedders(server.url)
    with pytest.raises(BackendDown, match=r"no Bearer \*\*\*") as caught:
        await embedders.embed(["a"], "openai:small")
    assert "271828" not in str(caught.value)
    await embedders.aclose()


async def test_a_limit_of_tokens_is_set_and_part_of_the_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Model:
        max_seq_length = 384

        def __init__(self, name: str) -> None:
            assert name == str(tmp_path)

        def encode(self, texts: list[str], **_: Any) -> list[list[float]]:
            return [[float(self.max_seq_length), 1.0] for _ in texts]

    package = ModuleType("sentence_transformers")
    package.SentenceTransformer = Model  # type: ignore[attr-defined]
    package.__spec__ = ModuleSpec("sentence_transformers", None)
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    (tmp_path / "weights").write_text("w")
    embedders = Embedders()
    plain, limited = (f"sentence-transformers:{tmp_path}{suffix}" for suffix in ("", "@512"))
    assert (await embedders.embed(["a"], plain))[0, 0] == 384
    assert (await embedders.embed(["a"], limited))[0, 0] == 512
    assert embedders.identity(limited) == f"{embedders.identity(plain)}@512"
