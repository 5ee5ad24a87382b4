"""Vector arithmetic shared by the built-in methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def compute_cosines(vectors: npt.NDArray[Any]) -> Floats:
    """Cosine of the first vector with every other one, shape (n - 1,); 0 if a vector is zero."""
    # float64, and sums instead of `@`: BLAS sums in an order of its own, and ties must fall the
    # same everywhere.
    exact = vectors.astype(np.float64)
    lengths = np.sqrt((exact**2).sum(axis=1))
    products: Floats = (exact[1:] * exact[0]).sum(axis=1)
    scale = lengths[1:] * lengths[0]
    similarities: Floats = np.divide(
        products,
        scale,
        out=np.zeros_like(products),
        where=scale > 0,
    )
    return similarities
