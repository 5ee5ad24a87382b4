"""PersonaBench's metrics: alternative gold segments, word sets, outdated values."""

from __future__ import annotations

import pytest

from personabench.metrics.private_qa import (
    OverlapScore,
    outdated_recall,
    robustness,
    score_overlap,
    score_retrieval,
    split_words,
)


def test_section_7a_the_best_choice_of_segments_counts() -> None:
    score = score_retrieval([["s1", "s4"], ["s2"]], ["s4", "s9", "s2", "s7", "s8"])
    assert score.recall == 1 and score.ndcg == pytest.approx(0.9197, abs=5e-5)
    single_score = score_retrieval([["s1"], ["s2"]], ["s4", "s9", "s2", "s7", "s8"])
    assert single_score.recall == 0.5 and single_score.ndcg == pytest.approx(0.3066, abs=5e-5)


def test_section_7b_lists_are_joined() -> None:
    score = score_overlap("Jazz and green tea.", ["Green Tea", "Jazz"])
    assert (score.precision, score.recall) == (0.75, 1.0) and score.f1 == pytest.approx(
        0.857, abs=5e-4
    )


def test_section_7_an_object_counts_with_its_keys_and_values() -> None:
    assert score_overlap("Rex", [{"dog": "Rex"}]) == OverlapScore(
        1.0, 0.5, pytest.approx(2 / 3), False
    )
    nested = {"pets": [{"dog": "Rex"}, {"cat": ["Tom", 9]}], "home": {"city": "Oslo"}}
    assert split_words(nested) == {"pets", "dog", "rex", "cat", "tom", "9", "home", "city", "oslo"}
    assert outdated_recall("Rex", {"dog": "Rex"}) == 0.5


def test_section_7c_numbers_are_words() -> None:
    assert score_overlap("7", 7) == OverlapScore(1.0, 1.0, 1.0, False)


def test_section_7d_characters_are_deleted_not_split_at() -> None:
    assert split_words("Hip-Hop!") == {"hiphop"} and split_words(["a b", 3]) == {"a", "b", "3"}


def test_section_7e_a_repeated_segment_counts_once() -> None:
    score = score_retrieval([["s1"]], ["s1", "s1", "s1"])
    assert score.ndcg == 1.0 and score.recall == 1.0
    with pytest.raises(ValueError, match="gold segment"):
        score_retrieval([[]], ["s1"])


def test_outdated_words_emptied_answers_and_robustness() -> None:
    assert (
        outdated_recall("I like green tea", "Green Coffee") == 0.5
        and outdated_recall("x", "?!") is None
    )
    assert (
        score_overlap("東京", "Tokyo") == OverlapScore(0.0, 0.0, 0.0, True)
        and not score_overlap(" ", "Tokyo").emptied
    )
    assert robustness(0.6, 0.4) == pytest.approx(0.8)
