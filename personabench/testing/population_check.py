"""Find gold answers in the histories that methods which compare users get to see."""

from __future__ import annotations

from collections.abc import Iterable

from personabench.api.dataset import Dataset
from personabench.types import Record, Sample, normalized


def find_answered_samples(dataset: Dataset) -> list[str]:
    """Return the ids of samples that the population's history of their user answers.

    A population shows each user's longest history.  If later histories contain the answers to
    earlier questions, a method could look them up there.
    """
    answers = {user.id: _answers(user.history) for user in dataset.population()}
    return [
        sample.id
        for sample in dataset.samples()
        if _is_answered(sample, answers.get(sample.user_id, frozenset()))
    ]


def _answers(history: Iterable[Record]) -> frozenset[tuple[str, str]]:
    return frozenset(
        (normalized(record.stimulus), record.response) for record in history if record.stimulus
    )


def _is_answered(sample: Sample, shown: frozenset[tuple[str, str]]) -> bool:
    if not sample.stimulus:
        return False

    # What the sample itself shows is no secret of the population.
    hidden = shown - _answers(sample.history)
    stimulus = normalized(sample.stimulus)
    return any((stimulus, reference) in hidden for reference in sample.references)
