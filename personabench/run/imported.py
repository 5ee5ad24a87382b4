"""Imported rows: answers of a system that runs elsewhere, scored as a run of this harness.

A fine-tuned model, an adapter per user or a recommender is no method here, yet its answers can
stand in a leaderboard: they pass through the same reading, metrics, statistics and judges as those
of a method.  A card names their origin and the system's training data.  Its model is
never called.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from personabench.api.context import Context
from personabench.api.dataset import Dataset, load_sample
from personabench.api.id_check import compare_ids
from personabench.api.method import Method
from personabench.api.task import Task
from personabench.errors import BackendError, DataError, PluginError
from personabench.hashing import digest
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.tokens import EstimatedTokens
from personabench.run.answer_file import Answer, read_lines, unpacked
from personabench.run.score_file import read_predictions
from personabench.types import Request, Response, Sample

PREFIX = "imported:"
"""What the names of imported methods begin with, in every table."""


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The origin of imported answers, as stated in a file in YAML or JSON.

    Attributes:
        method: the name of the system.
        model: the name of its model; rows are compared with those of the same name.
        trained_on: its training data: samples of the training split, users' histories, both, none,
            or unknown.
        paper, code, commit: its sources.
        params: its parameters.
        gpu_hours: the time of its training.
        seen: ids of the records that it has read, by user; left out if unknown.
        note: anything else that a reader of the scores must know.
    """

    method: str
    model: str
    trained_on: Literal["train", "history", "both", "none", "unknown"]
    paper: str = ""
    code: str = ""
    commit: str = ""
    params: dict[str, Any] = {}
    gpu_hours: float | None = None
    seen: dict[str, list[str]] | None = None
    note: str = ""

    def to_json_object(self) -> dict[str, Any]:
        """The card without its lists of records, which are as private as the records."""
        public = msgspec.structs.replace(self, seen=None)
        fields: dict[str, Any] = msgspec.to_builtins(public, str_keys=True)
        return {name: value for name, value in fields.items() if value not in ("", {}, None)}


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        DataError: it cannot be read, a field is unknown, missing or of the wrong type.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"--card {path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"--card {path} is neither YAML nor JSON: {error}") from error

    fields = Card.__struct_fields__
    expected = f"expected method, model and trained_on, and optionally {', '.join(fields[3:])}"
    if not isinstance(content, dict):
        raise DataError(f"--card {path}: {expected}")
    for name in content:
        if name not in fields:
            nearest = difflib.get_close_matches(str(name), fields, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else expected
            raise DataError(f"--card {path}: unknown field '{name}'; {hint}")
    try:
        card = msgspec.convert(content, Card)
    except msgspec.ValidationError as error:
        raise DataError(f"--card {path}: {error}; {expected}") from error
    for name in ("method", "model"):
        text: str = getattr(card, name)
        if not text.strip():
            raise DataError(f"--card {path}: {name} is empty")
    return card


@dataclass(frozen=True)
class ImportedAnswers:
    """The answers of one seed, by sample id.

    Attributes:
        origin: the file, for messages.
        outputs: the answers, each a text or a score for each choice of the sample.
        users: the users that the file names, by sample id.
    """

    origin: str
    seed: int
    outputs: Mapping[str, str | tuple[float, ...]]
    users: Mapping[str, str]

    @property
    def identity(self) -> str:
        """The hash of the answers."""
        return digest([self.seed, dict(sorted(self.outputs.items()))])


def read_answers(task: Task, path: Path) -> list[ImportedAnswers]:
    """Read the answers of a file, one entry for each seed that it names.

    Args:
        path: JSON lines of `{"id", "output"}` with an optional `seed` and `user_id`, the task's
            official format, or a run folder.

    Raises:
        DataError: the file is damaged, an answer is missing, or an id occurs twice.
    """
    if path.is_dir():
        stated, answers = read_predictions(task, path)
    else:
        stated = None
        with unpacked(path) as file:
            lines = read_lines(file)
            if lines is None:
                stated, lines = read_predictions(task, file)
        answers = lines
    if stated is not None and stated != task.name:
        raise DataError(f"{path} holds answers to {stated}, not to {task.name}")

    by_seed: dict[int, list[Answer]] = {}
    for answer in answers:
        by_seed.setdefault(answer.seed or 0, []).append(answer)
    return [_collect(path, seed, group) for seed, group in sorted(by_seed.items())]


def _collect(path: Path, seed: int, answers: Sequence[Answer]) -> ImportedAnswers:
    counts = Counter(answer.id for answer in answers)
    repeated = [sample_id for sample_id, count in counts.items() if count > 1]
    if repeated:
        raise DataError(
            f"{path}: {len(repeated)} ids occur more than once, such as '{repeated[0]}'; answers "
            "of several seeds need a field `seed`"
        )
    outputs: dict[str, str | tuple[float, ...]] = {}
    for answer in answers:
        # An answer of null is one that the system did not give.
        output = answer.output if answer.scores is None else answer.scores
        if output is not None:
            outputs[answer.id] = output
    users = {answer.id: answer.user_id for answer in answers if answer.user_id is not None}
    return ImportedAnswers(str(path), seed, outputs, users)


def check_answers(
    answers: ImportedAnswers, card: Card, dataset: Dataset, positions: Sequence[int]
) -> None:
    """Check that answers belong to the samples of a split, and that nothing forbidden was read.

    Args:
        positions: the samples that are scored.

    Raises:
        DataError: an id, or a user, is not of the split; the card names a record that is not in the
            history of a sample of its user.
    """
    index = dataset.index()
    sample_ids = {sample_id for sample_id, _ in index}
    unknown = compare_ids(sample_ids, list(answers.outputs)).extra
    if unknown:
        raise DataError(
            f"{answers.origin}: {len(unknown)} ids are not among the {len(sample_ids)} samples of "
            f"{dataset.source}, such as '{unknown[0]}'"
        )
    users = dict(index)
    for sample_id, user in answers.users.items():
        if users[sample_id] != user:
            raise DataError(
                f"{answers.origin}: sample '{sample_id}' is of user '{users[sample_id]}', not of "
                f"'{user}'"
            )
    if card.seen is not None:
        for position in positions:
            _check_seen(load_sample(dataset, position, index), card.seen)


def _check_seen(sample: Sample, seen: Mapping[str, Sequence[str]]) -> None:
    visible = {record.id for record in sample.history}
    for record_id in seen.get(sample.user_id, ()):
        if record_id not in visible:
            raise DataError(
                f"the card says that the system has read record '{record_id}' of user "
                f"'{sample.user_id}', which is not in the history of sample '{sample.id}': scores "
                "of this sample would not be of unseen data"
            )


class ImportedMethod(Method):
    """The answers of a system that runs elsewhere."""

    name = PREFIX
    answers: ImportedAnswers

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        output = self.answers.outputs.get(sample.id)
        if output is None:
            raise PluginError(f"{self.answers.origin} has no answer to sample '{sample.id}'")
        if isinstance(output, str):
            return output
        return _choose(sample, output, ctx)


def _choose(sample: Sample, scores: tuple[float, ...], ctx: Context) -> str:
    """The choice of the highest score, the first of equal ones."""
    if len(scores) != len(sample.choices):
        raise PluginError(
            f"sample '{sample.id}' has {len(sample.choices)} choices and {len(scores)} scores"
        )
    highest = max(scores)
    if scores.count(highest) > 1:
        ctx.flag("score_ties")
    return sample.choices[scores.index(highest)]


def imported_method(card: Card, answers: ImportedAnswers) -> type[Method]:
    """Return the method of some answers, which is known by their content and not by its code."""
    identity = digest([msgspec.to_builtins(card, str_keys=True), answers.identity])
    attributes = {"name": f"{PREFIX}{card.method}", "answers": answers, "code": identity}
    return type("Imported", (ImportedMethod,), attributes)


class ImportedModel(Backend):
    """The model of imported answers: a name."""

    def __init__(self, card: Card) -> None:
        super().__init__(BackendOptions(model=card.model))
        self.tokens = EstimatedTokens()
        self.identity = {"kind": "imported", "name": card.model}

    async def identify(self) -> None:
        """See `Backend`: the identity is known from the start."""

    async def complete(self, request: Request, group: str) -> Response:
        raise BackendError("the model of imported answers cannot be called")
