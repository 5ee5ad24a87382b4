"""Rules for preference pairs: lengths, words, and what other users prefer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from personabench import Record, Sample, Task, Vocabulary, comparison_record
from personabench.testing import trial


class Toy(Task):
    """One question with the options "aa bb cc" (preferred) and "dd"."""

    name = "toy"
    kind = "category"
    offers = ("history", "comparisons", "majority", "pairs")
    words = Vocabulary(person="user", stimulus="message", response="reply")
    records: tuple[Record, ...] = ()

    def load(self, split: str, data: Path | None) -> Iterator[Sample]:
        for number, choices in enumerate((("aa bb cc", "dd"), ("dd", "aa bb cc"))):
            yield Sample(
                str(number),
                user_id="u",
                input="?",
                history=self.records,
                choices=choices,
                references=choices[number : number + 1],
            )


def score(method: str, *records: Record) -> float:
    task = Toy()
    task.records = records
    result = trial(method, task, dataset=task.open("dev", None))
    return float(result.summary.metrics["official"]["accuracy"])


LONGER = comparison_record("p", "long one", ["short"])
SHORTER = comparison_record("q", "tiny", ["a longer one"])
SAME = comparison_record("r", "same", ["four"])


def test_the_length_direction_is_that_of_most_records() -> None:
    assert score("length_direction", LONGER, SAME) == 1.0
    assert score("length_direction", SHORTER, SAME) == 0.0
    # No direction: right in one of two orders.
    assert score("length_direction", LONGER, SHORTER) == 0.5
    assert score("length_direction") == 0.5
    # A record that is no comparison has no direction.
    assert score("length_direction", Record(stimulus="p", response="x" * 99)) == 0.5


def test_naive_bayes_takes_the_mean_log_odds_of_words() -> None:
    record = comparison_record("p", "dd dd", ["aa bb cc"])
    assert score("naive_bayes", record) == 0.0
    assert score("naive_bayes", comparison_record("p", "aa", ["dd"])) == 1.0
    assert score("naive_bayes") == 0.5


def test_a_lengthier_response_has_no_better_odds_for_its_length() -> None:
    # The sum over words would prefer "aa bb cc", three words that are slightly likelier.
    record = comparison_record("p", "dd dd dd dd aa bb cc", ["zz zz zz zz zz zz zz"])
    assert score("naive_bayes", record) == 0.0


def test_without_a_majority_the_first_response_is_chosen() -> None:
    assert score("population_majority") == 0.5
