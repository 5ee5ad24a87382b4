"""Typed parameters from `--set` texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from personabench.api.params import fill_params, parse_assignments
from personabench.errors import UsageError


@dataclass(frozen=True)
class Knobs:
    k: int = 4
    rate: float = 0.5
    loud: bool = False
    style: Literal["plain", "fancy"] = "plain"
    length: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.k < 0:
            raise ValueError("k counts records and is not negative")


def test_texts_become_the_declared_types() -> None:
    values = {
        "k": "8",
        "rate": "1",
        "loud": "true",
        "style": "fancy",
        "length": "256",
        "note": "a=b, 7",
    }
    assert fill_params(Knobs, values, "method m") == Knobs(8, 1.0, True, "fancy", 256, "a=b, 7")
    assert fill_params(Knobs, {}, "method m") == Knobs()
    assert fill_params(Knobs, {"length": "null", "loud": "0"}, "method m") == Knobs()
    assert isinstance(fill_params(Knobs, {"rate": "1"}, "m").rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k": "many"}, "method m: parameter 'k': Expected `int`, got `str`"),
        ({"k": "2.5"}, "parameter 'k'"),
        ({"loud": "perhaps"}, "parameter 'loud'"),
        (
            {"style": "baroque"},
            "parameter 'style': Invalid enum value 'baroque'; choose plain or fancy",
        ),
        ({"k": "-1"}, "method m: k counts records and is not negative"),
        ({"lenght": "3"}, "method m has no parameter 'lenght'; did you mean length?"),
        ({"zzz": "3"}, "method m has no parameter 'zzz'; it has: k, rate, loud"),
    ],
)
def test_a_wrong_key_or_value_is_named(values: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        fill_params(Knobs, values, "method m")
    assert message in str(caught.value)


def test_an_owner_without_parameters_is_reported() -> None:
    @dataclass(frozen=True)
    class Nothing:
        pass

    with pytest.raises(UsageError, match="it has: none"):
        fill_params(Nothing, {"k": "1"}, "method none")


def test_assignments_are_sorted_by_owner() -> None:
    texts = ["k=1", "rag.k=2", "task.template=chat", "rag.note=x.y=z", "k=3", "note="]
    assert parse_assignments(texts, ["rag", "task"]) == {
        "": {"k": "3", "note": ""},
        "rag": {"k": "2", "note": "x.y=z"},
        "task": {"template": "chat"},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k", "--set k: write key=value"),
        ("bm25.k=2", "--set bm25.k=2: 'bm25' is not part of this run (rag, task)"),
    ],
)
def test_an_assignment_that_cannot_be_placed_is_quoted(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_assignments([text], ["rag", "task"])
    assert message in str(caught.value)
