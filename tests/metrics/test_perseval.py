"""EGISES and PerSEval against worked numbers."""

from __future__ import annotations

import numpy as np
import pytest

from personabench.errors import UsageError
from personabench.metrics.perseval import (
    Distances,
    Floats,
    accuracy_drop_penalty,
    degress,
    degress_penalty,
    evaluate,
    measure_distances,
)


def between(*pairs: float) -> Floats:
    """A matrix of distances from those of the pairs 12, 13, 23."""
    n = 2 if len(pairs) == 1 else 3
    matrix = np.zeros((n, n))
    matrix[np.triu_indices(n, 1)] = pairs
    return matrix + matrix.T


def three(errors: Floats | None = None) -> Distances:
    source = np.full(3, 0.8)
    return Distances(between(0.4, 0.6, 0.5), between(0.2, 0.6, 0.25), source, source, errors)


@pytest.mark.parametrize("source", [0.1, 0.5, 0.9])
def test_section_6a_two_users_need_no_source(source: float) -> None:
    document = Distances(
        between(0.4), between(0.2), np.array([source, 0.3]), np.array([0.7, source])
    )
    assert degress(document) == pytest.approx([0.500012, 0.500012], abs=5e-7)


def test_section_6b_three_users() -> None:
    assert degress(three()) == pytest.approx([0.667173, 0.500999, 0.646334], abs=5e-7)
    divergence = evaluate([three()])
    assert (divergence.degress, divergence.egises) == pytest.approx(
        (0.604835, 0.395165), abs=5e-7
    ) and divergence.perseval is None
    assert evaluate([three()], simplified=True).egises == pytest.approx(0.333326, abs=5e-7)


def test_section_6c_perseval() -> None:
    errors = np.array([0.1, 0.2, 0.3])
    assert degress_penalty(errors) == pytest.approx([0.998997, 0.506789, 0.043311], abs=5e-7)
    divergence = evaluate([three(errors)])
    assert divergence.perseval == pytest.approx(
        0.316133, abs=5e-7
    ) and divergence.distance == pytest.approx(0.2)


def test_section_6d_identical_outputs_for_users_who_differ() -> None:
    same = Distances(between(0.4, 0.6, 0.5), np.zeros((3, 3)), np.full(3, 0.8), np.full(3, 0.8))
    assert evaluate([same]).egises > 0.9999


def test_section_6e_outputs_equal_to_references() -> None:
    texts = ["a bright lamp for a desk", "dim and heavy, sent back", "works"]
    divergence = evaluate([measure_distances(texts, texts, "a desk lamp that is bright")])
    assert divergence.egises == pytest.approx(0, abs=1e-9) and divergence.distance == 0


def test_section_6f_adp() -> None:
    assert accuracy_drop_penalty(0.5) == pytest.approx(0.6878, abs=5e-5)


def test_section_6g_one_user_is_refused() -> None:
    with pytest.raises(UsageError, match="at least two"):
        measure_distances(["x"], ["y"], "z")
    with pytest.raises(UsageError, match="two users"):
        evaluate([])


def test_a_zero_distance_to_the_document_and_an_unknown_one() -> None:
    zero = Distances(
        between(0.4, 0.6, 0.5),
        between(0.4, 0.6, 0.5),
        np.zeros(3),
        np.zeros(3),
        np.array([np.nan] * 3),
    )
    assert evaluate([zero]).egises == pytest.approx(0) and evaluate([zero]).distance == 1.0
    with pytest.raises(ValueError, match="simplified"):
        degress(Distances(between(0.4), between(0.2)))
