"""Stored vectors: a text is embedded once by an embedder, and a bad file costs time only."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from personabench.retrieval.embedders import Embedders
from personabench.retrieval.local_embedders import WordLlama
from personabench.retrieval.vector_store import VectorStore
from personabench.run.options import Options
from personabench.run.runner import run

TEXTS = ["a short text", "another one", "日本語"]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that WordLlama has embedded."""
    texts: list[str] = []
    encode = WordLlama._encode  # noqa: SLF001

    def record(self: WordLlama, batch: list[str]) -> np.ndarray[Any, Any]:
        texts.extend(batch)
        return encode(self, batch)

    monkeypatch.setattr(WordLlama, "_encode", record)
    return texts


async def embed(
    path: Path, texts: Sequence[str] = TEXTS, *, reads: bool = True
) -> np.ndarray[Any, Any]:
    embedders = Embedders(store=VectorStore(path, reads=reads))
    vectors = await embedders.embed(texts, "wordllama")
    await embedders.aclose()
    return vectors


async def test_a_text_is_embedded_once(tmp_path: Path, encoded: list[str]) -> None:
    path = tmp_path / "results" / "vectors.sqlite"
    first = await embed(path)
    assert encoded == TEXTS
    mixed = await embed(path, [TEXTS[2], "new", TEXTS[0]])
    assert encoded == [*TEXTS, "new"]
    np.testing.assert_array_equal(mixed[[2, 0]], first[[0, 2]])
    assert mixed.dtype == np.float32

    await embed(path, reads=False)
    assert encoded == [*TEXTS, "new", *TEXTS]


async def test_vectors_of_two_embedders_are_kept_apart(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "vectors.sqlite")
    store.put("one", {"text": np.ones(2, np.float32)})
    store.put("two", {"text": np.zeros(3, np.float32)})
    assert store.get("one", ["text"])["text"].tolist() == [1, 1]
    assert store.get("two", ["text"])["text"].tolist() == [0, 0, 0]
    assert store.get("three", ["text"]) == {}
    store.close()


async def test_a_file_of_the_earlier_layout_is_used(tmp_path: Path, encoded: list[str]) -> None:
    path = tmp_path / "vectors.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE vectors(key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
    first = await embed(path)
    np.testing.assert_array_equal(await embed(path), first)
    assert encoded == TEXTS


async def test_a_vector_takes_little_more_than_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    store = VectorStore(path)
    store.put("one", {str(number): np.ones(256, np.float32) for number in range(1000)})
    store.close()
    assert path.stat().st_size < 1.5 * 1000 * 256 * 4


async def test_a_damaged_vector_is_embedded_again(tmp_path: Path, encoded: list[str]) -> None:
    path = tmp_path / "vectors.sqlite"
    first = await embed(path)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE vectors SET vector = substr(vector, 1, 40)")
    np.testing.assert_array_equal(await embed(path), first)
    assert encoded == TEXTS * 2
    await embed(path)
    assert encoded == TEXTS * 2


async def test_a_file_that_is_no_store_costs_time_only(
    tmp_path: Path, encoded: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "vectors.sqlite"
    path.write_bytes(b"not a database, but long enough to be read as the head of one" * 20)
    content = path.read_bytes()
    assert (await embed(path)).shape == (3, 256) and encoded == TEXTS
    assert path.read_bytes() == content and "is not used" in caplog.text


async def test_a_second_run_embeds_no_record_again(tmp_path: Path, encoded: list[str]) -> None:
    async def predict(k: int, **changes: object) -> None:
        options = Options(
            methods=["rag"],
            tasks=["lamp4"],
            assignments=["rag.retriever=dense", f"rag.k={k}"],
            backend="scripted",
            limit=2,
            results=tmp_path,
            **changes,  # type: ignore[arg-type]
        )
        (outcome,) = await run(options)
        assert outcome.summary.status == "complete"

    await predict(2)
    first = list(encoded)
    assert len(first) == len(set(first)) > 10
    await predict(3)
    assert encoded == first
    await predict(4, cache="off")
    assert len(encoded) == 2 * len(first)
