"""PersonaFeedback's metrics: both orders, an always-A model, and personas by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from personabench.errors import DataError
from personabench.metrics.judges.personafeedback import (
    ChoicePair,
    read_choice,
    read_persona,
    score_choices,
)


def test_section_4a_strict_mean_and_flip() -> None:
    scores = score_choices(
        [ChoicePair("A", "B"), ChoicePair("A", "A"), ChoicePair("B", "B"), ChoicePair("B", "A")]
    )
    assert (scores.strict, scores.mean, scores.flip) == (0.25, 0.5, 0.5)


def test_section_4b_a_model_that_always_says_a() -> None:
    scores = score_choices([ChoicePair("A", "A")] * 3)
    assert (scores.mean, scores.first, scores.strict, scores.flip) == (0.5, 1.0, 0.0, 1.0)


def test_section_4c_user_ids_count_lines_from_one(tmp_path: Path) -> None:
    path = tmp_path / "personas.jsonl"
    path.write_text('{"Name": "Ada"}\n{"Name": "Bo"}\n')
    assert read_persona(path, 1)["Name"] == "Ada" and read_persona(path, 2)["Name"] == "Bo"
    with pytest.raises(DataError, match="no line 3"):
        read_persona(path, 3)


def test_unparsed_replies_are_wrong_and_counted() -> None:
    scores = score_choices([ChoicePair(None, "B"), ChoicePair(None, None)])
    assert (scores.strict, scores.mean, scores.unparsed, scores.flip, scores.first) == (
        0.0,
        0.25,
        3,
        0.0,
        0.0,
    )
    assert score_choices([ChoicePair(None, None)]).first is None
    with pytest.raises(ValueError, match="no items"):
        score_choices([])


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        (" (a). ", "A"),
        ("<think>A</think>**B**", "B"),
        ("Answer: A at first. Answer: **B**", "B"),
        ("A or B", None),
        ("Answer: A or B", None),
        ("I prefer the second.", None),
        ("", None),
    ],
)
def test_letters(reply: str, letter: str | None) -> None:
    assert read_choice(reply) == letter
