"""Pair the answers of two runs to the same questions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from personabench.api.dataset import Dataset
from personabench.api.registry import load_recorded
from personabench.api.task import Task
from personabench.errors import UsageError
from personabench.hashing import digest
from personabench.results.locate import explain_missing_data, find_dataset
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.types import Prediction, Sample, to_json

# Longest value in a message about runs that differ.
_VALUE_LENGTH = 40


class AnswerPair(msgspec.Struct, frozen=True):
    """Two answers to one sample."""

    sample: Sample
    a: str
    b: str

    @property
    def key(self) -> str:
        """The hash of the two answers."""
        return digest([self.a, self.b])[:16]


def open_data(a: RunFolder, b: RunFolder) -> tuple[Task, Dataset]:
    """Open the task of two runs, and their data from the folder of either.

    Raises:
        UsageError: the data of both has changed or moved.
    """
    spec = a.spec()
    cls = load_recorded("task", spec.task, spec.task_hash)
    task: Task = cls(msgspec.convert(dict(spec.task_params), cls.Params))

    data_folders = [None] if spec.sample else [run.summary().data for run in (a, b)]
    for data_folder in data_folders:
        dataset = find_dataset(task, spec, data_folder)
        if dataset is not None:
            return task, dataset
    raise UsageError(explain_missing_data(task, a.summary()) + spec.version_note)


def pair_answers(a: RunFolder, b: RunFolder, dataset: Dataset) -> Iterator[AnswerPair]:
    """Pair the answers to every sample that both runs answered, in file order."""
    sample_ids = [sample_id for sample_id, _ in dataset.index()]
    predictions_a = a.ordered_predictions(sample_ids)
    predictions_b = b.ordered_predictions(sample_ids)
    pairs = zip(predictions_a, predictions_b, strict=True)
    for position, (prediction_a, prediction_b) in enumerate(pairs):
        answer_a, answer_b = _answer(prediction_a), _answer(prediction_b)
        if answer_a is not None and answer_b is not None:
            yield AnswerPair(dataset.load(position), answer_a, answer_b)


def _answer(prediction: Prediction | None) -> str | None:
    """The answer as the judge is shown it; None if the sample has none."""
    if prediction is None or prediction.error is not None:
        return None
    # Shown nothing, a judge may take the next heading for the answer.
    return (prediction.output or "").strip() or "(an empty reply)"


def check_comparable(a: RunFolder, b: RunFolder) -> list[str]:
    """Check that two runs answer the same questions, and return warnings.

    Raises:
        UsageError: they do not, or they are one run.
        DataError: answers have changed since the run was scored.
    """
    spec_a, spec_b = a.spec(), b.spec()
    if spec_a.fingerprint == spec_b.fingerprint:
        raise UsageError(f"{a.path} is judged against itself; name two runs")

    for name, of_a, of_b in _question_fields(spec_a, spec_b):
        if of_a != of_b:
            texts = str(of_a)[:_VALUE_LENGTH], str(of_b)[:_VALUE_LENGTH]
            raise UsageError(
                f"the runs answer different questions: {name} is {texts[0]} and {texts[1]}"
            )
    for folder in (a, b):
        folder.verify(folder.predictions_path)
    if spec_a.simulator != spec_b.simulator:
        raise UsageError(
            "the runs had different simulated users: the simulator is "
            f"{_simulator_name(spec_a)} and {_simulator_name(spec_b)}"
        )

    warnings = []
    if spec_a.task_hash != spec_b.task_hash:
        warnings.append("the task's source changed between the runs; their prompts may differ")
    if spec_a.sampling != spec_b.sampling:
        warnings.append(
            "the runs differ in decoding: "
            f"{to_json(spec_a.sampling)} and {to_json(spec_b.sampling)}"
        )
    return warnings


def _question_fields(a: RunSpec, b: RunSpec) -> Iterator[tuple[str, Any, Any]]:
    """Yield everything that determines the questions, with the values of both runs."""
    for name in ("task", "separation", "split", "data_hash"):
        yield name, getattr(a, name), getattr(b, name)
    for name in sorted({*a.task_params, *b.task_params}):
        yield f"task.{name}", a.task_params.get(name), b.task_params.get(name)


def _simulator_name(spec: RunSpec) -> str:
    return spec.simulator["name"] if spec.simulator else "none"
