"""What tests of several folders need."""

from __future__ import annotations

import pytest
from edit_fixtures import Markers

from personabench.retrieval.embedders import Embedders


@pytest.fixture
def quick_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors by marker word instead of an embedder's."""
    monkeypatch.setattr(Embedders, "embed", lambda self, texts, name: Markers().embed(texts, name))
