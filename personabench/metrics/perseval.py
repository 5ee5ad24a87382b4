"""EGISES (EMNLP 2023) and PerSEval (arXiv 2407.00453): do outputs differ as references do?

The metrics are functions of distances and call no model.  For one document with users j: u are
their references, m the outputs for them, D the document; s is a distance in [0, 1].  PerSEval
weighs DEGRESS by how near outputs are to their own references; with lexical distances the weight
collapses, so report `DEGRESS` and the mean distance beside it.
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
# Added to denominators, so that quotients stay defined when distances are 0.
_SMALL = 1e-5
_TINY = 1e-7


@dataclass(frozen=True)
class Distances:
    """Distances around one document with n users.

    Attributes:
        references, outputs: between users, shape (n, n); only entries off the diagonal are used.
        references_source, outputs_source: to the document, shape (n,); None if it is unknown, which
            leaves the simplified variant.
        outputs_references: of each output to its own reference, shape (n,); NaN counts as 1.

    Raises:
        UsageError: fewer than two users.
    """

    references: Floats
    outputs: Floats
    references_source: Floats | None = None
    outputs_source: Floats | None = None
    outputs_references: Floats | None = None

    def __post_init__(self) -> None:
        if len(self.references) < 2:
            raise UsageError(
                "EGISES compares users on the same input: it needs references of at least two users"
            )


class Divergence(NamedTuple):
    """Means over documents.

    `perseval` and `distance`, of outputs to their references, are None if the latter are unknown.
    """

    degress: float
    egises: float
    perseval: float | None
    distance: float | None


def degress(document: Distances, simplified: bool = False) -> Floats:
    """DEGRESS of each user, shape (n,), 0 to 1; `simplified` compares plain distances."""
    references = document.references.astype(np.float64)
    outputs = document.outputs.astype(np.float64)

    if not simplified:
        if document.references_source is None or document.outputs_source is None:
            raise ValueError(
                "distances to the document are unknown; only the simplified variant is possible"
            )
        references = _softmax_shares(references, document.references_source) * references
        outputs = _softmax_shares(outputs, document.outputs_source) * outputs

    smaller = np.minimum(references, outputs)
    larger = np.maximum(references, outputs)
    proportion = (smaller + _SMALL) / (larger + _SMALL)

    # A user does not differ from themselves, so the diagonal is left out of each mean.
    off_diagonal = ~np.eye(len(references), dtype=np.bool_)
    rows = zip(proportion, off_diagonal, strict=True)
    return np.array([row[mask].mean() for row, mask in rows])


def degress_penalty(distances: Floats) -> Floats:
    """EDP of each user, shape (n,): the factor on DEGRESS for outputs at these distances.

    `distances` are those of outputs to their own references.
    """
    errors = np.where(np.isnan(distances), 1.0, distances)
    smallest = errors.min()
    spread = errors.mean() - smallest
    relative = (errors - smallest) / (spread + _TINY)

    inconsistency = _sigmoid(relative, 4, 1)
    accuracy_drop = accuracy_drop_penalty(float(smallest))
    return 1 - _sigmoid(inconsistency + accuracy_drop, 3, 1) + _TINY


def accuracy_drop_penalty(distance: float) -> float:
    """ADP: the penalty shared by all users, from the smallest distance of any output."""
    odds = np.array(distance / (1 - distance + _TINY))
    return float(_sigmoid(odds, 4, 1))


def evaluate(
    documents: Sequence[Distances],
    simplified: bool = False,
) -> Divergence:
    """Compute DEGRESS, EGISES (lower is better) and PerSEval (higher is better) over documents.

    Raises:
        UsageError: no document.
    """
    if not documents:
        raise UsageError(
            "no input has references of two users, so differences between users cannot be measured"
        )
    by_document = [degress(document, simplified) for document in documents]
    document_means = [values.mean() for values in by_document]
    mean = float(np.mean(document_means))

    weighted = []
    errors = []
    for document, values in zip(documents, by_document, strict=True):
        if document.outputs_references is None:
            return Divergence(mean, 1 - mean, None, None)
        distances = np.where(
            np.isnan(document.outputs_references),
            1.0,
            document.outputs_references,
        )
        weighted_values = values * degress_penalty(distances)
        weighted.append(float(weighted_values.mean()))
        errors.append(distances)

    return Divergence(
        degress=mean,
        egises=1 - mean,
        perseval=float(np.mean(weighted)),
        distance=float(np.mean(np.concatenate(errors))),
    )


def rouge_distance(text: str, reference: str) -> float:
    """1 - ROUGE-L F of two texts, over the words of every script."""
    return 1 - rouge(text, reference, every_script=True)["rouge-L"]


def measure_distances(
    references: Sequence[str],
    outputs: Sequence[str],
    source: str | None,
    measure: Callable[[str, str], float] = rouge_distance,
) -> Distances:
    """Measure the distances around one document; `source` is its title and body.

    `references` and `outputs` list the users in the same order.
    """

    def measure_pairs(texts: Sequence[str]) -> Floats:
        matrix = np.zeros((len(texts), len(texts)))
        for row, text in enumerate(texts):
            for column in range(row):
                value = measure(text, texts[column])
                matrix[row, column] = value
                matrix[column, row] = value
        return matrix

    def measure_to_source(texts: Sequence[str]) -> Floats | None:
        if source is None:
            return None
        return np.array([measure(text, source) for text in texts])

    pairs = zip(outputs, references, strict=True)
    errors = [measure(output, reference) for output, reference in pairs]
    return Distances(
        references=measure_pairs(references),
        outputs=measure_pairs(outputs),
        references_source=measure_to_source(references),
        outputs_source=measure_to_source(outputs),
        outputs_references=np.array(errors),
    )


def _softmax_shares(between: Floats, to_source: Floats) -> Floats:
    """Softmax over the other users of distances relative to one's own distance to the document.

    A user whose distance to the document is 0 has relative distances of 0.
    """
    scale = np.asarray(to_source, dtype=np.float64)[:, None]
    relative = np.divide(
        between,
        scale,
        out=np.zeros_like(between),
        where=scale != 0,
    )

    # Subtracting the row's maximum changes no share and keeps the exponentials finite.
    maxima = relative.max(axis=1, keepdims=True)
    exponentials = np.exp(relative - maxima)
    np.fill_diagonal(exponentials, 0.0)
    totals = exponentials.sum(axis=1, keepdims=True)
    return np.asarray(exponentials / totals, dtype=np.float64)


def _sigmoid(
    x: Floats,
    a: float,
    b: float,
) -> Floats:
    decay = np.exp(-(10**b) * x)
    return np.asarray(1 / (1 + 10**a * decay), dtype=np.float64)
