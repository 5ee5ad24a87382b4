"""EGISES and PerSEval of answers: over the stimuli that several users responded to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from personabench.api.task import Task
from personabench.metrics.perseval import Divergence, evaluate, measure_distances
from personabench.types import Sample


@dataclass(frozen=True)
class SharedStimuli:
    """How far answers differ between users, beside how far the references do.

    Attributes:
        scores: DEGRESS, EGISES, PerSEval and the mean distance to the references.
        stimuli, samples: the number of shared stimuli, and of the samples about them.
        simplified: distances to the stimulus itself are unknown, so plain distances are compared.
    """

    scores: Divergence
    stimuli: int
    samples: int
    simplified: bool


def measure_divergence(
    task: Task,
    samples: Mapping[str, Sample],
    answers: Mapping[str, str | None],
) -> SharedStimuli | str:
    """Compare the answers of users who share an item or, without items, a stimulus.

    The distance is 1 - ROUGE-L. Of several answers to one user about one stimulus, the first
    counts; unparsed answers are left out.

    Args:
        answers: parsed answers by sample id.

    Returns:
        Why they cannot be compared, in words, if the task's responses are not free text, or no two
        users share a stimulus.
    """
    if task.kind != "text":
        return f"{task.name} has no free text, but {task.kind}"

    # By item or stimulus, then by user.
    groups: dict[str, dict[str, Sample]] = {}
    for sample_id, answer in answers.items():
        sample = samples[sample_id]
        key = sample.item or sample.stimulus
        if key is not None and answer is not None and sample.references:
            groups.setdefault(key, {}).setdefault(sample.user_id, sample)

    shared = [list(users.values()) for users in groups.values() if len(users) > 1]
    if not shared:
        return "no two users of these answers respond to the same stimulus or item"

    documents = [
        measure_distances(
            [sample.references[0] for sample in group],
            [answers[sample.id] or "" for sample in group],
            group[0].stimulus,
        )
        for group in shared
    ]
    simplified = any(document.references_source is None for document in documents)
    return SharedStimuli(
        scores=evaluate(documents, simplified=simplified),
        stimuli=len(shared),
        samples=sum(len(group) for group in shared),
        simplified=simplified,
    )
