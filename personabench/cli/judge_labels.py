"""One's own labels for the judgements of a run: the file to fill in, and its comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from personabench.errors import DataError, UsageError

if TYPE_CHECKING:
    from personabench.metrics.judges.score_agreement import ScoreAgreement
    from personabench.types import Judgement


class _ScoreLabel(msgspec.Struct, frozen=True):
    """A line of a file of labels: a score of the whole answer, or one for each criterion.

    `run` limits it to runs whose id begins so, since the sample browser of a report rates the
    answers of several runs.
    """

    id: str
    label: float | None = None
    labels: dict[str, float | None] = {}
    run: str = ""


def read_score_labels(
    path: Path, run: str, rubric: Mapping[str, Any] | None = None
) -> dict[str, dict[str, float]]:
    """Read scores by sample id and criterion; those that are null are not given yet.

    Args:
        run: the id of the run that the answers are from.
        rubric: the rubric that the answers were scored by, if they were; labels have its scale.

    Raises:
        DataError: a line is something else, or a score is not on the rubric's scale.
    """
    from personabench.metrics.judges.score_agreement import TOTAL

    labels: dict[str, dict[str, float]] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            item = msgspec.json.decode(line, type=_ScoreLabel)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DataError(
                f'{path}, line {number}: expected {{"id": ..., "label": NUMBER}} or {{"id": ..., '
                f'"labels": {{"CRITERION": NUMBER}}}}: {error}'
            ) from error
        if not run.startswith(item.run):
            continue
        given = {name: score for name, score in item.labels.items() if score is not None}
        if item.label is not None:
            given[TOTAL] = item.label
        if rubric:
            _check_scores(given, rubric, f"{path}, line {number}")
        if given:
            labels[item.id] = given
    return labels


def _check_scores(scores: Mapping[str, float], rubric: Mapping[str, Any], place: str) -> None:
    """Check that scores are of a rubric's criteria and on its scale.

    Raises:
        DataError: one is not; the message names `place` and the criterion.
    """
    from personabench.metrics.judges.score_agreement import TOTAL

    low, high = rubric["scale"]
    for name, score in scores.items():
        if name not in rubric["criteria"] and name != TOTAL:
            raise DataError(
                f"{place}: the rubric has no criterion '{name}'; it has "
                f"{', '.join(rubric['criteria'])}"
            )
        if not low <= score <= high:
            criterion = "label" if name == TOTAL else f"'{name}'"
            raise DataError(
                f"{place}: {criterion} is {score:g}; the rubric's scale is {low} to {high}"
            )


def write_label_file(
    path: Path,
    file: Path,
    judgements: Sequence[Judgement],
    count: int,
    rubric: Mapping[str, Any] | None = None,
) -> int:
    """Write answers to label, with null for each label; return their number.

    The judge's own scores are not among them, so that they cannot be followed. The
    rest of its request is.

    Args:
        file: the judgements, in their run folder.
        rubric: the rubric that the answers were scored by, if they were.

    Raises:
        UsageError: nothing is judged, or the file cannot be written.
    """
    from personabench.metrics.judges.score_agreement import (
        TOTAL,
        choose_for_labels,
        scores_of,
    )
    from personabench.results.files import replacing
    from personabench.types import to_json

    chosen = choose_for_labels(judgements, count)
    if not chosen:
        raise UsageError(f"{file} holds no judged answer to label")
    criteria = {item.sample_id: [*scores_of(item)] for item in judgements}
    lines = []
    for sample_id, texts in _read_texts(file.absolute().parents[1], chosen, rubric or {}):
        names = [name for name in criteria[sample_id] if name != TOTAL] or [TOTAL]
        lines.append(to_json({"id": sample_id, "labels": dict.fromkeys(names), **texts}) + "\n")
    try:
        with replacing(path) as temporary, temporary.open("x", encoding="utf-8") as target:
            target.writelines(lines)
    except OSError as error:
        raise UsageError(f"--ask {path} cannot be written: {error.strerror or error}") from error
    return len(lines)


def _read_texts(
    run: Path, samples: Sequence[str], rubric: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the question, the references and the answer of each sample of a run folder.

    With a rubric that shows the judge the user's records, also these, and its criteria and scale.
    """
    from personabench.results.locate import find_dataset, find_task
    from personabench.results.run_folder import RunFolder

    folder = RunFolder(run)
    spec, summary = folder.spec(), folder.summary()
    task = find_task(spec.task, spec.task_params, spec.task_hash)
    dataset = find_dataset(task, summary, summary.data) if task else None
    index = dataset.index() if dataset else ()
    positions = {sample: position for position, (sample, _) in enumerate(index)}
    for sample_id in samples:
        prediction = folder.prediction(sample_id)
        texts: dict[str, Any] = {"answer": prediction.output if prediction else None}
        if dataset is not None and sample_id in positions:
            sample = dataset.load(positions[sample_id])
            texts = {"question": sample.input, "references": list(sample.references), **texts}
            if task is not None and "history" in rubric.get("shows", ()):
                newest = sample.history[-rubric["records"] :]
                texts["history"] = [task.describe(record) for record in newest]
        if rubric:
            texts["scale"] = list(rubric["scale"])
        yield sample_id, texts


def agreement_lines(agreements: Sequence[ScoreAgreement], labelled: int) -> list[str]:
    """Format the agreement with labels, and say how far to trust the judge."""
    from personabench.metrics.judges.score_agreement import RECOMMENDED

    lines = []
    for item in agreements:
        correlation = "–" if item.correlation is None else f"{item.correlation:.2f}"
        if item.low is not None and item.high is not None:
            correlation += f" ({item.low:.2f} … {item.high:.2f})"
        lines.append(
            f"{item.criterion}: {item.verdict}. Rank correlation {correlation}, equal scores "
            f"{item.exact:.0%}, judge {item.bias:+.2f} on average, off by {item.difference:.2f}, "
            f"n={item.n}"
        )
    if labelled < RECOMMENDED:
        lines.append(
            f"labels {labelled} of {RECOMMENDED}: whether this judge agrees with you is not known "
            "well; --ask FILE writes answers to label, --labels FILE reads them"
        )
    return lines
