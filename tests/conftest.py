"""What tests of several folders need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nltk
import pytest
from edit_fixtures import Markers

from personabench.retrieval.embedders import Embedders


@pytest.fixture
def sentence_data(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """NLTK sentence data that knows no abbreviation: enough for the texts of tests, and nothing to
    download."""
    root = tmp_path_factory.mktemp("nltk")
    folder = root / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (folder / name).write_text("")
    monkeypatch.setenv("NLTK_DATA", str(root))
    monkeypatch.setattr(nltk.data, "path", [str(root)])
    forget = nltk.tokenize._get_punkt_tokenizer.cache_clear  # noqa: SLF001  (NLTK has no public way)
    forget()
    yield root
    forget()


@pytest.fixture
def quick_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors by marker word instead of an embedder's."""
    monkeypatch.setattr(Embedders, "embed", lambda self, texts, name: Markers().embed(texts, name))
