"""The `Embedder` interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]


class Embedder(ABC):
    """A model that maps texts to vectors whose dot product is their similarity.

    `identity` names model and weights and is part of every cache key; folder and URL are not in it.
    """

    @property
    @abstractmethod
    def identity(self) -> str:
        """Model and revision."""

    @abstractmethod
    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts: vectors of shape (n, d), in the order of the texts.

        Raises:
            UsageError: the model cannot be loaded.
            BackendError: the call failed for good.
        """

    async def aclose(self) -> None:
        """Release threads and connections."""
        return
