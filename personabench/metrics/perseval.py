"""Do outputs differ between people as their references do?  EGISES (EMNLP 2023) and PerSEval (arXiv 2407.00453).

No model is asked: distances in, numbers out.  For one document with people j: u are their references, m the outputs
made for them, D the document; s is a distance in [0, 1].  PerSEval weighs DEGRESS by how near outputs are to their own
references; with lexical distances the weight collapses, so `DEGRESS` and the mean distance belong beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from personabench.errors import UsageError
from personabench.metrics.text import rouge

Floats = npt.NDArray[np.float64]
_SMALL = 1e-5
_TINY = 1e-7


@dataclass(frozen=True)
class Distances:
    """Distances around one document with n people.

    Attributes:
        references, outputs: between people, shape (n, n); only entries off the diagonal are read.
        references_source, outputs_source: to the document, shape (n,); None where it is unknown (simplified variant).
        own: of each output to its own reference, shape (n,); not a number counts as 1.

    Raises:
        UsageError: fewer than two people.
    """

    references: Floats
    outputs: Floats
    references_source: Floats | None = None
    outputs_source: Floats | None = None
    own: Floats | None = None

    def __post_init__(self) -> None:
        if len(self.references) < 2:
            raise UsageError(
                "EGISES compares people on the same input: it needs references of at least two of them"
            )


class Divergence(NamedTuple):
    """Means over documents; `perseval` and `distance` (of outputs to their references) are None without `own`."""

    degress: float
    egises: float
    perseval: float | None
    distance: float | None


def degress(found: Distances, simplified: bool = False) -> Floats:
    """DEGRESS of each person, shape (n,), 0 to 1; `simplified` compares plain distances."""
    x, y = found.references.astype(np.float64), found.outputs.astype(np.float64)
    if not simplified:
        if found.references_source is None or found.outputs_source is None:
            raise ValueError(
                "without distances to the document there is only the simplified variant"
            )
        x, y = _shares(x, found.references_source) * x, _shares(y, found.outputs_source) * y
    proportion = (np.minimum(x, y) + _SMALL) / (np.maximum(x, y) + _SMALL)
    others = ~np.eye(len(x), dtype=np.bool_)
    return np.array([row[mask].mean() for row, mask in zip(proportion, others, strict=True)])


def penalty(own: Floats) -> Floats:
    """EDP of each person, shape (n,): how much of DEGRESS is left for outputs at distance `own` of their references."""
    d = np.where(np.isnan(own), 1.0, own)
    acp = _sigmoid((d - d.min()) / (d.mean() - d.min() + _TINY), 4, 1)
    return 1 - _sigmoid(acp + nearest(float(d.min())), 3, 1) + _TINY


def nearest(distance: float) -> float:
    """ADP: the penalty that all share when even the nearest output is at this distance of its reference."""
    return float(_sigmoid(np.array(distance / (1 - distance + _TINY)), 4, 1))


def evaluate(documents: Sequence[Distances], simplified: bool = False) -> Divergence:
    """DEGRESS, EGISES (lower is better) and PerSEval (higher is better) over documents.

    Raises:
        UsageError: no document.
    """
    if not documents:
        raise UsageError(
            "no input has references of two people, so nothing can be said of how outputs differ"
        )
    each = [degress(document, simplified) for document in documents]
    mean = float(np.mean([values.mean() for values in each]))
    owns = [document.own for document in documents]
    if any(own is None for own in owns):
        return Divergence(mean, 1 - mean, None, None)
    known = [np.where(np.isnan(own), 1.0, own) for own in owns if own is not None]
    weighed = [
        float((values * penalty(own)).mean()) for values, own in zip(each, known, strict=True)
    ]
    return Divergence(
        mean, 1 - mean, float(np.mean(weighed)), float(np.mean(np.concatenate(known)))
    )


def distance(one: str, other: str) -> float:
    """1 - ROUGE-L F of two texts, over the words of every script."""
    return 1 - rouge(one, other, every_script=True)["rouge-L"]


def of_texts(
    references: Sequence[str],
    outputs: Sequence[str],
    source: str | None,
    measure: Callable[[str, str], float] = distance,
) -> Distances:
    """The distances of one document's texts, in the same order of people; `source` is its title and body."""

    def square(texts: Sequence[str]) -> Floats:
        found = np.zeros((len(texts), len(texts)))
        for j, one in enumerate(texts):
            for k in range(j):
                found[j, k] = found[k, j] = measure(one, texts[k])
        return found

    def to_source(texts: Sequence[str]) -> Floats | None:
        return None if source is None else np.array([measure(text, source) for text in texts])

    own = np.array([measure(out, ref) for out, ref in zip(outputs, references, strict=True)])
    return Distances(
        square(references), square(outputs), to_source(references), to_source(outputs), own
    )


def _shares(between: Floats, to_source: Floats) -> Floats:
    """Softmax over the others of the distances relative to one's own distance to the document (0 where that is 0)."""
    scale = np.asarray(to_source, dtype=np.float64)[:, None]
    relative = np.divide(between, scale, out=np.zeros_like(between), where=scale != 0)
    exponents = np.exp(relative - relative.max(axis=1, keepdims=True))
    np.fill_diagonal(exponents, 0.0)
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), dtype=np.float64)


def _sigmoid(x: Floats, a: float, b: float) -> Floats:
    return np.asarray(1 / (1 + 10**a * np.exp(-(10**b) * x)), dtype=np.float64)
